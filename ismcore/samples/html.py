"""Pieces of HTML for what a notebook shows (`_repr_html_`) and for pages: text, tables, notices and pictures, in one look.

Every text given is escaped here, and a number is written short; what a piece returns is HTML, which `fragment`, `page` and
`details` join. Nothing is loaded from elsewhere, and there is no script. Colours are of Okabe and Ito's palette and never stand
alone; text and lines take the colour of the page around them, so that a dark notebook stays dark, and pages follow
`prefers-color-scheme`. On a narrow screen each row of a table is a block of lines, with the column's head before the value.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

__all__ = [
    "Kind",
    "code",
    "columns",
    "details",
    "facts",
    "fragment",
    "heading",
    "html_table",
    "notice",
    "page",
    "paragraph",
    "picture",
]

Kind = Literal["good", "bad", "open", "note"]
"""What a notice says: all is well, something is wrong, nobody knows, or for information."""
SIGNS: dict[Kind, str] = {"good": "\N{CHECK MARK}", "bad": "!", "open": "?", "note": "i"}

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# The class stands twice where JupyterLab has rules of its own for tables, and one would not outweigh them.
STYLE = """
.ismcore { --good: #009E73; --bad: #D55E00; --open: #0072B2; --note: #888; --line: rgba(128, 128, 128, .35);
  color: inherit; font-size: 14px; line-height: 1.45; max-width: 62rem; overflow-wrap: break-word; }
@media (prefers-color-scheme: dark) { .ismcore { --bad: #E69F00; --open: #56B4E9; } }
.ismcore p { margin: .5em 0; }
.ismcore .notice { border-left: 4px solid var(--note); padding: .2em .7em; margin: .5em 0; }
.ismcore .good { border-color: var(--good); } .ismcore .bad { border-color: var(--bad); }
.ismcore .open { border-color: var(--open); }
.ismcore .sign { font-weight: bold; margin-right: .5em; }
.ismcore table { border-collapse: collapse; border: 0; margin: .5em 0; font-size: inherit; color: inherit;
  font-variant-numeric: tabular-nums; table-layout: auto; }
.ismcore caption { text-align: left; font-weight: bold; padding: .3em 0; color: inherit; }
.ismcore.ismcore :is(thead, tbody) tr:nth-child(n) { background: none; }
.ismcore.ismcore table :is(th, td) { padding: .25em .7em; text-align: left; vertical-align: top; border: 0; white-space: normal;
  border-bottom: 1px solid var(--line); max-width: 44rem; }
.ismcore.ismcore table .number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.ismcore.ismcore table tbody th { font-weight: 600; overflow-wrap: normal; }
.ismcore summary { cursor: pointer; font-weight: 600; }
.ismcore figure { margin: .8em 0; } .ismcore figure img { max-width: 100%; height: auto; background: #fff; }
.ismcore figcaption { opacity: .8; }
@media (max-width: 600px) {
  .ismcore { overflow-wrap: anywhere; }
  .ismcore.ismcore :is(table, table tbody, table tr, table td, table caption) { display: block; width: auto; max-width: none; }
  .ismcore thead { display: none; }
  .ismcore.ismcore table tbody th { display: block; border: 0; padding: .5em 0 0; text-align: left; }
  .ismcore.ismcore table :is(td, td.number) { border: 0; padding: 0 0 .1em; text-align: left; white-space: normal; }
  .ismcore.ismcore td:empty { display: none; }
  .ismcore td[data-head]:not([data-head=""])::before { content: attr(data-head) ": "; opacity: .7; }
  .ismcore tr { border-bottom: 1px solid var(--line); padding-bottom: .4em; }
}
"""

PAGE_STYLE = """
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; padding: 1rem; max-width: 62rem; }
body .ismcore { font-size: 16px; }
h1 { font-size: 1.7em; line-height: 1.2; } h2 { font-size: 1.25em; margin: 1.6em 0 .4em; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .6em .8em; background: rgba(128, 128, 128, .15); }
.columns { display: grid; gap: 0 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.columns > * { min-width: 0; }
a { color: #0072B2; }
@media (prefers-color-scheme: dark) { body { color: #e4e4e4; background: #16181c; } a { color: #56B4E9; } }
"""


def fragment(*parts: str) -> str:
    """Pieces as one, with their style: what `_repr_html_` returns."""
    return f'<div class="ismcore"><style>{STYLE}</style>\n{"".join(parts)}</div>'


def page(title: str, *parts: str) -> str:
    """Pieces as a whole page, under a heading."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{PAGE_STYLE}</style>
</head>
<body>
{fragment(heading(title, 1), *parts)}
</body>
</html>
"""


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>\n"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>\n"


def notice(kind: Kind, name: str, text: str = "") -> str:
    """A paragraph with a sign and a coloured edge; the name is in bold."""
    said = f"<b>{escape(name)}</b>{': ' * bool(name and text)}{escape(text)}"
    return f'<p class="notice {kind}"><span class="sign">{SIGNS[kind]}</span>{said}</p>\n'


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table whose first column names the rows; numbers stand at the right.

    Args:
        head: Names of the columns.
        rows: Values of each row, one a column: text as it is, a number with four digits, nothing for None.
        caption: What stands above it.
    """
    body = [list(row) for row in rows]
    numeric = [bool(body) and all(row[k] is None or _is_number(row[k]) for row in body) for k in range(len(head))]
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    names = "".join(
        f'<th scope="col"{_look(is_number)}>{escape(name)}</th>' for name, is_number in zip(head, numeric, strict=True)
    )
    lines = "".join(f"<tr>{_cells(head, row, numeric)}</tr>\n" for row in body)
    shown = f"<thead><tr>{names}</tr></thead>\n" if any(head) else ""
    return f"<table>{above}{shown}<tbody>\n{lines}</tbody></table>\n"


def facts(rows: Iterable[tuple[str, object]], caption: str = "") -> str:
    """A table of names and values, without a head."""
    return html_table(["", ""], rows, caption)


def details(summary: str, *parts: str, is_open: bool = False) -> str:
    """Pieces that a click on the summary shows."""
    return f"<details{' open' * is_open}><summary>{escape(summary)}</summary>\n{''.join(parts)}</details>\n"


def code(text: str) -> str:
    """Lines of a program."""
    return f"<pre><code>{escape(text)}</code></pre>\n"


def columns(*parts: str) -> str:
    """Pieces side by side on a wide page, one below the other on a narrow one."""
    return f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts)}</div>\n'


def picture(data: bytes, caption: str) -> str:
    """A PNG or GIF file, in the page itself, above its caption."""
    kind = "gif" if data.startswith(b"GIF") else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>\n'


def _cells(head: Sequence[str], row: Sequence[object], numeric: Sequence[bool]) -> str:
    first = f'<th scope="row">{escape(_text(row[0]))}</th>'
    cells = zip(head[1:], row[1:], numeric[1:], strict=True)
    rest = (f'<td{_look(number)} data-head="{escape(name)}">{escape(_text(value))}</td>' for name, value, number in cells)
    return first + "".join(rest)


def _look(number: bool) -> str:
    return ' class="number"' if number else ""


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _text(value: object) -> str:
    """A value as a cell shows it."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")
