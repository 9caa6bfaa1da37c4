"""Tables as people have them: what is read, the names of columns, and what is refused before it does harm."""

import bz2
import gzip
import io
import lzma
import os
import sys
import types
import warnings
import zipfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from commands import run
from sklearn.datasets import load_breast_cancer, load_digits, load_linnerud, make_moons

import ismcore
from ismcore import IsmWarning, SamplesError, read_table
from ismcore.samples.tables import opening

NAMES = ("a", "b", "c")
QUIET = {"backend": "autograd", "recipe": "single", "epochs": 2, "validation": 0}
PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


pytestmark = pytest.mark.filterwarnings("ignore:too few rows for the model:ismcore.IsmWarning")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def normal(n=60, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) * 10.0 ** np.arange(d)


def text_of(x, names=NAMES, separator=","):
    lines = [separator.join(names)] if names else []
    return "\n".join([*lines, *(separator.join(map(repr, row)) for row in x.tolist())]) + "\n"


@dataclass(frozen=True)
class Frame:
    """What all frames have in common."""

    x: np.ndarray
    columns: tuple

    def __array__(self, dtype=None, copy=None):
        return np.array(self.x, dtype=dtype, copy=copy)


def zipped(files, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def workbook(rows):
    """A workbook of one sheet, as small as one can be."""
    cells = "".join(
        "<row>"
        + "".join(
            f'<c t="inlineStr"><is><t>{cell}</t></is></c>' if isinstance(cell, str) else f"<c><v>{cell!r}</v></c>"
            for cell in row
        )
        + "</row>"
        for row in rows
    )
    main_space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    return zipped(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>'
            f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kinds}.worksheet+xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{main_space}" xmlns:r="{office}"><sheets>'
            '<sheet name="s" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r1" '
            f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main_space}"><sheetData>{cells}</sheetData></worksheet>',
        }
    )


# The 16 files that a user of 2026 brought: 14 are read, by the options that the refusal names where it is one, and 2 are not.


def cancer():
    found = load_breast_cancer()
    return found.data[:80], tuple(found.feature_names)


def wine():
    return Path(__file__).parent / "data" / "winequality-red.csv"


X = normal()
READ = {
    "no header": ("wine.csv", lambda: wine().read_bytes(), {}, (1599, 12)),
    "named columns": ("cancer.csv", lambda: text_of(*cancer()), {}, (80, 30)),
    "an index": (
        "index.csv",
        lambda: text_of(np.c_[np.arange(80), cancer()[0]], ("", *cancer()[1])).replace("\n0.0,", "\n0,"),
        {},
        (80, 30),
    ),
    "20 rows": ("linnerud.csv", lambda: text_of(load_linnerud().data, load_linnerud().feature_names), {}, (20, 3)),
    "moons": ("moons.csv", lambda: text_of(make_moons(300, noise=0.1, random_state=0)[0], ()), {}, (300, 2)),
    "many rows": ("many.csv", lambda: text_of(normal(5000, 3), NAMES), {}, (5000, 3)),
    "missing values": ("nan.csv", lambda: "a,b\n1,2\n3,\n,5\nNA,1\n6,7\n", {"drop_missing": True}, (2, 2)),
    "a text column": ("text.csv", lambda: "a,kind\n1,red\n2,white\n", {"drop": ["kind"]}, (2, 1)),
    "dates": ("dates.csv", lambda: "day,a,b\n2026-01-01,1,2\n2026-01-02,3,5\n", {"drop": ["day"]}, (2, 2)),
    "decimal comma": ("comma.csv", lambda: "a;b\n1,5;2\n-3,25e1;4,0\n", {}, (2, 2)),
    "compressed": ("x.csv.gz", lambda: gzip.compress(text_of(X).encode()), {}, (60, 3)),
    "parquet": ("x.parquet", None, {}, (60, 3)),
    "feather": ("x.feather", None, {}, (60, 3)),
    "a workbook": ("x.xlsx", lambda: workbook([NAMES, *X.tolist()]), {}, (60, 3)),
}


@pytest.mark.filterwarnings("ignore:index.csv. its first column:ismcore.IsmWarning")
@pytest.mark.parametrize("which", READ)
def test_of_16_files_14_are_read(which):
    name, content, options, shape = READ[which]
    if content is None:
        frame = import_module("polars").DataFrame(X, schema=list(NAMES))
        frame.write_parquet(name) if name.endswith("parquet") else frame.write_ipc(name)
    else:
        data = content()
        Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    if options:
        with pytest.raises(SamplesError) as refused:
            read_table(name)
        assert all(option in str(refused.value) for option in options)
    table = read_table(name, **options)
    assert table.x.shape == np.asarray(table).shape == shape
    if shape == (60, 3):
        assert table.columns == NAMES
        np.testing.assert_array_equal(table, X)


def test_of_16_files_2_are_refused_for_a_stated_reason():
    Path("x.json").write_text('[{"a": 1}]')
    with pytest.raises(SamplesError, match=r"x\.json: .*ends in '\.json': read it in Python, and pass the array or frame"):
        read_table("x.json")
    np.save("digits.npy", load_digits().data)
    with pytest.raises(SamplesError, match=r"columns 0, 32, 39 are constant \(0, 0, 0\)"):
        ismcore.fit(read_table("digits.npy"), **QUIET)
    drop = [0, 32, 39]
    assert read_table("digits.npy", drop=drop).x.shape == (1797, 61)


# Names of columns, and what is done by them


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IsmWarning)
        return ismcore.bootstrap(Frame(normal(seed=2), NAMES), resamples=2, model=ismcore.Energy(ismcore.MLP((4,))), **QUIET)


