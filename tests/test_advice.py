"""Warnings about a sample: each comes where it should, names its cure, and stays away from ordinary samples."""

import time

import numpy as np
import pytest
from sklearn.datasets import load_iris

import ismcore
from ismcore.datasets import reference_run
from ismcore.samples.advice import notes_for, rises, runs_away, still_falls, warnings_for
from ismcore.samples.diagnosis import Diagnosis, diagnosis_of
from ismcore.samples.gaps import emptiest_gap
from ismcore.samples.ties import row_groups

SHAPES = {
    "normal": (lambda rng, shape: rng.standard_normal(shape), ()),
    "student": (lambda rng, shape: rng.standard_t(3.0, shape), ()),
    "skewed": (lambda rng, shape: rng.gumbel(size=shape), ()),
    "close modes": (lambda rng, shape: rng.standard_normal(shape) + 3.0 * (rng.random(shape) < 0.5), ()),
    "cauchy": (lambda rng, shape: rng.standard_cauchy(shape), ("heavy tails",)),
    "uniform": (lambda rng, shape: rng.random(shape), ("hard edges",)),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), ("hard edges",)),
    "half-normal": (lambda rng, shape: np.abs(rng.standard_normal(shape)), ("hard edges",)),
}
"""Laws, and all that is to be found in them at n >= 1000."""


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def clusters(n, separation, share, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1)) + separation * (rng.random((n, 1)) < share)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("n", [200, 1000, 5000])
def test_samples_are_told_their_faults_and_nothing_else(name, d, n):
    draw, expected = SHAPES[name]
    right = 0
    for seed in range(10):
        found = {finding.name for finding in diagnosis_of(draw(np.random.default_rng(seed), (n, d))).findings}
        assert found <= {*expected, "hard edges"}
        right += found == (set(expected) if n >= 1000 else found & set(expected))
    assert right >= 8  # of clean samples 5 % at most get a word, and of an edge 95 % do: docs/diagnose.md


def test_float32_samples_raise_no_warning():
    x = normal(200_000, 2).astype(np.float32).astype(np.float64)
    assert len(np.unique(x[:, 0])) < len(x)  # chance ties in 24 bits are there, and no atoms
    assert diagnosis_of(x).repeated == 0
    assert warnings_for(x) == ()


def test_reference_sample_raises_no_warning():
    assert warnings_for(reference_run().sample, parameters=193, held_out=205) == ()


def test_repeated_rows_are_counted_and_told():
    x = normal(300, 3)
    x = np.concatenate([x, x[:40]])
    assert diagnosis_of(x).repeated == 40
    assert not diagnosis_of(x).has_atoms
    (text,) = warnings_for(x)
    assert "40 of 340 rows" in text
    assert "curvature_weight" in text


def test_an_atom_is_named_with_value_column_and_share():
    x = normal(1000, 3)
    x[:100, 1] = 0.25
    (column, value, share) = diagnosis_of(x).atoms[0]
    assert (column, value, round(share, 3)) == (1, 0.25, 0.1)
    assert diagnosis_of(x).has_atoms
    (text,) = warnings_for(x)
    assert "0.25 in column 1 (10% of the rows)" in text
    assert "curvature_weight" in text
    assert "dequantise" in text


def test_many_atoms_are_cut_short():
    x = normal(1000, 1)
    x[np.random.default_rng(1).permutation(1000)[:300], 0] = np.repeat(np.arange(10.0) / 10.0, 30)
    (text,) = warnings_for(x)
    assert "and 5 more" in text


@pytest.mark.parametrize("step", [0.1, 0.25, 1.0])
def test_a_discrete_column_is_named_with_its_step(step):
    x = normal(2000, 3)
    x[:, 2] = np.round(x[:, 2] / step) * step + 7.3
    ((column, found),) = diagnosis_of(x).steps
    assert column == 2
    assert found == pytest.approx(step, rel=1e-9)
    (text,) = warnings_for(x)
    assert f"2 (step {step:g})" in text
    assert "curvature_weight" in text
    assert "dequantise" in text


def test_the_rounding_of_a_column_is_its_step():
    x = normal(2000, 3)
    x[:, 1] = np.round(x[:, 1], 1)
    np.testing.assert_allclose(diagnosis_of(x).rounding, [0.0, 0.1, 0.0], rtol=1e-9)


