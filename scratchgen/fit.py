"""The epoch loop: shuffled batches, a progress bar, a history, a checkpoint after every epoch, and resume.

Epoch e draws everything (its order of the data, its noise) from a fresh Rng((seed, e)). So no generator state needs saving:
an epoch that was killed half-way is simply run again from the last checkpoint, and gives the same weights bit for bit.
"""

import contextlib
import csv
import math
import pathlib
import time

import numpy as np

from .backend import UsageError, array_module, to_host
from .checkpoint import describe, read_checkpoint, save_checkpoint, written_whole
from .data import batches
from .model import accepted

READ_EVERY = 50  # steps between two looks at the losses: each look makes a GPU wait


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with a message that says what is saved and how to go on."""


def fit(
    model,
    x,
    *,
    epochs,
    labels=None,
    x_test=None,
    seed=0,
    out=None,
    resume=False,
    progress=True,
    on_epoch=None,
    notes=None,
):
    """Train a built model until it has seen `epochs` passes over x (N, n_features), dropping each pass's incomplete batch.

    x, labels (N,), x_test: NumPy arrays; they are moved to the model's device once. out: a folder for checkpoint.npz and
    history.csv. resume: go on from out's checkpoint; the settings must be the same. on_epoch(model, row): called after
    each epoch. notes: JSON values to keep in the checkpoint. Returns the history, a list of {column: number}: means of
    the losses over the epoch in nats per example, seconds, and model.evaluate(x_test) under test_ names.

    Raises UsageError for epochs < 0, a batch larger than the data, data the model cannot take, a folder that holds
    another run or cannot be written, and a loss that stops being finite; Stopped on Ctrl-C.
    """
    if epochs < 0:
        raise UsageError(f"epochs must be >= 0, got {epochs}")
    model.check_data(x)
    batches(len(x), model.batch, model.rng(seed))  # complains of the sizes now, before anything is written
    run = _Run(out, resume, model, {"seed": seed} | (notes or {}))
    run.save(model, run.epoch)
    to_device = model.rng(seed).array
    given = {"x": to_device(x)} | ({} if labels is None else {"labels": to_device(labels)})
    x_test = None if x_test is None else to_device(x_test)
    # NumPy's warnings are silenced because the losses are looked at here, which says more.
    with _bar((epochs - run.epoch) * (len(x) // model.batch), progress) as bar, np.errstate(all="ignore"):
        try:
            for epoch in range(run.epoch + 1, epochs + 1):
                started = time.perf_counter()
                means = _train_epoch(model, given, seed, epoch, bar, run)
                row = {"epoch": epoch, "seconds": round(time.perf_counter() - started, 3)} | means
                if x_test is not None:
                    row |= _test(model, x_test, seed, epoch, run)
                run.add(row)
                run.save(model, epoch)
                if on_epoch:
                    on_epoch(model, row)
        except KeyboardInterrupt:
            raise Stopped(f"stopped in epoch {run.epoch + 1}: {run.how_to_resume()}") from None
    return run.history


def _train_epoch(model, given, seed, epoch, bar, run):
    """One pass over the data; returns {name: mean loss}. given: {argument name: array (N, ...) on the device}."""
    rng = model.rng((seed, epoch))
    n = len(given["x"])
    n_steps, sums, recent = n // model.batch, {}, []
    given = accepted(model.train_step, given)
    for step, rows in enumerate(batches(n, model.batch, rng), 1):
        recent.append(model.train_step(rng=rng, **{name: array[rows] for name, array in given.items()}))
        if step % READ_EVERY == 0 or step == n_steps:
            _read(recent, sums, model, epoch, step - len(recent), run)
            bar.update(len(recent))
            bar.set_postfix({name: f"{total / step:.4g}" for name, total in sums.items()}, refresh=False)
            recent = []
    return {name: total / n_steps for name, total in sums.items()}


def _test(model, x_test, seed, epoch, run):
    """{test_name: number} of what model.evaluate finds on the test data."""
    found = model.evaluate(x_test, model.rng((seed, epoch, 1)))
    row = {f"test_{name}": float(value) for name, value in found.items()}
    for name, value in row.items():
        if math.isnan(value):
            raise UsageError(f"{name} became nan in epoch {epoch}; {_remedy(model, run)}")
    return row


def _read(recent, sums, model, epoch, before, run):
    """Add the recent steps' losses to sums, one transfer a name. Raises UsageError at the first that is not finite."""
    xp = array_module(*recent[0].values())
    table = {name: to_host(xp.stack([losses[name] for losses in recent])) for name in recent[0]}
    bad = {name: int(np.argmin(np.isfinite(values))) for name, values in table.items() if not np.isfinite(values).all()}
    if bad:
        # The total is bad as soon as one of its terms is: name the term.
        name = min(bad, key=lambda name: (bad[name], name in model.objectives))
        raise UsageError(
            f"{name} became {table[name][bad[name]]} in epoch {epoch}, step {before + bad[name] + 1}; "
            f"{_remedy(model, run)}"
        )
    for name, values in table.items():
        sums[name] = sums.get(name, 0.0) + float(values.sum(dtype=np.float64))