def frames():
    """A frame of X by library, and the names of its class."""
    yield "ismcore", lambda x, names: Frame(x, names)
    yield "pandas", lambda x, names: import_module("pandas").DataFrame(x, columns=list(names))
    yield "polars", lambda x, names: import_module("polars").DataFrame(x, schema=list(names))
    yield (
        "arrow",
        lambda x, names: import_module("pyarrow").table({name: x[:, k] for k, name in enumerate(names)}),
    )
    yield (
        "xarray",
        lambda x, names: import_module("xarray").DataArray(x, dims=("row", "what"), coords={"what": list(names)}),
    )


METHODS = {
    "score": lambda r, x: r.score(x),
    "loss": lambda r, x: r.loss(x),
    "energy": lambda r, x: r.energy(x),
    "divergence": lambda r, x: r.divergence(x),
    "jacobian": lambda r, x: r.jacobian(x),
    "jacobian_diagonal": lambda r, x: r.jacobian_diagonal(x),
    "standard_error": lambda r, x: r.standard_error(x),
    "check": lambda r, x: str(r.check(x)),
    "check, train": lambda r, x: str(r.check(normal(seed=1), train=x)),
    "sample": lambda r, x: np.asarray(r.sample(3, start=x, steps=1, step_size=1e-3)),
    "as_energy": lambda r, x: r.as_energy(x, epochs=1).params,
    "asymmetry": lambda r, x: r.asymmetry(x),
    "evaluate": lambda r, x: ismcore.evaluate(r.model, r.params, x, backend="autograd", feature_names=r.feature_names).loss,
    "fit from it": lambda r, x: ismcore.fit(x, initial_params=r, **{**QUIET, "epochs": 1}).params,
}


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("method", METHODS)
def test_columns_in_another_order_are_put_right_and_others_refused(fitted, method):
    ask = METHODS[method]
    expected = ask(fitted, X)
    np.testing.assert_equal(ask(fitted, Frame(X[:, [2, 0, 1]], ("c", "a", "b"))), expected)
    with pytest.raises(SamplesError, match=r"are 'a', 'b', 'c': missing 'b', extra 'z'"):
        ask(fitted, Frame(X, ("a", "z", "c")))


@pytest.mark.parametrize(("name", "make"), list(frames()), ids=[name for name, _ in frames()])
def test_frames_of_any_library_keep_their_names_and_order(name, make):
    result = ismcore.fit(make(X, NAMES), **QUIET)
    assert result.feature_names == NAMES
    np.testing.assert_array_equal(result.score(make(X[:, ::-1], NAMES[::-1])), result.score(X))
    with pytest.raises(SamplesError, match="extra 'd'"):
        result.score(make(np.c_[X, X[:, 0]], (*NAMES, "d")))
    if name == "ismcore":
        for x in (Frame(X, NAMES), X):
            with pytest.raises(ismcore.OptionError, match="as_frame=True is for samples in a frame"):
                result.score(x, as_frame=True)
        return
    given = make(X[:, ::-1], NAMES[::-1])
    scores = result.score(given, as_frame=True)
    assert type(scores) is type(given)
    np.testing.assert_array_equal(np.asarray(scores), result.score(X))
    assert ismcore.samples.tables.frames.names_of(scores) == ("score_a", "score_b", "score_c")


def test_variables_of_a_dataset_are_columns():
    import xarray

    rows = {"time": np.arange(60)}
    data = xarray.Dataset({name: ("time", X[:, k]) for k, name in enumerate(NAMES)}, coords=rows)
    result = ismcore.fit(data, **QUIET)
    assert result.feature_names == NAMES
    scores = result.score(data[["c", "a", "b"]], as_frame=True)
    assert list(scores.data_vars) == ["score_a", "score_b", "score_c"]
    assert scores.time.values.tolist() == list(range(60))
    np.testing.assert_array_equal(scores.score_b, result.score(X)[:, 1])
    with pytest.raises(SamplesError, match="must all have one dimension"):
        ismcore.fit(data.assign(d=("time", np.zeros(60))).assign(e=(("time", "other"), X)))


@dataclass(frozen=True)
class Stream:
    """What has no more than Arrow's stream."""

    table: object

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_a_bare_stream_of_arrow_is_read_through_either_library(monkeypatch, library):
    import pyarrow

    if library == "pyarrow":
        monkeypatch.setitem(sys.modules, "polars", None)
    table = pyarrow.table({name: X[:, k] for k, name in enumerate(NAMES)})
    reader = table.to_reader()
    assert ismcore.fit(reader, **QUIET).feature_names == NAMES
    result = ismcore.fit(Stream(table), **QUIET)
    np.testing.assert_array_equal(result.score(X), ismcore.fit(X, **QUIET).score(X))


def test_scores_in_a_pandas_frame_have_its_index():
    import pandas

    frame = pandas.DataFrame(X, columns=list(NAMES), index=[f"r{k}" for k in range(60)])
    scores = ismcore.fit(frame, **QUIET).score(frame[10:20], as_frame=True)
    assert list(scores.index) == [f"r{k}" for k in range(10, 20)]
    assert list(frame.join(scores, how="inner").columns) == [*NAMES, "score_a", "score_b", "score_c"]


def test_names_that_repeat_are_taken_in_their_own_order_alone():
    result = ismcore.fit(Frame(X, ("a", "a", "b")), **QUIET)
    assert result.score(Frame(X, ("a", "a", "b"))).shape == X.shape
    for names in (("a", "b", "a"), ("a", "b", "b")):
        with pytest.raises(SamplesError, match="more than once"):
            result.score(Frame(X, names))


def test_columns_that_have_no_names_are_taken_as_they_stand(fitted):
    np.testing.assert_array_equal(fitted.score(Frame(X, (0, 1, 2))), fitted.score(X))
    plain = ismcore.fit(X, **QUIET)
    assert plain.feature_names is None
    assert plain.score_names == ("score_0", "score_1", "score_2")
    np.testing.assert_array_equal(plain.score(Frame(X, NAMES)), plain.score(X))


