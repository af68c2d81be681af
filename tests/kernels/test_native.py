"""Kernels compiled for the CPU give what NumPy gives, for arrays of any layout, and models learn the same with them.

test_kernels.py compares each kernel with its twin, test_devices.py each part of the library with and without them. Here: how
arrays may lie, numbers that are none, what is left to NumPy, when they run, and how often in a training step.
"""

import contextlib
import itertools
import re
import tracemalloc

import numpy as np
import pytest
import simcupy
from simcupy.twins import TWINS, with_setting
from test_cuda import layouts
from test_devices import every_model, example
from test_kernels import FUSED, SETTINGS, TYPES, by_native, by_twin, every_kernel, names

from scratchgen import Rng, UsageError, compiled_kernels, fit
from scratchgen.check.selfcheck import selfcheck
from scratchgen.kernels import DEVICES, elementwise
from scratchgen.kernels import native as module
from scratchgen.kernels.native import Native
from scratchgen.models import find_model
from scratchgen.nn import distributions, losses, optim
from scratchgen.nn.activations import ACTIVATIONS, ELU, ReLU
from scratchgen.nn.layers import add_masked, add_matmul, add_rows, masked, matmul, mlp, sum_by_label
from scratchgen.nn.norms import LayerNorm
from scratchgen.nn.parameters import Parameters

both_precisions = pytest.mark.parametrize("dtype", TYPES)
CLOSE = {"float32": 1e-5, "float64": 1e-12}
F = {f.__name__: f for f in ACTIVATIONS.values()}

# Calls of a kernel, of a sum over the batch or of a matrix product in one train_step, for each variant of a model.
CALLS = {
    "autoencoder": (21, 21, 21),
    "classifier": (11, 16),
    "code_prior": (24, 33, 16),
    "conditional_gan": (57, 64, 54, 54, 57),
    "dbn": (14, 16),
    "ddpm": (59, 59, 59, 61, 86),
    "ebm": (31, 31, 30, 52, 79),
    "flow": (36, 36, 50, 40, 46),
    "gan": (57, 66, 54, 72, 54),
    "gmm": (5, 1, 1, 7),
    "gsn": (22, 12, 22),
    "latent_diffusion": (63, 65, 63),
    "made": (16, 24, 19, 11),
    "masked_diffusion": (19, 28, 10),
    "pix2pix": (57, 55, 54, 64, 57),
    "rbm": (13, 15),
    "vae": (23, 23, 21, 21, 23, 23, 21),
    "vqgan": (77, 67, 63),
    "vqvae": (25, 29, 15, 25),
    "wgan": (292, 142, 85, 82),
}

# The most numbers per example that a train_step holds at once beside the model, in plain NumPy and compiled.
HELD = {
    "autoencoder": (50, 47),
    "classifier": (30, 27),
    "code_prior": (145, 110),
    "conditional_gan": (132, 118),
    "dbn": (37, 37),
    "ddpm": (152, 140),
    "ebm": (79, 79),
    "flow": (140, 138),
    "flow_matching": (152, 140),
    "gan": (105, 98),
    "gsn": (65, 65),
    "latent_diffusion": (152, 140),
    "latent_flow": (152, 140),
    "made": (61, 56),
    "masked_diffusion": (155, 110),
    "pix2pix": (203, 192),
    "rbm": (37, 35),
    "reflow": (152, 140),
    "vae": (66, 59),
    "vqgan": (106, 99),
    "vqvae": (106, 93),
    "wgan": (142, 135),
}


def near(found, expected, dtype, what=""):
    """Asserts that both are the same but for rounding."""
    scale = np.max(np.abs(expected), initial=1)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=CLOSE[dtype], atol=CLOSE[dtype] * scale, err_msg=what)


def filled(k, shapes, dtype, lie=np.copy):
    """The arguments of a kernel: arrays of these shapes for its arrays, as `lie` puts them, and numbers of SETTINGS."""
    rng = Rng((0, 1), dtype)
    arrays = {p: 3 * rng.normal(shape) for p, shape in shapes.items()}
    arrays |= {"v": arrays["v"] ** 2} if "v" in arrays else {}
    arrays = {p: lie(a) for p, a in arrays.items()}
    return {p: arrays[p] if p in arrays else SETTINGS[k.name][p] for p in names(k.inputs) + names(k.outputs)}


