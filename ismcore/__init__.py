"""Score matching from samples alone, the same in torch, JAX and HIPS-autograd."""

from ismcore import datasets, targets
from ismcore.backend import BackendInfo
from ismcore.compare import Comparison, compare
from ismcore.density import density_from_score
from ismcore.errors import (
    BackendBroken,
    BackendMissing,
    BackendUnavailable,
    DensityUnavailable,
    DeviceUnavailable,
    Diverged,
    FileInvalid,
    IsmError,
    ModelError,
    OptionError,
    ParameterError,
    PlottingMissing,
    PluginError,
    SamplesError,
    ScopeConflict,
    UnknownBackend,
)
from ismcore.evaluate import Evaluation, evaluate
from ismcore.fitting import fit
from ismcore.hookspecs import hookimpl
from ismcore.models import MLP, Affine, Energy, NoiseConditional, ResidualMLP, ScoreFunction
from ismcore.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    NoiseConditionalScoreMatching,
    SlicedScoreMatching,
)
from ismcore.optimizers import SGD, Adam
from ismcore.persistence import load
from ismcore.plugins import backends
from ismcore.result import FitResult
from ismcore.sampling import annealed_langevin
from ismcore.solving import Solution, solve

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "Affine",
    "BackendBroken",
    "BackendInfo",
    "BackendMissing",
    "BackendUnavailable",
    "Comparison",
    "DenoisingScoreMatching",
    "DensityUnavailable",
    "DeviceUnavailable",
    "Diverged",
    "Energy",
    "Evaluation",
    "ExplicitScoreMatching",
    "FileInvalid",
    "FitResult",
    "Hutchinson",
    "ImplicitScoreMatching",
    "IsmError",
    "ModelError",
    "NoiseConditional",
    "NoiseConditionalScoreMatching",
    "OptionError",
    "ParameterError",
    "PlottingMissing",
    "PluginError",
    "ResidualMLP",
    "SamplesError",
    "ScopeConflict",
    "ScoreFunction",
    "SlicedScoreMatching",
    "Solution",
    "UnknownBackend",
    "annealed_langevin",
    "backends",
    "compare",
    "datasets",
    "density_from_score",
    "evaluate",
    "fit",
    "hookimpl",
    "load",
    "solve",
    "targets",
]
