"""The samplers and schedules of diffusion, apart from any network: against Bayes' rule, against exact scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.data import TOYS
from scratchgen.data.toys import Mixture
from scratchgen.metrics.divergences import sliced_wasserstein
from scratchgen.models.parts.diffusion import SCHEDULES, VARIANCES, alpha_bars, ancestral, ddim, mixture_denoiser, times

F64 = "float64"
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def last(path):
    *_, (t, x) = path
    assert t == 0
    return x


# ---- schedules and times ----


@every_schedule
@given(T=st.integers(20, 1500))
def test_signal_falls_from_all_to_nearly_nothing(schedule, T):
    a = alpha_bars(schedule, T)
    assert a.shape == (T + 1,) and a.dtype == np.float64
    assert a[0] == 1 and (np.diff(a) < 0).all() and a[-1] > 0
    assert a[-1] < 2e-3


def test_the_linear_schedule_is_the_papers():
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(alpha_bars("linear", 1000)[1:], np.cumprod(1 - betas), rtol=1e-12)
    for T in (50, 100, 400):  # as much noise in all: log ᾱ_T = Σ log(1 - β), about -Σ β
        assert -math.log(alpha_bars("linear", T)[-1]) == pytest.approx(10.1, rel=0.2)


def test_the_cosine_schedule_is_the_papers():
    T, s = 200, 0.008
    f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    np.testing.assert_allclose(alpha_bars("cosine", T)[:-1], f[:-1] / f[0], rtol=1e-10)
    a = alpha_bars("cosine", T)
    assert a[-1] / a[-2] == pytest.approx(0.001)  # β <= 0.999, where the formula would have 1


@given(st.data())
def test_times_run_from_T_to_0(data):
    T = data.draw(st.integers(1, 1000))
    n = data.draw(st.integers(1, T))
    taus = times(T, n)
    assert len(taus) == n + 1 and taus[0] == T and taus[-1] == 0
    jumps = -np.diff(taus)
    assert (jumps >= 1).all() and jumps.max() - jumps.min() <= 1


def test_more_steps_than_times_are_refused():
    for n in (0, 11):
        with pytest.raises(UsageError, match=rf"1 \.\.\. 10 steps.*{n}"):
            times(10, n)


# ---- one step back is Bayes' rule ----


def posterior(a, x_t, x_0, variance_of_x_0=0.0):
    """Mean and variance of x_{t-1} given x_t, where x_0 ~ N(x_0, variance): from the joint Gaussian of both, in 1-D."""
    now, before = a
    alpha = now / before
    mean, variance = math.sqrt(before) * x_0, before * variance_of_x_0 + 1 - before  # of x_{t-1}
    gain = math.sqrt(alpha) * variance / (alpha * variance + 1 - alpha)
    return mean + gain * (x_t - math.sqrt(alpha) * mean), variance * (1 - gain * math.sqrt(alpha))


@given(seed=st.integers(0, 10_000))
def test_an_ancestral_step_has_the_posteriors_moments(seed):
    rng = Rng((seed, 1), F64)
    before, ratio = 0.05 + 0.9 * float(rng.uniform(())), 0.05 + 0.9 * float(rng.uniform(()))
    a = [1.0, before, before * ratio]
    x_0, x_t, n = 2 * float(rng.normal(())), 2 * float(rng.normal(())), 20_000
    steps = ancestral(lambda x, t: x_0 + 0 * x, np.full((n, 1), x_t), a, rng)
    (_, start), (t, x), _ = steps
    assert t == 1 and (start == x_t).all()
    mean, variance = posterior((a[2], a[1]), x_t, x_0)
    assert abs(x.mean() - mean) <= 5 * math.sqrt(variance / n)
    assert x.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


def test_the_two_variances_are_right_at_the_two_ends():
    """β̃ where x_0 is one point, β where x_0 ~ N(0, 1): then x_{t-1} given x_t has the variance 1 - α = β."""
    a = [1.0, 0.6, 0.3]
    assert posterior((a[2], a[1]), 0.7, 0.0, variance_of_x_0=1.0)[1] == pytest.approx(1 - a[2] / a[1])
    n = 200_000
    for variance, wanted in (("beta_tilde", posterior((a[2], a[1]), 0.7, 0.5)[1]), ("beta", 1 - a[2] / a[1])):
        steps = ancestral(lambda x, t: 0.5 + 0 * x, np.full((n, 1), 0.7), a, Rng(1, F64), variance)
        _, (_, x), _ = steps
        assert x.var() == pytest.approx(wanted, rel=5 * math.sqrt(2 / n)), variance


@pytest.mark.parametrize("variance", VARIANCES)
@every_schedule
def test_the_last_step_adds_no_noise(schedule, variance):
    """Added at the last step too, as in public code, noise would stand in every sample."""
    a, x_0 = alpha_bars(schedule, 30), Rng(2, F64).normal((4, 3))
    assert np.allclose(last(ancestral(lambda x, t: x_0, Rng(3, F64).normal((4, 3)), a, Rng(4, F64), variance)), x_0)
    for eta in (0.0, 0.5, 1.0):
        assert np.allclose(last(ddim(lambda x, t: x_0, Rng(3, F64).normal((4, 3)), a, Rng(4, F64), 10, eta)), x_0)


# ---- DDIM ----


def nonlinear(x, t):
    return np.tanh(x) * (1 + 0.01 * t)


@every_schedule
def test_ddim_with_eta_1_and_all_steps_is_ancestral(schedule):
    a, x = alpha_bars(schedule, 40), Rng(3, F64).normal((5, 2))
    ours, theirs = ddim(nonlinear, x, a, Rng(4, F64), 40, eta=1.0), ancestral(nonlinear, x, a, Rng(4, F64))
    for (t, x_t), (s, x_s) in zip(ours, theirs, strict=True):
        assert t == s
        np.testing.assert_allclose(x_t, x_s, rtol=1e-9, atol=1e-12)


@every_schedule
@given(seed=st.integers(0, 10_000), n_steps=st.integers(1, 30), eta=st.floats(0, 1))
def test_ddim_keeps_the_marginals(schedule, seed, n_steps, eta):
    """Told the true x_0, every x_t is √ᾱ_t x_0 + √(1 - ᾱ_t) noise: of the old noise for η = 0, of variance 1 for all η."""
    a, rng, n = alpha_bars(schedule, 30), Rng((seed, 1), F64), 4000
    x_0, eps = rng.normal((1, 2)), rng.normal((n, 2))
    x_T = math.sqrt(a[-1]) * x_0 + math.sqrt(1 - a[-1]) * eps
    for t, x_t in ddim(lambda x, t: x_0 + 0 * x, x_T, a, rng, n_steps, eta):
        if t:
            noise = (x_t - math.sqrt(a[t]) * x_0) / math.sqrt(1 - a[t])
            if eta == 0:
                np.testing.assert_allclose(noise, eps, atol=1e-9)
            assert abs(noise.var() - 1) < 6 * math.sqrt(2 / (2 * n))
            assert abs(noise.mean()) < 6 / math.sqrt(2 * n)


def test_without_eta_nothing_but_the_start_is_random():
    a, x = alpha_bars("cosine", 20), Rng(3, F64).normal((5, 2))
    first, again, other = (
        last(ddim(nonlinear, x, a, Rng(seed, F64), 7, eta)) for seed, eta in ((1, 0), (2, 0), (2, 0.5))
    )
    assert (first == again).all() and not np.allclose(first, other)
    with pytest.raises(UsageError, match=r"eta.*1\.5"):
        last(ddim(nonlinear, x, a, Rng(1), 7, 1.5))


# ---- the exact denoiser, and the samplers with it ----


@every_schedule
@pytest.mark.parametrize("t", [1, 10, 39, 40])
def test_the_exact_denoiser_is_tweedies_formula(schedule, t):
    """x̂_0 = (x_t + (1 - ᾱ) ∇ log p(x_t)) / √ᾱ, the gradient by differences of the noised mixture's own density."""
    a, h = alpha_bars(schedule, 40), 1e-5
    c, w, sigma = Rng(1, F64).normal((3, 2)), np.array([0.2, 0.5, 0.3]), 0.4
    noised = Mixture("noised", math.sqrt(a[t] * sigma**2 + 1 - a[t]), math.sqrt(a[t]) * c, w)
    x = 1.5 * Rng(2, F64).normal((6, 2))
    units = np.eye(2) * h
    slope = [(noised.log_density(x + u) - noised.log_density(x - u)) / (2 * h) for u in units]
    wanted = (x + (1 - a[t]) * np.stack(slope, axis=1)) / math.sqrt(a[t])
    found = mixture_denoiser(c, w, sigma, a)(x, t)
    np.testing.assert_allclose(found, wanted, atol=1e-8 / math.sqrt(a[t]))


