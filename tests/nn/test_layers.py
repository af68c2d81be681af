"""What the layers compute: activations against their formulas, also far out; dropout, norms and initialisers by the
moments they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf, expit

from scratchgen import Parameters, Rng, Sequential, Weight
from scratchgen.nn import initialisers
from scratchgen.nn.activations import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from scratchgen.nn.embeddings import Concat, Embedding, TimeEmbedding
from scratchgen.nn.layers import Dropout, Linear, Maxout, Residual, mlp
from scratchgen.nn.norms import BatchNorm, LayerNorm, RunningMoments

F64 = "float64"
SEEDS = st.integers(0, 2**32 - 1)


def ready(layer, seed=0, dtype=F64):
    Parameters(Rng(seed, dtype), layer=layer)
    return layer


# Activations.

FORMULAS = [
    (ReLU(), lambda x: np.where(x > 0, x, 0)),
    (LeakyReLU(), lambda x: np.where(x > 0, x, 0.2 * x)),
    (LeakyReLU(0.01), lambda x: np.where(x > 0, x, 0.01 * x)),
    (ELU(), lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)),
    (ELU(0.5), lambda x: np.where(x > 0, x, 0.5 * (np.exp(np.minimum(x, 0)) - 1))),
    (Tanh(), np.tanh),
    (Sigmoid(), expit),
    (Softplus(), lambda x: np.logaddexp(0, x)),
    (SiLU(), lambda x: x * expit(x)),
    (GELU(), lambda x: x * expit(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),  # ½ (1 + tanh u) = σ(2u)
]
EVERY_ACTIVATION = pytest.mark.parametrize(("layer", "formula"), FORMULAS, ids=lambda v: type(v).__name__)


@EVERY_ACTIVATION
@given(seed=SEEDS, scale=st.sampled_from([0.01, 1, 10, 100]))
def test_activation_is_its_formula(layer, formula, seed, scale):
    x = scale * Rng(seed, F64).normal((4, 5))
    np.testing.assert_allclose(layer(x), formula(x), rtol=1e-12, atol=1e-14 * scale)


@EVERY_ACTIVATION
@pytest.mark.parametrize("dtype", ["float32", F64])
def test_activation_far_out_is_finite_and_raises_no_warning(layer, formula, dtype):
    x = np.array([[-1000, -100, -30, -0.0, 0.0, 30, 100, 1000]], dtype)
    y, backward = layer.forward(x, None)
    slope = backward(np.ones_like(x))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, formula(x), rtol=100 * eps, atol=100 * eps)
    assert np.isfinite(slope).all()
    right = 0 if isinstance(layer, (Tanh, Sigmoid)) else 1
    left = layer.a if isinstance(layer, LeakyReLU) else 0
    np.testing.assert_allclose([slope[0, 0], slope[0, -1]], [left, right], atol=1e-12)


def test_softplus_keeps_its_digits_where_it_is_tiny():
    x = np.array([[-20.0, -40.0, -100.0]])
    np.testing.assert_allclose(Softplus()(x), np.exp(x), rtol=1e-8)  # log(1 + eˣ) as printed gives 0 at -40


@pytest.mark.parametrize(
    ("layer", "slope", "curve"), [(ReLU(), 0, None), (LeakyReLU(0.3), 0.3, None), (ELU(0.5), 0.5, 0.5)]
)
def test_an_activation_has_at_its_kink_the_slope_of_the_left_side(layer, slope, curve):
    _, backward, gradient = layer.forward_twice(np.zeros((1, 1)))
    g, double_backward = gradient(np.ones((1, 1)))
    du, dx = double_backward(np.ones((1, 1)))
    assert backward(np.ones((1, 1))) == g == du == slope
    assert dx == curve  # None stands for 0


def test_gelu_is_close_to_x_times_the_normal_distribution_function():
    x = np.linspace(-5, 5, 1001)[None]
    assert np.abs(GELU()(x) - x * 0.5 * (1 + erf(x / math.sqrt(2)))).max() < 1e-3


@pytest.mark.parametrize("a", [-0.1, 1.1, math.nan])
def test_leaky_relu_refuses_slopes_that_maximum_cannot_make(a):
    with pytest.raises(ValueError, match="a must lie in"):
        LeakyReLU(a)


# Linear, Concat, Residual, Maxout, Embedding, TimeEmbedding.


def test_linear():
    layer = ready(Linear(2, 3))
    layer.W[...], layer.b[...] = [[1, 2, 3], [4, 5, 6]], [10, 20, 30]
    np.testing.assert_array_equal(
        layer(np.array([[1.0, 0], [0, 1], [1, 1]])), [[11, 22, 33], [14, 25, 36], [15, 27, 39]]
    )


def test_concat():
    pair = Rng(0, F64).normal((4, 3)), Rng(1, F64).normal((4, 2))
    y, backward = Concat().forward(pair, None)
    np.testing.assert_array_equal(y, np.hstack(pair))
    for part, piece in zip(backward(y), pair):
        np.testing.assert_array_equal(part, piece)


def test_residual_adds_its_input():
    layer = ready(Residual(Linear(3, 3)))
    x = Rng(1, F64).normal((4, 3))
    np.testing.assert_allclose(layer(x), x + x @ layer.body.W, rtol=1e-14)


@given(seed=SEEDS, k=st.integers(1, 4))
def test_maxout_is_the_largest_of_its_pieces(seed, k):
    layer = ready(Maxout(3, 4, k), seed)
    x = Rng(seed, F64).normal((5, 3))
    h = (x @ layer.pieces.W + layer.pieces.b).reshape(5, 4, k)
    np.testing.assert_allclose(layer(x), h.max(axis=2), rtol=1e-14)


def test_maxout_gives_a_tie_to_one_piece():
    layer = ready(Maxout(3, 4, n_pieces=2))
    layer.pieces.W[...] = 1
    x = np.ones((1, 3))
    y, backward = layer.forward(x, None)
    np.testing.assert_array_equal(y, np.full((1, 4), 3.0))
    np.testing.assert_array_equal(backward(np.ones((1, 4))), np.full((1, 3), 4.0))


def test_embedding_looks_rows_up():
    layer = ready(Embedding(4, 3))
    labels = np.array([2, 0, 2, 3])
    y, backward = layer.forward(labels, None)
    np.testing.assert_array_equal(y, layer.W[labels])
    dy = Rng(1, F64).normal((4, 3))
    backward(dy)
    np.testing.assert_allclose(layer.dW, [dy[1], np.zeros(3), dy[0] + dy[2], dy[3]], rtol=1e-14)


def test_a_complex_time_keeps_its_imaginary_part():
    """So the complex step finds how an embedding moves with time; a real time stays real, in the layer's precision."""
    layer, t, h = ready(TimeEmbedding(6)), 10 * Rng(1, F64).uniform(5), 1e-20
    y, backward = layer.forward(t, None)
    moved = layer(t + 1j * h)
    assert y.dtype == F64 and moved.dtype == "complex128"
    np.testing.assert_array_equal(moved.real, y)
    dy = Rng(2, F64).normal(y.shape)
    np.testing.assert_allclose((dy * moved.imag / h).sum(axis=1), backward(dy), rtol=1e-12)


