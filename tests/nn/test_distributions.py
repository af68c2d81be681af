"""Densities integrate to one, samplers have the moments of what they claim to sample, and the reparameterised gradient
averages to the true one. No gradient check sees these: a wrong sampler is the derivative of itself."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from scratchgen import Rng
from scratchgen.nn.distributions import (
    LOG_VAR_RANGE,
    bernoulli_log_prob,
    categorical_log_prob,
    diagonal_gaussian_log_prob,
    gaussian_head,
    gaussian_log_prob,
    gaussian_posterior,
    reparameterize,
    sample_bernoulli,
    sample_categorical,
    sample_gaussian,
    sample_gumbel,
)
from scratchgen.nn.losses import kl_standard_normal

F64 = "float64"
SEEDS = st.integers(0, 2**32 - 1)
N = 200_000


def random_cov(rng, n):
    A = rng.normal((n, n))
    return A @ A.T + 0.2 * np.eye(n)


# Densities.


def grid(reach, step):
    axis = np.arange(-reach, reach, step)
    return np.array(list(itertools.product(axis, axis)))


def test_gaussian_densities_integrate_to_one():
    mu, log_var, cov = np.array([0.3, -0.5]), np.array([-0.4, 0.6]), np.array([[1.0, 0.6], [0.6, 0.8]])
    points = grid(10, 0.1)
    assert np.exp(diagonal_gaussian_log_prob(points, mu, log_var)).sum() * 0.01 == pytest.approx(1, rel=1e-10)
    p = np.exp(gaussian_log_prob(points, mu, cov)) * 0.01
    assert p.sum() == pytest.approx(1, rel=1e-10)
    np.testing.assert_allclose(p @ points, mu, atol=1e-10)  # and have the moments of their names
    np.testing.assert_allclose((points - mu).T @ (p[:, None] * (points - mu)), cov, atol=1e-10)


@given(seed=SEEDS, batch=st.integers(1, 5), n=st.integers(1, 4))
def test_gaussian_densities_agree(seed, batch, n):
    rng = Rng(seed, F64)
    x, mu, log_var, cov = rng.normal((batch, n)), rng.normal(n), rng.normal(n), random_cov(rng, n)
    diagonal = diagonal_gaussian_log_prob(x, mu, log_var)
    assert diagonal.shape == (batch,)
    np.testing.assert_allclose(diagonal, gaussian_log_prob(x, mu, np.diag(np.exp(log_var))), rtol=1e-9, atol=1e-10)
    one_by_one = [stats.norm.logpdf(x[:, i], mu[i], math.exp(log_var[i] / 2)) for i in range(n)]
    np.testing.assert_allclose(diagonal, np.sum(one_by_one, axis=0), rtol=1e-9, atol=1e-10)
    rows = diagonal_gaussian_log_prob(x, np.tile(mu, (batch, 1)), np.tile(log_var, (batch, 1)))
    np.testing.assert_array_equal(rows, diagonal)
    oracle = stats.multivariate_normal.logpdf(x, mu, cov)
    np.testing.assert_allclose(gaussian_log_prob(x, mu, cov), np.atleast_1d(oracle), rtol=1e-9, atol=1e-9)


def test_a_gaussian_far_away_keeps_its_log_density():
    x = np.full((1, 2), 1e4)
    assert gaussian_log_prob(x, np.zeros(2), np.eye(2))[0] == pytest.approx(-1e8 - math.log(2 * math.pi), rel=1e-12)
    assert diagonal_gaussian_log_prob(x, 0.0, np.zeros(2))[0] == pytest.approx(-1e8 - math.log(2 * math.pi), rel=1e-12)


def test_full_gaussian_refuses_shapes_and_matrices_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(5, 3\) and cov \(2, 2\)"):
        gaussian_log_prob(np.zeros((5, 3)), np.zeros(3), np.eye(2))
    with pytest.raises(ValueError, match=r"\(3,\) and cov"):
        gaussian_log_prob(np.zeros(3), np.zeros(3), np.eye(3))
    with pytest.raises(np.linalg.LinAlgError):
        gaussian_log_prob(np.zeros((5, 2)), np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_discrete_probabilities_add_up_to_one():
    logits = np.array([0.3, -2.0, 1.5])
    every = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    p = np.exp(bernoulli_log_prob(every, np.tile(logits, (8, 1))))
    np.testing.assert_allclose(p, np.prod(np.where(every == 1, expit(logits), 1 - expit(logits)), axis=1), rtol=1e-12)
    assert p.sum() == pytest.approx(1, rel=1e-12)
    log_p = categorical_log_prob(np.arange(3), np.tile(logits, (3, 1)))
    np.testing.assert_allclose(np.exp(log_p), np.exp(logits) / np.exp(logits).sum(), rtol=1e-12)


def test_discrete_probabilities_far_out():
    logits = np.array([[1000.0, -1000.0]])
    assert bernoulli_log_prob(np.array([[1.0, 0.0]]), logits)[0] == 0
    assert bernoulli_log_prob(np.array([[0.0, 1.0]]), logits)[0] == -2000
    assert categorical_log_prob(np.array([0]), logits)[0] == 0
    assert categorical_log_prob(np.array([1]), logits)[0] == -2000


@pytest.mark.parametrize("labels", [[0, -1], [0, 3], [0], [[0], [1]]])
def test_categorical_refuses_labels_that_are_none(labels):
    with pytest.raises((ValueError, IndexError)):
        categorical_log_prob(np.array(labels), np.zeros((2, 3)))


# Samplers: mean and covariance within five standard errors.


def assert_moments(x, mean, cov):
    n = len(x)
    variance = np.diag(cov)
    assert (np.abs(x.mean(axis=0) - mean) < 5 * np.sqrt(variance / n)).all()
    error = np.sqrt((np.outer(variance, variance) + cov**2) / n)  # of a Gaussian's sample covariance
    assert (np.abs(np.cov(x.T).reshape(cov.shape) - cov) < 5 * error).all()


@pytest.mark.parametrize("dtype", ["float32", F64])
def test_sample_gaussian(dtype):
    rng = Rng(0, dtype)
    mu, cov = rng.array([1.0, -2.0, 0.5]), rng.array([[2.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 0.5]])
    x = sample_gaussian(N, mu, cov, rng)
    assert x.shape == (N, 3) and x.dtype == dtype
    assert_moments(x, mu, cov)


@pytest.mark.parametrize("dtype", ["float32", F64])
def test_a_gaussian_draw_is_mu_plus_l_eps_of_its_stream(dtype):
    """In the stream's precision, also for lists."""
    mu, cov = [1.0, -2.0], [[4.0, 2.0], [2.0, 5.0]]  # L = [[2, 0], [1, 2]]
    x, eps = sample_gaussian(7, mu, cov, Rng(3, dtype)), Rng(3, dtype).normal((7, 2))
    assert x.dtype == dtype
    wanted = np.stack([1 + 2 * eps[:, 0], -2 + eps[:, 0] + 2 * eps[:, 1]], axis=1)
    np.testing.assert_allclose(x, wanted, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6)


