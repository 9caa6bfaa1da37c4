"""`fit`, `resume` and `compare`: from samples to a result."""
