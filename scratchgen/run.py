"""A run's folder: its checkpoint, its history, and what to say about going on. fit.py uses it.

The history is written before the checkpoint, and resume drops the row of an epoch whose checkpoint never came. Both files
are replaced whole, so a kill at any moment leaves a folder from which the run can go on.
"""

import csv
import pathlib

from .backend import UsageError
from .checkpoint import describe, read_checkpoint, save_checkpoint, written_whole


class Run:
    """A run's folder: its checkpoint and its history. With out=None nothing is written."""

    def __init__(self, out, resume, model, epochs, notes):
        self.out, self.notes, self.history, self.epoch = None, notes, [], 0
        if out is None:
            if resume:
                raise UsageError("resume needs the folder of the run: out=...")
            return
        self.out, self.name, self.epochs = pathlib.Path(out), describe(model)["model"], epochs
        self.checkpoint, self.table = self.out / "checkpoint.npz", self.out / "history.csv"
        if resume:
            saved, arrays = read_checkpoint(self.checkpoint)
            now = describe(model) | notes
            settings = now.pop("settings")
            pairs = [(name, saved.get(name, value), value) for name, value in now.items()]
            pairs += [
                (name, saved["settings"].get(name), value)
                for name, value in settings.items()
                if name not in model.sampling
            ]
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
            save_checkpoint(self.checkpoint, model, epoch=epoch, **self.notes)
        self.epoch = epoch

    def how_to_resume(self):
        """What is saved and what to do to go on, for the end of a message."""
        if not self.out:
            return "nothing was saved (no folder was given)"
        saved = f"{self.checkpoint} holds epoch {self.epoch}; go on with"
        if "data" not in self.notes:
            return f"{saved} resume=True"
        return f"{saved} python -m scratchgen train {self.name} --epochs {self.epochs} --out {self.out} --resume"


def _read_history(path):
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        return sorted(rows, key=lambda row: row["epoch"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        raise UsageError(f"{path}: is no table of epochs and numbers; mend it, or delete it to go on without") from None
