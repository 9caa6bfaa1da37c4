"""One evaluation of a model: loss, gradient, score and Jacobian diagonal at given parameters, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from ismcore.backend.contract import Backend, Dtype, as_dtype
from ismcore.backend.programs import jacobian_diagonal, score_on
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Model, NoiseConditional, Standardized, check_params
from ismcore.models.conditional import as_context
from ismcore.objectives import ImplicitScoreMatching, LossInputs, NoiseConditionalScoreMatching, Objective
from ismcore.ops import Params
from ismcore.optimizers.rules import SGD
from ismcore.plugins.adoption import adopted, device_for, failures_named, no_model, users_own
from ismcore.plugins.lookup import choose, load_backend, widest_dtype
from ismcore.plugins.probing import probe_network
from ismcore.problem import Loss, Problem
from ismcore.samples import html
from ismcore.samples.checks import as_samples, as_weights
from ismcore.seeds import stream

__all__ = ["Evaluation", "check_model", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model does at the samples; all in the samples' own units.

    Attributes:
        loss: The objective, a scalar in 1/[x]^2 for implicit score matching.
        gradient: Its gradient, by the parameters' names and in their shapes.
        backend: The backend that computed it.
        dtype: The dtype that it computed in.
        device: The device that it computed on.
    """

    loss: float
    gradient: dict[str, np.ndarray]
    backend: str
    dtype: Dtype
    device: str
    _score: Callable[[], np.ndarray] = field(repr=False)
    _diagonal: Callable[[], np.ndarray] = field(repr=False)
    _terms: Callable[[], np.ndarray] = field(repr=False)

    @cached_property
    def score(self) -> np.ndarray:
        """psi(x), (n, d), in 1/[x]; computed when first asked for."""
        return self._score()

    @cached_property
    def jacobian_diagonal(self) -> np.ndarray:
        """D psi_i / d x_i at each sample, (n, d), in 1/[x]^2; computed when first asked for."""
        return self._diagonal()

    @cached_property
    def terms(self) -> np.ndarray:
        """The objective's term of each row, (n,), whose (weighted) mean is the loss; computed when first asked for."""
        return self._terms()

    @property
    def divergence(self) -> np.ndarray:
        """Trace of the score's Jacobian at each sample, (n,), in 1/[x]^2."""
        return np.asarray(self.jacobian_diagonal.sum(axis=1))

    def _repr_html_(self) -> str:
        shapes = [(name, str(part.shape), float(np.linalg.norm(part))) for name, part in self.gradient.items()]
        return html.fragment(
            html.facts([("loss", self.loss), ("computed by", f"{self.backend}, {self.dtype} on {self.device}")]),
            html.html_table(("gradient of", "shape", "norm"), shapes),
            html.paragraph("score, jacobian_diagonal, divergence and terms are computed when asked for"),
        )


def check_model(model: Any, objective: Any, *, allow_nonsmooth: bool = False) -> None:
    """Refuse what is no model or no objective, and a pair that cannot be trained.

    Raises:
        ModelError: See above; a piecewise-linear network has no second derivative for the objective to follow.
    """
    if not isinstance(model, Model):
        raise ModelError(no_model(model))
    if not isinstance(objective, Objective):
        raise ModelError(f"objective must be such as ismcore.ImplicitScoreMatching(), not {objective!r}")
    if objective.differentiates_in_x and not model.smooth and not allow_nonsmooth:
        raise ModelError(
            f"{model!r} is piecewise linear in x: its second derivative is zero almost everywhere, so {objective!r} cannot "
            "train it; use a smooth activation (sigmoid, tanh, softplus, silu, gelu), or pass allow_nonsmooth=True"
        )


