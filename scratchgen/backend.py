"""NumPy or CuPy, chosen in one place; and how a file is written.

Every function of this library asks its own arrays which module they belong to (`array_module`), so the same line runs on
the CPU and on the GPU. `Rng` is the one maker of arrays: random stream, precision and device in a single object, so that
no weight, noise or mask can be made in the wrong place or the wrong precision.
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
    """A mistake the user can mend. Its message is one line: what is wrong, what was expected, what to do."""


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
    """Whether Python can look at this array's values at once, as they lie in the host's memory.

    On a GPU it would have to wait until the device has computed them. So what only looks (at labels that nobody drew, at
    pixels that are not 0 or 1, at whether a loop may end early) asks here first, and is left out on a GPU.
    """
    return not hasattr(array, "get")


def to_host(array: Any) -> np.ndarray:
    """The same values as a NumPy array. On a GPU this waits for the device, so no training step calls it."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def stop(x: Any) -> Any:
    """sg[x], the papers' stop-gradient: x itself as a value, and a constant as far as derivatives go.

    The backward passes are written by hand, so nothing needs this while training. It matters to the complex step
    (check/gradcheck.py), which carries the derivative in the imaginary part: dropping that part is stopping the gradient.
    """
    return x.real


def find_device(device: Any) -> Any:
    """The array module of a device: "cpu", "gpu", "auto" (the GPU where there is one), or an array module itself.

    Raises UsageError where a GPU is asked for and there is none.
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


@functools.cache
def keep_freed_memory():
    """Make the C library keep the memory of freed arrays for the next ones, rather than give it back to the system.

    Linux clears every page it hands out: up to a third of a training step, on NumPy. glibc keeps what is freed once it has
    seen a block as large freed, up to 32 MiB; so one is taken, never touched, and freed. At most 62 MiB then stay with the
    process that it would have given back.
    """
    np.empty(31 << 20, np.uint8)


class Rng:
    """A random stream that also knows the precision and the device: the only maker of arrays.

    seed: an int >= 0, or a tuple of them such as (seed, epoch): equal seeds give equal streams. NumPy fills seeds up with
        zeros, so that s, (s, 0) and (s, 0, 0) are one stream: number the streams of one seed from 1, or give both lengths.
    dtype: float32 to train, float64 or complex128 to check gradients. Noise is real in any case.
    device: "cpu", "gpu", "auto" or an array module.
    """

    def __init__(self, seed: Seed, dtype: Any = "float32", device: Any = "cpu"):
        self.xp = find_device(device)
        self.dtype = np.dtype(dtype)
        self.real: Any = np.dtype(np.float32 if self.dtype == np.float32 else np.float64)
        try:
            if seed is None or (isinstance(seed, (tuple, list)) and None in seed):
                raise TypeError  # NumPy would take these for a stream that differs every time
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
        """To be copied and pickled, with the module by its name."""
        return vars(self) | {"xp": self.xp.__name__}

    def __setstate__(self, state):
        vars(self).update(state, xp=importlib.import_module(state["xp"]))

    def like(self, seed: Seed, dtype: Any = None) -> "Rng":
        """A new stream from another seed, on the same device, and of the same precision if none is given."""
        return Rng(seed, dtype or self.dtype, self.xp)

    def normal(self, shape: Shape) -> Array:
        """Independent N(0, 1)."""
        return self.xp.asarray(self.generator.standard_normal(shape, dtype=self.real))

    def uniform(self, shape: Shape) -> Array:
        """Independent, uniform on [0, 1)."""
        return self.xp.asarray(self.generator.random(shape, dtype=self.real))

    def bernoulli(self, p: Array) -> Array:
        """1 with probability p, else 0, in the real precision: of the shape of p, an array."""
        return (self.uniform(p.shape) < p).astype(self.real)

    def integers(self, high: int, shape: Shape) -> Array:
        """Independent integers from 0 to high - 1."""
        return self.xp.asarray(self.generator.integers(0, high, size=shape))

    def permutation(self, n: int) -> Array:
        """0 ... n - 1 in random order. Drawn on the host: it is wanted once an epoch, and CuPy has none."""
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
