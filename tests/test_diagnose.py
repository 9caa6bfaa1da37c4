"""`ismcore.diagnose` and what `fit` does by it: faults of several laws, sizes and dimensions are found, and the cures act."""

import warnings

import numpy as np
import pytest

import ismcore
from ismcore.samples.diagnosis import diagnosis_of
from ismcore.samples.edges import edges
from ismcore.samples.neighbours import neighbours, rows_within
from ismcore.samples.series import series
from ismcore.samples.splitting import HoldOut, fold_rows, held_out_rows
from ismcore.samples.stairs import stairs

OTHERS = pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
QUICK = {"backend": "autograd", "epochs": 2, "progress": False, "recipe": "single"}


def rng(seed=0):
    return np.random.default_rng([17, seed])


def names(x, **options):
    return [finding.name for finding in ismcore.diagnose(x, **options).findings]


def autoregressive(correlation, n, d, seed=0):
    noise = rng(seed).laplace(size=(n, d))
    x = noise.copy()
    for i in range(1, n):
        x[i] = correlation * x[i - 1] + np.sqrt(1.0 - correlation**2) * noise[i]
    return x


def jittered(n, copies, d, jitter, seed=0):
    source = rng(seed)
    x = np.repeat(source.gumbel(size=(n, d)), copies, axis=0)
    x += jitter * source.normal(size=x.shape)
    return x[source.permutation(len(x))]


def volatile(n, seed=0):
    """Uncorrelated rows whose size depends on their neighbours'."""
    scale = np.exp(autoregressive(0.97, n, 1, seed))
    return scale * rng(seed + 50).normal(size=(n, 1))


def walkers(count, n, seed=0):
    """Chains side by side, as an ensemble sampler writes them: a row's own chain goes on `count` rows later."""
    return np.stack([autoregressive(0.9, n, 2, 1000 * seed + k) for k in range(count)], axis=1).reshape(-1, 2)


def metropolis(n, seed=0):
    source, x = rng(seed), np.zeros((n, 1))
    for i in range(1, n):
        proposal = x[i - 1] + source.normal()
        accepted = source.random() < np.exp(0.5 * (x[i - 1] ** 2 - proposal**2)[0])
        x[i] = proposal if accepted else x[i - 1]
    return x


# Rows that depend on their neighbours.

