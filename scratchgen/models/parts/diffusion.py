"""Diffusion: noise replaces the data step by step, by a fixed law without a network. Samplers go the opposite way.

    q(x_t | x_0) = N(√ᾱ_t x_0, (1 - ᾱ_t) I),      ᾱ_t = Π_{s <= t} (1 - β_s),      t = 1 ... T,      ᾱ_0 = 1

Ho et al. 2020 (DDPM), eq 4. At T almost nothing of x_0 is left, so a sampler starts from N(0, I). One step back needs x_0,
and its best guess in the mean square is x̂_0 = E[x_0 | x_t]. A denoiser is a function (x_t, t) -> x̂_0, where t is an int. In
models/ddpm.py it is a network. For a Gaussian mixture the exact denoiser is known, so samplers can be tested without a
network. A sampler is a generator that yields (t, x_t) from T down to t = 0, where x_t is the sample.
"""

import math
from itertools import pairwise

import numpy as np

from ...backend import UsageError, array_module
from ...nn.layers import matmul

SCHEDULES = ("cosine", "linear")
VARIANCES = ("beta_tilde", "beta")


def alpha_bars(schedule, T):
    """ᾱ_0 = 1, ᾱ_1, ..., ᾱ_T: a decreasing (T + 1,) array of float64 on the host.

    linear: for T = 1000, β_t rises linearly from 1e-4 to 0.02 (Ho et al. 2020, section 4). For other T it is multiplied by
        1000/T, so that the total noise is about the same for all T of at least 50.
    cosine: ᾱ_t = f(t) / f(0), f(t) = cos²(½π (t/T + s) / (1 + s)), s = 0.008, with β_t <= 0.999 (Nichol & Dhariwal 2021,
        eq 17). It adds less noise at first, so fewer steps are spent where x_t is almost pure noise.

    Raises UsageError for another schedule.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"schedule {schedule!r} is unknown: use {' or '.join(SCHEDULES)}")
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, T) * (1000 / T)
    else:
        f = np.cos(0.5 * math.pi * (np.arange(T + 1) / T + 0.008) / 1.008) ** 2
        betas = 1 - f[1:] / f[:-1]
    return np.concatenate([[1.0], np.cumprod(1 - np.minimum(betas, 0.999))])


def times(T, n_steps):
    """T = τ_0 > τ_1 > ... > τ_n = 0: n_steps jumps from T to 0, as equal as whole numbers allow. A list of Python ints.

    Raises UsageError unless n_steps lies in 1 ... T.
    """
    if not 1 <= n_steps <= T:
        raise UsageError(f"a sampler takes 1 ... {T} steps, at most one for each time, got n_steps={n_steps}")
    return [round(T * (n_steps - i) / n_steps) for i in range(n_steps + 1)]


def ancestral(denoise, x, alpha_bar, rng, variance="beta_tilde"):
    """Yields (t, x_t) for t = T, ..., 0 with x_{t-1} ~ N(μ̃(x_t, x̂_0), σ_t² I), from x = x_T (n, D). Ho et al., algorithm 2

    μ̃ = √ᾱ_{t-1} β_t / (1 - ᾱ_t) x̂_0 + √α_t (1 - ᾱ_{t-1}) / (1 - ᾱ_t) x_t,   β̃_t = (1 - ᾱ_{t-1}) / (1 - ᾱ_t) β_t

    These (eq 7) are the mean and the variance of q(x_{t-1} | x_t, x_0), by Bayes' rule from two Gaussians. σ_t² is β̃_t,
    which is exact if x_0 is a single point, or β_t, which is exact if x_0 ~ N(0, I). With many small steps the choice hardly
    matters. The last step takes the mean and adds no noise. Raises UsageError for another variance.
    """
    if variance not in VARIANCES:
        raise UsageError(f"variance {variance!r} is unknown: use {' or '.join(VARIANCES)}")
    T = len(alpha_bar) - 1
    yield T, x
    for t in range(T, 0, -1):
        now, before = float(alpha_bar[t]), float(alpha_bar[t - 1])
        alpha = now / before
        beta = 1 - alpha
        mean = denoise(x, t) * (math.sqrt(before) * beta / (1 - now)) + x * (
            math.sqrt(alpha) * (1 - before) / (1 - now)
        )
        variances = {"beta_tilde": (1 - before) / (1 - now) * beta, "beta": beta}
        x = mean + math.sqrt(variances[variance]) * rng.normal(x.shape) if t > 1 else mean
        yield t - 1, x


def ddim(denoise, x, alpha_bar, rng, n_steps, eta=0.0):
    """Yields (t, x_t) at n_steps + 1 times, from x = x_T (n, D) at T to the sample at 0. Song et al. 2020, eq 12

    x_s = √ᾱ_s x̂_0 + √(1 - ᾱ_s - σ²) ε̂ + σ ε,   ε̂ = (x_t - √ᾱ_t x̂_0) / √(1 - ᾱ_t)
    σ = η √((1 - ᾱ_s) / (1 - ᾱ_t)) √(1 - ᾱ_t / ᾱ_s)

    This is a jump from t to any s < t: only the marginals q(x_t | x_0) matter. With η = 0, x_T is the only noise, so similar
    x_T give similar samples. With η = 1 and all T steps, this is `ancestral` with β̃. The predicted noise ε̂ is added back,
    not subtracted, and scaled to the new time. The last jump ends at x̂_0, which is a mean. So with few steps fine structure
    becomes too narrow: after 100 steps with the exact x̂_0, the modes of the toy ring have .38 of their width with the cosine
    schedule, and .28 to .33 with the linear one.

    Raises UsageError unless eta lies in [0, 1] and n_steps in 1 ... T.
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta must lie in [0, 1], got {eta}")
    taus = times(len(alpha_bar) - 1, n_steps)
    yield taus[0], x
    for t, s in pairwise(taus):
        x = jump(denoise, x, t, s, alpha_bar, rng, eta)
        yield s, x


