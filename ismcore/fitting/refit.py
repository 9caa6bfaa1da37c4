"""`ismcore.Refit`: a fit kept open, for samples that move."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any, cast

import numpy as np

from ismcore.backend.contract import Precision, Session, as_dtype
from ismcore.backend.processes import shared, shared_by
from ismcore.backend.programs import score_program
from ismcore.coordinates import Standardize
from ismcore.errors import Diverged, OptionError
from ismcore.fitting.checks import probe
from ismcore.fitting.fit import fit
from ismcore.fitting.options import Request, loss_of, settings_of
from ismcore.fitting.selection import start_of
from ismcore.models import MLP
from ismcore.objectives import LossInputs, Objective
from ismcore.ops import Params
from ismcore.optimizers.rules import Optimizer
from ismcore.optimizers.state import TrainState
from ismcore.plugins.adoption import device_for
from ismcore.plugins.lookup import choose, load_backend
from ismcore.problem import Compile, Problem
from ismcore.results.evaluate import check_language
from ismcore.results.result import FitResult, versions
from ismcore.samples.checks import ROUNDING, as_samples, as_weights, check_spread
from ismcore.samples.diagnosis import diagnosis_of
from ismcore.samples.tables.frames import names_of
from ismcore.training.run_state import RunState
from ismcore.training.settings import Data, Samples

__all__ = ["Refit"]

LOOK_EVERY = 5
"""Steps from one look at the gradient's norm to the next: each costs about a step."""


