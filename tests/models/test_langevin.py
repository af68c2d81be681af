"""Langevin's chains against what theory says of them: their variance, modes and annealing, steps, the buffer of states."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watching import F64, near

from scratchgen import Rng
from scratchgen.data.toys import Mixture
from scratchgen.models.parts.diffusion import mixture_mean
from scratchgen.models.parts.langevin import ReplayBuffer, annealed_langevin, ladder, langevin
from scratchgen.models.parts.predictions import converted


@pytest.mark.parametrize("ratio", [0.2, 1.0, 3.0])  # h/σ²
def test_the_chain_of_a_gaussian_has_the_variance_of_theory(ratio):
    sigma, n = 0.7, 60_000
    x = langevin(lambda x: -x / sigma**2, Rng(1, F64).normal((n, 1)), ratio * sigma**2, 60, Rng(2, F64))
    wanted = sigma**2 / (1 - ratio / 4)
    near(x.var(), wanted, wanted * math.sqrt(2 / n), "variance")
    near(x.mean(), 0, math.sqrt(wanted / n), "mean")
    assert abs(x.var() - sigma**2) > 5 * wanted * math.sqrt(2 / n)  # and the error of the steps is seen


def test_smaller_steps_bring_the_variance_to_the_right_one_and_steps_of_4_never_end():
    for ratio, steps, wanted in ((0.02, 400, 1 / (1 - 0.02 / 4)), (4.5, 60, None)):
        x = langevin(lambda x: -x, Rng(1, F64).normal((4000, 1)), ratio, steps, Rng(2, F64))
        if wanted is None:
            assert x.var() > 1e6
        else:
            near(x.var(), wanted, wanted * math.sqrt(2 / 4000))


@given(seed=st.integers(0, 10_000), n_steps=st.integers(0, 4), h=st.floats(0.01, 2.0))
def test_a_step_is_half_of_h_along_the_score_and_noise_of_variance_h(seed, n_steps, h):
    def score(x):
        return np.tanh(x) - x

    start, noise = Rng((seed, 1), F64).normal((3, 2)), Rng((seed, 2), F64)
    wanted = start.copy()
    for _ in range(n_steps):
        eps = noise.normal((3, 2))
        wanted += h / 2 * (np.tanh(wanted) - wanted) + np.sqrt(h) * eps
    kept = start.copy()
    np.testing.assert_allclose(langevin(score, start, h, n_steps, Rng((seed, 2), F64)), wanted, rtol=1e-12)
    np.testing.assert_array_equal(start, kept)


def test_annealing_visits_the_noises_in_turn_with_steps_in_proportion_to_their_squares():
    seen = []

    def score(x, sigma):
        seen.append((sigma, x.copy()))
        return 0 * x

    end = annealed_langevin(score, np.zeros((30_000, 2)), [3.0, 0.5], 0.2, 4, Rng(1, F64))
    assert [sigma for sigma, _ in seen] == 4 * [3.0] + 4 * [0.5]
    states = [x for _, x in seen] + [end]
    for (sigma, before), after in zip(seen, states[1:]):
        near((after - before).var(), 0.2 * sigma**2, 0.2 * sigma**2 * math.sqrt(2 / before.size))


def score_of(toy):
    """The exact score of the toy's points with noise sigma."""
    mean = mixture_mean(toy.nodes, toy.weights, toy.sigma)

    def score(x, sigma):
        return converted("x0", mean(x, 1.0, sigma), "score", x, 1.0, sigma)

    return score


def test_plain_chains_leave_the_weights_of_modes_wrong_and_annealed_ones_mend_them():
    """Song & Ermon 2019, section 3.2.2 and figure 3, with the exact scores of a mixture."""
    toy, n = Mixture("uneven", 0.5, [[-3.0, -3.0], [3.0, 3.0]], [0.8, 0.2]), 3000
    score, start = score_of(toy), 4 * Rng(1, F64).normal((n, 2))
    plain = langevin(lambda x: score(x, 0.2), start, 0.3 * 0.29, 400, Rng(2, F64))
    annealed = annealed_langevin(score, start, ladder(10.0, 0.2, 25), 0.3, 30, Rng(3, F64))
    error = math.sqrt(0.8 * 0.2 / n)
    shares = [(x.sum(axis=1) < 0).mean() for x in (start, plain, annealed)]
    near(shares[0], 0.5, math.sqrt(0.25 / n))
    assert abs(shares[1] - shares[0]) < 0.03  # where it began
    near(shares[2], 0.8, error)
    for x in (plain, annealed):  # within a mode both are right
        within = x[x.sum(axis=1) < 0] + 3.0
        near(within.mean(axis=0), 0, 0.54 / math.sqrt(len(within)), sigmas=6)
        assert within.var() == pytest.approx(0.29, rel=0.12)  # 0.5² + 0.2², with the error of the steps


def test_the_score_of_noisy_points_is_the_gradient_of_their_log_density():
    toy, h = Mixture("uneven", 0.5, [[-3.0, -3.0], [3.0, 3.0]], [0.8, 0.2]), 1e-5
    noisy = Mixture("noisy", math.hypot(0.5, 0.8), toy.nodes, toy.weights)
    x = 3 * Rng(4, F64).normal((20, 2))
    slopes = [(noisy.log_density(x + h * e) - noisy.log_density(x - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(score_of(toy)(x, 0.8), np.stack(slopes, axis=1), atol=1e-7)


@given(low=st.floats(0.01, 1.0), factor=st.floats(1.1, 100.0), n=st.integers(1, 30))
def test_a_ladder_falls_by_equal_factors_from_the_first_noise_to_the_last(low, factor, n):
    found = ladder(low * factor, low, n)
    assert len(found) == n and found[-1] == low
    assert all(type(sigma) is float for sigma in found)
    if n > 1:
        np.testing.assert_allclose(found[0], low * factor)
        np.testing.assert_allclose(np.diff(np.log(found)), -np.log(factor) / (n - 1), atol=1e-12)


@given(size=st.integers(1, 30), n=st.integers(1, 30), seed=st.integers(0, 1000))
def test_a_stretch_of_the_buffer_holds_no_place_twice(size, n, seed):
    buffer = ReplayBuffer(size, 2, Rng(0, F64))
    places = buffer.stretch(n, Rng(seed))
    assert places.shape == (n,) and ((places >= 0) & (places < size)).all()
    assert len(np.unique(places)) == min(n, size)


def test_every_chain_of_the_buffer_is_continued_as_often():
    buffer, counts = ReplayBuffer(7, 2, Rng(0, F64)), np.zeros(7)
    for seed in range(2000):
        counts[buffer.stretch(3, Rng((1, seed)))] += 1
    near(counts / 2000, 3 / 7, math.sqrt(3 / 7 * 4 / 7 / 2000))
    assert buffer.state()["states"] is buffer.states
    assert ReplayBuffer(50_000, 1, Rng(3, F64)).states.var() == pytest.approx(1, abs=0.03)
