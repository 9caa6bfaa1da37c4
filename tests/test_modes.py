"""Modes far apart: their masses are counted in the samples; and the rows that a result keeps, at which chains start."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import ismcore
from ismcore.errors import FileInvalid
from ismcore.files import checkpoint_writer, checkpoints
from ismcore.samples.gaps import NOT_COUNTED, Modes

pytestmark = pytest.mark.filterwarnings("ignore:along .* into clusters:ismcore.IsmWarning")

ENERGY = ismcore.Energy(ismcore.MLP((16,), "softplus"))
QUICK = {"backend": "autograd", "recipe": "single", "dtype": "float64", "progress": False, "epochs": 200}
KEPT = "the samples have modes far apart, between which chains do not move"


def two(n=2000, seed=0):
    """A fifth of N(-9.6, 1), the rest of N(2.4, 1), in other units, (n, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1))
    x[: n // 5] -= 9.6
    x[n // 5 :] += 2.4
    return 3.0 * rng.permutation(x) + 5.0


def three(counts=(300, 600, 1100)):
    """Three normal laws at the corners of a triangle with sides of 12 and 17 standard deviations, in unlike units, (n, 2)."""
    rng, corners = np.random.default_rng(1), np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0]])
    x = rng.normal(size=(sum(counts), 2)) + np.repeat(corners, counts, axis=0)
    return rng.permutation(x) * [1.0, 20.0] + [7.0, 0.0]


def masses_on_line(result, x):
    grid = np.linspace(x.min() - 5.0 * x.std(), x.max() + 5.0 * x.std(), 100_001)
    p = result.density(grid)
    return np.bincount(result.modes.number(grid[:, None]), p) * (grid[1] - grid[0])


def masses_in_plane(result, x, nodes=701):
    ends = zip(x.min(axis=0) - x.std(axis=0), x.max(axis=0) + x.std(axis=0), strict=True)
    axes = [np.linspace(*end, nodes) for end in ends]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    return np.bincount(result.modes.number(grid), result.density(grid)) * cell


@pytest.mark.parametrize("model", [ENERGY, ismcore.MLP((16,))], ids=["energy", "score"])
def test_masses_of_two_modes_are_the_shares_of_the_samples(model, tmp_path):
    x = two()
    result = ismcore.fit(x, model=model, **QUICK)
    assert result.modes.shares == pytest.approx([0.2, 0.8], abs=1e-12)
    assert result.modes.centres[:, 0] == pytest.approx([5.0 - 28.8, 5.0 + 7.2], abs=0.3)
    assert "2 modes far apart, with 0.2, 0.8 of the rows" in result.notes[-1]
    assert masses_on_line(result, x) == pytest.approx([0.2, 0.8], abs=1e-3)
    alone = replace(result, modes=None)
    grid = np.linspace(-100.0, 100.0, 100_001)
    apart = np.trapezoid((alone.density(grid) * (grid < result.modes.cuts[0])), grid)
    assert abs(apart - 0.2) > 0.01  # the score alone does not tell
    result.save(tmp_path / "fit")
    again = ismcore.load(tmp_path / "fit")
    assert np.array_equal(again.log_density(x[:50]), result.log_density(x[:50]))
    assert masses_on_line(again, x) == pytest.approx([0.2, 0.8], abs=1e-3)


@pytest.mark.slow
def test_the_log_density_has_the_fitted_score_as_its_slope_in_every_mode():
    for x in (two(), three()):
        result, step = ismcore.fit(x, model=ENERGY, **QUICK), 1e-5 * x.std(axis=0)
        for j, e in enumerate(np.diag(step)):
            slope = (result.log_density(x[::40] + e) - result.log_density(x[::40] - e)) / (2.0 * step[j])
            np.testing.assert_allclose(slope, result.score(x[::40])[:, j], rtol=1e-4, atol=1e-4 / x[:, j].std())


@pytest.mark.slow
def test_constants_of_all_modes_add_up_to_the_normaliser():
    for x in (two(), three()):
        result = ismcore.fit(x, model=ENERGY, **QUICK)
        found = result.log_normaliser()
        assert np.logaddexp.reduce(found.parts) == pytest.approx(found.value, abs=1e-9)
        some = x[::100]
        log_p = (np.log(result.modes.shares) - found.parts)[result.modes.number(some)] - result.energy(some)
        np.testing.assert_allclose(result.log_density(some), log_p, atol=1e-4)
        assert replace(result, modes=None).log_normaliser().value == pytest.approx(found.value, abs=1e-4)


