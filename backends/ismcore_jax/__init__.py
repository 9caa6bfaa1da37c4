"""The JAX backend of ismcore."""
