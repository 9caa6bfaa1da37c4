"""The samples: checked, read from files, looked at, split."""
