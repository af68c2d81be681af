"""x[key] and x[key] = value: views, gathers, masks, and where CuPy would quietly do something else than NumPy."""

import numpy as np

from .calls import SCALARS, Device, make
from .counters import launch, sync, upload


def host_key(key):
    """(the key for NumPy, whether it gathers, whether it has a mask). Lists and NumPy arrays go to the device first."""
    parts, gathers, masked = [], False, False
    for part in key if isinstance(key, tuple) else (key,):
        if not (part is None or part is Ellipsis or isinstance(part, slice) or _is_integer(part)):
            if isinstance(part, Device):
                part = part._values
            else:
                part = np.asarray(part, dtype=np.int32 if isinstance(part, (list, tuple)) and not part else None)
                upload("index", part)
            if part.dtype.kind not in "biu":
                raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {part.dtype})")
            gathers, masked = True, masked or part.dtype.kind == "b"
        parts.append(part)
    return tuple(parts), gathers, masked


def _is_integer(part):
    return isinstance(part, (int, np.integer)) and not isinstance(part, bool)


def _within(values, key):
    """values[key]; what CuPy would wrap around in silence raises IndexError."""
    try:
        return values[key]
    except IndexError as error:
        raise IndexError(f"{error} (CuPy would wrap an index array around in silence)") from None


def get_item(array, key):
    key, gathers, masked = host_key(key)
    if not gathers:
        return make(array._values[(*key, Ellipsis)] if Ellipsis not in key else array._values[key])
    if masked:
        sync("boolean index", array._values)
    result = np.asarray(_within(array._values, key))
    launch("gather", result)
    return make(result)


def set_item(array, key, value):
    key, gathers, masked = host_key(key)
    target = _within(array._values, key)
    if isinstance(value, Device):
        value = value._values
        same = isinstance(target, np.ndarray) and target.__array_interface__ == value.__array_interface__
        if same and not gathers:
            return  # x[1:] += y ends with this: nothing is left to do
    elif not isinstance(value, SCALARS):
        value = _uploaded(value, gathers, array.dtype)
    if masked:
        sync("boolean index", array._values)
    elif gathers and np.size(value) > 1:
        _refuse_duplicates(array._values, key)
    with np.errstate(all="ignore"):
        array._values[key] = value
    launch("assign", np.asarray(target))


def _uploaded(value, gathers, dtype):
    """x[key] = a NumPy array or a list: CuPy uploads it where key is an index array, and refuses it where key is a slice."""
    if gathers:
        value = np.asarray(value, dtype)
        upload("assigned values", value)
    elif not isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    elif value.ndim:
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    return value


def _refuse_duplicates(values, key):
    places = np.arange(values.size).reshape(values.shape)[key]
    if np.unique(places).size < places.size:
        raise IndexError("an index array names a place twice: which value is kept is undefined on a GPU")