@pytest.mark.parametrize("labels", [(0, 1, 2), (7, 3, 5), ("a", 1, 2.5), (("u", 1), ("u", 2), ("v", 1))])
def test_labels_that_are_no_text_are_put_in_order_too(labels):
    """What pandas calls columns that nobody has named, after a join, or by levels."""
    frame, turned = Frame(X, labels), Frame(X[:, [2, 0, 1]], (labels[2], labels[0], labels[1]))
    result = ismcore.fit(frame, **QUIET)
    assert result.feature_names == (None if labels == (0, 1, 2) else tuple(map(str, labels)))
    for x in (frame, turned, X):
        np.testing.assert_array_equal(result.score(x), result.score(X))
    begun = ismcore.fit(turned, **QUIET)
    assert begun.feature_names == tuple(map(str, turned.columns))
    np.testing.assert_array_equal(begun.score(frame), begun.score(turned))


def test_a_run_is_gone_on_with_by_the_names_of_its_columns():
    ismcore.fit(Frame(X, NAMES), checkpoint="run", **QUIET)
    same = ismcore.resume("run", Frame(X[:, ::-1], NAMES[::-1]), epochs=3)
    assert (same.feature_names, len(same.history["loss"])) == (NAMES, 3)
    with pytest.raises(SamplesError, match="missing 'a', extra 'z'"):
        ismcore.resume("run", Frame(X, ("z", "b", "c")))


def test_moving_samples_are_taken_by_the_names_of_the_first():
    options = {"model": ismcore.Affine(), "backend": "autograd"}
    runs = ismcore.Refit(Frame(X, NAMES), **options), ismcore.Refit(X, **options)
    runs[0].update(Frame(X[::-1, ::-1], NAMES[::-1]), steps=3)
    runs[1].update(X[::-1], steps=3)
    np.testing.assert_array_equal(runs[0].score(Frame(X[:, ::-1], NAMES[::-1])), runs[1].score(X))
    assert runs[0].result().feature_names == NAMES
    for ask in (runs[0].score, runs[0].update):
        with pytest.raises(SamplesError, match="missing 'a', extra 'z'"):
            ask(Frame(X, ("z", "b", "c")))


def test_validation_samples_stand_in_the_order_of_the_samples():
    options = {**QUIET, "validation": Frame(X[:20, ::-1], NAMES[::-1])}
    found = ismcore.fit(Frame(X[20:], NAMES), **options).history["validation_loss"]
    np.testing.assert_array_equal(found, ismcore.fit(X[20:], **{**QUIET, "validation": X[:20]}).history["validation_loss"])


def test_one_dimension_has_a_density_by_name():
    result = ismcore.fit(Frame(X[:, :1], ("a",)), **{**QUIET, "epochs": 200}, model=ismcore.Affine())
    np.testing.assert_array_equal(result.density(Frame(X[:5, :1], ("a",))), result.density(X[:5, 0]))
    assert result.density(0.5).shape == (1,)
    with pytest.raises(SamplesError, match="missing 'a', extra 'b'"):
        result.density(Frame(X[:5, :1], ("b",)))


def test_pictures_of_one_column_have_its_name_at_their_axis():
    result = ismcore.fit(Frame(X[:, :1], ("price, $",)), **{**QUIET, "epochs": 200}, model=ismcore.Affine())
    for draw in (result.plot_score, result.plot_density):
        assert draw(sample=Frame(X[:, :1], ("price, $",))).get_xlabel() == r"price, \$"
        with pytest.raises(SamplesError, match=r"missing 'price, \$', extra 'a'"):
            draw(sample=Frame(X[:, :1], ("a",)))
    assert ismcore.fit(X[:, 0], **QUIET).plot_score(sample=X[:, 0]).get_xlabel() == "$x$"


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_what_is_said_of_columns_calls_them_by_their_names():
    x = np.random.default_rng(0).normal(size=(400, 4))
    x[:, 1], x[:200, 2], x[:, 3] = np.round(x[:, 1] * 2.0), 0.0, x[:, 0]
    names = ("height", "grade", "doses", "copy")
    said = " ".join(map(str, ismcore.diagnose(Frame(x, names)).findings))
    assert "0 in column 'doses' (50% of the rows)" in said
    assert "'grade' (step 1)" in said
    assert "columns 'height', 'copy' are linearly dependent" in said
    with pytest.warns(IsmWarning, match="'doses'"):
        result = ismcore.fit(Frame(x, names), model=ismcore.Affine(), **QUIET)
    assert any("'doses'" in text for text in result.warnings)
    assert "  columns    height, grade, doses, copy" in repr(result)
    x[:, 2] = 1.0
    with pytest.raises(SamplesError, match="column 'doses' of the samples is constant"):
        ismcore.fit(Frame(x, names))
    x[5, 1] = np.nan
    with pytest.raises(SamplesError, match=r"1 of 400 rows, the first at \[5\], in column 'grade'"):
        ismcore.fit(Frame(x, names))


def test_columns_of_a_frame_that_hold_no_numbers_are_named():
    x = np.array([[1.0, "red"], [2.0, "white"]], dtype=object)
    with pytest.raises(SamplesError, match="column 'kind' holds 'red' in row 0, which is no number: leave it out"):
        ismcore.fit(Frame(x, ("a", "kind")))
    x = np.array([[1.0, None], [2.0, 3]], dtype=object)
    with pytest.raises(SamplesError, match=r"NaN .* in 1 of 2 rows, the first at \[0\], in column 'b'"):
        ismcore.fit(Frame(x, ("a", "b")))
    lazy = types.SimpleNamespace(collect_schema=None, columns=("a",))
    with pytest.raises(SamplesError, match=r"pass x\.collect\(\)"):
        ismcore.fit(lazy)
    with pytest.raises(SamplesError, match="a dict is none: pass a frame made of it"):
        ismcore.fit({"a": [1.0, 2.0]})


