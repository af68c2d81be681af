"""The functions of the module: those that move arrays between host and device, and all others from the table."""

import numpy as np

from .calls import Device, make, matmul, run, run_bound, ufunc, unwrap
from .counters import launch, sync, upload
from .rules import SAME, SIGNATURES, UFUNCS, WORDS, bind


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """A list of device arrays is joined on the device; anything else but a device array is uploaded."""
    if isinstance(obj, Device):
        result = obj.astype(obj.dtype if dtype is None else dtype, order, copy=bool(copy))
    elif isinstance(obj, (list, tuple)) and obj and all(isinstance(item, Device) for item in obj):
        result = run("array", np.stack, obj)
        result = result if dtype is None else result.astype(dtype, copy=False)
    else:
        values = np.array(obj, dtype)  # raises TypeError where a device array is hidden among numbers
        result = make(values)
        upload("array", values)
    return make(np.array(result._values, ndmin=ndmin, copy=None)) if ndmin > result.ndim else result


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy)


def ascontiguousarray(a, dtype=None):
    if not isinstance(a, Device):
        return array(a, dtype)
    result = np.ascontiguousarray(a._values, dtype)
    if result is a._values:
        return a
    launch("ascontiguousarray", result)
    return make(result)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get() if isinstance(a, Device) else np.asarray(a)


def get_array_module(*args):
    import simcupy

    return simcupy if any(isinstance(a, Device) for a in args) else np


def astype(x, dtype, /, *, copy=True):
    return x.astype(dtype, copy=copy)


def copy(a, order="K"):
    return a.copy(order)


def clip(a, a_min, a_max, out=None):
    return run_bound("clip", np.clip, bind("functions", "clip", (a, a_min, a_max), {} if out is None else {"out": out}))


def einsum(subscripts, *operands, dtype=None, optimize=False):
    return run("einsum", np.einsum, subscripts, *operands)


def where(condition, x=None, y=None):
    if x is None and y is None:
        return condition.nonzero()
    if not isinstance(condition, Device):
        raise TypeError(f"where: the condition must be a device array, not {type(condition)}")
    mask = condition.astype(bool, copy=False)
    return run_bound("where", np.where, bind("functions", "where", (mask, x, y), {}))


def result_type(*arrays_and_dtypes):
    return np.result_type(*unwrap(arrays_and_dtypes))


def put_along_axis(arr, indices, values, axis):
    if axis is None:
        raise NotImplementedError("put_along_axis: axis=None is not simulated")
    index = np.meshgrid(*map(np.arange, indices.shape), indexing="ij")
    index[axis] = indices._values
    arr[tuple(map(make, index))] = values


def save(file, arr, allow_pickle=None):
    np.save(file, asnumpy(arr))


def savez(file, *args, **kwds):
    np.savez(file, *map(asnumpy, args), **{name: asnumpy(a) for name, a in kwds.items()})


def savez_compressed(file, *args, **kwds):
    np.savez_compressed(file, *map(asnumpy, args), **{name: asnumpy(a) for name, a in kwds.items()})


def _function(name):
    """NumPy's function behind CuPy's signature."""
    function = getattr(np, name)
    first = next(iter(SIGNATURES["functions"][name].parameters.values()))
    facts = "iscomplexobj", "isrealobj", "may_share_memory", "ndim", "shape", "shares_memory"

    def call(*args, **kwargs):
        bound = bind("functions", name, args, kwargs)
        if name in WORDS["creators"]:
            for value in bound.arguments.values():
                if isinstance(value, Device):
                    sync(f"{name} of", value._values)
        else:
            for value in bound.args[:1] if first.kind != first.VAR_POSITIONAL else bound.args:
                _check_array(name, value)
        if name in facts:
            return function(*unwrap(bound.args))
        return run_bound(name, function, bound)

    call.__name__ = name
    return call


def _check_array(name, value):
    """A device array, or a list of them: CuPy takes no list of numbers in its place."""
    items = value if isinstance(value, (list, tuple)) else [value]
    for item in items:
        if not isinstance(item, Device):
            raise TypeError(f"{name}: Unsupported type {type(item)}; only device arrays are taken")


def functions():
    """{name: function} of all that the table lets through."""
    found = {name: getattr(np, name) for name in SAME}
    found |= {name: ufunc(name) for name in UFUNCS} | {"matmul": matmul}
    return found | {
        name: globals().get(name) or _function(name) for name in SIGNATURES["functions"] if name != "matmul"
    }