def test_a_linear_map_of_noise_is_gaussian():
    """A ε + b has mean b and covariance A Aᵀ, for any A: sample_gaussian's Cholesky factor is one of many."""
    rng = Rng(1, F64)
    A, b = np.array([[1.0, 2.0], [-0.5, 0.3]]), np.array([3.0, -1.0])
    x = rng.normal((N, 2)) @ A.T + b
    assert_moments(x, b, A @ A.T)
    assert_moments(sample_gaussian(N, b, A @ A.T, rng), b, A @ A.T)


def test_reparameterize_has_the_mean_and_the_variance():
    rng = Rng(2, F64)
    mu, log_var = np.array([1.0, -2.0]), np.array([math.log(4.0), -3.0])
    z, _ = reparameterize(np.tile(mu, (N, 1)), np.tile(log_var, (N, 1)), rng)
    assert_moments(z, mu, np.diag(np.exp(log_var)))  # exp(log_var) as σ would give variance 16 for 4
    for i in range(2):
        assert stats.kstest((z[:, i] - mu[i]) / math.exp(log_var[i] / 2), "norm").pvalue > 1e-4


def test_reparameterize_draws_anew_for_every_number_and_repeats_with_the_seed():
    zeros = np.zeros((50, 4))
    z = reparameterize(zeros, zeros, Rng(3, F64))[0]
    assert len(np.unique(z)) == z.size
    np.testing.assert_array_equal(reparameterize(zeros, zeros, Rng(3, F64))[0], z)
    with pytest.raises(ValueError, match=r"reparameterize.*\(4, 3\).*\(4, 1\)"):
        reparameterize(np.zeros((4, 3)), np.zeros((4, 1)), Rng(0, F64))


def test_the_one_sample_gradient_averages_to_the_true_one():
    """E[½ a (z - c)²] = ½ a ((μ - c)² + σ²), so its gradients are a (μ - c) and, in log σ², ½ a σ²."""
    a, c, mu, log_var = 1.5, 0.4, -0.7, 0.6
    z, backward = reparameterize(np.full((N, 1), mu), np.full((N, 1), log_var), Rng(4, F64))
    for gradient, exact in zip(backward(a * (z - c)), (a * (mu - c), 0.5 * a * math.exp(log_var))):
        assert abs(gradient.mean() - exact) < 5 * gradient.std() / math.sqrt(N)