def test_few_values_on_no_lattice_are_discrete_without_a_step():
    x = np.array([0.0, 1.0, np.e, np.pi])[np.random.default_rng(0).integers(0, 4, (500, 1))]
    assert diagnosis_of(x).steps == ((0, 0.0),)
    assert "uneven steps" in warnings_for(x)[0]


def test_two_values_are_a_lattice():
    assert diagnosis_of(np.array([[0.0], [2.0]] * 30)).steps == ((0, 2.0),)


def test_many_discrete_columns_are_cut_short():
    x = np.round(normal(400, 15))
    assert "and 3 more" in warnings_for(x)[0]


def test_iris_is_discrete_in_every_column():
    steps = diagnosis_of(load_iris().data).steps
    assert [j for j, _ in steps] == [0, 1, 2, 3]
    np.testing.assert_allclose([step for _, step in steps], 0.1, rtol=1e-9)


def test_an_objective_with_a_curvature_weight_is_told_what_bounds_it():
    for x in (np.round(normal(500, 2)), np.concatenate([normal(900, 2), np.full((100, 2), 0.5)])):
        found = diagnosis_of(x).findings_for(0.1, bounded_by_recipe=True)
        text = " ".join(warnings_for(x, findings=found))
        assert "a curvature weight of 0.1 was therefore used, which bounds it" in text
        assert "set a curvature_weight" not in text
        assert notes_for(found, [], 0.1) == ()
        for weight in (0.1, 0.25):
            assert warnings_for(x, curvature_weight=weight) == ()
            text = " ".join(notes_for(diagnosis_of(x).findings_for(weight), [], weight))
            assert f"the curvature weight of {weight} bounds it" in text
            assert "therefore" not in text
            assert "set a curvature_weight" not in text


def test_the_smallest_model_is_not_told_to_take_a_smaller_one():
    (affine,) = warnings_for(normal(9, 8), parameters=8 * 9)
    assert warnings_for(normal(8, 8), parameters=8 * 9)[0].endswith("take fewer columns or more rows")
    assert "Affine" not in affine
    assert "ismcore.Affine() at the smallest" in warnings_for(normal(8, 8), parameters=8 * 9 + 1)[0]


def test_too_few_rows_for_the_parameters_for_the_dimension_and_to_hold_out():
    assert "300 parameters" in warnings_for(normal(99, 3), parameters=300)[0]
    assert "Affine" in warnings_for(normal(99, 3), parameters=300)[0]
    assert "for 9 dimensions" in warnings_for(normal(99, 9))[0]
    assert "held-out part has 19 rows" in warnings_for(normal(100, 3), held_out=19)[0]
    assert warnings_for(normal(100, 3), parameters=300, held_out=20) == ()


@pytest.mark.parametrize(
    ("n", "separation", "share"), [(200, 7.0, 0.5), (1000, 7.0, 0.5), (1000, 7.0, 0.1), (20_000, 10.0, 0.1)]
)
def test_separated_modes_are_seen(n, separation, share):
    hits = [diagnosis_of(clusters(n, separation, share, seed)).gap for seed in range(10)]
    assert sum(gap is not None for gap in hits) >= 9
    for gap in filter(None, hits):
        assert 0.0 < gap.low < gap.high < separation
        assert gap.share == pytest.approx(1.0 - share, abs=0.1)


def test_modes_are_seen_across_a_principal_component_alone():
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], (2000, 1))
    # Four units along the diagonal of 12 columns: 1.15 along each, which hides it in every column.
    x = rng.standard_normal((2000, 12)) + sign * 4.0 / np.sqrt(12.0)
    gap = emptiest_gap(x, np.arange(12))
    assert gap is not None
    assert gap.direction == "principal component 1"
    assert gap.rows == np.count_nonzero(np.abs(gap_view(x) - (gap.low + gap.high) / 2) <= (gap.high - gap.low) / 2)
    (text,) = warnings_for(x)
    assert "principal component 1" in text
    assert "weights" in text


