"""What a page is like in a browser."""

import html
import re
import shutil
import subprocess

BROWSER = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


def widths(page, width, folder):
    """Width of the content of a page, in pixels, in a window of the width given, and of the window: by Chromium."""
    measure = (
        "const d = f.contentDocument.documentElement, t = document.createElement('pre');"
        "t.textContent = d.scrollWidth + ' ' + d.clientWidth; document.body.append(t)"
    )
    size = f"width: {width}px; height: 800px; border: 0"
    frame = f'<iframe id="f" style="{size}" srcdoc="{html.escape(page)}" onload="{measure}"></iframe>'
    folder.joinpath("page.html").write_text(f"<!DOCTYPE html><meta charset='utf-8'>{frame}", encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, f"file://{folder / 'page.html'}"], capture_output=True, text=True, check=True, timeout=120)
    return [int(number) for number in re.search(r"<pre>(\d+) (\d+)</pre>", done.stdout).groups()]