def test_the_exact_denoiser_is_the_mean_of_what_it_could_have_been():
    """Against samples: among many (x_0, x_t), those x_0 whose x_t lies near x average to x̂_0(x)."""
    a, t, rng = alpha_bars("cosine", 40), 20, Rng(1, F64)
    toy = TOYS["three_modes"]
    x_0 = toy.sample(400_000, rng)
    x_t = math.sqrt(a[t]) * x_0 + math.sqrt(1 - a[t]) * rng.normal(x_0.shape)
    denoise = mixture_denoiser(toy.nodes, toy.weights, toy.sigma, a)
    for x in (-1.5, 0.3, 2.0):
        near = abs(x_t[:, 0] - x) < 0.02
        assert x_0[near, 0].mean() == pytest.approx(float(denoise(np.array([[x]]), t)[0, 0]), abs=0.08)


def distances(toy, T, n, runs, samplers, seed=0):
    """Mean sliced distance of `runs` times n points of each sampler to real ones, over that of real to real."""
    scale = float(toy.sample(20_000, Rng(9, F64)).std())
    a = alpha_bars("cosine", T)
    denoise = mixture_denoiser(toy.nodes / scale, toy.weights, toy.sigma / scale, a)

    def real(i, j):
        return toy.sample(n, Rng((seed, i, j), F64)) / scale

    def mean_distance(points):
        return np.mean([sliced_wasserstein(points[i], real(i, 2), Rng(i), 100) for i in range(runs)])

    floor = mean_distance([real(i, 1) for i in range(runs)])
    for sampler in samplers:
        rng = Rng((seed, 5), F64)
        x = last(sampler(denoise, rng.normal((runs * n, 2)), a, rng))
        yield mean_distance(x.reshape(runs, n, 2)) / floor


