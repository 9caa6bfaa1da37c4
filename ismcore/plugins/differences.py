"""Loss and gradient of a training step against central differences of the score's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import cast

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.calculus import NumpyCalculus, ScoreFn
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.objectives import LossInputs, SlicedScoreMatching
from ismcore.ops import Array, Params
from ismcore.optimizers.rules import SGD
from ismcore.plugins.adoption import failures_named
from ismcore.problem import Problem
from ismcore.seeds import stream

__all__ = ["Outputs", "check_step"]

Outputs = Callable[[Params, Array, Array | None], tuple[np.ndarray, np.ndarray]]
"""Score, (n, d), and what the user's code returns, at parameters, points and context."""

STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
"""Steps of the differences, in units of a column's spread and of a parameter's size; which are good depends on the network."""
NEAR = {"x": 2e-3, "parameters": 1e-2}
"""Largest disagreement, relative to the size of what is compared."""
JITTER = 1e-6
"""A step, in units of the spread, over which a smooth score is a straight line, so that what departs from it is rounding."""
MARGIN = 8.0
"""Rounding of a difference, as a multiple of what was measured."""
CUT = (
    "A part of its forward pass is cut off (detach, .data, no_grad, stop_gradient), or has a backward pass of its own that is "
    "wrong: take that out"
)
NORMS = (
    ". An energy is differentiated three times: torch's LayerNorm and InstanceNorm are wrong there (2.13), where "
    "GroupNorm(1, n) is right"
)
DIRECTIONS = 4
"""Directions of the parameters that are looked along: of one a wrong gradient is a quarter of the time nearly right."""
SHIFT = 0.05
"""How far the parameters are moved from where they start, relative to their size: a gate that starts at 0 hides others."""


Difference = tuple[float, float, float]
"""A slope by differences, how far from it agrees, and what rounding may add to it."""


class _Differences(NumpyCalculus):
    """NumPy, whose derivatives in x are central differences over a step."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = step

    def jvp(self, f: ScoreFn, x: Array, v: Array, /) -> tuple[Array, Array]:
        """See `Calculus.jvp`."""
        ends = f(np.concatenate([x + self.step * v, x - self.step * v]))
        return f(x), (ends[: len(x)] - ends[len(x) :]) / (2.0 * self.step)


def check_step(
    engine: Backend,
    title: str,
    problem: Problem,
    params: Params,
    outputs: Outputs,
    context: np.ndarray | None = None,
    *,
    energy: bool = False,
    compare: bool = True,
) -> tuple[str, ...]:
    """Refuse a model whose training step is not that of its scores: one cut off from x, or from its parameters.

    On a few rows the training session takes a step of rate 0, whose loss and gradient are compared with differences of the
    score's values alone. Where the objective differentiates in x, it is sliced score matching with one probe v:

        v^T J(x) v  with  v . (psi(x + h v) - psi(x - h v)) / 2h
        <gradient, delta>  with  (loss(theta + k delta) - loss(theta - k delta)) / 2k,   loss by the differences above

    A difference counts if rounding, which is measured, moves it by less than the tolerance. Refused is what agrees with none,
    where two neighbouring steps agree with each other: a step may be too long for the network, and both then prove nothing.
    Parameters without any effect, or without a gradient, are warned of; refused is a model that has no others.

    Args:
        engine: Where to train.
        title: What the model is called in an error.
        problem: The rows to look at, and the user's objective.
        params: To look at.
        outputs: Score and output of the model on the engine; called with 2 n rows.
        context: What the score is conditional on at the rows, (n, c), if anything.
        energy: Whether the output is an energy U, of which the score is -grad U; that is compared too.
        compare: Whether anything is compared, or only parameters without a gradient are looked for.

    Returns:
        Warnings, in words.

    Raises:
        ModelError: The message says what disagrees, and names parameters.

    Cost: one training step on n rows, its compilation included, and some 10 scores of 2 n rows.
    """
    return _Step(engine, title, problem, params, outputs, context, energy=energy).check(compare)


def _as_symmetric_as(value: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The direction, made symmetric where the parameter is a symmetric matrix, as a covariance may have to stay one.

    The gradient of a Cholesky factor takes the matrix for symmetric, for one, and its value reads one triangle alone.
    """
    if np.ndim(value) != 2 or len(value) != value.shape[1] or not np.array_equal(value, value.T):
        return direction
    return np.asarray(np.triu(direction) + np.triu(direction, 1).T)