class Refit:
    """A fit that is kept open, to follow samples that move: the score of particles at one time after another.

    Nothing is trained until `update`. Parameters, the optimiser's moments and its count of steps go on from call to call;
    coordinates stay those of the first samples. All rows are trained on at each step, at a constant rate: no rows are held
    out, and nothing says whether the score is right, which `ismcore.diagnose` and `FitResult.check` do.

    Args:
        x: The first samples, (n, d) or (n,), in [x].
        model: As for `ismcore.fit`; `MLP()`, a network of two layers of 64 units, if None.
        objective: As for `ismcore.fit`; plain implicit score matching if None.
        optimizer: `ismcore.Adam(...)` or `ismcore.SGD(...)`; Adam(1e-2) if None.
        backend: As for `ismcore.fit`.
        dtype: As for `ismcore.fit`.
        device: As for `ismcore.fit`.
        seed: Source of all randomness.
        initial_params: Where to start, such as the result of a fit of the first samples, to their exact score by
            `ismcore.ExplicitScoreMatching`; see `ismcore.fit`.
        standardize: As for `ismcore.fit`, by the first samples.
        sample_weight: Weight of each row, (n,), from 0.
        clip_norm: As for `ismcore.fit`.
        compile: As for `ismcore.fit`.
        precision: As for `ismcore.fit`.
        allow_nonsmooth: As for `ismcore.fit`.

    Raises:
        And what `ismcore.fit` raises.

    Cost: an update costs its steps, and about one more. Where the backend compiles a program for a number of rows, as JAX
    does, the first change of n compiles one for the next power of two, with rows of weight 0, that serves all n up to it.

    Source: Boffi & Vanden-Eijnden (2023), Mach. Learn.: Sci. Technol. 4:035012, for scores that follow particles.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> refit = ismcore.Refit(x, model=ismcore.Affine(), backend="autograd")
        >>> for t in range(3):  # particles that spread
        ...     losses = refit.update((1.0 + 0.1 * t) * x, steps=25)
        >>> losses.shape, refit.steps, refit.score(x).shape
        ((25,), 75, (200, 2))
    """

    def __init__(
        self,
        x: Any,
        *,
        model: Any = None,
        objective: Objective | None = None,
        optimizer: Optimizer | None = None,
        backend: str = "auto",
        dtype: object = "float32",
        device: object = "auto",
        seed: int = 0,
        initial_params: FitResult | Mapping[str, Any] | None = None,
        standardize: Standardize = True,
        sample_weight: Any = None,
        clip_norm: float | None = None,
        compile: Compile = "auto",
        precision: Precision = "highest",
        allow_nonsmooth: bool = False,
    ) -> None:
        began = time.monotonic()
        names = getattr(initial_params, "feature_names", None)
        array = as_samples(x, names=names)
        weight = None if sample_weight is None else as_weights(sample_weight, len(array))
        samples = Samples(array, weight, names=names or names_of(x))
        diagnosis = diagnosis_of(array, as_dtype(dtype), samples.weight)
        request = _request(
            x=x,
            sample_weight=sample_weight,
            backend=backend,
            model=MLP() if model is None and not isinstance(initial_params, FitResult) else model,
            objective=objective,
            optimizer=optimizer,
            seed=seed,
            dtype=dtype,
            device=device,
            initial_params=initial_params,
            standardize=standardize,
            clip_norm=clip_norm,
            compile=compile,
            precision=precision,
            allow_nonsmooth=allow_nonsmooth,
        )
        loss, start = loss_of(request, samples, diagnosis)
        choice = choose(backend, loss.model.backend)
        place = device_for(loss.model, device)
        self._engine = load_backend(choice.name)(dtype=as_dtype(dtype), device=place, precision=precision)
        check_language(loss.model, self._engine.name)
        settings = settings_of(request, loss, self._engine, choice.reason, samples, diagnosis)
        _check_open(settings.optimizer, settings.objective)
        noticed = probe(self._engine, settings, samples, start, allow_nonsmooth=allow_nonsmooth)
        self._settings = replace(settings, warnings=(*settings.warnings, *noticed))
        self._problem = Data.of(settings, samples).problem
        self._state = start_of(settings, self._problem, 0, start)
        self._losses: list[np.ndarray] = []
        self._pads = self._engine.compiles_for_shapes or compile == "on"
        self._rows = len(array)
        self._versions = versions(self._engine.packages)
        self._timings = {"prepare": time.monotonic() - began, "run": 0.0}
        self._session: Session | None = None
        self._result: FitResult | None = None
        self._placed: Params | None = None
        with self._engine.scope():
            self._array_type = type(self._engine.asarray(np.zeros(1)))

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return self._state.step

    def update(self, x: Any = None, *, steps: int = 25, until: float | None = None, sample_weight: Any = None) -> np.ndarray:
        """Take steps on these samples, from where the last ones led.

        Args:
            x: Samples, (n, d) or (n,), in [x], any number of rows; those of the last call if None.
            steps: How many, at most.
            until: End as soon as the gradient of the loss in all parameters, of the samples as trained on, has at most this
                2-norm: looked at before the first step and after each fifth, at the cost of about a step each.
            sample_weight: Weight of each row, (n,), from 0; all alike if None.

        Returns:
            The loss before each step that was taken, on the samples as trained on, (at most `steps`,).

        Raises:
            OptionError: `steps` is no whole number from 1, or `until` no positive number.
            SamplesError: The samples cannot be used.
            Diverged: A loss or a parameter was not finite. The fit stays as it was before the call.
        """
        _check_update(steps, until)
        if x is None and sample_weight is not None:
            raise OptionError("sample_weight= is of the rows of x: give x too")
        problem = self._problem if x is None else self._moved(x, sample_weight)
        began = time.monotonic()
        losses, state = self._take(problem, steps, until)
        self._timings["run"] += time.monotonic() - began
        if not (np.isfinite(losses).all() and state.finite):
            self._session = None
            raise Diverged(
                f"a loss or a parameter is not finite within {len(losses)} steps from step {self.steps}: lower the learning "
                "rate or give a curvature_weight; the fit is as it was before them",
                epoch=self.steps + 1,
                result=self.result(),
            )
        self._problem, self._state, self._result, self._placed = problem, state, None, None
        self._losses.append(losses)
        return losses

    def score(self, x: Any) -> Any:
        """The score psi at points x, (n, d) or (n,), in 1/[x].

        It is a NumPy array, float64, with shift and scale applied in float64, as `FitResult.score` has it. Of an array of the
        backend's own, such as a `torch.Tensor`, it is one too, in the fit's dtype and on its device, and never on the host.

        Raises:
            SamplesError: The points cannot be used.
        """
        if isinstance(x, np.ndarray) or not isinstance(x, self._array_type):
            return self._score_in_numpy(as_samples(x, d=self._problem.coordinates.d, names=self._settings.feature_names))
        with self._engine.scope():
            params = self._on_device()
            here = next(iter(params.values()))
            if (x.dtype, x.device) != (here.dtype, here.device):
                x = self._engine.asarray(self._engine.to_numpy(x))
            points = x[:, None] if x.ndim == 1 else x
            return score_program(self._engine, self.result().model)(params, points)

    def result(self) -> FitResult:
        """What the fit has come to: see `FitResult`. `history` has one entry a step, whatever samples it was taken on.

        Modes that lie apart are not counted, as samples that move part and meet again: `modes` is None, and `log_density` gives
        each the mass that the score makes of the region between them. `result.notes` says so; `as_energy(x)` counts them in x.
        """
        if self._result is None:
            losses = np.concatenate([np.empty(0), *self._losses])
            run_state = RunState(self._state, losses, self._rates(len(losses)), status="completed", timings=self._timings)
            about = self._settings, self._problem.coordinates, run_state, 0
            found = FitResult.of(*about, timings={"total": sum(self._timings.values())}, versions=self._versions)
            self._result = found._with_modes(None, counted=False)
        return self._result

    def _take(self, problem: Problem, steps: int, until: float | None) -> tuple[np.ndarray, TrainState]:
        """The loss before each step, (k,), and the state after the last; inside of the backend's scope throughout."""
        losses, taken = [np.empty(0)], 0
        with shared_by(None), self._engine.scope():  # each process for itself
            session, self._session = self._session, None  # lost where a step or its samples raise
            if session is None or not (problem is self._problem or session.follow(problem)):
                session = self._engine.prepare(problem, self._state)
            norm = None if until is None else self._gradient_norm(problem)
            while taken < steps:
                if norm is not None and until is not None and norm(session.state().params, self.steps + taken) <= until:
                    break
                count = steps - taken if norm is None else min(LOOK_EVERY, steps - taken)
                losses.append(session.run(problem.steps(self.steps + taken, self._rates(count))))
                taken += count
            state = session.state()
        self._session = session
        return np.concatenate(losses), state

    def _gradient_norm(self, problem: Problem) -> Callable[[Params, int], float]:
        """The 2-norm of the loss's gradient in all parameters, as a function of them and of the step, whose draws it takes."""
        engine = self._engine
        gradient_of = engine.loss_and_gradient(problem.loss)

        def norm(params: Params, step: int) -> float:
            x, given = engine.asarray(problem.x), engine.asarrays(problem.inputs())
            drawn = engine.asarrays(problem.draws(step))
            _, gradient = gradient_of(engine.asarrays(params), x, cast(LossInputs, {**given, **drawn}))
            return float(np.sqrt(sum(np.sum(engine.to_numpy(slope).astype(np.float64) ** 2) for slope in gradient.values())))

        return norm

    def _moved(self, x: Any, sample_weight: Any) -> Problem:
        """The problem of other samples, in the coordinates of the first."""
        problem, own = self._problem, not isinstance(x, np.ndarray) and isinstance(x, self._array_type)
        given = self._engine.to_numpy(x) if own else x
        array = as_samples(given, d=problem.coordinates.d, names=self._settings.feature_names)
        if problem.objective.domain is not None:
            problem.objective.domain.check(array)
        weight = None if sample_weight is None else as_weights(sample_weight, len(array))
        # else two rows differ in every column, by more than rounding
        if weight is not None or len(array) < 2 or np.any(np.abs(array[0] - array[-1]) <= ROUNDING * np.abs(array[0])):
            check_spread(array, weight, self._settings.feature_names)
        z = as_samples(problem.coordinates(array), dtype=self._settings.dtype, copy=False)
        if self._pads and len(z) != self._rows:
            rows = _power_of_two(len(z))
            weight = np.full(len(z), 1.0 / len(z)) if weight is None else weight
            z, weight = _padded(z, rows), np.concatenate([weight, np.zeros(rows - len(z))])
        return replace(problem, x=z, row_weight=weight)

    def _score_in_numpy(self, points: np.ndarray) -> np.ndarray:
        """Of points padded to a power of two where a program is compiled for them: the library's own models need none."""
        result, n = self.result(), len(points)
        if self._pads and not result.model.portable:
            points = _padded(points, _power_of_two(n))
        return result.score(points)[:n]

    def _on_device(self) -> Params:
        """The parameters, as arrays of the backend; inside of its scope."""
        if self._placed is None:
            self._placed = self._engine.asarrays(self.result().params)
        return self._placed

    def _rates(self, count: int) -> np.ndarray:
        return np.full(count, self._settings.optimizer.learning_rate)


