"""exp, tanh and the like of vector_math.py are right to a few units in the last place, and at the ends as NumPy's are."""

import ctypes

import numpy as np
import pytest

from scratchgen.kernels import compiler
from scratchgen.kernels.vector_math import functions

REALS = {"float32": "float", "float64": "double"}
NAMES = "exp", "expm1", "tanh", "log", "log1p"
ENDS = [np.nan, np.inf, -np.inf, 0, -0.0, 1e-40, -1e-40, 5e-324, 1e-300, 1e30, -1e30, 1, -1, -0.9999999, 0.5, 2**0.5]
ENDS += [88.72, 88.73, 89, -87.4, -103, -104, -105, 709.7, 709.9, -745, -746, 20, -20]


@pytest.fixture(scope="module")
def library():
    """library(name, x) -> the function of each number of x, by the system's compiler."""
    built = {}
    try:
        for dtype, real in REALS.items():
            loop = "#pragma omp simd\nfor (size_t i = 0; i < n; i++)"
            loops = [
                f'extern "C" void v_{name}(size_t n, const T* x, T* y) {{\n{loop} y[i] = {name}(x[i]); }}'
                for name in NAMES
            ]
            head = f"#include <stddef.h>\ntypedef {real} T;\n{functions(dtype)}"
            built[np.dtype(dtype)] = compiler.build("\n".join([head, *loops]))
    except compiler.CompilerError as error:
        pytest.skip(str(error))

    def call(name, x):
        y = np.empty_like(x)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y)]
        built[x.dtype][f"v_{name}"](ctypes.c_size_t(len(x)), *pointers)
        return y

    return call


def tried(name, dtype):
    """The numbers to try: all sizes, and more of those for which it is hard."""
    rng = np.random.default_rng(0)
    small = np.exp(rng.uniform(-30, 1, 20_000))
    near = {"log": rng.uniform(0.5, 1.5, 20_000), "log1p": rng.uniform(-0.99, 1, 20_000)}
    x = [near.get(name, rng.uniform(-90, 90, 20_000)), small]
    x += [np.exp(rng.uniform(-80, 80, 20_000))] if "log" in name else [-small, rng.uniform(-1, 1, 20_000)]
    return np.concatenate([*x, ENDS]).astype(dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", REALS)
def test_to_three_units_in_the_last_place(name, dtype, library):
    with np.errstate(all="ignore"):
        x = tried(name, dtype)
        y, exact = library(name, x), getattr(np, name)(x.astype(np.longdouble))
        expected = exact.astype(dtype)
    special = ~np.isfinite(expected) | ~np.isfinite(y)
    np.testing.assert_array_equal(y[special], expected[special])
    if np.finfo(np.longdouble).nmant > 60 or dtype == "float32":  # else there is nothing more exact to compare with
        x, y, exact, expected = (a[~special] for a in (x, y, exact, expected))
        units = np.abs(y - exact) / np.spacing(np.abs(expected))
        assert units.max() < 3, f"{units.max():.1f} units at x = {x[units.argmax()]!r}"


@pytest.mark.parametrize("dtype", REALS)
def test_a_number_gives_the_same_wherever_it_stands(dtype, library):
    """The last numbers of an array do not fill a vector, and are computed alone."""
    x = np.random.default_rng(0).uniform(-3, 3, 67).astype(dtype)
    for name in NAMES:
        alone = np.concatenate([library(name, x[i : i + 1]) for i in range(len(x))])
        np.testing.assert_allclose(library(name, x), alone, rtol=2 * np.finfo(dtype).eps)