def _remedy(model, run):
    return f"try a smaller lr (now {model.lr:g}) in another folder; {run.how_to_resume()}"


class _Run:
    """A run's folder: its checkpoint and its history. With out=None nothing is written."""

    def __init__(self, out, resume, model, notes):
        self.out, self.notes, self.history, self.epoch = None, notes, [], 0
        if out is None:
            return
        self.out = pathlib.Path(out)
        self.checkpoint, self.table = self.out / "checkpoint.npz", self.out / "history.csv"
        if resume:
            saved, arrays = read_checkpoint(self.checkpoint)
            now = describe(model) | notes
            settings = now.pop("settings")
            pairs = [(name, saved.get(name, value), value) for name, value in now.items()]
            pairs += [(name, saved["settings"].get(name), value) for name, value in settings.items()]
            for name, was, value in pairs:
                if was != value:
                    raise UsageError(
                        f"{self.checkpoint}: was trained with {name}={was}, not {value}; "
                        "leave that as it was, or choose another folder"
                    )
            self.epoch = saved["epoch"]
            self.history = [row for row in _read_history(self.table) if row["epoch"] <= self.epoch]
            model.load_state(arrays)
            self.write_history()
        elif self.checkpoint.exists() or self.table.exists():
            raise UsageError(f"{self.out}: already holds a run; go on with --resume, or choose another folder")

    def write_history(self):
        with written_whole(self.table, "w") as file:
            if self.history:
                columns = dict.fromkeys(name for row in self.history for name in row)
                writer = csv.DictWriter(file, columns, restval="nan")
                writer.writeheader()
                writer.writerows(self.history)

    def add(self, row):
        self.history.append(row)
        if self.out:
            self.write_history()  # before the checkpoint: resume drops the row of an epoch that was not saved

    def save(self, model, epoch):
        if self.out:
            save_checkpoint(self.checkpoint, model, epoch=epoch, **self.notes)
        self.epoch = epoch

    def how_to_resume(self):
        if not self.out:
            return "nothing was saved (no folder was given)"
        return f"{self.checkpoint} holds epoch {self.epoch}; go on with --out {self.out} --resume"


def _read_history(path):
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        return sorted(rows, key=lambda row: row["epoch"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        raise UsageError(f"{path}: is no table of epochs and numbers; mend it, or delete it to go on without") from None


def _bar(total, progress):
    """A tqdm bar on a terminal; a silent stand-in elsewhere, or where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _Silent()
    return tqdm(total=total, disable=None if progress else True, unit="step", leave=False, dynamic_ncols=True)


class _Silent(contextlib.nullcontext):
    def __enter__(self):
        return self

    def update(self, n):
        pass

    def set_postfix(self, *args, **kwargs):
        pass
