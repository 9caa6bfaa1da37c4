"""`FitResult.plot`, judged by the data on its artists, for laws whose score and density are known."""

import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet
from matplotlib.quiver import Quiver
from PIL import Image

import ismcore
from ismcore import plotting
from ismcore.coordinates import Coordinates

RNG = np.random.default_rng(0)
COVARIANCE = np.array([[4.0, 1.2, 0.0], [1.2, 0.5, 0.1], [0.0, 0.1, 9.0]])


@dataclass
class Normal:
    """A normal law with mean 0 in the place of a fit."""

    d: int
    is_energy: bool = True
    best_epoch: int = 7
    candidates: tuple = ()
    feature_names: tuple | None = None
    baseline: None = None
    objective: object = field(default_factory=ismcore.ImplicitScoreMatching)
    asked: list = field(default_factory=list)

    def __post_init__(self):
        self.covariance = COVARIANCE[: self.d, : self.d]
        self.coordinates = Coordinates(np.zeros(self.d), np.sqrt(np.diag(self.covariance)))
        self.history = {"epoch": np.arange(1, 11), "loss": np.zeros(10)}
        self.snapshots = {}

    def rows(self, n=3000):
        return RNG.multivariate_normal(np.zeros(self.d), self.covariance, n)

    def score(self, x, *, epoch=None, context=None):
        self.asked.append((epoch, context))
        return -np.asarray(x).reshape(-1, self.d) @ np.linalg.inv(self.covariance)

    def log_density(self, x, *, epoch=None):
        if not self.is_energy:
            raise ismcore.DensityUnavailable("a free field")
        x = np.asarray(x).reshape(-1, self.d)
        _, log_det = np.linalg.slogdet(2.0 * np.pi * self.covariance)
        return 0.5 * np.sum(x * self.score(x), axis=1) - 0.5 * log_det

    def density(self, x, *, epoch=None):
        return np.exp(self.log_density(x))


def titles(figure):
    texts = [ax.get_title(loc) for ax in figure.axes for loc in ("left", "center", "right")]
    parts = [figure, *figure.subfigs]
    return "\n".join([*texts, *(part.get_suptitle() for part in parts)])


def of_kind(ax, kind):
    return [artist for artist in ax.get_children() if isinstance(artist, kind)]


def line(ax, start):
    (found,) = [entry for entry in ax.lines if entry.get_label().startswith(start)]
    return np.transpose(found.get_data())