@pytest.mark.slow
def test_masses_of_three_modes_in_the_plane_are_the_shares_of_the_samples(tmp_path):
    x = three()
    result = ismcore.fit(x, model=ismcore.Energy(ismcore.MLP((16, 16), "softplus")), **(QUICK | {"epochs": 300}))
    shares = np.bincount(result.modes.number(x)) / len(x)
    assert sorted(shares) == pytest.approx([0.15, 0.3, 0.55], abs=1e-12)
    result.save(tmp_path / "fit", rows=False)
    for fit in (result, ismcore.load(tmp_path / "fit")):
        assert masses_in_plane(fit, x) == pytest.approx(shares, abs=1e-3)


@pytest.mark.slow
def test_masses_in_three_dimensions_are_the_shares_by_importance_sampling():
    law = ismcore.targets.GaussianMixture([0.5, 0.5], [[-8.0, 0.0, 0.0], [8.0, 0.0, 0.0]], [1.0, 0.5])

    def apply(ops, params, x):  # as high at both centres: the narrow mode has 0.26 of the law
        left, right = (ops.sum((x - m * params["m"]) ** 2, axis=1) for m in (-1.0, 1.0))
        return -ops.logaddexp(-0.5 * left, -right)

    model = ismcore.Energy(ismcore.ScoreFunction(apply, {"m": np.array([8.0, 0.0, 0.0])}))
    keep = {"epochs": 1, "optimizer": ismcore.SGD(0.0), "standardize": False, "validation": 0}
    x = law.sample(1000, seed=1)
    result = ismcore.fit(x, model=model, **(QUICK | keep))
    share = np.mean(x[:, 0] < 0.0)
    right = [1.5 * np.log(2.0 * np.pi), 1.5 * np.log(np.pi)]
    found = result.log_normaliser()
    assert found.effective > 5000.0
    assert np.abs(np.array(found.parts) - right).max() < 4.0 * found.standard_error < 0.1
    exact = np.log(np.where(x[:, 0] < 0.0, share, 1.0 - share)) + np.log(2.0) + law.log_pdf(x)
    np.testing.assert_allclose(result.log_density(x), exact, atol=4.0 * found.standard_error)
    with pytest.warns(ismcore.IsmWarning, match=KEPT):
        assert np.mean(result.sample(500).x[:, 0] < 0.0) == pytest.approx(share, abs=0.011)


def test_shares_are_of_weights_and_the_density_is_over_the_domain():
    x = two()
    weight = np.where(x[:, 0] < -7.0, 3.0, 1.0)
    box = ismcore.domains.Box(float(x.min()) - 0.01, float(x.max()) + 0.01)
    result = ismcore.fit(x, model=ENERGY, sample_weight=weight, domain=box, **QUICK)
    right = np.array([3.0, 4.0]) / 7.0
    assert result.modes.shares == pytest.approx(right, abs=1e-12)
    assert np.mean(result.kept < -7.0) == pytest.approx(right[0], abs=0.0011)
    grid = np.linspace(box.lower, box.upper, 100_001).reshape(-1)
    p = result.density(grid)
    assert np.trapezoid(np.where(grid < -7.0, p, 0.0), grid) == pytest.approx(right[0], abs=1e-3)
    assert np.trapezoid(p, grid) == pytest.approx(1.0, abs=1e-3)


def test_modes_are_counted_in_samples_behind_a_transform():
    x = np.exp(0.3 * two() / 3.0)
    result = ismcore.fit(x, model=ENERGY, transform="log", **QUICK)
    grid = np.exp(np.linspace(np.log(x.min()) - 2.0, np.log(x.max()) + 2.0, 100_001))
    p = result.density(grid)
    assert np.trapezoid(np.where(result.modes.number(grid[:, None]) == 0, p, 0.0), grid) == pytest.approx(
        result.modes.shares[0], abs=1e-3
    )


@pytest.mark.slow
def test_the_nearest_energy_has_the_shares_of_the_samples_and_not_of_the_points_it_is_fitted_at():
    x = two()
    result = ismcore.fit(x, model=ismcore.MLP((16,)), **QUICK)
    points = np.concatenate([x[x < -7.0][:, None], x[x > -7.0][:400, None]])
    found = result.as_energy(points, model=ENERGY, epochs=200, standardize=True)
    assert found.modes is result.modes
    assert [note for note in found.notes if "far apart" in note] == [result.modes.in_words]
    assert masses_on_line(found, x) == pytest.approx([0.2, 0.8], abs=1e-3)


