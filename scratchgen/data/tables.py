"""Tables of real numbers: one column for each quantity, in units of its own. And the text files (.csv) that hold them.

A column may hold lengths near 0.001, and the next one incomes near 50,000. A network learns numbers of about unit size best.
So a model gets standardised columns, and what it makes is turned back:

    x = (value - mean) / std,      log p(value) = log p(x) - Σ log std

Mean and std are those of the training part. A column of few different values (a class, a count) has no density: a flow or a
mixture makes its log p as high as it likes there, and learns nothing.
"""

import csv
import io
import itertools
from array import array
from typing import NamedTuple

import numpy as np

from ..backend import UsageError, to_host

LABELS = ("label", "labels")  # a column of this name holds the classes of the rows
MISSING = {"na", "n/a", "#n/a", "nan", "null", "none", "?", "-"}  # what programs write where there is no number
POINT = "write decimals with a point, and thousands without a sign"


class Scale(NamedTuple):
    """The mean and the standard deviation of each column of a table, both (D,) float64."""

    mean: np.ndarray
    std: np.ndarray

    @property
    def log_std(self) -> float:
        """Σ log std in nats: by so much -log p of the table's own numbers exceeds that of the standardised ones."""
        return float(np.log(self.std).sum())

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Columns for a model, (N, D) float32, from the numbers of the table (N, D)."""
        return ((values - self.mean) / self.std).astype(np.float32)

    def undo(self, x: np.ndarray) -> np.ndarray:
        """The numbers of the table, (N, D) float64, from standardised ones (N, D) on any device: the way back."""
        return to_host(x) * self.std + self.mean


def is_table(array):
    """Whether an array of a file is a table, not pictures or points: float rows of three numbers or more, not all of which
    are pixels in [0, 1]."""
    if array is None or array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] <= 2:
        return False
    return bool((np.isfinite(array) & ((array < 0) | (array > 1))).any())  # a NaN among pixels is a fault of pictures


def named(columns, k):
    """Column k in words: by its name if there are names, or else by its number, counted from 0 as NumPy does."""
    return f"column {columns[k]!r}" if columns else f"column {k}"


def as_table(array, columns, path, first=0):
    """A table's numbers, (N, D) float64, from an array. Raises UsageError unless it is (N, D) of finite floats.

    first: the number of the array's first row, for messages.
    """
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise UsageError(f"{path}: {array.dtype} of shape {array.shape}, but a table is an array of floats (N, D)")
    if columns and len(columns) != array.shape[1]:
        raise UsageError(f"{path}: {len(columns)} names for {array.shape[1]} columns: save one name for each")
    finite = np.isfinite(array)
    if not finite.all():
        row, k = np.unravel_index(finite.argmin(), finite.shape)
        where = f"{path}, row {first + row}, {named(columns, k)}"
        raise UsageError(f"{where}: {array[row, k]} is not finite: replace it, or remove the row")
    return array.astype(np.float64)


def check_names(names, where):
    """The names of columns as a tuple of text. Raises UsageError, from `where` on, if one is empty or comes twice."""
    names = tuple(" ".join(str(name).split()) for name in names)  # a name in quotes may contain the end of a line
    for k, name in enumerate(names):
        if not name:
            remedy = "name it, or remove it (of pandas' row numbers: to_csv(..., index=False))"
            raise UsageError(f"{where}: column {k + 1} of {len(names)} has no name: {remedy}")
        if name in names[:k]:
            raise UsageError(f"{where}: two columns are called {name!r}: rename one of them")
    return names


def standardised(x_train, x_test, columns, path, scale=None):
    """(x_train, x_test, scale): the parts of a table (N, D) in units of a scale, by default that of the training part.

    Raises UsageError for a column that never changes in the training part, and for a scale of another width.
    """
    if scale is None:
        scale = measured(x_train, columns, path)
    elif len(scale.mean) != x_train.shape[1]:
        width = f"has {x_train.shape[1]} columns, but the model was trained on {len(scale.mean)}"
        raise UsageError(f"{path}: {width}: give a table with the same columns")
    return scale.standardised(x_train), scale.standardised(x_test), scale


def measured(x, columns, path):
    """The Scale of x (N, D)."""
    with np.errstate(over="ignore", invalid="ignore"):
        scale = Scale(x.mean(axis=0), x.std(axis=0))
    return checked_scale(scale, x.min(axis=0), x.max(axis=0), columns, path)


def checked_scale(scale, low, high, columns, path):
    """A Scale. Raises UsageError unless each column changes, from low (D,) to high (D,), and is in a usable unit."""
    constant = low == high
    if constant.any():
        k = constant.argmax()
        remedy = "remove this column" + ("" if columns else "; if these are pictures, save uint8 or floats in [0, 1]")
        raise UsageError(f"{path}: {named(columns, k)} is {low[k]:g} in every training row: {remedy}")
    good = np.isfinite(scale.std) & (scale.std > 0)
    if not good.all():
        k = good.argmin()
        raise UsageError(
            f"{path}: {named(columns, k)} has numbers whose squares are too large or too small, such as {high[k]:g}: "
            "use another unit"
        )
    return scale


# ---- text files ----


def read_csv(path):
    """(values (N, D) float64, labels (N,) int64 or None, columns) of a text file whose first line names the columns.

    Cells are separated by commas, semicolons or tabs, and may stand in quotes. Empty lines are skipped. The text is UTF-8.
    A column called label or labels holds classes, whole numbers 0, 1, 2, ..., and is not among the D columns. Raises
    UsageError, with the line and the column, for a cell that is not a finite number, for rows of different lengths, and for
    names that are missing or come twice.
    """
    text = read_text(path)
    separator = separator_of(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    numbers, lines = array("d"), array("q")  # lists of Python's floats would take four times the memory
    try:
        first = next(filter(None, rows), [])
        if all(map(is_number, first)):
            found = f"holds numbers ({', '.join(first)[:30]})" if first else "is empty"
            raise UsageError(f"{path}, line 1: {found}, but the first line must name the columns: add a line of names")
        names = check_names(first, f"{path}, line {rows.line_num}")
        for cells in filter(None, rows):
            if len(cells) != len(names):
                hint = "" if separator != "," else f" ({POINT})"
                counts = f"{len(cells)} cell{'s' * (len(cells) != 1)}, but the first line names {len(names)} columns"
                raise UsageError(f"{path}, line {rows.line_num}: {counts}: give each row one number for each{hint}")
            try:
                numbers.extend(map(float, cells))
            except ValueError:
                k, cell = next((k, cell) for k, cell in enumerate(cells) if not is_number(cell))
                where = f"{path}, line {rows.line_num}, column {names[k]!r}"
                raise UsageError(f"{where}: {what_is_wrong(cell)}") from None
            lines.append(rows.line_num)
    except csv.Error as error:
        raise UsageError(f"{path}, line {rows.line_num}: {error}: check the quotes there") from None
    if not lines:
        raise UsageError(f"{path}: names {len(names)} columns, but has no rows: add at least 2")
    values = np.frombuffer(numbers).reshape(-1, len(names))
    finite = np.isfinite(values)
    if not finite.all():
        row, k = np.unravel_index(finite.argmin(), finite.shape)
        where = f"{path}, line {lines[row]}, column {names[k]!r}"
        raise UsageError(f"{where}: {values[row, k]} is not a finite number: fill one in, or remove the row")
    return without_labels(values, names, lines, path)


def without_labels(values, names, lines, path):
    """(values, labels, names): the column of labels, if there is one, taken out of a table. lines: the line of each row."""
    which = [k for k, name in enumerate(names) if name.lower() in LABELS]
    if not which:
        return values, None, names
    if len(which) > 1 or len(names) == 1:
        found = "two columns of labels" if len(which) > 1 else "no column besides the labels"
        raise UsageError(f"{path}, line 1: {found}: give one column of labels at most, and at least one of numbers")
    labels = values[:, which[0]]
    good = (labels >= 0) & (labels == np.round(labels))
    if not good.all():
        where = f"{path}, line {lines[good.argmin()]}, column {names[which[0]]!r}"
        remedy = "number the classes 0, 1, 2, ..., or rename the column if it is no class"
        raise UsageError(f"{where}: {labels[good.argmin()]:g} is not a whole number >= 0: {remedy}")
    classes = np.minimum(labels, 1e15).astype(np.int64)  # a number too large for int64 is no class either: check_labels
    return np.delete(values, which, axis=1), classes, tuple(name for name in names if name.lower() not in LABELS)


def read_text(path):
    """The text of a file in UTF-8, without the mark with which some programs begin it."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file: check the path") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: is not UTF-8 text: save the table as CSV in UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}): check the file") from None


def separator_of(text):
    """The comma, semicolon or tab that divides the first two lines into the most cells, and into equally many if it can."""

    def counts(separator):
        try:
            first = len(next(csv.reader(lines[:1], delimiter=separator, strict=True)))
            second = len(next(csv.reader(lines[1:], delimiter=separator)))
        except csv.Error:  # a quote that does not stand beside this separator
            return False, 0
        return first == second > 1, first

    lines = [*itertools.islice(filter(str.strip, io.StringIO(text, newline=None)), 2), " ", " "][:2]
    return max(",;\t", key=counts)


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def what_is_wrong(cell):
    """What is wrong with a cell that is not a number, and what to do, in one line."""
    cell = cell.strip()
    if not cell or cell.lower() in MISSING:
        missing = f"{cell!r} stands for a missing number" if cell else "the cell is empty"
        return f"{missing}: fill one in, or remove the row"
    if "," in cell and is_number(cell.replace(",", "")):
        return f"{cell!r} has a comma: {POINT}"
    return f"{cell[:40]!r} is not a number: write one, or remove the column"
