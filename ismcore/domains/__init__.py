"""Domains of samples that end at an edge, and the weight that vanishes there.

Implicit score matching integrates by parts, which needs p psi -> 0 at the edge of the domain (Hyvarinen 2005, theorem 1). Where
a density does not fall to 0 there, a weight h that does takes its place (Hyvarinen 2007; Yu, Drton & Shojaie 2019; Liu,
Kanamori & Williams 2022): with h_i >= 0 the weight of output i, 0 at every edge that direction i meets,

    mean_n sum_i [ 1/2 h_i psi_i^2 + h_i d_i psi_i + psi_i d_i h_i ] = 1/2 E sum_i h_i (psi_i - s_i)^2 + a constant of the data.

The weight here is h = min(r, 1), with r the distance to the nearest edge in units of `width`: away from edges it is 1, where
the objective is plain implicit score matching. It is a function of the point alone, whatever coordinates it is written in.
"""

from ismcore.domains.base import Domain
from ismcore.domains.columns import Box, Positive, Reals
from ismcore.domains.halfspaces import Halfspaces

__all__ = ["Box", "Domain", "Halfspaces", "Positive", "Reals"]
