"""Every way in which ismcore fails: one root, one class per way, each also a builtin that callers catch; and its warning."""

__all__ = [
    "ArgumentUnknown",
    "BackendBroken",
    "BackendMissing",
    "BackendUnavailable",
    "CallbackFailed",
    "CheckpointMismatch",
    "DensityUnavailable",
    "DeviceUnavailable",
    "Diverged",
    "FileInvalid",
    "FileNotWritten",
    "IsmError",
    "IsmWarning",
    "ModelError",
    "OptionError",
    "ParameterError",
    "PlottingMissing",
    "PluginError",
    "SamplesError",
    "ScopeConflict",
    "UnknownBackend",
    "WorkerLost",
    "printable",
]


def printable(text: str) -> str:
    """The text with its control characters escaped, so that to show it drives no terminal; line breaks stay.

    For whatever comes from a file, a path or a plugin.
    """
    return "".join(mark if mark.isprintable() or mark == "\n" else repr(mark)[1:-1] for mark in text)


class IsmError(Exception):
    """Root of every error that ismcore raises on purpose."""


class IsmWarning(UserWarning):
    """A word about a fit that is also in its `FitResult.warnings`; see docs/training.md.

    Attributes:
        result: The fit, whole and ready to use, for who has warnings raised as errors; None while it is still running.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class SamplesError(IsmError, ValueError):
    """The samples cannot be used: wrong rank, dtype or length, non-finite or constant columns."""


class OptionError(IsmError, ValueError):
    """An option has a value that it cannot have; the message lists the valid ones."""


class ArgumentUnknown(IsmError, TypeError):
    """A function has no argument of this name; the message says what it is called here."""


class ModelError(IsmError, TypeError):
    """The model cannot be trained or evaluated as asked."""


class ParameterError(IsmError, ValueError):
    """Parameters have a wrong name, shape or value for their model."""


class BackendUnavailable(IsmError, ImportError):
    """A backend cannot be used here; the subclasses say why."""


class UnknownBackend(BackendUnavailable, ValueError):
    """No installed plugin offers a backend of this name."""


class BackendMissing(BackendUnavailable):
    """The backend is known, but the framework that it drives is not installed."""


class BackendBroken(BackendUnavailable):
    """The backend's plugin or framework fails to load; the cause is chained."""


class PluginError(IsmError, RuntimeError):
    """A plugin breaks the contract of the hooks."""


class DeviceUnavailable(IsmError, RuntimeError):
    """The device asked for is not there."""


class ScopeConflict(IsmError, RuntimeError):
    """Two concurrent runs ask for different values of one process-wide setting."""


class Diverged(IsmError, FloatingPointError):
    """The loss became NaN or infinite.

    Attributes:
        epoch: Number of the first epoch, counted from 1, whose loss is not finite.
        result: The fit up to the last point known to be finite, ready to use; None outside of `fit`.
    """

    def __init__(self, message: str, *, epoch: int = 0, result: object = None) -> None:  # pickle gives the message alone
        super().__init__(message)
        self.epoch = epoch
        self.result = result


class CallbackFailed(IsmError, RuntimeError):
    """A callback raised; the cause is chained.

    Attributes:
        result: The fit up to there, ready to use; None outside of `fit`.
    """

    result: object = None


class DensityUnavailable(IsmError, ValueError):
    """The score does not determine a density here: it is a free vector field in more than one dimension."""


class PlottingMissing(IsmError, ImportError):
    """Matplotlib or Pillow, which draw the pictures, cannot be imported."""


class CheckpointMismatch(IsmError, ValueError):
    """A run cannot be gone on with: samples or options are not those that it was stopped with."""


class FileInvalid(IsmError, ValueError):
    """A saved result is truncated, altered, too new, or no result at all."""


class FileNotWritten(IsmError, OSError):
    """A file cannot be written: full disk, read-only or missing folder, no regular file; what was there before is as it was."""


class WorkerLost(IsmError, RuntimeError):
    """A process that worked on a fit died, and the fit cannot be done again."""