def test_one_mode_a_normal_law_and_a_score_of_every_noise_scale_have_none_to_count():
    one = ismcore.fit(np.random.default_rng(0).normal(size=(400, 2)), model=ENERGY, **(QUICK | {"epochs": 60}))
    assert one.modes is None
    assert one.log_normaliser().parts == ()
    for model in (ismcore.NoiseConditional(ismcore.MLP((4,))), ismcore.Affine()):
        assert ismcore.fit(two(200), model=model, **(QUICK | {"epochs": 2})).modes is None


def test_a_split_takes_apart_the_region_that_it_is_of():
    modes = Modes(np.eye(2), np.array([0.0, 1.0]), np.array([0, 0]), np.full(3, 1 / 3), np.zeros((3, 2)))
    points = np.array([[-1.0, 0.0], [1.0, 0.0], [-1.0, 2.0], [1.0, 2.0], [np.nan, np.inf]])
    assert modes.number(points).tolist() == [0, 1, 2, 1, 0]
    assert replace(modes, of=np.array([0, 1])).number(points).tolist() == [0, 1, 0, 2, 0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [300, 3000])
def test_a_result_keeps_at_most_a_thousand_rows_by_their_weight(n, weighted):
    x = np.random.default_rng(0).normal(size=(n, 2))
    weight = np.where(np.arange(n) % 3 == 0, 2.0, 1.0) if weighted else None
    options = QUICK | {"model": ismcore.Affine(), "epochs": 2}
    kept, again, other = (ismcore.fit(x, sample_weight=weight, seed=seed, **options).kept for seed in (3, 3, 4))
    number = {row.tobytes(): k for k, row in enumerate(x)}
    times = np.bincount([number[row.tobytes()] for row in kept], minlength=n)
    right = np.full(n, min(1.0, 1000 / n)) if weight is None else 1000.0 * weight / weight.sum()
    assert np.abs(times - right).max() < 1.0
    assert len(kept) == (1000 if weighted else min(n, 1000))
    assert np.array_equal(again, kept)
    assert len(kept) == n or not np.array_equal(other, kept)


def test_rows_that_were_set_aside_are_not_kept_and_a_resumed_run_keeps_the_same(tmp_path):
    x = np.random.default_rng(0).normal(size=(400, 2))
    options = QUICK | {"model": ismcore.Affine(), "epochs": 4, "test": 100}
    whole = ismcore.fit(x, **options)
    assert {row.tobytes() for row in whole.kept} == {row.tobytes() for row in whole.test.fitted}
    ismcore.fit(x, checkpoint=tmp_path / "run", timeout=1e-6, **options)
    assert np.array_equal(ismcore.resume(tmp_path / "run", x, progress=False).kept, whole.kept)


@pytest.mark.filterwarnings("ignore:the chains disagree:ismcore.IsmWarning")
def test_chains_start_at_the_rows_kept_then_at_the_centres_then_at_a_wide_normal_law(tmp_path):
    x = two()
    result = ismcore.fit(x, model=ENERGY, **QUICK)
    result.save(tmp_path / "fit", rows=False)
    without = ismcore.load(tmp_path / "fit")
    assert without.kept is None
    for fit, began in ((result, "1000 rows of the samples"), (without, "the centres of the modes")):
        with pytest.warns(ismcore.IsmWarning, match=rf"{KEPT}.* 0\.2, 0\.8"):
            draws = fit.sample(2000)
        assert began in draws.began
        assert began in repr(draws)
        assert np.mean(draws.x < -7.0) == pytest.approx(0.2, abs=1e-12)
        assert draws.r_hat.max() < 1.05  # of chains within a mode
        np.testing.assert_allclose(draws.x[draws.x > -7.0].std(), 3.0, rtol=0.1)
    older = replace(result, kept=None, modes=None)
    assert "a wide normal law, as the result keeps no rows" in older.sample(50, steps=20).began
    start = np.concatenate([x[x < -7.0][:100], x[x > -7.0][:100]])
    with pytest.warns(ismcore.IsmWarning, match=rf"{KEPT}.* 0\.5, 0\.5"):
        assert result.sample(50, start=start, steps=20).began == "the rows given"
    with pytest.warns(ismcore.IsmWarning, match=rf"{KEPT}.* 0, 1; so that 1 of the 2 modes, where none began, are without"):
        result.sample(50, start=x[x > -7.0], steps=20)
    with pytest.warns(ismcore.IsmWarning, match=rf"{KEPT}.* 1, 0; so that 1 of the 2 modes"):
        result.sample(50, start=x[x < -7.0], steps=20)


