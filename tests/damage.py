"""Changes of what a file holds, for files that are damaged on purpose."""


def put(path, value):
    """A change of the content at a path of keys."""
    *parents, last = path.split("/")

    def change(content, tensors):
        for parent in parents:
            content = content[parent]
        content[last] = value

    return change
