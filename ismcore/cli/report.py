"""The demo's report as one HTML page that needs nothing else: no script, no other file, nothing from a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

__all__ = ["html_report"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }
.met { border-left: .4rem solid #009E73; padding: .8rem 1.2rem; }
.missed { border-left: .4rem solid #D55E00; padding: .8rem 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ed; }
.runs :is(th, td):nth-child(-n+3) { text-align: left; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { flex: 1 1 440px; max-width: 610px; margin: 0; }
figure img { width: 100%; border: 1px solid #e6e9ed; }
figcaption, footer, .note { color: #555; font-size: .9rem; }
"""

SECTIONS = {
    "The data": {
        "sample.png": "The sample and the density that it was drawn from.",
        "target_score.png": "The score of that density, which no fit gets to see.",
    },
    "Plain implicit score matching": {
        "plain_score.png": "The fitted score against the target's.",
        "plain_score.gif": "How the score came about.",
        "plain_density.png": "The density recovered from the fitted score.",
        "plain_density.gif": "How the density came about.",
        "plain_loss.png": "The loss of every epoch, and the published ones.",
    },
    "Regularised implicit score matching": {
        "regularised_score.png": "The fitted score against the target's.",
        "regularised_score.gif": "How the score came about.",
        "regularised_density.png": "The density recovered from the fitted score.",
        "regularised_density.gif": "How the density came about.",
        "regularised_loss.png": "The loss of every epoch, penalty included.",
    },
}
"""Captions by file, by heading."""


def html_report(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        report: What `ismcore.demo.run_demo` returns.
        pictures: The files that `SECTIONS` names, PNG or GIF.
    """
    system, attribution = report["system"], report["attribution"]
    sections = "".join(_section(heading, captions, pictures) for heading, captions in SECTIONS.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ismcore: the reference run</title>
<style>{STYLE}</style>
</head>
<body>
<h1>The reference run</h1>
<p>A score function fitted by implicit score matching to {escape(str(system["samples"]))} samples of
{escape(system["target"])}: {escape(system["model"])}, {escape(system["optimizer"])}, {escape(str(system["epochs"]))} epochs
of one full-batch step, from the published initial parameters.</p>
{_verdict(report)}
<h2>The runs</h2>
<div class="wide runs">{_runs(report["runs"])}</div>
{_notes(report)}
{sections}
<h2>The published losses</h2>
<div class="wide">{_published(report["published"])}</div>
<footer>
<p>The pictures are of the fits on {escape(report["pictures"]["backend"])}.
Versions: {escape(", ".join(f"{name} {version}" for name, version in report["versions"].items()))}.</p>
<p>Sample, initial parameters and published losses are by {escape(attribution["author"])},
{escape(attribution["source"])}; {escape(attribution["licence"])} (creativecommons.org/licenses/by/4.0).
They were regenerated from the published random stream.</p>
</footer>
</body>
</html>
"""


def _verdict(report: Mapping[str, Any]) -> str:
    met = report["published_losses_met_within_1e-6"]
    losses = f"The {len(report['published']['epochs'])} published losses"
    words = "are met within 1e-6" if met else "are <strong>not</strong> met within 1e-6"
    largest = _number(report["largest_difference_from_published_losses"], ".1e")
    return f'<p class="{"met" if met else "missed"}">{losses} {words}: the largest difference is {largest}.</p>'


def _notes(report: Mapping[str, Any]) -> str:
    exact = {method: _number(error, ".1e") for method, error in report["density_l1_error_of_the_true_score"].items()}
    return f"""<p class="note">Loss: of the last epoch, before its update. Largest difference: over all published losses.
Fisher divergence: E<sub>p</sub>|&psi; &minus; s|&sup2; under the target p with score s, by quadrature. L1 error: of the
density recovered from the fitted score, on 200 points from &minus;10 to 10, by the trapezoid rule, and by the rectangle
rule of the tutorial; with the true score the two rules are off by {exact["trapezoid"]} and {exact["rectangle"]}.
Seconds: of the whole fit, compilation included.</p>"""


def _runs(rows: Iterable[Mapping[str, Any]]) -> str:
    head = ["backend", "dtype", "objective", "&lambda;", "published loss", "our loss", "difference", "largest difference"]
    head += ["Fisher divergence", "L1 error, trapezoid", "L1 error, rectangle", "seconds"]
    body = [
        [
            escape(f"{row['backend']} ({row['device']})"),
            escape(row["dtype"]),
            escape(row["objective"]),
            f"{row['curvature_weight']:g}",
            _number(row["published_loss"], ".8f"),
            _number(row["loss"], ".8f"),
            _number(row["difference"], "+.1e"),
            _number(row["largest_difference"], ".1e"),
            _number(row["fisher_divergence"], ".4f"),
            _number(row["density_l1_error"]["trapezoid"], ".4f"),
            _number(row["density_l1_error"]["rectangle"], ".4f"),
            _number(row["seconds"], ".2f"),
        ]
        for row in rows
    ]
    return _table(head, body)


def _published(published: Mapping[str, Any]) -> str:
    ours = published["ours"]
    head = ["epoch", "published", *map(escape, ours)]
    rows = zip(published["epochs"], published["losses"], *ours.values(), strict=True)
    return _table(head, [[str(epoch), *(_number(loss, ".8f") for loss in losses)] for epoch, *losses in rows])


def _number(value: float | None, form: str) -> str:
    return "&ndash;" if value is None else format(value, form).replace("-", "&minus;")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""

    def line(tag: str, cells: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"

    return "<table>\n" + line("th", head) + "".join(line("td", row) for row in rows) + "</table>"


def _section(heading: str, captions: Mapping[str, str], pictures: Mapping[str, bytes]) -> str:
    figures = "".join(_figure(file, caption, pictures[file]) for file, caption in captions.items())
    return f'<h2>{escape(heading)}</h2>\n<div class="pictures">\n{figures}</div>\n'


def _figure(file: str, caption: str, data: bytes) -> str:
    kind = file.rpartition(".")[2]
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure><img alt="{escape(caption)}" src="{source}">'
        f"<figcaption>{escape(caption)} <code>{escape(file)}</code></figcaption></figure>\n"
    )
