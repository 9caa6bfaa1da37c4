"""Score matching from samples alone, the same in torch, JAX and HIPS-autograd."""

from ismcore import datasets, domains, targets
from ismcore.backend.contract import BackendInfo
from ismcore.coordinates.transforms import Log, Logit, Transform
from ismcore.errors import (
    ArgumentUnknown,
    BackendBroken,
    BackendMissing,
    BackendUnavailable,
    CallbackFailed,
    CheckpointMismatch,
    DensityUnavailable,
    DeviceUnavailable,
    Diverged,
    FileInvalid,
    FileNotWritten,
    IsmError,
    IsmWarning,
    ModelError,
    OptionError,
    ParameterError,
    PlottingMissing,
    PluginError,
    SamplesError,
    ScopeConflict,
    UnknownBackend,
    WorkerLost,
)
from ismcore.files import tensorfile
from ismcore.files.checkpoints import Checkpoint
from ismcore.fitting.fit import fit, resume
from ismcore.fitting.refit import Refit
from ismcore.fitting.sweep import SweptFit, sweep
from ismcore.hookspecs import hookimpl
from ismcore.judging.bootstrap import bootstrap
from ismcore.judging.compare import Comparison, compare
from ismcore.judging.table import Check
from ismcore.models import MLP, Affine, Energy, NoiseConditional, ResidualMLP, ScoreFunction
from ismcore.objectives import (
    CurvatureSearch,
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    NoiseConditionalScoreMatching,
    Objective,
    SlicedScoreMatching,
    noise_ladder,
)
from ismcore.optimizers.rules import SGD, Adam
from ismcore.optimizers.schedules import Schedule
from ismcore.plugins.lookup import backends
from ismcore.plugins.tracking import JsonLines
from ismcore.results.evaluate import Evaluation, evaluate
from ismcore.results.result import FitResult, load
from ismcore.results.sampling import annealed_langevin
from ismcore.results.solving import Solution, solve
from ismcore.samples import sources
from ismcore.samples.diagnosis import Diagnosis, diagnose
from ismcore.samples.findings import Finding
from ismcore.samples.tables.reading import Table, read_samples, read_table
from ismcore.targets.density import density_from_score
from ismcore.training.events import STOP, FitEvent
from ismcore.training.lbfgs import LBFGS

__version__ = "0.2.0"

__all__ = [
    "LBFGS",
    "MLP",
    "SGD",
    "STOP",
    "Adam",
    "Affine",
    "ArgumentUnknown",
    "BackendBroken",
    "BackendInfo",
    "BackendMissing",
    "BackendUnavailable",
    "CallbackFailed",
    "Check",
    "Checkpoint",
    "CheckpointMismatch",
    "Comparison",
    "CurvatureSearch",
    "DenoisingScoreMatching",
    "DensityUnavailable",
    "DeviceUnavailable",
    "Diagnosis",
    "Diverged",
    "Energy",
    "Evaluation",
    "ExplicitScoreMatching",
    "FileInvalid",
    "FileNotWritten",
    "Finding",
    "FitEvent",
    "FitResult",
    "Hutchinson",
    "ImplicitScoreMatching",
    "IsmError",
    "IsmWarning",
    "JsonLines",
    "Log",
    "Logit",
    "ModelError",
    "NoiseConditional",
    "NoiseConditionalScoreMatching",
    "Objective",
    "OptionError",
    "ParameterError",
    "PlottingMissing",
    "PluginError",
    "Refit",
    "ResidualMLP",
    "SamplesError",
    "Schedule",
    "ScopeConflict",
    "ScoreFunction",
    "SlicedScoreMatching",
    "Solution",
    "SweptFit",
    "Table",
    "Transform",
    "UnknownBackend",
    "WorkerLost",
    "annealed_langevin",
    "backends",
    "bootstrap",
    "compare",
    "datasets",
    "density_from_score",
    "diagnose",
    "domains",
    "evaluate",
    "fit",
    "hookimpl",
    "load",
    "noise_ladder",
    "read_samples",
    "read_table",
    "resume",
    "solve",
    "sources",
    "sweep",
    "targets",
    "tensorfile",
]
