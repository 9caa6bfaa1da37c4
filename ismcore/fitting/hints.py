"""What arguments of other libraries are called here."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ismcore.errors import ArgumentUnknown

__all__ = ["ADAM", "HINTS", "MODEL", "OBJECTIVE", "names_checked"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

ADAM = "optimizer=ismcore.Adam(learning_rate)"
MODEL = "model=ismcore.MLP(hidden, activation)"
OBJECTIVE = "objective=ismcore.ImplicitScoreMatching(curvature_weight)"

HINTS = {
    word: here
    for here, words in {
        ADAM: "lr learning_rate learning_rate_init eta step_size eta0 momentum betas",
        "seed=": "random_state rng key prng_key random_seed generator rng_key",
        "progress=": "verbose verbosity disp show_progress progress_bar show_progress_bar",
        "epochs=": "n_epochs num_epochs max_epochs max_iter max_iterations n_iter num_iter iterations steps n_steps nb_epoch",
        "batch_size=": "batch minibatch minibatch_size bs training_batch_size",
        "sample_weight=": "weights weight sample_weights w",
        "validation=": "validation_split validation_data validation_fraction val_split test_size eval_set x_val",
        "patience=": "early_stopping n_iter_no_change stop_after_epochs tol max_patience",
        "restarts=": "n_restarts n_init num_restarts",
        "schedule=": "lr_scheduler scheduler lr_schedule learning_rate_schedule",
        "clip_norm=": "max_grad_norm grad_clip gradient_clip_val clip clip_max_norm",
        "average_decay=": "ema ema_decay polyak",
        "standardize=": "normalize scale scaler whiten preprocess z_score",
        "callbacks=": "callback hooks logger",
        "initial_params=": "init warm_start params init_params x0",
        "recipe=": "preset config",
        "backend=": "framework lib library",
        "device=": "gpu cuda use_gpu accelerator",
        "checkpoint=": "checkpoint_path save_path ckpt_path",
        "ensemble=": "n_folds cv n_ensemble k_folds",
        "groups=": "group labels y target clusters",
        "timeout=": "max_time time_limit max_seconds",
        MODEL: "hidden hidden_layer_sizes hidden_features layers n_hidden width depth activation net network score_fn module",
        OBJECTIVE: "loss criterion method loss_fn curvature_weight regularization reg lam alpha l2 weight_decay",
        "x itself, the samples as the first argument": "X data samples",
        "a frame, or ismcore.read_table(path), as x, which keep the names of columns": "feature_names columns names",
    }.items()
    for word in words.split()
}
"""By the words of other libraries: how it is said in `ismcore.fit`."""


def names_checked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function that refuses an argument of a name that it has not, and says what it may have meant.

    Raises:
        ArgumentUnknown: See above.
    """
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    in_order = [name for name in names if parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY]

    @wraps(function)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        unknown = [name for name in kwargs if name not in names]
        if unknown:
            raise ArgumentUnknown(f"ismcore.{function.__name__} has no {_meant(unknown[0], names)}")
        if len(args) > len(in_order):
            raise ArgumentUnknown(
                f"ismcore.{function.__name__} takes {' and '.join(in_order)} without a name, and the others by name; labels y "
                "have no part in a score: groups= keeps rows of one label together, and sample_weight= weighs them"
            )
        return function(*args, **kwargs)

    return checked


def _meant(name: str, names: list[str]) -> str:
    hint = HINTS.get(name)
    if hint is not None and (not hint.endswith("=") or hint[:-1] in names):
        return f"argument {name!r}: it is {hint} here"
    close = difflib.get_close_matches(name, names, 1)
    if close:
        return f"argument {name!r}; did you mean {close[0]!r}?"
    return f"argument {name!r}: it has {', '.join(names)}"
