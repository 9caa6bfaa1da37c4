"""The pictures of the gallery, `python docs/gallery/draw.py [NAME ...]`: a page is executed, its `figure` saved beside it."""

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

PAGES = Path(__file__).parent


def main() -> None:
    """Draw the pages named, or all."""
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if f"({page.stem}.png)" in text and page.stem in (sys.argv[1:] or page.stem):
            names: dict[str, object] = {}
            exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), names)  # noqa: S102  (our own pages)
            names["figure"].savefig(page.with_suffix(".png"), dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