def apart(a):
    """The same numbers in every second place of each axis."""
    wide = np.full([2 * n for n in a.shape], np.nan if a.dtype.kind == "f" else 1, a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def half(a):
    """The same numbers as the right half of a table."""
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan if a.dtype.kind == "f" else 1, a.dtype)
    wide[..., a.shape[-1] :] = a
    return wide[..., a.shape[-1] :]


def off(a):
    """The same numbers at addresses that are no multiples of their size."""
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


LIES = {
    "in one piece": np.copy,
    "apart": apart,
    "half": half,
    "off": off,
    "turned": lambda a: a.T.copy().T,
    "backwards": lambda a: a[::-1].copy()[::-1],
}
SHAPES = [(0,), (1,), (3, 0), (1, 1), (3, 5), (5, 1), (1, 300), (99, 3), (2, 1, 3, 1, 2, 1, 1, 2)]


@every_kernel
@both_precisions
def test_arrays_of_all_sizes_and_layouts(name, dtype, native):
    k = FUSED[name]
    for shape, (lie, put) in itertools.product(SHAPES, LIES.items()):
        arrays = filled(k, dict.fromkeys(names(k.arrays) + names(k.outputs), shape), dtype, put)
        expected, given = by_twin(k, arrays), {p: a.copy() for p, a in arrays.items() if p in names(k.arrays)}
        made = [arrays[p] for p in names(k.outputs)]
        result = native.elementwise(k, tuple(arrays.values()))
        assert all(kept is array for kept, array in zip(result if len(made) > 1 else [result], made))
        for p, array in zip(names(k.outputs), made):
            near(array, expected[p], dtype, f"{p} {shape} {lie}")
        for p, a in given.items():
            np.testing.assert_array_equal(arrays[p], a)


@every_kernel
@both_precisions
def test_arrays_are_broadcast_as_in_numpy(name, dtype, native):
    k = FUSED[name]
    for shapes in itertools.permutations([(3, 5), (5,), (3, 1), (4, 1, 5), ()], 2):
        given = dict(zip(names(k.arrays), itertools.cycle([(4, 3, 5), *shapes])))
        arrays = filled(k, given | dict.fromkeys(names(k.outputs), (4, 3, 5)), dtype)
        for p, found in by_native(native, k, arrays, dtype).items():
            near(found, np.broadcast_to(by_twin(k, arrays)[p], found.shape), dtype)


@both_precisions
def test_outputs_are_made_of_the_common_shape(dtype, native):
    rng = Rng(0, dtype)
    for shapes in itertools.permutations([(4, 3), (3,), (4, 1)], 2):
        a, b = (rng.normal(shape) for shape in shapes)
        square, d = native.elementwise(elementwise.SQUARE, (a, b, 0.5))
        assert square.shape == d.shape == np.broadcast_shapes(*shapes)
        near(d, a - b, dtype)
        near(native.elementwise(elementwise.SQUARE, (a, 2, 0.5))[1], a - 2, dtype)


STRANGE = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1e-40,
    -1e-40,
    5e-324,
    1e30,
    -1e30,
    88.7,
    89,
    -88,
    -104,
    710,
    -746,
    1,
    -1,
    20,
    1e-5,
    -30,
]


@every_kernel
@both_precisions
def test_nan_and_infinity_are_met_as_in_numpy(name, dtype, native):
    k = FUSED[name]
    draw = np.random.default_rng(0).choice
    with np.errstate(all="ignore"):
        arrays = {p: draw(np.array(STRANGE, dtype), 5000) for p in names(k.arrays) + names(k.outputs)}
        arrays |= SETTINGS[k.name]
        arrays = {p: arrays[p] for p in names(k.inputs) + names(k.outputs)}
        f = name.removesuffix("_backward")
        if f in F and f != name:
            arrays["y"] = TWINS[f](arrays["x"], SETTINGS[f]["a"])
        if name == "ELU_backward":  # there NumPy's formula multiplies infinity by 0
            arrays["x"][np.isinf(arrays["x"])] = 1
            arrays["y"] = TWINS[f](arrays["x"], SETTINGS[f]["a"])
        expected = by_twin(k, arrays)
    for p, found in by_native(native, k, arrays, dtype).items():
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected[p]), p)
        np.testing.assert_array_equal(np.isinf(found) * np.sign(found), np.isinf(expected[p]) * np.sign(expected[p]), p)
        finite = np.isfinite(found)
        np.testing.assert_allclose(found[finite], expected[p][finite], rtol=1e-4, atol=1e-5, err_msg=p)


