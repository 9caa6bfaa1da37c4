"""Densities with a known score, to draw samples from and to compare fits with."""

from ismcore.targets.mixture import GaussianMixture
from ismcore.targets.mixture_fit import fit_mixture

__all__ = ["GaussianMixture", "fit_mixture"]
