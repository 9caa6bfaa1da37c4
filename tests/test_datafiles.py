"""Samples from files: the same numbers whatever the format, or an error with file, line and column."""

import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ismcore import SamplesError
from ismcore.samples.tables import arrays as tables
from ismcore.samples.tables.reading import read_samples

X = np.array([[1.5, -2.0, 3e-300], [0.1, 5.0, 6.0], [7.0, 8.0, 9.25]])
ROWS = [[repr(float(value)) for value in row] for row in X]
NAMES = ["acid", "pH, at 20", "grade"]


def written(folder, text, name="x.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def table(delimiter, end="\n", header=None):
    lines = [delimiter.join(row) for row in ROWS]
    return end.join([*([header] if header else []), *lines]) + end


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " ", "   ", ", ", " ; "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_whatever_separates_cells_and_lines(tmp_path, delimiter, end):
    np.testing.assert_array_equal(read_samples(written(tmp_path, table(delimiter, end))), X)


@pytest.mark.parametrize(
    ("delimiter", "header"),
    [
        (",", "acid,pH,grade"),
        (";", '"acid";"pH, at 20";"grade"'),
        ("\t", "acid\tpH, at 20\tgrade"),
        (" ", "acid pH grade"),
        (",", ",pH,grade"),
        (",", "\ufeffacid,pH,grade"),
        (",", "# written by hand\n\nacid,pH,grade\n"),
        (" ", "# acid pH grade"),
    ],
)
def test_a_line_of_names_and_comments_are_passed_over(tmp_path, delimiter, header):
    np.testing.assert_array_equal(read_samples(written(tmp_path, table(delimiter, header=header))), X)


def test_a_byte_order_mark_is_no_part_of_a_number(tmp_path):
    np.testing.assert_array_equal(read_samples(written(tmp_path, table(","), encoding="utf-8-sig")), X)


def test_one_column_is_one_dimension(tmp_path):
    for text in ("1\n2\n3\n", "fixed acidity\n1\n2\n3\n", "1\n2\n3"):
        np.testing.assert_array_equal(read_samples(written(tmp_path, text)), [[1.0], [2.0], [3.0]])


def test_a_written_table_comes_back_to_the_bit(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 4)) * 10.0 ** np.arange(-200, 200, 100)
    for delimiter in (",", " "):
        text = io.StringIO()
        np.savetxt(text, x, delimiter=delimiter, header="a b c d")
        np.testing.assert_array_equal(read_samples(written(tmp_path, text.getvalue())), x)