# ---- sums over the batch, and matrix products ----


@both_precisions
@pytest.mark.parametrize("name", ["", *F])
def test_sums_over_the_batch(name, dtype, native):
    rng = Rng(0, dtype)
    for shape, lie in itertools.product([(5, 3), (1, 1), (0, 4), (3, 0), (9, 1100)], LIES.values()):
        dy, x, db = lie(rng.normal(shape)), lie(rng.normal(shape)), rng.normal(shape[1])
        f = with_setting(F[name], 0.7) if name else None
        y = lie(f.f(np, x)) if f else x
        dx = dy * f.df(np, x, y) if f else dy
        expected, before = db + dx.sum(axis=0), dy.copy()
        near(native.add_rows(db, dy, (name, 0.7, x, y) if f else None), dx, dtype)
        near(db, expected, dtype)
        np.testing.assert_array_equal(dy, before)


@both_precisions
@pytest.mark.parametrize("blas", [True, False], ids=["by BLAS", "without"])
def test_products_are_added_in_any_layout(dtype, blas, native, monkeypatch):
    if blas and not native.products:
        pytest.skip("NumPy's BLAS has none of the names that are known")
    if not blas:
        monkeypatch.setattr(native, "products", {})
    rng = Rng(0, dtype)
    for n, k, m in ((1, 1, 1), (2, 1, 5), (5, 2, 1), (1, 5, 2), (3, 4, 5)):
        for a, b in itertools.product(layouts(rng, n, k), layouts(rng, k, m)):
            near(native.gemm(a, b), a @ b, dtype)
            for out in (rng.normal((n, m)), rng.normal((m, n)).T, half(rng.normal((n, m))), apart(rng.normal((n, m)))):
                expected = a @ b + out
                assert native.gemm(a, b, out) is out
                near(out, expected, dtype)
    for n, k, m in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
        np.testing.assert_array_equal(
            native.gemm(rng.zeros((n, k)), rng.zeros((k, m)), rng.zeros((n, m))), np.zeros((n, m))
        )


@both_precisions
def test_a_product_may_be_added_to_one_of_its_factors(dtype, native):
    a, b = Rng(0, dtype).normal((4, 4)), Rng(1, dtype).normal((4, 4))
    for left, right, out in ((a, b, a), (b, a, a), (b, a.T, a), (a[:2, :2], b[:2, 2:], a[1:3, 1:3])):
        kept, before = a.copy(), out + left @ right
        near(native.gemm(left, right, out), before, dtype)
        a[...] = kept


def test_numpys_blas_is_found_where_numpy_brings_it(native):
    if "openblas" not in str(np.show_config(mode="dicts")["Build Dependencies"]["blas"]).lower():
        pytest.skip("this NumPy does not bring OpenBLAS")
    assert native.products.keys() == {np.dtype(name) for name in TYPES}


# ---- functions on tables: cpp.ROWS ----


def row_functions(rng, shape, lie):
    """{name: (function, its arrays)}; each array lies in memory as `lie` puts it."""
    B, n = shape
    W, M = lie(rng.normal(shape)), lie(rng.uniform(shape) < 0.6)
    norm = LayerNorm(n)
    Parameters(rng, norm=norm)
    norm.gamma[...], norm.beta[...] = rng.normal(n), rng.normal(n)

    def normalised(x, dy):
        norm.params.zero_grad()
        y, back = norm.forward(x, None)
        return y, back(dy), norm.dgamma.copy(), back(dy, learn=False), norm.dgamma.copy()

    def added(out, W, M):
        out = lie(out)
        add_masked(out, W, M)
        return (out,)

    return {
        "masked": (lambda W, M: (masked(W, M),), (W, M)),
        "add_masked": (added, (rng.normal(shape), W, M)),
        "sum_by_label": (sum_by_label, (W, lie(rng.integers(4, B)), 4)),
        "softmax_cross_entropy": (losses.softmax_cross_entropy, (W, lie(rng.integers(max(1, n), B)))),
        "softmax_cross_entropy, weighted": (
            losses.softmax_cross_entropy,
            (W, lie(rng.integers(max(1, n), B)), lie(rng.normal(B))),
        ),
        "LayerNorm": (normalised, (W, lie(rng.normal(shape)))),
    }


