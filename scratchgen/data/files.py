"""The user's own data: a folder of pictures, arrays in a .npy or .npz file, or a table in a .csv file.

Everything is checked when it is loaded, and an error names the file and the first thing that is wrong. A NaN, an odd size
or a pickled object costs a minute if it is found here, and a day if it is found in a loss curve. If the data has no test
part, a tenth of it, always the same one, becomes the test part.
"""

import math
import os
import sys
from pathlib import Path

import numpy as np

from ..backend import UsageError
from .order import fixed_order
from .tables import as_table, check_names, is_table, read_csv, standardised

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".avif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".tga",
    ".ppm", ".pgm", ".pbm", ".pnm", ".ico",
}  # fmt: skip
PARTS = {
    "train": {"train", "training"},
    "test": {"test", "testing", "val", "valid", "validation"},
}  # folders of these names hold the parts of a data set, not classes
MOST_CLASSES = 100_000  # a larger label is hardly a class: networks have an input for every class

# The arrays that an .npz may hold together, and names of columns with them. A single array may have any name.
LAYOUTS = [
    {"x", "labels"},
    {"x_train", "labels_train"},
    {"x_train", "x_test"},
    {"x_train", "x_test", "labels_train", "labels_test"},
]


def load_folder(folder):
    """(x_train, x_test, labels_train, labels_test, shape) of the pictures under a folder, in the order of their paths.

    Pictures in subfolders are labelled by their subfolder (0, 1, ... in alphabetical order). Pictures directly in the folder
    have no labels. If the folder holds only folders called train and test (or training, validation, ...), these are the two
    parts of the data. If it holds only one folder of folders, that one is used instead. If every picture is grey, shape is
    (h, w); otherwise it is (h, w, 3). Transparent pixels become white. Hidden files are skipped. Files that are not pictures
    are skipped too, with a message on standard error. Links are followed. Needs Pillow.
    Raises UsageError for an unreadable picture, different sizes, classes that are not clear, or no pictures at all.
    """
    paths = find_pictures(folder)
    top = common_top(folder, paths)
    parts = [part_of(path.relative_to(top).parts[0]) for path in paths]
    if None in parts or len(set(parts)) == 1:  # one part, of which a tenth becomes the test pictures
        parts = None
        classes = find_classes(top, paths)
    else:
        classes = find_classes(top, paths, depth=1)
    images = read_pictures(paths)  # (N, h, w, 3) uint8
    if (images == images[..., :1]).all():
        images = images[..., 0]  # (N, h, w)
    labels = None if classes is None else np.unique(classes, return_inverse=True)[1].astype(np.int64)  # (N,)
    x, shape = flatten(images, folder)
    if parts is None:
        return *split(x, labels, folder), shape
    train = np.array(parts) == "train"
    if labels is None:
        return x[train], x[~train], None, None, shape
    if unseen := only_to_test_on(np.array(classes)[train], np.array(classes)[~train]):
        raise UsageError(f"{folder}: {unseen}: add some")
    return x[train], x[~train], labels[train], labels[~train], shape


def only_to_test_on(train, test):
    """A message about the first class, a label or a name, that is only in the test part, or ""."""
    unseen = sorted(set(test) - set(train))
    return f"class {unseen[0]} has test examples but no training examples" if unseen else ""


def find_pictures(folder):
    """The paths of all pictures below a folder, sorted. A message on standard error says which files are left out."""
    pictures, others, seen = [], [], set()
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if os.path.realpath(here) in seen:  # otherwise a link to a folder above would be followed for ever
            raise UsageError(f"{here}: was already read under another name: remove one of the links")
        seen.add(os.path.realpath(here))
        for path in (Path(here) / name for name in files if not name.startswith(".")):
            (pictures if path.suffix.lower() in SUFFIXES else others).append(path)
    if not pictures:
        raise UsageError(f"{folder}: no pictures in this folder: put {', '.join(sorted(SUFFIXES))} files in it")
    if others:
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in others)[:3]) + ", ..." * (len(others) > 3)
        print(
            f"{folder}: left out {counted(len(others), 'file')} whose names do not end like those of pictures: {names}",
            file=sys.stderr,
        )
    return sorted(pictures)


def refuse(error):
    raise error


def counted(n, noun):
    return f"{n} {noun}{'s' * (n != 1)}"


def common_top(folder, paths):
    """The folder whose entries are classes or parts. It is the given folder, or one below if that holds only one folder of
    folders, as an unpacked archive does."""
    while True:
        below = [path.relative_to(folder).parts for path in paths]
        first, *others = {parts[0] for parts in below}
        if others or not (part_of(first) or all(len(parts) > 2 for parts in below)):
            return folder
        folder = folder / first


