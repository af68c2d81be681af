"""What several commands need: find the data of a model, and print numbers with their units."""

import pathlib

import numpy as np

from ..backend import UsageError
from ..data import Scale, load
from ..metrics.meanings import meaning
from ..train.checkpoint import load_model, read_checkpoint
from ..train.run import BEST


def show(found):
    """Print numbers and words with their names, their units, and whether lower or higher is better."""
    for name, value in found.items():
        value = value if isinstance(value, str) else f"{value:.5g}"
        print(f"  {name:<25} {value:<12} {meaning(name)}".rstrip())


def model_of(args):
    """(model, notes) of the run in args.dir after its last epoch, or with args.best after the one with the least test loss.

    Raises UsageError if there is no such run, or if it has no best epoch.
    """
    last, best = (pathlib.Path(args.dir) / name for name in ("checkpoint.npz", BEST))
    if args.best and not best.exists():
        kind = read_checkpoint(last)[0]["model"]
        why = "GANs and Boltzmann machines have no test loss, and older runs kept none"
        raise UsageError(f"--best: {args.dir} has no best epoch of its {kind} ({why}); leave --best out")
    return load_model(best if args.best else last, args.device)


def data_of(notes, given=None):
    """The Data that a model was trained on, or the given data. Raises UsageError if it cannot be loaded or does not fit."""
    if given is None and "data" not in notes:
        raise UsageError(f"the checkpoint of this {notes['model']} does not name its data; give the data with --data")
    try:
        data = load_for(notes, given or notes["data"], notes.get("seed", 0))
    except UsageError as error:
        raise UsageError(f"{error}" if given else f"{error}; if the data has moved, give it with --data") from None
    width, known = data.x_train.shape[1], notes["settings"].get("n_features")
    if known not in (None, width):
        remedy = "put back the data it was trained on, or give it with --data"
        raise UsageError(
            f"{data.name}: has {width} numbers per example, but the model was trained on {known}; {remedy}"
        )
    return data


def scale_of(notes):
    """The Scale of the table that a model was trained on, or None if it was trained on other data."""
    return Scale(*map(np.array, notes["scale"])) if notes.get("scale") else None


def load_for(notes, name, seed):
    """The Data called `name`, for a model with these notes, or for a new one, {}. A table gets the scale of the model.

    Raises UsageError if only one of data and model is for tables, or if a table has other columns than the model's.
    """
    scale = scale_of(notes)
    data = load(name, seed, scale, on_disk=True)
    if scale is not None and data.scale is None:
        raise UsageError(f"{data.name}: is not a table, but the model was trained on one; give a .csv or .npy file")
    if notes and scale is None and data.scale is not None:
        kind = "pictures" if notes.get("shape") else "numbers as they are"
        raise UsageError(
            f"{data.name}: is a table, to be standardised, but the model was trained on {kind}; give these"
        )
    pairs = zip(data.columns or (), notes.get("columns") or ())
    for k, (ours, theirs) in enumerate(pairs, 1):
        if ours != theirs:
            order = "give the same columns in the same order"
            raise UsageError(f"{data.name}: column {k} is {ours!r}, but the model was trained on {theirs!r}; {order}")
    return data
