"""Print the code lines of `ismcore` and `backends`, each and in all: lines on which a token stands.

Docstrings, comments and blank lines count for nothing.

    python .ci/code_lines.py [PATH ...]

A PATH is a folder or a file to count instead.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def docstring_lines(source: str) -> set[int]:
    """Lines of the docstrings of modules, classes and functions; a string below an attribute counts as code."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            found.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return found


def code_lines(source: str) -> int:
    """Lines on which a token stands, without docstrings, comments and blanks."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(source))


def count(path: Path) -> int:
    """Code lines of a file, or of all Python files in a folder."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return sum(code_lines(file.read_text(encoding="utf-8")) for file in files)


def main() -> None:
    """Print one line a path, and the sum."""
    paths = [Path(name) for name in sys.argv[1:]] or [ROOT / "ismcore", ROOT / "backends"]
    counts = {path: count(path) for path in paths}
    for path, lines in counts.items():
        sys.stdout.write(f"{lines:7,}  {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}\n")
    sys.stdout.write(f"{sum(counts.values()):7,}  in all\n")


if __name__ == "__main__":
    main()
