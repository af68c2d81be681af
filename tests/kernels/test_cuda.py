"""What scratchgen.kernels.cuda does on the host's side of a GPU, and its one kernel that is more than a loop, without a GPU.

cuBLAS is played by a function that reads memory by columns, as it does; the kernel is compiled as C++ with a thread for each
of a block's 1,024.
"""

import ctypes
import itertools
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from scratchgen.backend import Rng, UsageError
from scratchgen.kernels import cuda
from scratchgen.kernels.cuda import Cuda, add_rows_source
from scratchgen.nn.activations import ELU

REALS = {"float32": ctypes.c_float, "float64": ctypes.c_double}


# ---- matrix products ----


def by_columns(address, step, rows, columns, real):
    """The matrix (rows, columns) that cuBLAS finds at an address."""
    assert step >= max(1, rows), "leading dimension too small"
    flat = np.ctypeslib.as_array((real * (step * columns)).from_address(address)) if step * columns else np.empty(0)
    return flat.reshape(columns, step).T[:rows]


def fake_gemm(real):
    def gemm(handle, turn_a, turn_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        a = by_columns(a, lda, *((k, m) if turn_a else (m, k)), real)
        b = by_columns(b, ldb, *((n, k) if turn_b else (k, n)), real)
        c = by_columns(c, ldc, m, n, real)
        product = alpha._obj.value * (a.T if turn_a else a) @ (b.T if turn_b else b)
        c[...] = product + beta._obj.value * c if beta._obj.value else product
        return 0

    return gemm


class Function:
    """A C function: callable, and with room for argtypes."""

    def __init__(self, f):
        self.f = f

    def __call__(self, *given):
        return self.f(*given)


class Array:
    """As much of a device array as Cuda.gemm needs, over a NumPy array."""

    def __init__(self, values):
        self.values, self.shape, self.ndim, self.dtype = values, values.shape, values.ndim, values.dtype
        self.flags, self.data = values.flags, SimpleNamespace(ptr=values.ctypes.data)

    def copy(self):
        return Array(self.values.copy())


@pytest.fixture
def gemm(monkeypatch):
    """Cuda().gemm on NumPy arrays, cuBLAS played by the functions above."""
    done = Function(lambda *given: 0)
    library = SimpleNamespace(cublasCreate_v2=done, cublasSetStream_v2=done, cublasSetWorkspace_v2=done)
    library.cublasSgemm_v2, library.cublasDgemm_v2 = (Function(fake_gemm(real)) for real in REALS.values())
    xp = ModuleType("device")
    xp.empty = lambda shape, dtype: Array(np.full(shape, np.nan, dtype))
    xp.ascontiguousarray = lambda array: array
    xp.cuda = SimpleNamespace(
        Memory=lambda size: SimpleNamespace(ptr=0),
        runtime=SimpleNamespace(runtimeGetVersion=lambda: 13000, getDevice=lambda: 0),
        device=SimpleNamespace(get_cublas_handle=lambda: 0),
        get_current_stream=lambda: SimpleNamespace(ptr=0),
    )
    monkeypatch.setattr(cuda, "array_module", lambda *arrays: xp if isinstance(arrays[0], Array) else np)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: library)
    cuda._cublas.cache_clear()
    yield lambda *arrays: Cuda().gemm(*(Array(a) for a in arrays)).values
    cuda._cublas.cache_clear()


def layouts(rng, n, m):
    """A matrix (n, m) as it may lie in memory."""
    a = rng.normal((n, m))
    yield a
    yield np.asfortranarray(a)
    yield rng.normal((2 * n, m + 3))[::2, 2 : m + 2]
    yield rng.normal((m, n + 1))[:, 1:].T
    yield a[::-1]
    yield np.broadcast_to(a[:1], a.shape)


