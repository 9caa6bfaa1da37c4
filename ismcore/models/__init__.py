"""Models of a score function: psi(x; params) for x of shape (n, d), written once over a backend's operations.

A model is a frozen specification. Its parameters are a flat dict of arrays that travels beside it, and d comes from the data.
"""

from ismcore.models.affine import Affine
from ismcore.models.base import Model, Standardized, check_params
from ismcore.models.combination import Combination, joined, parted
from ismcore.models.conditional import NoiseConditional
from ismcore.models.energy import Energy
from ismcore.models.function import ScoreFunction
from ismcore.models.mlp import MLP
from ismcore.models.network import Network
from ismcore.models.residual import ResidualMLP
from ismcore.models.user import Frame, UserModel, takes_rows

__all__ = [
    "MLP",
    "Affine",
    "Combination",
    "Energy",
    "Frame",
    "Model",
    "Network",
    "NoiseConditional",
    "ResidualMLP",
    "ScoreFunction",
    "Standardized",
    "UserModel",
    "check_params",
    "joined",
    "parted",
    "takes_rows",
]
