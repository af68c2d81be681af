"""Normalizing flows: there and back, the determinant, densities that integrate to 1, and that samples have these densities.

That each layer is invertible with the right log_det is checked with the layers (check/flow.py); here are whole models.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.metrics.likelihood import exact, log_likelihood, with_noise
from scratchgen.models.flow import Flow
from scratchgen.models.parts.coupling import Affine, Autoregressive, Coupling
from scratchgen.models.parts.invertible import ActNorm, Chain, Permute
from scratchgen.models.parts.levels import dequantise
from scratchgen.models.parts.spline import Spline
from scratchgen.nn.parameters import Parameters
from scratchgen.train.fit import fit

F64 = "float64"
KINDS = [
    {"conditioner": "coupling", "transform": "affine"},
    {"conditioner": "coupling", "transform": "spline"},
    {"conditioner": "autoregressive", "transform": "affine"},
    {"conditioner": "autoregressive", "transform": "spline"},
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
# For tests that take long: the default run has the plainest kind, `pytest -m slow` the others.
one_kind = pytest.mark.parametrize(
    "kind",
    [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])],
    ids=lambda k: "-".join(k.values()),
)


def spoiled(scale=0.2, dtype=F64, seed=5, **settings):
    """A small flow with weights that are far from where they start."""
    settings = {"n_features": 2, "n_layers": 3, "hidden": (8, 6), "n_bins": 4, "reach": 2.5} | settings
    model = Flow(**settings).build(Rng((seed, 1), dtype))
    model.params.theta += scale * Rng((seed, 2), dtype).normal(model.params.theta.shape)
    model.average.average[...] = model.params.theta
    return model


# ---- there and back, and the determinant ----


@every_kind
@pytest.mark.parametrize(("dtype", "error"), [(F64, 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_there_and_back_is_the_identity(kind, dtype, error, n):
    model = spoiled(dtype=dtype, n_features=n, order="random", **kind)
    x = 2 * Rng(3, dtype).normal((400, n))
    z, _ = model.to_noise(x)
    assert np.abs(model.inverse(z) - x).max() <= error
    z = Rng(4, dtype).normal((400, n))
    assert np.abs(model.to_noise(model.inverse(z))[0] - z).max() <= error


def jacobian(layer, x):
    """∂y/∂x (N, n, n) of a flow layer, one exact column for each feature, by the complex step."""
    layer.params.cast("complex128")
    n = x.shape[1]
    columns = [layer.forward(x + 1e-30j * np.eye(n)[i], None)[0][0].imag / 1e-30 for i in range(n)]
    layer.params.cast(F64)
    return np.stack(columns, axis=2)


def log_det_by_complex_step(model, x):
    return np.linalg.slogdet(jacobian(model.flow, x))[1]


@every_kind
@given(seed=st.integers(0, 10_000), n=st.integers(2, 6), order=st.sampled_from(["reverse", "random"]))
def test_log_det_is_that_of_the_jacobian(kind, seed, n, order):
    model = spoiled(seed=seed, n_features=n, order=order, **kind)
    x = 2 * Rng(3, F64).normal((20, n))
    _, log_det = model.to_noise(x)
    np.testing.assert_allclose(log_det, log_det_by_complex_step(model, x), rtol=0, atol=1e-10)


def test_the_logit_counts_in_the_determinant():
    model = spoiled(n_features=3, levels=4)
    x = dequantise(np.full((5, 3), 1 / 3), 4, Rng(1, F64))
    np.testing.assert_allclose(model.to_noise(x)[1], log_det_by_complex_step(model, x), rtol=0, atol=1e-10)
    np.testing.assert_allclose(model.inverse(model.to_noise(x)[0]), x, atol=1e-12)


# ---- densities ----


def plane(low, high, n):
    """(points (n², 2), the area of each) of a square."""
    t = low + (high - low) * (np.arange(n) + 0.5) / n
    return np.stack(np.meshgrid(t, t), axis=2).reshape(-1, 2), ((high - low) / n) ** 2


@one_kind
def test_a_density_integrates_to_one(kind):
    x, area = plane(-14, 14, 600)
    p = np.exp(spoiled(0.15, **kind).log_prob(x))
    assert p.sum() * area == pytest.approx(1, abs=1e-3)
    assert p.max() > 0.05  # it is no flat density that the square cuts off


@pytest.mark.slow
def test_that_of_pixels_with_noise_does_too():
    """A little of it lies outside [0, 1], where the logit of α + (1 - 2α) x still exists."""
    alpha = 0.1
    edge = alpha / (1 - 2 * alpha)
    x, area = plane(-edge, 1 + edge, 1000)
    p = np.exp(spoiled(0.15, levels=4, alpha=alpha).log_prob(x))
    assert p.sum() * area == pytest.approx(1, abs=1e-3)


@one_kind
def test_samples_have_the_density(kind):
    model, n = spoiled(0.15, **kind), 40_000
    x, (points, area) = model.sample(n, Rng(7, F64)), plane(-14, 14, 600)
    p = np.exp(model.log_prob(points)) * area
    for direction in ([1, 0], [0, 1], [1, -1]):
        along, theirs = x @ direction, points @ direction
        for cut in np.quantile(along, [0.1, 0.5, 0.9]):
            below = np.clip((cut - theirs) / math.sqrt(area) + 0.5, 0, 1)  # the part of a cell that lies below
            assert (along < cut).mean() == pytest.approx((p * below).sum(), abs=4 * 0.5 / math.sqrt(n) + 3e-3)
    entropy = -(p * np.log(p / area, where=p > 0, out=np.zeros_like(p))).sum()
    log_p = model.log_prob(x)
    assert -log_p.mean() == pytest.approx(entropy, abs=5 * log_p.std() / math.sqrt(n) + 3e-3)


def test_log_prob_of_one_affine_layer_by_its_formula():
    """x₂ is Gaussian given x₁, with a mean and a deviation that the network gives."""
    layer = Coupling(2, Affine(c=1.5), (4,))
    flow = Chain(layer)
    params = Parameters(Rng(1, F64), flow=flow)
    params.theta += 0.5 * Rng(2, F64).normal(params.theta.shape)
    x = Rng(3, F64).normal((9, 2))
    (z, log_det), _ = flow.forward(x, None)
    W, b, V, c = layer.enter.W, layer.enter.b, layer.rest.layers[1].W, layer.rest.layers[1].b
    t, a = (np.tanh(x[:, :1] @ W + b) @ V + c).T
    s = 1.5 * np.tanh(a / 1.5)
    mean, std = -t * np.exp(-s), np.exp(-s)
    wanted = -0.5 * x[:, 0] ** 2 - 0.5 * ((x[:, 1] - mean) / std) ** 2 - np.log(std) - math.log(2 * math.pi)
    np.testing.assert_allclose(-0.5 * (z**2).sum(axis=1) - math.log(2 * math.pi) + log_det, wanted, atol=1e-12)


# ---- splines ----


def spline_by_hand(x, h, K, c):
    """g(x) of one number, by the formulas of Durkan et al. 2019, bin after bin."""
    sizes = [np.exp(part) / np.exp(part).sum() for part in (h[:K], h[K : 2 * K])]
    w, v = (2 * c * (1e-3 + (1 - 1e-3 * K) * size) for size in sizes)
    slopes = np.concatenate([[1], 1e-3 + np.log1p(np.exp(h[2 * K :] + np.log(np.expm1(1 - 1e-3)))), [1]])
    left, low = -c, -c
    for k in range(K):
        if left <= x < left + w[k]:
            s, xi = v[k] / w[k], (x - left) / w[k]
            below = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
            return low + v[k] * (s * xi**2 + slopes[k] * xi * (1 - xi)) / below
        left, low = left + w[k], low + v[k]
    return x


@given(seed=st.integers(0, 10_000), K=st.integers(2, 9), c=st.floats(0.5, 5))
def test_a_spline_by_its_formulas(seed, K, c):
    g, rng = Spline(K, c), Rng((seed, 1), F64)
    x, h = 1.5 * c * (2 * rng.uniform((6, 3)) - 1), 2 * rng.normal((6, 3, 3 * K - 1))
    (y, _), _ = g.forward((x, h), None)
    by_hand = [[spline_by_hand(x[i, j], h[i, j], K, c) for j in range(3)] for i in range(6)]
    np.testing.assert_allclose(y, by_hand, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(g.undo(y, h), x, rtol=1e-9, atol=1e-9)


def test_a_spline_rises_everywhere_and_meets_its_tails():
    K, c = 5, 2.0
    h = np.broadcast_to(Rng(1, F64).normal(3 * K - 1), (6001, 1, 3 * K - 1))
    x = np.linspace(-3, 3, 6001)[:, None]
    (y, log_slope), _ = Spline(K, c).forward((x, h), None)
    assert (np.diff(y[:, 0]) > 0).all()
    outside = np.abs(x[:, 0]) >= c
    assert (y[outside] == x[outside]).all() and (log_slope[outside] == 0).all()
    slope = np.gradient(y[:, 0], x[:, 0])
    np.testing.assert_allclose(np.log(slope[1:-1]), log_slope[1:-1], atol=0.02)  # also at the knots and at ±c


@every_kind
def test_a_new_flow_changes_nothing_but_scale_and_place(kind):
    """h starts at 0 in a coupling, so each layer is the identity, and ActNorm makes every column standard."""
    x = Rng(1, F64).normal((3000, 4)) @ Rng(2, F64).normal((4, 4)) + [0, 5, -3, 1]
    model = Flow(n_features=4, n_layers=3, hidden=(8,), **kind).build(Rng(3, F64))
    model.prepare(x, Rng(4, F64))
    z, log_det = model.to_noise(x)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-9)
    if kind["conditioner"] == "coupling":
        np.testing.assert_allclose(log_det, -np.log(x.std(axis=0)).sum(), atol=1e-9)
        np.testing.assert_allclose(z[:, ::-1], (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-9)


def test_a_column_that_never_changes_stays_finite():
    layer = ActNorm(2)
    Parameters(Rng(0, F64), layer=layer)
    layer.measure(np.stack([np.full(10, 3.0), np.arange(10.0)], axis=1))
    assert np.isfinite(layer.s).all() and layer.b[0] == -3


# ---- who sees whom ----


def moved(layer):
    """The layer with weights that are not where they start."""
    params = Parameters(Rng(1, F64), layer=layer)
    params.theta += 0.5 * Rng(2, F64).normal(params.theta.shape)
    return layer


def test_a_coupling_leaves_half_and_an_autoregressive_layer_sees_only_what_came_before():
    x = Rng(3, F64).normal((4, 5))
    J = jacobian(moved(Autoregressive(5, Affine(), (20,))), x)
    assert (J[:, *np.triu_indices(5, 1)] == 0).all() and (J[:, *np.tril_indices(5, -1)] != 0).all()
    J = jacobian(moved(Coupling(5, Affine(), (20,))), x)
    np.testing.assert_array_equal(J[:, :2], np.broadcast_to(np.eye(5)[:2], (4, 2, 5)))
    assert (J[:, 2:, :2] != 0).all()
    off = J[:, 2:, 2:] * (1 - np.eye(3))
    assert (off == 0).all()


def test_every_feature_of_a_flow_depends_on_every_other():
    for n, settings in ((6, {}), (5, {}), (3, {}), (6, {"order": "random", "n_layers": 8})):
        model = spoiled(n_features=n, **({"n_layers": 4} | settings))
        assert (jacobian(model.flow, Rng(3, F64).normal((3, n))) != 0).all()


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_an_order_is_a_permutation_that_stays(order):
    layer = Permute(7, order)
    Parameters(Rng(1), layer=layer)
    assert sorted(layer.numbers()) == list(range(7))
    assert order == "random" or list(layer.numbers()) == list(range(7))[::-1]
    x = Rng(2).normal((3, 7))
    np.testing.assert_array_equal(layer.inverse(layer(x)[0]), x)


def test_an_autoregressive_flow_takes_a_pass_for_each_feature_to_sample_and_one_for_log_p():
    for conditioner, passes in (("coupling", 1), ("autoregressive", 6)):
        model, count = spoiled(n_features=6, n_layers=2, conditioner=conditioner), []
        for layer in model.flow.layers:
            if hasattr(layer, "net"):
                net = layer.net
                layer.net = lambda *given, net=net: count.append(1) or net(*given)
        model.sample(3, Rng(1, F64))
        assert len(count) == 2 * passes
        count.clear()
        model.log_prob(np.zeros((3, 6)))
        assert len(count) == 2


# ---- pixels ----


def test_bits_per_dimension_by_formula():
    model = spoiled(n_features=3, levels=5)
    x = Rng(2).integers(5, (40, 3)) / 4
    noise = Rng(9, F64).uniform(x.shape)
    z, log_det = model.to_noise((4 * x + noise) / 5)
    nll = -(-0.5 * (z * z).sum(axis=1) - 1.5 * math.log(2 * math.pi) + log_det).mean() + 3 * math.log(5)
    found = model.evaluate(x, Rng(9, F64))
    assert found["nll"] == pytest.approx(nll, rel=1e-12)
    assert found["bits_per_dim"] == pytest.approx(nll / (3 * math.log(2)), rel=1e-12)
    model.params.theta[...] = model.average.average
    assert model.loss(x, Rng(9, F64))["loss"] == pytest.approx(nll, rel=1e-12)


@pytest.mark.slow
def test_the_bound_is_at_most_log_p_of_the_pixels_which_sum_to_less_than_one():
    """P of each of the 9 pictures of two pixels with 3 levels, by an integral over its cell."""
    model, total = spoiled(n_features=2, levels=3), 0
    points, area = plane(0, 1, 900)
    p, cell = np.exp(model.log_prob(points)) * area, np.floor(3 * points)
    for i in range(3):
        for j in range(3):
            P = p[(cell == [i, j]).all(axis=1)].sum()
            x = np.array([[i / 2, j / 2]])
            found = with_noise(model, x, Rng(1, F64), k=400)
            assert found.log_p[0] <= math.log(P) + 4 * found.error[0]
            total += P
    assert 0.5 < total < 1


def test_log_likelihood_takes_the_way_that_suits():
    x = Rng(2).integers(4, (30, 2)) / 3
    found = log_likelihood(spoiled(levels=4), x, Rng(1, F64), draws=10)
    assert "10 draws" in found.method and "bits per pixel of 4 levels" in found.method and (found.error > 0).all()
    found = log_likelihood(spoiled(), x, Rng(1, F64))
    assert found.method == "exact" and (found.error == 0).all()


def test_samples_have_grey_levels():
    x = 3 * spoiled(levels=4).sample(200, Rng(1, F64))
    assert (x == np.rint(x)).all() and x.min() >= 0 and x.max() <= 3 and len(np.unique(x)) > 1


# ---- labels ----


@every_kind
def test_labels_shift_what_is_learned(kind):
    model = spoiled(n_classes=3, conditional=True, **kind)
    x = Rng(1, F64).normal((50, 2))
    each = np.stack([model.log_prob(x, np.full(50, k)) for k in range(3)])
    assert np.ptp(each, axis=0).min() > 0
    np.testing.assert_allclose(model.log_prob(x), np.log(np.exp(each).mean(axis=0)), atol=1e-12)
    labels = Rng(2).integers(3, 50)
    np.testing.assert_allclose(model.inverse(model.to_noise(x, labels)[0], labels), x, atol=1e-9)
    np.testing.assert_allclose(model.evaluate(x, Rng(3, F64), labels)["nll"], -each[labels, np.arange(50)].mean())
    assert exact(model, x, Rng(3, F64), labels=labels).nll == pytest.approx(-each[labels, np.arange(50)].mean())


@every_kind
def test_a_conditional_flow_puts_each_class_in_its_place(kind):
    rng = Rng(1)
    labels = rng.integers(2, 2000)
    x = rng.normal((2000, 2)) * 0.3 + 4 * np.stack([labels, -labels], axis=1)
    model = Flow(n_features=2, n_classes=2, conditional=True, n_layers=2, hidden=(16,), lr=5e-3, **kind)
    model.build(Rng(2))
    fit(model, x.astype(np.float32), labels=labels, epochs=30, progress=False)
    for k in range(2):
        made = model.sample(500, Rng(3), label=k)
        np.testing.assert_allclose(made.mean(axis=0), [4 * k, -4 * k], atol=0.3)
        np.testing.assert_allclose(made.std(axis=0), 0.3, atol=0.12)


def test_a_label_that_is_not_known_is_refused():
    model = spoiled(n_classes=3, conditional=True)
    model.classes.note(np.array([0, 2]))
    with pytest.raises(UsageError, match=r"^label 1: expected"):
        model.sample(3, Rng(1, F64), label=1)
    with pytest.raises(ValueError, match=r"labels: got None, expected \(3,\)"):
        model.to_noise(np.zeros((3, 2)))
    with pytest.raises(UsageError, match=r"conditional=true needs labels"):
        model.loss(np.zeros((3, 2)), Rng(1, F64))
    plain = spoiled()
    with pytest.raises(UsageError, match=r"^this model was trained without labels"):
        plain.sample(3, Rng(1, F64), label=1)
    with pytest.raises(ValueError, match=r"labels: got \(3,\), expected none"):
        plain.log_prob(np.zeros((3, 2)), np.zeros(3, int))


# ---- training ----


@one_kind
def test_a_flow_learns_a_density_that_it_can_represent(kind):
    """A banana: x₁ ~ N(0, 1), x₂ given x₁ ~ N(x₁², ½²). Its entropy is known."""
    rng = Rng(1)
    x = rng.normal((6000, 2))
    x[:, 1] = 0.5 * x[:, 1] + x[:, 0] ** 2
    entropy = 1 + math.log(2 * math.pi) + math.log(0.5)
    model = Flow(n_features=2, n_layers=4, hidden=(16, 16), lr=5e-3, decay_steps=600, averaging=0.99, **kind)
    model.build(Rng(2))
    fit(model, x[:4000], epochs=40, progress=False)
    assert -model.log_prob(x[4000:]).mean() == pytest.approx(entropy, abs=0.12)


def test_a_long_gradient_is_shortened():
    model, batch = Flow.example(Rng(0, F64), max_norm=0.01)
    model.train_step(**batch, rng=Rng(1, F64))
    assert np.linalg.norm(model.params.grad) == pytest.approx(0.01)


# ---- refused ----


def test_settings_and_data_that_do_not_go_together():
    with pytest.raises(UsageError, match=r"^Flow setting levels: pixels need 2 levels"):
        Flow(levels=1)
    with pytest.raises(UsageError, match=r"^Flow setting hidden: the network of a layer needs a hidden layer"):
        Flow(hidden=())
    with pytest.raises(UsageError, match=r"^Flow setting n_bins: each bin"):
        Flow(transform="spline", n_bins=501)
    pixels = (Rng(1).integers(17, (50, 4)) / 16).astype(np.float32)
    with pytest.raises(
        UsageError, match=r"^pixels of 17 grey levels have no density without noise: use --set levels=17$"
    ):
        Flow(n_features=4).check_data(pixels)
    Flow(n_features=4, levels=17).check_data(pixels)
    Flow(n_features=4).check_data(pixels + 1)
    with pytest.raises(UsageError, match=r"^levels=18 needs pixels 0, 1/17"):
        Flow(n_features=4, levels=18).check_data(pixels)
    with pytest.raises(UsageError, match=r"use --set levels=0 for other numbers|^levels=17 needs"):
        Flow(n_features=4, levels=17).check_data(pixels + 1)
