"""What the losses mean: each against its naive formula or an integral of densities, and what it does where naive
formulas break down. Their gradients are test_gradients.py's business."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from scratchgen import Rng
from scratchgen.nn import losses
from scratchgen.nn.losses import (
    absolute_error,
    bernoulli_nll,
    binary_cross_entropy,
    gaussian_nll,
    kl_gaussians,
    kl_standard_normal,
    softmax_cross_entropy,
    squared_error,
)

F64 = "float64"
SEEDS = st.integers(0, 2**32 - 1)
BATCH, WIDTH = st.integers(1, 5), st.integers(1, 5)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


# Values against the formulas as printed.


@given(seed=SEEDS, batch=BATCH, n=WIDTH, c=st.floats(0.05, 5))
def test_distances(seed, batch, n, c):
    rng = Rng(seed, F64)
    a, b = rng.normal((batch, n)), rng.normal((batch, n))
    squares = ((a - b) ** 2).sum() / batch
    np.testing.assert_allclose(squared_error(a, b)[0], squares, rtol=1e-12)
    np.testing.assert_allclose(absolute_error(a, b)[0], np.abs(a - b).sum() / batch, rtol=1e-12)
    density = np.exp(-((a - b) ** 2) / (2 * c)) / math.sqrt(2 * math.pi * c)
    np.testing.assert_allclose(gaussian_nll(a, b, c)[0], -np.log(density).sum() / batch, rtol=1e-12, atol=1e-12)


def test_the_absolute_error_pulls_nowhere_where_both_are_equal():
    value, gradient = absolute_error(np.array([[1.0, 3.0, 2.0]]), np.array([[1.0, 2.0, 4.0]]))
    assert value == 3
    np.testing.assert_array_equal(gradient, [[0, 1, -1]])


@given(seed=SEEDS, batch=BATCH, n=WIDTH, soft=st.booleans())
def test_bernoulli(seed, batch, n, soft):
    rng = Rng(seed, F64)
    logits, x = 3 * rng.normal((batch, n)), rng.uniform((batch, n))
    x = x if soft else np.round(x)
    p = expit(logits)
    naive = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum() / batch
    value, gradient = bernoulli_nll(logits, x)
    np.testing.assert_allclose(value, naive, rtol=1e-10)
    np.testing.assert_allclose(gradient, (p - x) / batch, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(binary_cross_entropy(logits, x)[0], naive, rtol=1e-10)


@given(seed=SEEDS, batch=BATCH, target=st.sampled_from([0, 1, 0.0, 1.0, 0.9, 0.1]))
def test_binary_cross_entropy_with_one_target_for_all(seed, batch, target):
    logits = Rng(seed, F64).normal((batch, 1))
    value, gradient = binary_cross_entropy(logits, target)
    p = expit(logits)
    np.testing.assert_allclose(value, -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p)), rtol=1e-10)
    flat_value, flat_gradient = binary_cross_entropy(logits[:, 0], target)  # (B,) as well as (B, 1)
    np.testing.assert_allclose(flat_value, value, rtol=1e-14)
    np.testing.assert_array_equal(flat_gradient, gradient[:, 0])


@given(seed=SEEDS, batch=BATCH, classes=WIDTH)
def test_softmax(seed, batch, classes):
    rng = Rng(seed, F64)
    logits, labels = 2 * rng.normal((batch, classes)), rng.integers(classes, batch)
    p = softmax(logits)
    value, gradient = softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(value, -np.log(p[np.arange(batch), labels]).mean(), rtol=1e-10, atol=1e-14)
    rows = np.eye(classes)[labels]
    for a, b in zip(softmax_cross_entropy(logits, rows), (value, gradient)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-15)

    soft = softmax(rng.normal((batch, classes)))
    value, gradient = softmax_cross_entropy(logits, soft)
    np.testing.assert_allclose(value, -(soft * np.log(p)).sum() / batch, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(gradient, (p - soft) / batch, rtol=1e-10, atol=1e-15)

    weights = rng.normal(batch)
    value, gradient = softmax_cross_entropy(logits, labels, weights)
    wanted = -(weights * np.log(p[np.arange(batch), labels])).mean()
    np.testing.assert_allclose(value, wanted, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(gradient, weights[:, None] * (p - rows) / batch, rtol=1e-10, atol=1e-15)


@given(seed=SEEDS, shift=st.floats(-500, 500))
def test_softmax_does_not_notice_a_shift(seed, shift):
    rng = Rng(seed, F64)
    logits, labels = rng.normal((4, 3)), rng.integers(3, 4)
    shifted = softmax_cross_entropy(logits + shift, labels)
    for a, b in zip(softmax_cross_entropy(logits, labels), shifted):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_two_classes_are_one_sigmoid():
    logits, labels = Rng(0, F64).normal((6, 1)), np.array([0, 1, 1, 0, 1, 0])
    two = softmax_cross_entropy(np.hstack([np.zeros((6, 1)), logits]), labels)
    one = binary_cross_entropy(logits, labels[:, None].astype(float))
    np.testing.assert_allclose(two[0], one[0], rtol=1e-12)
    np.testing.assert_allclose(two[1][:, 1:], one[1], rtol=1e-12)


def test_knowing_nothing_costs_log_2_and_log_k():
    for target in (0, 1, 0.3):
        assert binary_cross_entropy(np.zeros((7, 1)), target)[0] == pytest.approx(math.log(2), rel=1e-14)
    assert bernoulli_nll(np.zeros((7, 5)), np.full((7, 5), 0.4))[0] == pytest.approx(5 * math.log(2), rel=1e-14)
    assert softmax_cross_entropy(np.zeros((7, 5)), np.zeros(7, int))[0] == pytest.approx(math.log(5), rel=1e-14)


# Densities and divergences by quadrature.

GRID = np.linspace(-30, 30, 60_001)
STEP = GRID[1] - GRID[0]


def log_normal(x, mu, log_var):
    return -0.5 * (np.log(2 * np.pi) + log_var + (x - mu) ** 2 / np.exp(log_var))


def divergence(mu_q, log_var_q, mu_p, log_var_p):
    """∫ q log(q/p) dx on a grid; smooth functions that die out at both ends make it exact to rounding."""
    log_q, log_p = log_normal(GRID, mu_q, log_var_q), log_normal(GRID, mu_p, log_var_p)
    return (np.exp(log_q) * (log_q - log_p)).sum() * STEP


@pytest.mark.parametrize("c", [0.05, 0.5, 3.0])
def test_gaussian_nll_has_the_constant_that_makes_it_a_density(c):
    value = [gaussian_nll(np.full((1, 1), 0.7), np.full((1, 1), x), c)[0] for x in GRID[::20]]
    assert np.exp(-np.array(value)).sum() * 20 * STEP == pytest.approx(1, rel=1e-10)


def test_bernoulli_nll_of_binary_pixels_is_a_probability():
    logits = np.array([[0.3, -2.0, 1.5]])
    every_picture = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T
    total = sum(math.exp(-bernoulli_nll(logits, picture[None])[0]) for picture in every_picture)
    assert total == pytest.approx(1, rel=1e-12)


@given(seed=SEEDS)
def test_kl_is_the_integral(seed):
    rng = Rng(seed, F64)
    mu_q, mu_p = rng.normal((2, 2)), rng.normal((2, 2))
    log_var_q, log_var_p = 2 * rng.uniform((2, 2)) - 1, 2 * rng.uniform((2, 2)) - 1
    pairs = [divergence(*numbers) for numbers in zip(*(a.ravel() for a in (mu_q, log_var_q, mu_p, log_var_p)))]
    assert kl_gaussians(mu_q, log_var_q, mu_p, log_var_p)[0] == pytest.approx(sum(pairs) / 2, rel=1e-9)
    pairs = [divergence(mu, log_var, 0, 0) for mu, log_var in zip(mu_q.ravel(), log_var_q.ravel())]
    assert kl_standard_normal(mu_q, log_var_q)[0] == pytest.approx(sum(pairs) / 2, rel=1e-9)


@given(seed=SEEDS, batch=BATCH, n=WIDTH)
def test_kl_facts(seed, batch, n):
    rng = Rng(seed, F64)
    mu, log_var, mu_p, log_var_p = (rng.normal((batch, n)) for _ in range(4))
    zero = np.zeros((batch, n))
    standard, general = kl_standard_normal(mu, log_var), kl_gaussians(mu, log_var, zero, zero)
    for a, b in zip(standard, general):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert standard[0] > 0 and kl_gaussians(mu, log_var, mu_p, log_var_p)[0] > 0
    assert kl_standard_normal(zero, zero)[0] == 0
    same = kl_gaussians(mu, log_var, mu, log_var)
    np.testing.assert_allclose(same[0], 0, atol=1e-14)
    assert not any(gradient.any() for gradient in same[1:])
    stretched = kl_gaussians(3 * mu, log_var + math.log(9), 3 * mu_p, log_var_p + math.log(9))[0]
    np.testing.assert_allclose(stretched, kl_gaussians(mu, log_var, mu_p, log_var_p)[0], rtol=1e-10)  # no units


# Reductions: a sum over features, a mean over the batch.


@pytest.mark.parametrize("loss", [squared_error, absolute_error, bernoulli_nll, kl_standard_normal])
def test_twice_the_batch_keeps_the_loss_and_twice_the_features_doubles_it(loss):
    a, b = Rng(0, F64).normal((4, 3)), Rng(1, F64).uniform((4, 3))
    value, gradient, *_ = loss(a, b)
    np.testing.assert_allclose(loss(np.vstack([a, a]), np.vstack([b, b]))[0], value, rtol=1e-12)
    np.testing.assert_allclose(loss(np.hstack([a, a]), np.hstack([b, b]))[0], 2 * value, rtol=1e-12)
    np.testing.assert_allclose(loss(np.vstack([a, a]), np.vstack([b, b]))[1][:4], gradient / 2, rtol=1e-12)


@given(seed=SEEDS)
def test_losses_leave_their_arrays_alone(seed):
    for name, loss in vars(losses).items():
        if hasattr(loss, "example") and not name.startswith("_"):
            arrays = loss.example(Rng(seed, F64))
            kept = [np.copy(array) for array in arrays]
            loss(*arrays)
            for before, after in zip(kept, arrays):
                np.testing.assert_array_equal(before, after)


# Far out.


@pytest.mark.parametrize("dtype", ["float32", F64])
def test_extreme_logits_are_finite_exact_and_raise_no_warning(dtype):
    logits = np.array([[-1000, 1000, -1000, 1000, 88.8, -88.8]], dtype)
    x = np.array([[0, 1, 1, 0, 1, 0]], dtype)
    value, gradient = bernoulli_nll(logits, x)
    assert value == 2000
    np.testing.assert_allclose(gradient, [[0, 0, -1, 1, 0, 0]], atol=1e-15)
    assert binary_cross_entropy(logits[:, :1], 1)[0] == 1000

    logits = np.array([[1000, -1000, 0], [-1000, 1000, 999]], dtype)
    value, gradient = softmax_cross_entropy(logits, np.array([1, 1]))
    assert value == pytest.approx((2000 + math.log(1 + math.exp(-1))) / 2, rel=1e-6)
    p = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(gradient, [[0.5, -0.5, 0], [0, (p - 1) / 2, (1 - p) / 2]], atol=1e-6)


def test_tiny_probabilities_keep_their_digits():
    """-log(1 - p) for p = e^-30: naive code in float64 keeps three digits of it, in float32 none."""
    assert binary_cross_entropy(np.array([[-30.0]]), 0)[0] == pytest.approx(math.exp(-30), abs=2e-16)
    assert softmax_cross_entropy(np.array([[30.0, 0.0]]), np.array([0]))[0] == pytest.approx(math.exp(-30), abs=2e-16)


# Shapes that NumPy would broadcast into a wrong loss.


@pytest.mark.parametrize(
    "loss", [squared_error, absolute_error, bernoulli_nll, kl_standard_normal, binary_cross_entropy]
)
@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 3), (3, 4)])
def test_shapes_that_would_broadcast_are_refused(loss, shape):
    with pytest.raises(ValueError) as error:
        loss(np.zeros((4, 3)), np.zeros(shape))
    assert loss.__name__ in str(error.value) and "(4, 3)" in str(error.value) and str(shape) in str(error.value)


def test_more_shapes_that_are_refused():
    zeros = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"gaussian_nll.*\(4, 3\).*\(4, 1\)"):
        gaussian_nll(zeros, np.zeros((4, 1)), 1.0)
    with pytest.raises(ValueError, match=r"kl_gaussians.*\(4, 3\).*log_var_p.*|kl_gaussians.*\(4, 3\).*\(3,\)"):
        kl_gaussians(zeros, zeros, zeros, np.zeros(3))
    for labels, said in ((np.zeros((4, 1)), r"\(4, 3\).*\(4, 1\)"), (np.zeros(5, int), r"\(4, 3\).*\(5, 3\)")):
        with pytest.raises(ValueError, match=said):
            softmax_cross_entropy(zeros, labels)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\.\. 2, got 0 \.\.\. 3"):
        softmax_cross_entropy(zeros, np.arange(4))
    with pytest.raises(ValueError, match=r"softmax_cross_entropy.*\(4,\).*weights.*\(4, 1\)"):
        softmax_cross_entropy(zeros, np.zeros(4, int), np.ones((4, 1)))


@pytest.mark.parametrize("scalar", [np.float64, np.float32, float])
def test_numpy_scalars_are_numbers_and_do_not_raise_the_precision(scalar):
    rng = Rng(0)
    x, target, logits = rng.normal((4, 3)), rng.normal((4, 3)), rng.normal((4, 1))
    for value, d in (
        losses.gaussian_nll(x, target, scalar(0.3)),
        losses.binary_cross_entropy(logits, scalar(0.9)),
        losses.least_squares(logits, scalar(0.9)),
        losses.hinge(logits, scalar(1)),
        losses.wasserstein(logits, scalar(1)),
    ):
        assert value.dtype == d.dtype == np.float32
