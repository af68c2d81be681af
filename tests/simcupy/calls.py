"""How a NumPy function is called on device arrays: unwrapped, run, counted, wrapped again."""

import numpy as np

from .counters import launch, sync, upload
from .rules import WORDS, needs_values, one_piece, refuse_host, supported

SCALARS = bool, int, float, complex, np.generic


class Device:
    """Base of simcupy.ndarray, which array.py completes. _values: the NumPy array that stands for the device's memory."""

    __slots__ = ("_values",)

    def __init__(self, values):
        supported(values.dtype)
        self._values = values


def unwrap(value):
    """Device arrays as NumPy arrays, also those in a list, a tuple or a dict."""
    if isinstance(value, Device):
        return value._values
    if isinstance(value, (list, tuple)):
        return type(value)([unwrap(item) for item in value])
    return {key: unwrap(item) for key, item in value.items()} if isinstance(value, dict) else value


def wrap(value):
    """What a NumPy function returned, as device arrays: 0-d ones for scalars."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(wrap, value)) if type(value) in (tuple, list) else tuple(map(wrap, value))
    return None if value is None else make(np.asarray(value))


def make(values):
    """The NumPy array as a simcupy.ndarray."""
    from .array import ndarray  # which is built from what is here

    return ndarray(values)


def arrays_in(value):
    """All NumPy arrays in nested lists and tuples."""
    if isinstance(value, np.ndarray):
        return [value]
    return [a for item in value for a in arrays_in(item)] if isinstance(value, (list, tuple)) else []


def run(name, function, *args, **kwargs):
    """function(*args, **kwargs) on device arrays. One launch, unless what comes back is a view of what went in."""
    out = kwargs.get("out")
    inputs = unwrap([*args, *kwargs.values()])
    with np.errstate(all="ignore"):  # a GPU makes inf and nan in silence
        result = function(*unwrap(args), **unwrap(kwargs))
    results = arrays_in(np.asarray(result) if isinstance(result, SCALARS) else result)
    is_view = out is None and results and any(np.may_share_memory(results[0], a) for a in arrays_in(inputs))
    if not is_view and name not in WORDS["no launch"]:
        launch(name, results[0] if results else None)
    return out if out is not None else wrap(result)


def run_bound(name, function, bound):
    """The same with arguments that rules.bind has checked. A NumPy array among them is refused, or uploaded as an index."""
    if needs_values(name, bound.arguments):
        sync(name)
    for parameter, value in bound.arguments.items():
        if parameter in WORDS["uploaded"] and isinstance(value, (np.ndarray, list)):
            upload(f"{name} {parameter}", np.asarray(value))
        else:
            refuse_host(name, value)
    return run(name, function, *bound.args, **bound.kwargs)


class ufunc:
    """An elementwise function: device arrays and scalars in, `out`, `dtype` and `casting` by name, and nothing else."""

    def __init__(self, name):
        self.name = name
        self.function = getattr(np, name)

    def __repr__(self):
        return f"<ufunc 'cupy_{self.name}'>"

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        n = self.function.nin
        if not n <= len(args) <= n + 1 or (len(args) > n and out is not None):
            raise TypeError(f"Wrong number of arguments for {self.name}")
        out = args[n] if len(args) > n else out
        for value in args[:n]:
            if not isinstance(value, (Device, *SCALARS)):
                raise TypeError(f"{self.name}: Unsupported type {type(value)}")
        if out is not None and not isinstance(out, Device):
            raise TypeError(f"{self.name}: out must be a device array, not {type(out)}")
        given = {"out": out, "dtype": dtype, "casting": casting}
        return run(self.name, self.function, *args[:n], **{k: v for k, v in given.items() if v is not None})


def matmul(a, b, out=None):
    """a @ b: one launch, and one more for each operand or `out` that cuBLAS cannot take as it lies."""
    for value in (a, b):
        if not isinstance(value, Device):
            raise TypeError(f"matmul: Unsupported type {type(value)}")
    dtype = np.result_type(a._values, b._values)
    for operand in (a._values, b._values):
        if operand.dtype != dtype or not one_piece(operand):
            launch("copy of a matmul operand", operand)
    if out is not None and (out.dtype != dtype or not out._values.flags.c_contiguous):
        launch("copy of a matmul result", out._values)
    return run("matmul", np.matmul, a, b, **({} if out is None else {"out": out}))
