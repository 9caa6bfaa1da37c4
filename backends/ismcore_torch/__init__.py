"""The torch backend of ismcore."""