@pytest.mark.parametrize("dtype", REALS)
def test_products_of_all_sizes_and_layouts(dtype, gemm):
    rng = Rng(0, dtype)
    for n, k, m in itertools.product((1, 2, 3, 5), repeat=3):
        for a, b in itertools.product(layouts(rng, n, k), layouts(rng, k, m)):
            out = rng.normal((n, m))
            expected = a @ b + out
            np.testing.assert_allclose(gemm(a, b), a @ b, rtol=1e-4, atol=1e-5)
            assert gemm(a, b, out) is out
            np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    for n, k, m in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
        np.testing.assert_array_equal(gemm(rng.zeros((n, k)), rng.zeros((k, m))), np.zeros((n, m)))


def test_what_raw_memory_would_get_wrong_is_refused(gemm):
    a, b, out = np.ones((3, 4)), np.ones((4, 2)), np.ones((3, 2))
    for arrays, words in (
        ((a, b.astype("float32")), r"float64 and device float32.*rng\.array"),
        ((a, b, out.astype("float32")), "float32"),
        ((a, out), r"\(3, 4\) and \(3, 2\)"),
        ((a[0], b), r"\(4,\) and \(4, 2\)"),
        ((a, b, np.ones((2, 2))), r"added to \(2, 2\)"),
        ((a, b, np.ones((3, 5))[:, :2]), "contiguous"),
    ):
        with pytest.raises(ValueError, match=words):
            gemm(*arrays)
    with pytest.raises(ValueError, match=r"numpy float64 and device float64.*rng\.array"):
        Cuda().gemm(a, Array(b))
    with pytest.raises(ValueError, match=r"float64 and device float32"):
        Cuda().add_rows(Array(np.ones(4)), Array(a.astype("float32")))
    for db in (np.ones(3), np.ones((4, 1))):
        with pytest.raises(ValueError, match=r"from dy of shape \(3, 4\), expected \(n,\) and \(B, n\)"):
            Cuda().add_rows(Array(db), Array(a))


def test_no_cublas_is_one_line(gemm, monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda.ctypes, "CDLL", missing)
    with pytest.raises(UsageError, match=r"libcublas.so.13.*cupy-cuda13x\[ctk\]|cublas64_13.dll"):
        gemm(np.ones((1, 1)), np.ones((1, 1)))


# ---- sums over the batch ----

BLOCK = """
#include <barrier>
#include <cmath>
#include <thread>
#include <vector>
using namespace std;
struct Index {{ int x, y; }};
thread_local Index threadIdx, blockIdx;
static barrier<> meeting(1024);
#define __global__
#define __shared__ static
#define __syncthreads() meeting.arrive_and_wait()
{source}
extern "C" void run(const T* dy, const T* x, const T* y, T a, T* dx, T* db, int rows, int columns) {{
    for (int block = 0; block < (columns + 31) / 32; block++) {{
        vector<thread> threads;
        for (int i = 0; i < 1024; i++) threads.emplace_back([=] {{
            threadIdx = {{i % 32, i / 32}}, blockIdx = {{block, 0}};
            {name}(dy, x, y, a, dx, db, rows, columns);
        }});
        for (auto& t : threads) t.join();
    }}
}}
"""


@pytest.mark.parametrize("f", [None, ELU(0.7)], ids=["sum alone", "after an activation"])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_sum_over_the_batch(dtype, f, compile_cpp):
    name, source = add_rows_source(np.dtype(dtype), "ELU" if f else "")
    source = BLOCK.format(name=name, source=source)
    run = compile_cpp(source, "-std=c++20", "-pthread", missing="barrier").run
    rng, rows, columns = Rng(0, dtype), 45, 37  # neither a multiple of a block's 32
    dy, x, db = rng.normal((rows, columns)), rng.normal((rows, columns)), rng.normal(columns)
    y, dx = f.f(np, x) if f else x, rng.zeros((rows, columns))
    expected_dx = dy * f.df(np, x, y) if f else dy
    expected = db + expected_dx.sum(axis=0)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (dy, x, y, dx, db)]
    a = REALS[dtype](f.a if f else 0)
    run(*pointers[:3], a, *pointers[3:], ctypes.c_int(rows), ctypes.c_int(columns))
    tolerance = {"float32": 1e-5, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(db, expected, rtol=tolerance, atol=tolerance)
    if f:
        np.testing.assert_allclose(dx, expected_dx, rtol=tolerance, atol=tolerance)