def dated(library):
    """Frames with a column of dates or durations, of which some libraries make numbers."""
    days = np.arange(60).astype("datetime64[D]").astype("datetime64[us]")
    if library == "xarray":
        return import_module("xarray").Dataset({"a": ("row", X[:, 0]), "b": ("row", (days - days[0]).astype("m8[ns]"))})
    table = import_module("pyarrow").table({"a": X[:, 0], "b": days})
    return {"pyarrow": table, "stream": Stream(table), "polars": import_module("polars").DataFrame(table)}[library]


@pytest.mark.parametrize("library", ["polars", "pyarrow", "stream", "xarray"])
def test_dates_of_a_frame_are_not_made_numbers(library):
    with pytest.raises(SamplesError, match=r"column 'b' is of .*, and holds no numbers: leave it out, or convert it first"):
        ismcore.fit(dated(library), **QUIET)


def with_bad(library, bad):
    """Samples of some library, a value of which is bad."""
    x = np.where(np.arange(X.size).reshape(X.shape) == 4, bad, X)
    if library == "numpy":
        return x[:, 1]
    if library == "polars":
        return import_module("polars").DataFrame(x, schema=list(NAMES))
    if library == "pyarrow":
        return import_module("pyarrow").table({name: x[:, k] for k, name in enumerate(NAMES)})
    if library == "Series":
        return import_module("polars").Series(x[:, 1])
    data = import_module("xarray").DataArray(x, dims=("row", "name"), coords={"name": list(NAMES)})
    return data if library == "DataArray" else data.to_dataset("name")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("library", ["numpy", "polars", "Series", "pyarrow", "DataArray", "Dataset"])
def test_what_is_advised_of_rows_that_are_not_finite_drops_them(library, bad):
    """NaN is no missing value to polars and Arrow, xarray must be told the dimension, and one column has no axis 1."""
    x = with_bad(library, bad)
    with pytest.raises(SamplesError, match="drop or mend these rows, for example") as caught:
        ismcore.diagnose(x)
    kept = eval(str(caught.value).partition("for example ")[2], {"numpy": np, "x": x})  # noqa: S307
    assert type(kept) is type(x)
    assert ismcore.diagnose(kept).n == 59


def test_constant_columns_of_a_frame_are_named_and_not_indexed_like_an_array():
    with pytest.raises(SamplesError, match=r"columns 'a', 'c' are constant \(0, 0\): .*; drop what is constant$"):
        ismcore.fit(Frame(X * [0.0, 1.0, 0.0], NAMES), **QUIET)


@pytest.mark.parametrize("path", ["x.csv", Path("some") / "x.parquet"])
def test_a_path_says_what_reads_it(path):
    for ask in (ismcore.fit, ismcore.diagnose, lambda x: ismcore.evaluate(ismcore.Affine(), None, x)):
        with pytest.raises(SamplesError, match=r"is a path: ismcore\.read_table\('.*x\.(csv|parquet)'\) reads the file"):
            ask(path)


# Reading


@pytest.mark.parametrize("mark", [";", "\t", "|", ",", " ", ":", "/", "&", "^"])
@pytest.mark.parametrize("names", [NAMES, ()])
def test_cells_may_be_separated_by_any_mark(mark, names):
    Path("x.csv").write_text(text_of(X, names, mark))
    found = read_table("x.csv")
    np.testing.assert_array_equal(found, X)
    assert found.columns == tuple(names)


@pytest.mark.parametrize(
    "text",
    ["1,5;-2,25\n3;4,0\n", "1,5\t-2,25\n3\t4,0\n", "1,5 -2,25\n3 4,0\n", '"1,5","-2,25"\n"3","4,0"\n', "1,5|-2,25\n3|4\n"],
)
def test_a_decimal_comma_is_read_and_noted(text):
    Path("x.csv").write_text(text)
    found = read_table("x.csv")
    np.testing.assert_array_equal(found, [[1.5, -2.25], [3.0, 4.0]])
    assert found.notes == ("a comma was read as the decimal mark, first in line 1, column 0: '1,5'",)


def test_columns_are_named_numbered_and_left_out():
    Path("x.csv").write_text('id,"pH, at 20",acid,grade\nu,1,2,3\nv,4,5,6\n')
    assert read_table("x.csv", columns=["grade", "pH, at 20"]).x.tolist() == [[3, 1], [6, 4]]
    assert read_table("x.csv", columns=[2, "grade"]).columns == ("acid", "grade")
    assert read_table("x.csv", columns=[1, 2, 3], drop=["acid"]).columns == ("pH, at 20", "grade")
    found = read_table("x.csv", beside=["id", 3])
    assert found.columns == ("pH, at 20", "acid")
    assert {name: cells.tolist() for name, cells in found.beside.items()} == {"id": ["u", "v"], 3: ["3", "6"]}
    for columns, said in (
        (["acidd"], "there is no column 'acidd'; did you mean 'acid'"),
        (["zzz"], "it has 'id', 'pH, at 20', 'acid', 'grade'"),
        ([9], "there is no column 9"),
        ([], "no column is asked for"),
    ):
        with pytest.raises(SamplesError, match=f"x.csv: .*{said}"):
            read_table("x.csv", columns=columns)
    with pytest.raises(SamplesError, match="no column is left"):
        read_table("x.csv", drop=[0, 1, 2, 3])
    Path("plain.csv").write_text("1,2\n3,4\n")
    with pytest.raises(SamplesError, match="its 2 columns have no names"):
        read_table("plain.csv", columns=["a"])
    Path("twice.csv").write_text("a,a\n1,2\n3,4\n")
    assert read_table("twice.csv").columns == ("a", "a")
    with pytest.raises(SamplesError, match="several columns are called 'a'"):
        read_table("twice.csv", columns=["a"])


