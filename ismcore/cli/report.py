"""The demo's report as one HTML page that needs nothing else: no script, no other file, nothing from a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ismcore.judging.report import SCORE
from ismcore.samples import html

__all__ = ["COLUMNS", "DATA", "html_report"]

DATA = {
    "sample.png": "The sample and the density that it was drawn from.",
    "target_score.png": "The score of that density, which no fit gets to see.",
}
"""Captions of the pictures of the data, by file."""

COLUMNS = {
    "plain": ("The tutorial, plain", "Implicit score matching, as published: 8 sigmoid units, 500 steps on raw samples."),
    "regularised": ("The tutorial, regularised", "The same with a penalty on curvature, which keeps the score smooth."),
    "default": (
        "The default fit",
        "What ismcore.fit(x) does: standardised samples, a wider network, held-out rows to stop by.",
    ),
}
"""Heading and text of the column of each fit."""

CAPTIONS = {
    "score.png": "The fitted score against the target's.",
    "density.png": "The density recovered from the fitted score.",
    "loss.png": "The loss of every epoch.",
    "score.gif": "How the score came about.",
    "density.gif": "How the density came about.",
}
"""Captions by the end of the file's name."""

MISSED = (
    "The tutorial's plain fit misses the left mode: its density at -3 is 0.007, that of the target 0.04. The loss weighs "
    "slopes where samples are, and only a tenth of them are on the left: after 500 steps the network has hardly begun to bend "
    "there, and its score is flat left of -2. With 1000 steps it has found the mode (Fisher divergence 0.019), and after 4000 "
    "it follows single samples (0.78); held-out rows would tell when to stop. What no fit sees well is how the mass is shared: "
    "the height of one peak against the other is the slope summed across the gap between them, where 27 samples lie."
)

MEASURES = (
    "Fisher divergence: mean of |psi - score|^2 under the target, by quadrature. Density off by: the L1 distance of the "
    "density recovered from the score on 200 points, by the trapezoid rule, and by the rectangle rule of the tutorial. Left "
    "mass: what the fitted density has left of 0. Seconds: of the whole fit, compilation included."
)


def html_report(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        report: What `ismcore.demo.run_demo` returns.
        pictures: The files, PNG or GIF, by name; those of `DATA`, and of each column what it has.
    """
    system, attribution = report["system"], report["attribution"]
    made = (
        f"A score fitted to {system['samples']} samples of {system['target']}, in three ways. The tutorial's two: "
        f"{system['model']}, {system['optimizer']}, {system['epochs']} epochs of one full-batch step, from the published "
        "initial parameters; the losses of the plain one are published. The third is the library's default."
    )
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return html.page(
        "ismcore: the reference run",
        _verdict(report),
        html.paragraph(SCORE),
        html.paragraph(made),
        html.columns(*(html.picture(pictures[file], f"{caption} {file}") for file, caption in DATA.items())),
        html.heading("Three fits side by side"),
        html.paragraph(MISSED),
        html.columns(*(_column(name, *texts, pictures) for name, texts in COLUMNS.items())),
        html.heading("How near the truth"),
        html.paragraph(MEASURES),
        _errors(report),
        html.heading("How near the published run"),
        _losses(report["runs"]),
        html.details("All published losses", _published(report["published"])),
        html.heading("What to do next"),
        html.code(NEXT),
        html.paragraph(f"The pictures are of the fits on {report['pictures']['backend']}. Versions: {versions}."),
        html.paragraph(
            f"Sample, initial parameters and published losses are by {attribution['author']}, {attribution['source']}; "
            f"{attribution['licence']} (creativecommons.org/licenses/by/4.0). They were regenerated from the published random "
            "stream."
        ),
    )


NEXT = """\
ismcore diagnose data.csv                    # what stands in the way of a fit
ismcore fit data.csv -o fit.safetensors
ismcore report fit.safetensors data.csv      # a page like this about your own fit
ismcore sample fit.safetensors -n 1000 --start data.csv
"""


def _verdict(report: Mapping[str, Any]) -> str:
    met = report["published_losses_met_within_1e-6"]
    losses = f"The {len(report['published']['epochs'])} published losses are {'' if met else 'not '}met within 1e-6"
    largest = _number(report["largest_difference_from_published_losses"], ".1e")
    return html.notice("good" if met else "bad", losses, f"the largest difference is {largest}.")


def _column(name: str, heading: str, text: str, pictures: Mapping[str, bytes]) -> str:
    """The pictures of a fit one below the other; animations only where they are asked for."""
    held = {end: pictures[f"{name}_{end}"] for end in CAPTIONS if f"{name}_{end}" in pictures}
    shown = {end: html.picture(data, f"{CAPTIONS[end]} {name}_{end}") for end, data in held.items()}
    still = "".join(piece for end, piece in shown.items() if end.endswith(".png"))
    moving = "".join(piece for end, piece in shown.items() if end.endswith(".gif"))
    return html.heading(heading, 3) + html.paragraph(text) + still + (html.details("Animations", moving) if moving else "")


def _errors(report: Mapping[str, Any]) -> str:
    exact = report["of_the_true_score"]
    known = [
        ("the true score", 0.0, exact["density_l1_error"], exact["left_mass"], None),
        ("the score 0", exact["fisher_divergence_of_0"], None, None, None),
    ]
    ours = (
        (_name(row), *(row[name] for name in ("fisher_divergence", "density_l1_error", "left_mass", "seconds")))
        for row in report["runs"]
    )
    head = ("", "Fisher divergence", "density off by", "by rectangles", "left mass", "seconds")
    rows = [
        (name, fisher, *((None, None) if l1 is None else (l1["trapezoid"], l1["rectangle"])), left, seconds)
        for name, fisher, l1, left, seconds in (*ours, *known)
    ]
    return html.html_table(head, rows)


def _losses(rows: Iterable[Mapping[str, Any]]) -> str:
    head = ("", "dtype", "curvature weight", "loss of the last epoch", "published", "difference", "largest difference")
    return html.html_table(
        head,
        [
            (
                _name(row),
                row["dtype"],
                f"{row['curvature_weight']:g}",
                _number(row["loss"], ".8f"),
                _number(row["published_loss"], ".8f"),
                _number(row["difference"], "+.1e"),
                _number(row["largest_difference"], ".1e"),
            )
            for row in rows
            if row["objective"] != "default"
        ],
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['objective']}, {row['backend']} ({row['device']})"


def _published(published: Mapping[str, Any]) -> str:
    ours = published["ours"]
    rows = zip(published["epochs"], published["losses"], *ours.values(), strict=True)
    body = [(str(epoch), *(_number(loss, ".8f") for loss in losses)) for epoch, *losses in rows]
    return html.html_table(("epoch", "published", *ours), body)


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form).replace("-", "\N{MINUS SIGN}")
