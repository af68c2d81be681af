"""Distributions: log-densities in nats, samplers, and the reparameterisation trick with its backward.

Each name has one meaning everywhere: mu is a mean, log_var a log-variance, sigma = exp(½ log_var) a standard deviation, cov
a covariance matrix. They are easily confused. A sampler that uses a variance as a standard deviation passes every gradient
check, so the tests measure the moments of samples.
"""

import math

import numpy as np

from ..backend import array_module
from ..kernels import operation
from .activations import sigmoid, softplus
from .layer import example, same_shape
from .layers import log_softmax, one_hot
from .losses import kl_standard_normal

LOG_2PI = math.log(2 * math.pi)
LOG_VAR_RANGE = (-30.0, 10.0)  # σ from 3e-7 to 148; beyond, exp(log σ²) would dominate any loss


@example(lambda rng: (rng.normal((3, 4)), rng.normal((3, 4))))
def reparameterize(mu, log_var, rng):
    """z = μ + σ ε, ε ~ N(0, I), σ = exp(½ log σ²).      dμ = dz,   dlog σ² = ½ σ ε dz.      All (B, D).

    Returns z and backward(dz) -> (d_mu, d_log_var). All randomness is in ε, which does not depend on the weights, so the
    gradient passes through the sample (Kingma & Welling 2013, section 2.4). backward uses the ε of forward: new noise would
    be uncorrelated with dz, so the gradient of σ would be 0 on average.
    """
    same_shape("reparameterize", mu=mu, log_var=log_var)
    sigma_eps = array_module(mu).exp(0.5 * log_var) * rng.normal(mu.shape)  # σ = √exp(log σ²)

    def backward(dz):
        return dz, 0.5 * sigma_eps * dz

    return mu + sigma_eps, backward


@example(lambda rng: (20 * rng.normal((3, 8)),))
def gaussian_head(h, rng=None):
    """μ and log σ², each (B, D): the two halves of an encoder's output h (B, 2 D).      dh = [dμ, dlog σ²].

    Returns (mu, log_var) and backward((d_mu, d_log_var)) -> dh. One matrix, whose output is h, serves as both heads. log σ²
    is clipped to LOG_VAR_RANGE; where it is clipped, its gradient is 0. rng is not used.
    """
    xp = array_module(h)
    if h.ndim != 2 or h.shape[1] % 2:
        raise ValueError(f"gaussian_head got an input of shape {h.shape}, expected (B, 2 D)")
    n = h.shape[1] // 2
    raw = h[:, n:]
    log_var = xp.maximum(xp.minimum(raw, LOG_VAR_RANGE[1]), LOG_VAR_RANGE[0])

    def backward(d_both):
        d_mu, d_log_var = d_both
        return xp.concatenate([d_mu, d_log_var * (raw == log_var)], axis=1)

    return (h[:, :n], log_var), backward


@example(lambda rng: (20 * rng.normal((3, 8)),))
@operation
def gaussian_posterior(h, rng):
    """z ~ q(z|x) = N(μ, diag σ²) and KL(q ‖ N(0, I)) in nats, from an encoder's output h = [μ, log σ²].      h (B, 2 D)

    Returns (z (B, D), kl) and backward((dz, d_kl)) -> dh. It joins gaussian_head, reparameterize and kl_standard_normal,
    because every VAE needs all three. backward adds the gradients of z and of the KL:
    dμ = dz + d_kl μ / B   and   dlog σ² = ½ σ ε dz + d_kl ½ (σ² - 1) / B, which is 0 where log σ² is clipped.
    """
    (mu, log_var), back_head = gaussian_head(h)
    z, back_z = reparameterize(mu, log_var, rng)
    kl, kl_mu, kl_log_var = kl_standard_normal(mu, log_var)  # and its two gradients

    def backward(d_both):
        dz, d_kl = d_both
        d_mu, d_log_var = back_z(dz)
        return back_head((d_mu + d_kl * kl_mu, d_log_var + d_kl * kl_log_var))

    return (z, kl), backward