def test_a_chain_stays_in_its_mode_where_a_step_would_leave_it_and_its_draws_are_exact_there():
    x = np.random.default_rng(0).normal(size=(1000, 1))
    options = QUICK | {"optimizer": ismcore.SGD(0.0), "standardize": False, "validation": 0, "epochs": 1}
    normal = ismcore.ScoreFunction(lambda ops, params, x: 0.5 * ops.sum(x * x * params["a"], axis=1), {"a": np.ones(1)})
    result = ismcore.fit(x, model=ismcore.Energy(normal), **options)
    shares, centres = np.array([0.2, 0.8]), np.array([[-0.8], [0.8]])
    split = Modes(np.ones((1, 1)), np.zeros(1), np.zeros(1, np.int64), shares, centres)
    halves = replace(result, modes=split, kept=None)
    with pytest.warns(ismcore.IsmWarning, match=KEPT):
        draws = halves.sample(20_000, seed=1)
    left = draws.x < 0.0
    assert left.mean() == pytest.approx(0.2, abs=1e-12)
    for half in (-draws.x[left], draws.x[~left]):  # of a half-normal law
        assert half.mean() == pytest.approx(np.sqrt(2.0 / np.pi), abs=0.03)
        assert half.std() == pytest.approx(np.sqrt(1.0 - 2.0 / np.pi), abs=0.03)
    at = np.array([-1.0, 1.0])
    np.testing.assert_allclose(halves.density(at), 2.0 * shares * np.exp(-0.5) / np.sqrt(2.0 * np.pi), rtol=2e-3)


def test_a_file_without_rows_holds_none(tmp_path):
    x = two(500)
    result = ismcore.fit(x, model=ENERGY, test=50, **(QUICK | {"epochs": 2}))
    result.save(tmp_path / "all")
    result.save(tmp_path / "none", rows=False)
    held = [(tmp_path / name).read_bytes() for name in ("all", "none")]
    for row in (result.kept[0], result.test.x[0], result.test.fitted[0]):
        assert [row.tobytes() in data for data in held] == [True, False]
    found = ismcore.load(tmp_path / "all")
    assert found.kept.tobytes() == result.kept.tobytes()
    for name in FORGED:
        assert np.array_equal(getattr(found.modes, name), getattr(result.modes, name))
    assert ismcore.load(tmp_path / "none").test is None


@cache
def short():
    return ismcore.fit(two(200), model=ENERGY, **(QUICK | {"epochs": 2}))


FORGED = {
    "normals": [np.ones((1, 2)), np.full((1, 1), np.nan), np.ones((2, 1)), np.ones((1, 1), np.float32)],
    "cuts": [np.ones(2), np.full(1, np.inf), np.array(0.0), np.ones(0)],
    "of": [np.array([1]), np.array([-1]), np.array([0.0]), np.array([[0]])],
    "shares": [np.array([0.0, 1.0]), np.array([0.5, 0.6]), np.array([1.0]), np.array([-0.5, 1.5]), np.array([np.nan, 0.5])],
    "centres": [np.ones((2, 2)), np.full((2, 1), np.inf)],
}


@pytest.mark.parametrize(("name", "array"), [(name, array) for name, arrays in FORGED.items() for array in arrays])
def test_forged_modes_are_refused(name, array, tmp_path):
    result = short()
    replace(result, modes=replace(result.modes, **{name: array})).save(tmp_path / "fit")
    with pytest.raises(FileInvalid, match="its modes"):
        ismcore.load(tmp_path / "fit")


@pytest.mark.parametrize(
    "kept", [np.ones((3, 2)), np.ones(3), np.ones((0, 1)), np.full((3, 1), np.nan), np.ones((3, 1), np.int64)]
)
def test_forged_rows_are_refused(kept, tmp_path):
    replace(short(), kept=kept).save(tmp_path / "fit")
    with pytest.raises(FileInvalid, match="its rows kept"):
        ismcore.load(tmp_path / "fit")