@pytest.mark.parametrize("start", [0, 1])
def test_an_unnamed_first_column_that_counts_is_an_index(start):
    table = "".join(f"{start + k},{a!r},{b!r}\n" for k, (a, b) in enumerate(X[:, :2].tolist()))
    Path("x.csv").write_text(",a,b\n" + table)
    with pytest.warns(IsmWarning, match=f"x.csv: its first column has no name and numbers the rows {start}, {start + 1}, "):
        found = read_table("x.csv")
    assert found.columns == ("a", "b")
    np.testing.assert_array_equal(found, X[:, :2])
    assert read_table("x.csv", columns=[0, 1]).columns == ("column 0", "a")
    assert read_table("x.csv", drop=[0]).columns == ("a", "b")
    Path("x.csv").write_text("n,a,b\n" + table)
    assert read_table("x.csv").x.shape == (60, 3)
    Path("x.csv").write_text(",a,b\n" + table.replace(f"\n{start + 5},", "\n77,", 1))
    assert read_table("x.csv").x.shape == (60, 3)


@pytest.mark.parametrize("mark", [",", "\t"])
def test_what_pandas_writes_above_columns_without_names_is_no_sample(mark):
    import pandas

    frame = pandas.DataFrame(X)
    frame.to_csv("bare.csv", index=False, sep=mark)
    with pytest.warns(IsmWarning, match=r"bare.csv: its first line, 0, 1, 2, numbers the columns: it was left out"):
        found = read_table("bare.csv")
    np.testing.assert_array_equal(found, X)
    assert (found.columns, found.n_read) == ((), 60)
    again = pandas.concat([pandas.Series(range(60), name="Unnamed: 0"), frame], axis=1)  # as pandas reads what it wrote
    for written in (frame, again):
        written.to_csv("x.csv", sep=mark)
        with pytest.warns(IsmWarning, match=r"first column(s have| has) no names? and numbers? the rows 0, 1, "):
            found = read_table("x.csv")
        np.testing.assert_array_equal(found, X)
        assert found.columns == ("0", "1", "2")
    Path("whole.csv").write_text("0,1,2\n3,4,5\n6,7,8\n")
    assert read_table("whole.csv").x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize(("text", "doubtful"), [('"1,000","-2,250"\n"3,500","4"\n', True), ("0,125;2\n3,000;4\n", False)])
def test_commas_that_may_stand_before_thousands_are_told(text, doubtful):
    Path("x.csv").write_text(text)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read_table("x.csv")
    assert [str(w.message).partition(": ")[2] for w in said] == list(found.notes) * doubtful
    assert ("if they are thousands" in found.notes[0]) == doubtful


def test_names_of_rows_that_r_writes_without_a_name_above_them():
    Path("x.txt").write_text(
        '"Sepal.Length" "Width"\n' + "".join(f'"{k + 1}" {a!r} {b!r}\n' for k, (a, b) in enumerate(X[:, :2].tolist()))
    )
    with pytest.warns(IsmWarning, match="numbers the rows 1, 2, "):
        found = read_table("x.txt")
    assert found.columns == ("Sepal.Length", "Width")
    np.testing.assert_array_equal(found, X[:, :2])
    Path("cars.txt").write_text("mpg\tcyl\nMazda RX4\t21.0\t6\nValiant\t18.1\t6\n")
    with pytest.raises(SamplesError, match=r"line 2, column 0, .*'Mazda RX4'.*--drop 0"):
        read_table("cars.txt")
    found = read_table("cars.txt", beside=0)
    assert (found.x.tolist(), found.beside[0].tolist()) == ([[21.0, 6.0], [18.1, 6.0]], ["Mazda RX4", "Valiant"])


def test_an_index_is_one_also_where_rows_are_dropped():
    Path("x.csv").write_text(",a,b\n0,1,2\n1,,4\n2,5,7\n")
    with pytest.warns(IsmWarning, match="index"):
        found = read_table("x.csv", drop_missing=True, beside=[2])
    assert (found.x.tolist(), found.rows.tolist(), found.beside[2].tolist()) == ([[1], [5]], [0, 2], ["2", "7"])
    assert found.notes[-1] == "1 of 3 rows have missing values and were dropped"


def test_missing_values_are_counted_by_column():
    Path("x.csv").write_text("a,b,c\n1,,3\n\n4,NaN,6\n7,8,null\n1,2,3\n")
    with pytest.raises(SamplesError) as refused:
        read_table("x.csv")
    assert str(refused.value) == (
        "x.csv: line 2, column 1 ('b'), columns counted from 0: the cell is empty; values are missing in 3 of 4 rows, of "
        "column 1 ('b') in 2, column 2 ('c') in 1: drop these rows by drop_missing=True (--drop-missing), or a column by "
        "drop= (--drop)"
    )
    assert read_table("x.csv", drop=["b"], drop_missing=True).rows.tolist() == [0, 1, 3]
    np.save("x.npy", [[1.0, np.nan], [2.0, 3.0]])
    with pytest.raises(SamplesError, match=r"row 0, column 1, .*NaN.*drop_missing=True"):
        read_table("x.npy")
    assert read_table("x.npy", drop_missing=True).x.tolist() == [[2.0, 3.0]]
    Path("all.csv").write_text("a,b\n1,\n,2\n")
    for drop_missing in (False, True):  # to drop all rows is no advice
        with pytest.raises(SamplesError, match=r"missing in 2 of 2 rows, .*: drop columns by drop= \(--drop\)$"):
            read_table("all.csv", drop_missing=drop_missing)
    Path("inf.csv").write_text("a,b\n1,inf\n")
    with pytest.raises(SamplesError, match="'inf' is no finite number"):
        read_table("inf.csv", drop_missing=True)


