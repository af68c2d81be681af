"""A simulated CuPy: GPU code proven on a machine that has no GPU.

Arrays are NumPy arrays in a wrapper that keeps CuPy's rules (CuPy 14.2): only the names and the signatures that CuPy has, no
NumPy array beside a device array, 0-d arrays from reductions. It is stricter where CuPy is silent: an index out of range
or named twice in an assignment raises, and so does a NumPy function on a device array. What costs time is counted:

    with simcupy.counting() as counts:
        model.train_step(x, rng)
    counts.launches, counts.syncs, counts.uploads, counts.log

One launch: each elementwise function, reduction, matrix product, copy, fill, gather, join and random draw, and each array
that is made filled; one more for each operand of a product that must be copied. None: views, `empty`.
A sync: reading a value (float, bool, str, item, get, ...), a boolean index, a result whose size depends on the values.
An upload: a NumPy array, list or number made into a device array, also by indexing with it.
"""

from . import cuda, linalg, random
from .array import ndarray
from .counters import Counts, counting, fused
from .functions import functions
from .rules import missing

globals().update(functions())

__all__ = ["Counts", "counting", "cuda", "fused", "linalg", "ndarray", "random"]


def __getattr__(name):
    raise missing("simcupy", name)