def diagonal_gaussian_log_prob(x, mu, log_var):
    """log N(x; μ, diag σ²) = -½ Σ (log 2π + log σ² + (x - μ)²/σ²).      x (B, D); mu, log_var broadcast to it; -> (B,)

    The density is a product over dimensions, so its exponent is the *sum* of -(x-μ)²/2σ².
    """
    xp = array_module(x)
    difference = x - mu
    return -0.5 * (LOG_2PI + log_var + difference * difference * xp.exp(-log_var)).sum(axis=-1)


def gaussian_log_prob(x, mu, cov):
    """log N(x; μ, Σ) = -½ (D log 2π + log |Σ| + (x - μ)ᵀ Σ⁻¹ (x - μ)).      x (B, D), mu (D,), cov (D, D); -> (B,)

    With Σ = L Lᵀ (Cholesky): log |Σ| = 2 Σ log L_ii, and the quadratic form is ‖L⁻¹ (x - μ)‖². If cov is not positive
    definite, this raises numpy.linalg.LinAlgError on the CPU and returns nan on a GPU.
    """
    xp = array_module(x)
    if x.ndim != 2 or cov.shape != (x.shape[1], x.shape[1]):
        raise ValueError(f"gaussian_log_prob: x has shape {x.shape} and cov {cov.shape}; expected (B, D) and (D, D)")
    L = xp.linalg.cholesky(cov)
    white = xp.linalg.solve(L, (x - mu).T)  # (D, B)
    log_det = 2 * xp.log(xp.diagonal(L)).sum()
    return -0.5 * (x.shape[1] * LOG_2PI + log_det + (white * white).sum(axis=0))


def sample_gaussian(n, mu, cov, rng):
    """n draws of x = μ + L ε, with L Lᵀ = Σ and ε ~ N(0, I). -> (n, D)

    A linear map of a Gaussian is Gaussian, here with mean μ and covariance L Lᵀ. L is a matrix square root of Σ, and L ε is
    a matrix product. Only for a diagonal Σ is it the elementwise σ ⊙ ε.
    """
    mu, cov = rng.array(mu), rng.array(cov)
    L = rng.xp.linalg.cholesky(cov)
    return mu + rng.normal((n, len(cov))) @ L.T


def bernoulli_log_prob(x, logits):
    """Σ [x log p + (1 - x) log(1 - p)], p = sigmoid(logits), for x of zeros and ones.      Both (B, D); -> (B,)"""
    same_shape("bernoulli_log_prob", x=x, logits=logits)
    return (x * logits - softplus(logits)).sum(axis=-1)


def sample_bernoulli(logits, rng):
    """1 with probability sigmoid(logits), else 0.      Same shape as logits."""
    return (rng.uniform(logits.shape) < sigmoid(logits)).astype(logits.dtype)


def log_frequencies(x, n_values, dtype):
    """The log of how often each value stands in each column (D, n_values), with ½ added to every count. x (N, D)."""
    xp = array_module(x)
    counts = xp.stack([one_hot(x[:, d], n_values, dtype).sum(axis=0) for d in range(x.shape[1])])
    return xp.log((counts + 0.5) / (len(x) + 0.5 * n_values))


def categorical_log_prob(labels, logits):
    """log softmax(logits)[label].      labels (B,) integers, logits (B, K); -> (B,)"""
    chosen = one_hot(labels, logits.shape[1], logits.dtype)  # (B, K)
    same_shape("categorical_log_prob", one_hot_labels=chosen, logits=logits)
    return (chosen * log_softmax(logits)).sum(axis=1)


def sample_categorical(logits, rng):
    """Labels drawn from softmax(logits) by the Gumbel-max trick: arg max (l_k - log(-log u_k)).      (B, K) -> (B,)"""
    return (logits + sample_gumbel(logits.shape, rng)).argmax(axis=1)


def sample_gumbel(shape, rng):
    """Independent draws of -log(-log u), u uniform on (0, 1): the Gumbel distribution."""
    xp, half = rng.xp, np.finfo(rng.real).eps / 4  # half of the step between the numbers that rng.uniform draws
    v = xp.maximum(rng.uniform(shape), float(half))  # v = 1 - u; at v = 0 the draw would be infinite
    return -xp.log(-xp.log1p(-v))
