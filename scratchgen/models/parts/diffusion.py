"""Diffusion: noise takes the data over step by step, by a law that needs no network, and samplers that go the way back.

    q(x_t | x_0) = N(√ᾱ_t x_0, (1 - ᾱ_t) I),      ᾱ_t = Π_{s <= t} (1 - β_s),      t = 1 ... T,      ᾱ_0 = 1

Ho et al. 2020 (DDPM), eq 4. At T hardly anything of x_0 is left, so one starts from N(0, I). To go back by a step one must
know x_0, and the best guess in the mean square is x̂_0 = E[x_0 | x_t]. A denoiser is a function (x_t, t) -> x̂_0, t an int:
a network's (models/ddpm.py), or for a mixture the exact one, so that a sampler can be judged apart from any network.
A sampler is a generator of (t, x_t), from T down to t = 0, the sample.
"""

import math
from itertools import pairwise

import numpy as np

from ...backend import UsageError, array_module
from ...nn.layers import matmul

SCHEDULES = ("cosine", "linear")
VARIANCES = ("beta_tilde", "beta")


def alpha_bars(schedule, T):
    """ᾱ_0 = 1, ᾱ_1, ..., ᾱ_T: (T + 1,) float64 on the host, falling.

    linear: β_t rises on a line from 1e-4 to 0.02 for T = 1000 (Ho et al. 2020, section 4), and by 1000/T faster for other
    T, so that about as much noise comes in all, from T of 50 on. cosine: ᾱ_t = f(t) / f(0), f(t) = cos²(½π (t/T + s) / (1
    + s)), s = 0.008, with β_t <= 0.999 (Nichol & Dhariwal 2021, eq 17): less noise at first, and so less time spent where
    nothing is to be seen.
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
    """T = τ_0 > τ_1 > ... > τ_n = 0: n_steps equal jumps from T to 0, as nearly as whole numbers can. Python ints."""
    if not 1 <= n_steps <= T:
        raise UsageError(f"a sampler takes 1 ... {T} steps, as many as there are times, got {n_steps}")
    return [round(T * (n_steps - i) / n_steps) for i in range(n_steps + 1)]


def ancestral(denoise, x, alpha_bar, rng, variance="beta_tilde"):
    """Yield (t, x_t) for t = T, ..., 0 with x_{t-1} ~ N(μ̃(x_t, x̂_0), σ_t² I), from x = x_T (n, D). Ho et al., algorithm 2

    μ̃ = √ᾱ_{t-1} β_t / (1 - ᾱ_t) x̂_0 + √α_t (1 - ᾱ_{t-1}) / (1 - ᾱ_t) x_t,   β̃_t = (1 - ᾱ_{t-1}) / (1 - ᾱ_t) β_t

    (eq 7) is q(x_{t-1} | x_t, x_0), by Bayes' rule from two Gaussians. σ_t² is β̃_t, right where x_0 is one point, or β_t,
    right where x_0 ~ N(0, I); between many small steps it hardly matters. The last step takes the mean and adds no noise.
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
    """Yield (t, x_t) at n_steps + 1 times, from x = x_T (n, D) at T to the sample at 0. Song et al. 2020, eq 12

    x_s = √ᾱ_s x̂_0 + √(1 - ᾱ_s - σ²) ε̂ + σ ε,   ε̂ = (x_t - √ᾱ_t x̂_0) / √(1 - ᾱ_t)
    σ = η √((1 - ᾱ_s) / (1 - ᾱ_t)) √(1 - ᾱ_t / ᾱ_s)

    for a jump from t to any s < t, as only the marginals q(x_t | x_0) enter. η = 0: no noise but x_T, so that near x_T give
    near samples; η = 1 with all T steps is `ancestral` with β̃. ε̂ is put back with a plus: what is left of the old noise.
    The last jump ends in x̂_0, a mean, so few steps draw fine structure finer than it is: 100 steps with the exact x̂_0 leave
    the toy ring's modes half their width.
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta must lie in [0, 1], got {eta}")
    taus = times(len(alpha_bar) - 1, n_steps)
    yield taus[0], x
    for t, s in pairwise(taus):
        x = jump(denoise, x, t, s, alpha_bar, rng, eta)
        yield s, x


def jump(denoise, x, t, s, alpha_bar, rng, eta):
    """x_s from x = x_t (n, D), for s < t: see ddim."""
    now, then = float(alpha_bar[t]), float(alpha_bar[s])
    x_0 = denoise(x, t)
    eps = (x - math.sqrt(now) * x_0) * (1 / math.sqrt(1 - now))
    variance = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
    x = math.sqrt(then) * x_0 + math.sqrt(max(0.0, 1 - then - variance)) * eps
    if variance > 0:
        x += math.sqrt(variance) * rng.normal(x.shape)
    return x


def inpaint(denoise, x, x_0, known, alpha_bar, rng, n_steps, repeats=10):
    """Yield (t, x_t) as ddim does, with x_t where known is 1 a noisy x_0, and elsewhere what goes with it.

    x = x_T and x_0 (n, D), known (n, D) or (D,), 0 or 1. Lugmayr et al. 2022 (RePaint), algorithm 1: for a jump from t to s,

        x_s = known ⊙ (√ᾱ_s x_0 + √(1 - ᾱ_s) ε) + (1 - known) ⊙ x′_s,      x′_s ~ p(x_s|x_t), a jump with η = 1
        x_t ~ q(x_t|x_s) = N(√(ᾱ_t/ᾱ_s) x_s, (1 - ᾱ_t/ᾱ_s) I),      and down again, until x_s has been drawn `repeats` times

    (its line 5 has 1 - ᾱ where the root is meant). The hole is drawn beside known pixels as they were at t, and these then
    get new noise: drawn once, it has heeded pixels that it no longer has beside it. Repeats, here of the last jump too, let
    the two come to fit. Of two numbers of correlation 0.8, the first known to be 1.5, the second has mean 1.2 and standard
    deviation 0.6; in 1,000 jumps it comes to 0.75 and 0.70 drawn once, to 1.15 and 0.60 drawn ten times. The weights of
    modes far apart stay wrong: they are settled early, when the hole sees the known pixels through noise alone.
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
    """The exact E[x_0 | x_t] where x_0 ~ Σ_k w_k N(c_k, σ² I): a denoiser without a network.      nodes c (K, D)

    x_t | k ~ N(√ᾱ c_k, s² I), s² = ᾱ σ² + 1 - ᾱ. So k has the probability r_k ∝ w_k exp(-‖x_t - √ᾱ c_k‖² / 2 s²), and
    given k, E[x_0] = c_k + (√ᾱ σ² / s²) (x_t - √ᾱ c_k). The score follows: ∇ log p(x_t) = (√ᾱ x̂_0 - x_t) / (1 - ᾱ).
    """

    def denoise(x, t):  # x (n, D)
        xp = array_module(x)
        a = float(alpha_bar[t])
        variance, root = a * sigma**2 + 1 - a, math.sqrt(a)
        c, log_w = (xp.asarray(table).astype(x.dtype) for table in (nodes, np.log(weights)))
        squares = sum((x[:, i, None] - root * c[:, i]) ** 2 for i in range(x.shape[1]))  # (n, K)
        log_r = log_w - squares / (2 * variance)
        r = xp.exp(log_r - log_r.max(axis=1, keepdims=True))
        mean = matmul(r / r.sum(axis=1, keepdims=True), c)  # Σ_k r_k c_k, (n, D)
        return mean + (root * sigma**2 / variance) * (x - root * mean)

    return denoise
