"""The model and the objective that `ismcore fit` is told by name."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ismcore.errors import OptionError
from ismcore.fitting.recipes import DENOISING, RECIPES
from ismcore.models import Affine, Energy, Model, NoiseConditional, ResidualMLP
from ismcore.models.activations import ACTIVATIONS
from ismcore.objectives import DenoisingScoreMatching, ImplicitScoreMatching, Objective, SlicedScoreMatching

__all__ = ["add_choices", "model_of", "objective_of"]

MODELS = {
    "mlp": "the recipe's network",
    "energy": "the gradient of an energy of such a network: it has a density, and is sampled exactly",
    "residual": "residual blocks",
    "noise": "residual blocks with a score for each noise scale: for samples of laws with several modes",
    "affine": "the normal law",
}
OBJECTIVES = {
    "ism": "implicit score matching",
    "regularised": "the same with a curvature weight, 0.1 if none is given",
    "denoising": "denoising score matching",
    "sliced": "sliced score matching",
}
REGULARISED = 0.1
"""Curvature weight of the published reference run."""


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ismcore fit` that say what is fitted, and by which objective."""
    add = parser.add_argument
    add("--model", choices=sorted(MODELS), help=f"{_listed(MODELS)}; the recipe's candidates if not given")
    add("--model-hidden", type=_widths, metavar="LIST", help="widths of the hidden layers, or of the blocks, such as 64,64")
    add("--activation", choices=sorted(ACTIVATIONS), help="of the hidden layers")
    add("--objective", choices=sorted(OBJECTIVES), help=f"{_listed(OBJECTIVES)}; as the recipe has it if not given")
    add("--curvature-weight", type=number_or("auto", float), metavar="L", help="regularisation, from 0; 'auto' tries some")
    about_scale = f"of --objective denoising, in standard deviations of the columns (default: {DENOISING})"
    add("--noise-scale", type=float, metavar="S", help=about_scale)


def model_of(options: argparse.Namespace, d: int) -> Model | None:
    """The model that was asked for, the recipe's with what was asked to be otherwise, or None where nothing was.

    Raises:
        OptionError: Options contradict each other.
    """
    asked = {"hidden": options.model_hidden, "activation": options.activation}
    asked = {name: value for name, value in asked.items() if value is not None}
    if options.model == "affine":
        if asked:
            raise OptionError("--model affine has no hidden layers: leave --model-hidden and --activation away")
        return Affine()
    if options.model in ("residual", "noise"):
        net = _residual(**asked)
        return net if options.model == "residual" else NoiseConditional(net)
    if not asked and options.model is None:
        return None
    recipe: Any = RECIPES[options.recipe].model(d)
    mlp: Model = replace(recipe, **asked)
    return Energy(mlp) if options.model == "energy" else mlp


def objective_of(options: argparse.Namespace) -> Objective | None:
    """The objective that was asked for, or None for the recipe's.

    Raises:
        OptionError: Options contradict each other.
    """
    name, weight, scale = options.objective, options.curvature_weight, options.noise_scale
    if weight is not None and name in ("denoising", "sliced"):
        raise OptionError(f"--curvature-weight is of --objective regularised, not of {name}")
    if scale is not None and name != "denoising":
        raise OptionError("--noise-scale is of --objective denoising; --model noise makes a ladder of its own")
    if name == "denoising":
        return DenoisingScoreMatching(DENOISING if scale is None else scale)
    if name == "sliced":
        return SlicedScoreMatching()
    if name is None and weight is None:
        return None
    if name == "ism" and weight is not None:
        raise OptionError("--objective ism has no curvature weight: name --objective regularised")
    return ImplicitScoreMatching(weight if weight is not None else REGULARISED if name == "regularised" else 0.0)


def number_or(word: str, number: Any) -> Any:
    """A parser of an option that is a number, or a word."""

    def parse(text: str) -> Any:
        try:
            return text if text == word else number(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {word!r}") from None

    return parse


def _residual(hidden: tuple[int, ...] | None = None, **more: Any) -> ResidualMLP:
    if hidden is None:
        return ResidualMLP(**more)
    if len(set(hidden)) != 1:
        raise OptionError(f"--model-hidden of residual blocks is one width for each, such as 64,64, not {hidden}")
    return ResidualMLP(width=hidden[0], blocks=len(hidden), **more)


def _listed(choices: dict[str, str]) -> str:
    return "; ".join(f"{name}: {about}" for name, about in choices.items())


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of widths such as 64,64") from None
