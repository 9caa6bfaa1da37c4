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
    PluginError,
    SamplesError,
    ScopeConflict,
    UnknownBackend,
)
from ismcore.evaluate import Evaluation, evaluate
from ismcore.fitting import fit
from ismcore.hookspecs import hookimpl
from ismcore.models import MLP, Affine, ScoreFunction
from ismcore.objectives import ImplicitScoreMatching
from ismcore.optimizers import SGD, Adam
from ismcore.persistence import load
from ismcore.plugins import backends
from ismcore.result import FitResult

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
    "DensityUnavailable",
    "DeviceUnavailable",
    "Diverged",
    "Evaluation",
    "FileInvalid",
    "FitResult",
    "ImplicitScoreMatching",
    "IsmError",
    "ModelError",
    "OptionError",
    "ParameterError",
    "PluginError",
    "SamplesError",
    "ScopeConflict",
    "ScoreFunction",
    "UnknownBackend",
    "backends",
    "compare",
    "datasets",
    "density_from_score",
    "evaluate",
    "fit",
    "hookimpl",
    "load",
    "targets",
]