def test_the_command_writes_a_result_without_rows(tmp_path):
    from ismcore.cli.main import main

    np.save(tmp_path / "x.npy", two(200))
    options = ["--backend", "autograd", "--model", "affine", "--epochs", "2", "--quiet", "--json"]
    for name, more in (("all", []), ("none", ["--no-rows"])):
        assert main(["fit", str(tmp_path / "x.npy"), "-o", str(tmp_path / name), *options, *more]) == 0
    assert len(ismcore.load(tmp_path / "all").kept) == 200
    assert ismcore.load(tmp_path / "none").kept is None


def test_a_run_that_was_begun_without_rows_is_gone_on_with_without_them(tmp_path):
    from ismcore.cli.main import main

    def rows_of(command, *options):
        out = tmp_path / "out"
        assert main([command, *map(str, options), "-o", str(out), "--quiet", "--json"]) == 0
        found = ismcore.load(out)
        assert len(found.history["loss"]) == int(options[-1])
        return None if found.kept is None else len(found.kept)

    x, run = tmp_path / "x.npy", tmp_path / "run"
    np.save(x, two(200))
    options = [x, "--backend", "autograd", "--model", "affine", "--checkpoint", run]
    assert rows_of("fit", *options, "--no-rows", "--epochs", 2) is None
    assert rows_of("resume", run, x, "--epochs", 3) is None
    assert rows_of("resume", run, x, "--epochs", 4) is None  # as that of 3 epochs was
    assert len(ismcore.resume(run, two(200), epochs=5, progress=False).kept) == 200  # in memory
    assert rows_of("resume", run, x, "--epochs", 6) is None
    run.unlink()
    assert rows_of("fit", *options, "--epochs", 2) == 200
    assert rows_of("resume", run, x, "--epochs", 3) == 200
    assert rows_of("resume", run, x, "--no-rows", "--epochs", 4) is None
    assert rows_of("resume", run, x, "--epochs", 5) is None


@pytest.mark.parametrize("more", [["--model", "affine"], ["--recipe", "default"]], ids=["one", "in folds"])
def test_a_run_that_has_ended_can_be_asked_for_no_rows(more, tmp_path):
    from ismcore.cli.main import main

    def rows_of(command, *options):
        out = tmp_path / "out"
        assert main([command, *map(str, options), "-o", str(out), "--quiet", "--json"]) == 0
        return None if ismcore.load(out).kept is None else len(ismcore.load(out).kept)

    x, run = tmp_path / "x.npy", tmp_path / "run"
    np.save(x, two(60))
    assert rows_of("fit", x, "--backend", "autograd", "--checkpoint", run, "--epochs", 1, *more) == 60
    steps = checkpoints.read_checkpoint(run)[0].run_state.state.step
    assert rows_of("resume", run, x, "--no-rows") is None
    assert checkpoints.read_checkpoint(run)[0].run_state.state.step == steps
    assert rows_of("resume", run, x, "--epochs", 2) is None


def test_no_older_checkpoint_brings_rows_back(tmp_path, monkeypatch):
    x, run = two(200), tmp_path / "run"
    ismcore.fit(x, model=ismcore.Affine(), checkpoint=ismcore.Checkpoint(run, every=0.0, keep=4), **(QUICK | {"epochs": 5}))
    files = [run, *(tmp_path / f"run.previous{k}" for k in (1, 2, 3))]
    assert [checkpoints.read_checkpoint(name)[0].rows for name in files] == [True] * 4
    without = ismcore.Checkpoint(run, every=0.0, keep=4, rows=False)

    def full(*args, **options):
        raise ismcore.FileNotWritten(28, "cannot be written", str(run))

    with monkeypatch.context() as there:
        there.setattr(checkpoint_writer, "write_kept", full)
        with pytest.warns(ismcore.IsmWarning, match="cannot be written"):
            ismcore.resume(run, x, checkpoint=without, progress=False)
    assert all(name.exists() for name in files)  # nothing is removed before the new one is there
    ismcore.resume(run, x, checkpoint=without, progress=False)
    assert [name.exists() for name in files] == [True, False, False, False]
    ismcore.resume(run, x, epochs=6, checkpoint=without, progress=False)
    run.write_bytes(b"")
    stored, taken, _ = checkpoints.read_checkpoint(run)
    assert (taken, stored.rows) == (files[1], False)


