"""train: train a model and write it into a folder, from the start or from its last checkpoint."""

import argparse
import dataclasses
import math
import pathlib
import sys
import time

from ..backend import Rng, UsageError, find_device
from ..data.on_disk import in_memory
from ..metrics.samples import sample_metrics
from ..models import find_model, kind_of, rules
from ..models.base import Model
from ..models.settings import is_model, trained_class
from ..plots import picture_of_history
from ..train.checkpoint import load_model
from ..train.fit import fit
from ..train.parallel import Alone
from ..train.run import BEST, test_loss
from .settings import parse_settings
from .shared import data_of, load_for, show


def run(args):
    started, device = time.perf_counter(), find_device(args.device)  # before anything is loaded or downloaded
    ranks = getattr(args, "ranks", None) or Alone()  # those that mpiexec has started: __main__.py
    model_class, out = find_model(args.model), pathlib.Path(args.out)
    settings, notes = parse_settings(model_class, args.set), {}
    parts = [field for field in dataclasses.fields(model_class) if is_model(field.type)]
    inside = [field for field in parts if not isinstance(settings.get(field.name), Model)]
    if args.resume and ((out / "checkpoint.npz").exists() or not any((out / field.name).exists() for field in inside)):
        notes = load_model(out / "checkpoint.npz")[1]
        if notes["model"] != args.model:
            raise UsageError(
                f"{out / 'checkpoint.npz'}: holds a {notes['model']}, not a {args.model}; choose another folder"
            )
        settings, inside = notes["settings"] | settings, []
    seed = notes.get("seed", 0) if args.seed is None else args.seed
    data = load_for(notes, args.data or "digits", seed) if args.data or "data" not in notes else data_of(notes)
    name = args.data or data.name
    if data.scale is not None and model_class.side:  # now, before its settings complain about the number of columns
        raise refusal_of_table(name, model_class, "square grey pictures")
    settings = from_data(model_class, data) | settings
    check_width(settings, data, name)
    if inside:  # errors in the whole model are reported before the model inside it is trained
        classes = {field.name: trained_class(field) for field in inside}
        parts = {name: c(**from_data(c, data) | settings.get(name, {})) for name, c in classes.items()}
        check_fits(model_class(**settings | parts), data, name)
        if (out / "checkpoint.npz").exists():
            raise UsageError(f"{out}: already holds a run; continue it with --resume, or choose another folder")
        settings |= {field.name: train_inside(field, args) for field in inside}
    model = model_class(**settings).build(Rng(seed, device=device))
    check_fits(model, data, name)  # before a classifier is trained for the measures
    model.check_size(len(data.x_train))
    if data.scale is not None:
        say_table(model, data, name)
    measured = model.judged_by_samples and args.epochs and ranks.rank == 0
    measure, left_out = sample_metrics(data, device) if measured else (None, "")
    if left_out:
        print(left_out, file=sys.stderr)
    history = fit(
        model, data.x_train, epochs=args.epochs, labels=data.labels_train, x_test=data.x_test,
        labels_test=data.labels_test, seed=seed, out=out, resume=bool(notes),
        measure=measure and Seldom(measure, args.epochs), graph=args.graph, accept_new_data=args.accept_new_data,
        ranks=ranks,
        notes={"data": data.name, "shape": data.shape, "columns": data.columns, "scale": data.scale},
    )  # fmt: skip
    if notes.get("epoch", -1) >= args.epochs:
        print(f"{out} already has {notes['epoch']} epochs; --epochs is the total number")
    last = history[-1] if history else {"epoch": 0}
    seconds = f"{time.perf_counter() - started:.1f} s with {device.__name__}"
    shared = f" on {ranks.size} ranks" * (ranks.size > 1)
    print(f"{args.model} on {name}: epoch {last['epoch']}, {seconds}{shared}")
    show({name: value for name, value in last.items() if name not in ("epoch", "seconds")})
    for name in ("checkpoint.npz", BEST, "history.csv"):
        if (out / name).exists():
            print(out / name)
    judged = {row["epoch"]: found[1] for row in history if (found := test_loss(model, row))}
    if ranks.rank == 0:
        draw_history(history, out / "history.png", min(judged, key=judged.__getitem__, default=None))


def draw_history(history, path, best):
    """Draw history.png; a line says so if matplotlib is not installed. Fewer than two epochs make no curve."""
    if len(history) < 2:
        return
    try:
        picture_of_history(history, path, best)
    except UsageError as error:
        print(f"{path} is not drawn: {error}", file=sys.stderr)


