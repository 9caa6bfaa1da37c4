"""The table of linear functions that move, add or pair entries, in one, two and three dimensions, each in NumPy's own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from ismcore.ops import Array, Ops

__all__ = ["LAYOUT", "Layout"]

SQUARE = np.array([[1.0, 0.5, -2.0], [0.25, -1.0, 0.75], [3.0, -0.5, 1.5]])
"""A constant factor of products, far from symmetric."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A linear function of one array.

    Attributes:
        id: Its name in reports.
        shape: Of the array.
        apply: `apply(ops, a, m)`, as model code would write it; m is `SQUARE` as an array of the framework.
        expected: The same in NumPy, of a alone.
    """

    id: str
    shape: tuple[int, ...]
    apply: Callable[[Ops, Array, Array], Array]
    expected: Callable[[np.ndarray], np.ndarray]


def _sums() -> Iterator[Layout]:
    for shape in ((4,), (2, 3), (3, 3), (2, 3, 3), (2, 3, 4)):
        name = "x".join(map(str, shape))
        yield Layout(f"sum-{name}", shape, lambda ops, a, m: ops.sum(a), lambda a: a.sum())
        for axis in range(len(shape)):
            yield Layout(
                f"sum-{name}-axis{axis}",
                shape,
                lambda ops, a, m, axis=axis: ops.sum(a, axis=axis),  # type: ignore[misc]
                lambda a, axis=axis: a.sum(axis=axis),  # type: ignore[misc]
            )
    yield Layout(
        "sum-of-transposed",
        (3, 3),
        lambda ops, a, m: ops.sum(ops.permute_dims(a, (1, 0)), axis=0),
        lambda a: a.sum(axis=1),
    )


def _joins() -> Iterator[Layout]:
    """Parts of equal width and of unequal, two and three of them, along every axis."""
    for axis in range(3):
        yield Layout(
            f"stack-axis{axis}",
            (3, 3),
            lambda ops, a, m, axis=axis: ops.stack([a, 2.0 * a, -1.0 * a], axis=axis),  # type: ignore[misc]
            lambda a, axis=axis: np.stack([a, 2.0 * a, -a], axis=axis),  # type: ignore[misc]
        )
    for shape in ((3,), (3, 3), (2, 3, 3)):
        for axis in range(len(shape)):
            cut = (slice(None),) * axis + (slice(0, 1),)
            yield Layout(
                f"concat-{'x'.join(map(str, shape))}-axis{axis}",
                shape,
                lambda ops, a, m, axis=axis, cut=cut: ops.concat([a, a[cut], 3.0 * a], axis=axis),  # type: ignore[misc]
                lambda a, axis=axis, cut=cut: np.concatenate([a, a[cut], 3.0 * a], axis=axis),  # type: ignore[misc]
            )
            yield Layout(
                f"concat-equal-{'x'.join(map(str, shape))}-axis{axis}",
                shape,
                lambda ops, a, m, axis=axis: ops.concat([a, 2.0 * a], axis=axis),  # type: ignore[misc]
                lambda a, axis=axis: np.concatenate([a, 2.0 * a], axis=axis),  # type: ignore[misc]
            )
    yield Layout("stack-vectors", (2, 3), lambda ops, a, m: ops.stack([a[1], a[0]]), lambda a: a[::-1])
    yield Layout("stack-columns", (2, 3), lambda ops, a, m: ops.stack([a[:, 2], a[:, 0]], axis=1), lambda a: a[:, [2, 0]])


RESHAPED: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((2, 3), (3, 2)),
    ((4,), (2, 2)),
    ((3, 3), (9,)),
    ((2, 3, 3), (6, 3)),
    ((6, 3), (3, 2, 3)),
    ((1, 4), (4, 1)),
)

BROADCAST: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), (3, 3)),
    ((3,), (3, 3)),
    ((1, 3), (3, 3)),
    ((3, 1), (3, 3)),
    ((3,), (4, 3)),
    ((2, 1, 3), (2, 3, 3)),
    ((3, 3), (3, 3, 3)),
)


def _shapes() -> Iterator[Layout]:
    for old, new in RESHAPED:
        yield Layout(
            f"reshape-{'x'.join(map(str, old))}-{'x'.join(map(str, new))}",
            old,
            lambda ops, a, m, new=new: ops.reshape(a, new),  # type: ignore[misc]
            lambda a, new=new: a.reshape(new),  # type: ignore[misc]
        )
    for old, new in BROADCAST:
        yield Layout(
            f"broadcast-{'x'.join(map(str, old)) or 'number'}-{'x'.join(map(str, new))}",
            old,
            lambda ops, a, m, new=new: ops.broadcast_to(a, new),  # type: ignore[misc]
            lambda a, new=new: np.broadcast_to(a, new),  # type: ignore[misc]
        )
    for shape in ((3, 3), (2, 3), (2, 3, 4), (3, 3, 3)):
        for axes in permutations(range(len(shape))):
            if axes != tuple(range(len(shape))):
                yield Layout(
                    f"permute-{'x'.join(map(str, shape))}-{''.join(map(str, axes))}",
                    shape,
                    lambda ops, a, m, axes=axes: ops.permute_dims(a, axes),  # type: ignore[misc]
                    lambda a, axes=axes: a.transpose(axes),  # type: ignore[misc]
                )


INDEXED = (
    Layout("index", (2, 3), lambda ops, a, m: a[1, 1:] - a[0, 0], lambda a: a[1, 1:] - a[0, 0]),
    Layout("index-twice", (2, 3), lambda ops, a, m: a[:, 0] + 2.0 * a[:, 0] - a[:, 1], lambda a: 3.0 * a[:, 0] - a[:, 1]),
    Layout(
        "index-rows",
        (6, 3),
        lambda ops, a, m: a[0:2] - 2.0 * a[2:4] + 3.0 * a[4:6],
        lambda a: a[:2] - 2.0 * a[2:4] + 3.0 * a[4:],
    ),
    Layout("index-matrix", (2, 3, 3), lambda ops, a, m: a[1] - a[:, :, 2][0], lambda a: a[1] - a[0, :, 2]),
    Layout(
        "new-axes", (2, 3), lambda ops, a, m: a[:, None, :] - a[1][None, :2, None], lambda a: a[:, None, :] - a[1, :2, None]
    ),
    Layout("new-axis-first", (3,), lambda ops, a, m: a[None, :], lambda a: a[None, :]),
    Layout("new-axis-last", (3,), lambda ops, a, m: a[:, None], lambda a: a[:, None]),
)

PRODUCTS = (
    Layout("matmul-left", (3, 3), lambda ops, a, m: a @ m, lambda a: a @ SQUARE),
    Layout("matmul-right", (3, 3), lambda ops, a, m: m @ a, lambda a: SQUARE @ a),
    Layout("matmul-rows", (2, 3), lambda ops, a, m: a @ m, lambda a: a @ SQUARE),
    Layout("matmul-column", (3, 1), lambda ops, a, m: m @ a, lambda a: SQUARE @ a),
    Layout("matmul-transposed", (2, 3), lambda ops, a, m: m @ ops.permute_dims(a, (1, 0)), lambda a: SQUARE @ a.T),
)

LAYOUT = (*_sums(), *_joins(), *_shapes(), *INDEXED, *PRODUCTS)
