"""sample: draw examples from a trained model and save them as a picture or as numbers."""

import pathlib

import numpy as np

from ..backend import UsageError, to_host, written_whole
from ..data import fixed_order
from ..plots import picture_of
from ..train.checkpoint import load_model
from .shared import data_of


def run(args):
    path = pathlib.Path(args.o)
    if args.n <= 0:
        raise UsageError(f"-n {args.n}: expected a whole number > 0")
    if path.suffix not in (".png", ".npy"):
        raise UsageError(f"-o {args.o}: expected a name that ends in .png or .npy")
    model, notes = load_model(pathlib.Path(args.dir) / "checkpoint.npz", args.device)
    if args.label is not None and not model.needs_labels:
        raise UsageError(f"--label {args.label}: a {notes['model']} takes no label; leave it out")
    x = to_host(model.sample(args.n, model.rng((args.seed, 0, 1)), args.label))
    if path.suffix == ".npy":
        with written_whole(path) as file:
            np.save(file, x)
        print(path)
    else:
        if args.data or "shape" not in notes:  # an older checkpoint does not contain the shape of its examples
            notes["shape"] = data_of(notes, args.data).shape
        shape = notes["shape"] and tuple(notes["shape"])
        picture_of(x, shape, path, None if shape else real_points(notes, args.data, args.n))  # prints the path itself


def real_points(notes, given, n):
    """At most n of the points that a model was trained on, or None where they are not to be had any more."""
    try:
        x = data_of(notes, given).x_train
    except UsageError:
        return None
    return x[fixed_order(len(x))[:n]]