each_row_function = pytest.mark.parametrize("name", row_functions(Rng(0), (2, 2), np.copy))


@each_row_function
@both_precisions
def test_functions_on_tables_of_all_sizes_and_layouts(name, dtype, native):
    for shape, lie in itertools.product([(5, 3), (1, 2), (3, 1), (0, 4), (3, 0), (9, 130)], LIES.values()):
        f, arrays = row_functions(Rng(0, dtype), shape, lie)[name]
        if (name == "LayerNorm" and shape[1] == 0) or ("softmax" in name and 0 in shape):
            continue  # the mean of nothing
        kept = [np.array(a) for a in arrays]
        expected = f(*arrays)
        with compiled_kernels():
            found = f(*arrays)
        for a, b in zip(found, expected, strict=True):
            near(a, b, dtype)
        for a, b in zip(arrays, kept):
            np.testing.assert_array_equal(a, b)


@each_row_function
@both_precisions
def test_functions_on_tables_meet_nan_and_infinity_as_in_numpy(name, dtype, native):
    for spoilt in (np.nan, np.inf, -np.inf)[: 2 if "softmax" in name else 3]:  # of -∞ NumPy makes 0 ∞
        f, arrays = row_functions(Rng(0, dtype), (6, 4), np.copy)[name]
        for a in arrays:
            if np.ndim(a) == 2 and a.dtype == dtype:
                a[1, 2] = a[4, 0] = spoilt
        with np.errstate(all="ignore"):
            expected = f(*arrays)
            with compiled_kernels():
                found = f(*arrays)
        if name == "sum_by_label":  # in the product of plain NumPy, nan and infinity spread to the sums of all labels
            rows, labels, n = arrays
            expected[1][...] = [rows[labels == label].sum(axis=0) for label in range(n)]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@each_row_function
def test_functions_on_tables_run_compiled(name, native, monkeypatch):
    f, arrays = row_functions(Rng(0), (6, 4), np.copy)[name]
    counted = Counted(native)
    monkeypatch.setitem(DEVICES, "numpy", counted)
    f(*arrays)
    assert counted.log == {"LayerNorm": ["layer_norm"] + 2 * ["layer_norm_backward"]}.get(
        name, [name.partition(",")[0]]
    )


def test_what_functions_on_tables_do_not_take_runs_as_it_is_written(native):
    x, M, labels = Rng(0).normal((3, 4)), Rng(1).uniform((3, 4)) < 0.5, np.array([0, 2, 1])
    same_bits(lambda: (masked(x, M[0]), masked(x, x), masked(x + 1j, M), masked(x.astype(">f4"), M)))
    same_bits(lambda: sum_by_label(x, labels, 2))
    same_bits(lambda: sum_by_label(x, -labels, 3))
    same_bits(lambda: sum_by_label(x, labels[:2], 3))
    same_bits(lambda: sum_by_label(x, labels.astype(np.int8), 3))
    same_bits(lambda: losses.softmax_cross_entropy(x, 2 * labels))
    same_bits(lambda: losses.softmax_cross_entropy(x, labels[:2]))
    same_bits(lambda: losses.softmax_cross_entropy(x, np.abs(x)))
    same_bits(lambda: losses.softmax_cross_entropy(x, labels, np.ones(1, np.float32)))
    shifted = np.arange(20, dtype="float32").reshape(5, 4)
    same_bits(lambda: (out := shifted.copy(), add_masked(out[1:], out[:-1], M[:1] | np.ones((4, 1), bool)))[:1])
    fixed = x.copy()
    fixed.flags.writeable = False
    with compiled_kernels(), pytest.raises(ValueError, match="read-only"):
        add_masked(fixed, x, M)


# ---- what is left to NumPy ----


