"""The coordinates that a model is trained in, and the elementwise transforms in them."""

from ismcore.coordinates.coordinates import Coordinates
from ismcore.coordinates.scaling import FLAT, TO_NORMAL, Standardize, check_options

__all__ = ["FLAT", "TO_NORMAL", "Coordinates", "Standardize", "check_options"]
