"""`ismcore.fit`: from samples to a fitted score function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ismcore.errors import Diverged, OptionError
from ismcore.evaluate import check_language, check_model
from ismcore.models import MLP, Model, check_params
from ismcore.objectives import ImplicitScoreMatching, Objective
from ismcore.optimizers import Adam, Optimizer
from ismcore.plugins import choose, load_backend, notify_observers
from ismcore.problem import Problem
from ismcore.progress import reporter
from ismcore.result import FitResult, versions
from ismcore.samples import Standardizer, as_samples, as_weights, check_spread
from ismcore.training import FitEvent, Run, train

__all__ = ["fit"]


def fit(
    x: Any,
    *,
    backend: str = "auto",
    model: Model | None = None,
    objective: Objective | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 500,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "auto",
    initial_params: Mapping[str, Any] | None = None,
    standardize: bool = True,
    sample_weight: Any = None,
    on_nonfinite: str = "raise",
    progress: bool | str = "auto",
    snapshots: int | Sequence[int] = 0,
    compile: str = "auto",
    precision: str = "highest",
    allow_nonsmooth: bool = False,
) -> FitResult:
    """Fit a score function, the gradient of the log-density, to samples.

    Equal arguments give the same fit on every backend, up to rounding: initial parameters come from the core.

    Args:
        x: Samples, (n, d) or (n,), in any units [x]; anything that NumPy can make an array of.
        backend: "jax", "torch", "autograd", or a plugin's; "auto" takes the model's own, `ISMCORE_BACKEND`, or the first of
            the three that is ready. The reason for the choice is in the result.
        model: The family of score functions; `MLP()` if None.
        objective: What to minimise; `ImplicitScoreMatching()` if None.
        optimizer: How; `Adam()` if None.
        epochs: Passes over the samples, one step each.
        seed: Source of all randomness.
        dtype: "float32" or "float64", the dtype of parameters and computation.
        device: "cpu", "cuda", "cuda:1", ...; "auto" is where the framework puts arrays by default.
        initial_params: Where to start, by name and in the samples' units; drawn from the seed if None.
        standardize: Shift and scale each column to mean 0 and standard deviation 1 for training. Objective, history and
            curvature weight then refer to the standardised samples; parameters and scores that come back do not.
        sample_weight: Weight of each row in the loss and in the standardising, (n,), from 0; divided by their sum.
        on_nonfinite: What to do when the loss becomes NaN or infinite: "raise" `Diverged`, whose `result` is the fit up to
            the last finite state, or "stop" and return that, with status "diverged".
        progress: Show progress on standard error: True, False, or "auto", in a terminal.
        snapshots: Epochs after which to keep the parameters, or how many to keep, spread evenly from the start to the end.
        compile: "auto", the backend's fastest loop, or "off", its plain one.
        precision: "highest" keeps all bits of float32 products on a GPU, "default" does what the framework does.
        allow_nonsmooth: Train piecewise-linear networks by objectives that differentiate in x.

    Raises:
        SamplesError, OptionError, ModelError, ParameterError: An argument cannot be used; the message says what to do.
        BackendUnavailable: The backend is unknown, not installed or broken.
        DeviceUnavailable: There is no such device.
        Diverged: The loss stopped being finite.

    Source: Hyvarinen (2005), JMLR 6:695-709; Kingma & LeCun (2010), NIPS 23.

    Example:
        >>> x = np.random.default_rng(0).normal(5.0, 2.0, size=1000)
        >>> result = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", epochs=2000, dtype="float64")
        >>> bool(np.allclose(result.params["weight"], -1 / x.var()))
        True
    """
    began = time.monotonic()
    model = MLP() if model is None else model
    objective = ImplicitScoreMatching() if objective is None else objective
    optimizer = Adam() if optimizer is None else optimizer
    check_model(model, objective, allow_nonsmooth=allow_nonsmooth)
    _check_options(optimizer, epochs, on_nonfinite, compile)
    choice = choose(backend, model.backend)
    engine = load_backend(choice.name)(dtype=dtype, device=device, precision=precision)
    check_language(model, engine.name)

    samples = as_samples(x, dtype=dtype)
    check_spread(samples)
    d = samples.shape[1]
    weight = None if sample_weight is None else as_weights(sample_weight, len(samples))
    standardizer = Standardizer.of(samples, weight) if standardize else Standardizer.identity(d)
    if initial_params is None:
        start = model.initial_params(seed, d)
    else:
        start = model.unfold(check_params(model, initial_params, d), standardizer.mean, standardizer.scale)[1]
    problem = Problem(model, objective, optimizer, standardizer(samples), standardizer, weight, seed, compile)

    with reporter(progress) as report:
        listeners: list[Callable[[FitEvent], object]] = [report, notify_observers]
        run = train(
            engine,
            problem,
            optimizer.start(start).astype(dtype),
            epochs=int(epochs),
            snapshot_epochs=_snapshot_epochs(snapshots, int(epochs)),
            listeners=listeners,
        )

    def in_units(params: Mapping[str, Any]) -> tuple[Model, dict[str, np.ndarray]]:
        if standardizer.is_identity:
            return model, dict(params)
        wide = {name: np.asarray(value, dtype=np.float64) for name, value in params.items()}
        folded, moved = model.fold(wide, standardizer.mean, standardizer.scale)
        return folded, {name: np.asarray(value, dtype=dtype) for name, value in moved.items()}

    folded, params = in_units(run.state.params)
    result = FitResult(
        model=folded,
        params=params,
        history={"epoch": np.arange(1, len(run.losses) + 1), "loss": run.losses},
        status=run.status,
        objective=objective,
        backend=engine.name,
        backend_reason=choice.reason,
        device=engine.device,
        dtype=dtype,
        seed=int(seed),
        mean=standardizer.mean,
        scale=standardizer.scale,
        snapshots={epoch: in_units(kept)[1] for epoch, kept in run.snapshots.items()},
        timings={**run.timings, "total": time.monotonic() - began},
        versions=versions(engine.packages),
    )
    return _judge(result, run, on_nonfinite)


def _judge(result: FitResult, run: Run, on_nonfinite: str) -> FitResult:
    if run.status == "diverged" and on_nonfinite == "raise":
        epoch = len(run.losses)
        raise Diverged(
            f"the loss is {run.losses[-1]} at epoch {epoch} of the fit on backend {result.backend!r} in {result.dtype}: "
            "lower the learning rate or add a curvature_weight; the last finite fit is in this error's .result",
            epoch=epoch,
            result=result,
        )
    return result


def _check_options(optimizer: Any, epochs: Any, on_nonfinite: str, compile: str) -> None:
    if not isinstance(optimizer, Optimizer):
        raise OptionError(f"optimizer must be ismcore.Adam(...) or ismcore.SGD(...), not {optimizer!r}")
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 1:
        raise OptionError(f"epochs must be a whole number from 1, not {epochs!r}")
    if on_nonfinite not in ("raise", "stop"):
        raise OptionError(f"on_nonfinite must be 'raise' or 'stop', not {on_nonfinite!r}")
    if compile not in ("auto", "off"):
        raise OptionError(f"compile must be 'auto' or 'off', not {compile!r}")


def _snapshot_epochs(snapshots: int | Sequence[int], epochs: int) -> list[int]:
    if isinstance(snapshots, int | np.integer):
        return sorted({round(e) for e in np.linspace(0, epochs, int(snapshots))}) if snapshots else []
    wrong = [e for e in snapshots if not 0 <= e <= epochs]
    if wrong:
        raise OptionError(f"snapshots must be epochs from 0 to {epochs}, not {wrong[0]!r}")
    return [int(e) for e in snapshots]