def test_columns_are_kept_in_the_order_asked_for_and_others_may_hold_anything(tmp_path):
    text = "kind,acid,pH\nred,1,2\nwhite,,4\n"
    np.testing.assert_array_equal(read_samples(written(tmp_path, text), columns=[2]), [[2.0], [4.0]])
    np.testing.assert_array_equal(read_samples(written(tmp_path, table(",")), columns=[2, 0]), X[:, [2, 0]])
    np.save(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(read_samples(tmp_path / "x.npy", columns=[2, 0]), X[:, [2, 0]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acid,kind\n1,2\n3,red\n5,white\n", r"line 3, column 1 \('kind'\).*'red' is no finite number"),
        ("1,2\n3,red\n", r"line 2, column 1, .*'red'"),
        ("red,1\nwhite,2\n", r"line 1, column 0, .*'red'"),
        ("7.4,NA,1\n7.8,0.5,2\n", r"line 1, column 1, .*'NA'"),
        ("acid,pH\n\n1,2\n3,\n", r"line 4, column 1 \('pH'\).*empty"),
        (",1\n2,3\n", r"line 1, column 0, .*empty"),
        ("1,2\n3,nan\n", r"line 2, column 1, .*'nan' is no finite number"),
        ("1,2\n3,-inf\n", r"line 2, column 1, .*'-inf'"),
        ("nan,nan\n1,2\n", r"line 1, column 0"),
        ("1,5;2.5\n3,5;4,5\n", r"line 1, column 0: '1,5' has a decimal comma.*line 1, column 1: '2.5' a decimal point"),
        ("1.234,5;2,5\n", r"line 1, column 0.*'1\.234,5'.*thousands without a mark"),
        ("1,234,567;2,5\n", r"line 1, column 0.*'1,234,567'.*thousands without a mark"),
        ("a,b\n1,2\n3,4,5\n", r"line 3 has 3 cells, and the first line has 2"),
        ("1,2\n3\n", r"line 2 has 1 cells"),
        ("1 2\n3 4 5\n", r"line 2 has 3 cells"),
        ("acid,pH\n", r"names and no rows"),
        ("", r"no rows"),
        ("\n# nothing\n", r"no rows"),
        ('1,2\n"3,4\n', r"line 2 is no row"),
        ("1,2\n3,4\n", r"no column 7: it has 2"),
    ],
)
def test_a_fault_in_a_table_is_named_with_its_place(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(SamplesError, match=f"{re.escape(str(path))}: .*{words}"):
        read_samples(path, columns=[0, 7] if "no column" in words else None)


def test_text_that_is_not_utf8_is_named(tmp_path):
    for text, encoding in (("1,2\n3,\xe9\n", "latin1"), ("1\t2\n", "utf-16")):
        (tmp_path / "x.csv").write_bytes(text.encode(encoding))
        with pytest.raises(SamplesError, match=f"no text in UTF-8, .* by iconv -f {encoding} -t utf-8"):
            read_samples(tmp_path / "x.csv")


@pytest.mark.parametrize("x", [X, X[:, 0], np.asfortranarray(X), X.astype(">f4"), np.arange(6).reshape(3, 2)])
def test_arrays_come_back_as_float64_rows(tmp_path, x):
    np.save(tmp_path / "x.NPY", x)
    (tmp_path / "x.NPY").exists() or (tmp_path / "x.NPY.npy").rename(tmp_path / "x.NPY")
    np.savez(tmp_path / "one.npz", anything=x)
    np.savez_compressed(tmp_path / "named.npz", y=np.zeros(3), x=x)
    for name in ("x.NPY", "one.npz", "named.npz"):
        found = read_samples(tmp_path / name)
        np.testing.assert_array_equal(found, x.reshape(3, -1))
        assert found.dtype == np.float64
        assert found.flags.c_contiguous
        assert not isinstance(found, np.memmap)


def bytes_of(save, *args, **named):
    stream = io.BytesIO()
    save(stream, *args, **named)
    return stream.getvalue()


NPY = bytes_of(np.save, X)
OBJECTS = np.array([{}, 1], dtype=object)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.npz", bytes_of(np.savez, a=X, b=X), "holds a, b"),
        ("x.npz", bytes_of(np.savez), "holds none"),
        ("x.npy", bytes_of(np.save, OBJECTS, allow_pickle=True), "no plain numbers"),
        ("x.npz", bytes_of(np.savez, OBJECTS), "no plain numbers"),
        ("x.npy", NPY.replace(b"(3, 3)", b"(3,-3)"), "damaged"),
        (
            "x.npy",
            NPY.replace(b"(3, 3), }     ", b"(3, 3333333), }")[: len(NPY)],
            "header claims 79999992 bytes of numbers, and it holds 200",
        ),
        ("x.npy", NPY[:-1], "damaged"),
        ("x.npy", NPY[:30], "damaged"),
        ("x.npy", b"", "no .npy"),
        ("x.npy", b"1,2\n3,4\n", "no .npy"),
        ("x.npz", bytes_of(np.savez, X)[:-30], "damaged"),
        ("x.npy", bytes_of(np.save, np.zeros((2, 3, 4))), r"got \(2, 3, 4\)"),
        ("x.npy", bytes_of(np.save, X + 1j), "must be real"),
        ("x.npy", bytes_of(np.save, np.array([["a", "b"]])), "must be numbers"),
        ("x.npy", bytes_of(np.save, np.array([[1.0, np.nan]])), "NaN"),
        ("x.json", b"[1]", r"ends in '\.json': read it in Python"),
        ("x.npy.gz", b"", r"only text tables are read, such as \.csv\.gz"),
        ("x", b"1,2\n", "ends in ''"),
    ],
)
def test_a_fault_in_a_binary_file_is_named(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SamplesError, match=f"{re.escape(str(tmp_path / name))}: .*{words}"):
        read_samples(tmp_path / name)


