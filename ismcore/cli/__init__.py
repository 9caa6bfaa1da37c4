"""The command `ismcore`."""
