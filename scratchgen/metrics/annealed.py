"""Annealed importance sampling: an estimate of the constant Z of a restricted Boltzmann machine, and so of its likelihood.

    Z / Z_A = E[w],      w = Π_t p*_t(v_t) / p*_t-1(v_t),      v_t+1 from a Gibbs step that leaves p*_t unchanged

Neal 2001; Salakhutdinov & Murray 2008. p*_0 has independent pixels (W = 0), and its constant Z_A is known. p*_T is the
machine, e^-F. Between them, with β from 0 to 1,

    log p*_β(v) = (1 - β) b_A·v + β b·v + Σ_j softplus(β a_j),      a = c + v W

The mean of w is right on average. Its logarithm is too low on average, and more so if w varies more. So a likelihood that is
estimated this way is too high. The standard error and the effective sample size show how much w varies among these chains.
They cannot show what no chain has visited: the standard error is at most 1, even if log Z is far off.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..backend import array_module, to_host
from ..nn.activations import sigmoid
from ..nn.distributions import sample_bernoulli
from ..train.progress import told

AT_ONCE = 1000  # chains that run at the same time, to save memory


@dataclass
class Estimate:
    """log_z in nats, its standard_error, the effective_sample_size, and log_weights (n_chains,), which include log Z_A."""

    log_z: float
    standard_error: float
    effective_sample_size: float
    log_weights: np.ndarray
    n_betas: int


def annealed_log_z(rbm, rng, n_chains=100, n_betas=1000):
    """An Estimate of the log Z of a built RBM, or of a DBN's top, from n_chains chains over n_betas temperatures.

    The pixels of the base are independent, and black as often as in the training data. The standard error comes from the
    delta method: sd(w) / (mean(w) √n).
    Raises ValueError for fewer than two chains or one temperature.
    """
    if n_chains < 2 or n_betas < 1:
        raise ValueError(f"annealed_log_z: n_chains={n_chains} and n_betas={n_betas}; expected at least 2 and 1")
    parts = [log_weights(rbm, min(AT_ONCE, n_chains - i), n_betas, rng) for i in range(0, n_chains, AT_ONCE)]
    log_w = np.concatenate(parts)
    largest = log_w.max()
    w = np.exp(log_w - largest)
    error = w.std(ddof=1) / w.mean() / math.sqrt(n_chains)
    ess = w.sum() ** 2 / (w * w).sum()
    return Estimate(float(largest + np.log(w.mean())), float(error), float(ess), log_w, n_betas)


def log_weights(rbm, n, n_betas, rng):
    """log(w Z_A) of n chains, (n,) in float64 on the host."""
    energy, base, xp = rbm.energy, rbm.energy.base, array_module(rbm.energy.W)
    v = rbm.independent(n, rng)
    # Z_A = Π_i (1 + e^b_i) 2^n_hidden: at β = 0 every hidden unit adds softplus(0)
    odds = to_host(base).astype(np.float64)
    log_z_base = np.logaddexp(0, odds).sum() + len(energy.c) * math.log(2)
    log_w = xp.zeros(n, dtype=xp.float64)
    for before, beta in told(list(zip(betas(n_betas), betas(n_betas)[1:])), "temperature"):
        a = energy.up(v)  # (n, n_hidden)
        # softplus(β′ a) - softplus(β a), without a small difference of large numbers and without overflow: with n = -|a| it
        # is log(1 + σ(β n) (e^((β′ - β) n) - 1)), plus (β′ - β) a where a > 0, since softplus(x) = x + softplus(-x).
        minus, step = xp.minimum(a, -a), beta - before
        hidden = xp.log1p(sigmoid(before * minus) * xp.expm1(step * minus)) + step * xp.maximum(a, 0)
        log_w += hidden.sum(axis=1, dtype=xp.float64)
        log_w += (beta - before) * (v * (energy.b - base)).sum(axis=1, dtype=xp.float64)
        h = sample_bernoulli(beta * a, rng)
        v = sample_bernoulli((1 - beta) * base + beta * energy.down(h), rng)
    return log_z_base + to_host(log_w)


def betas(n):
    """0 = β_0 < ... < β_n = 1, Python floats."""
    return [i / n for i in range(n + 1)]
