"""Runs kernels on NumPy arrays, compiled for this machine's CPU: `with compiled_kernels(): ...`. Off unless it is asked for.

Native does for NumPy what cuda.Cuda does for CuPy, so the same forms in compiled.py run on both. What the compiled functions
cannot take (complex numbers, mixed types) it refuses by Misfit before anything is changed, and the plain function runs.
"""

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import UsageError
from .blas import find_gemm
from .compiled import DEVICES, Misfit
from .cpp import BAD_LAYOUT, ROW_FUNCTIONS, all_kernels, names, source
from .elementwise import ACTIVATIONS

TYPES = {np.dtype(name): name for name in ("float32", "float64")}
KINDS = {"?": np.dtype(bool), "l": np.dtype(np.int64)}  # the types of arrays in cpp.ROW_FUNCTIONS that are not T
NUMBERS = int, float, bool  # not NumPy's own numbers: they may raise the precision


class Native:
    """Runs kernels on NumPy arrays. libraries: {dtype: what cpp.source was compiled to}.

    An array is given to a compiled function by its address, id(array), which is the fastest way.
    """

    def __init__(self, libraries):
        pointer, number = ctypes.c_void_p, ctypes.c_double
        self.functions, self.sums, self.rows, self.products = {}, {}, {}, {}
        gemm, bits = find_gemm()
        for dtype, library in libraries.items():
            for kernel in all_kernels():
                counts = [len(names(part)) for part in (kernel.arrays, kernel.outputs, kernel.numbers)]
                function = library[kernel.name]
                function.argtypes = [pointer] * (counts[0] + counts[1]) + [number] * counts[2]
                self.functions[kernel.name, dtype] = function, counts[0], counts[0] + counts[2], counts[1]
            for name in ["", *ACTIVATIONS]:
                function = self.sums[name, dtype] = library[f"add_rows_{name}"]
                function.argtypes = [pointer] * 5 + [number]
            for name, (kinds, n_numbers) in ROW_FUNCTIONS.items():
                function = library[name]
                function.argtypes = [pointer] * len(kinds) + [number] * n_numbers
                self.rows[name, dtype] = function, [(KINDS.get(kind, dtype), kind == "T") for kind in kinds]
            if TYPES[dtype] in gemm:
                function = library[f"add_product_{bits}"]
                function.argtypes = [pointer] * 4
                self.products[dtype] = function, gemm[TYPES[dtype]]

    def elementwise(self, kernel, arrays):
        """The outputs of an elementwise.Kernel."""
        dtype, shape, same = arrays[0].dtype, arrays[0].shape, True
        function, n_arrays, n_inputs, n_outputs = self.functions.get((kernel.name, dtype)) or misfit()
        given, numbers, made = list(arrays[:n_arrays]), arrays[n_arrays:n_inputs], arrays[n_inputs:]
        for i, a in enumerate(given):
            if type(a) in NUMBERS:
                a = given[i] = np.array(a, dtype)
            elif type(a) is not np.ndarray or a.dtype != dtype:
                raise Misfit
            same = same and a.shape == shape
        for number in numbers:
            if type(number) not in NUMBERS:
                raise Misfit
        for a in made:
            if type(a) is not np.ndarray or a.dtype != dtype or not a.flags.writeable:
                raise Misfit
        if not made:
            shape = shape if same else broadcast(given)
            if not shape:
                raise Misfit  # of arrays without axes NumPy makes numbers
            made = tuple([np.empty(shape, dtype) for _ in range(n_outputs)])
        status = function(*map(id, given), *map(id, made), *numbers)
        if status == BAD_LAYOUT:
            copies = [a.copy() for a in (*given, *made)]
            status = function(*map(id, copies), *numbers)
            for a, copy in zip(made, copies[n_arrays:]):
                a[...] = copy
        if status:
            raise Misfit
        return made if n_outputs > 1 else made[0]

    def add_rows(self, db, dy, activation=None):
        """db += Σ dy along the batch. With an activation (name, a, x, y = f(x)) it sums and returns dx = f′ dy."""
        name, a, x, y = activation or ("", 0.0, dy, dy)
        function, arrays = self.sums.get((name, db.dtype)), (db, dy, x, y)
        if function and all(type(b) is np.ndarray and b.dtype == db.dtype for b in arrays) and type(a) in NUMBERS:
            dx = np.empty(dy.shape, dy.dtype) if activation else dy
            status = function(*map(id, arrays), id(dx), a)
            if status == BAD_LAYOUT:
                copies = [b.copy() for b in (dy, x, y)]
                status = function(id(db), *map(id, copies), id(dx if activation else copies[0]), a)
            if not status:
                return dx
        if activation:
            raise Misfit
        db += dy.sum(axis=0)
        return dy

    def by_rows(self, name, arrays, *numbers):
        """Run a function of cpp.ROWS, whose last array has its type of number. It writes into arrays that are given."""
        function, kinds = self.rows[name, arrays[-1].dtype]
        for a, (dtype, written) in zip(arrays, kinds, strict=True):
            if type(a) is not np.ndarray or a.dtype != dtype or not (a.flags.writeable or not written):
                raise Misfit
        if function(*map(id, arrays), *numbers):
            raise Misfit

    def gemm(self, a, b, out=None):
        """a b, or out + a b in place if out is given."""
        if out is None:
            return (
                a * b if a.ndim == b.ndim == 2 and a.shape[1] == len(b) == 1 else a @ b
            )  # NumPy is slow at columns by rows
        function, address = self.products.get(out.dtype, (None, 0))
        alike = (
            a.dtype == b.dtype == out.dtype and type(a) is type(b) is type(out) is np.ndarray and out.flags.writeable
        )
        if not (function and alike) or function(id(out), id(a), id(b), address):
            out += a @ b
        return out


def misfit():
    raise Misfit


def broadcast(arrays):
    """The shape of all arrays together."""
    try:
        return np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        raise Misfit from None


@functools.cache
def native():
    """The Native of this process, compiled at the first call, or None if that fails. A line says why."""
    from .compiler import CompilerError, build, say  # which need much of Python's library that a plain run does without

    try:
        if sys.implementation.name != "cpython" or sys.platform == "win32":
            raise CompilerError("this needs CPython on Linux or macOS")
        libraries = {dtype: build(source(name)) for dtype, name in TYPES.items()}
        probe = np.zeros((6, 7))[::2, 1:6]
        for library in libraries.values():
            library.is_array.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_ssize_t] * 4
            if not library.is_array(id(probe), probe.ctypes.data, *probe.shape, *probe.strides):
                raise CompilerError(f"arrays of NumPy {np.__version__} lie in memory in a way that is not known here")
    except CompilerError as error:
        say(f"plain NumPy runs instead of compiled kernels: {error}")
        return None
    return Native(libraries)


@contextlib.contextmanager
def compiled_kernels(xp: Any = np) -> Iterator[None]:
    """A context in which kernels that are compiled for this CPU run on NumPy arrays. xp: the array module that is in use.

    The first use on a machine compiles them, which takes a few seconds; later runs find them again. Without a C++ compiler
    plain NumPy runs, and a line says so. Raises UsageError on a GPU, where compiled kernels always run.
    """
    if xp is not np:
        raise UsageError("compile (--compile) is for the CPU: on a GPU compiled kernels always run, so leave it out")
    before, device = DEVICES.get("numpy"), native()
    if device:
        DEVICES["numpy"] = device
    try:
        yield
    finally:
        if before:
            DEVICES["numpy"] = before
        else:
            DEVICES.pop("numpy", None)
