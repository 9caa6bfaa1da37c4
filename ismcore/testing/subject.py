"""The backend under test, and the one way in which a number that it returns is compared with the right one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.calculus import Calculus
from ismcore.errors import IsmError, OptionError
from ismcore.ops import Array, Params
from ismcore.optimizers.rules import SGD
from ismcore.optimizers.state import TrainState
from ismcore.plugins.lookup import load_backend
from ismcore.problem import Compile, Problem
from ismcore.testing.cases import TrainingCase
from ismcore.testing.scenarios import Scenario

__all__ = [
    "TOLERANCES",
    "CheckFailed",
    "Field",
    "NotDeclared",
    "Outcome",
    "Subject",
    "Tolerances",
    "Training",
    "identical",
    "run_at",
]


class CheckFailed(IsmError, AssertionError):
    """A backend does not do what the contract says.

    Attributes:
        error: Worst error over tolerance, where numbers were compared.
    """

    def __init__(self, message: str, error: float = np.inf) -> None:
        super().__init__(message)
        self.error = error


class NotDeclared(Exception):
    """The check is about something optional that the backend does not claim to have: the only reason to skip one."""


@dataclass(frozen=True)
class Tolerances:
    """Largest error allowed, relative to max(1, largest magnitude of the answer).

    Relative to the whole array and not entry by entry, since an entry near zero is a difference of larger ones.
    """

    value: float
    gradient: float
    steps: float


TOLERANCES = {
    # Right answers are a few hundred units in the last place (2e-16) away from ours: sums of some hundred terms. A gradient is
    # a sum over samples of products of three or four such factors, hence ten times more. Twenty steps multiply what one step
    # adds by at most (1 + rate * curvature)^20, about 100.
    "float64": Tolerances(value=1e-12, gradient=1e-11, steps=1e-9),
    # The last place is 1.2e-7 and inputs are themselves rounded; 2e-5 is 160 of them, and still far below the error of a wrong
    # formula. In twenty steps Adam turns a rounding error of a small gradient into one of a step, hence five times more.
    "float32": Tolerances(value=2e-5, gradient=2e-5, steps=1e-4),
}


@dataclass(frozen=True)
class Outcome:
    """What a scenario's objective gave on a backend, as NumPy arrays in the working dtype."""

    loss: np.ndarray
    gradient: Params


@dataclass(frozen=True)
class Field:
    """What a scenario's model gave on a backend, likewise: score and Jacobian diagonal, both (n, d)."""

    score: np.ndarray
    jacobian_diagonal: np.ndarray