@pytest.mark.parametrize("suffix", [*PACKERS, ".zip"])
def test_compressed_tables_are_the_plain_ones_and_every_damage_is_named(suffix):
    text = text_of(X).encode()
    packed = zipped({"__MACOSX/._t.csv": b"x", "d/": b"", "d/t.csv": text}) if suffix == ".zip" else PACKERS[suffix](text)
    path = Path(f"x.csv{suffix}")
    path.write_bytes(packed)
    np.testing.assert_array_equal(read_table(path), X)
    for length in range(0, len(packed), 29):
        path.write_bytes(packed[:length])
        with pytest.raises(SamplesError, match=r"x\.csv.*(damaged|no rows)"):
            read_table(path)


def test_an_archive_of_anything_but_one_table_is_refused():
    for files, said in (
        ({}, "it holds none"),
        ({"a.csv": "1", "b.csv": "2"}, "holds a.csv, b.csv"),
        ({"a.npy": "1"}, "holds 'a.npy'"),
    ):
        Path("x.zip").write_bytes(zipped(files))
        with pytest.raises(SamplesError, match=said):
            read_table("x.zip")


# What is refused before it does harm


@pytest.mark.parametrize("suffix", [*PACKERS, ".zip"])
def test_a_compressed_table_that_inflates_beyond_memory_is_refused_on_the_way(monkeypatch, suffix):
    monkeypatch.setattr(opening, "memory", lambda: 2_000_000)
    text = b"#" * 999 + b"\n"  # not a number among them
    bomb = zipped({"t.csv": text * 4_000}) if suffix == ".zip" else PACKERS[suffix](text * 4_000)
    assert len(bomb) < 60_000
    Path(f"x.csv{suffix}").write_bytes(bomb)
    with pytest.raises(SamplesError, match="its text is longer than the 1000000 bytes that fit into half of the memory"):
        read_table(f"x.csv{suffix}")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_would_inflate_all_at_once_is_refused(method):
    Path("x.zip").write_bytes(zipped({"t.csv": b"1,2\n3,4\n"}, method))
    Path("x.npz").write_bytes(zipped({"x.npy": b"1,2\n3,4\n"}, method))
    Path("x.xlsx").write_bytes(zipped({"xl/workbook.xml": b"1,2\n3,4\n"}, method))
    for name in ("x.zip", "x.npz"):
        with pytest.raises(SamplesError, match="another method than deflate"):
            read_table(name)


@pytest.mark.parametrize("codec", ["", ".gz"])
def test_a_line_without_an_end_is_refused(monkeypatch, codec):
    monkeypatch.setattr(opening, "MOST_LINE", 1000)
    data = b"a,b\n1,2\n" + b"3," * 10_000
    Path(f"x.csv{codec}").write_bytes(gzip.compress(data) if codec else data)
    with pytest.raises(SamplesError, match="line 3 is longer than 1000 characters"):
        read_table(f"x.csv{codec}")


def test_more_numbers_than_fit_into_memory_are_refused_on_the_way(monkeypatch):
    monkeypatch.setattr("ismcore.samples.tables.text.LOOK", 100)
    monkeypatch.setattr(opening, "memory", lambda: 20_000)
    Path("x.csv").write_text("1,2\n" * 5000)
    with pytest.raises(SamplesError, match=r"its cells do not fit .* they end at line 700"):
        read_table("x.csv")


def test_text_beside_the_samples_counts_and_one_long_cell_makes_the_others_no_longer(monkeypatch):
    Path("x.csv").write_text("a,who\n" + "1,x\n" * 5000 + f"2,{'y' * 100_000}\n")
    found = read_table("x.csv", beside="who").beside["who"]
    assert (found[0], len(found[-1]), found.dtype) == ("x", 100_000, object)
    monkeypatch.setattr("ismcore.samples.tables.text.LOOK", 100)
    monkeypatch.setattr(opening, "memory", lambda: 100_000)
    with pytest.raises(SamplesError, match=r"its cells do not fit .* they end at line 701"):
        read_table("x.csv", beside="who")


class Endless(io.RawIOBase):
    """A stream without an end, as of a device."""

    given = 0

    def read(self, size=-1):
        assert size > 0
        Endless.given += size
        return b"\n" * size


def test_a_stream_without_an_end_is_read_up_to_half_of_the_memory(monkeypatch):
    monkeypatch.setattr(opening, "memory", lambda: 4_000_000)
    with pytest.raises(SamplesError, match="the stream: its text is longer than the 2000000 bytes"):
        read_table(Endless())
    assert Endless.given < 2_100_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("suffix", ["csv.gz", "csv.bz2", "csv.xz", "zip", "parquet", "feather", "arrow", "xlsx"])
def test_a_pipe_of_any_name_is_refused_at_once(suffix):
    os.mkfifo(f"x.{suffix}")
    with pytest.raises(SamplesError, match="no regular file"):
        read_table(f"x.{suffix}")


@pytest.mark.parametrize(("suffix", "hidden"), [("parquet", "polars"), ("parquet", ""), ("feather", ""), ("xlsx", "")])
def test_what_reads_a_file_is_named_with_a_line_that_installs_it(monkeypatch, suffix, hidden):
    for module in ("polars", "pyarrow", "pyarrow.parquet", "pyarrow.ipc", "pandas", "fastexcel", "openpyxl"):
        if not hidden or module == hidden or "pyarrow" in module:
            monkeypatch.setitem(sys.modules, module, None)
    Path(f"x.{suffix}").write_bytes(b"x")
    with pytest.raises(SamplesError, match=rf"to read \.{suffix} files needs polars.* or .*: pip install 'ismcore\[tables\]'"):
        read_table(f"x.{suffix}")


