"""Runs kernels, sums over the batch and matrix products on CuPy arrays.

CuPy compiles a kernel at its first call and keeps it. Matrix products call cuBLAS through ctypes, with a handle of our own,
because CuPy refuses to call cuBLAS while a CUDA graph is recorded (train/cuda_graph.py). This way is also faster.
"""

import ctypes
import functools
import os

import numpy as np

from ..backend import UsageError, array_module
from .elementwise import ACTIVATIONS

WORKSPACE = 32 << 20  # bytes for cuBLAS on recent GPUs; none may be allocated while a graph is recorded

REMEDY = (
    "all arrays must be on the GPU and have one type, so make them with rng.array(x); numbers must be Python's, because "
    "an np.float64 raises the precision"
)


# A block handles 32 columns. Each of its 32 rows of threads adds up every 32nd example. Then the 32 sums of a column are
# added, half of them to the other half, until one is left. The order is always the same, so equal runs give equal bits; with
# atomic additions they would not. (A row of sums has 33 numbers, not 32, so that neighbours in a column are in different
# memory banks.)
ADD_ROWS = """
extern "C" __global__ void {name}(const T* dy_, const T* x_, const T* y_, T a, T* dx_, T* db, int rows, int columns) {{
    __shared__ T sums[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    T sum = 0;
    if (column < columns)
        for (int row = threadIdx.y; row < rows; row += 32) {{
            size_t i = (size_t)row * columns + column;
            T dy = dy_[i];
            {body}
        }}
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    for (int half = 16; half > 0; half /= 2) {{
        if (threadIdx.y < half) sums[threadIdx.y][threadIdx.x] += sums[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }}
    if (threadIdx.y == 0 && column < columns) db[column] += sums[0][threadIdx.x];
}}
"""


def add_rows_source(dtype, activation=""):
    """(name, CUDA source) of the kernel behind add_rows, alone or after one of elementwise.ACTIVATIONS."""
    derivative = ACTIVATIONS[activation][1] if activation else ""
    body = f"T x = x_[i], y = y_[i], dx = dy * ({derivative}); dx_[i] = dx; sum += dx;" if derivative else "sum += dy;"
    name = f"add_rows_{activation}"
    real = "float" if dtype == "float32" else "double"
    return name, f"typedef {real} T;" + ADD_ROWS.format(name=name, body=body)