def arrows(ax):
    """Places and steps of the arrows, in units of the axes."""
    (found,) = of_kind(ax, Quiver)
    span = np.array([np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
    return np.transpose([found.X, found.Y]), np.transpose([found.U, found.V]) / span, span


def test_one_column_is_drawn_as_score_and_density_over_its_histogram():
    law = Normal(1)
    score, density = plotting.plot(law, law.rows()).axes
    at, psi = line(score, "fitted score").T
    np.testing.assert_allclose(psi, -at / 4.0)
    at, p = line(density, "fitted density").T
    np.testing.assert_allclose(p, np.exp(-(at**2) / 8.0) / np.sqrt(8.0 * np.pi))
    assert score.patches
    assert density.patches
    assert {ax.get_title("right") for ax in (score, density)} == {"epoch 7, best of 10"}


def test_arrows_of_two_columns_point_along_the_score_in_units_of_the_axes():
    law = Normal(2)
    x = law.rows()
    (ax,) = plotting.plot(law, x).axes
    at, step, span = arrows(ax)
    uphill = law.score(at) * span
    length = np.linalg.norm(uphill, axis=1)
    np.testing.assert_allclose(step / np.linalg.norm(step, axis=1)[:, None], uphill / length[:, None], atol=1e-9)
    longest = np.linalg.norm(step, axis=1)
    np.testing.assert_allclose(
        longest / longest.max(), (length / (length + np.median(length))) / max(length / (length + np.median(length)))
    )
    assert longest.max() < 1.2 / np.sqrt(len(at))
    assert all(low < x[:, k].min() < x[:, k].max() < high for k, (low, high) in enumerate([ax.get_xlim(), ax.get_ylim()]))


def test_contours_hold_the_shares_of_the_law_that_the_legend_names():
    law = Normal(2)
    figure = plotting.plot(law, law.rows())
    (contours,) = of_kind(figure.axes[0], QuadContourSet)
    radii = []
    for path in contours.get_paths():
        radii.append(np.mean(-np.sum(path.vertices * law.score(path.vertices), axis=1)))
    # of a normal law in the plane the share 1 - exp(-r^2 / 2) lies inside of x^T K x = r^2
    np.testing.assert_allclose(radii, -2.0 * np.log1p(-np.array([0.95, 0.8, 0.5])), rtol=0.02)
    assert "hold 50%, 80%, 95% of the fit" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_free_field_has_no_contours_and_the_title_says_why():
    law = Normal(2, is_energy=False)
    figure = plotting.plot(law, law.rows())
    assert not of_kind(figure.axes[0], QuadContourSet)
    assert "no density: a free field" in titles(figure)
    assert "no density" not in titles(plotting.plot(Normal(2)))


def test_of_many_columns_pairs_components_and_columns_have_the_scores_of_their_own_laws():
    law = Normal(3, feature_names=("a", "b $", "c"))
    figure = plotting.plot(law, law.rows(20000))
    *_, first, second, third = figure.axes
    for k, ax in enumerate((first, second, third)):
        at, psi = line(ax, "its mean").T
        variance = np.linalg.inv(COVARIANCE)[k, k] - 1.0 / COVARIANCE[k, k]  # of psi_k at rows of one x_k
        np.testing.assert_allclose(psi, -at / COVARIANCE[k, k], atol=4.0 * np.sqrt(variance / (4000 / 16)))
    assert [ax.get_xlabel() for ax in (first, second, third)] == ["a", r"b \$", "c"]
    fields = [ax for ax in figure.axes if of_kind(ax, Quiver)]
    assert len(fields) == 4
    for ax, (across, up) in zip(fields, [(0, 1), (0, 2), (1, 2)], strict=False):
        at, step, span = arrows(ax)
        pair = COVARIANCE[np.ix_([across, up], [across, up])]
        uphill = -at @ np.linalg.inv(pair) * span
        far = np.linalg.norm(uphill, axis=1) > np.median(np.linalg.norm(uphill, axis=1))
        cosine = np.sum(uphill * step, axis=1) / np.linalg.norm(uphill, axis=1) / np.linalg.norm(step, axis=1)
        assert np.median(cosine[far]) > 0.97
    assert "% of the variance" in fields[-1].get_xlabel()


def test_components_are_those_of_standardised_columns_and_have_the_score_of_their_own_law():
    law = Normal(3)
    x = law.rows(4000)
    strengths = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1]
    (ax,) = [ax for ax in plotting.plot(law, x).axes if ax.get_xlabel().startswith("component")]
    assert ax.get_xlabel() == f"component 1, {strengths[0] / 3.0:.0%} of the variance"
    at, step, span = arrows(ax)
    uphill = -at / strengths[:2] * span
    sizes = np.linalg.norm(uphill, axis=1)
    cosine = np.sum(uphill * step, axis=1) / sizes / np.linalg.norm(step, axis=1)
    assert np.median(cosine[sizes > np.median(sizes)]) > 0.97


def test_without_rows_only_what_needs_none_is_drawn_and_said():
    figure = plotting.plot(Normal(3))
    assert "result.plot(x) draws the rows too" in titles(figure)
    for k, ax in enumerate(figure.axes):
        at, psi = ax.lines[0].get_data()
        np.testing.assert_allclose(psi, -np.linalg.inv(COVARIANCE)[k, k] * at)
    (ax,) = plotting.plot(Normal(2)).axes
    assert not [entry for entry in ax.lines if entry.get_label().startswith("sample")]
    raw = Normal(2)
    raw.coordinates = Coordinates.identity(2)
    with pytest.raises(ismcore.OptionError, match=r"result\.plot\(x\)"):
        plotting.plot(raw)


def test_columns_are_chosen_by_name_or_number():
    law = Normal(3, feature_names=("a", "b", "c"))
    figure = plotting.plot(law, law.rows(), columns=["c", 0])
    assert [ax.get_xlabel() for ax in figure.axes[-2:]] == ["c", "a"]
    assert "2 of 3 columns" in titles(figure)
    for wrong in (["d", 0], [0, 0], [3, 0], [1], "ab"):
        with pytest.raises(ismcore.OptionError, match="names among a, b, c"):
            plotting.plot(law, columns=wrong)
    with pytest.raises(ismcore.OptionError, match="d > 2"):
        plotting.plot(Normal(2), columns=[0, 1])


def test_columns_of_a_table_are_taken_by_their_names():
    import pandas

    law = Normal(2, feature_names=("a", "b"))
    x = law.rows(200)
    in_order, turned = (
        plotting.plot(law, pandas.DataFrame(x, columns=["a", "b"])[names]) for names in (["a", "b"], ["b", "a"])
    )
    np.testing.assert_array_equal(line(turned.axes[0], "sample"), line(in_order.axes[0], "sample"))


def test_far_outliers_do_not_shrink_the_picture_and_few_of_many_rows_are_drawn():
    law = Normal(2)
    x = law.rows(10000)
    x[0] = 1e6
    figure = plotting.plot(law, x)
    assert max(map(np.ptp, (figure.axes[0].get_xlim(), figure.axes[0].get_ylim()))) < 40.0
    assert len(line(figure.axes[0], "1500 of 10000 rows")) == 1500


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1.0, 0.0, 0.0), "the normal law in closed form"),
        ((0.4, 0.6, 0.0), "epoch 3, best of 9"),
        ((0, 1, 1), "each of 2 candidates"),
    ],
)
def test_the_title_of_a_fit_in_folds_is_that_of_the_candidates_used(weights, said):
    rows = [{"name": "n", "weight": w, "epochs": 9, "best_epoch": 3} for w in weights]
    assert said in titles(plotting.plot(Normal(2, candidates=tuple(rows))))


def test_a_snapshot_is_drawn_with_its_own_epoch_in_the_title():
    law = Normal(2)
    figure = plotting.plot(law, law.rows(), epoch=4)
    assert "epoch 4" in titles(figure)
    assert {epoch for epoch, _ in law.asked} >= {4}


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_noise_conditional_score_is_drawn_at_its_smallest_noise_scale(d):
    law = Normal(d, objective=ismcore.NoiseConditionalScoreMatching((1.0, 0.125)))
    figure = plotting.plot(law, law.rows())
    assert {context for _, context in law.asked} == {0.125}
    assert "noise scale 0.125" in titles(figure)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_notebook_shows_the_figure(d):
    data, page = plotting.plot(Normal(d), Normal(d).rows(300))._repr_png_()
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (2 * page["width"], 2 * page["height"])


def test_the_method_has_the_arguments_of_the_function_and_draws_a_fit():
    x = RNG.normal(size=(200, 4)) @ RNG.normal(size=(4, 4))
    result = ismcore.fit(x, backend="autograd", recipe="single", epochs=3, snapshots=[1], progress=False)
    figure = result.plot(x, columns=[0, 3], epoch=1)
    assert len(figure.axes) == 3 + 1 + 2
