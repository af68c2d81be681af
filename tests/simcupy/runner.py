"""What scratchgen.kernels starts on a device (see kernels/cuda.py): here one launch each, computed by its twin."""

import numpy as np

from scratchgen.kernels.cuda import REMEDY
from scratchgen.nn.activations import ACTIVATIONS

from .calls import Device
from .counters import fused
from .functions import ascontiguousarray
from .rules import one_piece
from .twins import TWINS, with_setting


class Runner:
    """Runs kernels on simulated arrays, and refuses what CuPy's kernels and cuBLAS would refuse or get wrong."""

    def elementwise(self, kernel, arrays):
        dtype = _common_dtype(kernel.name, arrays)
        with fused(kernel.name):
            results = TWINS[kernel.name](*arrays)
        given = tuple(arrays[kernel.inputs.count(",") + 1 :])  # what it was told to write into, which it then returns
        results = given or (results if isinstance(results, tuple) else (results,))
        for result in results:
            assert result.dtype == dtype, f"{kernel.name}: the twin makes {result.dtype} of {dtype}"
        return results if len(results) > 1 else results[0]

    def add_rows(self, db, dy, activation=None):
        dy = ascontiguousarray(dy)
        name, a, x, y = activation or ("", 0, None, None)
        _common_dtype("add_rows", [a for a in (db, dy, x, y) if a is not None])
        for array in (db, x, y):
            assert array is None or array.flags.c_contiguous, (
                "add_rows: the kernel takes its arrays to lie in one piece"
            )
        with fused(f"add_rows {name}" if name else "add_rows"):
            f = next((f for f in ACTIVATIONS.values() if f.__name__ == name), None)
            dx = dy * with_setting(f, a).df(_module(), x, y) if f else dy
            db += dx.sum(axis=0)
        return dx

    def gemm(self, a, b, out=None):
        _common_dtype("gemm", [a, b] if out is None else [a, b, out])
        a, b = (m if one_piece(m._values) else m.copy() for m in (a, b))
        assert out is None or out.flags.c_contiguous, "gemm: out must be contiguous"
        with fused("gemm"):
            result = a @ b
            if out is None:
                return result
            out += result
            return out


def _common_dtype(name, arrays):
    """The dtype of all the arrays, which must be one, float32 or float64: T in a kernel. The others are Python numbers."""
    dtypes = {a.dtype for a in arrays if isinstance(a, Device)}
    if len(dtypes) > 1 or not dtypes <= {np.dtype("float32"), np.dtype("float64")}:
        raise ValueError(f"{name}: Type is mismatched. T {' '.join(sorted(map(str, dtypes)))}; {REMEDY}")
    for a in arrays:
        if not isinstance(a, (Device, int, float)) or isinstance(a, np.generic):
            raise ValueError(f"{name}: {type(a)} is neither a device array nor a Python number; {REMEDY}")
    return dtypes.pop()


def _module():
    import simcupy

    return simcupy
