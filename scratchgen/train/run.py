"""A run's folder: its checkpoint, its history, and what to say about going on. fit.py uses it.

The history is written before the checkpoint, and resume drops the row of an epoch whose checkpoint never came. Both files
are replaced whole, so a kill at any moment leaves a folder from which the run can go on.
"""

import csv
import os
import pathlib

from ..backend import UsageError, make_folder, written_whole
from .checkpoint import COLUMNS, describe, read_checkpoint, save_checkpoint

try:
    import fcntl
except ImportError:  # on Windows a folder is not locked
    fcntl = None  # type: ignore[assignment]


class Run:
    """with Run(...) as run: a run's folder, its checkpoint and its history, locked against a second process.

    notes: what the checkpoint says beside the model. data: the fingerprint of the arrays (data/checked.py), which those of
    a resumed run must have too, unless accept_new_data. With out=None nothing is written.
    """

    def __init__(self, out, resume, model, epochs, notes, data, accept_new_data=False):
        self.out, self.history, self.epoch = None, [], 0
        self.ours, self.lock = False, None  # whether the folder is this run's, and a file number that holds it locked
        self.notes = notes | {"fingerprint": data}
        if out is None:
            if resume:
                raise UsageError("resume needs the folder of the run: out=...")
            return
        self.out, self.name, self.epochs = pathlib.Path(out), describe(model)["model"], epochs
        self.checkpoint, self.table = self.out / "checkpoint.npz", self.out / "history.csv"
        if resume:
            try:
                self.resume(model, notes, data, accept_new_data)
            except BaseException:
                self.release()
                raise
        elif self.checkpoint.exists() or self.table.exists():
            raise UsageError(f"{self.out}: already holds a run; go on with --resume, or choose another folder")

    def resume(self, model, notes, data, accept_new_data):
        """Take over what the folder holds: arrays into the model, history, epoch, number of threads."""
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
                    "leave that as it was, or choose another folder"
                )
        known = saved.get("fingerprint")
        if not accept_new_data and (known or where != saved.get("data")):
            self.check_data(known or {}, data, saved.get("data"), where)
        self.epoch = saved["epoch"]
        self.history = [row for row in _read_history(self.table) if row["epoch"] <= self.epoch]
        if isinstance(saved.get("threads"), int):
            self.notes["threads"] = saved["threads"]
        model.load_state(arrays)
        self.ours = True
        self.write_history()

    def check_data(self, known, data, was, where):
        """Raise UsageError if this data is not that of the checkpoint: where both have a fingerprint, by that alone."""
        changed = [name for name in known.keys() & data.keys() if known[name] != data[name]]
        if known and not changed:
            return  # the same arrays, wherever they lie now
        place = (
            f"{was}, and {where} is other data" if where and where != was else f"{was or 'data'} that has changed since"
        )
        for name in sorted(changed):
            shapes = [text.rpartition(" ")[0] for text in (known[name], data[name])]
            place += (
                f" ({name} was {shapes[0]}, is {shapes[1]})"
                if shapes[0] != shapes[1]
                else f" ({name} has other values)"
            )
        raise UsageError(
            f"{self.checkpoint}: was trained on {place}; put the old data back, train into another folder, or go on with "
            "the new data by --accept-new-data (accept_new_data=True)"
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()

    def hold(self):
        """Lock the folder until this process lets go or dies. Raises UsageError where another process holds it."""
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
            return  # a file system without locks
        for left in self.out.glob(".*.partial"):  # what a killed process had not finished
            left.unlink(missing_ok=True)

    def take(self):
        """Make the folder of a new run, and lock it. Raises UsageError where it cannot be made or another run was faster."""
        make_folder(self.out)
        self.hold()
        if self.checkpoint.exists():
            raise UsageError(f"{self.out}: already holds a run; go on with --resume, or choose another folder")
        self.ours = True

    def release(self):
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def write_history(self):
        """history.csv, a row an epoch; a column that an epoch lacks holds nan."""
        with written_whole(self.table, "w") as file:
            if self.history:
                columns = dict.fromkeys(name for row in self.history for name in row)
                writer = csv.DictWriter(file, columns, restval="nan")
                writer.writeheader()
                writer.writerows(self.history)

    def add(self, row):
        """Keep one epoch's row."""
        self.history.append(row)
        if self.out:
            self.write_history()

    def save(self, model, epoch):
        """Write the checkpoint of an epoch."""
        if self.out:
            if not self.ours:  # the first thing that is written
                self.take()
            save_checkpoint(self.checkpoint, model, epoch=epoch, **self.notes)
        self.epoch = epoch

    def what_is_saved(self):
        """Where the last finished epoch is, for the end of a message."""
        return f"{self.checkpoint} holds epoch {self.epoch}" if self.out else "nothing was saved (no folder was given)"

    def how_to_resume(self):
        """What is saved and what to do to go on, for the end of a message."""
        if not self.out:
            return self.what_is_saved()
        if "data" not in self.notes:
            return f"{self.what_is_saved()}; go on with resume=True"
        command = f"scratchgen train {self.name} --epochs {self.epochs} --out {self.out} --resume"
        return f"{self.what_is_saved()}; go on with {command}"


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
        raise UsageError(f"{path}: is no table of epochs and numbers; mend it, or delete it to go on without") from None