@dataclass(frozen=True)
class Subject:
    """A backend under test, with the dtype and device that it is tested in.

    Attributes:
        backend: The class.
        dtype: "float32" or "float64".
        device: One of its devices.
        name: The name that it is installed under, or None for a class that was passed in as it is.
    """

    backend: type[Backend]
    dtype: str = "float64"
    device: str = "cpu"
    name: str | None = None

    @classmethod
    def of(cls, backend: str | type[Backend], dtype: str | None, device: str) -> Subject:
        """The subject for a name or a class; without a dtype in float64, or in float32 if the backend declares that alone.

        Raises:
            BackendUnavailable: There is no such backend, or it cannot be imported.
            OptionError: The dtype is none that the kit knows, or none that the backend declares.
        """
        if dtype is not None and dtype not in TOLERANCES:
            raise OptionError(f"dtype must be one of {', '.join(TOLERANCES)}, not {dtype!r}")
        found, name = (load_backend(backend), backend) if isinstance(backend, str) else (backend, None)
        declared = tuple(known for known in TOLERANCES if known in found.dtypes)
        if not declared or dtype not in (None, *declared):
            offered = ", ".join(declared) or "no dtype that the kit knows"
            raise OptionError(
                f"backend {name or found.__name__} declares {offered}, not {dtype!r}: test it in what it declares (a test "
                f"class says dtypes = {declared})"
            )
        return cls(found, dtype or declared[0], device, name)

    @property
    def tolerances(self) -> Tolerances:
        """Those of the dtype."""
        return TOLERANCES[self.dtype]

    def engine(self) -> Backend:
        """A fresh instance of the backend."""
        return self.backend(dtype=self.dtype, device=self.device)

    @contextmanager
    def working(self) -> Iterator[Backend]:
        """A fresh instance, in its scope."""
        engine = self.engine()
        with engine.scope():
            yield engine

    @property
    def products(self) -> tuple[str, ...]:
        """Those of "jvp" and "vjp" that the backend declares, by overriding them."""
        return tuple(name for name in ("jvp", "vjp") if getattr(self.backend, name) is not getattr(Calculus, name))

    def require(self, product: str) -> None:
        """Leave the check unless the backend declares the product.

        Raises:
            NotDeclared: It does not.
        """
        if product not in self.products:
            raise NotDeclared(f"declares no {product}")

    def by(self, product: str) -> Subject:
        """The backend as if it declared this product alone, and no diagonal of its own; itself where that is all it has."""
        own_diagonal = self.backend.jacobian_diagonal is not Calculus.jacobian_diagonal
        if self.products == (product,) and not own_diagonal:
            return self
        return replace(self, backend=_alone(self.backend, product), name=None)

    def evaluate(self, scenario: Scenario) -> Outcome:
        """Loss and gradient at the scenario's parameters, by nested differentiation, computed once a subject."""
        return _evaluate(self, scenario)

    def field(self, scenario: Scenario) -> Field:
        """Score and Jacobian diagonal at the scenario's parameters, computed once a subject."""
        return _field(self, scenario)

    def compute(self, scenario: Scenario) -> Outcome:
        """What `evaluate` gives, computed anew."""
        with self.working() as engine:
            problem = scenario.problem(SGD())
            # the canonical loss, with the inputs of this one, is what a session may compile for all like it
            loss_and_gradient = engine.value_and_grad(partial(problem.loss.canonical().value, engine))
            return run_at(engine, engine.compiled(loss_and_gradient), problem, scenario)

    def compute_field(self, scenario: Scenario, x: np.ndarray | None = None) -> Field:
        """What `field` gives, computed anew, and at other samples if there are any."""
        with self.working() as engine:
            params, points = engine.asarrays(scenario.params), engine.asarray(scenario.x if x is None else x)
            context = () if scenario.context is None else (engine.asarray(scenario.context),)

            def both(at: Params, points: Array, *context: Array) -> tuple[Array, Array]:
                return engine.jacobian_diagonal(lambda moved: scenario.model.score(engine, at, moved, *context), points)

            psi, diagonal = engine.compiled(both)(params, points, *context)
            return Field(engine.to_numpy(psi), engine.to_numpy(diagonal))

    def close(
        self, found: Any, expected: Any, tolerance: float, what: str, *, dtype: str = "", at: np.ndarray | None = None
    ) -> float:
        """Error over tolerance of an array, or of a dict of arrays, once dtype and shape are known to be right.

        Args:
            found: What the backend gave.
            expected: The answer, in float64.
            tolerance: Largest error, relative to max(1, largest magnitude of the answer).
            what: What the array is, in a message.
            dtype: The dtype that it must have; the subject's own unless said.
            at: Where each entry was taken. Entries are then compared one by one, relative to max(1, |answer|), as large ones
                would hide what is wrong with others; and the message says where it is worst.

        Raises:
            CheckFailed: It is no array, has another dtype or shape, is not finite, or is too far off.
        """
        if isinstance(expected, Mapping):
            if set(found) != set(expected):
                raise CheckFailed(f"{what} has the keys {', '.join(found)}, not {', '.join(expected)}")
            parts = [self.close(found[k], v, tolerance, f"{what} {k}", dtype=dtype) for k, v in expected.items()]
            return max(parts, default=0.0)
        expected = np.asarray(expected, dtype=np.float64)
        self.typed(found, what, dtype=dtype)
        if found.shape != expected.shape:
            raise CheckFailed(f"{what} has shape {found.shape}, not {expected.shape}")
        errors, scales = np.abs(found - expected), np.maximum(1.0, np.abs(expected))
        if at is None:
            error = np.max(errors, initial=0.0) / np.max(scales, initial=1.0)
        else:
            ratios = errors / scales
            worst = int(np.argmax(np.where(np.isnan(ratios), np.inf, ratios)))
            error, what = ratios.ravel()[worst], f"{what} at {at.ravel()[worst]:g}"
        if not error <= tolerance:
            ratio = float(error / tolerance) if np.isfinite(error) else np.inf
            raise CheckFailed(f"{what}: off by {error:.1e}, {ratio:.2g} times the tolerance {tolerance:.0e}", ratio)
        return float(error / tolerance)

    def typed(self, found: Any, what: str, *, dtype: str = "") -> None:
        """Insist on a NumPy array of the dtype that was asked for.

        Raises:
            CheckFailed: It is something else.
        """
        dtype = dtype or self.dtype
        if not isinstance(found, np.ndarray) or found.dtype != dtype:
            got = found.dtype if isinstance(found, np.ndarray) else type(found).__name__
            raise CheckFailed(f"{what} is {got}, not a NumPy array of {dtype}")


