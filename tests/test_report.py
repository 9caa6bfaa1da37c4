"""`FitResult.report`: one page about any fit, whole, escaped, true, and no wider than a phone."""

import base64
import re
import warnings
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import BROWSER, widths

import ismcore

ATTACK = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags, sources of images, and text, of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])

    def handle_data(self, data):
        self.text += data


def fit(x, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        return ismcore.fit(x, backend="autograd", progress=False, **{"recipe": "single", "epochs": 8, **options})


def page(result, folder, *args, **options):
    result.report(folder / "fit.html", *args, **options)
    return (folder / "fit.html").read_text()


def normal(d, n=240, seed=0):
    return np.random.default_rng([d, seed]).normal(size=(n, d)) @ (np.eye(d) + 0.3)


MADE = {
    "one column": (1, {}),
    "folds": (1, {"recipe": "default"}),
    "field": (2, {}),
    "energy": (2, {"model": ismcore.Energy(ismcore.MLP((8,)))}),
    "whole numbers": (3, {"standardize": False, "model": ismcore.Affine(), "validation": 0}),
    "many columns": (14, {"model": ismcore.Affine()}),
    "ladder": (2, {"model": ismcore.NoiseConditional(ismcore.MLP((16,))), "epochs": 100}),
    "blurred": (2, {"objective": ismcore.DenoisingScoreMatching(0.3)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("made", MADE)
def test_every_fit_has_a_page_that_needs_nothing_else(made, tmp_path):
    d, options = MADE[made]
    x = normal(d)
    result = fit(x, **options)
    text = page(result, tmp_path, x)
    found = Page(text)
    assert not found.tags & {"script", "link", "iframe", "object", "a"}
    assert not re.search("https?://|url\\(|@import", re.sub('src="data:[^"]*"', "", text))
    assert all(base64.b64decode(source.partition(";base64,")[2]).startswith(b"\x89PNG") for source in found.images)
    assert len(found.images) == (4 if d == 1 else 3)  # of the fit, its losses, the draws; score and density for d = 1
    assert repr(result.model) in found.text
    assert result.check().verdict in found.text
    assert all(note in found.text for note in (*result.warnings, *result.notes))
    assert "prefers-color-scheme: dark" in text


@pytest.mark.slow
def test_the_check_is_by_the_rows_that_the_fit_has_not_seen(tmp_path):
    x, new = normal(1, 400), normal(1, 400, seed=1)
    wrong = fit(3.0 * x, model=ismcore.Affine(), epochs=100)
    check = wrong.check(new, train=x)
    assert check.verdict == "fault found"
    text = Page(page(wrong, tmp_path, x, test=new)).text
    assert f"{check.verdict}: {check.why}" in text
    assert "cannot tell" not in text
    half = wrong.check(new)
    assert half.why in Page(page(wrong, tmp_path, new, test=new)).text


def test_the_draws_are_those_of_the_fit(tmp_path):
    x = normal(2, 400)
    result = fit(x, model=ismcore.Affine(), epochs=300)
    draws = result.sample(2000, start=x).x
    text = Page(page(result, tmp_path, x)).text.replace("\N{MINUS SIGN}", "-")
    for values in (x, draws):
        for number in (*values.mean(axis=0), *values.std(axis=0)):
            assert f"{number:.4g}" in text


def test_a_page_without_samples_says_how_the_fit_is_loaded(tmp_path):
    x = normal(3)
    result = fit(x, validation=0, model=ismcore.Affine(), standardize=False)
    result.save(tmp_path / "it's.safetensors")
    text = Page(page(result, tmp_path, saved_as=tmp_path / "it's.safetensors")).text
    line = next(line for line in text.splitlines() if "ismcore.load(" in line)
    names = {"ismcore": ismcore}
    exec(line, names)  # noqa: S102  (the line that the page tells a reader to run)
    assert names["result"].score(x).tobytes() == result.score(x).tobytes()
    assert "No picture of the score" in text
    assert "say where to draw" in text or "nothing says where to draw" in text


def test_a_fit_that_cannot_be_drawn_from_says_why(tmp_path, monkeypatch):
    x = normal(2)
    result = fit(x, model=ismcore.Affine())

    def sample(self, n, **options):
        raise ismcore.Diverged("step 3 left the finite numbers", epoch=3)

    monkeypatch.setattr(ismcore.FitResult, "sample", sample)
    text = Page(page(result, tmp_path, x)).text
    assert "No draws: step 3 left the finite numbers" in text
    assert "Draws of the fitted law beside the samples" not in text


def test_texts_of_the_samples_are_text(tmp_path):
    import pandas

    x = pandas.DataFrame(np.round(normal(2), 0), columns=[ATTACK, "$\\frac{"])
    result = fit(x)
    assert any(ATTACK in text for text in result.warnings)
    text = page(result, tmp_path, x, saved_as=tmp_path / f"{ATTACK.replace('/', '')}.st")
    assert "script" not in Page(text).tags
    assert ATTACK in unescape(text)


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    x = normal(2)
    result = fit(x, model=ismcore.Affine())
    with pytest.raises(ismcore.FileNotWritten, match="no such folder"):
        result.report(tmp_path / "none" / "fit.html", x)
    (tmp_path / "fit.html").write_text("before")
    with pytest.raises(ismcore.OptionError, match="among those of"):
        result.report(tmp_path / "fit.html", x, test=x.copy())
    with pytest.raises(ismcore.SamplesError, match="columns"):
        result.report(tmp_path / "fit.html", x[:, :1])
    assert (tmp_path / "fit.html").read_text() == "before"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
@pytest.mark.parametrize("made", ["many columns", "ladder"])
def test_the_page_does_not_scroll_sideways_on_a_phone(made, tmp_path):
    d, options = MADE[made]
    x = normal(d)
    names = [f"a_column_with_quite_a_long_name_{j}" for j in range(d)]
    new = None if made == "ladder" else normal(d, 60, seed=1)
    text = page(fit(x, **options), tmp_path, ismcore.read_table(table(tmp_path, x, names)), test=new)
    content, window = widths(text, 390, tmp_path)
    assert content == window <= 390


def table(folder, x, names):
    np.savetxt(folder / "x.csv", x, delimiter=",", header=",".join(names), comments="")
    return folder / "x.csv"
