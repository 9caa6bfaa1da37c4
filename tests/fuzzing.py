"""Mutates contents of results and checkpoints, with a right checksum: each is refused by name, or is one that a fit could have.

The results keep rows; one has modes far apart, too.

`python tests/fuzzing.py SECONDS [SEED]` does so for as long as is asked; `tests/test_fuzzing.py` for a few seconds.
"""

import json
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import ismcore
from ismcore.files import tensorfile

X = np.random.default_rng(3).normal(size=(40, 2))
APART = np.random.default_rng(4).normal(size=(230, 2)) + 30.0 * np.random.default_rng(5).integers(0, 2, (230, 1))
WEIRD = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        2**31,
        2**63,
        10**400,
        -(10**25),
        0.5,
        -0.5,
        1e308,
        1e-320,
        "",
        "auto",
        "float64",
        "\x1b[2J",
    ),
    *(
        [],
        [0],
        [1, 2],
        ["a"],
        [[]],
        {},
        {"a": 1},
        {"$tensor": "params.weight"},
        {"$type": "MLP"},
        {"$type": "Plan", "epochs": 3},
    ),
    *({"$user": "ScoreFunction", "backend": None}, {"$type": "Affine"}, {"$type": "Energy", "net": {"$type": "Affine"}}),
)


def sources(folder):
    """Three files that are well: a result, one with modes and rows set aside, and a checkpoint of a run in its second epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = ismcore.Energy(ismcore.MLP((3,), "softplus"))
        options = {"backend": "autograd", "epochs": 4, "batch_size": 16, "validation": 0.2, "snapshots": 2, "progress": False}
        ismcore.fit(X, model=net, **options).save(folder / "result")
        apart = ismcore.fit(APART, model=net, test=30, **options)
        assert apart.modes is not None
        apart.save(folder / "modes")
        stop = {
            "callbacks": [lambda event: ismcore.STOP if event.epoch else None],
            "checkpoint": ismcore.Checkpoint(folder / "run", every=0.0),
        }
        ismcore.fit(X, model=ismcore.MLP((3,)), **options, average_decay=0.9, **stop)
    return [tensorfile.read_any(str(folder / name)) for name in ("result", "modes", "run")]


def places(value, path=()):
    """Every path of keys in a content."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(draw, found):
    """Content and arrays with one to three changes."""
    content, tensors = json.loads(json.dumps(found.content)), dict(found.tensors)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if draw.random() < 0.7:
            *parents, last = draw.choice(list(places(content)))
            at = content
            for key in parents:
                at = at[key]
            if draw.random() < 0.15:
                at.pop(last)
            else:
                at[last] = json.loads(json.dumps(draw.choice(WEIRD)))
        else:
            name = draw.choice(sorted(tensors))
            array = tensors.pop(name)
            change = draw.choice(
                (lambda a: -a, lambda a: a * np.nan, lambda a: a[..., None], lambda a: a[:-1], lambda a: a * 1e300)
            )
            with np.errstate(all="ignore"):
                if draw.random() < 0.8 and array.ndim and array.dtype.kind == "f":
                    tensors[name] = np.asarray(change(array), array.dtype)
                elif draw.random() < 0.5:
                    tensors[f"{name}x"] = array
    return content, tensors


def outcome(path, kind):
    """ "refused", or "loaded" where the fit that it is can be used and saved again.

    Raises:
        Exception: Anything else that happens.
    """
    try:
        result = ismcore.load(path)
    except ismcore.IsmError:
        return "refused"
    assert "\x1b" not in repr(result) + "".join(map(str, result.warnings))
    try:
        with np.errstate(all="ignore"):
            assert result.score(X[:3]).shape == (3, 2)
            assert result.sample(3, steps=2, thin=1).x.shape == (3, 2)
        result.save(path.with_name("again"))
    except ismcore.IsmError:
        return "refused when used"
    if kind == "checkpoint":
        try:
            ismcore.resume(path, X, progress=False, timeout=2.0, checkpoint=ismcore.Checkpoint(path.with_name("on")))
        except ismcore.IsmError:
            return "refused when gone on with"
        finally:
            for name in path.parent.glob("on*"):
                name.unlink()
    return "loaded"


def fuzz(seconds, seed):
    """Counts of outcomes; the first input that comes to something else raises, with its number."""
    draw, count, number, end = random.Random(seed), {}, 0, time.monotonic() + seconds  # noqa: S311
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        found = sources(folder)
        while time.monotonic() < end:
            number += 1
            file = draw.choice(found)
            content, tensors = mutated(draw, file)
            try:
                data = tensorfile.pack(file.kind, content, tensors)
            except (ismcore.ParameterError, ValueError):
                continue
            (folder / "forged").write_bytes(data)
            began = time.monotonic()
            try:
                what = outcome(folder / "forged", file.kind)
            except Exception as error:
                raise AssertionError(f"input {number} of seed {seed}: {error!r}\n{json.dumps(content)[:3000]}") from error
            assert time.monotonic() - began < 10.0, number
            count[what] = count.get(what, 0) + 1
    return count


if __name__ == "__main__":
    sys.stdout.write(f"{fuzz(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)}\n")
