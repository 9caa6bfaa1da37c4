"""Saving and loading results."""


def save(result, path):
    raise NotImplementedError


def load(path, model=None):
    raise NotImplementedError
