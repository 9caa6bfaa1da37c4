"""python -m planted, in tests/: writes the table of faults into docs/conformance.md anew."""

import re
from pathlib import Path

from planted import table

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
TABLE = re.compile(r"^\| fault \|.*?(?=^$)", re.DOTALL | re.MULTILINE)

if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: table() + "\n", text), encoding="utf-8")
