"""The simulated CuPy itself: does it find what a GPU could not run, and let all else pass?"""

import inspect
import re

import numpy as np
import pytest
import simcupy
from simcupy.planted import PLANTED, RAISES
from simcupy.rules import SAME, SIGNATURES, UFUNCS
from simcupy.valid import VALID

from scratchgen.backend import Rng, array_module, to_host

X = np.random.default_rng(0).standard_normal((4, 3), np.float32)
Y, I = 2 * X[1], np.array([0, 2, 1, 2])


# ---- programs ----


def found(xp, name):
    """What the program `name` does wrong on a device: a set of "raises", "syncs", "uploads", "upcasts"."""
    x, labels = xp.asarray(abs(X)), xp.asarray(np.arange(4))
    with simcupy.counting() as counts:
        try:
            result = PLANTED[name][0](xp, x, labels)
        except (TypeError, ValueError, AttributeError, IndexError, NotImplementedError):
            return {"raises"}
    seen = {"syncs": counts.syncs, "uploads": counts.uploads, "upcasts": getattr(result, "dtype", None) == np.float64}
    return {how for how, happened in seen.items() if happened}


@pytest.mark.parametrize("name", PLANTED)
def test_finds(name):
    assert PLANTED[name][1] in found(simcupy, name)


def test_numpy_alone_finds_next_to_none_of_them():
    assert len(PLANTED) >= 32
    assert sum("raises" in found(np, name) for name in PLANTED) <= 0.1 * len(PLANTED)


@pytest.mark.gpu
@pytest.mark.parametrize("name", RAISES)
def test_cupy_refuses_it_too(name, gpu):
    assert found(gpu, name) == {"raises"}


def results(xp, name):
    with np.errstate(all="ignore"):
        found = VALID[name](xp, *(xp.array(array) for array in (X, Y, I)))
    return found if isinstance(found, tuple) else (found,)


def check_like_numpy(xp, name, tolerance=1e-5):
    ours, theirs = results(xp, name), results(np, name)
    assert len(ours) == len(theirs)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        b = np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"result {i}"
        np.testing.assert_allclose(to_host(a), b, rtol=tolerance, atol=tolerance, err_msg=f"result {i}")


@pytest.mark.parametrize("name", VALID)
def test_runs(name):
    with simcupy.counting() as counts:
        check_like_numpy(simcupy, name)
    assert all(" get()" in line for line in counts.log if line.startswith("sync"))  # the comparison's own
    assert counts.uploads == 3


def test_enough_programs_run():
    assert len(VALID) >= 30


@pytest.mark.gpu
@pytest.mark.parametrize("name", VALID)
def test_runs_on_cupy(name, gpu):
    check_like_numpy(gpu, name, tolerance=1e-4)


# ---- the table of names ----


def parameters(signature):
    """The same text for equal signatures, whichever way they were written down."""
    text = re.sub(r"<class '(?:numpy\.)?(\w+)'>", r"\1", str(signature))
    return re.sub(r" -> .*$|: '[^']*'", "", text).replace(" = ", "=")


def documented(method):
    """The signature of a compiled method, from the first line of its description."""
    text = method.__doc__.partition("\n")[0].partition("(")[2].rpartition(")")[0]
    return "(" + ", ".join(re.sub(r"^(?:\w+ )+(?=\w)", "", part.strip()) for part in text.split(",")) + ")"


@pytest.mark.needs("cupy")
def test_every_name_is_cupys_own():
    import cupy

    if not cupy.__version__.startswith("14."):
        pytest.skip(f"the table is of CuPy 14, not {cupy.__version__}")
    homes = {"functions": cupy, "ndarray": cupy.ndarray, "linalg": cupy.linalg, "Generator": cupy.random.Generator}
    for section, signatures in SIGNATURES.items():
        for name, signature in signatures.items():
            theirs = getattr(homes[section], name)
            try:
                theirs = parameters(inspect.signature(theirs))
            except ValueError:
                theirs = documented(theirs)
            if name != "einsum":  # takes **kwargs, and reads these from them
                assert parameters(signature) == theirs, f"{section} {name}"
    assert all(type(getattr(cupy, name)).__name__ == "ufunc" for name in UFUNCS)
    assert all(getattr(cupy, name) is getattr(np, name) for name in SAME if name not in ("finfo", "iinfo", *own(cupy)))


def own(cupy):
    """Names that CuPy defines itself, in words like NumPy's."""
    return [name for name in SAME if getattr(getattr(cupy, name), "__module__", "").startswith("cupy")]