def gap_view(x):
    """The first principal component, whose sign is that of `numpy.linalg.eigh`."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return z @ np.linalg.eigh(z.T @ z)[1][:, -1]


def test_a_sparse_valley_with_rows_enough_is_no_gap():
    assert diagnosis_of(clusters(1000, 6.5, 0.5)).gap is not None
    assert diagnosis_of(clusters(100_000, 6.5, 0.5)).gap is None


def test_a_lattice_is_not_taken_for_modes():
    x = normal(1000, 2)
    x[:, 0] = np.round(x[:, 0])
    assert diagnosis_of(x).gap is None


COPIED = {
    "three times, one after another": lambda x, rng: np.concatenate([x, x, x]),
    "two and a half times": lambda x, rng: np.concatenate([x, x, x[: len(x) // 2]]),
    "each row five times in a row": lambda x, rng: np.repeat(x, 5, axis=0),
    "a part of them eight times": lambda x, rng: np.concatenate([x, *[x[: len(x) // 4]] * 7]),
    "a bootstrap of thrice the size": lambda x, rng: x[rng.integers(0, len(x), 3 * len(x))],
    "six decimals": lambda x, rng: np.tile(np.round(x, 6), (3, 1)),
    "single precision": lambda x, rng: np.tile(x.astype(np.float32), (4, 1)),
}
REPEATING = {
    "rounded": lambda rng: np.round(rng.normal(size=(3000, 1)), 1),
    "rounded, correlated": lambda rng: np.round(rng.normal(size=(6000, 1)) + 0.1 * rng.normal(size=(6000, 2)), 1),
    "finely rounded": lambda rng: np.round(rng.exponential(size=(4000, 1)), 2),
    "counts with long tails": lambda rng: np.round(rng.standard_cauchy((3000, 1)), 1),
    "logarithms of counts": lambda rng: np.log1p(rng.poisson(3000, (3000, 1))),
    "logarithms of two counts": lambda rng: np.log1p(rng.poisson(100, (3000, 2)) // 10),
    "logarithms of even counts": lambda rng: np.log1p(rng.integers(0, 500, (3000, 1))),
    "two digits": lambda rng: np.array([[float(f"{value:.2g}")] for value in rng.lognormal(size=3000)]),
    "decibels": lambda rng: 10.0 ** (np.round(rng.normal(scale=5.0, size=(3000, 1)), 1) / 10.0),
    "mostly zero": lambda rng: np.where(rng.random((3000, 1)) < 0.6, 0.0, rng.normal(size=(3000, 2))),
}


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("copying", COPIED)
def test_copies_of_rows_stay_together_however_many_there_are(copying, d):
    rng = np.random.default_rng(3)
    x = normal(300, d)
    found = diagnosis_of(np.asarray(COPIED[copying](x, rng), dtype=float))
    assert found.keeps_copies_together
    assert [finding.name for finding in found.findings] == ["repeated rows"]
    assert found.copies is None  # exact ones are no near-copies
    assert not diagnosis_of(x).keeps_copies_together


def test_values_of_three_digits_are_neither_atoms_nor_copies():
    x = np.array([[float(f"{value:.3g}")] for value in np.random.default_rng(0).lognormal(size=3000)])
    found = diagnosis_of(x)
    assert found.repeated > found.n // 2
    assert not found.findings


@pytest.mark.parametrize("law", REPEATING)
def test_values_that_repeat_are_no_copies(law):
    found = diagnosis_of(np.asarray(REPEATING[law](np.random.default_rng(4)), dtype=float))
    assert found.repeated > found.n // 2
    assert not found.keeps_copies_together
    assert found.has_atoms


def test_a_column_of_few_values_is_discrete_beside_one_that_shows_the_copies():
    x = np.c_[normal(300, 1), np.random.default_rng(0).integers(0, 2, 300)]
    found = diagnosis_of(np.tile(x, (3, 1)))
    assert found.keeps_copies_together
    assert found.steps == ((1, 1.0),)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_a_fit_of_copies_is_the_fit_of_the_rows():
    """Rows held out beside their copies on which it was trained rewarded whatever it learned by heart."""
    x = normal(300, 3)
    points = normal(200, 3, seed=1)
    once, thrice = (ismcore.fit(rows, backend="autograd", epochs=200).score(points) for rows in (x, np.tile(x, (3, 1))))
    assert np.square(once + points).mean() < 0.1
    assert np.square(thrice + points).mean() < 0.1


def test_equal_rows_share_a_group_numbered_by_first_appearance():
    x = np.array([[1.0, -0.0], [2.0, 5.0], [1.0, 0.0], [3.0, 5.0], [2.0, 5.0]])
    np.testing.assert_array_equal(row_groups(x), [0, 1, 0, 2, 1])


@pytest.mark.parametrize("collide", [False, True])
def test_groups_are_those_of_numpy_even_when_fingerprints_collide(monkeypatch, collide):
    x = np.round(normal(3000, 3), 1)
    if collide:
        monkeypatch.setattr("ismcore.samples.ties._fingerprints", lambda rows: (np.abs(rows[:, 0]) * 10).astype(np.uint64))
    group = row_groups(x)
    _, first, inverse = np.unique(x, axis=0, return_index=True, return_inverse=True)
    expected = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    np.testing.assert_array_equal(group, expected)


@pytest.mark.parametrize(
    ("losses", "away"),
    [
        ([0.0, -1.0, -0.5, 0.2], True),
        ([0.0, -1.0, -0.9, -0.8], False),
        ([0.0, -1.0, np.nan], True),
        ([0.0, np.inf, -1.0, -0.9], False),
        ([-1.0, -0.99, -0.95], False),
        ([0.0, 1.0], False),
        ([5.0, 4.0, 3.0], False),
    ],
)
def test_a_held_out_loss_that_runs_away(losses, away):
    assert runs_away(np.array(losses)) is away


def test_a_held_out_loss_that_ran_away_is_noted_as_its_best_is_given_back():
    (text,) = notes_for([], [0.0, -1.0, 3.0], 0.0)
    assert "-1 at its best, look 2 of 3, 3 at the end" in text
    assert notes_for([], [0.0, -1.0, -0.9], 0.0) == ()
    assert "a larger curvature_weight" in notes_for([], [0.0, -1.0, 3.0], 0.1)[0]
    assert warnings_for(normal(1000, 1), validation=[0.0, -1.0, 3.0]) == ()


@pytest.mark.parametrize(
    ("losses", "standard_error", "falls"),
    [
        ([0.0, -0.5, -0.7, -1.0], 0.0, True),
        ([0.0, -0.5, -0.7, -1.0], 0.2, True),  # 0.5 in the second half
        ([0.0, -0.5, -0.7, -1.0], 0.3, False),
        ([0.0, -0.8, -0.95, -0.97, -0.98, -0.99], 0.0, False),  # 4 % of its fall
        ([-1.0, -1.005, -1.01, -1.019], 0.0, False),  # 1.4 % of itself
        ([0.0, -0.5, -1.0, -0.99], 0.0, False),  # was lower
        ([0.0, -1.0], 0.0, False),
        ([0.0, -0.5, np.nan, -1.0], 0.0, False),
        ([2.0, 2.0, 2.0], 0.0, False),
    ],
)
def test_a_held_out_loss_that_still_falls(losses, standard_error, falls):
    assert still_falls(np.array(losses), standard_error) is falls
    said = warnings_for(normal(1000, 1), validation=losses, standard_error=standard_error)
    assert [text.startswith("the held-out loss was still falling") for text in said] == [True] * falls


@pytest.mark.parametrize(
    ("losses", "risen"),
    [
        ([-1.0, 5.0, 2.0, 1.0], True),
        ([-1.0] + [0.0] * 3 + [-1.5] * 4, False),  # and found its way back
        ([-1.0, -1.1, -0.95, -0.92], False),
        ([100.0, 99.0, 104.0, 108.0], False),
        ([-1.0, np.inf, 0.0, 0.0], False),
        ([-1.0, 5.0, 5.0], False),
    ],
)
def test_a_training_loss_that_has_risen(losses, risen):
    assert rises(np.array(losses)) is risen
    assert ["learning rate" in text for text in warnings_for(normal(1000, 1), training=losses)] == [True] * risen


def test_a_known_diagnosis_is_not_looked_for_again():
    assert warnings_for(None, diagnosis=Diagnosis(n=100, d=1)) == ()


def test_what_is_noticed_takes_less_than_six_standardisations_of_a_hundred_thousand_rows():
    x = normal(100_000, 10)

    def standardised():
        return (x - x.mean(axis=0)) / x.std(axis=0)

    def seconds(work):
        start = time.thread_time()  # not what other processes take
        work()
        return time.thread_time() - start

    warnings_for(x[:100])
    found, unit = zip(
        *[(seconds(lambda: warnings_for(x, parameters=1000)), seconds(standardised)) for _ in range(5)], strict=True
    )
    assert min(found) < 6.0 * min(unit)