def test_a_pyarrow_that_runs_what_a_file_says_is_not_asked(monkeypatch):
    old = types.ModuleType("pyarrow")
    old.__version__ = "14.0.0"
    old.parquet = types.ModuleType("pyarrow.parquet")
    for name, module in (("polars", None), ("pyarrow", old), ("pyarrow.parquet", old.parquet)):
        monkeypatch.setitem(sys.modules, name, module)
    Path("x.parquet").write_bytes(b"x")
    with pytest.raises(SamplesError, match="pyarrow before 15 runs code that a file holds"):
        read_table("x.parquet")


def test_a_workbook_that_inflates_beyond_memory_is_refused_whatever_it_says_of_its_size(monkeypatch):
    honest = workbook([NAMES, *X.tolist()] + [["x" * 1000]] * 2000)
    true_size = len(zipfile.ZipFile(io.BytesIO(honest)).read("xl/worksheets/sheet1.xml"))
    lying = honest.replace(true_size.to_bytes(4, "little"), (5).to_bytes(4, "little"))
    assert lying != honest
    monkeypatch.setattr(opening, "memory", lambda: 8_000_000)
    for book in (honest, lying):
        Path("x.xlsx").write_bytes(book)
        with pytest.raises(SamplesError, match="its parts inflate beyond the 1000000 bytes"):
            read_table("x.xlsx")


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_more_rows_than_fit_into_memory_are_refused_before_they_are_read(monkeypatch, library, suffix):
    module = import_module(library)
    rows = 200_000
    if library == "polars":
        frame = module.DataFrame({"a": np.zeros(rows)})
        frame.write_parquet("x.parquet") if suffix == "parquet" else frame.write_ipc("x.feather", compression="zstd")
    else:
        monkeypatch.setitem(sys.modules, "polars", None)
        import_module("pyarrow.parquet").write_table(module.table({"a": np.zeros(rows)}), "x.parquet")
        import_module("pyarrow.feather").write_feather(module.table({"a": np.zeros(rows)}), "x.feather")
    assert Path(f"x.{suffix}").stat().st_size < 8 * rows // 4
    monkeypatch.setattr(opening, "memory", lambda: 2_000_000)
    with pytest.raises(SamplesError, match=r"its \d+ rows of 1 columns do not fit"):
        read_table(f"x.{suffix}")


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow", "xlsx"])
def test_a_terabyte_that_takes_no_room_is_not_read(suffix):
    with open(f"x.{suffix}", "wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(SamplesError, match=r"its 1099511627776 bytes do not fit"):
        read_table(f"x.{suffix}")


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize("suffix", ["parquet", "feather", "xlsx"])
def test_tables_of_other_programs_are_the_same_through_each_library(monkeypatch, library, suffix):
    import pandas
    import polars

    kinds = ["red", None, "white", "red", "white"]
    columns = {"a": [1.5, 2.0, None, 4.0, 5.0], "n": [1, 2, 3, 4, 5], "kind": kinds}
    frame = polars.DataFrame(columns)
    if suffix == "xlsx":
        pandas.DataFrame(columns).to_excel("x.xlsx", index=False)
    else:
        frame.write_parquet("x.parquet") if suffix == "parquet" else frame.write_ipc("x.feather")
    if library == "pandas":
        monkeypatch.setitem(sys.modules, "polars", None)
    found = read_table(f"x.{suffix}", beside=["kind"], drop_missing=True)
    assert (found.columns, found.rows.tolist()) == (("a", "n"), [0, 1, 3, 4])
    assert found.x.tolist() == [[1.5, 1], [2, 2], [4, 4], [5, 5]]
    assert found.beside["kind"].tolist()[::2] == ["red", "red"]
    with pytest.raises(SamplesError, match=r"column 2 \('kind'\), counted from 0, holds 'red' in row 0.*drop=\['kind'\]"):
        read_table(f"x.{suffix}", drop_missing=True)
    with pytest.raises(SamplesError, match=r"row 2, column 0 \('a'\).*drop_missing"):
        read_table(f"x.{suffix}", drop=["kind"])
    data = Path(f"x.{suffix}").read_bytes()
    for length in range(0, len(data), len(data) // 20):
        Path(f"cut.{suffix}").write_bytes(data[:length])
        with pytest.raises(SamplesError):
            read_table(f"cut.{suffix}", columns=["a"], drop_missing=True)


def test_a_workbook_without_names_loses_no_row():
    Path("x.xlsx").write_bytes(workbook(X.tolist()))
    found = read_table("x.xlsx")
    np.testing.assert_array_equal(found, X)
    assert found.columns == ()


# The command


FAST = ["--backend", "autograd", "--recipe", "single", "--epochs", 2]


def test_the_command_keeps_names_puts_columns_right_and_identifiers_beside(capsys):
    Path("x.csv").write_text(text_of(X))
    assert run(capsys, "fit", "x.csv", *FAST, "--drop", "b", "--out", "f")[0] == 0
    result = ismcore.load("f")
    assert result.feature_names == ("a", "c")
    rows = [f'"r, {k}",{c!r},{a!r}' for k, (a, _, c) in enumerate(X[:5].tolist())]
    Path("y.csv").write_text("\n".join(["who,c,a", *rows, "lost,,1"]) + "\n")
    words = ["score", "f", "y.csv", "--id", "who", "--drop-missing"]
    code, out, _ = run(capsys, *words)
    assert (code, "note     1 of 6 rows have missing values and were dropped" in out) == (0, True)
    lines = Path("y.score.csv").read_text().splitlines()
    assert lines[0] == "who,score_a,score_c"
    assert [line[:7] for line in lines[1:]] == [f'"r, {k}",'[:7] for k in range(5)]
    np.testing.assert_array_equal(read_table("y.score.csv", drop=["who"]), result.score(X[:5, [0, 2]]))
    code, _, err = run(capsys, *words, "--out", "y.npy")
    assert (code, "--id is kept in a .csv file" in err) == (2, True)
    code, _, err = run(capsys, "score", "f", "x.csv")
    assert code == 2
    assert err.endswith("are 'a', 'c': extra 'b'; pass these columns, in any order, or an array without names\n")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--columns", "c,a"], ["c", "a"]),
        (["--columns", '"x, y",a'], ["x, y", "a"]),
        (["--columns", "a,2-3"], ["a", "c", "x, y"]),
        (["--drop", "b", "--drop", "0"], ["c", "x, y"]),
        (["--columns", "0-2", "--drop", "b"], ["a", "c"]),
    ],
)
def test_the_command_takes_columns_by_name_and_number(capsys, words, kept):
    Path("x.csv").write_text(text_of(normal(d=4), ("a", "b", "c", '"x, y"')))
    assert run(capsys, "fit", "x.csv", *FAST, *words, "--out", "f")[0] == 0
    assert ismcore.load("f").feature_names == tuple(kept)