def evaluate(
    model: Any,
    params: Mapping[str, Any] | None,
    x: Any,
    objective: Objective | None = None,
    *,
    backend: str = "auto",
    dtype: object = None,
    device: object = "auto",
    seed: int = 0,
    sample_weight: Any = None,
    allow_nonsmooth: bool = False,
    context: Any = None,
    feature_names: Sequence[str] | None = None,
) -> Evaluation:
    """Loss, gradient, score and Jacobian diagonal of a model at given parameters and samples.

    Nothing is standardised here: parameters and samples are taken as they are. A network of your own is looked at before, on a
    few rows, as in `fit`: one whose rows depend on each other, or whose derivatives are not those of its scores, is refused.

    Args:
        model: The model, or a network of your own, as for `fit`.
        params: Its parameters by name, see `Model.shapes`; None for those that it starts from.
        x: Samples, (n, d) or (n,), in units [x].
        objective: What to evaluate; plain implicit score matching if None.
        backend: Name of the backend; "auto" takes the model's own, `ISMCORE_BACKEND`, or the first ready one.
        dtype: As for `fit`; float64 unless said, or float32 on a backend that declares that alone.
        device: As for `fit`.
        seed: Source of whatever the objective draws: probes or noise.
        sample_weight: Weight of each row in the loss, (n,), from 0; divided by their sum.
        allow_nonsmooth: Evaluate piecewise-linear networks too.
        context: What a conditional score depends on: one number, (n,), or (n, c); the noise scale of an
            `ismcore.NoiseConditional`, in the units of the samples that the inner network sees. Loss, score and Jacobian are
            those at it. `NoiseConditionalScoreMatching` draws its scales, and needs it for score and Jacobian alone.
        feature_names: Names of the columns, (d,), such as `result.feature_names`: those of a frame are put in this order.

    Raises:
        ModelError: The model or the objective cannot be used so.
        ParameterError: A parameter has a wrong name, shape or value.
        OptionError: The context is no such array, or a noise scale is not positive.
        SamplesError: The samples cannot be used.
        BackendUnavailable: The backend cannot be used.

    Cost: about 3 d + 3 scores for loss and gradient by nested differentiation; see `docs/networks.md` for that of the look at a
    network of your own.

    Example:
        >>> at = ismcore.evaluate(ismcore.Affine(), {"weight": [[-1.0]], "bias": [0.0]}, [-1.0, 1.0])
        >>> round(at.loss, 12)
        -0.5
    """
    given_dtype = None if dtype is None else as_dtype(dtype)
    objective = ImplicitScoreMatching() if objective is None else objective
    model, given_model = adopted(model, x, objective), model
    check_model(model, objective, allow_nonsmooth=allow_nonsmooth)
    name = choose(backend, model.backend).name
    dtype = given_dtype or widest_dtype(name)
    samples = as_samples(x, dtype=dtype, names=feature_names)
    if isinstance(model, Standardized) and model.coordinates.d == samples.shape[1]:
        model.coordinates.check_range(samples)
    given_params = model.initial_params(seed, samples.shape[1]) if params is None else params
    checked = check_params(model, given_params, samples.shape[1])
    model = model.canonical()
    engine = load_backend(name)(dtype=dtype, device=device_for(model, device))
    check_language(model, engine.name)
    weight = None if sample_weight is None else as_weights(sample_weight, len(samples))
    if objective.domain is not None:
        objective.domain.check(samples)
    loss = Loss(model, objective)
    inputs = loss.inputs(samples, Coordinates.identity(samples.shape[1]), weight)
    given = None if context is None else context_for(model, objective, context, len(samples), dtype)
    if users_own(model)[0] is not None and (model is not given_model or params is None):
        about = inputs if given is None else cast(LossInputs, {**inputs, "context": given})
        problem = Problem(loss, SGD(0.0), samples, Coordinates.identity(samples.shape[1]), seed=seed, fixed_inputs=about)
        probe_network(engine, problem, checked, allow_nonsmooth=allow_nonsmooth)
    inputs |= objective.draws(stream(seed, "draws", 0), *samples.shape)
    if given is not None:
        inputs["noise_scale" if isinstance(objective, NoiseConditionalScoreMatching) else "context"] = given
    with failures_named(model), engine.scope():
        at, points = engine.asarrays(checked), engine.asarray(samples)
        value, gradient = engine.loss_and_gradient(loss)(at, points, engine.asarrays(inputs))
        found = Evaluation(
            loss=float(engine.to_numpy(value)),
            gradient={name: engine.to_numpy(gradient[name]) for name in checked},
            backend=engine.name,
            dtype=dtype,
            device=engine.device,
            _score=lambda: score_on(engine, model, checked, samples, given),
            _diagonal=lambda: jacobian_diagonal(engine, model, checked, samples, given),
            _terms=lambda: _terms(engine, loss, checked, samples, inputs),
        )
    if given is not None:
        _ = found.score  # a model that takes no context says so; a closed formula of its loss does not ask for one
    return found


def context_for(model: Model, objective: Objective, context: Any, n: int, dtype: str) -> np.ndarray:
    """A context for n points, (n, c), which a noise scale is where the model or its training says so; see `as_context`."""
    inner = model.inner if isinstance(model, Standardized) else model
    is_scale = isinstance(inner, NoiseConditional) or isinstance(objective, NoiseConditionalScoreMatching)
    return as_context(context, n, positive=is_scale, dtype=dtype)


def check_language(model: Model, backend: str) -> None:
    """Refuse to run a framework's own function in another framework.

    Raises:
        ModelError: See above.
    """
    if model.backend not in (None, backend):
        raise ModelError(f"the model is written for backend {model.backend!r}, and cannot run on {backend!r}")


def _terms(engine: Backend, loss: Loss, params: Params, x: np.ndarray, inputs: LossInputs) -> np.ndarray:
    with failures_named(loss.model), engine.scope():
        return engine.to_numpy(loss.terms(engine, engine.asarrays(params), engine.asarray(x), engine.asarrays(inputs)))