def jump(denoise, x, t, s, alpha_bar, rng, eta):
    """x_s from x = x_t (n, D), for s < t: one jump of ddim."""
    now, then = float(alpha_bar[t]), float(alpha_bar[s])
    x_0 = denoise(x, t)
    eps = (x - math.sqrt(now) * x_0) * (1 / math.sqrt(1 - now))
    variance = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
    x = math.sqrt(then) * x_0 + math.sqrt(max(0.0, 1 - then - variance)) * eps
    if variance > 0:
        x += math.sqrt(variance) * rng.normal(x.shape)
    return x


def inpaint(denoise, x, x_0, known, alpha_bar, rng, n_steps, repeats=10):
    """Yields (t, x_t) as ddim does. Known pixels are set to a noisy copy of x_0; the others are sampled to match them.

    x = x_T and x_0 (n, D), known (n, D) or (D,), 0 or 1. Lugmayr et al. 2022 (RePaint), algorithm 1: for a jump from t to s,

        x_s = known ⊙ (√ᾱ_s x_0 + √(1 - ᾱ_s) ε) + (1 - known) ⊙ x′_s,      x′_s ~ p(x_s|x_t), a jump with η = 1
        x_t ~ q(x_t|x_s) = N(√(ᾱ_t/ᾱ_s) x_s, (1 - ᾱ_t/ᾱ_s) I),      and down again, until x_s has been drawn `repeats` times

    (Line 5 of the algorithm has 1 - ᾱ, but its square root is meant.) The hole is drawn to match the known pixels at t, and
    then these get new noise. If the hole is drawn only once, it matches noise that is no longer there. Repeating each jump,
    here also the last one, lets hole and known pixels agree. For example, let two numbers have correlation 0.8 and let the
    first be 1.5. Then the second has mean 1.2 and standard deviation 0.6. After 1,000 jumps these are 0.75 and 0.70 with one
    draw per jump, and 1.15 and 0.60 with ten draws. The weights of modes that are far apart remain wrong: they are decided
    early, when noise still hides the known pixels. Raises UsageError for repeats < 1.
    """
    if repeats < 1:
        raise UsageError(f"repeats must be >= 1, got {repeats}")
    xp = array_module(x)
    taus = times(len(alpha_bar) - 1, n_steps)
    yield taus[0], x
    for t, s in pairwise(taus):
        now, then = float(alpha_bar[t]), float(alpha_bar[s])
        for repeat in range(repeats):
            if repeat:
                x = math.sqrt(now / then) * x + math.sqrt(1 - now / then) * rng.normal(x.shape)
            x = jump(denoise, x, t, s, alpha_bar, rng, 1.0)
            x = xp.where(known, math.sqrt(then) * x_0 + math.sqrt(1 - then) * rng.normal(x.shape), x)
        yield s, x


def mixture_denoiser(nodes, weights, sigma, alpha_bar):
    """The exact denoiser E[x_0 | x_t] if x_0 ~ Σ_k w_k N(c_k, σ² I), without a network.      nodes c (K, D)

    The score follows: ∇ log p(x_t) = (√ᾱ x̂_0 - x_t) / (1 - ᾱ).
    """
    x_0 = mixture_mean(nodes, weights, sigma)

    def denoise(x, t):  # x (n, D)
        a = float(alpha_bar[t])
        return x_0(x, math.sqrt(a), math.sqrt(1 - a))

    return denoise


def mixture_mean(nodes, weights, sigma):
    """The function (x_t, a, b) -> E[x_0 | x_t], (n, D), for x_t = a x_0 + b ε and the mixture above.

    x_t | k ~ N(a c_k, s² I), s² = a² σ² + b². So component k has the probability r_k ∝ w_k exp(-‖x_t - a c_k‖² / 2 s²).
    Given k, E[x_0] = c_k + (a σ² / s²) (x_t - a c_k).
    """

    def x_0(x, a, b):
        xp = array_module(x)
        variance = a**2 * sigma**2 + b**2
        c, log_w = (xp.asarray(table).astype(x.dtype) for table in (nodes, np.log(weights)))
        squares = sum((x[:, i, None] - a * c[:, i]) ** 2 for i in range(x.shape[1]))  # (n, K)
        log_r = log_w - squares / (2 * variance)
        r = xp.exp(log_r - log_r.max(axis=1, keepdims=True))
        mean = matmul(r / r.sum(axis=1, keepdims=True), c)  # Σ_k r_k c_k, (n, D)
        return mean + (a * sigma**2 / variance) * (x - a * mean)

    return x_0