def test_all_in_the_simulated_module_is_in_the_table_or_its_own():
    table = {*SAME, *UFUNCS, *SIGNATURES["functions"]}
    own = {"Counts", "counting", "fused", "functions", "missing", "ndarray"}
    modules = {name for name, value in vars(simcupy).items() if inspect.ismodule(value)}
    assert {name for name in vars(simcupy) if not name.startswith("_")} == table | own | modules
    facts = ["shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "flags", "T", "mT", "real", "imag"]
    assert {name for name in dir(simcupy.ndarray) if not name.startswith("_")} == {*SIGNATURES["ndarray"], *facts}
    assert {name for name in dir(simcupy.random.Generator) if not name.startswith("_")} == {*SIGNATURES["Generator"]}


# ---- the generator ----


def test_generator():
    draw = simcupy.random.Generator(simcupy.random.XORWOW(3, size=65536))
    again = simcupy.random.Generator(simcupy.random.XORWOW(3, size=65536))
    a = draw.standard_normal((1000, 2), dtype=np.float32)
    assert (a.shape, a.dtype) == ((1000, 2), np.float32)
    assert abs(float(a.mean())) < 0.1 and abs(float(a.std()) - 1) < 0.1
    out = simcupy.empty((1000, 2), np.float32)
    assert again.standard_normal(out=out, dtype=np.float32) is out
    np.testing.assert_array_equal(out.get(), a.get())
    u, k = draw.random(500, dtype=np.float32), draw.integers(0, 5, size=500)
    assert float(u.min()) >= 0 and float(u.max()) < 1 and u.dtype == np.float32
    assert (int(k.min()), int(k.max())) == (0, 4)
    assert draw.standard_normal().shape == ()
    for wrong in ({"dtype": np.int32}, {"dtype": np.float32, "out": np.empty(3)}, {"loc": 0}):
        with pytest.raises(TypeError):
            draw.standard_normal(**wrong)


# ---- what is counted ----


def launches(program):
    """The events of a program on x (4, 3), y (4, 3), both float32."""
    x, y = simcupy.asarray(X), simcupy.asarray(X)
    with simcupy.counting() as counts:
        program(x, y)
    return counts.log


@pytest.mark.parametrize(
    ("program", "n"),
    [
        (lambda x, y: x * 2 + y, 2),
        (lambda x, y: x.__iadd__(y), 1),
        (lambda x, y: x.mean(axis=0), 1),
        (lambda x, y: x @ y.T, 1),
        (lambda x, y: x[:, :2] @ y[:2, :2], 3),
        (lambda x, y: x.astype("float64") @ y.T, 3),
        (
            lambda x, y: (
                x.T,
                x.reshape(12),
                x[1:],
                x[None],
                x.real,
                simcupy.empty(3),
                simcupy.empty_like(x),
                x.ravel(),
            ),
            0,
        ),
        (lambda x, y: x.T.reshape(12), 1),
        (lambda x, y: (x.astype("float32", copy=False), simcupy.asarray(x)), 0),
        (lambda x, y: (x.astype("float32"), x.copy(), simcupy.array(x)), 3),
        (lambda x, y: (x.fill(0), simcupy.zeros(3), simcupy.arange(3)), 3),
        (lambda x, y: x.__setitem__(slice(1), y[:1]), 1),
        (lambda x, y: simcupy.concatenate([x, y]), 1),
        (lambda x, y: simcupy.multiply(x, y, out=x), 1),
        (lambda x, y: (len(x), x.shape, x.dtype, x.size), 0),
    ],
)
def test_launches(program, n):
    log = launches(program)
    assert len(log) == n and all(line.startswith("launch") for line in log), log


def test_a_slice_added_to_in_place_is_one_launch():
    def program(x, y):
        x[1:] += y[1:]

    assert launches(program) == ["launch add (3, 3) float32"]


@pytest.mark.parametrize("read", [float, int, bool, complex, str, repr, "{:.2f}".format, simcupy.asnumpy])
def test_reading_is_a_sync(read):
    log = launches(lambda x, y: read(x[0, 0]))
    assert len(log) == 1 and log[0].startswith("sync"), log


def test_counts_of_nested_and_fused_parts():
    x = simcupy.asarray(X)
    with simcupy.counting() as outer:
        with simcupy.counting() as inner:
            x += 1
        with simcupy.fused("kernel"):
            x *= 2
            float((x * x).sum())
    assert inner.log == ["launch add (4, 3) float32"]
    assert outer.log[:2] == ["launch add (4, 3) float32", "launch kernel"]
    assert re.fullmatch(r"sync float\(\) \(\) float32 in test_simcupy.py:\d+", outer.log[2])
    assert repr(outer).startswith("2 launches, 1 syncs, 0 uploads")


def test_the_library_takes_it_for_a_device():
    x = Rng(0, "float32", simcupy).normal((2, 3))
    assert array_module(x) is simcupy
    assert not isinstance(x, np.ndarray) and isinstance(to_host(x), np.ndarray)


def test_numpy_in_the_place_of_the_arrays_module_is_named():
    x = simcupy.ones((2, 3), dtype="float32")
    for work in (lambda: np.exp(x), lambda: x + np.ones(3)):
        with pytest.raises(TypeError) as caught, simcupy.counting():
            work()
        assert "array_module(x)" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match=r"np.concatenate.*array_module\(x\).concatenate"):
        np.concatenate([x, x])
