"""NumPy with a tape, as a backend of ismcore."""
