"""Checks of the arrays given to fit, before training. Otherwise a wrong array shows late, as bad results, or never."""

import hashlib

import numpy as np

from ..backend import UsageError, array_module, to_host

LARGEST = 1e15
OTHERS = ("torch", "pandas", "jax", "jaxlib", "tensorflow")  # their arrays have a dtype, but are not NumPy arrays
ROWS = 1_000  # a fingerprint uses this many examples, evenly spread


def check_array(name, array):
    """Raise UsageError unless this is an array of NumPy or CuPy, without a mask."""
    kind = type(array).__module__.partition(".")[0]
    if not (hasattr(array, "dtype") and hasattr(array, "ndim")) or kind in OTHERS:
        raise UsageError(
            f"{name} is a {kind}.{type(array).__name__}: give a NumPy array, such as numpy.asarray({name})"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError(f"{name} is a masked array: give {name}.filled(...), or the rows without a mask")


def check_examples(name, x):
    """Raise UsageError unless x is an array (N, D) of finite numbers with N, D > 0. name: its name in messages."""
    check_array(name, x)
    if x.ndim != 2:
        flat = f"; {name}.reshape(len({name}), -1) makes rows" if x.ndim > 2 else ""
        raise UsageError(f"{name} has shape {x.shape}: give one row for each example, (N, D){flat}")
    if not x.size:
        raise UsageError(f"{name} has shape {x.shape} and is empty: give at least one example, or leave it out")
    if x.dtype.kind not in "fiub":
        raise UsageError(f"{name} holds {x.dtype}: give real numbers, such as {name}.astype('float32')")
    finite = array_module(x).isfinite(x)
    if not finite.all():
        row, column = np.unravel_index(int(finite.argmin()), x.shape)
        raise UsageError(
            f"{name} is {x[row, column]} in row {row}, column {column}: replace what is not finite, or remove its row"
        )
    if x.dtype.kind == "f" and max(x.max(), -x.min()) > LARGEST:
        raise UsageError(
            f"{name} has numbers beyond 1e15, whose squares are too large for float32: divide them by their spread"
        )


def check_labels(name, labels, n, vectors=False):
    """Raise UsageError unless labels are whole numbers (n,), one for each example. vectors: numbers (n, K) pass too."""
    check_array(name, labels)
    if len(labels.shape) == 0 or len(labels) != n:
        raise UsageError(f"{name} has shape {labels.shape}, but there are {n} examples: give one label for each")
    if vectors and labels.ndim == 2:
        return check_examples(name, labels)
    if labels.ndim != 1 and labels.dtype.kind in "iub":
        raise UsageError(f"{name} has shape {labels.shape}: give one whole number for each example, ({n},)")
    if labels.dtype.kind not in "iub":
        raise UsageError(
            f"{name} holds {labels.dtype}: give whole numbers, such as {name}.astype(int) if they are whole"
        )


def fingerprint(**arrays):
    """{name: text} that changes when data does: type, shape and a hash of 1,000 rows. None is left out."""
    return {name: _mark(array) for name, array in arrays.items() if array is not None}


def _mark(array):
    rows = np.linspace(0, len(array) - 1, min(ROWS, len(array))).astype(int)
    sampled = to_host(array[rows])
    sampled = np.ascontiguousarray(sampled, sampled.dtype.newbyteorder("="))  # the same for every byte order
    return f"{sampled.dtype} {tuple(array.shape)} {hashlib.sha256(sampled).hexdigest()[:16]}"
