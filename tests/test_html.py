"""What notebooks show of results as HTML: whole, escaped, and no wider than a phone."""

import html.parser
import re
import warnings

import numpy as np
import pytest
from browser import BROWSER, widths

import ismcore
from ismcore.samples import html as pieces

RNG = np.random.default_rng(0)
ATTACK = '<script>alert("x")</script> & <b>'


class Cells(html.parser.HTMLParser):
    """Rows of cells of all tables, and every tag; fails where a tag is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.open = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_a_table_has_its_cells_as_text_and_numbers_short():
    rows = [("first", 1234.5678, None), ("second", -0.00001234, "text")]
    found = Cells(pieces.html_table(("name", "number", "words"), rows, "above"))
    assert found.rows == [
        ["name", "number", "words"],
        ["first", "1235", ""],
        ["second", "\N{MINUS SIGN}1.234e\N{MINUS SIGN}05", "text"],
    ]
    assert Cells(pieces.facts([("a", 1), ("b", "c")])).rows == [["a", "1"], ["b", "c"]]
    assert [row[1] for row in Cells(pieces.facts([("a", np.inf), ("b", float("nan"))])).rows] == ["\N{INFINITY}", "\N{EN DASH}"]


@pytest.mark.parametrize(
    "piece",
    [
        lambda text: pieces.html_table((text, text), [(text, text)], text),
        lambda text: pieces.notice("bad", text, text),
        lambda text: pieces.paragraph(text) + pieces.heading(text),
        lambda text: pieces.details(text, pieces.paragraph(text)),
        lambda text: pieces.picture(b"GIF89a", text),
        lambda text: pieces.page(text, pieces.paragraph(text)),
    ],
    ids=["table", "notice", "text", "details", "picture", "page"],
)
def test_whatever_text_is_given_is_text(piece):
    found = piece(ATTACK)
    assert "script" not in Cells(found).tags
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &lt;b&gt;" in found


def test_a_picture_says_which_kind_of_file_it_is():
    assert "data:image/gif;base64," in pieces.picture(b"GIF89a", "")
    assert "data:image/png;base64," in pieces.picture(b"\x89PNG", "")


@pytest.fixture(scope="module")
def shown():
    """Everything that has `_repr_html_`, by its name, of rounded samples, which are warned of."""
    x = np.round(RNG.normal(size=(240, 2)) ** 2, 1)
    options = {"backend": "autograd", "progress": False, "epochs": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        return {
            "result": ismcore.fit(x, **options),
            "check": ismcore.fit(x[:120], recipe="single", **options).check(x[120:]),
            "diagnosis": ismcore.diagnose(x),
            "comparison": ismcore.compare(x[:50], backends=("autograd", "torch"), epochs=2, recipe="single", progress=False),
            "evaluation": ismcore.evaluate(ismcore.MLP((8,)), None, x[:50], backend="autograd"),
        }


@pytest.mark.slow
def test_what_is_printed_stands_in_the_html_too(shown):
    rows = {name: [row for row in Cells(value._repr_html_()).rows] for name, value in shown.items()}
    words = {name: " ".join(" ".join(row) for row in found) for name, found in rows.items()}
    result = shown["result"]
    assert repr(result.model) in words["result"]
    assert all(candidate["name"] in words["result"] for candidate in result.candidates)
    assert result.warnings
    assert all(text in html.unescape(result._repr_html_()) for text in (*result.warnings, *result.notes))
    assert [row[0] for row in rows["check"][1:]] == [line.name for line in shown["check"].lines]
    assert shown["check"].verdict in shown["check"]._repr_html_()
    assert shown["diagnosis"].findings
    assert all(finding.cure in words["diagnosis"] for finding in shown["diagnosis"].findings)
    assert f"{shown['comparison'].results['torch'].history['loss'][-1]:.15g}" in words["comparison"]
    assert all(name in words["evaluation"] for name in shown["evaluation"].gradient)
    assert "score" not in vars(shown["evaluation"])  # nothing is computed for being shown


@pytest.mark.slow
def test_each_colour_is_of_the_palette_and_follows_light_and_dark(shown):
    palette = {"#009E73", "#D55E00", "#0072B2", "#E69F00", "#56B4E9"}
    for value in shown.values():
        style = value._repr_html_()
        assert "prefers-color-scheme: dark" in style
        assert set(re.findall(r"--(?:good|bad|open): (#\w+)", style)) <= palette


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
def test_nothing_scrolls_sideways_on_a_phone(shown, tmp_path):
    everything = pieces.page("All", *(value._repr_html_() for value in shown.values()))
    content, window = widths(everything, 390, tmp_path)
    assert content == window <= 390
    content, window = widths(pieces.page("Wide", '<pre style="overflow-wrap: normal">' + "x" * 200 + "</pre>"), 390, tmp_path)
    assert content > window  # so it would be seen
