"""What the site claims: every block of code is executed, every public name has its entry, tables stand in a report."""

import importlib
import inspect
import json
import re
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import ismcore

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted((*DOCS.rglob("*.md"), ROOT / "README.md"))
EXECUTED = {"python"}  # by conftest.py
SHOWN = {"", "sh", "bibtex", "{toctree}", "{math}", "{eval-rst}"}  # output, commands, and what Sphinx reads


def test_every_block_of_code_on_a_page_is_one_that_the_suite_executes():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^ *(?:```|~~~)(\S*)", text, re.MULTILINE)[::2]
        assert set(fences) <= EXECUTED | SHOWN, page.name
        assert not re.search(r"<!--+ skip|\{code-cell|\{literalinclude", text), page.name
    assert [page.name for page in DOCS.rglob("*.ipynb")] == ["tour.ipynb"]  # see test_notebook.py


def test_a_page_of_the_gallery_is_one_program_of_at_most_thirty_lines_with_its_picture():
    pages = set(DOCS.glob("gallery/*.md")) - {DOCS / "gallery" / "index.md"}
    assert len(pages) == 8
    index = (DOCS / "gallery" / "index.md").read_text(encoding="utf-8")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(code.splitlines()) <= 30, page.name
        assert f"({page.name})" in index
        pictures = re.findall(r"\]\((\S+\.png)\)", text)
        assert pictures == [f"{page.stem}.png"] * ("figure" in code)
        assert all((page.parent / picture).exists() for picture in pictures)


def named(dotted):
    """What stands under this name, such as `ismcore.targets.GaussianMixture`; None where nothing does."""
    value = ismcore
    for part in dotted.split(".")[1:]:
        value = getattr(value, part, None) or (
            inspect.ismodule(value) and find_spec(dotted) and importlib.import_module(dotted)
        )
    return value or None


def test_every_public_name_has_its_entry_in_the_reference():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\.\. auto(?:function|class|data|module):: (ismcore\.\S+)$", page, re.MULTILINE)
    found = [named(entry) for entry in entries]
    assert [entry for entry, value in zip(entries, found, strict=True) if value is None] == []
    for module in filter(inspect.ismodule, found):
        names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        found = [*found, *(getattr(module, name) for name in names)]
    known = {id(value) for value in found}
    assert [name for name in ismcore.__all__ if id(getattr(ismcore, name)) not in known] == []
    pages = [page for page in PAGES if page.parent.name != "decisions"]  # which name what is no user's
    said = {name for page in pages for name in re.findall(r"\bismcore\.[a-z_]+\b", page.read_text(encoding="utf-8"))}
    assert [name for name in sorted(said) if inspect.ismodule(named(name)) and id(named(name)) not in known] == []


@pytest.fixture(scope="module")
def comparison():
    """bench/comparison.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        before = set(sys.modules)
        yield importlib.import_module("comparison")
        for name in set(sys.modules) - before:
            if str(ROOT / "bench") in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def test_what_backends_document_needs_no_framework():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    mocked = re.search(r"autodoc_mock_imports = (\[.*?\])", (DOCS / "conf.py").read_text(encoding="utf-8"))[1]
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto\w+:: ismcore_(\w+)\.", page, re.MULTILINE))
    assert documented == {"torch", "jax"}
    for name in documented:
        assert {re.match(r"\w+", one)[0] for one in extras[name]} <= set(json.loads(mocked))


def test_the_tables_of_the_comparison_are_those_of_the_reports(comparison):
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    quality, found = (
        json.loads((ROOT / "bench" / "reports" / f"{name}.json").read_text()) for name in ("quality", "comparison")
    )
    assert comparison.page_of(page, quality, found) == page, "python bench/comparison.py --only"
    quality["runs"] = [run | {"error": 2.0 * run["error"]} if run["part"] == "laws" else run for run in quality["runs"]]
    assert comparison.page_of(page, quality, found) != page
    with pytest.raises(ValueError, match="lacks the marks"):
        comparison.page_of(page.replace("<!-- end of quality -->", ""), quality, found)


def test_the_changelog_names_this_version_and_tells_of_each_change_in_one_line():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[0] == "[Unreleased]"
    assert titles[1].startswith(f"[{ismcore.__version__}] - ")
    assert f"\nversion: {ismcore.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    released = text.partition(f"## {titles[1]}")[2]
    groups = re.findall(r"^### (.*)$", released, re.MULTILINE)
    assert [group for group in groups if group not in ("Added", "Changed", "Fixed", "Removed")] == []
    lines = [line for line in released.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not line.startswith("- ") and not re.fullmatch(r"[A-Z][^.]*:", line)] == []
    assert [line for line in lines if len(line) > 250] == []
