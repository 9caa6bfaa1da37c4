"""The forms in which callers hand over the same numbers."""

import array as arrays
import tempfile
from pathlib import Path

import numpy as np

FOLDER = tempfile.TemporaryDirectory()
"""For memory maps; gone with the process."""


class Frame:
    """As a data frame is: columns with names, which iterating gives, rows apart, and an array only when asked for."""

    def __init__(self, values):
        self.columns = [f"column {i}" for i in range(values.shape[1])]
        self._values = values
        self.index = range(len(values))

    def __len__(self):
        return len(self.index)

    def __iter__(self):
        return iter(self.columns)

    def __getitem__(self, column):
        return self._values[:, self.columns.index(column)]

    @property
    def shape(self):
        return self._values.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self._values, dtype=dtype)


class OldFrame(Frame):
    """One from before NumPy 2, whose method takes no `copy`."""

    def __array__(self, dtype=None):
        return np.array(self._values, dtype=dtype)


class Described:
    """Memory that another library owns."""

    def __init__(self, values):
        self._kept = values
        self.__array_interface__ = values.__array_interface__


class Subclass(np.ndarray):
    """An array whose arithmetic is not NumPy's."""

    def __array_ufunc__(self, *inputs, **options):
        raise AssertionError("the array's own arithmetic was used")


def mapped(x):
    path = Path(FOLDER.name, "x.npy")
    np.save(path, x)
    return np.load(path, mmap_mode="r")


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def strided(x):
    return np.repeat(np.repeat(x, 2, axis=0), 3, axis=x.ndim - 1)[::2, ..., ::3] if x.ndim > 1 else np.repeat(x, 2)[::2]


def backwards(x):
    return x[::-1].copy()[::-1]


def misaligned(x):
    room = np.zeros(x.nbytes + 1, np.uint8)[1:]
    found = room.view(x.dtype) if x.dtype.itemsize == 1 else np.frombuffer(room.data, x.dtype)
    found = found.reshape(x.shape)
    found[...] = x
    return found


def torch_tensor(x):
    import torch

    return torch.tensor(np.ascontiguousarray(x))


def torch_parameter(x):
    tensor = torch_tensor(x)
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def torch_view(x):
    return torch_tensor(x.T.copy()).permute(*reversed(range(x.ndim)))


def jax_array(x):
    import jax

    with jax.enable_x64(True):
        return jax.numpy.asarray(x)


ANY = {
    "array": lambda x: x,
    "fortran": np.asfortranarray,
    "transposed": lambda x: x.T.copy().T,
    "backwards": backwards,
    "strided": strided,
    "misaligned": misaligned,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": read_only,
    "memory map": mapped,
    "objects": lambda x: x.astype(object),
    "list": lambda x: x.tolist(),
    "tuple of rows": tuple,
    "nothing masked": np.ma.masked_array,
    "subclass": lambda x: x.view(Subclass),
    "described": Described,
    "memory view": memoryview,
}
"""For arrays of every shape and dtype."""

TABLES = {"frame": Frame, "old frame": OldFrame}
"""For arrays (n, d)."""

COLUMNS = {"typed array": lambda x: arrays.array(x.dtype.char, x.tolist()) if x.dtype.char in "bBhHiIlLfd" else x}
"""For arrays (n,)."""

TENSORS = {"torch": torch_tensor, "torch parameter": torch_parameter, "torch view": torch_view, "jax": jax_array}
"""For dtypes that the frameworks have."""


def forms(x):
    """The names of all forms that these numbers can have."""
    if not x.ndim:
        return {name: ANY[name] for name in ("array", "objects", "list", "read-only")}
    found = {**ANY, **(TABLES if x.ndim == 2 else COLUMNS if x.ndim == 1 else {})}
    return {**found, **TENSORS} if x.dtype.itemsize <= 8 else found
