"""What a program would cost on a GPU: kernel launches, waits for the device, and copies to it."""

import contextlib
import pathlib
import sys

HERE = str(pathlib.Path(__file__).parent)
_active = []  # the Counts of every `with counting()` that is open
_muted = [0]  # how many fused() are open


class Counts:
    """log: one short line for each event, "launch multiply (128, 400) float32", "sync float()", "upload asarray (3,)"."""

    def __init__(self):
        self.log = []

    def _count(self, kind):
        return sum(line.startswith(kind) for line in self.log)

    @property
    def launches(self):
        return self._count("launch")

    @property
    def syncs(self):
        return self._count("sync")

    @property
    def uploads(self):
        return self._count("upload")

    def __repr__(self):
        head = f"{self.launches} launches, {self.syncs} syncs, {self.uploads} uploads"
        return "\n  ".join([head, *self.log])


@contextlib.contextmanager
def counting():
    """Count all that happens inside: `with counting() as counts: ...`. An np that meets a device array is named."""
    counts = Counts()
    _active.append(counts)
    try:
        yield counts
    except TypeError as error:
        if "does not support ufuncs" in str(error) or "Unsupported type <class 'numpy" in str(error):
            error.add_note("NumPy met an array of the device: write array_module(x).exp(x) in place of np.exp(x)")
        raise
    finally:
        _active.remove(counts)


@contextlib.contextmanager
def fused(name):
    """All launches inside count as one: a kernel written by hand. Waits and copies count as ever."""
    launch(name)
    _muted[0] += 1
    try:
        yield
    finally:
        _muted[0] -= 1


def launch(name, values=None):
    """One kernel. values: the NumPy array that it writes."""
    if not _muted[0]:
        _note("launch", name, values)


def sync(name, values=None):
    """The host waits for the device."""
    _note("sync", name, values)


def upload(name, values=None):
    """A copy from the host to the device."""
    _note("upload", name, values)


def _note(kind, name, values):
    line = f"{kind} {name}" if values is None else f"{kind} {name} {values.shape} {values.dtype}"
    if _active and kind != "launch":  # who asked for it?
        frame = sys._getframe(2)
        while frame.f_code.co_filename.startswith(HERE):
            frame = frame.f_back
        line += f" in {pathlib.Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    for counts in _active:
        counts.log.append(line)
