"""sample: draw examples from a trained model and save them as a picture or as numbers."""

import csv
import math
import pathlib
import sys

import numpy as np

from ..backend import UsageError, to_host, written_whole
from ..data import fixed_order
from ..plots import COLUMNS, picture_of, picture_of_table
from .shared import data_of, model_of, scale_of


def run(args):
    path = pathlib.Path(args.o)
    if args.n <= 0:
        raise UsageError(f"-n {args.n}: expected a whole number > 0")
    if path.suffix not in (".png", ".npy", ".csv"):
        raise UsageError(f"-o {args.o}: expected a name that ends in .png or .npy, or for a table in .csv")
    model, notes = model_of(args)
    if args.label is not None and not model.needs_labels:
        raise UsageError(f"--label {args.label}: a {notes['model']} takes no label; leave it out")
    scale = scale_of(notes)
    if path.suffix == ".csv" and scale is None:
        raise UsageError(f"-o {args.o}: only samples of a table have columns to write; use a name that ends in .npy")
    x = to_host(model.sample(args.n, model.rng((args.seed, 0, 1)), args.label))
    x = x if scale is None else scale.undo(x)
    names = notes.get("columns") or [f"x{k}" for k in range(x.shape[1])]
    if path.suffix == ".npy":
        with written_whole(path) as file:
            np.save(file, x)
        print(path)
    elif path.suffix == ".csv":
        with written_whole(path, "w") as file:
            csv.writer(file).writerows([names, *rows_of_text(x, scale.std)])
        print(path)
    elif scale is not None:
        if names[COLUMNS:]:
            print(f"{path}: shows {COLUMNS} columns, without {', '.join(names[COLUMNS:])}", file=sys.stderr)
        picture_of_table(x, names, path, real_points(notes, args.data, args.n))
    else:
        if args.data or "shape" not in notes:  # an older checkpoint does not contain the shape of its examples
            notes["shape"] = data_of(notes, args.data).shape
        shape = notes["shape"] and tuple(notes["shape"])
        picture_of(x, shape, path, None if shape else real_points(notes, args.data, args.n))  # prints the path itself


def real_points(notes, given, n):
    """At most n of the points or rows that a model was trained on, or None where they are not to be had any more."""
    try:
        data = data_of(notes, given)
    except UsageError:
        return None
    x = data.x_train[fixed_order(len(data.x_train))[:n]]
    return x if data.scale is None else data.scale.undo(x)


def rows_of_text(x, std):
    """The numbers x (N, D) of a table as lists, each rounded to about a millionth of its column's deviation std (D,).

    A model in float32 knows no more of them, and more digits would only seem exact.
    """
    decimals = [6 - math.floor(math.log10(deviation)) for deviation in std]
    return [[round(value, n) for value, n in zip(row, decimals)] for row in x.tolist()]
