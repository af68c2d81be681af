"""Tables: every way to write one gives the same numbers, and a fault is named with its line and its column."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen.backend import Rng, UsageError
from scratchgen.data import Scale, fixed_order, load


def table(n=40, width=3, seed=0):
    """Numbers of very different sizes, (n, width)."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, width)) + rng.integers(-9, 9, width)) * 10.0 ** rng.integers(-6, 7, width)


def text_of(x, names, separator=",", quoting=csv.QUOTE_MINIMAL, end="\n"):
    """The text of a .csv file."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end).writerows([names, *x.tolist()])
    return text.getvalue()


def values_of(data):
    """All rows of a Data, in the units and in the order of its file."""
    x = data.scale.undo(np.concatenate([data.x_test, data.x_train]))
    return x[np.argsort(fixed_order(len(x)))]


def refusal(path, **options):
    with pytest.raises(UsageError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


# ---- what is read ----

names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters=',;"'), min_size=1, max_size=9
)


def no_number(name):
    try:
        float(name)
    except ValueError:
        return name.lower() not in ("label", "labels")
    return False


@given(
    columns=st.lists(names.filter(no_number), min_size=1, max_size=6, unique=True),
    n=st.integers(5, 40),
    separator=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_csv_gives_back_its_names_and_numbers(columns, n, separator, quoting, end, bom, seed, tmp_path_factory):
    x, path = table(n, len(columns), seed), tmp_path_factory.getbasetemp() / "x.csv"
    path.write_bytes(text_of(x, columns, separator, quoting, end).encode("utf-8-sig" if bom else "utf-8"))
    data = load(path)
    assert data.columns == tuple(columns) and data.shape is None and data.labels_train is None
    assert data.x_train.dtype == data.x_test.dtype == np.float32 and len(data.x_test) == max(1, n // 10)
    assert (np.abs(values_of(data) - x) < 1e-5 * data.scale.std).all()


@pytest.mark.parametrize("separator", ",;\t")
def test_a_name_may_contain_another_separator_or_the_same_in_quotes(separator, tmp_path):
    columns = ("height; width, depth\tand weight", "time")
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        (tmp_path / "x.csv").write_text(text_of(table(width=2), columns, separator, quoting), newline="")
        assert load(tmp_path / "x.csv").columns == ("height; width, depth and weight", "time")


def test_a_table_is_the_same_in_every_kind_of_file(tmp_path):
    x, columns = table(60, 4), ["a", "b", "c", "d"]
    (tmp_path / "x.csv").write_text(text_of(x, columns))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, columns=columns)
    from_csv, from_npy, from_npz = (load(tmp_path / f"x.{kind}") for kind in ("csv", "npy", "npz"))
    for data in (from_npy, from_npz):
        np.testing.assert_array_equal(data.x_train, from_csv.x_train)
        np.testing.assert_array_equal(data.x_test, from_csv.x_test)
    assert from_npz.columns == from_csv.columns == tuple(columns) and from_npy.columns is None


def test_columns_are_standardised_by_the_training_part_alone(tmp_path):
    x_train, x_test = table(200, 5), table(50, 5, seed=1)
    np.savez(tmp_path / "x.npz", x_train=x_train, x_test=x_test)
    data = load(tmp_path / "x.npz")
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(data.x_train.std(axis=0), 1, rtol=1e-5)
    expected = (x_test - x_train.mean(axis=0)) / x_train.std(axis=0)
    np.testing.assert_allclose(data.x_test, expected, rtol=1e-6)


def test_a_large_mean_does_not_cost_the_digits_of_a_small_spread(tmp_path):
    seconds = 1.7e9 + np.arange(100) / 8  # float32 has steps of 128 there
    (tmp_path / "x.csv").write_text(text_of(seconds[:, None], ["seconds"]))
    np.testing.assert_allclose(values_of(load(tmp_path / "x.csv"))[:, 0], seconds, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (np.random.default_rng(0).random((30, 3)), "pictures"),
        (np.random.default_rng(0).random((30, 3)) + 0.1, "table"),
        (np.random.default_rng(0).random((30, 3)) - 0.1, "table"),
        (np.random.default_rng(0).normal(size=(30, 2)), "points"),
        (np.random.default_rng(0).integers(0, 256, (30, 9), np.uint8), "pictures"),
    ],
)
def test_the_numbers_of_an_array_tell_what_it_is(x, kind, tmp_path):
    np.save(tmp_path / "x.npy", x)
    data = load(tmp_path / "x.npy")
    assert ("pictures" if data.shape else "table" if data.scale else "points") == kind
    np.savez(tmp_path / "x.npz", x=x.astype(float), columns=[f"c{k}" for k in range(x.shape[1])])
    assert load(tmp_path / "x.npz").scale is not None, "with names it is a table in any case"


@pytest.mark.parametrize("name", ["label", "Labels"])
def test_a_column_of_labels_is_taken_out(name, tmp_path):
    x = np.arange(60.0).reshape(20, 3)
    x[:, 1] = np.arange(20) % 3
    (tmp_path / "x.csv").write_text(text_of(x, ["a", name, "b"]))
    data = load(tmp_path / "x.csv")
    assert data.columns == ("a", "b") and data.n_classes == 3 and data.labels_train.dtype == np.int64
    rows = np.round(data.scale.undo(data.x_train)[:, 0] / 3).astype(int)
    np.testing.assert_array_equal(data.labels_train, rows % 3)


def test_new_rows_are_standardised_by_a_given_scale(tmp_path):
    scale, x = Scale(np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 2.0])), np.random.default_rng(0).random((10, 3))
    np.save(tmp_path / "x.npy", x)  # alone these would be pictures
    (tmp_path / "x.csv").write_text(text_of(x, "abc"))
    for kind in ("npy", "csv"):
        data = load(tmp_path / f"x.{kind}", scale=scale)
        found = np.concatenate([data.x_train, data.x_test]) * scale.std + scale.mean
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(x, axis=0), rtol=1e-5)
        assert data.shape is None and data.scale is scale
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    assert "has 2 columns, but the model was trained on 3" in refusal(tmp_path / "x.npy", scale=scale)


def test_log_std_is_the_difference_of_the_two_log_densities():
    scale = Scale(np.array([5.0, -1e4]), np.array([1e-3, 300.0]))
    x = Rng(0, "float64").normal((5, 2))
    values = scale.undo(x)
    in_its_units = -0.5 * ((values - scale.mean) / scale.std) ** 2 - np.log(scale.std) - 0.5 * np.log(2 * np.pi)
    standardised = -0.5 * scale.standardised(values) ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(in_its_units.sum(axis=1), standardised.sum(axis=1) - scale.log_std, rtol=1e-5)


# ---- what is refused ----

BAD_CSV = {
    "no number": (
        "a,b\n1,2\n\n3,four\n",
        "line 4, column 'b': 'four' is not a number: write one, or remove the column",
    ),
    "an empty cell": ("a,b\n1,2\n3,\n", "line 3, column 'b': the cell is empty: fill one in, or remove the row"),
    "a missing number": ("a,b\n1,2\nN/A,3\n", "line 3, column 'a': 'N/A' stands for a missing number"),
    "nan": ("a,b\n1,2\n3,nan\n5,6\n", "line 3, column 'b': nan is not a finite number: fill one in, or remove the row"),
    "inf": ("a,b\n1,2\n-inf,4\n", "line 3, column 'a': -inf is not a finite number"),
    "beyond float64": ("a,b\n1,2\n1e999,4\n", "line 3, column 'a': inf is not a finite number"),
    "a decimal comma": ("a;b\n1,5;2\n", "line 2, column 'a': '1,5' has a comma: write decimals with a point"),
    "a thousands comma": ('a,b\n"1,500.5",2\n', "line 2, column 'a': '1,500.5' has a comma"),
    "a cell too many": ("a,b\n1,2\n3,4,5\n", "line 3: 3 cells, but the first line names 2 columns: give each row one"),
    "decimal commas": ("a,b\n1,5,2,5\n", "write decimals with a point"),
    "a cell too few": ("a\tb\n1\t2\n3\n", "line 3: 1 cell, but the first line names 2 columns"),
    "a name twice": ("a,b, a\n1,2,3\n", "line 1: two columns are called 'a': rename one of them"),
    "no name": (",a,b\n0,1,2\n", "line 1: column 1 of 3 has no name: name it, or remove it (of pandas' row numbers"),
    "no names": ("1,2\n3,4\n", "line 1: holds numbers (1, 2), but the first line must name the columns: add a line"),
    "nothing": ("", "line 1: is empty, but the first line must name the columns"),
    "empty lines": ("\n\n", "is empty"),
    "no rows": ("a,b\n", "names 2 columns, but has no rows: add at least 2"),
    "one row": ("a,b\n1,2\n", "1 example, but one to train on and one to test on are needed"),
    "a constant": ("a,b\n1,5\n2,5\n3,5\n", "column 'b' is 5 in every training row: remove this column"),
    "too large to square": (
        "a\n1e200\n2e200\n-3e200\n",
        "column 'a' has numbers whose squares are too large or too small",
    ),
    "a quote left open": ('a,b\n1,"2\n3,4\n', "line 3: unexpected end of data: check the quotes there"),
    "a cell without an end": ("a,b\n1,2\n" + 200_000 * "3" + ",4\n", "line 3: field larger than field limit"),
    "labels that are not whole": ("a,label\n1,0\n2,1.5\n", "line 3, column 'label': 1.5 is not a whole number >= 0"),
    "negative labels": ("a,label\n1,0\n2,-1\n", "line 3, column 'label': -1 is not a whole number >= 0: number the"),
    "absurd labels": ("a,label\n1,0\n2,1e300\n", "is not a class"),
    "two columns of labels": ("a,label,labels\n1,0,0\n2,0,0\n", "line 1: two columns of labels"),
    "labels alone": ("label\n1\n2\n", "line 1: no column besides the labels"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_fault_in_a_csv_is_named_with_its_line_and_column(case, tmp_path):
    text, words = BAD_CSV[case]
    (tmp_path / "x.csv").write_text(text, newline="")
    assert words in refusal(tmp_path / "x.csv")


def test_a_file_that_is_no_text_or_is_not_there(tmp_path):
    (tmp_path / "x.csv").write_bytes("a,b\n1,2\nGröße,4\n".encode("latin-1"))
    assert "x.csv, line 3: is not UTF-8 text: save the table as CSV in UTF-8" in refusal(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    assert "is not UTF-8" in refusal(tmp_path / "x.csv")
    assert "no such file" in refusal(tmp_path / "none.csv")


def with_fault(value, row=3, k=1):
    x = table()
    x[row, k] = value
    return x


BAD_ARRAYS = {
    "nan": ({"x": with_fault(np.nan)}, "row 3, column 1: nan is not finite: replace it, or remove the row"),
    "inf, named": ({"x": with_fault(np.inf), "columns": list("abc")}, "row 3, column 'b': inf is not finite"),
    "a constant": (
        {"x": table() * [1, 0, 1] + [0, 7, 0]},
        "column 1 is 7 in every training row: remove this column; if th",
    ),
    "a name twice": ({"x": table(), "columns": list("aba")}, "columns: two columns are called 'a'"),
    "a name too few": ({"x": table(), "columns": list("ab")}, "2 names for 3 columns: save one name for each"),
    "named pictures": ({"x": np.ones((4, 3, 3)), "columns": list("abc")}, "but a table is an array of floats (N, D)"),
    "whole numbers": ({"x": np.ones((4, 3), int), "columns": list("abc")}, "int64 of shape (4, 3), but a table is"),
    "parts of two widths": ({"x_train": table(), "x_test": table(width=4)}, "different shapes"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_fault_in_an_array_is_named_with_its_row_and_column(case, tmp_path):
    arrays, words = BAD_ARRAYS[case]
    np.savez(tmp_path / "x.npz", **arrays)
    assert words in refusal(tmp_path / "x.npz")
