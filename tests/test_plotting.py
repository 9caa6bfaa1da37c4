"""Pictures, judged by the data on their artists, and animations by the pixels of their frames."""

import base64
import inspect
import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from truth import SMALL_SAMPLE, correlated

import ismcore
from ismcore import plotting
from ismcore.plotting import scenes
from ismcore.plotting.gif import gif_bytes

RUN = ismcore.datasets.reference_run()
GRID = np.linspace(-10.0, 10.0, 200)
SHOWN = {"target": RUN.target, "sample": RUN.sample, "grid": GRID}
ORANGE = np.array([0xD5, 0x5E, 0x00])


def fitted(epochs=60, curvature_weight=0.0, **options):
    options = {"model": RUN.model, "recipe": "reference", "initial_params": RUN.initial_params, "snapshots": 7} | options
    objective = ismcore.ImplicitScoreMatching(curvature_weight)
    return ismcore.fit(RUN.sample, backend="autograd", objective=objective, dtype="float64", epochs=epochs, **options)


@pytest.fixture(scope="module")
def result():
    return fitted()


def curve(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line.get_data()


def histogram(ax):
    (patch,) = ax.patches
    return patch.get_data()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_sample_is_a_normalised_histogram_below_the_density_that_it_came_from():
    ax = plotting.plot_sample(RUN.sample, RUN.target, grid=GRID)
    heights, edges, _ = histogram(ax)
    assert np.sum(heights * np.diff(edges)) == pytest.approx(1.0)
    np.testing.assert_array_equal(curve(ax, "target density"), [GRID, RUN.target.pdf(GRID)])
    assert labels(ax) == ["sample, n = 1024", "target density"]


def test_sample_without_a_target_is_drawn_where_it_lies():
    ax = plotting.plot_sample(RUN.sample[:, 0])
    low, high = ax.get_xlim()
    assert low < RUN.sample.min()
    assert high > RUN.sample.max()
    assert not ax.lines


def test_target_score_is_drawn_whole():
    ax = plotting.plot_target_score(RUN.target, RUN.sample, grid=GRID)
    score = RUN.target.score(GRID)[:, 0]
    np.testing.assert_array_equal(curve(ax, "target score"), [GRID, score])
    assert ax.get_xlim() == (-10.0, 10.0)
    assert ax.get_ylim()[0] < score.min() < score.max() < ax.get_ylim()[1]


@pytest.mark.parametrize("epoch", [None, 0, 30])
def test_score_picture_holds_fit_and_target(result, epoch):
    ax = plotting.plot_score(result, epoch=epoch, **SHOWN)
    np.testing.assert_array_equal(curve(ax, r"fitted score $\psi$"), [GRID, result.score(GRID, epoch=epoch)[:, 0]])
    np.testing.assert_array_equal(curve(ax, "target score"), [GRID, RUN.target.score(GRID)[:, 0]])
    assert ax.get_title("right") == f"epoch {60 if epoch is None else epoch}"
    assert "1/x" in ax.get_ylabel()


@pytest.mark.parametrize("epoch", [None, 30])
def test_density_picture_holds_fit_and_target(result, epoch):
    ax = plotting.plot_density(result, epoch=epoch, **SHOWN)
    np.testing.assert_array_equal(curve(ax, "fitted density"), [GRID, result.density(GRID, epoch=epoch)])
    np.testing.assert_array_equal(curve(ax, "target density"), [GRID, RUN.target.pdf(GRID)])
    heights, edges, _ = histogram(ax)
    assert np.sum(heights * np.diff(edges)) == pytest.approx(1.0)
    assert ax.get_ylim()[0] == 0.0


def test_loss_picture_holds_every_epoch_and_the_published_losses(result):
    ax = plotting.plot_loss(result, published=(RUN.epochs[:2], RUN.losses[:2]))
    ours, published = ax.lines
    np.testing.assert_array_equal(ours.get_data(), [np.arange(1, 61), result.history["loss"]])
    np.testing.assert_array_equal(published.get_data(), [RUN.epochs[:2], RUN.losses[:2]])
    assert labels(ax)[0] == f"this fit, \N{MINUS SIGN}{-result.history['loss'][-1]:.4f} at the end"


@pytest.fixture(scope="module")
def stopped():
    """A fit whose parameters are not those of its last epoch, and whose held-out rows were not asked after each."""
    x = np.random.default_rng(1).normal(3.0, 2.0, size=(1024, 1))
    options = {"recipe": "single", "objective": ismcore.ImplicitScoreMatching(0.1), "snapshots": [0, 3]}
    result = ismcore.fit(x, backend="autograd", **options)
    asked = np.isfinite(result.history["validation_loss"])
    assert 0 < result.best_epoch < len(result.history["loss"])
    assert 2 < asked.sum() < len(asked)
    return result


@pytest.mark.parametrize("plot", [plotting.plot_score, plotting.plot_density])
def test_title_names_the_epoch_whose_parameters_are_drawn(stopped, plot):
    assert plot(stopped).get_title("right") == f"epoch {stopped.best_epoch}, best of {len(stopped.history['loss'])}"
    for epoch in stopped.snapshots:
        assert plot(stopped, epoch=epoch).get_title("right") == f"epoch {epoch}"


def test_title_of_a_diverged_fit_names_its_last_finite_epoch():
    options = {"optimizer": ismcore.SGD(1e30), "on_nonfinite": "stop", "snapshots": 0}
    diverged = fitted(9, **options)
    assert diverged.status == "diverged"
    ax = plotting.plot_score(diverged, grid=GRID)
    assert ax.get_title("right") == f"epoch {diverged.best_epoch}, best of {len(diverged.history['loss'])}"


def test_loss_picture_joins_the_held_out_losses_that_were_asked_and_marks_the_best(stopped):
    ax = plotting.plot_loss(stopped)
    training, held_out, best, normal_law = ax.lines
    judged = stopped.history["validation_loss"]
    asked = np.isfinite(judged)
    np.testing.assert_array_equal(training.get_data(), [stopped.history["epoch"], stopped.history["loss"]])
    np.testing.assert_array_equal(held_out.get_data(), [np.flatnonzero(asked) + 1, judged[asked]])
    np.testing.assert_array_equal(best.get_data(), [[stopped.best_epoch], [np.nanmin(judged)]])
    assert best.get_marker() == "o"
    names = [label.split(",")[0] for label in labels(ax)]
    assert names == ["training", "held out", "best", labels(ax)[3]]
    # of a penalised objective the normal law's level is not known, and the difference of plain losses is
    assert not len(normal_law.get_xdata())
    better = -stopped.baseline.difference
    assert labels(ax)[3].startswith(f"normal law: {'higher' if better > 0 else 'lower'} by {abs(better):.2g}")
    assert labels(ax)[2].endswith(f"at epoch {stopped.best_epoch}")
    low, high = ax.get_ylim()
    assert low < np.nanmin(judged)
    assert np.nanmax(judged) < high


@pytest.mark.parametrize("recipe", ["single", "default"])
def test_loss_picture_has_the_held_out_loss_of_the_normal_law(recipe):
    x = np.random.default_rng(2).exponential(size=(300, 2)) @ [[1.0, 0.8], [0.0, 0.3]]
    result = ismcore.fit(x, backend="autograd", recipe=recipe, epochs=20, progress=False, dtype="float64")
    ax = plotting.plot_loss(result)
    (level,) = [line.get_ydata()[0] for line in ax.lines if line.get_label().startswith("normal law, ")]
    low, high = ax.get_ylim()
    assert low < level < high
    if recipe == "single":  # the comparison is in the fit's own units
        assert level == pytest.approx(result.baseline.loss, rel=1e-9)
        assert not ax.get_title("right")
    else:  # whitened, -d/2 but for chance, as the rows were not those of each fold's law
        assert level == pytest.approx(-1.0, abs=0.3)
        assert ax.get_title("right") == f"candidate 'network', 1 of {len(result.candidates) - 1}"


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_a_fit_that_finished_no_epoch_has_no_loss_to_draw():
    nothing = ismcore.fit(correlated(), backend="autograd", timeout=1e-9)
    assert not len(nothing.history["loss"])
    with pytest.raises(ismcore.OptionError, match="no loss to draw"):
        nothing.plot_loss()


def test_titles_say_which_objective():
    assert plotting.plot_loss(fitted(2)).get_title("left") == "Implicit score matching"
    assert plotting.plot_loss(fitted(2, 0.1)).get_title("left") == r"Regularised score matching, $\lambda$ = 0.1"


def test_loss_of_standardised_samples_is_labelled_as_that():
    assert "1/x^2" in plotting.plot_loss(fitted(2)).get_ylabel()
    assert "learning units" in plotting.plot_loss(fitted(2, standardize=True)).get_ylabel()


def test_a_given_axes_is_drawn_into_and_returned(result):
    figure = Figure()
    FigureCanvasAgg(figure)
    score, density, loss = figure.subplots(1, 3)
    assert result.plot_score(ax=score, **SHOWN) is score
    assert result.plot_density(ax=density, **SHOWN) is density
    assert result.plot_loss(ax=loss) is loss
    assert all(ax.lines for ax in (score, density, loss))


def test_without_a_grid_the_picture_is_where_the_data_is(result):
    low, high = plotting.plot_score(result, sample=RUN.sample).get_xlim()
    assert low < RUN.sample.min() < RUN.sample.max() < high
    low, high = plotting.plot_density(fitted(2, standardize=True)).get_xlim()
    assert (low, high) == pytest.approx((RUN.sample.mean() - 4 * RUN.sample.std(), RUN.sample.mean() + 4 * RUN.sample.std()))
    with pytest.raises(ismcore.OptionError, match="sample=x or grid="):
        plotting.plot_score(result)


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
@pytest.mark.parametrize("plot", [plotting.plot_score, plotting.plot_density])
def test_more_than_one_dimension_is_refused(plot):
    x = correlated()
    many = ismcore.fit(x, backend="autograd", epochs=2)
    with pytest.raises(ismcore.OptionError, match="d = 3"):
        plot(many, sample=x)
    with pytest.raises(ismcore.OptionError, match="d = 3"):
        plotting.plot_sample(x)
    assert len(plotting.plot_loss(many).lines[0].get_xdata()) == 2


def test_legend_lies_above_every_curve(result):
    for plot in (plotting.plot_score, plotting.plot_density):
        ax = plot(result, **SHOWN)
        ax.figure.canvas.draw()
        box = ax.get_legend().get_window_extent()
        frame = ax.get_window_extent()
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        for line in ax.lines:
            assert line.get_window_extent().y1 < box.y0


@pytest.mark.slow
@pytest.mark.parametrize("layout", [None, "constrained"])
@pytest.mark.parametrize("size", [(2.6, 3.5), (3.5, 2.2), (9.0, 2.4)])
@pytest.mark.parametrize("name", ["plot_loss", "plot_score", "plot_density"])
def test_texts_of_a_narrow_axes_do_not_overlap(stopped, name, size, layout):
    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    ax = figure.subplots(1, 3)[1] if size[0] > 4.0 else figure.add_subplot()
    getattr(stopped, name)(ax=ax)
    figure.canvas.draw()
    frame = ax.get_window_extent()
    label = ax.yaxis.label.get_window_extent()
    assert label.height <= 1.02 * frame.height
    legend = ax.get_legend().get_window_extent()
    assert legend.width <= 1.02 * frame.width
    for line in ax.lines:
        assert line.get_window_extent().y1 < legend.y0 + 1.0
    titles = [text for text in ax.get_children() if isinstance(text, Text) and text.get_text()]
    assert len(titles) == (1 if name == "plot_loss" else 2)
    boxes = [text.get_window_extent() for text in titles]
    assert all(box.width <= 1.02 * frame.width for box in boxes)
    if len(boxes) == 2 and boxes[1].x0 < boxes[0].x1:  # then one stands above the other, as tall as each other
        assert titles[0].get_text().endswith("\n")
        assert titles[0].get_fontsize() == titles[1].get_fontsize()


def test_a_part_of_a_figure_is_drawn_into(stopped):
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subfigures(1, 2)[1].add_subplot()
    assert stopped.plot_loss(ax=ax) is ax
    assert ax.get_legend().get_window_extent().width <= ax.get_window_extent().width
    assert plotting.to_png(ax).startswith(b"\x89PNG")


def test_equal_pictures_are_equal_bytes(result):
    first, again = (plotting.to_png(plotting.plot_score(result, **SHOWN)) for _ in range(2))
    assert first == again
    assert first.startswith(b"\x89PNG")


# Notebooks and help


@pytest.mark.parametrize("name", ["plot", "plot_score", "plot_density", "plot_loss"])
def test_methods_are_functions_of_plotting_with_their_arguments(name, result):
    assert getattr(ismcore.FitResult, name) is getattr(plotting, name)
    method = inspect.signature(getattr(result, name))
    assert [*method.parameters] == [*inspect.signature(getattr(plotting, name)).parameters][1:]
    described = inspect.getdoc(getattr(result, name))
    assert all(f"{argument}: " in described for argument in method.parameters)


@pytest.mark.parametrize("name", ["plot_score", "plot_density", "plot_loss"])
def test_a_new_picture_is_what_a_notebook_asks_for(name, stopped):
    data, page = getattr(stopped, name)()._repr_png_()
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (1200, 800)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert page == {"width": 600, "height": 400}


def test_axes_of_the_caller_are_shown_by_their_own_figure_alone(result):
    figure = Figure()
    FigureCanvasAgg(figure)
    assert not hasattr(result.plot_loss(ax=figure.add_subplot()), "_repr_png_")


# Animations


def frames_of(path):
    """Frames (k, height, width, 3) and their durations in milliseconds."""
    with Image.open(path) as image:
        frames, durations = [], []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
    return np.stack(frames), durations


@pytest.fixture
def axes_used(monkeypatch):
    """The Axes that plotting makes."""
    used, style = [], scenes.styled
    monkeypatch.setattr(scenes, "styled", lambda ax: used.append(ax) or style(ax))
    return used


def _drawn_density(result, epoch):
    try:
        return result.density(GRID, epoch=epoch)
    except ismcore.DensityUnavailable:  # the untrained network does not lead back to the samples
        return ismcore.density_from_score(result.score(GRID, epoch=epoch)[:, 0], GRID)


CASES = {
    "score": (plotting.animate_score, lambda result, epoch: result.score(GRID, epoch=epoch)[:, 0]),
    "density": (plotting.animate_density, _drawn_density),
}


@pytest.mark.parametrize("quantity", CASES)
def test_every_frame_shows_the_fit_of_its_epoch_on_the_same_axes(quantity, result, tmp_path, axes_used):
    animate, values = CASES[quantity]
    path = tmp_path / "evolution.gif"
    animate(result, path, **SHOWN)
    frames, durations = frames_of(path)
    (ax,) = axes_used
    assert frames.shape == (7, 400, 600, 3)
    assert durations[-1] > 10 * durations[0]
    assert [file.name for file in tmp_path.iterdir()] == ["evolution.gif"]

    left, right = (int(v) for v in ax.get_window_extent().intervalx)
    margins = np.concatenate([frames[:, 30:, : left - 3], frames[:, 30:, right + 3 :]], axis=2)
    assert np.all(margins == margins[0])
    assert len(np.unique(frames[:, :30].reshape(7, -1), axis=0)) == 7  # the epoch in the title

    for frame, epoch in zip(frames, sorted(result.snapshots), strict=True):
        for position in (20, 70, 145, 180):
            x, y = ax.transData.transform((GRID[position], values(result, epoch)[position]))
            column = np.abs(frame[:, round(x)].astype(int) - ORANGE).sum(axis=1)
            legend = ax.get_legend().get_window_extent()
            column[: round(400 - legend.y0)] = 1000
            assert abs(np.median(np.flatnonzero(column < 60)) - (400 - y)) < 4.0, (epoch, position)


def test_axes_of_an_animation_hold_every_frame(result, tmp_path, axes_used):
    animate_all = {"score": plotting.animate_score, "density": plotting.animate_density}
    for number, (quantity, animate) in enumerate(animate_all.items()):
        animate(result, tmp_path / "evolution.gif", grid=GRID)
        low, high = axes_used[number].get_ylim()
        values = np.array([CASES[quantity][1](result, epoch) for epoch in result.snapshots])
        assert low <= values.min() < values.max() < high


def test_colours_in_neighbouring_bins_of_the_palette_stay_apart():
    frames = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    frames[0, :4] = frames[1, :, :4] = (8, 4, 4)
    found, _ = frames_of(io.BytesIO(gif_bytes(list(frames))))
    np.testing.assert_array_equal(found, frames)


def test_colours_are_exact_and_the_background_is_white(result, tmp_path):
    plotting.animate_score(result, tmp_path / "score.gif", **SHOWN)
    frames, _ = frames_of(tmp_path / "score.gif")
    assert np.all(frames[:, 0, 0] == 255)
    for colour in (scenes.TARGET, scenes.SAMPLE, scenes.FITTED):
        exact = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.all(np.any(np.all(frames == exact, axis=-1), axis=(1, 2)))


@pytest.mark.parametrize("snapshots", [0, [2]])
def test_an_animation_without_snapshots_says_how_to_get_them(snapshots, tmp_path):
    with pytest.raises(ismcore.OptionError, match="snapshots=101"):
        plotting.animate_score(fitted(2, snapshots=snapshots), tmp_path / "score.gif", **SHOWN)
    assert not list(tmp_path.iterdir())


def test_an_animation_that_cannot_be_written_is_known_before_it_is_drawn(result, tmp_path, axes_used):
    with pytest.raises(OSError, match="no such folder"):
        plotting.animate_score(result, tmp_path / "missing" / "score.gif", **SHOWN)
    assert not axes_used


def test_an_animation_needs_no_file_and_is_shown_by_a_notebook(result, tmp_path):
    found = plotting.animate_score(result, tmp_path / "score.gif", **SHOWN)
    assert plotting.animate_score(result, **SHOWN).gif == found.gif == (tmp_path / "score.gif").read_bytes()
    shown = found._repr_mimebundle_()
    assert base64.b64encode(found.gif).decode() in shown["text/html"]
    assert len(shown["text/plain"]) < 100
    with Image.open(io.BytesIO(shown["image/png"])) as image:
        np.testing.assert_array_equal(np.asarray(image)[-1, -1], [255, 255, 255])
        assert image.size == (600, 400)


# What is loaded, and what is missing


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PLOT = """
import sys, ismcore, numpy as np
run = ismcore.datasets.reference_run()
result = ismcore.fit(run.sample, backend="autograd", epochs=3, snapshots=2, recipe="reference")
"""


@pytest.mark.slow
def test_drawing_loads_no_pyplot_and_changes_no_setting(tmp_path):
    code = f"""
import matplotlib
before = matplotlib.rcParams.copy()
{PLOT}
from ismcore import plotting
from ismcore.plotting import scenes
plotting.to_png(result.plot_score(sample=run.sample))
plotting.animate_density(result, {str(tmp_path / "density.gif")!r}, sample=run.sample)
loaded = "matplotlib.pyplot" in sys.modules  # looked at first: reading all settings loads it
print(loaded, [name for name in before if name != "backend" and before[name] != matplotlib.rcParams[name]])
"""
    assert run(code) == "False []"


def test_fitting_loads_no_matplotlib():
    assert run(PLOT + "print([name for name in ('matplotlib', 'PIL') if name in sys.modules])") == "[]"


def test_a_missing_package_is_answered_with_the_pip_line():
    code = f"""
{PLOT}
for package in ("PIL", "matplotlib"):
    loaded = set(sys.modules)
    sys.modules[package] = None
    draw = result.plot_loss  # completion and debuggers look at it, and hear nothing
    try:
        draw()
    except ismcore.errors.PlottingMissing as error:
        print(package, isinstance(error, (ismcore.IsmError, ImportError)), error)
    for name in set(sys.modules) - loaded:
        del sys.modules[name]
"""
    said = run(code).splitlines()
    assert [line.split()[:2] for line in said] == [["PIL", "True"], ["matplotlib", "True"]]
    assert all("pip install 'ismcore[plot]'" in line for line in said)
