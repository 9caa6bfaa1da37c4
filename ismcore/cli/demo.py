"""The published reference run end to end: fits, pictures, and a report of how near we come to what was published."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.cli.report import html_report
from ismcore.datasets import ReferenceRun, reference_run
from ismcore.errors import OptionError
from ismcore.files.atomic import check_target, write_whole
from ismcore.fitting.fit import fit
from ismcore.objectives import ImplicitScoreMatching
from ismcore.plugins.lookup import choose, load_backend
from ismcore.results.result import FitResult
from ismcore.targets.density import density_error, density_from_score, fisher_divergence

__all__ = ["run_demo"]

OBJECTIVES = {"plain": ImplicitScoreMatching(), "regularised": ImplicitScoreMatching(curvature_weight=0.1)}
EPOCHS, SNAPSHOTS, DTYPE = 500, 101, "float64"
TOLERANCE = 1e-6
GRID = np.linspace(-10.0, 10.0, 200)
"""Where the tutorial draws, and recovers densities."""
FINE_GRID = np.linspace(-10.0, 10.0, 4001)
"""For the Fisher divergence: the target has 1e-12 of its mass outside, and the trapezoid rule is exact to rounding."""

Say = Callable[[str], None]


def run_demo(backends: Sequence[str], out: str | PathLike[str], progress: bool = True) -> dict[str, Any]:
    """Run the reference system, plain and regularised, on every backend named, and leave pictures and a report in a folder.

    The first backend makes the library's default fit of the same samples too. The folder gets `sample.png`, `target_score.png`,
    `{plain,regularised,default}_{score,density,loss}.png`, `{plain,regularised}_{score,density}.gif`, all of the first
    backend's fits, `report.json` and `report.html`, which holds the pictures and needs no other file. Each is written whole or
    not at all, the reports last.

    Args:
        backends: Names of backends; the pictures are of the first one's fits.
        out: The folder; made if it is not there.
        progress: Say on standard error what is being done.

    Returns:
        What `report.json` holds: "runs", a row for every backend and objective and one of the default fit, and
        "published_losses_met_within_1e-6", whether every plain run gave the 20 published losses.

    Raises:
        BackendUnavailable: A backend cannot be used; known before the first fit.
        OptionError: No backend is named, or the folder cannot be made or written to.
        PlottingMissing: Matplotlib is not installed; known before the first fit.

    Cost: a second a fit and a GIF and some seconds the default fit, beside starting and compiling the framework.
    """
    from ismcore import plotting  # noqa: F401  (what is missing shall be missed now)

    began = time.monotonic()
    say: Say = _say if progress else lambda text: None
    names = _ready(backends)
    folder = _folder(out)
    run = reference_run()

    fits: dict[tuple[str, str], FitResult] = {}
    for name in names:
        for objective in OBJECTIVES:
            say(f"fitting: {objective} objective on {name}, {EPOCHS} epochs")
            fits[name, objective] = _fit(run, name, objective, progress)
    say(f"fitting: the default fit on {names[0]}")
    fits[names[0], "default"] = fit(run.sample, backend=names[0], dtype=DTYPE, progress=progress)
    pictures = {}
    for file, draw in _pictures(run, {kind: fits[names[0], kind] for kind in (*OBJECTIVES, "default")}).items():
        say(f"drawing: {folder / file}")
        draw(folder / file)
        pictures[file] = (folder / file).read_bytes()

    report = _report(run, fits, sorted(pictures))
    report["seconds"] = time.monotonic() - began
    write_whole(folder / "report.json", (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    write_whole(folder / "report.html", html_report(report, pictures).encode())
    say(f"done in {report['seconds']:.1f} s: {folder / 'report.html'}")
    return report


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _ready(backends: Sequence[str]) -> list[str]:
    """Names of the backends, each once, all of which load."""
    names = list(dict.fromkeys(choose(name, None).name for name in backends))
    if not names:
        raise OptionError("name at least one backend; ismcore.backends() shows those that are ready")
    for name in names:
        load_backend(name)
    return names


def _folder(out: str | PathLike[str]) -> Path:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    check_target(folder / "report.json")
    return folder


def _fit(run: ReferenceRun, backend: str, objective: str, progress: bool) -> FitResult:
    return fit(
        run.sample,
        backend=backend,
        model=run.model,
        objective=OBJECTIVES[objective],
        optimizer=run.optimizer,
        epochs=EPOCHS,
        dtype=DTYPE,
        initial_params=run.initial_params,
        recipe="reference",
        snapshots=SNAPSHOTS,
        progress=progress,
    )


def _pictures(run: ReferenceRun, fits: dict[str, FitResult]) -> dict[str, Callable[[Path], None]]:
    """By name of the file, what writes it."""
    from ismcore import plotting

    def png(plot: Callable[..., Any], *args: Any, **options: Any) -> Callable[[Path], None]:
        return lambda path: write_whole(path, plotting.to_png(plot(*args, **options)))

    def gif(animate: Callable[..., Any], result: FitResult) -> Callable[[Path], None]:
        return lambda path: animate(result, path, **shown)

    shown = {"target": run.target, "sample": run.sample, "grid": GRID}
    pictures = {
        "sample.png": png(plotting.plot_sample, run.sample, run.target, grid=GRID),
        "target_score.png": png(plotting.plot_target_score, run.target, run.sample, grid=GRID),
    }
    for name, result in fits.items():
        published = (run.epochs, run.losses) if name == "plain" else None
        pictures[f"{name}_score.png"] = png(plotting.plot_score, result, **shown)
        pictures[f"{name}_density.png"] = png(plotting.plot_density, result, **shown)
        pictures[f"{name}_loss.png"] = png(plotting.plot_loss, result, published=published)
        if result.snapshots:
            pictures[f"{name}_score.gif"] = gif(plotting.animate_score, result)
            pictures[f"{name}_density.gif"] = gif(plotting.animate_density, result)
    return pictures


def _report(run: ReferenceRun, fits: dict[tuple[str, str], FitResult], files: list[str]) -> dict[str, Any]:
    rows = [_row(run, objective, result) for (_, objective), result in fits.items()]
    plain = [result for (_, objective), result in fits.items() if objective == "plain"]
    largest = max(_largest_difference(run, result) for result in plain)
    truth = run.target.score(GRID)[:, 0]
    return {
        "published_losses_met_within_1e-6": largest <= TOLERANCE,
        "largest_difference_from_published_losses": largest,
        "runs": rows,
        "published": {
            "epochs": run.epochs.tolist(),
            "losses": run.losses.tolist(),
            "ours": {result.backend: result.history["loss"][run.epochs - 1].tolist() for result in plain},
        },
        "of_the_true_score": {
            "density_l1_error": _density_errors(run, truth),
            "left_mass": _left_mass(run.target.score),
            "fisher_divergence_of_0": fisher_divergence(np.zeros_like, run.target, FINE_GRID),
        },
        "system": {
            "target": "0.1 N(-3, 1) + 0.9 N(3, 1)",
            "samples": len(run.sample),
            "model": repr(run.model),
            "optimizer": repr(run.optimizer),
            "epochs": EPOCHS,
        },
        "pictures": {"backend": plain[0].backend, "files": files},
        "attribution": {"author": "R. Rosa", "source": run.source, "licence": run.licence},
        "versions": {name: version for result in plain for name, version in result.versions.items()},
    }


def _row(run: ReferenceRun, objective: str, result: FitResult) -> dict[str, Any]:
    loss = float(result.history["loss"][-1])
    published = float(run.losses[-1]) if objective == "plain" else None
    return {
        "backend": result.backend,
        "device": result.device,
        "dtype": result.dtype,
        "objective": objective,
        "curvature_weight": getattr(result.objective, "curvature_weight", 0.0),
        "published_loss": published,
        "loss": loss,
        "difference": None if published is None else loss - published,
        "largest_difference": None if published is None else _largest_difference(run, result),
        "fisher_divergence": fisher_divergence(result.score, run.target, FINE_GRID),
        "density_l1_error": _density_errors(run, result.score(GRID)[:, 0]),
        "left_mass": _left_mass(result.score),
        "seconds": result.timings["total"],
    }


def _largest_difference(run: ReferenceRun, result: FitResult) -> float:
    """The largest distance from a published loss, over all that are published."""
    return float(np.abs(result.history["loss"][run.epochs - 1] - run.losses).max())


def _left_mass(score: Callable[[np.ndarray], np.ndarray]) -> float:
    """The mass left of 0 of the density that a score leads to."""
    density = density_from_score(score(FINE_GRID)[:, 0], FINE_GRID)
    left = FINE_GRID <= 0.0
    return float(np.trapezoid(density[left], FINE_GRID[left]))


def _density_errors(run: ReferenceRun, score: np.ndarray) -> dict[str, float]:
    methods = ("trapezoid", "rectangle")
    return {method: density_error(density_from_score(score, GRID, method=method), run.target, GRID) for method in methods}
