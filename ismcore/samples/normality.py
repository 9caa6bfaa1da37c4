"""Whether samples are clearly not normal: two moments of the distance from the centre, of all columns and of each.

With rows z whitened by their own covariance, r = |z| and m = E r = sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2) for normal z,

    spread = (mean r - E mean r) / sqrt(v / n),    v = d - m^2 - m^2 / (2 d)
    lean   = n |mean r z|^2 / u, about chi^2 of d degrees,    u = d + 2 - ((d + 1) m / d)^2

where v and u are what is left of the variances once mean and covariance are estimated, and E mean r =
sqrt(n - 1) Gamma((d + 1) / 2) Gamma((n - 1) / 2) / (Gamma(d / 2) Gamma(n / 2)) is exact, as r^2 / (n - 1) has the law
Beta(d / 2, (n - d - 1) / 2). For d = 1 the first is Geary's ratio. These are kurtosis and skewness (Mardia 1970) with lower
powers, whose laws are near normal from some forty rows on, where those of third and fourth powers have long tails.

Source: Geary (1935), Biometrika 27:310-332; Mardia (1970), Biometrika 57:519-530.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Departure", "departure"]

LIMIT = 3.5
"""A deviate beyond sqrt(LIMIT^2 + 2 log d) comes by chance in some 1 of 1000 samples of normal rows; see docs/training.md."""
FEWEST = 20
"""Of fewer rows nothing is said."""


@dataclass(frozen=True)
class Departure:
    """The largest deviate of all.

    Attributes:
        deviate: How many standard errors it is from what normal samples give.
        what: What deviates, in words.
    """

    deviate: float
    what: str


def departure(z: np.ndarray, whitened: np.ndarray | None, weight: np.ndarray | None = None) -> Departure | None:
    """What shows most clearly that the rows are not normal; None where nothing does so clearly.

    Args:
        z: Rows, (n, d), in any units; no column may be constant.
        whitened: The same rows with mean 0 and covariance 1, (n, d), or None where they cannot be made so.
        weight: Weight of each row, (n,), of sum 1: n is then the effective number, 1 / sum weight^2.

    Cost: some operations a number.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1000, 1))
        >>> departure(x, x) is None, departure(np.exp(x), None).what
        (True, 'column 0 leans to one side')
    """
    shares = np.full(len(z), 1.0 / len(z)) if weight is None else weight
    n = 1.0 / float(shares @ shares)
    if n < FEWEST:
        return None
    mean = shares @ z
    columns = (z - mean) / np.sqrt(shares @ (z - mean) ** 2)
    found = []
    for j, column in enumerate(columns.T):
        found += _departures(column[:, None], shares, n, f"column {j}")
    if whitened is not None and z.shape[1] > 1 and n > z.shape[1] + 1:
        found += _departures(whitened, shares, n, "the cloud of all columns")
    most = max(found, key=lambda each: each.deviate)
    return most if most.deviate > math.sqrt(LIMIT**2 + 2.0 * math.log(z.shape[1])) else None


def _departures(z: np.ndarray, shares: np.ndarray, n: float, what: str) -> list[Departure]:
    d = z.shape[1]
    distance = np.sqrt(np.sum(z * z, axis=1))
    m = math.sqrt(2.0) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    expected = math.sqrt((n - 1) / 2) * m * math.exp(math.lgamma((n - 1) / 2) - math.lgamma(n / 2))
    spread = (float(shares @ distance) - expected) / math.sqrt((d - m * m - m * m / (2 * d)) / n)
    lean = (shares * distance) @ z
    chi2 = n * float(lean @ lean) / (d + 2 - ((d + 1) * m / d) ** 2)
    # Wilson and Hilferty's cube root makes a normal deviate of chi^2; of one degree the square root is exact.
    leaning = math.sqrt(chi2) if d == 1 else (math.cbrt(chi2 / d) - 1.0 + 2.0 / (9 * d)) / math.sqrt(2.0 / (9 * d))
    tails = "has longer tails or a sharper middle" if spread < 0.0 else "has shorter tails or a hollow middle"
    return [Departure(abs(spread), f"{what} {tails}"), Departure(leaning, f"{what} leans to one side")]
