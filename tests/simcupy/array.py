"""simcupy.ndarray: a NumPy array in a wrapper that has only what cupy.ndarray has and shares memory as it does."""

import numpy as np

from .calls import Device, make, matmul, run, run_bound, ufunc
from .counters import launch, sync
from .indexing import get_item, set_item
from .rules import ARITHMETIC, COMPARISONS, SIGNATURES, UNARY, bind, missing, supported


class ndarray(Device):
    """A device array. Views share memory; reading a value counts as a wait; meeting a NumPy array raises TypeError."""

    __slots__ = ()
    __array_ufunc__ = None  # CuPy would take over NumPy's functions; here such a call is a mistake that we want to see
    __hash__ = None

    def __init__(self, shape, dtype=float):  # shape: or the NumPy array to wrap
        super().__init__(shape if isinstance(shape, np.ndarray) else np.empty(shape, dtype))

    def __getattr__(self, name):
        raise missing("simcupy.ndarray", name)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_function__(self, func, types, args, kwargs):
        raise TypeError(f"np.{func.__name__} on an array of the device: write array_module(x).{func.__name__}")

    # ---- facts ----

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    nbytes = property(lambda self: self._values.nbytes)
    itemsize = property(lambda self: self._values.itemsize)
    strides = property(lambda self: self._values.strides)
    flags = property(lambda self: self._values.flags)

    def __len__(self):
        return len(self._values)

    # ---- views ----

    T = property(lambda self: make(self._values.T))
    mT = property(lambda self: make(self._values.mT))

    @property
    def real(self):
        return make(self._values.real) if self.dtype.kind == "c" else self

    @real.setter
    def real(self, value):
        self.real[...] = value

    @property
    def imag(self):
        if self.dtype.kind != "c":
            launch("imag of real numbers", self._values)
        return make(self._values.imag)

    @imag.setter
    def imag(self, value):
        make(self._values.imag)[...] = value

    __getitem__ = get_item
    __setitem__ = set_item

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # ---- the host reads: each waits for the device ----

    def _read(self, what):
        sync(what, self._values)
        return self._values.copy()

    def __float__(self):
        return float(self._read("float()"))

    def __int__(self):
        return int(self._read("int()"))

    def __complex__(self):
        return complex(self._read("complex()"))

    def __bool__(self):
        return bool(self._read("bool()"))

    def __str__(self):
        return str(self._read("str()"))

    def __repr__(self):
        return repr(self._read("repr()"))

    def __format__(self, spec):
        return format(self._read("format()"), spec)

    def __reduce__(self):
        return make, (self._read("pickle"),)

    def get(self, *args, **kwargs):
        bind("ndarray", "get", (self, *args), kwargs)
        return self._read("get()")

    def item(self):
        return self._read("item()").item()

    def tolist(self):
        return self._read("tolist()").tolist()

    def tobytes(self, order="C"):
        return self._read("tobytes()").tobytes(order)

    # ---- copies and writes ----

    def set(self, arr, stream=None):
        from .functions import array

        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"set: a NumPy array of shape {self.shape} and {self.dtype} is wanted")
        self._values[...] = array(arr)._values

    def fill(self, value):
        if isinstance(value, Device):
            bool(value == 0)  # so CuPy finds out whether to clear the memory
        self[...] = value

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        dtype = supported(np.dtype(dtype))
        if dtype == self.dtype and not copy:
            return self
        result = self._values.astype(dtype, order=order)
        launch("astype", result)
        return make(result)

    def copy(self, order="C"):
        return self.astype(self.dtype, order)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def scatter_add(self, slices, value):
        raise NotImplementedError("scatter_add adds in any order, so that equal runs differ: use a one-hot product")

    # ---- operators ----

    def __matmul__(self, other):
        return matmul(self, other)

    def __rmatmul__(self, other):
        return matmul(other, self)

    def dot(self, b, out=None):
        return matmul(self, b, out) if self.ndim and getattr(b, "ndim", 0) else run("dot", np.dot, self, b)


def _method(name):
    """The method with CuPy's signature and NumPy's result."""

    def method(self, *args, **kwargs):
        bound = bind("ndarray", name, (self, *args), kwargs)
        return run_bound(name, getattr(np.ndarray, name, None) or getattr(np, name), bound)

    return method


def _operators(name, f):
    """f as the operator `name`, its reflection and its in-place form."""
    return {
        f"__{name}__": lambda a, b: f(a, b),
        f"__r{name}__": lambda a, b: f(b, a),
        f"__i{name}__": lambda a, b: f(a, b, out=a),
    }


def _comparison(f):
    """f as a comparison: here, and here alone, CuPy reads a 0-d NumPy array."""
    return lambda a, b: f(a, b.item() if isinstance(b, np.ndarray) and b.ndim == 0 else b)


def _unary(f):
    return lambda a: f(a)


_added = {name: _method(name) for name in SIGNATURES["ndarray"] if name not in vars(ndarray)}
for _name, _ufunc in ARITHMETIC.items():
    _added |= _operators(_name, ufunc(_ufunc))
_added |= {f"__{name}__": _comparison(ufunc(function)) for name, function in COMPARISONS.items()}
_added |= {f"__{name}__": _unary(ufunc(function)) for name, function in UNARY.items()}
for _name, _value in _added.items():
    setattr(ndarray, _name, _value)