@pytest.mark.parametrize("model", [ENERGY, ismcore.Affine()], ids=["energy", "of one mode"])
def test_a_checkpoint_has_the_modes_of_its_samples_and_an_older_one_says_that_it_has_not(model, tmp_path, monkeypatch):
    x, options = two(500), QUICK | {"model": model, "epochs": 20}
    whole = ismcore.fit(x, checkpoint=tmp_path / "run", **options)
    found = ismcore.load(tmp_path / "run")
    assert found.kept is None
    assert np.array_equal(found.log_density(x[:20]), whole.log_density(x[:20]))
    assert found.notes == whole.notes
    if whole.modes is not None:
        assert masses_on_line(found, x) == pytest.approx([0.2, 0.8], abs=1e-3)
    pack = checkpoint_writer.tensorfile.pack

    def older(kind, content, tensors):
        return pack(
            kind,
            {name: value for name, value in content.items() if name not in ("modes", "rows")},
            {name: value for name, value in tensors.items() if not name.startswith("modes.")},
        )

    monkeypatch.setattr(checkpoint_writer.tensorfile, "pack", older)
    ismcore.fit(x, checkpoint=tmp_path / "older", **options)
    monkeypatch.undo()
    before = ismcore.load(tmp_path / "older")
    assert before.modes is None
    assert (NOT_COUNTED in before.notes) == (whole.modes is not None)
    again = ismcore.resume(tmp_path / "older", x, progress=False)
    assert NOT_COUNTED not in again.notes
    assert (again.modes is None) == (whole.modes is None)


@pytest.mark.parametrize("name", ["shares", "of"])
def test_forged_modes_of_a_checkpoint_are_refused(name, tmp_path, monkeypatch):
    pack = checkpoint_writer.tensorfile.pack

    def forged(kind, content, tensors):
        return pack(kind, content, {**tensors, f"modes.{name}": FORGED[name][0]})

    monkeypatch.setattr(checkpoint_writer.tensorfile, "pack", forged)
    ismcore.fit(two(200), model=ENERGY, checkpoint=tmp_path / "run", **(QUICK | {"epochs": 2}))
    with pytest.raises(FileInvalid, match="its modes"):
        ismcore.load(tmp_path / "run")


def test_a_fit_of_samples_that_move_says_that_modes_are_not_counted():
    x = two(500)
    refit = ismcore.Refit(x, model=ENERGY, backend="autograd", dtype="float64")
    refit.update(steps=20)
    assert NOT_COUNTED in refit.result().notes
    assert refit.result().modes is None
    found = refit.result().as_energy(x, model=ENERGY, epochs=50, recipe="single")
    assert NOT_COUNTED not in found.notes
    assert found.modes.shares == pytest.approx([0.2, 0.8], abs=1e-12)
    assert NOT_COUNTED not in ismcore.Refit(x, model=ismcore.Affine(), backend="autograd").result().notes


@pytest.mark.slow
def test_the_nearest_energy_has_modes_and_rows_of_the_fit_where_a_file_holds_no_rows(tmp_path):
    x = two()
    quick = {"model": ENERGY, "epochs": 20, "recipe": "single"}
    result = ismcore.fit(x, model=ismcore.MLP((4,)), **(QUICK | {"epochs": 20}))
    result.save(tmp_path / "all")
    result.save(tmp_path / "none", rows=False)
    points = np.concatenate([x[x < -7.0][:, None], x[x > -7.0][:400, None]])
    for fit in (ismcore.load(tmp_path / "all"), ismcore.load(tmp_path / "none")):
        found = fit.as_energy(points, **quick)
        assert found.modes.shares == pytest.approx([0.2, 0.8], abs=1e-12)
        assert (found.kept is None) == (fit.kept is None)
        with pytest.warns(ismcore.IsmWarning, match=rf"{KEPT}.* 0\.2, 0\.8"):
            found.sample(50, steps=20)
    for model, rows in ((ismcore.Affine(), x), (ismcore.MLP((4,)), x[x > -7.0])):
        law = ismcore.fit(rows, model=model, checkpoint=tmp_path / f"run of {type(model).__name__}", **(QUICK | {"epochs": 2}))
        law.save(tmp_path / "law", rows=False)
        for file in ("law", f"run of {type(model).__name__}"):
            found = ismcore.load(tmp_path / file).as_energy(points, **quick)
            assert (found.modes, found.kept) == (None, None)
