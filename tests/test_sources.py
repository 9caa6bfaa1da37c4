"""A fit from a source: the rows whatever the medium, each once an epoch; and a run that stopped goes on to the same bits."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from truth import SMALL_SAMPLE, correlated, marked

import ismcore
from ismcore import sources
from ismcore.errors import OptionError, SamplesError
from ismcore.models import MLP
from ismcore.samples.sources import LANES, Layout, Source
from ismcore.samples.sources.survey import Survey, surveyed
from ismcore.training.streamed import StreamedProblem

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE, "ignore:the fit is worse than:ismcore.IsmWarning")

X = np.asarray(correlated(n=1300))
RUNS = [*marked(["autograd", "torch", "jax"], ["single"]), ("autograd", "default")]
NAMES = ("a", "b", "c")[: X.shape[1]]
PLAIN = {"model": MLP((4,), "tanh"), "epochs": 3, "batch_size": 64, "dtype": "float64", "progress": False}
ROWS = 20
"""Most rows of a block: 80 blocks in five windows."""


def sizes_of(n, size):
    return [X[start : start + size] for start in range(0, n, size)]


def as_npy(folder):
    np.save(folder / "x.npy", X)
    return sources.npy(folder / "x.npy", block_rows=ROWS)


def as_parquet(folder):
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    (folder / "parts").mkdir()
    for number, part in enumerate(sizes_of(len(X), 700)):
        pq.write_table(
            pa.table(dict(zip(NAMES, part.T, strict=True))), folder / "parts" / f"{number}.parquet", row_group_size=97
        )
    return sources.parquet(folder / "parts", block_rows=ROWS)


def flat(result):
    return np.concatenate([np.ravel(value) for value in result.params.values()])


class Counted(Source):
    """Rows by a method of one's own."""

    names = NAMES
    block_rows = ROWS

    def __init__(self, x=X):
        self.x, self.most = x, 0

    @property
    def shape(self):
        return self.x.shape

    def read(self, start, stop):
        self.most = max(self.most, stop - start)
        return self.x[start:stop]


@pytest.mark.parametrize(("backend", "recipe"), RUNS)
def test_parameters_are_those_of_the_rows_and_not_of_the_medium(backend, recipe, tmp_path):
    plain = {**PLAIN, "backend": backend, "recipe": recipe}
    if recipe == "default":
        del plain["model"]
    memory = ismcore.fit(sources.array(X, block_rows=ROWS), **plain)
    assert np.isfinite(flat(memory)).all()
    assert memory.held_out == 260
    for source in (as_npy(tmp_path), as_parquet(tmp_path), Counted()):
        other = ismcore.fit(source, **plain)
        np.testing.assert_allclose(flat(other), flat(memory), rtol=0.0, atol=1e-10)
        np.testing.assert_allclose(other.history["validation_loss"], memory.history["validation_loss"], rtol=0.0, atol=1e-10)
    if backend == "autograd":
        assert other.feature_names == NAMES


@pytest.mark.slow
def test_a_fit_from_a_source_is_as_good_as_one_from_memory():
    plain = {"backend": "autograd", "model": ismcore.Affine(), "batch_size": 64, "epochs": 20, "progress": False}
    exact = -np.linalg.inv(np.cov(X.T))
    for x in (X, sources.array(X, block_rows=ROWS), sources.iterable(sizes_of(len(X), 77), block_rows=ROWS)):
        found = ismcore.fit(x, **plain).params["weight"]
        assert np.linalg.norm(found - exact) < 0.15 * np.linalg.norm(exact)