def _padded(x: np.ndarray, rows: int) -> np.ndarray:
    """So many rows, the last of x repeated after it."""
    return np.concatenate([x, np.broadcast_to(x[-1], (rows - len(x), x.shape[1]))])


def _power_of_two(n: int) -> int:
    """The least power of two from n on."""
    return 1 << (n - 1).bit_length()


def _request(**given: Any) -> Request:
    """The arguments of a fit of one network, all rows at each step and nothing held out; the others as `fit` has them."""
    left_out = {name: parameter.default for name, parameter in signature(fit).parameters.items()}
    plain = {"recipe": "reference", "epochs": 1, "batch_size": "all", "schedule": "constant", "validation": 0, "patience": 0}
    return Request(**{**left_out, **plain, **given})


def _check_open(optimizer: Optimizer, objective: Objective) -> None:
    if optimizer.runs_whole:
        raise OptionError(f"{optimizer!r} runs a fit as a whole and keeps no moments: use ismcore.Adam()")
    if shared() is not None:
        raise OptionError("a fit that is kept open is not shared by processes: open it outside of processes()")
    if objective.search is not None:
        raise OptionError("a curvature weight is searched for by held-out rows, and here are none: give a number")


def _check_update(steps: Any, until: Any) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise OptionError(f"steps must be a whole number from 1, not {steps!r}")
    if until is not None and (not isinstance(until, int | float | np.number) or not 0.0 < until < np.inf):
        raise OptionError(f"until must be a positive number, the gradient's norm to end at, not {until!r}")
