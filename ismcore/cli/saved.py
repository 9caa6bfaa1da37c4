"""The commands `plot`, `sample`, `check` and `report`: what is done next with a saved result."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.cli.files import AddCommand, add_data, array_bytes, check_apart, name_of, read, say
from ismcore.errors import OptionError
from ismcore.files.atomic import check_target, write_whole
from ismcore.results.result import FitResult, load
from ismcore.samples.tables.reading import Table, read_table

__all__ = ["FAULT", "add_check", "add_plot", "add_report", "add_sample"]

FAULT = 1
"""Exit code of a check whose verdict is "fault found"."""
NEW = "rows that the fit has not seen"


def add_plot(add_command: AddCommand) -> None:
    """Add `ismcore plot FIT [DATA]`."""
    parser = _with_fit(add_command("plot", _plot, "draw a saved result, over the samples in a file"))
    add_data(parser, "the picture, .png; FIT's name, in this folder, if not given", needed=False)
    add = parser.add_argument
    add("--loss", action="store_true", help="draw training and held-out loss by epoch instead")
    add("--epoch", type=int, metavar="N", help="draw the parameters kept after N epochs, not the last ones")
    add("--noise-scale", type=float, metavar="S", help="for a result that holds a score of every noise scale: which one")


def _plot(options: argparse.Namespace) -> int:
    out = _target(options, ".png", (".png",))
    result = load(options.file)
    x = _read(options)
    from ismcore import plotting

    drawn = result.plot_loss() if options.loss else result.plot(x, epoch=options.epoch, context=options.noise_scale)
    write_whole(out, plotting.to_png(drawn))
    return _done(options, result, x, out)


def add_sample(add_command: AddCommand) -> None:
    """Add `ismcore sample FIT -n N`."""
    parser = _with_fit(add_command("sample", _sample, "draw samples of the fitted law of a saved result"))
    add = parser.add_argument
    add("-n", dest="n", type=int, default=1000, metavar="N", help="how many (default: %(default)s)")
    about_start = "samples to begin at, not at the rows that FIT keeps: where modes lie apart, they keep the shares of these"
    add("--start", type=Path, metavar="DATA", help=about_start)
    add("--steps", type=int, metavar="N", help="steps of each chain before the first draw")
    add("--thin", type=int, default=10, metavar="N", help="steps from a draw of a chain to the next (default: %(default)s)")
    add("--noise-scale", type=float, metavar="S", help="for a result that holds a score of every noise scale: the law at one")
    add("--seed", type=int, default=0, metavar="N", help="source of the draws (default: %(default)s)")
    about_out = ".csv or .npy, one row a draw; FIT's name with .sample.csv, in this folder, if not given"
    add("-o", "--out", type=Path, metavar="FILE", help=about_out)
    add("--json", action="store_true", help="print the summary as JSON")


def _sample(options: argparse.Namespace) -> int:
    out = _target(options, ".sample.csv", (".csv", ".npy"))
    result = load(options.file)
    start = None if options.start is None else read_table(options.start)
    how = {name: getattr(options, name) for name in ("steps", "thin", "seed")}
    draws = result.sample(options.n, start=start, context=options.noise_scale, **how)
    names = result.feature_names or tuple(f"x_{j}" for j in range(result.d))
    write_whole(out, array_bytes(out, draws.x, names))
    r_hat, effective = _finite(draws.r_hat.max()), _finite(draws.effective.min())
    found: dict[str, Any] = {"draws": len(draws), "chains": draws.chains, "accepted": _finite(draws.acceptance), "r_hat": r_hat}
    found |= {"effective": effective, "began": draws.began, "warnings": list(draws.warnings)}
    agree = "" if r_hat is None else f", R-hat {r_hat:.3f}"
    worth = "" if effective is None else f", worth {effective:.0f} independent ones"
    words = f"draws    {len(draws)} in {draws.chains} chains{agree}{worth}\nbegan at {draws.began}\n"
    return _done(options, result, None, out, words, **found)


def add_check(add_command: AddCommand) -> None:
    """Add `ismcore check FIT [DATA]`."""
    about = "say whether a saved result is wrong, and by how much at least, by samples that it has not seen"
    parser = _with_fit(add_command("check", _check, about))
    parser.epilog = f'The exit code is {FAULT} where the verdict is "fault found", and 0 where it is another.'
    add_data(parser, about=f"{NEW}; without, what the result knows itself", needed=False)
    about_train = "the samples of the fit, for competitors to be fitted to; without, these are fitted to a half of DATA"
    parser.add_argument("--train", type=Path, metavar="FILE", help=about_train)


def _check(options: argparse.Namespace) -> int:
    result = load(options.file)
    x = _read(options)
    train = _beside(options, options.train)
    found = result.check(x, train=train)
    code = FAULT if found.verdict == "fault found" else 0
    say(options, {"file": str(options.file), **found.to_dict()}, f"{found}\n", done=code)
    return code


def add_report(add_command: AddCommand) -> None:
    """Add `ismcore report FIT [DATA]`."""
    about = "write one HTML page about a saved result: how it was fitted, pictures, the check, draws beside the samples"
    parser = _with_fit(add_command("report", _report, about))
    add_data(parser, "the page, .html; FIT's name, in this folder, if not given", needed=False)
    parser.add_argument("--test", type=Path, metavar="FILE", help=f"{NEW}, to check it by; may be DATA itself")


def _report(options: argparse.Namespace) -> int:
    out = _target(options, ".html", (".html", ".htm"))
    result = load(options.file)
    x = _read(options)
    test = x if options.test is not None and options.test == options.data else _beside(options, options.test)
    result.report(out, x, test=test, saved_as=options.file)
    return _done(options, result, x, out)


def _with_fit(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("file", type=Path, metavar="FIT", help="a result that 'ismcore fit' or result.save wrote")
    return parser


def _read(options: argparse.Namespace) -> Table | None:
    return None if options.data is None else read(options)


def _beside(options: argparse.Namespace, path: Path | None) -> Table | None:
    """Another file of such samples, read as DATA is."""
    return None if path is None else read(argparse.Namespace(**{**vars(options), "data": path}))


def _target(options: argparse.Namespace, ending: str, allowed: tuple[str, ...]) -> Path:
    """Where the file goes, checked before the work and not after it."""
    source = argparse.Namespace(data=options.file)
    out: Path = options.out or Path(f"{Path(name_of(source)).stem}{ending}")
    if out.suffix.lower() not in allowed:
        raise OptionError(f"--out must end in {' or '.join(allowed)}, not in {out.suffix!r}")
    check_target(out)
    for name in ("file", "data", "start", "test"):
        given = getattr(options, name, None)
        if given is not None and str(given) != "-":
            check_apart(out, given, str(given))
    return out


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _done(options: argparse.Namespace, result: FitResult, x: Table | None, out: Path, words: str = "", **found: Any) -> int:
    """Say what was done, and where it is; the exit code."""
    notes = [] if x is None else list(x.notes)
    about = {"d": result.d, "model": repr(result.model), "objective": repr(result.objective)}
    summary = {**({} if x is None else {"n": len(x)}), **about, **found, "notes": notes, "file": str(out)}
    lines = f"fit      {result.model!r}, d = {result.d}; {result.objective.title[0].lower()}{result.objective.title[1:]}\n"
    lines += "" if x is None else f"samples  n = {len(x)}\n"
    lines += words + "".join(f"note     {text}\n" for text in notes)
    say(options, summary, f"{lines}file     {out}\n", done=0)
    return 0