def part_of(name):
    """ "train" or "test" for a folder of such a name, or None."""
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def find_classes(top, paths, depth=0):
    """The name of the folder each picture is in, `depth` folders below the top, or None if none is in such a folder."""
    below = [path.relative_to(top).parts[depth:] for path in paths]
    nested = [len(parts) > 1 for parts in below]
    if not any(nested):
        return None
    if not all(nested):
        stray = paths[nested.index(False)]
        raise UsageError(f"{stray}: lies beside subfolders that hold pictures: move it into the subfolder of its class")
    if all(len(parts) > 2 for parts in below):  # folders of folders: which of the two are the classes?
        inner = {}
        for outer, name, *_ in below:
            inner.setdefault(name, set()).add(outer)
        shared = sorted(name for name, outers in inner.items() if len(outers) > 1)
        if len(shared) > 1:
            first, second = sorted(inner[shared[0]])[:2]
            raise UsageError(
                f"{top}: both {first} and {second} have a folder {shared[0]}, so it is not clear which are the classes: "
                "give a folder that holds one folder for each class, or one that holds train and test"
            )
    return [parts[0] for parts in below]


def read_pictures(paths):
    """All pictures as RGB, (N, h, w, 3) uint8."""
    first = read_picture(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    for i, path in enumerate(paths):
        image = read_picture(path)
        if image.shape != first.shape:
            (h, w, _), (first_h, first_w, _) = image.shape, first.shape
            raise UsageError(f"{path} is {w}x{h} pixels but {paths[0]} is {first_w}x{first_h}: make all one size")
        images[i] = image
    return images


def read_picture(path):
    """One picture as (h, w, 3) uint8, upright, transparent pixels on white; of an animation, the first frame."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UsageError(f"{path}: reading pictures needs Pillow: pip install pillow") from None
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)  # cameras store "turned by 90°" beside the pixels
            mode, rgba = image.mode, image.convert("RGBA")
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise UsageError(f"{path}: unreadable picture ({type(error).__name__}): replace or remove it") from None
    if mode.startswith(("I", "F")):  # Pillow would clip these, not scale them
        raise UsageError(f"{path}: more than 8 bits per pixel (mode {mode}): save it with 8, or use a .npy of floats")
    white = Image.new("RGBA", rgba.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))  # (h, w, 3)


def load_arrays(path, scale=None):
    """The arrays of a .npy or .npz file: (x_train, x_test, labels_train, labels_test, shape, columns, scale).

    An .npz holds x and optionally labels; or x_train and optionally labels_train, x_test, labels_test; or one array of
    any name. Pictures are (N, h, w), (N, h, w, 3) or (N, D): uint8, or floats in [0, 1]. Rows of D = k² numbers are
    read as k×k pictures, other rows as 1×D. Float rows of one or two numbers are points, and may have any finite value.
    Float rows of three or more are a table if one number lies outside [0, 1], if the .npz holds the names of its columns
    under `columns`, or if a scale is given. A table's columns are standardised, by this scale or that of its training part;
    of other data, columns and scale are None. Pickled objects are never loaded. Raises UsageError for anything else.
    """
    arrays = read_arrays(path)
    columns = check_names(arrays.pop("columns").ravel(), f"{path}, columns") if {"columns"} < set(arrays) else None
    x_train, x_test, labels_train, labels_test = name_arrays(arrays, path)
    table = scale is not None or columns is not None or is_table(x_train) or is_table(x_test)

    def rows_of(x):
        return (as_table(x, columns, path), None) if table else flatten(x, path)

    x_train, shape = rows_of(x_train)  # (N, D)
    labels_train = check_labels(labels_train, len(x_train), path)
    if x_test is None:
        x_train, x_test, labels_train, labels_test = split(x_train, labels_train, path)
    else:
        x_test, test_shape = rows_of(x_test)
        if (shape, x_train.shape[1]) != (test_shape, x_test.shape[1]):
            raise UsageError(f"{path}: x_train and x_test hold examples of different shapes: save both with the same")
        labels_test = check_labels(labels_test, len(x_test), path)
        if labels_test is not None and (unseen := only_to_test_on(labels_train, labels_test)):
            print(f"{path}: {unseen}", file=sys.stderr)
    if table:
        x_train, x_test, scale = standardised(x_train, x_test, columns, path, scale)
    return x_train, x_test, labels_train, labels_test, shape, columns, scale


def load_csv(path, scale=None):
    """The table of a .csv file: (x_train, x_test, labels_train, labels_test, None, columns, scale). See tables.read_csv.

    The columns are standardised by the scale, by default that of the training part.
    """
    values, labels, columns = read_csv(path)  # (N, D), (N,) or None
    x_train, x_test, *labels = split(values, check_labels(labels, len(values), path), path)
    x_train, x_test, scale = standardised(x_train, x_test, columns, path, scale)
    return x_train, x_test, *labels, None, columns, scale


def read_arrays(path):
    """{name: array} of an .npz file; a .npy file's one array is called x."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)  # a pickle can run code
            return {"x": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file: check the path") from None
    except Exception as error:  # zipfile, zlib and NumPy's parser of headers raise almost anything on a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        if "pickle" in reason:  # NumPy says this of any other content, and advises to load it unsafely
            reason = "pickled objects, or not a NumPy file"
        raise UsageError(f"{path}: not readable ({reason}): save plain arrays with numpy.save or savez") from None


def name_arrays(arrays, path):
    """x_train, x_test, labels_train, labels_test by their names in the file; None for those that it does not have."""
    if len(arrays) == 1:
        return *arrays.values(), None, None, None
    if set(arrays) not in LAYOUTS:
        found = ", ".join(sorted(arrays))[:100] or "no arrays"
        layouts = "x and labels; x_train and labels_train; or x_train and x_test, both with labels or both without"
        raise UsageError(f"{path}: holds {found}: save one array; {layouts}")
    x, labels = ("x", "labels") if "x" in arrays else ("x_train", "labels_train")
    return arrays[x], arrays.get("x_test"), arrays.get(labels), arrays.get("labels_test")


def flatten(array, path, first=0):
    """Examples as rows, (N, D) float32, and the shape that turns a row back into a picture (None for points).

    first: the number of the array's first example, for messages.
    """
    if array.ndim not in (2, 3, 4) or (array.ndim == 4 and array.shape[3] != 3):
        raise UsageError(f"{path}: array of shape {array.shape}: save pictures as (N, h, w), (N, h, w, 3) or (N, D)")
    if array.size == 0:
        raise UsageError(f"{path}: array of shape {array.shape} is empty: save at least 2 examples")
    rows = array.reshape(len(array), -1)  # (N, D)
    n_numbers = rows.shape[1]
    points = array.ndim == 2 and n_numbers <= 2 and array.dtype.kind == "f"
    x = to_float(rows, points, path, first)
    if points:
        return x, None
    if array.ndim > 2:
        return x, array.shape[1:]
    side = math.isqrt(n_numbers)
    return x, (side, side) if side * side == n_numbers else (1, n_numbers)


def to_float(rows, points, path, first=0):
    """The rows as float32: uint8 divided by 255, floats unchanged. Raises UsageError for numbers that are not allowed."""
    if rows.dtype == np.uint8:
        return np.divide(rows, 255, dtype=np.float32)
    if rows.dtype.kind != "f":
        raise UsageError(
            f"{path}: numbers of type {rows.dtype}: save pictures as uint8 or floats in [0, 1], points and tables as floats"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, and is refused below
        x = rows.astype(np.float32)
    good = np.isfinite(x) if points else (x >= 0) & (x <= 1)  # a NaN is neither
    if not good.all():
        example, column = np.unravel_index(good.argmin(), good.shape)
        remedy = "finite numbers: remove it" if points else "pixels in [0, 1]: rescale them, or save uint8"
        where = f"in example {first + example}"
        raise UsageError(f"{path}: value {rows[example, column]} {where}, but there must be {remedy}")
    return x


def check_labels(labels, n, path):
    """Labels as int64 (n,), or None."""
    if labels is None:
        return None
    if labels.dtype.kind not in "iub" or labels.ndim != 1:
        raise UsageError(f"{path}: labels of shape {labels.shape} and type {labels.dtype}: save integers of shape (N,)")
    if len(labels) != n:
        raise UsageError(f"{path}: {len(labels)} labels for {n} examples: save one label per example")
    for label in (labels.min(), labels.max()):
        if not 0 <= label < MOST_CLASSES:
            raise UsageError(f"{path}: label {label} is not a class: number the classes 0, 1, 2, ...")
    return labels.astype(np.int64)


def split(x, labels, path):
    """x_train, x_test, labels_train, labels_test: a tenth, and at least one example, is for testing."""
    if len(x) < 2:
        raise UsageError(f"{path}: 1 example, but one to train on and one to test on are needed: add more")
    order = fixed_order(len(x))  # (N,)
    test, train = np.split(order, [max(1, len(x) // 10)])
    if labels is None:
        return x[train], x[test], None, None
    return x[train], x[test], labels[train], labels[test]