def test_time_embedding_is_vaswanis():
    layer = ready(TimeEmbedding(6, max_period=1000))
    t = np.array([0.0, 1, 7.5, 900])
    for row, time in zip(layer(t), t):
        for k in range(3):
            omega = 1000 ** (-2 * k / 6)
            np.testing.assert_allclose(
                [row[k], row[3 + k]], [math.cos(omega * time), math.sin(omega * time)], atol=1e-12
            )
    np.testing.assert_array_equal(layer(np.array([3])), layer(np.array([3.0])))
    with pytest.raises(ValueError, match="n_dim must be even, got 5"):
        TimeEmbedding(5)


# Dropout.


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_the_fraction_asked_for(p):
    n = 200_000
    y = Dropout(p)(np.ones((n // 10, 10)), Rng(0, F64))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)])
    assert abs(y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / n)
    assert abs((y == 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_dropout_does_nothing_when_using_or_when_p_is_zero():
    x = Rng(0, F64).normal((4, 5))
    np.testing.assert_array_equal(Dropout(0.5)(x), x)
    np.testing.assert_array_equal(Dropout(0)(x, Rng(0, F64)), x)


def test_dropout_sends_gradients_where_the_signal_went():
    y, backward = Dropout(0.5).forward(np.ones((20, 20)), Rng(0, F64))
    np.testing.assert_array_equal(backward(np.ones((20, 20))), y)
    assert (Dropout(0.5)(np.ones((20, 20)), Rng(1, F64)) != y).any()


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, math.nan])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\)"):
        Dropout(p)


# Norms.


@given(seed=SEEDS, batch=st.integers(5, 20), n=st.integers(1, 5))
def test_batch_norm_standardises_each_feature_when_learning(seed, batch, n):
    layer = ready(BatchNorm(n))
    rng = Rng(seed, F64)
    layer.gamma[...], layer.beta[...] = 1 + rng.uniform(n), rng.normal(n)
    x = 5 + 3 * rng.normal((batch, n))
    y = layer(x, rng)
    variance = x.var(axis=0)
    np.testing.assert_allclose(y.mean(axis=0), layer.beta, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=0), layer.gamma**2 * variance / (variance + 1e-5), rtol=1e-10)


def test_batch_norm_uses_its_running_statistics():
    layer = ready(BatchNorm(2, eps=0.5))
    layer.running_mean[...], layer.running_variance[...] = [1, -1], [3.5, 8.5]
    layer.gamma[...], layer.beta[...] = [2, 3], [0, 10]
    np.testing.assert_allclose(layer(np.array([[1.0, -1], [3, 5]])), [[0, 10], [2, 16]])
    np.testing.assert_allclose(layer(np.array([[3.0, 5]])), [[2, 16]])  # alone as in company


def test_batch_norm_statistics_move_in_backward_and_only_when_learning():
    layer = ready(BatchNorm(3, momentum=0.25))
    rng = Rng(0, F64)
    x = 2 + rng.normal((6, 3))
    start = layer.running_mean.copy(), layer.running_variance.copy()

    def moved():
        return (layer.running_mean != start[0]).any() or (layer.running_variance != start[1]).any()

    _, backward = layer.forward(x, rng)
    assert not moved()
    backward(np.ones((6, 3)), learn=False)
    assert not moved()
    layer.forward(x, None)[1](np.ones((6, 3)))
    assert not moved()
    backward(np.ones((6, 3)))
    np.testing.assert_allclose(layer.running_mean, 0.25 * x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_variance, 0.75 + 0.25 * x.var(axis=0, ddof=1), rtol=1e-12)


def test_batch_norm_statistics_converge_to_mean_and_unbiased_variance():
    """With batches of 4 the biased variance would settle at 3/4 of the true one."""
    layer = ready(BatchNorm(2, momentum=0.01))
    rng, mean, deviation = Rng(0, F64), np.array([1.0, -2.0]), np.array([0.5, 2.0])
    running = []
    for step in range(4000):
        layer.forward(mean + deviation * rng.normal((4, 2)), rng)[1](np.ones((4, 2)), inputs=False)
        if step >= 1000:
            running.append(np.concatenate([layer.running_mean, layer.running_variance]))
    found = np.mean(running, axis=0)
    np.testing.assert_allclose(found[:2], mean, atol=0.1)
    np.testing.assert_allclose(found[2:], deviation**2, rtol=0.08)


@given(seed=SEEDS, batch=st.integers(1, 4), n=st.integers(2, 8))
def test_layer_norm_standardises_each_example(seed, batch, n):
    layer = ready(LayerNorm(n))
    rng = Rng(seed, F64)
    layer.gamma[...], layer.beta[...] = 1 + rng.uniform(n), rng.normal(n)
    x = 5 + 3 * rng.normal((batch, n))
    variance = x.var(axis=1, keepdims=True)
    expected = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1e-5) * layer.gamma + layer.beta
    np.testing.assert_allclose(layer(x), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(layer(x, rng), layer(x))  # learning or using: the same
    np.testing.assert_allclose(layer(x[:1]), layer(x)[:1], rtol=1e-12)  # others in the batch do not matter


def test_running_moments_find_mean_and_variance_and_leave_the_signal_alone():
    layer = ready(RunningMoments(2, momentum=0.02))
    rng, mean, deviation = Rng(0, F64), np.array([1.0, -2.0]), np.array([0.5, 2.0])
    x = mean + deviation * rng.normal((50, 2))
    y, backward = layer.forward(x, None)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(backward(2 * x), 2 * x)
    assert not layer.mean.any() and (layer.variance == 1).all(), "using moves nothing"
    for _ in range(1000):
        layer.forward(mean + deviation * rng.normal((50, 2)), rng)[1](x)
    np.testing.assert_allclose(layer.mean, mean, atol=0.15)
    np.testing.assert_allclose(layer.variance, deviation**2, rtol=0.15)


# Initialisers.


@pytest.mark.parametrize(
    ("init", "variance", "bound"),
    [
        (initialisers.he, 2 / 400, None),
        (initialisers.glorot, 2 / (400 + 300), math.sqrt(6 / (400 + 300))),
        (initialisers.pytorch, 1 / (3 * 400), math.sqrt(1 / 400)),
    ],
)
def test_initial_weights_have_the_variance_of_their_formula(init, variance, bound):
    layer = ready(Linear(400, 300, init))
    n = layer.W.size
    assert abs(layer.W.mean()) < 5 * math.sqrt(variance / n)
    assert abs(layer.W.var() / variance - 1) < 5 * math.sqrt(2 / n)  # a Gaussian's; a uniform's error is smaller
    if bound:
        assert np.abs(layer.W).max() <= bound and np.abs(layer.W).max() > 0.999 * bound
    if init is initialisers.pytorch:
        assert np.abs(layer.b).max() <= bound and abs(layer.b.var() / variance - 1) < 0.3
    else:
        assert not layer.b.any()


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7)])
def test_orthogonal_weights_are_orthonormal(shape):
    W = initialisers.orthogonal(Rng(0, F64), shape, shape[0])
    assert W.shape == shape
    small = W.T @ W if shape[0] >= shape[1] else W @ W.T
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-12)


def test_orthogonal_weights_are_uniform():
    """Uniform rotations have diagonal entries of mean 0; QR alone fixes the signs and gives mean -0.4 or so."""
    rng = Rng(0, F64)
    diagonal = np.mean([np.diagonal(initialisers.orthogonal(rng, (3, 3), 3)) for _ in range(4000)], axis=0)
    assert np.abs(diagonal).max() < 5 * math.sqrt(1 / 3 / 4000)


def test_signals_keep_their_size_through_deep_relu_networks_with_he():
    network = ready(mlp([200] * 9, ReLU, initialisers.he))
    x = Rng(1, F64).normal((100, 200))
    hidden = Sequential(*network.layers[:-1])
    assert 0.5 < (hidden(x) ** 2).mean() < 2


def test_fan_in_may_be_given():
    class Seen(Exception):
        pass

    def init(rng, shape, fan_in):
        raise Seen(fan_in)

    layer = Linear(3, 2)
    layer.W = Weight((3, 2), init, fan_in=17)
    with pytest.raises(Seen, match="17"):
        ready(layer)
