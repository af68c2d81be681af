"""The folder of a run: its checkpoint, its history, and messages about how to continue. fit.py uses it.

The history is written before the checkpoint. If an epoch has a row but no checkpoint, resume drops the row. Both files are
always replaced as a whole. So if the process is killed at any moment, the run can continue from its folder.

best.npz is a checkpoint of the epoch with the least test loss so far. It is written before checkpoint.npz. If the process is
killed in between, resume repeats that epoch bit for bit, and so writes the same best.npz again.
"""

import csv
import math
import os
import pathlib

from ..backend import UsageError, make_folder, written_whole
from ..models.parts.adversarial import Adversarial
from ..models.vae import VAE
from .checkpoint import COLUMNS, describe, read_checkpoint, restore, save_checkpoint

try:
    import fcntl
except ImportError:  # on Windows, folders are not locked
    fcntl = None  # type: ignore[assignment]


BEST = "best.npz"
# What can be the test loss: the first one that a model measures. The pseudo-likelihood of a Boltzmann machine is left out.
# It is measured on one random pixel of each picture, so its noise would choose the epoch.
TEST_LOSSES = (
    "negative_elbo",
    "nll",
    "cross_entropy",
    "loss",
    "denoising_nll",
    "denoising_error",
    "code_bits",
    "squared_error",
    "mse",
)


def test_loss(model, row):
    """(name, value) of the test loss in a row of the history; None without test data, and for models that have none.

    Models with a discriminator have none: a picture that is restored sharply has a larger error than a blurred one. If a VAE
    weighs the KL by another beta than 1, its test loss is weighted in the same way.
    """
    if isinstance(model, Adversarial):
        return None
    beta = model.beta if isinstance(model, VAE) else 1.0
    for before in ("test_", "test_binarized_"):
        if beta != 1 and f"{before}kl" in row:
            return f"{before}nll + {beta:g} {before}kl", row[f"{before}nll"] + beta * row[f"{before}kl"]
    names = (f"test_{before}{name}" for name in TEST_LOSSES for before in ("", "binarized_"))
    return next(((name, row[name]) for name in names if name in row), None)