def same_bits(work):
    """work() gives with compiled kernels what it gives without: the same type, or the same error."""
    found = []
    for context in (contextlib.nullcontext(), compiled_kernels()):
        with context:
            try:
                result = work()
            except Exception as error:
                result = (repr(error),)
        found.append([(type(a), getattr(a, "dtype", None), np.array(a).tolist()) for a in result])
    assert found[0] == found[1]


def test_other_types_run_as_they_are_written(native):
    f32, f64 = (Rng(0, dtype).normal((3, 4)) for dtype in TYPES)
    same_bits(lambda: losses.square(f32, f64))
    same_bits(lambda: losses.square(f64, f64 + 1j))
    same_bits(lambda: losses.square(np.arange(3), np.arange(3)))
    same_bits(lambda: losses.square(f32, np.arange(4)))
    same_bits(lambda: losses.square(f32.astype(">f4"), f32))
    same_bits(lambda: losses.square(f32, f32, np.float64(2)))
    same_bits(lambda: losses.square(f32, f32, scale=np.arange(4.0)))
    same_bits(lambda: losses.square(np.float32(1), f32))
    same_bits(lambda: losses.square(f32[0, 0:1].reshape(()), f32[0, 1:2].reshape(())))
    same_bits(lambda: losses.square(np.ma.masked_array(f32, f32 > 0), f32))
    same_bits(lambda: losses.square(f32, f32[:2]))
    same_bits(lambda: (matmul(f32, f64.T), matmul(f32, 1j * f64.T)))
    for out, rows in (
        (f64[0].copy(), f32),
        (f32[0].copy(), f64),
        (f32[0].copy(), 1j * f64),
        (f32[0].copy(), f32[:, :2]),
    ):
        same_bits(lambda out=out, rows=rows: (kept := out.copy(), add_rows(kept, rows))[:1])
        same_bits(lambda out=out, rows=rows: (kept := np.zeros((3, 3), out.dtype), add_matmul(kept, rows, f32.T))[:1])


def test_what_may_not_be_written_is_not_written(native):
    theta, average = Rng(0).normal(5), Rng(1).normal(5)
    average.flags.writeable = False
    with compiled_kernels(), pytest.raises(ValueError, match="read-only"):
        optim.move_towards(average, theta, 0.1)
    db = np.broadcast_to(np.float32(0), 5)
    with compiled_kernels(), pytest.raises(ValueError, match="read-only"):
        add_rows(db, Rng(0).normal((3, 5)))


def gradients(network, x, dy):
    """What a network and its backward give, and the gradients of its weights."""
    network.params.zero_grad()
    y, back = network.forward(x, None)
    dx = back(dy)
    return y, dx, network.params.grad.copy()


@pytest.mark.parametrize("kinds", list(itertools.product(["float32", "float64", "complex128"], repeat=3)), ids=str)
def test_layers_take_all_mixtures_of_types(kinds, native):
    """As in a gradient check: the weights are complex, and the data is not."""
    of_weights, of_x, of_dy = kinds
    if of_dy == "complex128" != of_weights:
        of_weights = "complex128"  # a gradient must hold what is added to it
    params = Parameters(Rng(0), network=(network := mlp([4, 6, 3], ELU, last=ReLU))).cast(of_weights)
    x, dy = Rng(1, of_x).normal((5, 4)), Rng(2, of_dy).normal((5, 3)) + (1j if of_dy == "complex128" else 0)
    assert params.theta.dtype == of_weights
    plain = gradients(network, x, dy)
    with compiled_kernels():
        for found, expected in zip(gradients(network, x, dy), plain):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("of_dz", ["float32", "float64", "complex128"])
def test_a_posterior_keeps_its_noise_whatever_its_gradient_is(of_dz, native):
    h, dz = Rng(0, "float64").normal((5, 6)), Rng(1).normal((5, 3)).astype(of_dz)
    results = []
    for context in (contextlib.nullcontext(), compiled_kernels()):
        with context:
            (z, kl), back = distributions.gaussian_posterior(h, Rng(2, "float64"))
            results.append((z, kl, back((dz, 0.5))))
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert found.dtype == expected.dtype


# ---- when they run ----


