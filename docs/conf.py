"""The site: `sphinx-build -W docs build/site`, with the extra `docs` installed."""

import re
from datetime import date
from typing import Any

import ismcore

project = "ismcore"
author = "the authors of ismcore"
copyright = f"{date.today().year}, {author}"
release = version = ismcore.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "ismcore"
html_static_path: list[str] = []

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/test_notebook.py executes the notebook, and the suite every block of every page

autodoc_member_order = "bysource"
autodoc_mock_imports = ["sklearn", "torch", "jax", "optax"]  # what is documented of them needs none
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_use_rtype = False
suppress_warnings = ["misc.highlighting_failure", "ref.python"]


MARKS = re.compile(r"(?<!\\)\||(?<=\w)_(?![\w`])|(?<!\*)\*(?=\w+[,)])")


def escaped(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Bars, last underscores and stars of formulas are text in our docstrings, and marks to Sphinx."""
    for k, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [MARKS.sub(lambda mark: "\\" + mark[0], part) for part in parts[::2]]
            lines[k] = "".join(parts)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", escaped, priority=900)
