"""The coordinates that a model is trained in, z = A (t(x) - m): shift, scale, transform and whitening as one noun.

Shift and scale stay outside of a model's parameters, in float64; why is in
docs/decisions/2026-11-27-coordinates-outside-of-parameters.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ismcore.calculus import Calculus, NumpyCalculus
from ismcore.coordinates.precision import beyond_float32, check_float32, in_two
from ismcore.coordinates.scaling import Standardize, check_options, moments, quartiles, whitening
from ismcore.coordinates.transforms import ByColumn, Transform, Transforms, check_transforms, find, in_words
from ismcore.errors import OptionError, SamplesError
from ismcore.ops import Array

__all__ = ["Coordinates"]

ENDS = (("lower", -np.inf), ("upper", np.inf))
"""Ends of the range of a transform, by the name of its attribute, and those of the identity."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Coordinates z of points x, both (n, d), and what they make of scores and densities.

        z = A (t(x) - m),   t_i(x) = f_i((x_i - mean_i) / scale_i)

    with f_i the identity or a transform of `ismcore.coordinates.transforms`, A diagonal or a matrix, u = (x - mean) / scale and
    g = A^T psi(z). A score psi of z, with Jacobian J, is in the units of x

        score_i    = (f'(u_i) g_i + (log f')'(u_i)) / scale_i
        diagonal_i = (f'(u_i)^2 (A^T J A)_ii + f'(u_i) (log f')'(u_i) g_i + (log f')''(u_i)) / scale_i^2
        log p(x)   = log p(z) + log |det A| + sum_i [ log f'(u_i) - log scale_i ]

    All is float64, but where a calculus of another dtype is passed.

    Attributes:
        mean: Shift of each column, (d,), in [x].
        scale: Scale of each column, (d,), in [x], positive.
        transform: f for all columns, by name or itself, or a tuple of one for each; None for the identity.
        shift: m, (d,), without a unit; None for 0.
        matrix: A, (d,) where it is diagonal, or (d, d), without a unit; None for the identity.

    Raises:
        OptionError: Arrays of other shapes, numbers that are not finite, a scale that is not positive, a matrix without an
            inverse, or an unknown transform.

    Example:
        >>> z = Coordinates(np.array([1.0]), np.array([2.0]))
        >>> z(np.array([[5.0]])), z.score(np.array([[5.0]]), np.array([[-2.0]]))
        (array([[2.]]), array([[-1.]]))
    """

    mean: np.ndarray
    scale: np.ndarray
    transform: Transforms = None
    shift: np.ndarray | None = None
    matrix: np.ndarray | None = None
    _f: Transform | None = field(init=False, repr=False)
    _away: float = field(init=False, repr=False)
    _in_two: dict[str, tuple[np.ndarray, np.ndarray | None]] = field(init=False, repr=False)
    _beyond_float32: str | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        d = np.size(self.mean)
        for name in ("mean", "scale", "shift", "matrix"):
            array, shapes = getattr(self, name), [(d,), (d, d)] if name == "matrix" else [(d,)]
            if array is None and name in ("shift", "matrix"):
                continue
            good = isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape in shapes and d > 0
            if not (good and np.isfinite(array).all()):
                wanted = " or ".join(map(str, shapes))
                raise OptionError(f"{name} of coordinates must be finite, float64, of shape {wanted}, not {array!r:.80}")
        if not (self.scale > 0.0).all():
            raise OptionError(f"scale of coordinates must be positive, not {self.scale.min()}")
        check_transforms(self.transform, d)
        if self.matrix is not None and not np.isfinite(self._inverse).all():
            raise OptionError("matrix of coordinates has no inverse")
        # in plain attributes, as compilers that trace `of` cannot branch on what an array holds
        object.__setattr__(self, "_f", _function(self.transform))
        with np.errstate(over="ignore"):
            object.__setattr__(self, "_away", float((np.abs(self.mean) / self.scale).max()))
        object.__setattr__(self, "_in_two", {dtype: in_two(self.mean, dtype) for dtype in ("float64", "float32")})
        object.__setattr__(self, "_beyond_float32", beyond_float32(self.mean, self.scale))

    @classmethod
    def identity(cls, d: int) -> Coordinates:
        """Those of the samples themselves."""
        return cls(np.zeros(d), np.ones(d))

    @classmethod
    def by(
        cls, standardize: Standardize, transform: Transforms, x: np.ndarray, weight: np.ndarray | None = None
    ) -> Coordinates:
        """Those that `ismcore.fit` trains in on samples x, (n, d), with row weights (n,) of sum 1, by the names of its options.

        Behind asinh mean and scale are always robust, as it is there for rows far out; behind another transform they are 0 and
        1; what comes behind it is then standardised, or whitened. With `standardize=False` x is transformed as it is.

        Raises:
            SamplesError: See `standardizing`; or rows lie outside of the range of a transform.
            OptionError: There is no such transform.
        """
        check_options(standardize, transform)
        if not standardize:
            return replace(cls.identity(x.shape[1]), transform=transform)
        if transform is None:
            return {"whiten": cls.whitening, "robust": cls.robust}.get(str(standardize), cls.standardizing)(x, weight)
        behind = cls._before(transform, x, weight)
        if standardize == "whiten":
            return behind.whitened(x, weight)
        columns = cls.standardizing(behind(x), weight)
        return replace(behind, shift=columns.mean, matrix=1.0 / columns.scale)

    @classmethod
    def _before(cls, transform: Transforms, x: np.ndarray, weight: np.ndarray | None) -> Coordinates:
        """Those of t(x) alone: mean and scale of each column as its transform has them."""
        found = replace(cls.identity(x.shape[1]), transform=transform)
        for j, f in enumerate(found.transforms):
            if f is None or f.in_quartiles:
                own = (cls.standardizing if f is None else cls.robust)(x[:, j : j + 1], weight)
                found.mean[j], found.scale[j] = own.mean[0], own.scale[0]
        return replace(found)

    @classmethod
    def standardizing(cls, x: np.ndarray, weight: np.ndarray | None = None) -> Coordinates:
        """Those in which the columns of x, (n, d), with row weights (n,) of sum 1, have mean 0 and standard deviation 1.

        Raises:
            SamplesError: The values spread so far that their squares overflow, or so little that these underflow.
        """
        return cls(*moments(x, weight))

    @classmethod
    def robust(cls, x: np.ndarray, weight: np.ndarray | None = None) -> Coordinates:
        """Those by median and interquartile range / 1.349, which is the standard deviation of a normal law.

        Few rows far out do not change them. A column half of whose weight, or more, is on one value has no such range, and
        is scaled by its standard deviation.

        Raises:
            SamplesError: See `standardizing`.
        """
        return cls(*quartiles(x, weight))

    @classmethod
    def whitening(cls, x: np.ndarray, weight: np.ndarray | None = None) -> Coordinates:
        """Those in which the columns of x, (n, d), with row weights (n,) of sum 1, have mean 0 and the covariance I.

        A = C^-1/2, symmetric, with C the correlation matrix, which keeps z as near to the standardised columns as can be. An
        eigenvalue of C below 1e-10 of the largest, as dependent columns leave, counts as 1e-10 of it.

        Raises:
            SamplesError: See `standardizing`.
        """
        return cls.standardizing(x, weight).whitened(x, weight)

    def whitened(self, x: np.ndarray, weight: np.ndarray | None = None) -> Coordinates:
        """The same mean, scale and transform, with m and A such that z has mean 0 and covariance I; see `whitening`."""
        shift, matrix = whitening(replace(self, shift=None, matrix=None)(x), weight)
        return replace(self, shift=shift, matrix=matrix)

    def unshifted(self) -> Coordinates:
        """Those that scale and never shift, so that 0 stays 0: what a half line, x > 0, and a cone keep.

        Raises:
            OptionError: Behind a transform there are none.
        """
        if self.transform is not None:
            raise OptionError(f"coordinates behind {in_words(self.transform)} cannot do without a shift")
        return replace(self, mean=np.zeros(self.d), shift=None)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Coordinates) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        arrays = (self.mean, self.scale, self.shift, self.matrix)
        return self.transform, *(None if a is None else (a.shape, a.tobytes()) for a in arrays)

    @property
    def d(self) -> int:
        """Number of columns."""
        return len(self.mean)

    @property
    def is_identity(self) -> bool:
        """Whether they are those of the samples themselves."""
        return self.is_elementwise_affine and not self.mean.any() and bool(np.all(self.scale == 1.0))

    @property
    def is_elementwise_affine(self) -> bool:
        """Whether they are z = (x - mean) / scale and nothing else."""
        return self.transform is None and self.shift is None and self.matrix is None

    @property
    def spread(self) -> np.ndarray:
        """How far x_i goes for a z of covariance I, as a standard deviation, (d,), in [x]; near `mean`, behind a transform."""
        if self.matrix is None:
            return self.scale
        back = self._inverse
        return np.asarray(self.scale * (np.abs(back) if back.ndim == 1 else np.sqrt(np.sum(back * back, axis=1))))

    @property
    def transforms(self) -> tuple[Transform | None, ...]:
        """The function f of each column, (d,)."""
        each = self.transform if isinstance(self.transform, tuple) else (self.transform,) * self.d
        return tuple(None if f is None else find(f) for f in each)

    @cached_property
    def _inverse(self) -> np.ndarray:
        """A^-1, as A is given; of NaN where there is none."""
        if self.matrix is None:
            return np.ones(self.d)
        with np.errstate(all="ignore"):
            if self.matrix.ndim == 1:
                return np.asarray(1.0 / self.matrix)
            try:
                return np.asarray(np.linalg.inv(self.matrix))
            except np.linalg.LinAlgError:
                return np.full_like(self.matrix, np.nan)

    # Points.

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The coordinates z of points x, both (n, d).

        Raises:
            SamplesError: A point lies outside of the range of a transform.
        """
        self.check_range(x)
        return np.asarray(self.of(NumpyCalculus(), x))

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether each row of x, (n, d), lies in the ranges of all transforms, (n,)."""
        return np.asarray(self._within(x).all(axis=1))

    def _within(self, x: np.ndarray) -> np.ndarray:
        """Whether each number of x, (n, d), lies in the range of its column's transform, (n, d)."""
        each = self.transforms
        lower, upper = (np.array([end if f is None else getattr(f, name) for f in each]) for name, end in ENDS)
        u = (x - self.mean) / self.scale
        return np.asarray((u > lower) & (u < upper))

    def check_range(self, x: np.ndarray) -> None:
        """Refuse points of which a transform is not.

        Raises:
            SamplesError: It names the first of the rows.
        """
        if self._f is None:
            return
        rows, columns = np.nonzero(~self._within(x))
        if len(rows):
            row, column, f = rows[0], columns[0], self.transforms[columns[0]]
            raise SamplesError(
                f"{len(set(rows))} of {len(x)} rows lie outside of the range of their transform, the first is row {row}, with "
                f"{x[row, column]:g} in column {column}, and {f!r} is of numbers {_range_in_words(f)}: drop or mend them, or "
                "give a transform whose range holds them, such as ismcore.Log(lower=...)"
            )

    def of(self, calculus: Calculus, x: Array) -> Array:
        """The coordinates z of points x, both (n, d), arrays of the calculus."""
        self.check_dtype(calculus.dtype)
        u = self._unit(calculus, x)
        t = u if self._f is None else self._f.forward(calculus.ops, u)
        t = t if self.shift is None else t - calculus.asarray(self.shift)
        return t if self.matrix is None else _times(t, self.matrix, calculus)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """The points x, (n, d), in [x], of coordinates z, (n, d)."""
        t = z if self.matrix is None else _times(z, self._inverse)
        t = t if self.shift is None else t + self.shift
        return np.asarray((t if self._f is None else self._f.inverse(t)) * self.scale + self.mean)

    def _unit(self, calculus: Calculus, x: Array) -> Array:
        """U = (x - mean) / scale, (n, d), in the dtype of the calculus.

        A mean that this dtype cannot hold is subtracted in two parts, the nearest number and the rest: x near the mean then
        loses no digit that it had.
        """
        nearest, rest = self._in_two[calculus.dtype] if calculus.dtype in self._in_two else in_two(self.mean, calculus.dtype)
        shifted = x - calculus.asarray(nearest)
        if rest is not None:
            shifted = shifted - calculus.asarray(rest)
        return shifted / calculus.asarray(self.scale)

    def check_dtype(self, dtype: str) -> None:
        """Refuse, or warn of, points in float32 that lie where float32 has too few numbers.

        Raises:
            SamplesError: A mean, a scale or its inverse is beyond the range of the dtype.

        Warns:
            IsmWarning: A mean lies more than 1.2e5 scales from 0.
        """
        if dtype != "float64":
            check_float32(dtype, self._away, self._beyond_float32)

    # Scores, divergences and densities.

    def score(self, x: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """The score in 1/[x] at points x, given the score psi of their coordinates z, all (n, d)."""
        return np.asarray(self.score_of(NumpyCalculus(), x, psi))

    def score_of(self, calculus: Calculus, x: Array, psi: Array) -> Array:
        """See `score`; for arrays of the calculus."""
        g = psi if self.matrix is None else _times(psi, self.matrix.T, calculus)
        if self._f is not None:
            u = self._unit(calculus, x)
            g = calculus.ops.exp(self._f.log_derivative(calculus.ops, u)) * g + self._f.slope(calculus.ops, u)
        return g / calculus.asarray(self.scale)

    def score_of_coordinates(self, x: np.ndarray, score: np.ndarray) -> np.ndarray:
        """The score psi of the coordinates z of points x, given the score in 1/[x]: the inverse of `score`."""
        g, calculus = score * self.scale, NumpyCalculus()
        if self._f is not None:
            u = self._unit(calculus, x)
            g = (g - self._f.slope(calculus.ops, u)) / np.exp(self._f.log_derivative(calculus.ops, u))
        return np.asarray(g if self.matrix is None else _times(g, self._inverse.T))

    @property
    def before_matrix(self) -> Coordinates:
        """The coordinates y = t(x) - m, of which z = A y."""
        return self if self.matrix is None else replace(self, matrix=None)

    @property
    def matrix_alone(self) -> Coordinates:
        """The coordinates z = A y of y; see `before_matrix`."""
        return replace(Coordinates.identity(self.d), matrix=self.matrix)

    def jacobian_diagonal(self, x: np.ndarray, psi: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
        """The Jacobian's diagonal in 1/[x]^2 at points x, given score and diagonal of y = t(x) - m, all (n, d).

        Those of y, `before_matrix`, are A^T psi and the diagonal of A^T J A, which a diagonal of J does not tell.
        """
        if self._f is not None:
            calculus = NumpyCalculus()
            u = self._unit(calculus, x)
            ops, derivative = calculus.ops, np.exp(self._f.log_derivative(calculus.ops, u))
            slope, curvature = self._f.slope(ops, u), self._f.curvature(ops, u)
            diagonal = derivative * derivative * diagonal + derivative * slope * psi + curvature
        return np.asarray(diagonal / self.scale / self.scale)

    def log_derivative_of(self, calculus: Calculus, x: Array) -> Array | None:
        """Sum_i log f'(u_i) of points x, (n,), or of one: U(x) = U(z) - this. None without a transform."""
        if self._f is None:
            return None
        change = self._f.log_derivative(calculus.ops, self._unit(calculus, x))
        return calculus.ops.sum(change, axis=len(change.shape) - 1)

    def energy_of(self, calculus: Calculus, x: Array, energy: Array) -> Array:
        """The energy at points x, up to a constant, given that of their coordinates, in the shape of the latter."""
        change = self.log_derivative_of(calculus, x)
        return energy if change is None else energy - calculus.ops.reshape(change, tuple(energy.shape))

    def log_density(self, x: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        """The log-density in 1/[x]^d at points x, given that of their coordinates, both (n,)."""
        scale = -float(np.sum(np.log(self.scale)))
        if self.matrix is not None:
            scale += _log_det(self.matrix)
        change = self.log_derivative_of(NumpyCalculus(), x)
        return np.asarray(log_p + scale if change is None else log_p + scale + change)

    # From one to another.

    def relative_to(self, other: Coordinates) -> Coordinates | None:
        """These coordinates as ones of those of the other, z = relative(z_other), where they are affine in them; else None.

        z = A D B (z' - A' (c - m' + r m)), with z' = A' (t' - m') and B = A'^-1; t = (t' - c) / r, and D = 1 / r.
        """
        if self == other:
            return Coordinates.identity(self.d)
        if self.transform is None and other.transform is None:
            c, r = (self.mean - other.mean) / other.scale, self.scale / other.scale
        elif (self.transform, self.mean.tobytes(), self.scale.tobytes()) == (
            other.transform,
            other.mean.tobytes(),
            other.scale.tobytes(),
        ):
            c, r = np.zeros(self.d), np.ones(self.d)
        else:
            return None
        if self.is_elementwise_affine and other.is_elementwise_affine:
            return Coordinates(c, r)
        shift = c - (0.0 if other.shift is None else other.shift) + (0.0 if self.shift is None else r * self.shift)
        matrix = np.diag(1.0 / r)
        matrix = matrix @ (np.diag(other._inverse) if other._inverse.ndim == 1 else other._inverse)
        if self.matrix is not None:
            matrix = (np.diag(self.matrix) if self.matrix.ndim == 1 else self.matrix) @ matrix
        if other.matrix is not None:
            shift = _times(shift[None], other.matrix)[0]
        return replace(Coordinates.identity(self.d), shift=shift, matrix=matrix)

    def affine(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Middle x_0 (d,), scale (d,) and A^-1, (d,) or (d, d), of x = x_0 + scale (A^-1 z), without a transform.

        Raises:
            OptionError: There is a transform.
        """
        if self.transform is not None:
            raise OptionError(
                f"parameters in the samples' units are none in coordinates behind transform={in_words(self.transform)}: start "
                "from a fit under it, or at parameters drawn from the seed"
            )
        middle = self.mean if self.shift is None else self.mean + self.scale * self.shift
        return middle, self.scale, self._inverse


def _function(transform: Transforms) -> Transform | None:
    """The function f of a whole row."""
    if isinstance(transform, tuple):
        return ByColumn([find(f) for f in transform])
    return None if transform is None else find(transform)


def _range_in_words(f: Transform | None) -> str:
    lower, upper = (-np.inf, np.inf) if f is None else (f.lower, f.upper)
    return f"above {lower:g}" if upper == np.inf else f"below {upper:g}" if lower == -np.inf else f"from {lower:g} to {upper:g}"


def _times(t: Array, matrix: np.ndarray, calculus: Calculus | None = None) -> Array:
    """The product of each row of t, (n, d), with a matrix, (d, d), or one that is diagonal, (d,)."""
    own = matrix.T if calculus is None else calculus.asarray(np.ascontiguousarray(matrix.T))
    return t * own if matrix.ndim == 1 else t @ own


def _log_det(matrix: np.ndarray) -> float:
    return float(np.sum(np.log(np.abs(matrix))) if matrix.ndim == 1 else np.linalg.slogdet(matrix)[1])