class Training:
    """A session of the subject, driven as the core's own loop drives one.

    Args:
        subject: The backend under test.
        case: What is trained, and how.
        state: Where to begin; the case's own start if None.
        compile: See `Problem.compile`.
    """

    def __init__(
        self, subject: Subject, case: TrainingCase, state: TrainState | None = None, compile: Compile = "auto"
    ) -> None:
        state = case.start() if state is None else state
        self._subject = subject
        self._engine = subject.engine()
        self._case, self._step = case, state.step
        self.prepare(case.problem(compile), state)

    def prepare(self, problem: Problem, state: TrainState) -> None:
        """A session of a problem from a state, in the place of the one before."""
        self.problem = problem
        with self._engine.scope():
            self._session = self._engine.prepare(problem, state)
            self._engine.synchronize()

    def follow(self, problem: Problem) -> bool:
        """Whether the session goes on with a problem's samples; see `Session.follow`."""
        with self._engine.scope():
            follows = self._session.follow(problem)
        self.problem = problem
        return follows

    def run(self, rates: Any) -> np.ndarray:
        """Take one step a rate, each with its own rows, draws and decay; the losses, float64, one a step."""
        rates = np.asarray(rates, dtype=np.float64)
        decays = self._case.decays(self._step, len(rates))
        with self._engine.scope():
            losses = self._session.run(self.problem.steps(self._step, rates, decays))
        self._step += len(rates)
        self._subject.typed(losses, "what run returns", dtype="float64")
        if losses.shape != rates.shape:
            raise CheckFailed(f"run of {len(rates)} steps returns losses of shape {losses.shape}, not {rates.shape}")
        return losses

    def state(self) -> TrainState:
        """The state, once every array is known to have the dtype."""
        with self._engine.scope():
            state = self._session.state()
        for name, value in state.arrays().items():
            self._subject.typed(value, f"{name} in the state")
        return state


@cache
def _alone(backend: type[Backend], product: str) -> type[Backend]:
    """The backend as if it declared this product alone, and no diagonal of its own."""
    (other,) = {"jvp", "vjp"} - {product}
    hidden = {other: getattr(Calculus, other), "jacobian_diagonal": Calculus.jacobian_diagonal}
    return type(f"{backend.__name__}By{product.capitalize()}", (backend,), hidden)


@lru_cache(maxsize=512)
def _evaluate(subject: Subject, scenario: Scenario) -> Outcome:
    return subject.compute(scenario)


@lru_cache(maxsize=512)
def _field(subject: Subject, scenario: Scenario) -> Field:
    return subject.compute_field(scenario)


def run_at(engine: Backend, loss_and_gradient: Any, problem: Problem, scenario: Scenario) -> Outcome:
    """What a function (params, x, given) gives at the scenario's parameters and the problem's samples; inside of the scope."""
    given = engine.asarrays(problem.inputs() | problem.draws(0))
    loss, gradient = loss_and_gradient(engine.asarrays(scenario.params), engine.asarray(problem.x), given)
    return Outcome(engine.to_numpy(loss), {name: engine.to_numpy(value) for name, value in gradient.items()})


def identical(one: Params, other: Params, what: str) -> None:
    """Insist on equal bits.

    Raises:
        CheckFailed: Two arrays of one name differ.
    """
    for name, value in one.items():
        if value.tobytes() != other[name].tobytes():
            raise CheckFailed(f"{what} differ in {name}, by {np.max(np.abs(value - other[name]), initial=0.0):.1e}")
