"""`ismcore.fit`: from samples to a fitted score function. `ismcore.resume`: the same, from where a run stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from ismcore.backend.contract import Backend, Precision, as_dtype
from ismcore.backend.processes import gathered, others_told, rank_and_world
from ismcore.coordinates import Standardize
from ismcore.domains import Domain
from ismcore.errors import CheckpointMismatch, Diverged, OptionError
from ismcore.files.checkpoint_writer import is_there_already
from ismcore.files.checkpoints import Checkpoint, Stored, as_checkpoint, read_checkpoint
from ismcore.fitting.checks import check_run, check_shared, probe
from ismcore.fitting.ensemble import EnsembleRun
from ismcore.fitting.hints import names_checked
from ismcore.fitting.options import Request, as_epochs, as_timeout, loss_of, resolved, settings_of, share_held_out
from ismcore.fitting.parting import about_validation, parted, samples_of, share_to_set_aside
from ismcore.fitting.recipes import RecipeName
from ismcore.fitting.run import Job, Run, best_of
from ismcore.fitting.selection import StartingPoint, choose_curvature, start_of, starts_of
from ismcore.fitting.sourced import about_source, apart, check_source, short_gap
from ismcore.objectives import Objective
from ismcore.optimizers.rules import Optimizer
from ismcore.plugins.adoption import device_for
from ismcore.plugins.lookup import choose, load_backend, notify_observers
from ismcore.problem import Compile
from ismcore.results.evaluate import check_language
from ismcore.results.result import FitResult
from ismcore.samples.diagnosis import diagnosis_of
from ismcore.training.events import as_listeners
from ismcore.training.progress import Progress, reporter
from ismcore.training.run_state import OnNonfinite, Plan, RunState
from ismcore.training.settings import Samples, Settings
from ismcore.training.stopping import StopRequest, interruptible
from ismcore.training.warning import warns

__all__ = ["fit", "resume"]


@names_checked
@warns
def fit(
    x: Any,
    *,
    backend: str = "auto",
    model: Any = None,
    objective: Objective | None = None,
    optimizer: Optimizer | None = None,
    epochs: int | None = None,
    batch_size: int | Literal["all"] | None = None,
    schedule: Any = None,
    clip_norm: float | None = None,
    average_decay: float | None = None,
    seed: int = 0,
    dtype: object = "float32",
    device: object = "auto",
    initial_params: FitResult | Mapping[str, Any] | None = None,
    standardize: Standardize | None = None,
    transform: Any = None,
    domain: Domain | Literal["auto"] | None = None,
    validation: Any = None,
    patience: int | None = None,
    restarts: int = 1,
    sample_weight: Any = None,
    groups: Any = None,
    callbacks: Sequence[Any] = (),
    checkpoint: str | PathLike[str] | Checkpoint | None = None,
    on_nonfinite: OnNonfinite = "raise",
    timeout: float | None = None,
    progress: Progress = "auto",
    snapshots: int | Sequence[int] = 0,
    compile: Compile = "auto",
    precision: Precision = "highest",
    allow_nonsmooth: bool = False,
    recipe: RecipeName = "default",
    ensemble: int | None = None,
    test: Any = None,
) -> FitResult:
    """Fit a score function, the gradient of the log-density, to samples.

    Equal arguments give the same fit on every backend, up to rounding: all randomness comes from the core. What is left at
    None is as the recipe has it. The default recipe starts at the normal law in closed form, and leaves it only for a
    significant gain; it holds rows out, ends when the loss on them has not become lower for long, and gives back the parameters
    of the lowest: plain implicit score matching has no lower bound on a finite sample, so a low training loss is no sign of a
    good fit. What it noticed in the samples is in `result.warnings`, and each text of that goes through Python's `warnings`
    once the work is done; what it chose is in `result.notes`.

    Args:
        x: Samples, (n, d) or (n,), in any units [x]; anything that NumPy can make an array of. Or a source of
            `ismcore.sources`, whose rows are read block by block: see docs/training.md.
        backend: "jax", "torch", "autograd", or a plugin's; "auto" takes the model's own, `ISMCORE_BACKEND`, or the first of
            the three that is ready. The reason for the choice is in the result.
        model: The family of score functions; or a network of your own: a `torch.nn.Module`, a Flax module, alone or as a pair
            (module, params), or an Equinox module, alone or inside of `Energy`; see docs/networks.md. It starts from the
            parameters that it has, and stays as it is: `FitResult.native` gives the trained one.
        objective: What to minimise; implicit score matching, by default with a curvature weight where the samples repeat
            values, as a plain loss is then without a bound even on held-out rows; of a `NoiseConditional` model, denoising over
            the ladder of `noise_ladder(x)`.
        optimizer: How: `Adam`, `SGD`, or `LBFGS`.
        epochs: Passes over the samples, at most.
        batch_size: Most rows of a step, or "all". An epoch deals all rows, in a new order, into batches of equal size.
        schedule: How the learning rate changes: "constant", "cosine", "exponential", a `Schedule`, or one rate an epoch.
        clip_norm: A gradient, over all parameters together, that is longer than this is scaled down to it.
        average_decay: Keep an exponential moving average of the parameters, to validate and to give back: each step it keeps
            this share of itself; in (0, 1), warmed up as min(average_decay, (1 + t) / (10 + t)) at step t.
        seed: Source of all randomness.
        dtype: "float32" or "float64", the dtype of parameters and computation; or a dtype object of that name, such as
            `np.float64` or `torch.float64`.
        device: "cpu", "cuda", "cuda:1", ..., or the framework's object for it, such as `torch.device("cpu")`; "auto" is where
            the framework puts arrays by default, or where your own network is.
        initial_params: Where to start: a result, whose fitted score then is where the fit starts, whatever the samples are
            shifted and scaled by; or parameters by name, of `model`, which takes x in the samples' units, as `result.model`
            does for `result.params`; drawn from the seed if None.
        standardize: Shift and scale for training: True, each column to mean 0 and standard deviation 1; "robust", by median
            and interquartile range / 1.349; "whiten", to the covariance I; False, not at all. By default True, and "robust"
            where a few rows set a standard deviation (`ismcore.diagnose` finds heavy tails). Objective, history, held-out
            loss and curvature weight refer to the coordinates z that come of it; scores that come back do not.
        transform: An elementwise transform f to train behind, z = A (f(x) - m), with m and A as `standardize` says: "log" or
            `Log(lower)` for positive columns, "logit" or `Logit(lower, upper)` for columns between two ends, "asinh", of
            (x - median) / (IQR / 1.349), for tails that no unit fits, or a `Transform` of your own; or a sequence of one or
            None for each column, or a mapping of columns, by number or name, to them. Samples, `validation=` and everything
            that comes back stay in the units of x. See docs/training.md.
        domain: Where the samples end at an edge: a `Positive`, `Box` or `Halfspaces` of `ismcore.domains`. Implicit score
            matching is then weighted by a function that vanishes at the edge, without which a density that does not makes it
            wrong everywhere; columns are scaled and no edge is moved, but to 0. "auto" takes the hard edges of columns that
            `ismcore.diagnose` finds, and `result.notes` says which. See docs/domains.md.
        validation: Share of the rows to hold out, in (0, 1), or of their weight; 0 or False for none; or validation samples,
            (m, d), that are none of x. Identical rows and near-copies are never parted. Of rows that depend on their neighbours
            in the order given short blocks are held out, with gaps beside them; see `ismcore.diagnose`.
        patience: End after so many epochs without a better held-out loss; 0 for never.
        restarts: Fit from so many starts, and give back the one with the lowest held-out loss; all are in `result.restarts`.
        sample_weight: Weight of each row in the loss and in the standardising, (n,), from 0; divided by their sum.
        groups: Label of each row, (n,), numbers or strings: rows of one label, such as those of one subject, are held out
            together.
        callbacks: Each a function of a `FitEvent`, or an object with some of `on_start`, `on_chunk`, `on_validation`,
            `on_checkpoint`, `on_end`, `on_error`. One that returns `ismcore.STOP` ends the run, one that raises ends it in
            `CallbackFailed`.
        checkpoint: Path, or `Checkpoint`, to write the run to on the way and at its end; see `resume`.
        on_nonfinite: What to do when a loss, a gradient or a parameter becomes NaN or infinite: "raise" `Diverged`, whose
            `result` is the fit up to the last finite state; "stop" and return that, with status "diverged"; or "rollback" to
            the last validated epoch and go on at half the learning rate, up to ten times.
        timeout: Seconds after which to end, with status "timed_out", once the steps in progress are done.
        progress: Show progress on standard error: True, False, or "auto", in a terminal or a notebook.
        snapshots: Epochs after which to keep the parameters, or how many to keep, spread evenly from the start to the end.
        compile: "auto", the backend's fastest loop that costs nothing to make; "on", compiled by torch too, which takes it 4 to
            30 seconds and repays them in very long runs of small networks; or "off", the backend's plain loop.
        precision: "highest" keeps all bits of float32 products on a GPU, "default" does what the framework does.
        allow_nonsmooth: Train piecewise-linear networks by objectives that differentiate in x.
        recipe: What is left at None stands for: "default", a fit in folds from the normal law on, see `ensemble`; "single", one
            network from a random start, which the default is too where a model is named, and with `validation=0`, `restarts`,
            `initial_params` or `LBFGS()`; or "reference", the protocol of the reference run: a 1-8-1 sigmoid net, Adam(0.01)
            and 500 epochs, nothing standardised and nothing held out.
        ensemble: Start at the normal law in closed form, and average so many members, each trained on all rows but those of a
            fold of its own. They stop at one step together, that of the lowest loss of all rows, each judged by the member that
            has not seen it. The model that is named is then what is learned beside the normal law; without one, a network and
            an energy are candidates, weighed by the same losses. Where they are not better than the normal law by two standard
            errors, that is what comes back, and `result.notes` says so. With 1, one member and one share held out; by default
            5, and 1 of more than 10,000 rows.
        test: Rows to set aside before anything is fitted or chosen, so that `result.check()` has rows that can judge the
            fit: a share of the rows in (0, 1), or of their weight; a number of rows; or rows beside x, (m, d). As
            for `validation`, rows that belong together are never parted. They stay in `result.test`, and in its files.

    Ctrl-C ends the run after the steps in progress, with a result of status "interrupted"; a second one at once.

    Raises:
        SamplesError, OptionError, ModelError, ParameterError: An argument cannot be used; the message says what to do.
        BackendUnavailable: The backend is unknown, not installed or broken.
        DeviceUnavailable: There is no such device.
        Diverged: The loss stopped being finite.
        CallbackFailed: A callback raised; the fit up to there is in its `result`.
        FileNotWritten: No checkpoint can be written at the path.

    Warns:
        IsmWarning: A text of `result.warnings`. Where a filter has it raised, the fit is in its `result`.

    Source: Hyvarinen (2005), JMLR 6:695-709; Kingma & LeCun (2010), NIPS 23.

    Example:
        >>> x = np.random.default_rng(0).normal(5.0, 2.0, size=1000)
        >>> plain = {"batch_size": "all", "validation": 0, "schedule": "constant"}
        >>> result = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", epochs=2000, dtype="float64", **plain)
        >>> bool(np.allclose(result.params["weight"], -1 / x.var()))
        True
    """
    request = Request(**locals())
    stop, where, followers = StopRequest(as_timeout(timeout)), as_checkpoint(checkpoint), as_listeners(callbacks)
    names = getattr(initial_params, "feature_names", None)
    samples = samples_of(x, sample_weight, validation, groups, names, share=share_held_out(request), seed=seed)
    share = share_to_set_aside(test, samples.n)
    samples = parted(samples, test, share, seed, as_dtype(dtype))
    diagnosis = diagnosis_of(samples.x, as_dtype(dtype), samples.weight, samples.names)
    samples = apart(samples, diagnosis)
    request, chosen = resolved(request, samples, diagnosis)
    loss, start = loss_of(request, samples, diagnosis)
    choice = choose(backend, loss.model.backend)
    place = device_for(loss.model, device)
    engine = load_backend(choice.name)(dtype=as_dtype(dtype), device=place, precision=precision)
    check_language(loss.model, engine.name)
    settings = replace(settings_of(request, loss, engine, choice.reason, samples, diagnosis), test=share)
    check_run(request, settings, samples)
    check_source(settings, samples)
    check_shared(engine, settings, samples, lambda: starts_of(settings, samples, start, restarts))
    where = _not_there(where)
    with others_told(), interruptible(stop), reporter(progress) as report:
        noticed = _noticed(engine, settings, samples, start, allow_nonsmooth)
        settings = replace(
            settings, warnings=(*settings.warnings, *noticed), notes=(*settings.notes, *chosen, *about_source(samples))
        )
        settings = choose_curvature(engine, settings, samples, diagnosis, stop)
        job = Job(engine, settings, samples, diagnosis, stop, [report, notify_observers, *followers], where)
        if settings.ensemble:
            return EnsembleRun(job)()
        run = Run(job)
        results = []
        for number in range(restarts):
            run_state = RunState(start_of(settings, run.data.problem, number, start))
            run.reserve(run_state)
            results.append(run(run_state, alone=restarts == 1))
            if stop.status:
                break
    best = best_of(results)
    if restarts > 1 and settings.plan.on_nonfinite != "stop" and all(result.status == "diverged" for result in results):
        raise Diverged(
            f"all {len(results)} starts diverged: lower the learning rate or give a larger curvature_weight; a fit up to its "
            "last finite state is in this error's .result",
            epoch=len(results[0].history["loss"]),
            result=best,
        )
    return best


@names_checked
@warns
def resume(
    path: str | PathLike[str],
    x: Any,
    *,
    backend: str | None = None,
    device: object = "auto",
    model: Any = None,
    epochs: int | None = None,
    sample_weight: Any = None,
    groups: Any = None,
    validation: Any = None,
    test: Any = None,
    callbacks: Sequence[Any] = (),
    checkpoint: Checkpoint | None = None,
    timeout: float | None = None,
    progress: Progress = "auto",
    compile: Compile | None = None,
) -> FitResult:
    """Go on with a run from its checkpoint: to the same bits as if it had never stopped, on the same backend and machine.

    Another backend may go on with it: the results then agree up to rounding. A run that was completed or stopped early comes
    back as it is, unless it is given more epochs; one that diverged does so again.

    Args:
        path: As given to `fit(checkpoint=...)`. Where the newest file is damaged, the one before it is taken, and
            `result.warnings` says so. The run goes on writing there.
        x: The same samples, or the same source, which is read once to see whether its rows are the same.
        backend: Another backend than before.
        device: As for `fit`.
        model: The model, where a file cannot hold it, as with a `ScoreFunction`.
        epochs: Another number of epochs, at least those that are done. A schedule is stretched to it.
        sample_weight: The same weights, if there were any.
        groups: The same groups, if there were any.
        validation: The same validation samples, if there were any; rows held out by their share are known.
        test: The same rows beside x, if there were any; rows set aside by their share or number are known.
        callbacks: As for `fit`.
        checkpoint: How to go on writing, if not every 30 seconds into the same file. A run without rows stays one.
        timeout: As for `fit`.
        progress: As for `fit`.
        compile: As for `fit`, if other than before.

    Raises:
        CheckpointMismatch: Samples, weights, model or epochs are not those of the run; the message says what differs.
        FileInvalid: No checkpoint at the path is whole.
        FileNotFoundError: There is none.
        And what `fit` raises and warns of.

    Example:
        >>> import tempfile
        >>> x = np.random.default_rng(0).normal(size=200)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/run.safetensors"
        ...     first = ismcore.fit(x, backend="autograd", epochs=20, validation=0, checkpoint=path)
        ...     ismcore.resume(path, x, epochs=30).history["loss"].shape
        (30,)
    """
    stop = StopRequest(as_timeout(timeout))
    stored, file, passed_over = read_checkpoint(path, model)
    settings, run_states = stored.settings, stored.run_states
    names, seed = settings.feature_names, settings.seed
    samples = samples_of(x, sample_weight, validation, groups, names, share=settings.validation, seed=seed)
    samples = parted(samples, test, settings.test, settings.seed, settings.dtype)
    diagnosis = diagnosis_of(samples.x, settings.dtype, samples.weight, samples.names)
    samples = apart(samples, diagnosis, stored.fingerprints)
    _check_same(file, stored, samples)
    for run_state in run_states:
        if run_state.status == "diverged" and len(run_states) > 1:  # of several candidates, it cost only itself
            continue
        if epochs is not None:
            settings = replace(settings, plan=_longer(settings, run_state, epochs))
        if epochs is not None or run_state.status not in ("completed", "early_stopped", "diverged"):
            run_state.status = ""
    if backend is not None:
        choice = choose(backend, settings.model.backend)
        settings = replace(settings, backend=choice.name, backend_reason=choice.reason)
    settings = replace(settings, compile=settings.compile if compile is None else compile)
    check_language(settings.model, settings.backend)
    place = device_for(settings.model, device)
    engine = load_backend(settings.backend)(dtype=settings.dtype, device=place, precision=settings.precision)
    settings = replace(settings, device=engine.device)
    where = _of_the_first(as_checkpoint(Checkpoint(path) if checkpoint is None else checkpoint, rows=stored.rows))
    followers = as_listeners(callbacks)
    check_shared(engine, settings, samples, lambda: [run_state.state for run_state in run_states])
    run_states[0].warnings += passed_over
    with others_told(), interruptible(stop), reporter(progress) as report:
        job = Job(engine, settings, samples, diagnosis, stop, [report, notify_observers, *followers], where)
        return EnsembleRun(job)(run_states) if settings.ensemble else Run(job)(run_states[0])


def _noticed(
    engine: Backend, settings: Settings, samples: Samples, start: StartingPoint | None, allow_nonsmooth: bool
) -> tuple[str, ...]:
    """Warnings of the network and of what judges it, in words."""
    about_network = probe(engine, settings, samples, start, allow_nonsmooth=allow_nonsmooth)
    return (*about_network, *short_gap(samples), *about_validation(samples))


def _not_there(where: Checkpoint | None) -> Checkpoint | None:
    """Where to write, see `_of_the_first`; refused in all of several processes where the first finds a file."""
    if gathered(float(where is not None and os.path.exists(where.path)))[0]:
        raise OptionError("process 0 finds a checkpoint at its path" if where is None else is_there_already(where.path))
    return _of_the_first(where)


def _of_the_first(where: Checkpoint | None) -> Checkpoint | None:
    """Where to write; None in all but the first of several processes that share the fit."""
    return None if rank_and_world()[0] else where


def _check_same(file: Path, stored: Stored, samples: Samples) -> None:
    d = stored.coordinates.d
    if samples.x.shape[1] != d:
        raise CheckpointMismatch(f"{file} is of samples with {d} columns; these have {samples.x.shape[1]}")
    found = samples.fingerprints()
    other = [name for name in found if found[name] != stored.fingerprints.get(name, "")]
    if other:
        raise CheckpointMismatch(
            f"{file} is of another {' and '.join(other)}: {'; '.join(_differs(name, found, stored) for name in other)}; pass "
            f"what the run began with, or begin a new fit with initial_params=ismcore.load({os.fspath(file)!r})"
        )


def _differs(name: str, found: dict[str, str], stored: Stored) -> str:
    if not stored.fingerprints.get(name):
        return f"the run had no {name}"
    return f"{name} is not bit for bit that of the run" if found[name] else f"the run had {name}, and here is none"


def _longer(settings: Settings, run_state: RunState, epochs: int) -> Plan:
    epochs = as_epochs(epochs)
    begun = run_state.epoch + bool(len(run_state.open_losses))
    why = ""
    if run_state.status == "diverged":
        why = "it diverged; begin a new fit with a lower learning rate or another curvature_weight"
    elif isinstance(settings.plan.schedule, tuple) and epochs != settings.plan.epochs:
        why = "its schedule has one rate an epoch"
    elif epochs < begun:
        why = f"it has begun {begun}"
    if why:
        raise CheckpointMismatch(f"the run cannot be given epochs={epochs}: {why}")
    kept = tuple(epoch for epoch in settings.plan.snapshot_epochs if epoch <= epochs)
    return replace(settings.plan, epochs=epochs, snapshot_epochs=kept)
