"""How kernels.py's kernels, sums and matrix products run on CuPy arrays.

CuPy compiles a kernel when it is first called and remembers it. Matrix products go to cuBLAS by a handle of our own: CuPy
refuses to call it while a CUDA graph (graph.py) is recorded, and the detour through Python's ctypes is shorter too.
"""

import ctypes
import functools
import os

import numpy as np

from .backend import array_module

WORKSPACE = 32 << 20  # bytes, what cuBLAS wants on recent GPUs; none may be taken while a graph is recorded


# 32 columns to a block. Each of its 32 rows of threads takes every 32nd example; then the 32 sums of a column are added by
# halves. Always in the same order, so that equal runs give equal bits, which atomic additions would not.
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


def add_rows_source(dtype, name="", slope=""):
    """(name, CUDA source) of the kernel behind add_rows; with the f′ of an activation, behind bias_activate_backward."""
    body = f"T x = x_[i], y = y_[i], dx = dy * ({slope}); dx_[i] = dx; sum += dx;" if slope else "sum += dy;"
    name = f"add_rows_{name}"
    real = "float" if dtype == "float32" else "double"
    return name, f"typedef {real} T;" + ADD_ROWS.format(name=name, body=body)


class Cuda:
    """Runs kernels on CuPy arrays."""

    def elementwise(self, kernel, arrays):
        """The outputs of a kernels.Kernel."""
        if kernel.compiled is None:
            xp = array_module(*arrays)
            kernel.compiled = xp.ElementwiseKernel(kernel.inputs, kernel.outputs, kernel.code, kernel.name)
        return kernel.compiled(*arrays)

    def add_rows(self, db, dy, f=None, x=None, y=None):
        """db += Σ dy along the batch. With an Activation f, dx = f′ dy is summed in place of dy, and returned."""
        xp = array_module(dy)
        dy = xp.ascontiguousarray(dy)
        rows, columns = dy.shape
        if db.shape != (columns,) or (f and not x.shape == y.shape == dy.shape):
            raise ValueError(f"the gradient of a bias {db.shape} from dy of shape {dy.shape}, expected (B, {len(db)})")
        x, y, dx, a = (x, y, xp.empty_like(dy), f.a) if f else (dy, dy, dy, 0)
        kernel = _add_rows(xp, dy.dtype, *((type(f).__name__, f.cuda[1]) if f else ("", "")))
        sizes = np.int32(rows), np.int32(columns)
        kernel(((columns + 31) // 32,), (32, 32), (dy, x, y, dy.dtype.type(a), dx, db, *sizes))
        return dx

    def gemm(self, a, b, out=None):
        """a b, added to out where it is given."""
        xp, add = array_module(a), out is not None
        if a.shape[1] != len(b) or a.dtype != b.dtype or (add and out.shape != (len(a), b.shape[1])):
            raise ValueError(
                f"the product of {a.shape} {a.dtype} and {b.shape} {b.dtype}: sizes must agree, and so must types on a GPU "
                "(rng.array(x) gives x the model's)"
            )
        if not add:
            out = xp.empty((len(a), b.shape[1]), a.dtype)
        _cublas(xp, xp.cuda.runtime.getDevice(), xp.cuda.get_current_stream().ptr)(packed(a), packed(b), out, add)
        return out


def packed(a):
    """The same matrix, copied only if neither it nor its transpose lies in one piece."""
    return a if a.flags.c_contiguous or a.flags.f_contiguous else a.copy()


@functools.cache
def _add_rows(xp, dtype, activation, slope):
    name, source = add_rows_source(dtype, activation, slope)
    return xp.RawKernel(source, name)


@functools.cache
def _cublas(xp, gpu, stream):
    """product(a, b, out, add): out ← a b, or out ← out + a b, by cuBLAS on a GPU (its number) and a stream (its address)."""
    version = xp.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{version}.dll" if os.name == "nt" else f"libcublas.so.{version}"
    xp.cuda.device.get_cublas_handle()  # CuPy finds and loads the library
    lib, handle, workspace = ctypes.CDLL(name), ctypes.c_void_p(), xp.empty(WORKSPACE, xp.uint8)
    pointer, integer = ctypes.c_void_p, ctypes.c_int

    def checked(status):
        if status:
            raise RuntimeError(f"cuBLAS failed with status {status}")

    checked(lib.cublasCreate_v2(ctypes.byref(handle)))
    checked(lib.cublasSetStream_v2(handle, pointer(stream)))  # resets the workspace, so that comes second
    checked(lib.cublasSetWorkspace_v2(handle, pointer(workspace.data.ptr), ctypes.c_size_t(WORKSPACE)))
    functions = {"f": (lib.cublasSgemm_v2, ctypes.c_float), "d": (lib.cublasDgemm_v2, ctypes.c_double)}
    for function, _ in functions.values():
        matrices = [pointer, pointer, integer, pointer, integer, pointer, pointer, integer]  # α a lda b ldb β c ldc
        function.argtypes = [pointer] + 5 * [integer] + matrices
    numbers = {kind: [ctypes.byref(real(0)), ctypes.byref(real(1))] for kind, (_, real) in functions.items()}

    def product(a, b, out, add, keep=workspace):
        kind, (n, k), m = out.dtype.char, a.shape, b.shape[1]
        zero_one = numbers[kind]
        # cuBLAS reads matrices by columns, so it sees each transposed, and is asked for outᵀ = bᵀ aᵀ.
        a_turned, a_step = (0, k) if a.flags.c_contiguous else (1, n)
        b_turned, b_step = (0, m) if b.flags.c_contiguous else (1, k)
        status = functions[kind][0](
            handle, b_turned, a_turned, m, n, k,
            zero_one[1], b.data.ptr, b_step, a.data.ptr, a_step, zero_one[add], out.data.ptr, m,
        )  # fmt: skip
        if status:
            checked(status)

    return product