def test_the_command_reads_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text_of(X).encode())))
    code, out, _ = run(capsys, "fit", "-", *FAST)
    assert (code, out.splitlines()[0]) == (0, "samples  n = 60, d = 3: a, b, c")
    assert Path("stdin.ismcore.safetensors").exists()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text_of(X[:, ::-1], NAMES[::-1]).encode())))
    assert run(capsys, "score", "stdin.ismcore.safetensors", "-")[0] == 0
    np.testing.assert_array_equal(read_table("stdin.score.csv"), ismcore.load("stdin.ismcore.safetensors").score(X))


def test_the_command_calls_its_files_as_the_table_is_called(capsys):
    Path("x.csv.gz").write_bytes(gzip.compress(text_of(X).encode()))
    assert run(capsys, "fit", "x.csv.gz", *FAST)[0] == 0
    assert run(capsys, "score", "x.ismcore.safetensors", "x.csv.gz")[0] == 0
    assert sorted(os.listdir()) == ["x.csv.gz", "x.ismcore.safetensors", "x.score.csv"]


def test_groups_in_a_file_stay_beside_their_rows_where_some_are_dropped(capsys):
    x = normal(80)
    lines = text_of(x).splitlines()
    lines[3] = "1,,2"
    Path("x.csv").write_text("\n".join(lines) + "\n")
    Path("g.txt").write_text("".join(f"{k // 8}\n" for k in range(80)))
    assert run(capsys, "fit", "x.csv", *FAST, "--groups", "g.txt", "--drop-missing", "--out", "f")[0] == 0
    kept = np.delete(np.arange(80), 2)
    expected = ismcore.fit(Frame(x[kept], NAMES), groups=kept // 8, **{**QUIET, "validation": None})
    np.testing.assert_array_equal(ismcore.load("f").score(x), expected.score(x))


# Words of other libraries


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lr": 0.1}, r"'lr': it is optimizer=ismcore\.Adam\(learning_rate\)"),
        ({"random_state": 0}, "'random_state': it is seed="),
        ({"verbose": 1}, "'verbose': it is progress="),
        ({"max_iter": 9}, "'max_iter': it is epochs="),
        ({"hidden_layer_sizes": (8,)}, r"it is model=ismcore\.MLP\(hidden"),
        ({"weights": [1]}, "it is sample_weight="),
        ({"epocs": 3}, "did you mean 'epochs'"),
        ({"zzz": 3}, "'zzz': it has x, backend, model"),
    ],
)
def test_arguments_of_other_libraries_are_pointed_out(given, said):
    for fit in (ismcore.fit, ismcore.bootstrap):
        with pytest.raises(TypeError, match=said) as refused:
            fit(X, **given)
        assert isinstance(refused.value, ismcore.ArgumentUnknown)


def test_a_second_argument_without_a_name_is_no_label():
    with pytest.raises(ismcore.ArgumentUnknown, match=r"ismcore\.fit takes x without a name.*labels y have no part"):
        ismcore.fit(X, X[:, 0])
    with pytest.raises(ismcore.ArgumentUnknown, match=r"ismcore\.resume has no argument 'n_epochs': it is epochs="):
        ismcore.resume("run", X, n_epochs=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fti", "x.csv"], "did you mean 'fit'"),
        (["scores"], "did you mean 'score'"),
        (["fit", "x.csv", "--lr", "1"], "'--learning-rate'"),
    ],
)
def test_commands_and_options_that_are_meant_are_named(capsys, words, said):
    code, _, err = run(capsys, *words)
    assert (code, said in err) == (2, True)


def test_rows_of_a_table_keep_names_and_what_stands_beside():
    table = read_table(io.BytesIO(text_of(X).encode()), beside="c")
    assert (len(table), repr(table)) == (60, "Table of 60 rows and 2 columns: a, b")
    for rows in (slice(3, 50, 7), [5, 2], 4, X[:, 0] > 0.0):
        some = table[rows]
        np.testing.assert_array_equal(some, np.atleast_2d(X[rows, :2]))
        np.testing.assert_array_equal(some.beside["c"].astype(float), np.atleast_1d(X[rows, 2]))
        assert some.columns == ("a", "b")
    assert table[5:][3:].rows.tolist() == list(range(8, 60))


def test_what_is_no_path_and_no_binary_stream_is_named():
    with pytest.raises(SamplesError, match="it is no path"):
        read_table("a\0.csv")
    with pytest.raises(SamplesError, match="a stream must be binary"):
        read_table(io.StringIO("1,2\n"))
    with pytest.raises(FileNotFoundError):
        read_table(b"none.csv")
    with pytest.raises(SamplesError, match="from a path or a binary stream, not from None"):
        read_table(None)


def test_one_column_may_be_named_alone():
    Path("x.csv").write_text("kind,a,b\nred,1,2\n")
    assert read_table("x.csv", drop="kind").columns == ("a", "b")
    assert read_table("x.csv", columns="b").x.tolist() == read_table("x.csv", columns=2).x.tolist() == [[2.0]]
    assert read_table("x.csv", drop=0).columns == ("a", "b")
