"""Gaps between clusters of a sample, across which score matching cannot see, and the modes that they part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ismcore.errors import FileInvalid
from ismcore.samples.dependence import along, resolution

__all__ = ["NOT_COUNTED", "Gap", "Modes", "emptiest_gap", "modes_of"]

ROWS, NUMBERS = 20_000, 1_000_000
"""A gap is looked for in at most so many rows and numbers of the sample; its rows are then counted in the whole sample."""

COLUMNS, COMPONENTS = 16, 3
BINS = 128

LEAST_SHARE = 0.02
"""Both clusters hold at least this part of the rows."""

HALF_WIDTH = 0.75
"""Half the width of a gap, in standard deviations of the narrower cluster."""

EMPTY, BY_CHANCE = 0.2, 4.0
"""A gap of r rows counts where (r + BY_CHANCE) / p < EMPTY, p the rows of the fullest window of its width beside it."""

BLIND = 15
"""Rows in the gap up to which the fitted weights of the clusters are off. In default fits to two unit Gaussians, weighted 1 : 1
and 1 : 9, of 1000 and 10,000 rows, the log-odds are wrong by less than 0.1 above some 30 rows and by 0.2 to 0.5 below 15:
docs/decisions/2026-11-23-default-protocol.md."""

FEWEST = 20
"""Of fewer independent rows no gap is told."""

MOST, MOST_TOLD = 64, 6
"""Most modes, and most whose shares are written out."""


NOT_COUNTED = (
    "whether the samples have modes far apart is not known here: log_density and density give such modes the masses that the "
    "fitted score makes of the empty region between them, and not the shares of their rows; as_energy(x) counts them in x"
)
"""A note of results that are made without a look at the samples."""


@dataclass(frozen=True)
class Gap:
    """A gap between two clusters along a direction.

    Attributes:
        direction: "column 3" or "principal component 1".
        low: Where it begins: [x] along a column, standard deviations of the columns along a component.
        high: Where it ends.
        rows: Rows in it.
        share: Part of the rows below it.
        column: The column that it is along, if it is along one.
    """

    direction: str
    low: float
    high: float
    rows: int
    share: float
    column: int | None = None


NARROW = 10.0
"""A component whose standard deviation is not so many times its rounding is not looked at: its gaps are between roundings."""


def emptiest_gap(x: np.ndarray, columns: np.ndarray, dtype: str = "float64") -> Gap | None:
    """The emptiest gap of a sample along its columns and leading principal components, if it is empty enough to matter.

    Each direction is cut wherever at least 2 % of the rows lie on either side. The gap of a cut is 1.5 standard deviations of
    the narrower side wide, and must be empty in relation to the fullest window of that width on either side, so that a tail,
    however long, is none; and it must hold 15 rows at most, so that a sparse valley of a large sample is none.

    Args:
        x: Samples (n, d), in units [x].
        columns: The columns to look at, none of them constant or discrete; the first 16 are taken alone, all of them for the
            components.
        dtype: "float32" or "float64", in which a fit computes: components narrower than its rounding are passed over.

    Cost: at most 19 histograms of 20,000 rows, and d^2 of those rows for the components. Modes that only another direction
        tells apart go unseen, as do clusters of less than some 20 rows.
    """
    found = _gap_along(x, columns, dtype)
    return None if found is None else found[0]


def _gap_along(x: np.ndarray, columns: np.ndarray, dtype: str) -> tuple[Gap, np.ndarray, float] | None:
    """The emptiest gap, its direction in the columns, (k,), and where along it 0 of its ends is; see `emptiest_gap`."""
    n, d = x.shape
    rows = min(n, ROWS, max(2000, NUMBERS // d))
    some = x if rows == n else x[np.random.default_rng(1).choice(n, rows, replace=False, shuffle=False)]
    some = some[:, columns]
    found = []
    for name, axis, origin in _directions(some, dtype):
        emptiness, low, high, share = _emptiest(some @ axis - origin)
        if emptiness < EMPTY:
            found.append((emptiness, name, axis, origin, low, high, share))
    for _, name, axis, origin, low, high, share in sorted(found, key=lambda row: row[0])[:3]:
        view = x[:, columns] @ axis - origin
        inside = int(np.count_nonzero((view >= low) & (view < high)))
        if inside <= BLIND:
            column = None if name.startswith("principal") else int(columns[int(name)])
            return Gap(name if column is None else f"column {column}", low, high, inside, share, column), axis, origin
    return None


def _directions(x: np.ndarray, dtype: str) -> Iterator[tuple[str, np.ndarray, float]]:
    """Columns, by number, and principal components of the standardised columns: name, axis (d,), projection of the mean."""
    d = x.shape[1]
    for j in range(min(d, COLUMNS)):
        yield str(j), np.eye(1, d, j)[0], 0.0
    if d > 1:
        with np.errstate(all="ignore"):  # what cannot be standardised is refused elsewhere
            mean, scale = x.mean(axis=0), x.std(axis=0)
            z = (x - mean) / scale
            rounding = resolution(x, dtype)
        if not np.isfinite(z).all():
            return
        for k, axis in enumerate(np.linalg.eigh(z.T @ z)[1].T[::-1][:COMPONENTS]):
            if not np.std(z @ axis) > NARROW * along(axis, rounding):
                return  # and no component after it is wider
            yield f"principal component {k + 1}", axis / scale, float(mean @ (axis / scale))


def _emptiest(view: np.ndarray) -> tuple[float, float, float, float]:
    """Emptiness (r + 4) / p, both ends, and share below, of the emptiest gap of a projection (m,)."""
    m = len(view)
    # Far tails would coarsen the bins: they go into the two outermost.
    start, stop = np.quantile(view[:5000], [0.005, 0.995])
    step = (stop - start) / BINS
    if not step > 0.0:
        return np.inf, start, stop, 1.0
    place = np.clip((view - start) / step, -0.5, BINS + 0.5) + 1.0
    count = np.bincount(place.astype(np.int64), minlength=BINS + 2).astype(np.float64)
    below = np.concatenate([[0.0], np.cumsum(count)])  # rows below each of BINS + 3 edges

    cut = np.arange(1, BINS + 2)
    half = np.clip(np.round(HALF_WIDTH * _narrower(count)), 1, BINS // 4).astype(np.int64)
    enough = np.minimum(below[cut], m - below[cut]) >= LEAST_SHARE * m
    usable = enough & (cut - half >= 1) & (cut + half <= BINS + 1)
    if not usable.any():
        return np.inf, start, stop, 1.0
    cut, half = cut[usable], half[usable]

    # Rows in windows from every edge (column), as wide as the gaps are (row); of those to the left of a cut, and to its right,
    # the fullest.
    widths, row = np.unique(2 * half, return_inverse=True)
    edge = np.arange(BINS + 3)
    window = below[np.minimum(edge + widths[:, None], BINS + 2)] - below[edge]
    last = cut - 2 * half
    left = np.where(last >= 0, np.maximum.accumulate(window, axis=1)[row, np.maximum(last, 0)], 0.0)
    right = np.maximum.accumulate(window[:, ::-1], axis=1)[:, ::-1][row, cut]
    inside = below[cut + half] - below[cut - half]
    emptiness = (inside + BY_CHANCE) / np.maximum(np.minimum(left, right), 1.0)
    k = int(np.argmin(emptiness))
    low, high = start + (cut[k] - half[k] - 1) * step, start + (cut[k] + half[k] - 1) * step
    return float(emptiness[k]), float(low), float(high), float(below[cut[k]] / m)


def _narrower(count: np.ndarray) -> np.ndarray:
    """The smaller of the standard deviations left and right of each inner edge of a histogram, in bins."""
    middle = np.arange(len(count)) + 0.5
    moments = np.stack([np.cumsum(count * middle**power) for power in range(3)])
    sides = [moments[:, :-1], moments[:, -1:] - moments[:, :-1]]
    variances = [two / np.maximum(rows, 1.0) - (one / np.maximum(rows, 1.0)) ** 2 for rows, one, two in sides]
    return np.asarray(np.sqrt(np.maximum(np.minimum(*variances), 0.0)))


@dataclass(frozen=True, eq=False)
class Modes:
    """Modes of a sample that lie apart, and the share of its rows in each; it has one more modes than splits, K.

    Split k takes apart the region of mode `of[k]`: points with normals[k] . x >= cuts[k] belong to mode k + 1 from then on, the
    others stay where they are. Each cut is in the middle of a gap, so that the sample has no rows near it.

    Attributes:
        normals: (K, d), in 1/[x] or without a unit.
        cuts: (K,).
        of: (K,), the mode that each split takes apart, at most k.
        shares: Share of the rows, or of their weight, in each mode, (K + 1,), of sum 1.
        centres: Mean of the rows of each mode, (K + 1, d), in [x].
    """

    normals: np.ndarray
    cuts: np.ndarray
    of: np.ndarray
    shares: np.ndarray
    centres: np.ndarray

    def __len__(self) -> int:
        return len(self.shares)

    def number(self, x: np.ndarray) -> np.ndarray:
        """The number of the mode whose region each point of x, (m, d), lies in, (m,)."""
        found = np.zeros(len(x), dtype=np.int64)
        with np.errstate(all="ignore"):  # far out a point may not be finite, and belongs to any
            for k, (normal, cut, of) in enumerate(zip(self.normals, self.cuts, self.of, strict=True)):
                found[(found == of) & (x @ normal >= cut)] = k + 1
        return found

    @property
    def in_words(self) -> str:
        """How many there are, and what follows, as a note of a fit."""
        shares = [f"{share:.3g}" for share in self.shares]
        few = ", ".join(shares) if len(shares) <= MOST_TOLD else f"{', '.join(shares[:MOST_TOLD])}, ..."
        return (
            f"the samples have {len(self)} modes far apart, with {few} of the rows, by weight: log_density and sample give "
            "them these shares, which no score tells"
        )

    def check(self, d: int) -> None:
        """Refuse arrays that do not go together, as a file may hold them.

        Raises:
            FileInvalid: The message says which.
        """
        k = len(self.cuts) if self.cuts.ndim == 1 else 0
        shapes = {"normals": (k, d), "cuts": (k,), "shares": (k + 1,), "centres": (k + 1, d)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if not 0 < k < MOST or array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
                raise FileInvalid(f"its modes have {name} of shape {array.shape}, which are none of {d} columns")
        if self.of.shape != (k,) or self.of.dtype != np.int64 or (self.of < 0).any() or (self.of > np.arange(k)).any():
            raise FileInvalid("its modes take apart what is not there")
        if not (self.shares > 0.0).all() or not abs(self.shares.sum() - 1.0) < 1e-9:
            raise FileInvalid(f"its modes have shares {self.shares.tolist()!r:.80}, which are not positive and of sum 1")


def modes_of(x: np.ndarray, weight: np.ndarray | None, apart: np.ndarray, columns: np.ndarray, dtype: str) -> Modes | None:
    """The modes of a sample: it is cut in its emptiest gap, and so is each part, until no part has a gap.

    Args:
        x: Samples, (n, d), in [x].
        weight: Of the rows, (n,), of sum 1; None where all weigh alike.
        apart: Those of the rows that are independent, (m, d), in which gaps are looked for.
        columns: See `emptiest_gap`.
        dtype: See `emptiest_gap`.

    Returns:
        None where there is one.

    Cost: that of `emptiest_gap` for each mode and each split.
    """
    number, parts = np.zeros(len(apart), dtype=np.int64), [0]
    splits: list[tuple[np.ndarray, float, int]] = []
    while parts and len(splits) + 1 < MOST:
        of = parts.pop()
        found = _split(apart[number == of], columns, dtype)
        if found is None:
            continue
        normal, cut = found
        splits.append((normal, cut, of))
        number[(number == of) & (apart @ normal >= cut)] = len(splits)
        parts += [of, len(splits)]
    if not splits:
        return None
    normals, cuts, ofs = (np.array(values) for values in zip(*splits, strict=True))
    none = np.zeros(len(splits) + 1)
    at = Modes(normals, cuts, ofs, none, none[:, None]).number(x)
    share = np.full(len(x), 1.0 / len(x)) if weight is None else weight
    shares = np.bincount(at, share, len(none))
    centres = np.stack([np.bincount(at, share * column, len(none)) / shares for column in x.T], axis=1)
    return Modes(normals, cuts, ofs, shares / shares.sum(), centres)


def _split(x: np.ndarray, columns: np.ndarray, dtype: str) -> tuple[np.ndarray, float] | None:
    """A normal, (d,), and a cut in the middle of the widest space between rows in the emptiest gap; None without one."""
    if len(x) < FEWEST:
        return None
    columns = columns[np.ptp(x[:, columns], axis=0) > 0.0]
    found = _gap_along(x, columns, dtype) if len(columns) else None
    if found is None:
        return None
    gap, axis, origin = found
    normal = np.zeros(x.shape[1])
    normal[columns] = axis
    view = np.sort(x @ normal)
    low, high = view[:-1], view[1:]
    space = np.where((low < gap.high + origin) & (high > gap.low + origin), high - low, 0.0)
    widest = int(np.argmax(space))
    return normal, float(0.5 * low[widest] + 0.5 * high[widest])
