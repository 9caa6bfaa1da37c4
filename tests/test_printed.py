"""What a framework prints is folded, and given back as it was, whoever printed it."""

import os
import subprocess
import sys

import pytest

from ismcore.plugins.printed import folded


def test_what_is_printed_is_folded_by_any_way_and_the_streams_are_given_back(capfd):
    print("before")  # noqa: T201
    with folded() as printed:
        print("to Python's own stream")  # noqa: T201
        os.write(2, b"to the descriptor\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    print("after", file=sys.stderr)  # noqa: T201
    assert sorted(printed.text.splitlines()) == ["by a child", "to Python's own stream", "to the descriptor"]
    assert str(printed).startswith("3 lines printed meanwhile, the first: ")
    assert capfd.readouterr() == ("before\n", "after\n")


def test_an_error_gives_the_streams_back_too(capfd):
    with pytest.raises(ZeroDivisionError), folded() as printed:
        print("one", 1 / 0 if os.write(1, b"one\n") else "")  # noqa: T201
    os.write(1, b"two\n")
    assert str(printed) == "1 line printed meanwhile, the first: 'one'"
    assert capfd.readouterr().out == "two\n"


def test_nothing_printed_is_nothing_said():
    with folded() as printed:
        pass
    assert str(printed) == ""