class _Step:
    """One training step on a few rows, and what is compared with it; see `check_step`."""

    def __init__(
        self,
        engine: Backend,
        title: str,
        problem: Problem,
        params: Params,
        outputs: Outputs,
        context: np.ndarray | None,
        *,
        energy: bool,
    ) -> None:
        self.title, self.engine, self.outputs, self.context, self.energy = title, engine, outputs, context, energy
        self.rng = stream(0, "probe")
        n, d = problem.x.shape
        spread = problem.x.std(axis=0)
        self.v = self.rng.choice([-1.0, 1.0], (n, d)) * np.where(spread > 0.0, spread, spread.mean() or 1.0)
        self.in_x = problem.objective.differentiates_in_x
        objective = SlicedScoreMatching(probes=self.v[None]) if self.in_x else problem.objective
        inputs = problem.inputs()
        inputs.pop("row_weight", None)
        if self.in_x:
            about = {"context": inputs["context"]} if "context" in inputs else {}
            inputs = cast(LossInputs, {**objective.inputs(problem.x, Coordinates.identity(d)), **about})
        self.problem = Problem(
            replace(problem.loss, objective=objective),
            SGD(0.0, momentum=0.9),
            problem.x,
            Coordinates.identity(d),
            seed=problem.seed,
            compile="off" if problem.compile == "off" else "auto",
            fixed_inputs=inputs,
        )
        self.given = self.problem.inputs() | self.problem.draws(0)
        self.sizes = {
            name: float(np.sqrt(np.square(value).sum() / max(value.size, 1))) or 0.1 for name, value in params.items()
        }
        self.params, self.loss, self.gradient = self._somewhere(params)

    def _somewhere(self, params: Params) -> tuple[Params, float, Params]:
        """Loss and gradient near the parameters, or at them where nothing can be computed near them."""
        draws = {k: _as_symmetric_as(value, self.rng.standard_normal(value.shape)) for k, value in params.items()}
        away = {k: value + SHIFT * self.sizes[k] * draws[k] for k, value in params.items()}
        try:
            loss, gradient = self._taken(away)
            if np.isfinite(loss) and all(np.isfinite(value).all() for value in gradient.values()):
                return away, loss, gradient
        except ModelError:  # parameters may have to be symmetric, or positive
            pass
        return params, *self._taken(params)

    def _taken(self, params: Params) -> tuple[float, Params]:
        """Loss and gradient as training has them: a momentum that starts at 0 is the gradient after one step."""
        with failures_named(self.problem.model), self.engine.scope():
            state = self.problem.optimizer.start(params).astype(self.engine.dtype)
            session = self.engine.prepare(self.problem, state)
            loss = session.run(self.problem.steps(0, np.zeros(1)))[0]
            return float(loss), {k: v.astype(np.float64) for k, v in session.state().first_moment.items()}

    def check(self, compare: bool) -> tuple[str, ...]:
        """See `check_step`."""
        if self.energy and compare:
            self._check_energy()
        still = [name for name, slope in self.gradient.items() if slope.size and not slope.any()]
        unread, detached = self._without_gradient(still)
        if len(still) == len(self.gradient):
            why = "no gradient of any parameter reaches" if detached else "no parameter has any effect on"
            raise ModelError(
                f"{self.title} cannot be trained: {why} the score ({_listed(still)}). Its forward pass reaches its weights by "
                "a closure or from outside of the module, or detaches or copies them: let it use them as attributes of the "
                "module (self.weight), outside of no_grad, detach and stop_gradient"
            )
        if self.in_x and compare:
            self._check_x()
        if compare:
            self._check_gradient([name for name in self.gradient if name not in still])
        found = []
        if unread:
            found.append(
                f"the score does not depend on {_listed(unread)}, so training leaves them as they are: right for a constant "
                "that drops out, a fault where a closure or a copy hides a weight"
            )
        if detached:
            found.append(
                f"no gradient reaches {_listed(detached)}, so training leaves them as they are: the model cuts them off "
                "(detach, no_grad, stop_gradient)"
            )
        return tuple(found)

    def _without_gradient(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Of parameters whose gradient is zero: those that nothing reads, and those that the score depends on all the same.

        What is left has no effect by the model's mathematics: the last bias of an energy, or one that a softmax or a norm takes
        away. The model reads such a parameter, so that a change of it moves some number, by rounding at least.
        """
        unread, detached = [], []
        for name in names:
            found = [self._outputs(self.problem.x, params=p) for p in (None, self._moved({name: self._direction(name)}, 0.1))]
            (psi, output), (others, other_output) = found
            if np.array_equal(psi, others) and np.array_equal(output, other_output):
                unread.append(name)
            elif np.abs(others - psi).max() > MARGIN * self._rounding + 1e-5 * np.abs(psi).max():
                detached.append(name)
        return unread, detached

    def _check_energy(self) -> None:
        """Compare v . psi with -(U(x + h v) - U(x - h v)) / 2h."""
        psi, u = self._outputs(self.problem.x)
        rounding = self._measured(lambda x: self._outputs(x)[1], u)
        taken = float(-np.mean(np.sum(self.v * psi, axis=1)))

        def difference(step: float) -> Difference:
            slopes = _Differences(step).jvp(lambda x: self._outputs(x)[1].reshape(len(x)), self.problem.x, self.v)[1]
            size = float(np.mean(np.abs(slopes)))
            return float(np.mean(slopes)), NEAR["x"] * size, self._noise(rounding, size, step, 1.0)

        found = _unlike(taken, difference)
        if found is not None:
            raise ModelError(
                f"{self.title} has another gradient in x than its values: along one direction a sample, in the mean, it is "
                f"differentiated to {taken:.3g}, and by differences it is {found:.3g}. {CUT}"
            )

    def _check_x(self) -> None:
        """Compare v^T J v with the difference of scores; the other term of the loss is a value."""
        x, psi = self.problem.x, self._score(self.problem.x)
        squares = 0.5 * float(np.mean(np.sum(psi * psi, axis=1)))
        taken, digits = self.loss - squares, MARGIN * float(np.finfo(self.engine.dtype).eps) * squares

        def difference(step: float) -> Difference:
            products = np.sum(self.v * _Differences(step).jvp(self._score, x, self.v)[1], axis=1)
            size = float(np.mean(np.abs(products)))
            return float(np.mean(products)), NEAR["x"] * size, self._noise(self._rounding, size, step) + digits

        found = _unlike(taken, difference)
        if found is not None:
            raise ModelError(
                f"{self.title} is differentiated in x to something else than its derivative: v^T J v is {taken:.3g} in the "
                f"mean of {len(x)} samples, and by differences of its scores {found:.3g}. {CUT}, or use an objective that does "
                "not differentiate in x, such as ismcore.DenoisingScoreMatching"
            )

    def _check_gradient(self, names: list[str]) -> None:
        """Compare the gradient along some directions with the difference of losses."""
        try:
            for _ in range(DIRECTIONS):
                direction = {name: self._direction(name) for name in names}
                taken, found = self._along(direction)
                if found is not None:
                    break
            else:
                return
            wrong = [name for name in names[:64] if self._along({name: direction[name]})[1] is not None]
        except ModelError:  # parameters may have to be symmetric, or positive
            return
        raise ModelError(
            f"{self.title} has another gradient than its loss, in {_listed(wrong or names)}: along one direction it says "
            f"{taken:.3g}, and by differences the loss changes by {found:.3g}. {CUT}; what is to stay as it is can be held "
            f"as a constant (torch: requires_grad_(False); NNX: nnx.Variable){NORMS if self.energy else ''}"
        )

    def _along(self, direction: Params) -> tuple[float, float | None]:
        """The gradient along a direction, and the difference of losses where it is another."""
        slopes = [self.gradient[name] * delta for name, delta in direction.items()]
        size = float(np.sqrt(sum(np.sum(slope * slope) for slope in slopes)))

        def difference(step: float) -> Difference:
            ends = [self._terms(self._moved(direction, sign * step), step) for sign in (1.0, -1.0)]
            scale = float(np.mean(np.abs(ends[0])))
            noise = self._noise(self._rounding, scale, step) if self.in_x else MARGIN * self._rounding * (1.0 + scale)
            tolerance = NEAR["parameters"] * (size + NEAR["parameters"] * scale)
            return float(np.mean(ends[0] - ends[1])) / (2.0 * step), tolerance, noise / step

        taken = float(sum(np.sum(slope) for slope in slopes))
        return taken, _unlike(taken, difference)

    def _terms(self, params: Params, step: float) -> np.ndarray:
        """The objective's terms by values of the score alone, (n,)."""
        found: np.ndarray = self.problem.objective.terms(
            _Differences(step), lambda x, context=None: self._score(x, context, params), self.problem.x, self.given
        )
        return found

    def _direction(self, name: str) -> np.ndarray:
        value = self.params[name]
        return self.sizes[name] * _as_symmetric_as(value, self.rng.choice([-1.0, 1.0], np.shape(value)))

    def _moved(self, direction: Params, step: float) -> Params:
        return {k: value + step * direction[k] if k in direction else value for k, value in self.params.items()}

    def _score(self, x: Array, context: Array | None = None, params: Params | None = None) -> np.ndarray:
        return self._outputs(x, context, params)[0]

    def _outputs(self, x: Array, context: Array | None = None, params: Params | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Score and output; always of 2 n rows, so that one compiled program serves."""
        if context is None and self.context is not None:
            context = np.concatenate([self.context] * (len(x) // self.problem.n))
        times = 2 * self.problem.n // len(x)
        points, around = (None if a is None else np.concatenate([a] * times) for a in (x, context))
        found = self.outputs(self.params if params is None else params, points, around)
        psi, output = (value[: len(x)].astype(np.float64) for value in found)
        return psi, output

    @cached_property
    def _rounding(self) -> float:
        return self._measured(self._score, self._score(self.problem.x))

    def _measured(self, f: ScoreFn, at: np.ndarray) -> float:
        """The error of single values of f, from second differences over a step so small that nothing else is in them."""
        x, v = self.problem.x, self.v
        ends = f(np.concatenate([x + JITTER * v, x - JITTER * v]))
        seen = np.abs(ends[: len(x)] - 2.0 * at + ends[len(x) :]).max()
        return float(max(seen, np.finfo(self.engine.dtype).eps * np.abs(at).max()))

    def _noise(self, rounding: float, size: float, step: float, length: float | None = None) -> float:
        """What rounding, of values and of x, adds to a difference of that size."""
        length = float(np.sqrt(np.mean(np.sum(self.v * self.v, axis=1)))) if length is None else length
        places = np.finfo(self.engine.dtype).eps * np.max(np.abs(self.problem.x / self.v))
        return float((MARGIN * rounding * length + places * size) / (2.0 * step))


def _unlike(taken: float, difference: Callable[[float], Difference]) -> float | None:
    """The difference that is settled and is not what was taken; None where there is none."""
    found: list[tuple[float, float]] = []
    for step in STEPS:
        value, tolerance, noise = difference(step)
        if not noise <= 0.5 * tolerance:
            continue
        if abs(value - taken) <= tolerance:
            return None
        found.append((value, tolerance))
    settled = [b for (a, _), (b, tolerance) in pairwise(found) if abs(a - b) <= 0.5 * tolerance]
    return settled[-1] if settled else None


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
