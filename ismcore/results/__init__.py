"""What comes out of a fit, and what can be asked of it."""