def test_sample_bernoulli():
    logits = np.array([-3.0, 0.0, 1.0])
    x = sample_bernoulli(np.tile(logits, (N, 1)), Rng(5, F64))
    assert x.dtype == F64 and set(np.unique(x)) == {0, 1}
    p = expit(logits)
    assert (np.abs(x.mean(axis=0) - p) < 5 * np.sqrt(p * (1 - p) / N)).all()
    assert_moments(x, p, np.diag(p * (1 - p)))
    extreme = sample_bernoulli(np.tile([-1000.0, 1000.0], (100, 1)), Rng(6, F64))
    np.testing.assert_array_equal(extreme, np.tile([0.0, 1.0], (100, 1)))


@pytest.mark.parametrize("dtype", ["float32", F64])
def test_sample_categorical(dtype):
    logits = np.array([0.0, 1.0, -1.5, 0.5], dtype)
    labels = sample_categorical(np.tile(logits, (N, 1)), Rng(7, dtype))
    assert labels.shape == (N,) and labels.dtype.kind == "i"
    p = np.exp(logits) / np.exp(logits).sum()
    found = np.bincount(labels, minlength=4) / N
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / N)).all()
    assert (sample_categorical(np.tile([0.0, 1000.0], (100, 1)), Rng(8, F64)) == 1).all()


# An encoder's output as a Gaussian.


def test_gaussian_head_cuts_in_two_and_bounds_the_variance():
    h = np.array([[1.0, 2.0, -1000.0, 0.5], [3.0, 4.0, 9.9, 1000.0]])
    (mu, log_var), backward = gaussian_head(h)
    np.testing.assert_array_equal(mu, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(log_var, [[LOG_VAR_RANGE[0], 0.5], [9.9, LOG_VAR_RANGE[1]]])
    dh = backward((np.full((2, 2), 5.0), np.full((2, 2), 7.0)))
    np.testing.assert_array_equal(dh, [[5, 5, 0, 7], [5, 5, 7, 0]])  # no gradient beyond the bound
    z, _ = reparameterize(mu.astype("float32"), log_var.astype("float32"), Rng(0))
    assert np.isfinite(z).all() and np.isfinite(np.exp(log_var.astype("float32"))).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_a_posterior_is_a_head_a_sample_and_a_kl(seed):
    """In one pass what a VAE needs of its encoder's output, forwards and backwards."""
    rng = Rng(seed, "float64")
    h, dz, d_kl = 3 * rng.normal((4, 6)), rng.normal((4, 3)), 0.7
    (z, kl), back = gaussian_posterior(h, Rng(1, "float64"))
    (mu, log_var), back_head = gaussian_head(h)
    z_alone, back_z = reparameterize(mu, log_var, Rng(1, "float64"))
    kl_alone, *d_parts = kl_standard_normal(mu, log_var)
    np.testing.assert_allclose(z, z_alone, rtol=1e-12)
    assert kl == pytest.approx(kl_alone, rel=1e-12)
    d_head = tuple(d + d_kl * d_part for d, d_part in zip(back_z(dz), d_parts))
    np.testing.assert_allclose(back((dz, d_kl)), back_head(d_head), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (4,), (2, 3, 4)])
def test_gaussian_head_refuses_what_has_no_two_halves(shape):
    with pytest.raises(ValueError) as error:
        gaussian_head(np.zeros(shape))
    assert str(shape) in str(error.value) and "(B, 2 D)" in str(error.value)


class Smallest(Rng):
    """An Rng whose uniform numbers are all 0, the least that it can draw."""

    def uniform(self, shape):
        return np.zeros(shape, self.real)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_gumbel_draw_is_beyond_what_its_precision_can_tell(dtype):
    """At u = 1 -log(-log u) is infinite: a class of probability e^-50 would be drawn once in 17 million."""
    g = sample_gumbel((3,), Smallest(0, dtype))
    assert g.dtype == dtype and (g < -np.log(np.finfo(dtype).eps / 8)).all()
    logits = np.array([[0.0, -50.0]], dtype)
    assert sample_categorical(logits, Smallest(0, dtype)) == 0


def test_gumbel_draws_have_their_mean_and_variance():
    g = sample_gumbel((200_000,), Rng(0, "float64"))
    assert abs(g.mean() - np.euler_gamma) < 4 * np.sqrt(np.pi**2 / 6 / 200_000)
    assert abs(g.var() - np.pi**2 / 6) < 0.03
