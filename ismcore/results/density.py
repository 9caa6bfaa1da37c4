"""The normalised density of a fit, in which modes that lie far apart have the shares that the samples have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ismcore.calculus import NumpyCalculus
from ismcore.domains import Halfspaces
from ismcore.domains.columns import Columns
from ismcore.models import Energy
from ismcore.results.langevin import CHAINS, langevin, numbers_of
from ismcore.results.normaliser import Normaliser, by_importance, by_quadrature
from ismcore.targets.density import LogDensity, integrate_score

if TYPE_CHECKING:
    from ismcore.results.result import FitResult

__all__ = ["log_density", "log_normaliser", "with_constant"]


def log_density(result: FitResult, x: np.ndarray, epoch: int | None) -> np.ndarray:
    """See `FitResult.log_density`; of points x, (n, d), in the domain, (n,)."""
    if result.d > 1:
        return with_constant(result, x, result.log_normaliser(epoch=epoch), epoch)
    line = _line(result, epoch)
    found = result.coordinates.log_density(x, line(result._standardised(x)[:, 0]))
    return _of_modes(result, x, found, _log_masses(result, line))


def with_constant(result: FitResult, x: np.ndarray, constant: Normaliser, epoch: int | None = None) -> np.ndarray:
    """The log-density of an energy at points x, (n, d), by a constant that is known, (n,)."""
    return _of_modes(result, x, -result.energy(x, epoch=epoch), np.array(constant.parts or (constant.value,)))


def _of_modes(result: FitResult, x: np.ndarray, log_p: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Log p at x, (n,), less the logarithm of what it adds up to in the mode of x, and plus that of the mode's share."""
    if result.modes is None:
        return np.asarray(log_p - masses[0])
    return np.asarray(log_p + (np.log(result.modes.shares) - masses)[result.modes.number(x)])


def log_normaliser(result: FitResult, epoch: int | None, seed: int) -> Normaliser:
    """See `FitResult.log_normaliser`."""
    if result.d == 1:
        return _on_line(result, epoch)
    points, zero = result.coordinates.inverse(np.zeros((1, result.d))), np.zeros(1)
    change = result.coordinates.energy_of(NumpyCalculus(), points, zero)
    unit = float((result.coordinates.log_density(points, zero) + change)[0])
    result.energy(points, epoch=epoch)  # or why there is none
    there = result._domain_there

    def energy(z: np.ndarray) -> np.ndarray:
        found = result._energy_at(z.astype(result.dtype), epoch).astype(np.float64)
        return found if there is None else np.where(there.contains(z), found, np.inf)

    if result.d == 2 and not isinstance(there, Halfspaces):
        found = by_quadrature(energy, *_ends(result), numbers_of(result), _count(result))
    else:
        at = result if epoch is None else replace(result, params=result._at(epoch))
        draws = langevin(at, 2000, _starts(result), steps=None, thin=10, step_size=None, context=None, seed=seed)
        shares = None if result.modes is None else result.modes.shares
        found = by_importance(energy, result.coordinates(draws.x), seed, numbers_of(result), shares)
    return replace(found, value=found.value - unit, parts=tuple(part - unit for part in found.parts))


def _starts(result: FitResult) -> np.ndarray | None:
    """Starts of which each mode has equally many, (m, d): its rows that the result keeps, or its centre; None for one mode.

    Log Z_r does not depend on the shares, and that of a mode with few rows is to be known as well.
    """
    modes, kept = result.modes, result.kept
    if modes is None:
        return None
    number = None if kept is None else modes.number(kept)
    starts = []
    for mode, centre in enumerate(modes.centres):
        own = centre[None] if kept is None else kept[number == mode]
        own = own if len(own) else centre[None]
        starts.append(own[np.arange(CHAINS) * len(own) // CHAINS])
    return np.concatenate(starts)


def _count(result: FitResult) -> int:
    return 1 if result.modes is None else len(result.modes)


def _line(result: FitResult, epoch: int | None) -> LogDensity:
    """The density in one dimension that the score alone tells, in the coordinates of training."""
    lower, upper = _ends(result)

    def score(z: np.ndarray) -> np.ndarray:
        return result._score_at(z[:, None], epoch)[:, 0].astype(np.float64)

    return integrate_score(score, float(lower[0]), float(upper[0]), _number_on_line(result), _count(result))


def _number_on_line(result: FitResult) -> Callable[[np.ndarray], np.ndarray] | None:
    """Numbers of the modes whose regions points z of a line lie in, (m,) -> (m,); None for one mode."""
    number = numbers_of(result)
    return None if number is None else lambda z: number(z[:, None])


def _log_masses(result: FitResult, line: LogDensity) -> np.ndarray:
    """Logarithms of the masses of all modes, in the density that the score alone tells; 0 of the only one."""
    number = _number_on_line(result)
    return np.zeros(1) if number is None else line.log_masses(number, _count(result))


def _on_line(result: FitResult, epoch: int | None) -> Normaliser:
    """Log Z in one dimension, from density and energy at the node where the density is highest, with the error of log Z_r."""
    model, line = result._as_trained(epoch)[0], _line(result, epoch)
    if not isinstance(model, Energy):  # whose energy is minus the log-density
        return Normaliser(0.0, 0.0, parts=() if result.modes is None else tuple(np.log(result.modes.shares).tolist()))
    z = np.sinh(line.t[np.argmax(line.log_p)]).reshape(1, 1)
    x = result.coordinates.inverse(z)
    value = float(-(result.coordinates.log_density(x, line(z[:, 0])) + result.energy(x, epoch=epoch))[0])
    parts = () if result.modes is None else tuple((value + _log_masses(result, line)).tolist())
    return Normaliser(value, line.change_in_part, parts=parts)


def _ends(result: FitResult) -> tuple[np.ndarray, np.ndarray]:
    """Ends of each column in the coordinates of training, (d,) each, infinite where there are none or a polytope's."""
    there = result._domain_there
    if isinstance(there, Columns):
        return there.ends(result.d)
    if not isinstance(there, Halfspaces) or result.d > 1:
        return np.full(result.d, -np.inf), np.full(result.d, np.inf)
    normals, b = np.array(there.A)[:, 0], np.array(there.b)
    return (
        np.max(b[normals < 0.0] / normals[normals < 0.0], initial=-np.inf, keepdims=True),
        np.min(b[normals > 0.0] / normals[normals > 0.0], initial=np.inf, keepdims=True),
    )