def from_data(model_class, data):
    """{name: value} of the settings that a model takes from its data, if it has them: n_features and n_classes.

    Of pictures also the number of grey levels, if the model needs it. For a table, also those with which it takes real
    numbers, because the usual ones of many models are for pixels.
    """
    known = {"n_features": data.x_train.shape[1]} | ({"n_classes": data.n_classes} if data.n_classes else {})
    if model_class.needs_levels and data.shape:
        known |= {"levels": rules.levels_of(in_memory(data.x_train))}
    if data.scale is not None:
        known |= parse_settings(model_class, rules.table_settings(model_class))
    return {field.name: known[field.name] for field in dataclasses.fields(model_class) if field.name in known}


def check_width(settings, data, name):
    """Raise UsageError if the settings ask for another number of features than the data has."""
    if settings.get("n_features") not in (None, data.x_train.shape[1]):
        raise UsageError(
            f"--data {name}: has {data.x_train.shape[1]} numbers per example, but n_features is "
            f"{settings['n_features']}; use other data, or leave --set n_features out"
        )


def check_fits(model, data, name):
    """Raise UsageError if a model, perhaps not yet built, cannot learn from a Data. name: what the user calls the data."""
    if data.scale is not None and model.data_range:
        raise refusal_of_table(name, type(model), "pixels in [0, 1]")
    if model.side and data.shape not in (None, (model.side, model.side)):
        kind = kind_of(type(model))
        raise UsageError(f"--data {name}: a {kind} needs square grey pictures, but these have shape {data.shape}")
    model.check_data(in_memory(data.x_train), data.labels_train)


def refusal_of_table(name, model_class, wanted):
    """The UsageError that a model cannot learn from a table. wanted: what it needs."""
    remedy = rules.remedy(model_class).removesuffix(", or rescale")
    kind = kind_of(model_class)
    return UsageError(f"--data {name}: is a table of real numbers, but a {kind} needs {wanted}: {remedy}")


def say_table(model, data, name):
    """Print what becomes of a table, on standard error, because only the numbers in an array tell it from pictures."""
    why = "" if data.columns else " (some numbers are outside [0, 1]; pictures are uint8, or floats in [0, 1])"
    chosen, usual = [], {field.name: field.default for field in dataclasses.fields(model)}
    for setting in rules.table_settings(type(model)):
        ((key, value),) = parse_settings(type(model), [setting]).items()
        chosen += [setting] * (usual[key] != value == getattr(model, key))
    used = f", with {' '.join(chosen)}" if chosen else ""
    columns = f"a table of {len(data.scale.mean)} columns{why}"
    print(f"{name}: {columns}; the model learns them standardised{used}", file=sys.stderr)


class Seldom:
    """A measure of samples that is taken only every few epochs, so that it costs at most a tenth of the training time.

    The first two epochs are timed to choose the interval. The last epoch is always measured. The history has nan for epochs
    without a measure.
    """

    SHARE = 0.1

    def __init__(self, measure, n_epochs):
        self.measure, self.n_epochs, self.every, self.cost, self.ended = measure, n_epochs, None, 0.0, None

    def __call__(self, model, rng, epoch):
        started = time.perf_counter()
        if self.every is None and self.ended is not None:
            self.every = math.ceil(self.cost / (self.SHARE * max(started - self.ended, 1e-9)))
            if self.every > 1:
                print(f"to save time, samples are measured only after every {self.every} epochs", file=sys.stderr)
        if self.every and epoch % self.every and epoch != self.n_epochs:
            return {}
        found = self.measure(model, rng, epoch)
        self.ended = time.perf_counter()
        self.cost = self.ended - started
        return found


def train_inside(field, args):
    """The model for a field of another model, trained first, for the same number of epochs, into a folder inside --out."""
    kind, folder, prefix = kind_of(trained_class(field)), pathlib.Path(args.out) / field.name, f"{field.name}."
    print(
        f"a {args.model} is built on a {kind}: training one first, into {folder} (--set {field.name}=DIR uses a trained one)"
    )
    path = folder / "checkpoint.npz"
    given = {
        "model": kind,
        "out": folder,
        "set": [setting.removeprefix(prefix) for setting in args.set if setting.startswith(prefix)],
        "resume": path.exists(),
    }
    try:
        run(argparse.Namespace(**vars(args) | given))
    except UsageError as error:
        said = str(error).replace("--set ", f"--set {prefix}")
        raise UsageError(f"the {kind} inside: {said}; or train one separately and use --set {field.name}=DIR") from None
    return load_model(path, args.device)[0]
