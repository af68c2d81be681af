"""Checkpoints: one .npz file with every array of the model's state, and one JSON text with the rest. Pickle is never used.

A checkpoint is always replaced as a whole (backend.written_whole). If the process is killed at any moment, a reader finds
the old checkpoint or the new one, never half of one.
"""

import dataclasses
import json

import numpy as np

from ..backend import Rng, UsageError, find_device, to_host, written_whole
from ..models import find_model, kind_of, model_names
from ..models.settings import is_model
from ..nn.optim import Adam

VERSION = 2

# {model: {name of a setting in version 1: its name now}}. A model inside another one is listed under its own file's name.
GENERATOR = {"loss": "adversarial_loss", "k": "d_steps", "rounds": "decay_steps"}
RENAMED = {
    "classifier": {"steps": "decay_steps"},
    "conditional_gan": GENERATOR,
    "dbn": {"k": "gibbs_steps", "n_gibbs": "n_steps", "rounds": "decay_steps"},
    "ddpm": {"clip": "clip_x0", "variance": "ancestral_variance", "rounds": "decay_steps"},
    "gan": GENERATOR | {"noise_rounds": "noise_steps"},
    "gsn": {"k": "walk_steps", "n_steps": "samples_per_chain", "noise": "corruption_rate", "rounds": "decay_steps"},
    "latent_diffusion": {"clip": "clip_x0", "variance": "ancestral_variance", "rounds": "decay_steps"},
    "made": {"rounds": "decay_steps"},
    "pix2pix": GENERATOR | {"adversarial": "adversarial_weight"},
    "rbm": {"k": "gibbs_steps", "n_gibbs": "n_steps", "rounds": "decay_steps"},
    "vae": {"c": "variance", "k": "n_samples", "rounds": "decay_steps"},
    "vqgan": {
        "kind": "adversarial_loss",
        "adversarial": "adversarial_weight",
        "warmup": "warmup_steps",
        "rounds": "decay_steps",
    },
    "vqvae": {"rounds": "decay_steps"},
    "wgan": {"c": "clip", "k": "d_steps", "rounds": "decay_steps"},
}
COLUMNS = {"critic_loss": "discriminator_loss"}  # the same for the columns of history.csv


def describe(model, **notes):
    """The JSON part of a checkpoint: the model's name, settings, precision, and the notes. JSON turns tuples into lists."""
    dtype = next(iter(model.parameters().values())).theta.dtype.name
    said = {"model": kind_of(type(model)), "settings": model.settings(), "dtype": dtype} | notes
    return json.loads(json.dumps(said, default=lambda value: value.tolist()))  # NumPy's numbers and arrays


def save_checkpoint(path, model, **notes):
    """Write the model's state and settings to path. notes: further JSON values (epoch, seed, data)."""
    notes = np.array(json.dumps({"version": VERSION} | describe(model, **notes)))
    with written_whole(path) as file:
        np.savez(file, notes=notes, **{name: to_host(array) for name, array in model.state().items()})


def read_checkpoint(path):
    """(notes, {name: array}) of a checkpoint. Raises UsageError, which names the file, if it is no complete checkpoint."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:  # a pickle can run code
            arrays = {name: saved[name] for name in saved.files}
        notes = json.loads(str(arrays.pop("notes")))
        version, epoch = notes["version"], notes.setdefault("epoch", 0)
        if not (isinstance(epoch, int) and isinstance(notes["settings"], dict) and isinstance(notes["model"], str)):
            raise ValueError("notes of other types")
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{path}: there is no such checkpoint; train first, or give the folder that was given to --out"
        ) from None
    except Exception as error:  # zipfile, zlib, NumPy and json raise many types of errors for a broken file
        reason = "it holds pickled objects" if "Object arrays" in str(error) else "it is damaged or not a checkpoint"
        reason = getattr(error, "strerror", None) or reason
        raise UsageError(f"{path}: cannot be loaded ({reason}); train again into another folder") from None
    if version not in (1, VERSION):
        raise UsageError(f"{path}: has version {version}, but this scratchgen reads version {VERSION}; train again")
    return upgrade(notes, arrays)


def upgrade(notes, arrays):
    """(notes, arrays) of a checkpoint of any readable version, in the form of the present version."""
    if notes["version"] == 1:
        settings = with_new_names(notes["model"], notes["settings"])
        notes = notes | {"version": 2, "settings": settings}
        arrays = {name.replace("adam_D.", "optimizer_D."): array for name, array in arrays.items()}
    return notes | {"settings": with_new_settings(notes["model"], notes["settings"])}, arrays


def with_new_names(model, settings):
    """{name: value} of the settings of version 1, with their present names, also those of a model inside another one."""
    names = RENAMED.get(model, {})
    return {
        names.get(name, name): with_new_names(name, value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def with_new_settings(model, settings):
    """The settings, and the defaults of those that are newer than the checkpoint, also of a model inside another one."""
    found = {}
    for field in dataclasses.fields(find_model(model)) if model in model_names() else ():
        value = settings.get(field.name, field.default)
        if is_model(field.type) and isinstance(value, dict):
            value = with_new_settings(kind_of(field.type), value)
        if value is not dataclasses.MISSING:
            found[field.name] = list(value) if isinstance(value, tuple) else value  # as JSON has it
    return settings | found


def restore(model, arrays):
    """Write a checkpoint's arrays into a built model. Version 1 stores M = m / (1 - β1) and V = v / (1 - β2) for Adam."""
    for name, part in vars(model).items():
        if isinstance(part, Adam) and f"{name}.M" in arrays:
            old = {key: arrays[f"{name}.{key}"] for key in "MV"}
            arrays = {key: array for key, array in arrays.items() if key not in (f"{name}.M", f"{name}.V")}
            arrays |= {f"{name}.m": (1 - part.beta1) * old["M"], f"{name}.v": (1 - part.beta2) * old["V"]}
    model.load_state(arrays)


def load_model(path, device="cpu"):
    """(model, notes): the model of a checkpoint, rebuilt on a device. Raises UsageError as read_checkpoint does."""
    device = find_device(device)  # first, because a missing GPU is not an error of the checkpoint
    notes, arrays = read_checkpoint(path)
    try:
        model = find_model(notes["model"])(**notes["settings"])
        restore(model.build(Rng(0, notes["dtype"], device)), arrays)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(f"{path}: does not fit this scratchgen ({error}); train again into another folder") from None
    return model, notes