def test_they_run_inside_the_context_alone(native):
    assert "numpy" not in DEVICES
    with pytest.raises(KeyError), compiled_kernels():
        assert isinstance(DEVICES["numpy"], Native)
        with compiled_kernels():
            pass
        assert isinstance(DEVICES["numpy"], Native)
        raise KeyError
    assert "numpy" not in DEVICES


def test_on_a_gpu_they_are_refused_in_one_line(monkeypatch, capsys):
    with pytest.raises(UsageError, match="is for the CPU"), compiled_kernels(simcupy):
        pass
    model, batch = find_model("vae").example(Rng(0, device=simcupy))
    with pytest.raises(UsageError, match="is for the CPU"):
        fit(model, batch["x"].get(), epochs=1, compile=True)


def test_where_nothing_can_be_compiled_a_line_says_so_and_numpy_runs(monkeypatch, capsys):
    module.native.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    try:
        model, batch = find_model("vae").example(Rng(0))
        for _ in range(2):
            fit(model, batch["x"], epochs=1, progress=False, compile=True)
        said = capsys.readouterr().err
    finally:
        module.native.cache_clear()
    assert said.count("\n") == 1
    assert re.search("plain NumPy runs.*CXX=no-such-compiler -O3 is not installed.*install one", said)


# ---- whole models ----


def trained(name, dtype, compile):
    """The losses of 200 steps, the weights at the end, and what it draws then."""
    with compiled_kernels() if compile else contextlib.nullcontext():
        model, batch = find_model(name).example(Rng(0, dtype))
        rng, losses = model.rng(1), []
        for _ in range(200):
            losses.append(list(model.train_step(**batch, rng=rng).values()))
        return np.array(losses, dtype), model.sample(5, model.rng(2))


@both_precisions
@pytest.mark.parametrize("name", ["vae", "gan"])
def test_200_steps_give_the_same_losses(name, dtype, native):
    for found, expected in zip(trained(name, dtype, True), trained(name, dtype, False)):
        np.testing.assert_allclose(found, expected, rtol={"float32": 1e-4, "float64": 1e-10}[dtype])


def test_gradients_are_exact_with_them(native):
    with compiled_kernels():
        for pattern in (
            "Linear",
            "Sequential",
            "LayerNorm",
            "Codebook",
            "softmax",
            "VAE",
            "ELU",
            "bernoulli",
            "posterior",
            "tanh",
        ):
            for _, report in selfcheck(pattern):
                assert report.passed and report.error < 1e-10, report


class Counted(Native):
    """A Native that notes what it does."""

    def __init__(self, native):
        vars(self).update(vars(native), log=[])

    def elementwise(self, kernel, arrays):
        made = super().elementwise(kernel, arrays)  # raises Misfit for what it leaves to NumPy
        self.log.append(kernel.name)
        return made

    def add_rows(self, db, dy, activation=None):
        self.log.append("add_rows")
        return super().add_rows(db, dy, activation)

    def by_rows(self, name, arrays, *numbers):
        super().by_rows(name, arrays, *numbers)
        self.log.append(name)

    def gemm(self, a, b, out=None):
        self.log.append("gemm")
        return super().gemm(a, b, out)


@every_model
def test_a_training_step_calls_few_kernels(name, variant, native, monkeypatch):
    """As many passes over arrays as the table says, so that a change which adds one is noticed."""
    model, batch = example(name, variant, Rng(0, "float32"))
    rng, counted = model.rng(1), Counted(native)
    monkeypatch.setitem(DEVICES, "numpy", counted)
    model.train_step(rng=rng, **batch)
    counted.log.clear()
    model.train_step(rng=rng, **batch)
    if name in CALLS:
        assert len(counted.log) == CALLS[name][variant], counted.log


@pytest.mark.parametrize("compile", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", HELD)
def test_a_training_step_holds_few_numbers_at_once(name, compile, native):
    """So a change is noticed that makes another array in between, or keeps one longer than it is needed."""
    batch = 4000  # so many that all else a step allocates is nothing beside them
    with compiled_kernels() if compile else contextlib.nullcontext():
        model, arrays = find_model(name).example(Rng(0, "float32"), batch=batch)
        model.train_step(**arrays, rng=model.rng(1))
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            model.train_step(**arrays, rng=model.rng(2))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (peak - before) / (4 * batch) <= HELD[name][compile]
