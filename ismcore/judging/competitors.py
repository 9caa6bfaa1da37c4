"""What a fit is judged against: scores from rows that the judged ones are independent of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.domains import Domain
from ismcore.errors import OptionError
from ismcore.judging.certificate import NORMAL, Derivatives
from ismcore.targets import fit_mixture
from ismcore.training.baseline import MOST_COLUMNS, NormalLaw
from ismcore.training.truncated import MOST_TRUNCATED, TruncatedNormal

__all__ = ["competitors_at", "derivatives_of"]


def derivatives_of(result: Any, x: np.ndarray, units: Coordinates, domain: Domain | None = None) -> Derivatives:
    """Score and divergence of a fit at rows x, (m, d), in [x], taken to coordinates z = (x - mean) / scale."""
    psi, diagonal = result.score(x), result.jacobian_diagonal(x)
    edges = None if domain is None else domain.in_coordinates(units).weights(units(x))
    return Derivatives.of(psi * units.scale, diagonal * units.scale**2, edges)


def competitors_at(
    x: np.ndarray,
    train: np.ndarray,
    units: Coordinates,
    given: Mapping[str, Any] | None = None,
    weight: np.ndarray | None = None,
    domain: Domain | None = None,
) -> dict[str, Derivatives]:
    """Score and divergence of each competitor at rows x, (m, d), by name.

    The normal law in closed form and a Gaussian mixture (`fit_mixture`), both fitted to the rows `train`, (n, d), with
    weights (n,) of sum 1, and whatever fits are given. There is no normal law of more than 1024 columns, and no mixture where
    the rows are too few, or lie in fewer dimensions. On a domain there is the truncated normal law alone, of up to 24 columns.

    Raises:
        OptionError: A fit that is given has the name of another competitor.
    """
    z_train, z = units(train), units(x)
    found: dict[str, Derivatives] = {}
    if domain is not None:
        domain_z = domain.in_coordinates(units)
        if x.shape[1] <= MOST_TRUNCATED:
            score = TruncatedNormal.of(z_train, domain_z, weight).score_params()
            diagonal = np.broadcast_to(np.diagonal(score["weight"]), z.shape)
            psi = z @ score["weight"].T + score["bias"]
            found[NORMAL] = Derivatives.of(psi, diagonal, domain_z.weights(z))
    elif x.shape[1] <= MOST_COLUMNS:
        law = NormalLaw.of(z_train, weight)
        found[NORMAL] = Derivatives(law.score(z), np.full(len(z), -float(np.sum(law.precisions))))
        mixture = None if law.whitened(z_train[:1]) is None else fit_mixture(z_train, weight=weight)
        if mixture is not None:
            found[f"mixture of {len(mixture.weights)}"] = Derivatives(mixture.score(z), mixture.divergence(z))
    for name, other in (given or {}).items():
        if name in found:
            raise OptionError(f"a competitor cannot be called {name!r}: that is one of the check's own")
        found[name] = derivatives_of(other, x, units, domain)
    return found
