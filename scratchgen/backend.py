"""The choice between NumPy and CuPy, and the writing of files.

Every function of this library asks its own arrays which module they belong to (`array_module`), so the same line runs on
the CPU and on the GPU. Only `Rng` makes arrays. It holds the random stream, the precision and the device, so that no weight,
noise or mask can have the wrong precision or be on the wrong device.
"""

import contextlib
import functools
import importlib
import os
import pathlib
import sys
from typing import Any

import numpy as np

INSTALL = "pip install 'cupy-cuda13x[ctk]' (CUDA 13) or 'cupy-cuda12x[ctk]' (CUDA 12)"  # [ctk]: cuBLAS and the compiler


Array = np.ndarray  # in type hints: NumPy's or CuPy's, which have the same methods
Seed = int | tuple[int, ...]
Shape = int | tuple[int, ...]


class UsageError(ValueError):
    """A mistake that the user can correct. Its message is one line: what is wrong, what was expected, what to do."""


def array_module(*arrays: Any) -> Any:
    """The module (numpy, cupy, ...) whose arrays these are; Python numbers and NumPy scalars count as numpy's."""
    for array in arrays:
        kind: Any = type(array)
        module = _module_of(kind)
        if module is not np:
            return module
    return np


@functools.cache
def _module_of(kind: Any) -> Any:
    if issubclass(kind, (np.ndarray, np.generic, int, float, complex)):
        return np
    return sys.modules[kind.__module__.partition(".")[0]]


def on_host(array: Any) -> bool:
    """Whether Python can read this array's values without waiting, because they are in the host's memory.

    On a GPU it would have to wait until the device has computed them. So code that only looks at values (for labels of
    unseen classes, for pixels that are not 0 or 1, for the early end of a loop) asks this first, and is skipped on a GPU.
    """
    return not hasattr(array, "get")


def to_host(array: Any) -> np.ndarray:
    """The same values as a NumPy array. On a GPU this waits for the device, so no training step calls it."""
    return np.asarray(array) if on_host(array) else array.get()


def stop(x: Any) -> Any:
    """sg[x], the stop-gradient of papers: its value is x, but for derivatives it is a constant.

    The backward passes are written by hand, so training does not need this. The complex step (check/gradcheck.py) does: it
    carries the derivative in the imaginary part, so dropping that part stops the gradient.
    """
    return x.real


def find_device(device: Any) -> Any:
    """The array module of a device: "cpu", "gpu", "auto" (the GPU if there is one), or an array module itself.

    Raises UsageError if "gpu" is given and there is none.
    """
    if not isinstance(device, str):
        return device
    if device == "cpu":
        return np
    if device not in ("gpu", "auto"):
        raise UsageError(f"device {device!r} is unknown: use cpu, gpu or auto")
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        if device == "auto":
            return np
        raise UsageError(f"device gpu needs CuPy: {INSTALL}") from None
    if cupy.cuda.is_available():
        return cupy
    if device == "auto":
        return np
    raise UsageError(
        "device gpu: CuPy is installed but finds no CUDA GPU; use device cpu, or check nvidia-smi and that CuPy is the one "
        f"for its CUDA: {INSTALL}"
    )


def between_gpus(rank: int, size: int, local_rank: int, local_size: int) -> Any:
    """What sums arrays between GPUs by NCCL, for one of `size` processes of MPI, which from now on uses a GPU of its own.

    local_rank and local_size count the processes on its machine. Raises UsageError without NCCL or with too few GPUs.
    """
    cupy = find_device("gpu")
    n = cupy.cuda.runtime.getDeviceCount()
    if local_size > n:
        raise UsageError(
            f"{local_size} ranks on a machine with {n} GPU{'s' * (n > 1)}: NCCL takes one for each, use fewer"
        )
    cupy.cuda.Device(local_rank).use()
    try:
        return importlib.import_module("cupyx.distributed").init_process_group(size, rank, use_mpi=True)
    except (ImportError, RuntimeError) as error:
        raise UsageError(f"several GPUs need NCCL ({error}): see docs.cupy.dev, or use one process") from None


@functools.cache
def keep_freed_memory():
    """Make the C library keep the memory of freed arrays for new ones, instead of returning it to the system.

    Linux clears every page that it gives out, which takes up to a third of a training step on NumPy. Once a block of up to
    32 MiB has been freed, glibc keeps freed blocks of that size. So one such block is allocated, not used, and freed. At
    most 62 MiB then stay with the process that it would have returned.
    """
    np.empty(31 << 20, np.uint8)


