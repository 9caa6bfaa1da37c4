"""The benchmarks of quality: the exact scores are exact, and the pages count as they say."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def bench():
    """The modules of the folder, importable as its commands see them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        before = set(sys.modules)
        import check
        import error_bars
        import estimators
        import laws
        import quality_page
        import tables

        yield {
            "laws": laws,
            "page": quality_page,
            "check": check,
            "estimators": estimators,
            "tables": tables,
            "error_bars": error_bars,
        }
        for name in set(sys.modules) - before:
            if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.mark.slow
def test_scores_of_all_laws_fulfil_the_identities_of_stein_and_fisher(bench):
    laws = bench["laws"]
    assert len(laws.LAWS) == 20
    assert len(laws.SECOND) == 8
    assert {name for name, _ in (*laws.CELLS, *laws.SECOND_CELLS)} == laws.LAWS.keys() | laws.SECOND.keys()
    for name in laws.LAWS | laws.SECOND:
        law = laws.law_of(name)
        stein, fisher = laws.deviates(law, n=3000 if law.d < 50 else 300)
        assert stein < 4.5, name
        assert (fisher or 0.0) < 4.5, name


def test_a_score_that_is_not_that_of_the_samples_is_noticed(bench):
    laws = bench["laws"]
    law = laws.law_of("normal 5")
    assert laws.deviates(laws.Law(5, law.sample, lambda x: 1.1 * law.score(x)), n=3000)[0] > 4.5


def test_errors_are_relative_and_samples_are_those_of_the_cell(bench):
    laws = bench["laws"]
    x, out, y, s = laws.draw("banana", 200, 3)
    assert [len(rows) for rows in (x, out, y, s)] == [200, 50, 4000, 4000]
    assert np.array_equal(x, laws.draw("banana", 200, 3)[0])
    assert laws.relative_error(0.0 * s, s) == 1.0
    assert laws.relative_error(1.5 * s, s) == pytest.approx(0.25)


def test_the_score_of_the_rows_with_noise_leaves_what_the_posterior_mean_leaves(bench):
    z, scale = np.random.default_rng(0).standard_normal((500, 3)), 1.0
    share = 1.0 / (1.0 + scale**2)  # E[z | y] = share y, for rows of N(0, I)
    left = bench["tables"].noise_left(lambda y: -share * y, z, scale)
    assert left.shape == (500,)
    assert left.mean() == pytest.approx(share, rel=0.02)
    assert bench["tables"].noise_left(lambda y: -y, z, scale).mean() > 0.9  # the score of the rows themselves
    assert bench["tables"].noise_left(np.zeros_like, z, scale).mean() == pytest.approx(1.0, rel=0.02)


def test_noise_left_is_shown_in_the_order_of_the_tables(bench):
    figures = {"noise left": 0.5, "noise gap": -0.1, "noise gap error": 0.02}
    runs = [bench["tables"].key("tables", cell, 0, name, "") | figures for name in ("mixture", "Stein") for cell in "ab"]
    lines = bench["page"].noised_table(runs).splitlines()[2:]
    assert [line.split("|")[1:3] for line in lines] == [[f" {c} ", f" {n} "] for c in "ab" for n in ("mixture", "Stein")]
    assert "| 0.500 | -0.100 +- 0.020 | 0.500 |" in lines[0]


@pytest.mark.parametrize("name", ["normal law", "kernel density", "mixture", "Stein"])
def test_other_estimators_take_any_units(bench, name):
    x, _, y, s = bench["laws"].draw("normal 5", 200, 0)
    scale = np.array([1e3, 1.0, 1e-3, 10.0, 1.0])
    fitted = bench["estimators"].RIVALS[name]
    found, scaled = fitted(x)(y[:300]), fitted(x * scale)(y[:300] * scale) * scale
    assert bench["laws"].relative_error(found, s[:300]) < 0.4
    assert np.allclose(found, scaled, rtol=1e-6, atol=1e-6)


def runs(errors, cell="banana/200"):
    """One run an estimator, of the errors given by name."""
    keys = {"part": "laws", "cell": cell, "seconds": 1.0}
    return [
        {**keys, "sample": k, "estimator": name.partition(", ")[0], "backend": name.partition(", ")[2], "error": error}
        for name, found in errors.items()
        for k, error in enumerate(found)
    ]


def test_worse_is_above_eleven_tenths_and_by_a_hundredth(bench):
    page = bench["page"]
    for normal, own, worse in [(0.5, 0.54, False), (0.5, 0.56, True), (0.01, 0.019, False), (0.01, 0.021, True)]:
        errors = page.Errors(runs({"normal law": [normal], "default, jax": [own, own / 2, own * 2]}))
        assert errors.is_worse("banana/200", "default, jax") == worse


def test_places_tie_within_two_per_cent_and_single_is_a_rival(bench):
    found = {"normal law": [0.2], "mixture": [0.1], "Stein": [0.1], "single, jax": [0.05], "default, jax": [0.0509]}
    errors = bench["page"].Errors(runs(found))
    places = {name: errors.place("banana/200", name) for name in found}
    assert places == {"normal law": 4, "mixture": 2, "Stein": 2, "single, jax": 1, "default, jax": 1}
    assert "0.95" not in bench["page"].pairs(errors, bench["laws"].CELLS)
    assert "1.02 of the error of `single`" in bench["page"].pairs(errors, bench["laws"].CELLS)


