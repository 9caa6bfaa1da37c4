"""Samples from files, and the names that their columns have there or in a frame."""