class Cuda:
    """Runs kernels on CuPy arrays. Raises ValueError for arrays of a wrong kind, type or size."""

    def elementwise(self, kernel, arrays):
        """The outputs of an elementwise.Kernel."""
        if kernel.compiled is None:
            xp = array_module(*arrays)
            kernel.compiled = xp.ElementwiseKernel(kernel.inputs, kernel.outputs, kernel.code, kernel.name)
        try:
            return kernel.compiled(*arrays)
        except TypeError as error:
            raise ValueError(f"{kernel.name}: {error}; {REMEDY}") from None

    def add_rows(self, db, dy, activation=None):
        """db += Σ dy along the batch. With an activation (name, a, x, y = f(x)) it sums and returns dx = f′ dy."""
        name, a, x, y = activation or ("", 0, dy, dy)
        check_alike("the gradient of a bias", db, dy, x, y)
        xp = array_module(dy)
        dy = xp.ascontiguousarray(dy)
        if db.shape != dy.shape[1:] or not x.shape == y.shape == dy.shape:
            raise ValueError(f"the gradient of a bias {db.shape} from dy of shape {dy.shape}, expected (n,) and (B, n)")
        x, y, dx = (x, y, xp.empty_like(dy)) if activation else (dy, dy, dy)
        kernel = _add_rows(xp, dy.dtype, name)
        blocks, sizes = ((len(db) + 31) // 32,), (np.int32(len(dy)), np.int32(len(db)))
        kernel(blocks, (32, 32), (dy, x, y, dy.dtype.type(a), dx, db, *sizes))
        return dx

    def gemm(self, a, b, out=None):
        """a b, or out + a b in place if out is given."""
        check_alike("a matrix product", a, b, *([] if out is None else [out]))
        shape = a.shape[:1] + b.shape[1:]
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or (out is not None and out.shape != shape):
            into = "" if out is None else f", added to {out.shape}"
            raise ValueError(f"a matrix product of {a.shape} and {b.shape}{into}: expected (n, k) and (k, m), (n, m)")
        xp, add = array_module(a), out is not None
        if not add:
            out = xp.empty(shape, a.dtype)
        elif not out.flags.c_contiguous:
            raise ValueError(
                f"a matrix product added to an array {out.shape} that is not contiguous: add it to a contiguous one"
            )
        _cublas(xp, xp.cuda.runtime.getDevice(), xp.cuda.get_current_stream().ptr)(packed(a), packed(b), out, add)
        return out


def check_alike(what, *arrays):
    """Raise ValueError unless all are arrays of one module and one type."""
    first = arrays[0]
    for other in arrays[1:]:
        if type(other) is not type(first) or other.dtype != first.dtype:
            kinds = [f"{array_module(array).__name__} {array.dtype}" for array in (first, other)]
            raise ValueError(f"{what} of {kinds[0]} and {kinds[1]} arrays: {REMEDY}")


def packed(a):
    """The same matrix, copied only if neither it nor its transpose is contiguous."""
    return a if a.flags.c_contiguous or a.flags.f_contiguous else a.copy()


def layout(a):
    """(1 if transposed, else 0; length of a column): how cuBLAS, which reads by columns, must read a packed matrix.

    A matrix stored by rows is its transpose stored by columns. So cuBLAS computes outᵀ = bᵀ aᵀ, and a matrix stored by rows
    is not transposed.
    """
    rows, columns = a.shape
    return (0, max(1, columns)) if a.flags.c_contiguous else (1, max(1, rows))


@functools.cache
def _add_rows(xp, dtype, activation):
    name, source = add_rows_source(dtype, activation)
    return xp.RawKernel(source, name)


@functools.cache
def _cublas(xp, gpu, stream):
    """product(a, b, out, add): out ← a b, or out ← out + a b if add, by cuBLAS. gpu: a number. stream: an address."""
    version = xp.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{version}.dll" if os.name == "nt" else f"libcublas.so.{version}"
    try:
        xp.cuda.device.get_cublas_handle()  # CuPy finds and loads the library
        lib = ctypes.CDLL(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"{name}: cannot be loaded ({str(error).splitlines()[0]}); use pip install 'cupy-cuda{version}x[ctk]'"
        ) from None
    handle, pointer, integer = ctypes.c_void_p(), ctypes.c_void_p, ctypes.c_int
    workspace = xp.cuda.Memory(WORKSPACE)  # not from a pool, since it outlives them

    def checked(status):
        if status:
            raise RuntimeError(f"cuBLAS failed with status {status}")

    checked(lib.cublasCreate_v2(ctypes.byref(handle)))
    checked(lib.cublasSetStream_v2(handle, pointer(stream)))  # resets the workspace, which must be set after it
    checked(lib.cublasSetWorkspace_v2(handle, pointer(workspace.ptr), ctypes.c_size_t(WORKSPACE)))
    matrices = [pointer, pointer, integer, pointer, integer, pointer, pointer, integer]  # α a lda b ldb β c ldc
    functions = {}
    for kind, function, real in (("f", lib.cublasSgemm_v2, ctypes.c_float), ("d", lib.cublasDgemm_v2, ctypes.c_double)):
        function.argtypes = [pointer] + 5 * [integer] + matrices
        functions[kind] = function, ctypes.byref(real(0)), ctypes.byref(real(1))

    def product(a, b, out, add, keep=workspace):  # keep: it must live as long as the handle
        (a_turned, a_step), (b_turned, b_step) = layout(a), layout(b)
        (n, k), m, (function, zero, one) = a.shape, b.shape[1], functions[out.dtype.char]
        checked(function(
            handle, b_turned, a_turned, m, n, k,
            one, b.data.ptr, b_step, a.data.ptr, a_step, one if add else zero, out.data.ptr, max(1, m),
        ))  # fmt: skip

    return product