def test_estimates_are_compared_on_the_samples_that_both_have(bench):
    page = bench["page"]
    errors = page.Errors(runs({"normal law": [0.1, 9.0, 9.0], "single, jax": [0.5, 0.7], "default, jax": [0.2], "flow": [0.3]}))
    assert errors.is_worse("banana/200", "default, jax")
    assert errors.place("banana/200", "default, jax") == 2
    assert errors.medians("banana/200", "single, jax", "normal law") == [0.6, 4.55]
    assert "0.40 of the error of `single`" in page.pairs(errors, bench["laws"].CELLS)
    assert errors.medians("banana/200", "Stein", "flow") is None


def test_single_on_another_backend_is_no_rival(bench):
    found = {"normal law": [0.2], "single, torch": [0.01], "single, jax": [0.3], "default, jax": [0.1]}
    assert bench["page"].Errors(runs(found)).place("banana/200", "default, jax") == 1


def test_errors_by_other_backends_are_beside_those_by_the_one_with_most_fits(bench):
    page = bench["page"]
    found = runs({"normal law": [0.2] * 9, "default, torch": [0.1, 0.2], "default, jax": [0.101], "single, jax": [0.4]})
    assert page.lead_backend(found[:-1]) == "torch"
    assert page.beside_lead(page.Errors(found), "torch") == "- default, jax: 1 fits, errors within 1e-02 of those by torch."
    assert page.lead_backend([]) == ""


def test_the_time_on_many_rows_is_the_least_of_each_recipe_over_the_other(bench):
    def timed(estimator, backend, *seconds):
        key = bench["tables"].key
        return [key("rows", "ring/1000000", k, estimator, backend) | {"seconds": s} for k, s in enumerate(seconds)]

    found = timed("single", "torch", 5.0, 4.0) + timed("default", "torch", 6.0, 9.0) + timed("default", "jax", 1.0)
    assert bench["page"].many_rows(found) == "- torch: 1.50, of 2 runs each, 4.0 s of `single`."
    assert bench["page"].many_rows([]) == ""


def test_backends_are_shown_beside_the_first(bench):
    page, about = bench["page"], {"part": "backends", "cell": "banana/200", "error": 0.1}
    weights = {"normal law": 0.1, "network": 0.9}
    found = [
        {**about, "backend": "autograd", "weights": weights, "apart": 0.0},
        {**about, "backend": "torch", "weights": {**weights, "network": 0.9 + 1e-9}, "apart": 2e-15},
        {**about, "backend": "jax", "weights": {**weights, "network": 0.8}, "apart": 0.1},
    ]
    assert page.backends_table(found).splitlines()[2].endswith("| normal law 0.100, network 0.900 | yes | 2e-15 | no | 1e-01 |")
    assert page.backends_table([]) == ""


def test_cells_with_a_hard_edge_are_shown_and_not_counted(bench):
    page, cells = bench["page"], bench["laws"].CELLS
    edged = runs({"normal law": [2.0], "default, jax": [9.0]}, "exponential/1000")
    errors = page.Errors(edged + runs({"normal law": [0.8], "default, jax": [0.1]}))
    assert "| default, jax | 1 | 0 | 1 of 1 |" in page.summary(errors, cells)
    assert "exponential/1000 (hard edge)" in page.cells_table(errors, cells)


def test_fits_are_sorted_by_what_is_true_of_them(bench):
    check = bench["check"]

    def fit(error, statistic, competitor, verdict):
        lines = [{"name": "mixture of 2", "statistic": statistic, "limit": 1.96, "fault": verdict == "fault found"}]
        about = {"competitors": {"mixture of 2": competitor}, "lines": lines, "warned": 0, "at_least_share": 0.0}
        return {"error": error, "verdict": verdict, **about}

    fits = [fit(0.5, 3.0, 0.1, "fault found"), fit(0.5, 1.0, 0.4, "cannot tell"), fit(0.1, 2.5, 0.01, "no fault found")]
    sizes = {name: len(some) for name, some in check.classes(fits).items()}
    assert list(sizes.values()) == [1, 1, 2, 0, 1, 0, 0]
    assert "| 1 | 100.0 (20.7 to 100.0) | 0 | 0 |" in check.fits_table(fits)


def test_the_coverage_goes_on_from_what_is_known_and_has_an_error(bench, monkeypatch):
    bars = bench["error_bars"]
    monkeypatch.setattr(bars, "coverage_of", lambda name, n, sample, backend, recipe: one(name, n, sample))

    def one(name, n, sample, covered=0.9):
        return {"law": name, "n": n, "sample": sample, "recipe": "default", "covered": covered, "error": 0.1, "variance": 1.0}

    name, n = bars.CELLS[0]
    known = [one(name, n, 0, 0.8)]
    found = list(bars.coverages(2, "jax", "default", known))
    assert len(found) == 2 * len(bars.CELLS) - 1
    assert found[-1][0] == known[0]
    assert (found[0][1]["law"], found[0][1]["sample"]) == (bars.CELLS[1][0], 0)
    lines = bars.coverage_table(found[-1]).splitlines()[2:]
    assert len(lines) == len(bars.CELLS)
    assert lines[0] == f"| {name}, {n} | default | 2 | 85 | 5.0 | 0.100 | 1.00 |"  # t with one degree of freedom: 12.7 * 5
    assert "| 1 | 90 |  |" in bars.coverage_table(found[0][1:])