def with_header(header, data=b"\0" * 64):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def with_shape(shape):
    return with_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': %s, }\n" % shape)


def patched(data, *changes):
    found = bytearray(data)
    for at, value in changes:
        found[at] = value
    return bytes(found)


def member(method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x.npy", with_shape(b"(4, 2)"))
    return stream.getvalue()


HEAD, CENTRAL = member(), member().rfind(b"PK\x01\x02")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.npy", with_header(b"[" * 5000 + b"\n")),  # a RecursionError or TokenError of the parser of headers
        ("x.npy", with_shape(b"(False, 2)")),
        ("x.npy", with_shape(b"(3, -18446744073709551617)")),
        ("x.npy", with_shape(b"(1e3, 2)")),
        ("x.npy", b"\x93NUMPY\x03\x00" + NPY[8:]),
        ("x.npy", b"\x93NUMPY\x09\x00" + NPY[8:]),
        ("x.npz", patched(HEAD, (6, HEAD[6] | 1), (CENTRAL + 8, HEAD[CENTRAL + 8] | 1))),  # encrypted
        ("x.npz", patched(HEAD, (8, 97), (CENTRAL + 10, 97))),  # compressed by a method that nobody knows
        *(("x.npz", patched(member(method), (48, 255), (49, 255))) for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)),
    ],
)
def test_whatever_a_codec_or_a_parser_raises_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SamplesError, match=r"damaged|of a version"):
        read_samples(tmp_path / name)


def test_an_archive_that_inflates_beyond_all_memory_is_refused_before(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", np.zeros((100_000, 2)))
    assert (tmp_path / "x.npz").stat().st_size < 20_000
    monkeypatch.setattr(tables, "memory", lambda: 3_000_000)
    with pytest.raises(SamplesError, match="1600000 bytes of numbers, and a copy, do not fit"):
        read_samples(tmp_path / "x.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    for suffix in ("txt", "tsv", "npz", "npy"):
        os.mkfifo(tmp_path / f"x.{suffix}")
        with pytest.raises(SamplesError, match="no regular file"):
            read_samples(tmp_path / f"x.{suffix}")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    with pytest.raises(SamplesError, match="no regular file"):
        read_samples(tmp_path / "zero.npz")


@pytest.mark.parametrize("cell", ["1_0", "-3_1.5", "1e-330", "0.002e-4000", "\uff11", "\u0967.5"])
def test_what_python_alone_takes_for_a_number_is_refused(tmp_path, cell):
    with pytest.raises(SamplesError, match=r"line 2, column 1.*digits 0 to 9"):
        read_samples(written(tmp_path, f"1,2\n3,{cell}\n"))


def test_zeros_and_the_least_numbers_are_read(tmp_path):
    x = read_samples(written(tmp_path, "0,0e5\n-0.00,5e-324\n"))
    np.testing.assert_array_equal(x, [[0.0, 0.0], [-0.0, 5e-324]])


def test_every_prefix_of_an_archive_is_refused(tmp_path):
    data = bytes_of(np.savez_compressed, x=X)
    for length in range(len(data)):
        (tmp_path / "x.npz").write_bytes(data[:length])
        with pytest.raises(SamplesError):
            read_samples(tmp_path / "x.npz")


def test_a_missing_file_is_the_builtin_error(tmp_path):
    for name in ("x.csv", "x.npy"):
        with pytest.raises(FileNotFoundError):
            read_samples(tmp_path / name)


def test_the_wine_table_has_a_row_a_wine():
    x = read_samples(Path(__file__).parent / "data" / "winequality-red.csv", columns=range(11))
    assert x.shape == (1599, 11)
    np.testing.assert_array_equal(x[0], [7.4, 0.7, 0, 1.9, 0.076, 11, 34, 0.9978, 3.51, 0.56, 9.4])
