"""A save that is killed, refused or interrupted at any moment leaves the old file or the new one, and no litter for long."""

import errno
import json
import os
import stat
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from ismcore import FileInvalid, FileNotWritten, OptionError
from ismcore.files.atomic import newest_valid, previous_files, write_kept, write_whole
from ismcore.files.tempfiles import Temporary


def kill(mode, folder, argument):
    """What `tests/killing.py` found, and what its children said."""
    program = [sys.executable, Path(__file__).with_name("killing.py"), mode, folder, str(argument)]
    # NumPy's threads would be lost in a fork.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.split()


@pytest.mark.parametrize("keep", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_killed_at_every_call_of_a_save_the_newest_or_the_one_before_is_whole(tmp_path, keep):
    found, calls = kill("each", tmp_path, keep)
    assert found["kills"] == len(calls)
    assert calls.count("write") >= 3
    assert calls.count("fsync") == 2  # file and folder
    assert calls.count("replace") == keep
    assert ("link" in calls) == (keep > 1)


@pytest.mark.slow
def test_killed_at_random_200_times_the_newest_save_is_whole_and_litter_is_gone_after_the_next(tmp_path):
    found, _ = kill("at_random", tmp_path, 20)
    assert found["kills"] == 200
    assert found["littered"] >= 20, found  # the kills did hit saves under way
    assert found["saves"] >= 20, found


@pytest.mark.parametrize("keep", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_processes_that_save_one_path_at_once_never_fail_for_each_other(tmp_path, keep):
    found, _ = kill("at_once", tmp_path, keep)
    assert found["files"] == (["run", "run.previous1"] if keep else ["run"])


def test_a_limit_on_the_size_of_files_is_a_named_error_and_the_old_file_is_whole(tmp_path):
    found, _ = kill("refused", tmp_path, "limit")
    assert found["left"] == ["run"]
    assert found["said"].startswith(f"{errno.EFBIG} ")
    assert "cannot be written: File too large; raise the limit" in found["said"]


def test_a_read_only_folder_is_a_named_error_and_the_old_file_is_whole(tmp_path):
    found, _ = kill("refused", tmp_path, "rights")
    assert found["left"] == ["run"]
    assert found["said"].startswith(f"{errno.EACCES} ")
    assert "its folder is read-only; change the rights" in found["said"]


CALLS = ("open", "write", "fsync", "replace", "link", "unlink")


class Failing:
    """Every call of the system by a save in turn fails."""

    def __init__(self, monkeypatch, at, error):
        self.count, self.at, self.error, self.hit = 0, at, error, None
        for name in CALLS:
            monkeypatch.setattr(os, name, self.checked(name, getattr(os, name)))

    def checked(self, name, call):
        def checked(*args, **options):
            self.count += 1
            if self.count == self.at:
                self.hit = name
                raise self.error
            return call(*args, **options)

        return checked


def check_outcome(path, caught, words):
    """The file is the new one, or, where the error says so, the old one."""
    if isinstance(caught, FileNotWritten):
        assert caught.filename == str(path)
        written = "is written, but a power cut" in str(caught)
        assert ("cannot be written: " + words in str(caught)) != written
        assert path.read_bytes() == (b"3" if written else b"2")
    else:
        assert path.read_bytes() in ((b"2", b"3") if caught else (b"3",))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded; free some of your quota"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; name a file in a folder"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (KeyboardInterrupt(), None),
    ],
    ids=["full disk", "quota", "read-only", "broken disk", "interrupt"],
)
def test_whichever_call_fails_the_file_is_the_old_or_the_new_one(tmp_path, error, words):
    hit, path, at = [], tmp_path / "run", 0
    while not hit or hit[-1]:
        at += 1
        for data in (b"1", b"2"):
            write_kept(path, data, 2)
        with pytest.MonkeyPatch.context() as now:
            failing, caught = Failing(now, at, error), None
            try:
                write_kept(path, b"3", 2)
            except (FileNotWritten, KeyboardInterrupt) as raised:
                caught = raised
        check_outcome(path, caught, words)
        hit.append(failing.hit)
        litter = [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
        assert not litter or (failing.hit, type(error)) == ("unlink", KeyboardInterrupt)
        write_kept(path, b"4", 2)
        assert not litter or len(os.listdir(tmp_path)) == 2
    assert set(hit) == {*CALLS, None}


def test_a_file_system_without_hard_links_gets_copies(tmp_path, monkeypatch):
    def no_links(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for number in range(5):
        write_kept(tmp_path / "run", b"%d" % number, 3)
    assert {name: (tmp_path / name).read_bytes() for name in sorted(os.listdir(tmp_path))} == {
        "run": b"4",
        "run.previous1": b"3",
        "run.previous2": b"2",
    }


def test_a_file_system_without_locks_leaves_litter_and_saves(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    litter = Temporary(tmp_path / "run").path
    write_whole(tmp_path / "run", b"1")
    assert sorted(os.listdir(tmp_path)) == [litter.name, "run"]


def test_only_litter_of_the_same_path_is_removed_and_never_what_is_still_written(tmp_path):
    target, other = tmp_path / "run", tmp_path / "run2"
    with Temporary(target) as living, Temporary(other) as others:
        dead, of_others = (t.path.with_name(t.path.name[:-6] + "zz.tmp") for t in (living, others))
        link = dead.with_name(dead.name.replace("zz.tmp", "yy.tmp"))
        for path in (dead, of_others, tmp_path / ".run.tmp", tmp_path / "victim"):
            path.write_bytes(b"")
        link.symlink_to(tmp_path / "victim")
        write_whole(target, b"1")
        assert sorted(os.listdir(tmp_path)) == sorted(
            [path.name for path in (living.path, others.path, of_others, link)] + [".run.tmp", "run", "victim"]
        )
        living.write(b"2")
        os.replace(living.path, target)
    assert target.read_bytes() == b"2"


def test_the_last_k_are_kept_in_order_and_fewer_where_fewer_are_asked_for(tmp_path):
    path = tmp_path / "run"
    (tmp_path / "run.previous10x").write_bytes(b"somebody's")
    for number in range(8):
        write_kept(path, b"%d" % number, 4)
        kept = [path, *previous_files(path)]
        assert [name.read_bytes() for name in kept] == [b"%d" % n for n in range(number, max(-1, number - 4), -1)]
    (tmp_path / "run.previous2").unlink()  # a gap closes
    write_kept(path, b"8", 4)
    assert [name.read_bytes() for name in previous_files(path)] == [b"7", b"6", b"4"]
    assert [name.name for name in previous_files(path)] == ["run.previous1", "run.previous2", "run.previous3"]
    path.unlink()
    write_kept(path, b"9", 3)
    assert [name.read_bytes() for name in previous_files(path)] == [b"7", b"6"]
    write_whole(path, b"10")  # a plain save has no business with what others keep
    assert len(previous_files(path)) == 2
    write_kept(path, b"11", 1)
    assert previous_files(path) == []
    assert (tmp_path / "run.previous10x").exists()


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, None])
def test_how_many_are_kept_is_a_number_from_1(tmp_path, keep):
    with pytest.raises(OptionError, match="keep must be a whole number from 1"):
        write_kept(tmp_path / "run", b"1", keep)
    assert os.listdir(tmp_path) == []


def readable(path):
    if path.read_bytes().startswith(b"bad"):
        raise FileInvalid("it is altered")
    return path.read_bytes()


def test_the_newest_that_can_be_read_is_found_and_those_that_cannot_are_named(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="run"):
        newest_valid(path, readable)
    for data in (b"1", b"2", b"3"):
        write_kept(path, data, 3)
    (tmp_path / "link").symlink_to(path)
    found = newest_valid(tmp_path / "link", readable)
    assert (found.value, found.path, found.refused) == (b"3", path, {})
    path.write_bytes(b"bad")
    found = newest_valid(path, readable)
    assert (found.value, found.path, list(found.refused)) == (b"2", tmp_path / "run.previous1", [path])
    write_kept(path, b"4", 3)  # what is bad is never put in the place of what is good before the new one is there
    assert newest_valid(path, readable).value == b"4"
    for name in (path, *previous_files(path)):
        name.write_bytes(b"bad")
    with pytest.raises(FileInvalid, match=r"none of the 3 files kept .*run: it is altered; .*previous1: .*previous2: "):
        newest_valid(path, readable)


def test_a_name_as_long_as_names_can_be_is_saved(tmp_path):
    path = tmp_path / ("n" * 255)
    write_whole(path, b"1")
    write_whole(path, b"2")
    assert path.read_bytes() == b"2"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("save", "new"), [(lambda path, data: write_kept(path, data, 3), 0o600), (write_whole, 0o640)])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o660])
