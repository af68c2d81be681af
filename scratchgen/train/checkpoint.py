"""Checkpoints: one .npz with every array of the model's state and one JSON text for the rest. Never pickle.

They are written whole (backend.written_whole): whenever the process is killed, a reader finds the old checkpoint or the new
one, never half of one.
"""

import json

import numpy as np

from ..backend import Rng, UsageError, find_device, to_host, written_whole
from ..models import find_model, kind_of

VERSION = 1


def describe(model, **notes):
    """What a checkpoint says of a model beside its arrays, as it is read back (JSON has lists for tuples), and the notes."""
    dtype = next(iter(model.parameters().values())).theta.dtype.name
    said = {"model": kind_of(type(model)), "settings": model.settings(), "dtype": dtype} | notes
    return json.loads(json.dumps(said, default=lambda value: value.tolist()))  # NumPy's numbers and arrays


def save_checkpoint(path, model, **notes):
    """Write the model's state and settings. notes: further JSON values (epoch, seed, data)."""
    notes = np.array(json.dumps({"version": VERSION} | describe(model, **notes)))
    with written_whole(path) as file:
        np.savez(file, notes=notes, **{name: to_host(array) for name, array in model.state().items()})


def read_checkpoint(path):
    """(notes, {name: array}) of a checkpoint. Raises UsageError, naming the file, for anything that is not a whole one."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:  # a pickle can run code
            arrays = {name: saved[name] for name in saved.files}
        notes = json.loads(str(arrays.pop("notes")))
        version, epoch = notes["version"], notes.setdefault("epoch", 0)
        if not (isinstance(epoch, int) and isinstance(notes["settings"], dict) and isinstance(notes["model"], str)):
            raise ValueError("notes of other types")
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{path}: there is no such checkpoint; train first, or name the folder given to --out"
        ) from None
    except Exception as error:  # zipfile, zlib, NumPy and json raise almost anything on a broken file
        reason = "it holds pickled objects" if "Object arrays" in str(error) else "it is damaged or no checkpoint"
        reason = getattr(error, "strerror", None) or reason
        raise UsageError(f"{path}: cannot be loaded ({reason}); train again into another folder") from None
    if version != VERSION:
        raise UsageError(f"{path}: written as version {version}, this scratchgen reads version {VERSION}; train again")
    return notes, arrays


def load_model(path, device="cpu"):
    """(model, notes): the model that a checkpoint holds, rebuilt on a device. Raises UsageError as read_checkpoint does."""
    device = find_device(device)  # now, as a GPU that is missing is no fault of the checkpoint
    notes, arrays = read_checkpoint(path)
    try:
        model = find_model(notes["model"])(**notes["settings"])
        model.build(Rng(0, notes["dtype"], device)).load_state(arrays)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(f"{path}: does not fit this scratchgen ({error}); train again into another folder") from None
    return model, notes
