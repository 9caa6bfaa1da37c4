"""Fits that the devices of JAX share: the mesh of all, and what their processes tell each other beside it."""
