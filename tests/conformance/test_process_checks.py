"""What the import of a backend leaves behind in a process is caught, also what a child process inherits."""

from itertools import count

import pytest
from shelf import BACKEND, PLUGIN, shelf_on_path

from ismcore.backend import API
from ismcore.testing import check_backend
from ismcore.testing.globals import differences, snapshot

LEFT = {
    "working directory": "import os; os.chdir('/')",
    "os.environ": "import os; os.environ.pop('PATH', None)",
    "signal handlers": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "locale": "import locale; locale.setlocale(locale.LC_TIME, 'C.UTF-8')",
    "logging": "import logging; logging.disable(logging.ERROR)",
    "garbage collection": "import gc; gc.disable()",
    "sys.excepthook": "import sys; sys.excepthook = print",
    "sys.path": "import sys; sys.path.insert(0, '/nowhere')",
    "running threads": "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
}
IN_A_CHILD = "import sys\nif 'pytest' not in sys.modules:\n    "
"""What the lines above do is not done to this process."""
NUMBERS = count()


@pytest.fixture
def failures(tmp_path, monkeypatch):
    """What the check of first use says of a backend with a line of code in its module; what it found is kept by module."""

    def found(line):
        name = f"odd{next(NUMBERS)}"
        with shelf_on_path(tmp_path, monkeypatch) as shelf:
            shelf.put(name, PLUGIN.format(name=name, module=name, api=API), backend=f"{line}\n{BACKEND.format(name=name)}")
            report = check_backend(name, only=["check_first_use_leaves_global_state"])
            return [row.message for row in report.failures]

    return found


@pytest.mark.slow
@pytest.mark.parametrize(("what", "line"), LEFT.items(), ids=LEFT)
def test_what_an_import_leaves_behind_is_caught(what, line, failures):
    (message,) = failures(IN_A_CHILD + line)
    assert f"changed {what} from" in message


@pytest.mark.slow
def test_what_this_process_would_hand_down_is_caught_too(failures, monkeypatch):
    monkeypatch.delenv("ISMCORE_LEFT", raising=False)  # so that it is taken away again
    (message,) = failures("import os; os.environ['ISMCORE_LEFT'] = '1'")
    assert "os.environ from {} to {'ISMCORE_LEFT': '1'}" in message


@pytest.mark.slow
def test_a_backend_that_prints_is_no_failure(failures):
    assert failures("import os; print('loud'); os.write(1, b'loud')") == []


def test_a_thread_that_ends_is_no_change():
    before = snapshot()
    before["running threads"] |= {"one that has ended 1"}
    assert differences(before, snapshot()) == []