@pytest.mark.parametrize(("backend", "recipe"), RUNS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(backend, recipe, tmp_path):
    def source():
        blocks = [X[:333], X[333:]]
        return sources.iterable(blocks, block_rows=ROWS) if recipe == "single" else sources.array(X, block_rows=ROWS)

    plain = {**PLAIN, "backend": backend, "recipe": recipe, "optimizer": ismcore.Adam(0.05), "epochs": 4}
    if recipe == "default":
        plain = {**plain, "ensemble": 1}
    whole = ismcore.fit(source(), **plain)
    seen = []

    def stop(event):
        seen.append(event.epoch)
        return ismcore.STOP if event.kind == "chunk" and len(seen) > 4 else None

    part = ismcore.fit(source(), **plain, callbacks=[stop], checkpoint=tmp_path / "run")
    assert part.status == "interrupted"
    rest = ismcore.resume(tmp_path / "run", source(), progress=False)
    assert np.array_equal(flat(rest), flat(whole))
    assert np.array_equal(rest.history["loss"], whole.history["loss"])


def test_a_run_that_was_killed_within_an_epoch_goes_on_to_the_same_bits(tmp_path):
    np.save(tmp_path / "x.npy", X)
    program = """
        import os, signal, sys, ismcore
        def kill(event):
            if event.kind == "checkpoint" and len(event.losses) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        ismcore.fit(
            ismcore.sources.npy(sys.argv[1] + "/x.npy", block_rows=20),
            model=ismcore.MLP((4,), "tanh"), epochs=4, batch_size=16,
            dtype="float64", backend="autograd", progress=False, callbacks=[kill],
            checkpoint=ismcore.Checkpoint(sys.argv[1] + "/run", every=0),
        )
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), os.fspath(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    plain = {**PLAIN, "epochs": 4, "batch_size": 16, "backend": "autograd"}
    whole = ismcore.fit(sources.npy(tmp_path / "x.npy", block_rows=20), **plain)
    rest = ismcore.resume(tmp_path / "run", sources.npy(tmp_path / "x.npy", block_rows=20), progress=False)
    assert np.array_equal(flat(rest), flat(whole))


def test_a_run_from_other_rows_is_not_gone_on_with(tmp_path):
    plain = {**PLAIN, "backend": "autograd"}
    ismcore.fit(sources.array(X, block_rows=ROWS), **plain, checkpoint=tmp_path / "run")
    changed = X.copy()
    changed[777, 0] += 1e-9
    with pytest.raises(ismcore.CheckpointMismatch, match="x is not bit for bit"):
        ismcore.resume(tmp_path / "run", sources.array(changed, block_rows=ROWS))


def problem_of(x, *, share, gap=0, batch_size=64, rank=0, world=1):
    survey = surveyed(sources.array(x, block_rows=ROWS), share, 3).with_gap(gap)
    coordinates = ismcore.coordinates.Coordinates.identity(x.shape[1])
    loss = ismcore.problem.Loss(MLP((4,)), ismcore.ImplicitScoreMatching())
    whole = ismcore.problem.Problem(loss, ismcore.Adam(), survey.sample, coordinates, seed=3, batch_size=batch_size)
    return StreamedProblem.of(whole, survey, rank, world)


def test_some_rows_of_each_block_are_trained_on_and_some_held_out():
    for share in (0.001, 0.5, 0.999):
        survey = surveyed(sources.array(X[:163], block_rows=ROWS), share, 0).with_gap(50)
        assert survey.sizes.min() >= 1
        assert len(survey.held_out) >= 16


@pytest.mark.parametrize(("share", "gap"), [(0.0, 0), (0.2, 0), (0.2, 2)])
def test_an_epoch_deals_each_row_that_is_trained_on_once_and_none_that_is_held_out(share, gap):
    x = np.arange(1307.0)[:, None]
    problem = problem_of(x, share=share, gap=gap)
    orders = []
    windows = problem.windows(0, 2)
    for epoch in range(2):
        dealt = []
        for window in range(problem.survey.source.layout.windows):
            rows = next(windows)[:, 0]
            first = (epoch * problem.survey.source.layout.windows + window) * problem.batches_a_window
            places, weight = problem.rows(first, problem.batches_a_window)
            np.testing.assert_allclose(weight.sum(axis=1), 1.0)
            dealt += rows[places][weight > 0.0].tolist()
            assert places.shape == (problem.batches_a_window, problem.batch_rows)
            assert problem.batch_rows <= 64
        orders.append(dealt)
        held = problem.survey.held_out[:, 0]
        beside = set()
        for number in range(problem.survey.source.layout.blocks):
            block = x[slice(*problem.survey.source.layout.bounds(number)), 0]
            beside |= {row for row in block for away in range(1, gap + 1) if {row - away, row + away} & set(held)}
        assert bool(beside) == (gap > 0)
        assert problem.survey.gap == gap
        assert set(dealt) == set(x[:, 0]) - set(held) - beside
        assert len(dealt) == len(set(dealt)) == problem.n
    assert orders[0] != orders[1]
    assert len(held) == round(share * len(x))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_deal_the_steps_of_one_between_them(world):
    x = np.arange(1307.0)[:, None]

    def steps(rank, count):
        problem = problem_of(x, share=0.2, rank=rank, world=count)
        for step, window in enumerate(problem.windows(0, 1)):
            for k in range(problem.batches_a_window):
                places, weight = problem.rows(step * problem.batches_a_window + k, 1)
                yield {(row, share) for row, share in zip(window[places[0], 0], weight[0], strict=True) if share}

    for one, *several in zip(steps(0, 1), *(steps(rank, world) for rank in range(world)), strict=True):
        assert set().union(*several) == one
        assert sum(map(len, several)) == len(one)


def test_the_layout_is_a_function_of_the_number_of_rows():
    layout = Layout(1000, 7)
    bounds = [layout.bounds(number) for number in range(layout.blocks)]
    assert layout.blocks % LANES == 0
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 1000
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    assert {stop - start for start, stop in bounds} <= {6, 7}
    assert sources.array(np.zeros((10**6, 8))).layout.width <= 2**16
    assert sources.array(np.zeros((10**5, 784), dtype=bool)).layout.width <= 2**10


def test_blocks_come_in_a_new_order_each_epoch_and_those_of_an_iterable_in_their_own():
    source = sources.array(X, block_rows=ROWS)
    orders = [source.order(*about).tolist() for about in ((0, 1), (1, 1), (0, 2))]
    assert all(sorted(order) == list(range(80)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert source.order(0, 1).tolist() == orders[0]
    given = sources.iterable([X], block_rows=ROWS)
    assert given.order(0, 1).tolist() == given.order(1, 1).tolist() == list(range(80))
    first, *rest = source.blocks(1, 1, start=77)
    np.testing.assert_array_equal(first, X[slice(*source.layout.bounds(orders[1][77]))])
    assert len(rest) == 2


def test_no_more_than_a_block_is_read_at_once_and_all_moments_are_those_of_all_rows():
    source = Counted()
    survey = surveyed(source, 0.1, 0)
    assert source.most <= ROWS
    np.testing.assert_allclose(survey.mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(survey.scale, X.std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal([survey.least, survey.most], [X.min(axis=0), X.max(axis=0)])


def test_rows_that_depend_on_their_neighbours_leave_a_gap_beside_those_held_out():
    walk = autoregressive(4000, 0.9)
    with pytest.warns(ismcore.IsmWarning, match="runs of rows, one of each block and apart from those trained on, were"):
        ismcore.fit(sources.array(walk), backend="autograd", **{**PLAIN, "epochs": 1})


def autoregressive(n, coefficient):
    noise, walk = np.random.default_rng(0).normal(size=n), np.zeros((n, 1))
    for k in range(1, n):
        walk[k] = coefficient * walk[k - 1] + noise[k]
    return walk


def told_of_a_gap(x, block_rows, validation=0.2):
    """What a fit says of a gap that blocks are too small for."""
    source = sources.array(x, block_rows=block_rows)
    plain = {**PLAIN, "epochs": 1, "batch_size": 512, "validation": validation}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        said = ismcore.fit(source, backend="autograd", **plain).warnings
    return [text for text in said if "not trained on, as blocks have" in text]


@pytest.mark.parametrize(
    ("n", "coefficient", "share", "block_rows"),
    [(20_000, 0.95, 0.2, 64), (6560, 0.97, 0.2, 100), (12_000, 0.97, 0.5, 250), (20_000, 0.9, 0.8, 100)],
)
def test_the_block_rows_that_a_warning_names_have_room_for_the_gap(n, coefficient, share, block_rows):
    x = autoregressive(n, coefficient)
    (told,) = told_of_a_gap(x, block_rows, share)
    named = int(re.search(r"give the source block_rows=(\d+), or validation=", told).group(1))
    assert told_of_a_gap(x, named, share) == []


def test_none_are_named_where_no_block_has_room():
    (told,) = told_of_a_gap(autoregressive(1600, 0.97), None)
    assert "too late; give validation= as rows" in told


@pytest.mark.parametrize(("share", "time"), [(0.05, 50), (0.2, 50), (0.5, 50), (0.8, 20)])
def test_blocks_that_have_room_for_a_gap_are_as_many_as_may_be(share, time):
    x = np.random.default_rng(1).normal(size=(60_000, 1))

    def survey(rows):
        return surveyed(sources.array(x, block_rows=rows), share, 3).with_gap(time)

    named = survey(64).roomy()
    assert survey(named).gap == time
    assert named < 16 * time / (1.0 - share)


@pytest.mark.parametrize("rows", [20, 64, 2])
def test_rows_beside_those_held_out_are_not_trained_on_in_other_blocks_either(rows):
    for wanted in (0, 1, 5, 40, 10**6):
        survey = surveyed(sources.array(X, block_rows=rows), 0.2, 3).with_gap(wanted)
        bounds = [survey.source.layout.bounds(number) for number in range(survey.source.layout.blocks)]
        runs = [np.add(survey.held_run(number), first) for number, (first, _) in enumerate(bounds)]
        held = np.concatenate([np.arange(*run) for run in runs])

        def far(row, gap, held=held):
            return np.abs(held - row).min() > gap

        for number, (first, last) in enumerate(bounds):
            right = [row - first for row in range(first, last) if far(row, survey.gap)]
            np.testing.assert_array_equal(survey.trained(number), right)
            assert survey.sizes[number] == len(right)
            others = last - first - np.diff(runs[number])[0]
            assert len(right) >= max(1, 0.25 * others)
        if survey.gap < wanted:  # a row more would leave a block with too few
            more = [
                sum(far(row, survey.gap + 1) for row in range(first, last)) / (last - first - np.diff(run)[0])
                for (first, last), run in zip(bounds, runs, strict=True)
            ]
            assert min(more) < 0.25


def test_a_run_goes_on_with_its_own_gap(monkeypatch, tmp_path):
    walk = autoregressive(4000, 0.9)
    plain = {**PLAIN, "backend": "autograd", "schedule": "constant"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        ismcore.fit(sources.array(walk), **{**plain, "epochs": 1}, checkpoint=tmp_path / "run")
        whole = ismcore.fit(sources.array(walk), **{**plain, "epochs": 3})
        other = Survey.with_gap
        monkeypatch.setattr(Survey, "with_gap", lambda survey, time: other(survey, time + 1))
        elsewhere = ismcore.fit(sources.array(walk), **{**plain, "epochs": 3})
        rest = ismcore.resume(tmp_path / "run", sources.array(walk), epochs=3)
        assert np.array_equal(flat(rest), flat(whole))
        assert not np.array_equal(flat(elsewhere), flat(whole))
        with pytest.raises(ismcore.CheckpointMismatch, match="x is not bit for bit"):
            ismcore.resume(tmp_path / "run", sources.array(walk[::-1].copy()), epochs=4)


@pytest.mark.parametrize("rows", [np.nan, np.inf])
def test_a_block_that_is_not_finite_is_named(rows):
    x = X.copy()
    x[700, 1] = rows
    with pytest.raises(SamplesError, match=r"the block of rows 698 to 714 holds NaN or infinite values in 1 of 17 rows"):
        ismcore.fit(sources.array(x, block_rows=ROWS), **PLAIN, backend="autograd")
    with pytest.raises(SamplesError, match="block 7 from 0 holds NaN"):
        sources.iterable([*sizes_of(700, 100), x[700:]])


def test_a_block_that_changes_while_it_is_trained_on_is_named():
    class Spoilt(Counted):
        reads = 0

        def read(self, start, stop):
            self.reads += 1
            return super().read(start, stop) * (np.nan if self.reads > 100 else 1.0)

    with pytest.raises(SamplesError, match=r"the block of rows \d+ to \d+ holds NaN"):
        ismcore.fit(Spoilt(), **PLAIN, backend="autograd")


def test_blocks_of_another_number_of_columns_or_rows_are_named():
    with pytest.raises(SamplesError, match=rf"block 1 from 0 has 1 columns, and the source has {X.shape[1]}"):
        sources.iterable([X[:500], X[500:, :1]])
    with pytest.raises(SamplesError, match="the blocks gave 1300 rows in epoch 0, and the source has 1400"):
        ismcore.fit(sources.iterable([X], rows=1400, block_rows=ROWS), **PLAIN, backend="autograd")
    with pytest.raises(SamplesError, match="the blocks gave more rows in epoch 0, and the source has 1200"):
        ismcore.fit(sources.iterable([X], rows=1200, block_rows=ROWS), **PLAIN, backend="autograd")


def test_blocks_that_are_frames_are_put_in_order_by_their_names(tmp_path):
    """A frame whose columns stand in another order, as of another file, would else be trained on as it stands."""
    pandas, pl = import_module("pandas"), import_module("polars")
    names, numbers = list("abcdefgh")[: X.shape[1]], range(X.shape[1])
    for labels, kept in ((names, tuple(names)), (numbers, None)):
        frame = pandas.DataFrame(X, columns=labels)
        source = sources.iterable([frame[:700], frame[700:][frame.columns[::-1]]], block_rows=ROWS)
        assert source.names == kept
        blocks = zip(source.blocks(None, 0), sources.array(X, block_rows=ROWS).blocks(None, 0), strict=True)
        assert all(np.array_equal(found, right) for found, right in blocks)
    frame = pandas.DataFrame(X, columns=names)
    assert sources.array(frame, block_rows=ROWS).names == tuple(names)
    with pytest.raises(SamplesError, match=r"block 1 from 0: the columns are not those of the fit, .*missing 'a', extra 'z'"):
        sources.iterable([frame, frame.rename(columns={"a": "z"})])
    with pytest.raises(SamplesError, match=r"block 0 from 0: column 'b' is of .*, and holds no numbers"):
        sources.iterable([pl.DataFrame(frame).with_columns(pl.from_epoch(pl.Series("b", np.arange(len(X)))))])
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SamplesError, match=r"x.csv' is no dataset of parquet files: "):
        sources.parquet(str(tmp_path / "x.csv"))


def test_a_function_of_the_epoch_and_a_loader_of_torch_are_iterables():
    torch = import_module("torch")
    epochs = []
    plain = {**PLAIN, "backend": "autograd"}

    def blocks(epoch):
        epochs.append(epoch)
        return sizes_of(len(X), 130)

    found = ismcore.fit(sources.iterable(blocks, rows=len(X), block_rows=ROWS), **plain)
    assert sorted(set(epochs)) == [0, 1, 2]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(X)), batch_size=99)
    assert np.array_equal(flat(ismcore.fit(sources.iterable(loader, block_rows=ROWS), **plain)), flat(found))
    with pytest.raises(SamplesError, match=r"DataLoader is none: ismcore\.fit\(ismcore\.sources\.iterable\(blocks\)\)"):
        ismcore.fit(loader, **plain)


def test_a_loader_that_shuffles_may_not_train_on_rows_that_were_held_out():
    torch = import_module("torch")
    loader = torch.utils.data.DataLoader(torch.from_numpy(X), batch_size=100, shuffle=True)
    with pytest.raises(SamplesError, match="of the source are not those that it had before the training"):
        ismcore.fit(sources.iterable(loader, block_rows=ROWS), **PLAIN, backend="autograd")
    found = ismcore.fit(sources.iterable(loader, block_rows=ROWS), **PLAIN, backend="autograd", validation=0)
    assert np.isfinite(flat(found)).all()


REFUSED = {
    "sample_weight": (np.ones(len(X)), "sample_weight= has one value for each of all rows"),
    "groups": (np.arange(len(X)), "groups= has one value for each of all rows"),
    "ensemble": (5, "ensemble=5 parts them into folds; use ensemble=1"),
    "optimizer": (ismcore.LBFGS(), r"LBFGS\(\) sees all at every step"),
    "batch_size": ("all", "a step cannot take all"),
    "test": (0.2, "test= can be rows beside them"),
    "domain": ("auto", "name a domain"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_all_rows_at_once_is_refused_in_words(name):
    value, words = REFUSED[name]
    without = {"ensemble": "model", "optimizer": "batch_size"}.get(name)
    plain = {other: kept for other, kept in PLAIN.items() if other != without}
    with pytest.raises(OptionError, match=words):
        ismcore.fit(sources.array(X, block_rows=ROWS), **{**plain, name: value}, backend="autograd")


def test_all_rows_at_a_step_are_the_step_from_memory_where_one_window_holds_them():
    plain = {"recipe": "reference", "backend": "autograd", "epochs": 4, "dtype": "float64", "progress": False}
    memory = ismcore.fit(X, **plain)
    np.testing.assert_allclose(flat(ismcore.fit(sources.array(X), **plain)), flat(memory), rtol=0.0, atol=1e-12)


def test_small_batches_and_few_rows_are_refused():
    with pytest.raises(OptionError, match="batch_size must be at least that, not 8"):
        ismcore.fit(sources.array(X, block_rows=ROWS), **{**PLAIN, "batch_size": 8}, backend="autograd")
    with pytest.raises(SamplesError, match="at least 160 rows, and this one has 100"):
        ismcore.fit(sources.array(X[:100]), **PLAIN, backend="autograd")


def test_what_cannot_be_a_source_says_so(tmp_path):
    with pytest.raises(OptionError, match="can be iterated once only"):
        sources.iterable(iter([X]))
    with pytest.raises(OptionError, match=r"pass ismcore\.sources\.array"):
        sources.iterable(X)
    with pytest.raises(OptionError, match="names must be"):
        sources.array(X, names=("a",) * (X.shape[1] + 1))
    (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(SamplesError, match="cannot be mapped"):
        sources.npy(tmp_path / "x.npy")
    with pytest.raises(SamplesError, match=r"read block by block by ismcore\.fit and resume alone"):
        ismcore.diagnose(sources.array(X))
    with pytest.raises(SamplesError, match=r"sources\.npy\('big\.npy'\)\) reads it block by block"):
        ismcore.fit("big.npy")


def test_zarr_opens_its_arrays_itself(monkeypatch, tmp_path):
    opened = []

    def open_array(path, mode):
        opened.append((path, mode))
        return X

    monkeypatch.setitem(sys.modules, "zarr", SimpleNamespace(open_array=open_array))
    np.testing.assert_array_equal(np.concatenate(list(sources.zarr("x.zarr").blocks(None, 0))), X)
    assert opened == [("x.zarr", "r")]
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(OptionError, match="read by zarr, which is not installed: pip install zarr"):
        sources.zarr("x.zarr")


def test_rows_that_judge_can_be_given_beside_a_source():
    source = sources.array(X[:1000], block_rows=ROWS)
    result = ismcore.fit(source, **PLAIN, backend="autograd", validation=X[1000:1150], test=X[1150:])
    assert result.held_out == 150
    assert len(result.test.x) == 150


def test_fits_with_draws_and_on_domains_read_sources():
    plain = {**PLAIN, "backend": "autograd"}
    noise = ismcore.fit(sources.array(X, block_rows=ROWS), **plain, objective=ismcore.DenoisingScoreMatching(0.3))
    assert np.isfinite(flat(noise)).all()
    positive = np.abs(X) + 0.01
    found = ismcore.fit(sources.array(positive, block_rows=ROWS), **plain, domain=ismcore.domains.Positive())
    assert np.isfinite(flat(found)).all()
    with pytest.raises(SamplesError, match="outside"):
        ismcore.fit(sources.array(X, block_rows=ROWS), **plain, domain=ismcore.domains.Positive())


def test_an_array_that_blocks_come_in_again_and_again_is_read_in_time():
    def blocks(epoch):
        buffer = np.empty((10, X.shape[1]))
        for start in range(0, len(X), 10):
            buffer[:] = X[start : start + 10]
            yield buffer

    source = sources.iterable(blocks, block_rows=ROWS)
    np.testing.assert_array_equal(np.concatenate(list(source.blocks(0, 0))), X)


@pytest.mark.parametrize("values", ["text", "time", "decimal"])
def test_a_column_of_parquet_without_numbers_is_refused_by_name(values, tmp_path):
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    columns = {
        "text": pa.array([f"{number}.0" for number in range(400)]),
        "time": pa.array([None, *range(399)], type=pa.timestamp("s")),
        "decimal": pa.array([1] * 400, type=pa.decimal128(9, 2)),
    }
    counts = pa.array(range(400))
    pq.write_table(
        pa.table({"n": counts, "odd": pa.array([k % 2 == 1 for k in range(400)]), values: columns[values]}), tmp_path / "x"
    )
    with pytest.raises(SamplesError, match=f"column '{values}' of the dataset holds .* and no numbers"):
        sources.parquet(tmp_path / "x")
    np.testing.assert_array_equal(
        sources.parquet(tmp_path / "x", columns=["odd", "n"]).read(3, 6), [[1.0, 3.0], [0.0, 4.0], [1.0, 5.0]]
    )


def test_each_block_has_rows_to_train_on_however_small_blocks_are():
    for n in (160, 161, 170, 191, 200):
        for most in (1, 2, 3, 100):
            x = np.random.default_rng(n).normal(size=(n, 2))
            layout = Layout(n, most)
            bounds = [layout.bounds(number) for number in range(layout.blocks)]
            assert [start for start, _ in bounds[1:]] + [n] == [stop for _, stop in bounds]
            assert layout.blocks % LANES == 0
            survey = surveyed(sources.array(x, block_rows=most), 0.2, 0)
            assert min(survey.sizes) >= 1


class Watched(Counted):
    """Says when it is read, and by how many threads at once."""

    def __init__(self):
        super().__init__()
        self.inside = self.threads = self.reads = 0

    def read(self, start, stop):
        self.inside += 1
        self.threads, self.reads = max(self.threads, self.inside), self.reads + 1
        time.sleep(0.002)
        self.inside -= 1
        return super().read(start, stop)


@pytest.mark.parametrize("ended", ["stopped", "diverged", "callback"])
def test_nothing_is_read_once_a_fit_has_ended_and_one_thread_reads_at_a_time(ended):
    def stop(event):
        if ended == "callback":
            raise RuntimeError("no more")
        return ismcore.STOP if ended == "stopped" else None

    source = Watched()
    options = {**PLAIN, "epochs": 50, "callbacks": [stop], "recipe": "single", "backend": "autograd"}
    if ended == "stopped":
        assert ismcore.fit(source, **options).status == "interrupted"
    elif ended == "callback":
        with pytest.raises(ismcore.CallbackFailed):
            ismcore.fit(source, **options)
    else:
        with pytest.raises(ismcore.Diverged):
            ismcore.fit(source, **options, optimizer=ismcore.SGD(1e9), validation=0)
    reads = source.reads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ismcore-rows")]
    time.sleep(0.05)
    assert source.reads == reads
    assert source.threads == 1
