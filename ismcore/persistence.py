"""Saving and loading results."""
from ismcore.result import FitResult
def save(result, path): raise NotImplementedError
def load(path, model=None): raise NotImplementedError