class Rng:
    """A random stream with a precision and a device. Only this class makes arrays.

    seed: an int >= 0, or a tuple of them such as (seed, epoch). Equal seeds give equal streams. NumPy pads seeds with zeros,
        so s, (s, 0) and (s, 0, 0) are the same stream. Number the streams of one seed from 1, or use tuples of equal length.
    dtype: float32 to train, float64 or complex128 to check gradients. Noise is always real.
    device: "cpu", "gpu", "auto" or an array module.
    """

    def __init__(self, seed: Seed, dtype: Any = "float32", device: Any = "cpu"):
        self.xp = find_device(device)
        self.dtype = np.dtype(dtype)
        self.real: Any = np.dtype(np.float32 if self.dtype == np.float32 else np.float64)
        try:
            if seed is None or (isinstance(seed, (tuple, list)) and None in seed):
                raise TypeError  # NumPy would make another stream from None every time
            sequence = np.random.SeedSequence(seed)
        except (TypeError, ValueError):
            raise UsageError(f"seed {seed!r}: expected a whole number >= 0, or a tuple of them") from None
        self.host = np.random.Generator(np.random.SFC64(sequence))  # half the time of PCG64
        if self.xp is np:
            self.generator = self.host
        else:
            # With CuPy's default size one call starts a quarter of a million threads, however small the array.
            stream = self.xp.random.XORWOW(int(self.host.integers(2**63)), size=65536)
            self.generator = self.xp.random.Generator(stream)

    def __getstate__(self):
        """What is copied and pickled: the attributes, with the module replaced by its name."""
        return vars(self) | {"xp": self.xp.__name__}

    def __setstate__(self, state):
        vars(self).update(state, xp=importlib.import_module(state["xp"]))

    def like(self, seed: Seed, dtype: Any = None) -> "Rng":
        """A new stream from another seed, on the same device, and of the same precision if dtype is not given."""
        return Rng(seed, dtype or self.dtype, self.xp)

    def normal(self, shape: Shape) -> Array:
        """Independent N(0, 1)."""
        return self.xp.asarray(self.generator.standard_normal(shape, dtype=self.real))

    def uniform(self, shape: Shape) -> Array:
        """Independent, uniform on [0, 1)."""
        return self.xp.asarray(self.generator.random(shape, dtype=self.real))

    def bernoulli(self, p: Array) -> Array:
        """1 with probability p, else 0, in the real precision. p is an array, and the result has its shape."""
        return (self.uniform(p.shape) < p).astype(self.real)

    def integers(self, high: int, shape: Shape) -> Array:
        """Independent integers from 0 to high - 1."""
        return self.xp.asarray(self.generator.integers(0, high, size=shape))

    def permutation(self, n: int) -> Array:
        """0 ... n - 1 in random order, drawn on the host: it is needed once per epoch, and CuPy cannot do it."""
        return self.xp.asarray(self.host.permutation(n))

    def zeros(self, shape: Shape) -> Array:
        return self.xp.zeros(shape, dtype=self.dtype)

    def array(self, table: Any) -> Array:
        """A copy of any array or list on this device; floating-point and complex values get this precision."""
        table = np.asarray(table) if isinstance(table, (list, tuple, int, float)) else table
        dtype = self.dtype if table.dtype.kind in "fc" else table.dtype
        return self.xp.array(to_host(table) if self.xp is np else table, dtype=dtype)


# ---- files ----


@contextlib.contextmanager
def written_whole(path, mode="wb"):
    """A file to write, which appears under its name only when complete. Raises UsageError if it cannot be written.

    It is written under a temporary name, flushed to disk and then renamed, which is atomic.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")  # two processes may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, **({} if "b" in mode else {"encoding": "utf-8", "newline": ""})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def make_folder(path):
    """Make a folder and those above it. Raises UsageError if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None


def cache_folder(kind):
    """The folder for files of one kind that later runs use again,
    $XDG_CACHE_HOME/scratchgen/KIND or ~/.cache/scratchgen/KIND.

    It may be deleted at any time. None if the user has no home folder; a message says so once, and all works without it.
    """
    own = os.environ.get("XDG_CACHE_HOME")
    try:
        return (pathlib.Path(own) if own else pathlib.Path.home() / ".cache") / "scratchgen" / kind
    except RuntimeError:
        say_that_nothing_is_kept()
        return None


@functools.cache
def say_that_nothing_is_kept():
    line = "there is no home folder: nothing is kept for the next run (set HOME or XDG_CACHE_HOME to keep downloads)"
    print(line, file=sys.stderr, flush=True)


def full_path(name):
    """The Path of a name, which may begin with ~. Raises UsageError if that home folder is not known."""
    try:
        return pathlib.Path(name).expanduser()
    except RuntimeError:
        raise UsageError(f"{name}: the home folder that ~ stands for is not known; write the full path") from None