def test_a_save_keeps_the_mode_and_the_owner_of_what_it_replaces(tmp_path, save, new, mode):
    path, old = tmp_path / "run", os.umask(0o027)
    try:
        save(path, b"1")
        assert stat.S_IMODE(path.stat().st_mode) == new
        path.chmod(mode)
        if os.getuid() == 0:
            os.chown(path, 12345, 23456)
        before = path.stat()
        save(path, b"2")
        save(path, b"3")
    finally:
        os.umask(old)
    for name in (path, *previous_files(path)):
        found = name.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, before.st_uid, before.st_gid)


def test_where_the_group_cannot_be_kept_its_rights_are_not_given_to_another(tmp_path, monkeypatch):
    def refused(*arguments):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path = tmp_path / "run"
    path.write_bytes(b"1")
    path.chmod(0o664)
    monkeypatch.setattr(os, "fchown", refused)
    monkeypatch.setattr("ismcore.files.tempfiles._stat", lambda path: Foreign(os.stat(path)))
    write_whole(path, b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


class Foreign:
    """What the system says of a file, but that it is another user's and group's."""

    def __init__(self, found):
        self.found = found

    def __getattr__(self, name):
        return {"st_uid": 54321, "st_gid": 65432}.get(name, getattr(self.found, name))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a link of another user")
def test_a_link_that_somebody_else_put_into_a_shared_folder_is_not_followed(tmp_path):
    shared, victim, link = tmp_path / "shared", tmp_path / "victim", tmp_path / "shared" / "fit"
    victim.write_bytes(b"precious")
    shared.mkdir()
    shared.chmod(0o1777)
    link.symlink_to(victim)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(FileNotWritten, match="another user's link"):
        write_whole(link, b"1")
    assert victim.read_bytes() == b"precious"
    os.chown(link, os.geteuid(), -1, follow_symlinks=False)
    write_whole(link, b"2")  # one's own
    assert victim.read_bytes() == b"2"


@pytest.mark.parametrize("keep", [2, 3, 4])
def test_at_no_moment_of_a_save_is_a_number_free(tmp_path, keep, monkeypatch):
    path, seen = tmp_path / "run", []
    names = [path, *(path.with_name(f"run.previous{number}") for number in range(1, keep))]

    def looked(call):
        def looking(*arguments):
            done = call(*arguments)
            seen.append([name.exists() for name in names])
            return done

        return looking

    for number in range(keep):
        write_kept(path, b"%d" % number, keep)
    for name in ("replace", "unlink", "link", "rename"):
        monkeypatch.setattr(os, name, looked(getattr(os, name)))
    for number in range(3):
        write_kept(path, b"new%d" % number, keep)
    assert len(seen) >= 3 * (2 * keep - 1)
    assert all(all(there) for there in seen)
    assert [name.read_bytes() for name in names[:3]] == [b"new2", b"new1", b"new0"][:keep]


def test_what_is_damaged_does_not_displace_what_is_whole(tmp_path):
    path = tmp_path / "run"
    for number in (1, 2, 3):
        write_kept(path, b"%d" % number, 3)
    path.write_bytes(b"bad")
    write_kept(path, b"4", 3, keep_newest=False)
    assert [name.read_bytes() for name in (path, *previous_files(path))] == [b"4", b"2", b"1"]


def test_a_folder_with_the_name_of_a_file_to_be_kept_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "run.previous1").mkdir()
    with pytest.raises(FileNotWritten, match=r"run\.previous1 beside it is a folder"):
        write_kept(tmp_path / "run", b"1", 2)
    assert os.listdir(tmp_path) == ["run.previous1"]


