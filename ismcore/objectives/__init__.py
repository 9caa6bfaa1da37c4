"""Objectives: what is minimised, written once over a backend's operations and derivatives."""

from ismcore.objectives.base import LossInputs, Objective
from ismcore.objectives.denoising import DenoisingScoreMatching, NoiseConditionalScoreMatching
from ismcore.objectives.explicit import ExplicitScoreMatching
from ismcore.objectives.implicit import ImplicitScoreMatching
from ismcore.objectives.ladder import noise_ladder
from ismcore.objectives.probes import Hutchinson
from ismcore.objectives.search import CurvatureSearch
from ismcore.objectives.sliced import SlicedScoreMatching

__all__ = [
    "CurvatureSearch",
    "DenoisingScoreMatching",
    "ExplicitScoreMatching",
    "Hutchinson",
    "ImplicitScoreMatching",
    "LossInputs",
    "NoiseConditionalScoreMatching",
    "Objective",
    "SlicedScoreMatching",
    "noise_ladder",
]
