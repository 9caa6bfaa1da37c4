"""Kills processes that save. A program of its own: it forks, which only a process without threads can do safely.

Each child is ended by SIGKILL, so that nothing of its own can clean up; what it leaves is looked at, and saved over.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from ismcore.errors import FileNotWritten
from ismcore.files import tensorfile
from ismcore.files.atomic import newest_valid, previous_files, write_kept, write_whole

CALLS = ("open", "write", "fsync", "replace", "link", "unlink")
"""What a save asks of the system."""


def packed(number, size=1000):
    return tensorfile.pack("checkpoint", {"number": number}, {"params.weight": np.arange(float(size)) + number})


def number_in(path):
    """The number of a checkpoint that is whole."""
    content, tensors = tensorfile.read(str(path), "checkpoint")
    assert tensors["params.weight"][0] == content["number"]
    return content["number"]


def numbers(path):
    """Those of all files kept, newest first; raises if one is not whole."""
    return [number_in(name) for name in (path, *previous_files(path)) if name.exists()]


def fork(work):
    """The process number of a child that does the work, and exits with 0 if it is done."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def wait(child):
    """How a child ended: its exit code, or the number of the signal, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def kill_at(count):
    """Have this process die at its call number `count` of the system; a write is half done then."""
    seen = iter(range(count + 1))

    def replaced(name, call):
        def checked(*args, **options):
            if next(seen, None) == count:
                if name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                os.write = plain
                sys.stderr.write(f"{name}\n")
                sys.stderr.flush()
                die()
            if name == "write":  # in pieces, so that there is more than one
                return call(args[0], args[1][:3000])
            return call(*args, **options)

        return checked

    plain = os.write
    for name in CALLS:
        setattr(os, name, replaced(name, getattr(os, name)))


def each(folder, keep):
    """A kill at every call of a save."""
    keep = int(keep)
    ends = []
    while not ends or ends[-1] != 0:
        path = Path(tempfile.mkdtemp(dir=folder)) / "run"
        for number in range(1, keep + 1):
            write_kept(path, packed(number), keep)

        def save(path=path):
            kill_at(len(ends))
            write_kept(path, packed(keep + 1), keep)

        ends.append(wait(fork(save)))
        there = numbers(path)
        found = list(dict.fromkeys(there))  # on the way, a file has its old and its new name
        assert found[0] in (keep, keep + 1), found
        assert found == sorted(found, reverse=True), found
        assert newest_valid(path, number_in).value == found[0]
        if ends[-1] != 0:
            assert ends[-1] == -signal.SIGKILL
            assert len(there) == keep
        write_kept(path, packed(keep + 2), keep)
        assert numbers(path) == [keep + 2, *found][:keep]
        assert sorted(os.listdir(path.parent)) == ["run", *(f"run.previous{i}" for i in range(1, len(numbers(path))))]
    return {"kills": len(ends) - 1}


def at_random(folder, seed):
    """200 kills at random moments of saving, all of the same file."""
    draw = np.random.default_rng(int(seed))
    path = Path(folder) / "run"
    write_kept(path, packed(0), 2)
    last, littered, saves = 0, 0, 0
    for _ in range(200):
        reading, writing = os.pipe()

        def save(start=last, writing=writing):
            for number in range(start + 1, start + 10_000):
                write_kept(path, packed(number), 2)
                os.write(writing, b".")

        child = fork(save)
        os.close(writing)
        time.sleep(draw.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        done = last + len(os.read(reading, 100_000))
        os.close(reading)
        littered += any(name.endswith(".tmp") for name in os.listdir(folder))
        found = newest_valid(path, number_in)
        assert found.path == path.resolve()
        assert not found.refused
        assert found.value in (done, done + 1), (found, done)
        assert all(number <= found.value for number in numbers(path)[1:])
        saves += found.value - last
        last = found.value
    write_kept(path, packed(last + 1), 2)
    assert numbers(path) == [last + 1, last]
    assert sorted(os.listdir(folder)) == ["run", "run.previous1"]
    return {"kills": 200, "littered": littered, "saves": saves}


def at_once(folder, keep):
    """Two processes save the same path, again and again, while others that do so are killed: no save fails."""
    path, data = Path(folder) / "run", {number: packed(number) for number in (1, 2, 3)}

    def save(number, times=100):
        for _ in range(times):
            if keep == "0":
                write_whole(path, data[number])
            else:
                write_kept(path, data[number], int(keep))

    savers = [fork(lambda number=number: save(number)) for number in (1, 2)]
    for _ in range(20):
        child = fork(lambda: save(3, 10_000))
        time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        wait(child)
    assert [wait(saver) for saver in savers] == [0, 0]
    save(3, 1)
    assert number_in(path) == 3
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]
    assert set(numbers(path)) <= {1, 2, 3}
    return {"files": sorted(os.listdir(folder))}


def refused(folder, fault):
    """What is said where the system itself, not a stand-in, refuses to write."""
    place = Path(tempfile.mkdtemp())  # not below `folder`, where another user may have no right to look
    path = place / "run"
    write_whole(path, packed(1))
    reading, writing = os.pipe()

    def save():
        if fault == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        elif os.geteuid() == 0:  # who may write anywhere
            os.setuid(65534)
        try:
            write_whole(path, packed(2))
        except FileNotWritten as error:
            os.write(writing, f"{error.errno} {error}".encode())

    if fault == "rights":
        place.chmod(0o555)
    assert wait(fork(save)) == 0
    os.close(writing)
    said = os.read(reading, 10_000).decode()
    assert number_in(path) == 1
    left = os.listdir(place)
    place.chmod(0o755)
    for name in left:
        (place / name).unlink()
    place.rmdir()
    return {"said": said, "left": left}


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        found = {"each": each, "at_random": at_random, "at_once": at_once, "refused": refused}[sys.argv[1]](*sys.argv[2:])
        sys.stdout.write(json.dumps(found))