class Recorder:
    """The names that each call of a save gives to files or takes from them, as a disk may come to hold them in any order."""

    def __init__(self, monkeypatch):
        self.changes, self.before_sync = [], None
        for name in ("link", "replace", "unlink", "fsync"):
            monkeypatch.setattr(os, name, self.recorded(name, getattr(os, name)))

    def recorded(self, name, call):
        def recorded(*arguments):
            if name == "fsync":
                is_folder = stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
                self.before_sync = len(self.changes) if is_folder else self.before_sync
                if not is_folder:
                    self.changes.clear()  # nothing that matters has happened before the content is on the disk
            else:
                content = Path(arguments[0]).read_bytes()
                given = {str(arguments[1]): content} if name != "unlink" else {}
                self.changes.append({**given, **({str(arguments[0]): None} if name != "link" else {})})
            return call(*arguments)

        return recorded


@pytest.mark.parametrize("keep", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_whichever_of_its_changes_a_power_cut_leaves_in_whichever_order_a_whole_file_is_there(tmp_path, monkeypatch, keep):
    path = tmp_path / "run"
    for number in range(1, keep + 1):
        write_kept(path, b"%d" % number, keep)
    start = {str(name): name.read_bytes() for name in (path, *previous_files(path))}
    recorder = Recorder(monkeypatch)
    write_kept(path, b"new", keep)
    changes = recorder.changes[: recorder.before_sync]
    assert len(changes) == 2 * keep - 1
    for count in range(len(changes) + 1):
        for left in permutations(changes, count):
            names = dict(start)
            for change in left:
                names.update(change)
            there = {name: content for name, content in names.items() if content is not None and not name.endswith(".tmp")}
            assert there[str(path)] in (b"new", b"%d" % keep)
            kept = [there.get(f"{path}.previous{number}") for number in range(1, keep)]
            assert all(content is not None for content in kept)