DEPENDENT = {
    "strong": lambda seed: autoregressive(0.995, 4000, 3, seed),
    "weak, few rows": lambda seed: autoregressive(0.8, 400, 1, seed),
    "random walk": lambda seed: np.cumsum(rng(seed).normal(size=(700, 4)), axis=0),
    "beside a time column": lambda seed: np.c_[0.1 * np.arange(1500), autoregressive(0.9, 1500, 1, seed)],
    "beside independent columns": lambda seed: np.c_[rng(seed).normal(size=(1500, 3)), autoregressive(0.9, 1500, 1, seed)],
    "volatility": lambda seed: volatile(3000, seed),
    "walkers": lambda seed: walkers(20, 200, seed),
    "metropolis": lambda seed: metropolis(2500, seed),
    "copies one after another": lambda seed: (
        np.repeat(rng(seed).normal(size=(300, 2)), 6, axis=0) + 0.01 * rng(seed + 9).normal(size=(1800, 2))
    ),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_dependent_rows_are_found(name):
    for seed in range(5):
        found = diagnosis_of(DEPENDENT[name](seed))
        assert found.series is not None
        assert found.holdout.by == "blocks"


def sorted_by(key, n, seed=0):
    x = rng(seed).normal(size=(n, 3)) @ [[1.0, 0.7, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 1.0]]
    return x[np.argsort(key(x), kind="stable")]


def in_classes(count, n, seed=0):
    source = rng(seed)
    label = np.sort(source.integers(0, count, n))
    return 4.0 * source.normal(size=(count, 3))[label] + source.normal(size=(n, 3))


def lexicographic(n, seed=0):
    source = rng(seed)
    label, x = source.integers(0, 6, n), source.normal(size=(n, 2))
    return (x + label[:, None] * [2.0, 0.0])[np.lexsort((x[:, 1], label))]


INDEPENDENT = {
    "one column, sorted": lambda seed: np.sort(rng(seed).gumbel(size=(1200, 1)), axis=0),
    "by the second column": lambda seed: sorted_by(lambda x: x[:, 1], 2000, seed),
    "falling, few rows": lambda seed: sorted_by(lambda x: -x[:, 0], 250, seed),
    "by the sum": lambda seed: sorted_by(lambda x: x.sum(axis=1), 2000, seed),
    "by the distance": lambda seed: sorted_by(lambda x: (x**2).sum(axis=1), 2000, seed),
    "in classes": lambda seed: in_classes(4, 600, seed),
    "in many classes": lambda seed: in_classes(12, 3000, seed),
    "by class, then by a column": lambda seed: lexicographic(1500, seed),
    "shuffled chain": lambda seed: rng(seed).permutation(autoregressive(0.99, 3000, 2, seed)),
    "alternating": lambda seed: rng(seed).normal(size=(1000, 2)) * np.where(np.arange(1000) % 2, 1.0, 1.05)[:, None],
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_sorted_tables_are_not_taken_for_chains(name):
    for seed in range(5):
        assert series(INDEPENDENT[name](seed)) is None


@pytest.mark.parametrize(("correlation", "low", "high"), [(0.8, 5, 12), (0.95, 20, 60)])
def test_the_correlation_time_is_where_the_autocorrelation_has_fallen_to_a_fifth(correlation, low, high):
    # log(0.2) / log(correlation): 7.2 and 31.
    for seed in range(5):
        found = series(autoregressive(correlation, 6000, 2, seed))
        assert found.lag == 1
        assert found.correlation == pytest.approx(correlation, abs=0.03)
        assert low <= found.time <= high


@pytest.mark.parametrize("time", [0, 7, 400])
@pytest.mark.parametrize("n", [130, 1000, 4321])
def test_blocks_are_short_spread_and_apart_from_what_is_trained_on(n, time):
    split = held_out_rows(np.empty((n, 1)), 0.2, 3, HoldOut("blocks", time=time))
    out, trained = split.held_out, split.trained
    starts = np.flatnonzero(np.diff(np.concatenate([[0], out.astype(int)])) == 1)
    assert len(starts) >= 15  # two that touch count once
    assert not (out & trained).any()
    assert 0.15 * n < out.sum() < 0.25 * n
    assert trained.sum() >= 0.45 * n
    assert (np.histogram(np.flatnonzero(out), 10, (0, n))[0] > 0).all()
    gap = min(time, int(0.3 * n / 40))
    away = np.abs(np.flatnonzero(out)[:, None] - np.flatnonzero(trained)).min()
    assert away == gap + 1


def test_folds_of_blocks_hold_each_row_out_once():
    splits = fold_rows(np.empty((997, 1)), 0.2, 5, 0, HoldOut("blocks", time=3))
    np.testing.assert_array_equal(np.sum([split.held_out for split in splits], axis=0), 1)


@OTHERS
def test_a_chain_is_held_out_in_blocks_and_that_is_said():
    with pytest.warns(ismcore.IsmWarning, match="short blocks, spread over the rows"):
        result = ismcore.fit(autoregressive(0.95, 800, 2), **QUICK)
    assert 100 < result.held_out < 200


# Near-copies.


@pytest.mark.parametrize(
    ("copies", "d", "jitter"),
    [(2, 2, 1e-6), (2, 4, 1e-3), (3, 1, 1e-8), (5, 3, 1e-2), (6, 2, 1e-12), (10, 5, 1e-2), (12, 1, 1e-5)],
)
def test_near_copies_are_found_and_grouped(copies, d, jitter):
    for seed in range(3):
        x = jittered(1500 // copies, copies, d, jitter, seed) * np.logspace(-3, 6, d)
        found = diagnosis_of(x)
        assert found.copies.share > 0.95
        assert found.holdout.by == "near-copies"
        groups = rows_within(x, found.copies.radius)
        assert groups.max() + 1 == pytest.approx(1500 // copies, rel=0.15)


def test_a_bootstrap_with_jitter_is_near_copies():
    source = rng(5)
    x = source.normal(size=(1200, 3))[source.integers(0, 1200, 1200)] + 1e-4 * source.normal(size=(1200, 3))
    assert diagnosis_of(x).copies.share == pytest.approx(1.0 - np.exp(-1.0), abs=0.1)


@pytest.mark.parametrize("n", [300, 2000, 20_000])
def test_clusters_are_no_copies(n):
    source = rng(n)
    x = 10.0 * source.normal(size=(8, 2))[source.integers(0, 8, n)] + source.normal(size=(n, 2))
    assert neighbours(x).copies is None


@OTHERS
def test_copies_are_held_out_together():
    x = jittered(200, 5, 2, 1e-7)
    how = diagnosis_of(x).holdout
    split = held_out_rows(x, 0.2, 1, how)
    original = rows_within(x, how.radius)
    assert not set(original[split.held_out]) & set(original[split.trained])
    assert (split.held_out ^ split.trained).all()
    with pytest.warns(ismcore.IsmWarning, match="held out together"):
        ismcore.fit(x, **QUICK)


def test_a_chain_of_near_rows_does_not_join_all():
    x = np.linspace(0.0, 1.0, 500)[:, None]
    assert np.bincount(rows_within(x, 0.01)).max() <= 50


# Groups.


@OTHERS
def test_rows_of_a_group_are_held_out_together(monkeypatch):
    x = rng().normal(size=(120, 2))
    subject = np.array(list("abcdefghijkl"))[rng(1).integers(0, 12, 120)]
    seen = []
    monkeypatch.setattr(
        "ismcore.training.settings.held_out_rows", lambda *a, **k: seen.append(held_out_rows(*a, **k)) or seen[-1]
    )
    with pytest.warns(ismcore.IsmWarning):
        ismcore.fit(x, groups=subject, **QUICK)
    assert set(subject[seen[0].held_out]) & set(subject[seen[0].trained]) == set()
    assert seen[0].held_out.any()


@OTHERS
def test_groups_win_over_what_was_found_and_are_asked_for_again_on_resuming(tmp_path):
    x = autoregressive(0.95, 600, 2)
    label = np.arange(600) // 100
    first = ismcore.fit(x, groups=label, checkpoint=tmp_path / "run", **QUICK)
    assert [text for text in first.notes if "rows depend on their neighbours" in text and "as groups= says" in text]
    assert first.held_out in (100, 200)
    with pytest.raises(ismcore.CheckpointMismatch, match="groups"):
        ismcore.resume(tmp_path / "run", x)
    again = ismcore.resume(tmp_path / "run", x, groups=label, epochs=3)
    assert again.notes[0] == first.notes[0]
    assert again.held_out == first.held_out


@OTHERS
@pytest.mark.parametrize("name", ["neighbours", "near-copies"])
def test_groups_that_part_what_depends_cure_nothing(name):
    if name == "neighbours":
        x, right = autoregressive(0.9, 900, 2), np.arange(900) // 90
    else:
        x = jittered(150, 6, 3, 1e-8)
        right = rows_within(x, 1e-4)
    cured = ismcore.fit(x, groups=right, **QUICK)
    assert not [text for text in cured.warnings if "depend" in text or "nearly equal" in text]
    assert [text for text in cured.notes if "as groups= says" in text]
    parted = ismcore.fit(x, groups=np.arange(900), **QUICK)
    assert [text for text in parted.warnings if "groups=, which part those" in text]
    assert parted.notes == ()


@OTHERS
def test_validation_samples_cure_a_chain():
    result = ismcore.fit(autoregressive(0.9, 900, 2), validation=autoregressive(0.9, 200, 2, 1), **QUICK)
    assert not [text for text in result.warnings if "depend" in text]
    assert [text for text in result.notes if "the samples given as validation= judge instead" in text]


@pytest.mark.parametrize("groups", [np.zeros(50), np.arange(49), np.zeros((50, 2)), [None] * 25 + [1] * 25])
def test_groups_that_cannot_be_are_refused(groups):
    with pytest.raises(ismcore.SamplesError, match="groups must be 50 labels"):
        ismcore.fit(rng().normal(size=(50, 1)), groups=groups, **QUICK)


# Edges.

EDGED = {
    "shifted exponential": (lambda n, seed: 3.0 + rng(seed).exponential(size=n), {True}),
    "a falling ramp": (lambda n, seed: 1.0 - np.sqrt(1.0 - rng(seed).random(n)), {True}),
    "negative half-normal": (lambda n, seed: -1e5 * np.abs(rng(seed).normal(size=n)), {False}),
    "uniform": (lambda n, seed: rng(seed).uniform(-1e-9, 1e-9, n), {True, False}),
    "angle cut at its mode": (lambda n, seed: rng(seed).vonmises(np.pi, 2.0, n), {True, False}),
}


@pytest.mark.parametrize("name", EDGED)
@pytest.mark.parametrize("n", [900, 3000])
def test_hard_edges_are_found(name, n):
    draw, ends = EDGED[name]
    hits = [
        {edge.lower for edge in edges(np.c_[rng(s + 70).normal(size=n), draw(n, s)], np.arange(2)) if edge.column == 1}
        for s in range(10)
    ]
    assert sum(found == ends for found in hits) >= 8


def test_a_column_alone_is_named_with_its_end():
    (edge,) = edges(np.c_[rng(3).normal(size=1000), 3.0 + rng(4).exponential(size=1000)], np.arange(2))
    assert (edge.column, edge.lower) == (1, True)
    assert edge.value == pytest.approx(3.0, abs=0.02)


# Rounded values to which noise was added.


@pytest.mark.parametrize(
    ("deviation", "shift", "step"), [(0.5, 0.0, 1.0), (0.6, 0.3, 1.0), (0.65, 0.0, 25.0), (0.55, 0.2, 1e-3)]
)
def test_noise_wider_than_the_samples_is_found(deviation, shift, step):
    hits = 0
    for seed in range(10):
        source = rng(seed)
        rounded = step * np.round(shift + deviation * source.logistic(scale=np.sqrt(3.0) / np.pi, size=6000))
        x = np.c_[source.normal(size=6000), rounded + step * source.random(6000)]
        found = stairs(x, np.arange(2))
        assert {one.column for one in found} <= {1}
        hits += len(found) == 1 and found[0].step == pytest.approx(step, rel=0.02)
    assert hits >= 8


@pytest.mark.parametrize("deviation", [0.85, 1.0, 2.0])
def test_noise_that_is_narrower_is_none(deviation):
    for seed in range(10):
        x = np.round(deviation * rng(seed).normal(size=(6000, 1))) + rng(seed + 30).random((6000, 1))
        assert stairs(x, np.arange(1)) == ()


@pytest.mark.parametrize("draw", ["normal", "laplace", "gumbel", "uniform", "exponential", "logistic"])
def test_other_laws_have_no_stairs(draw):
    for seed in range(5):
        assert stairs(getattr(rng(seed), draw)(size=(5000, 4)), np.arange(4)) == ()


@OTHERS
def test_the_advice_to_dequantise_holds_where_it_is_given():
    x = np.round(rng().normal(size=(5000, 2)) * [0.6, 1.5])
    assert diagnosis_of(x).coarse == (0,)
    with pytest.warns(ismcore.IsmWarning, match="normal noise of half a step to column 0, whose step is wider"):
        ismcore.fit(x, **QUICK)
    with pytest.warns(ismcore.IsmWarning, match="columns are stairs.*column 0: step 1,"):
        ismcore.fit(x + rng(1).random(x.shape), **QUICK)
    assert "noise wider than the samples" not in names(x + 0.5 * rng(1).normal(size=x.shape))


# Fewer dimensions than columns.


def curve(t):
    return np.c_[np.cos(t), np.sin(2.0 * t), t]


THIN = {
    "ellipse": (lambda r: ellipse(r.uniform(0.0, 2.0 * np.pi, 800)), 1.0),
    "curve in space": (lambda r: curve(r.normal(size=900)), 1.0),
    "sphere": (lambda r: (lambda z: z / np.linalg.norm(z, axis=1, keepdims=True))(r.normal(size=(900, 3))), 2.0),
    "parabola over a plane": (lambda r: (lambda z: np.c_[z, (z**2).sum(axis=1)])(r.normal(size=(1200, 2))), 2.0),
}


def ellipse(angle):
    return np.c_[5.0 * np.cos(angle), 0.2 * np.sin(angle)]


@pytest.mark.parametrize("name", THIN)
def test_the_intrinsic_dimension_of_curved_sets_is_told(name):
    draw, dimension = THIN[name]
    for seed in range(5):
        assert diagnosis_of(draw(rng(seed))).dimension == pytest.approx(dimension, rel=0.15)
    assert "fewer dimensions than columns" in names(draw(rng()))


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 7, 10])
def test_full_sets_have_no_fewer_dimensions(d):
    for seed in range(10):
        assert neighbours(rng(seed).logistic(size=(600, d)) @ rng(seed + 1).normal(size=(d, d))).dimension is None


@pytest.mark.parametrize("draw", [lambda r: r.standard_cauchy((600, 5)), lambda r: r.lognormal(0.0, 3.0, (1000, 3))])
def test_heavy_tails_are_no_fewer_dimensions(draw):
    for seed in range(3):
        assert {"fewer dimensions than columns", "heavy tails"} & set(names(draw(rng(seed)))) == {"heavy tails"}
        t = draw(rng(seed))[:, 0]
        assert diagnosis_of(np.c_[t, t**3]).dimension == pytest.approx(1.0, abs=0.25)


# Tails, weights, slips.


def test_heavy_tails_are_named_with_both_scales():
    x = np.c_[rng().normal(size=2000), 7.0 * rng(1).standard_cauchy(2000)]
    (tail,) = diagnosis_of(x).tails
    assert tail.column == 1
    assert tail.deviation == pytest.approx(x[:, 1].std())
    assert tail.quartiles == pytest.approx(np.subtract(*np.quantile(x[:, 1], [0.75, 0.25])) / 1.349, rel=0.02)
    assert names(x) == ["heavy tails"]
    assert names(rng(2).standard_t(4.0, (3000, 2))) == []


def test_one_outlier_is_enough():
    x = rng().normal(size=(50_000, 2))
    x[777, 1] = 1e6
    assert [tail.column for tail in diagnosis_of(x).tails] == [1]


def test_few_effective_rows_are_counted():
    x = rng().normal(size=(4000, 2))
    weight = np.zeros(4000)
    weight[:40] = 2.0
    found = ismcore.diagnose(x, sample_weight=weight)
    assert found.effective == pytest.approx(40.0)
    assert "few effective rows" in [finding.name for finding in found.findings]
    assert names(x, sample_weight=rng(1).uniform(0.5, 2.0, 4000)) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_part_of_a_split_is_without_weight(seed):
    weight = np.zeros(500)
    weight[rng(seed).choice(500, 4, replace=False)] = 0.25
    split = held_out_rows(np.empty((500, 1)), 0.2, seed, HoldOut(by_weight=True), weight=weight)
    assert weight[split.held_out].sum() > 0.0
    assert weight[split.trained].sum() > 0.0


@OTHERS
def test_a_fit_by_few_weights_says_so():
    weight = np.r_[np.ones(15), np.zeros(1485)]
    with pytest.warns(ismcore.IsmWarning, match="sample_weight leaves few effective rows"):
        ismcore.fit(rng().normal(size=(1500, 2)), sample_weight=weight, **QUICK)


def test_weight_on_one_row_is_refused_and_not_blamed_on_a_column():
    weight = np.r_[1e200, np.ones(99)]
    for run in (ismcore.fit, ismcore.diagnose):
        with pytest.raises(ismcore.SamplesError, match="sample_weight leaves 1 effective rows"):
            run(rng().normal(size=(100, 2)), sample_weight=weight)


def test_a_column_constant_among_the_rows_with_weight_is_refused():
    x = rng().normal(size=(100, 2))
    x[:50, 1] = 4.0
    with pytest.raises(
        ismcore.SamplesError, match="column 1 of the samples is constant in the 50 rows that have sample_weight"
    ):
        ismcore.fit(x, sample_weight=np.r_[np.ones(50), np.zeros(50)], **QUICK)


def test_transposed_samples_are_asked_about():
    found = ismcore.diagnose(rng().normal(size=(3, 200)))
    assert "transposed" in str(found)
    assert "more columns than rows" not in names(rng().normal(size=(30, 29)))


@pytest.mark.parametrize("column", [np.arange(400) + 1, 1000.0 - np.arange(400), np.random.default_rng(0).permutation(400)])
def test_a_column_of_row_numbers_is_named(column):
    found = diagnosis_of(np.c_[rng().normal(size=400), column])
    assert found.counters == (1,)
    assert [finding.name for finding in found.findings] == ["row numbers"]


def test_the_table_holds_every_finding_with_its_cure():
    x = np.c_[rng().exponential(size=1000), rng(1).standard_cauchy(1000)]
    found = ismcore.diagnose(x)
    assert [finding.name for finding in found.findings] == ["hard edges", "heavy tails"]
    table = " ".join(str(found).split())
    for finding in found.findings:
        for part in (finding.name, finding.what, finding.evidence, finding.effect, finding.cure):
            assert " ".join(part.split()) in table
    assert "no findings" in str(ismcore.diagnose(rng().normal(size=(1000, 2))))


@OTHERS
def test_findings_are_the_warnings_of_a_fit():
    x = 2.0 + rng().exponential(size=(1000, 1))
    with pytest.warns(ismcore.IsmWarning, match=r'fit\(domain="auto"\)'):
        result = ismcore.fit(x, **QUICK)
    assert str(ismcore.diagnose(x).findings[0]) in result.warnings


# What fits come to; of 20 samples each, and beside the normal law: `python bench/diagnose.py --fits 20`.


def error_at(result, at):
    """Relative error of a score whose truth is that of N(0, I)."""
    return np.mean((result.score(at) + at) ** 2) / np.mean(at**2)


def normal_chain(correlation, n, d, seed):
    x = rng(seed).normal(size=(n, d))
    for i in range(1, n):
        x[i] = correlation * x[i - 1] + np.sqrt(1.0 - correlation**2) * x[i]
    return x


def normal_copies(n, seed):
    x = np.repeat(rng(seed).normal(size=(n // 6, 3)), 6, axis=0)
    return rng(seed + 1).permutation(x + 1e-5 * rng(seed + 2).normal(size=x.shape))


@pytest.mark.slow
@OTHERS
@pytest.mark.parametrize("name", ["chain", "copies"])
def test_fits_of_dependent_rows_are_far_better_than_where_each_row_is_held_out_for_itself(name):
    x = normal_chain(0.985, 2500, 3, 8) if name == "chain" else normal_copies(1500, 8)
    at = rng(9).normal(size=(3000, x.shape[1]))
    found, by_row = (
        error_at(ismcore.fit(x, backend="autograd", progress=False, **more), at) for more in ({}, {"groups": np.arange(len(x))})
    )
    assert found < 0.25 * by_row


@pytest.mark.parametrize("name", ["sorted", "classes", "a distance"])
def test_rows_in_an_order_that_means_nothing_are_held_out_as_shuffled_ones_are(name):
    x = {
        "sorted": lambda: sorted_by(lambda x: x[:, 2], 900),
        "classes": lambda: in_classes(3, 900),
        "a distance": lambda: sorted_by(lambda x: (x**2).sum(axis=1), 900),
    }[name]()
    assert diagnosis_of(x).holdout == diagnosis_of(rng(3).permutation(x)).holdout == HoldOut("rows")
    place = np.flatnonzero(held_out_rows(x, 0.2, 0, HoldOut("rows")).held_out)
    assert np.histogram(place, 9, (0, 900))[0].min() > 8  # 20 each in the mean, 4 its deviation


# Warnings as errors; of 20 samples each: the same command.


def ring(n, seed):
    angle = rng(seed).uniform(0.0, 2.0 * np.pi, n)
    return 2.0 * np.c_[np.cos(angle), np.sin(angle)] + 0.3 * rng(seed + 1).normal(size=(n, 2))


def moons(n, seed, noise=0.2):
    angle, upper = rng(seed).uniform(0.0, np.pi, n), rng(seed + 1).random(n) < 0.5
    arc = np.where(upper, [np.cos(angle), np.sin(angle)], [1.0 - np.cos(angle), 0.5 - np.sin(angle)]).T
    return arc + noise * rng(seed + 2).normal(size=(n, 2))


def mixture(n, seed):
    centres = np.array([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0], [0.0, -2.0, 0.0]])
    return centres[rng(seed).integers(0, 3, n)] + 0.8 * rng(seed + 1).normal(size=(n, 3))


CLEAN = {
    "normal": lambda seed: rng(seed).normal(size=(800, 3)) @ rng(1).normal(size=(3, 3)),
    "mixture": lambda seed: mixture(1200, seed),
    "ring": lambda seed: ring(1200, seed),
    "moons": lambda seed: moons(1200, seed),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLEAN)
def test_clean_samples_raise_nothing_where_warnings_are_errors(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ismcore.IsmWarning)
        assert not ismcore.fit(CLEAN[name](60), backend="autograd", progress=False).warnings


@pytest.mark.slow
def test_a_candidate_that_is_ended_for_a_better_one_says_nothing_of_its_losses():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ismcore.IsmWarning)
        result = ismcore.fit(moons(1000, 2, noise=0.1), backend="autograd", progress=False)
    network = next(row for row in result.candidates if row["name"] == "network")
    assert network["status"] == "early_stopped"
    assert network["best_epoch"] == network["epochs"] < 300
    assert network["weight"] < 0.1


RUIN = {
    "chain": lambda: autoregressive(0.9, 700, 3),
    "near-copies": lambda: jittered(200, 4, 2, 1e-4),
    "copies": lambda: np.repeat(rng().normal(size=(200, 2)), 3, axis=0),
    "edge": lambda: rng().exponential(size=(1000, 1)),
    "angle": lambda: rng().vonmises(np.pi, 1.0, 1200),
    "tails": lambda: rng().standard_cauchy(1000),
    "curve": lambda: ellipse(rng().uniform(0.0, 6.3, 800)),
    "collinear": lambda: rng().normal(size=(400, 2)) @ [[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]],
    "compositions": lambda: rng().dirichlet([2.0, 3.0, 4.0], 500),
    "rounded": lambda: np.round(rng().normal(size=(600, 2))),
    "row numbers": lambda: np.c_[rng().normal(size=400), np.arange(400)],
    "transposed": lambda: rng().normal(size=(2, 60)),
    "modes far apart": lambda: np.r_[rng().normal(size=500), 12.0 + rng(1).normal(size=300)],
    "noise wider than the samples": lambda: np.round(0.6 * rng().normal(size=5000)) + rng(1).random(5000),
}


@pytest.mark.parametrize("name", RUIN)
def test_ruined_samples_raise_where_warnings_are_errors(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ismcore.IsmWarning)
        with pytest.raises(ismcore.IsmWarning) as raised:
            ismcore.fit(RUIN[name](), **QUICK)
    assert raised.value.result.warnings[0] == str(raised.value)
    assert "the baseline" not in str(raised.value)


# What a fit says of its end.


@OTHERS
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 4, "recipe": "single"}, "the held-out loss was still falling at the last epoch"),
        ({"optimizer": ismcore.Adam(30.0), "epochs": 60, "schedule": "constant"}, "learning rate"),
        ({"optimizer": ismcore.Adam(8.0), "epochs": 60, "batch_size": 64}, "learning rate"),
    ],
)
def test_a_fit_that_is_not_done_or_takes_wild_steps_says_so(options, said):
    x = mixture(1000, 3)
    result = ismcore.fit(x, backend="autograd", progress=False, **options)
    assert [text for text in result.warnings if said in text]
