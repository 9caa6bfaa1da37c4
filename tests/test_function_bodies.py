"""How long a function may be, and how full a folder: what outgrows a screen holds two ideas."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST, FULLEST = 45, 16
FILES = sorted(path for folder in ("ismcore", "backends") for path in (ROOT / folder).rglob("*.py"))


def body_lines(node):
    """Lines of a function from the first after its docstring to the last."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def too_long(source):
    nodes = ast.walk(ast.parse(source))
    found = [(node.name, body_lines(node)) for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(name, lines) for name, lines in found if lines > LONGEST]


def test_no_function_body_is_longer_than_a_screen():
    assert len(FILES) > 100
    found = {str(path.relative_to(ROOT)): too_long(path.read_text(encoding="utf-8")) for path in FILES}
    assert not {path: names for path, names in found.items() if names}


def test_no_folder_holds_more_files_than_one_overlooks():
    files = Counter(str(path.parent.relative_to(ROOT)) for path in FILES)
    assert len(files) > 20
    assert not {folder: count for folder, count in files.items() if count > FULLEST}


@pytest.mark.parametrize(("lines", "found"), [(LONGEST, []), (LONGEST + 1, [("f", LONGEST + 1)])], ids=["just", "over"])
def test_a_docstring_counts_for_nothing_and_every_other_line_for_one(lines, found):
    docstring = '    """' + "\n" * LONGEST + '    """\n'
    assert too_long("def f():\n" + docstring + "    x = 1\n" * (lines - 2) + "\n    return x\n") == found
