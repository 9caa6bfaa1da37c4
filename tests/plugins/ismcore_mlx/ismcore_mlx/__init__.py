"""MLX, as a backend of ismcore: float32 alone."""