def by_ddim(n_steps):
    return lambda denoise, x, a, rng: ddim(denoise, x, a, rng, n_steps)


@pytest.mark.parametrize("name", ["ring", "two_modes_plane"])
def test_with_the_exact_score_samplers_find_the_mixture(name):
    plane = Mixture(name, 0.3, [[-1, 0], [1, 0.5]], [0.3, 0.7])
    toy = TOYS.get(name, plane)
    found = list(distances(toy, 200, 1000, 6, [ancestral, by_ddim(50)]))
    assert max(found) <= 1.4, found


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "runs"), [(ancestral, 10), (by_ddim(100), 20)])
def test_with_the_exact_score_a_thousand_times_are_within_a_third_of_the_floor(sampler, runs):
    """Of 60 runs 1.11 to 1.15 by 100 steps of DDIM, 1.03 to 1.06 by 250; of 10 it varies by a fifth."""
    (found,) = distances(TOYS["ring"], 1000, 5000, runs, [sampler])
    assert 0.7 < found <= 1.3


def test_few_steps_make_tight_modes_tighter():
    """The last jump ends in x̂_0, a mean; so of a mode narrower than the noise before that jump too little is left."""
    toy, a, n = TOYS["ring"], alpha_bars("cosine", 1000), 300
    denoise = mixture_denoiser(toy.nodes, toy.weights, toy.sigma, a)

    def spread(sampler):
        x = last(sampler(denoise, Rng(1, F64).normal((n, 2)), a, Rng(2, F64)))
        return math.sqrt(((x[:, None] - toy.centres) ** 2).sum(axis=2).min(axis=1).mean() / 2) / toy.sigma

    assert spread(by_ddim(100)) < 0.5 < spread(by_ddim(250)) < 0.65 < spread(ancestral) < 1.1


def test_few_steps_are_worse_with_the_exact_score_too():
    few, many = distances(TOYS["ring"], 200, 1000, 4, [by_ddim(3), by_ddim(100)])
    assert few > 2 * many