class Run:
    """with Run(...) as run: the folder of a run with its checkpoint and history, locked against other processes.

    notes: what the checkpoint says besides the model. data: the fingerprint of the arrays (data/checked.py). A resumed run
    must have the same fingerprint, unless accept_new_data. With out=None nothing is written.
    """

    def __init__(self, out, resume, model, epochs, notes, data, accept_new_data=False):
        self.out, self.history, self.epoch = None, [], 0
        self.ranks = None  # how many ranks (parallel.py) trained the checkpoint that is resumed
        self.ours, self.lock = False, None  # whether this run owns the folder, and the file number of its lock
        self.notes = notes | {"fingerprint": data}
        if out is None:
            if resume:
                raise UsageError("resume=True needs the folder of the run: give out=...")
            return
        self.out, self.name, self.epochs = pathlib.Path(out), describe(model)["model"], epochs
        self.checkpoint, self.table = self.out / "checkpoint.npz", self.out / "history.csv"
        self.best, self.least = self.out / BEST, math.inf  # the least test loss so far
        if resume:
            try:
                self.resume(model, notes, data, accept_new_data)
            except BaseException:
                self.release()
                raise
        elif self.checkpoint.exists() or self.table.exists():
            raise UsageError(f"{self.out}: already holds a run; continue it with --resume, or choose another folder")

    def resume(self, model, notes, data, accept_new_data):
        """Read the folder: the arrays into the model, and the history, the epoch and the number of threads into this run."""
        if self.out.is_dir():
            self.hold()
        saved, arrays = read_checkpoint(self.checkpoint)
        now = describe(model, **notes)
        settings, where = now.pop("settings"), now.pop("data", None)
        pairs = [(name, saved.get(name, value), value) for name, value in now.items()]
        pairs += [
            (name, saved["settings"].get(name), value)
            for name, value in settings.items()
            if name not in model.sampler_settings
        ]
        for name, was, value in pairs:
            if was != value:
                raise UsageError(
                    f"{self.checkpoint}: was trained with {name}={was}, not {value}; "
                    "use the same value, or choose another folder"
                )
        known = saved.get("fingerprint")
        if not accept_new_data and (known or where != saved.get("data")):
            self.check_data(known or {}, data, saved.get("data"), where)
        self.epoch = saved["epoch"]
        self.history = [row for row in _read_history(self.table) if row["epoch"] <= self.epoch]
        if known in (None, data):  # losses on other data cannot be compared
            self.least = min((found[1] for row in self.history if (found := test_loss(model, row))), default=math.inf)
        if isinstance(saved.get("threads"), int):
            self.notes["threads"] = saved["threads"]
        self.ranks = saved.get("ranks", 1)
        restore(model, arrays)
        self.ours = True
        self.write_history()

    def check_data(self, known, data, was, where):
        """Raise UsageError if this is not the data of the checkpoint. If both have fingerprints, only these are compared."""
        changed = [name for name in known.keys() & data.keys() if known[name] != data[name]]
        if known and not changed:
            return  # the same arrays, perhaps in another place
        place = (
            f"{was}, but {where} is other data"
            if where and where != was
            else f"{was or 'data'}, which has changed since"
        )
        for name in sorted(changed):
            shapes = [text.rpartition(" ")[0] for text in (known[name], data[name])]
            place += (
                f" ({name} was {shapes[0]}, now it is {shapes[1]})"
                if shapes[0] != shapes[1]
                else f" ({name} has other values)"
            )
        raise UsageError(
            f"{self.checkpoint}: was trained on {place}; put the old data back, train into another folder, or continue with "
            "the new data: --accept-new-data (accept_new_data=True)"
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()

    def hold(self):
        """Lock the folder until this process releases it or ends. Raises UsageError if another process has locked it."""
        if fcntl is None or self.lock is not None:
            return
        self.lock = os.open(self.out, os.O_RDONLY)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise UsageError(
                f"{self.out}: another process is training into it; wait, or choose another folder"
            ) from None
        except OSError:
            return  # the file system has no locks
        for left in self.out.glob(".*.partial"):  # unfinished files of a killed process
            left.unlink(missing_ok=True)

    def take(self):
        """Make the folder of a new run and lock it. Raises UsageError if this fails or if another run was faster."""
        make_folder(self.out)
        self.hold()
        if self.checkpoint.exists():
            raise UsageError(f"{self.out}: already holds a run; continue it with --resume, or choose another folder")
        self.ours = True

    def release(self):
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def write_history(self):
        """Write history.csv with one row per epoch. If an epoch lacks a column, it holds nan."""
        with written_whole(self.table, "w") as file:
            if self.history:
                columns = dict.fromkeys(name for row in self.history for name in row)
                writer = csv.DictWriter(file, columns, restval="nan")
                writer.writeheader()
                writer.writerows(self.history)

    def add(self, row):
        """Add the row of one epoch to the history."""
        self.history.append(row)
        if self.out:
            self.write_history()

    def save(self, model, epoch):
        """Write the checkpoint of an epoch, and before it best.npz, if the last row has the least test loss so far."""
        if self.out:
            if not self.ours:  # this is the first file of a new run
                self.take()
            if epoch > self.epoch and (found := test_loss(model, self.history[-1])) and found[1] < self.least:
                self.least = found[1]
                save_checkpoint(self.best, model, epoch=epoch, test_loss=found, **self.notes)
            save_checkpoint(self.checkpoint, model, epoch=epoch, **self.notes)
        self.epoch = epoch

    def what_is_saved(self):
        """A phrase for the end of a message that says where the last finished epoch is saved."""
        return f"{self.checkpoint} holds epoch {self.epoch}" if self.out else "nothing was saved (no folder was given)"

    def how_to_resume(self):
        """A phrase for the end of a message that says what is saved and how to continue."""
        if not self.out:
            return self.what_is_saved()
        if "data" not in self.notes:
            return f"{self.what_is_saved()}; continue with resume=True"
        command = f"scratchgen train {self.name} --epochs {self.epochs} --out {self.out} --resume"
        command = f"mpiexec -n {self.notes['ranks']} {command}" if "ranks" in self.notes else command
        return f"{self.what_is_saved()}; continue with {command}"


def _read_history(path):
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [
                {COLUMNS.get(k, k): int(v) if k == "epoch" else float(v) for k, v in row.items()}
                for row in csv.DictReader(file)
            ]
        return sorted(rows, key=lambda row: row["epoch"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        raise UsageError(
            f"{path}: is not a table of epochs and numbers; repair it, or delete it to continue without it"
        ) from None
