"""One idea under five names: each kind of prediction follows from any other, and the score is the slope of log p."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng
from scratchgen.models.parts.diffusion import mixture_mean
from scratchgen.models.parts.predictions import KINDS, combined, converted, pair

F64 = "float64"
ROUNDING = {"float32": 1e-4, "float64": 1e-11, "complex128": 1e-11}


def drawn(seed, dtype=F64):
    """(x_0, ε, (a, b, a′, b′)): as for a way from noise to data, the signal grows and the noise shrinks."""
    rng = Rng((seed, 1), "float32" if dtype == "float32" else F64)
    x_0, eps = rng.normal((4, 3)), rng.normal((4, 3))
    if dtype == "complex128":
        x_0, eps = x_0 + 1j * rng.normal((4, 3)), eps - 1j * rng.normal((4, 3))
    a, b, da, minus_db = (float(number) for number in 0.2 + rng.uniform(4))
    return x_0, eps, (a, b, da, -minus_db)


@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), dtype=st.sampled_from(sorted(ROUNDING)))
def test_every_kind_goes_into_every_kind_and_back(kind, into, seed, dtype):
    x_0, eps, way = drawn(seed, dtype)
    x_t = way[0] * x_0 + way[1] * eps
    f = combined(kind, x_0, eps, *way)
    there = converted(kind, f, into, x_t, *way)
    back = converted(into, there, kind, x_t, *way)
    assert there.dtype == back.dtype == dtype
    tolerance = {"rtol": ROUNDING[dtype], "atol": 10 * ROUNDING[dtype]}
    np.testing.assert_allclose(there, combined(into, x_0, eps, *way), **tolerance)
    np.testing.assert_allclose(back, f, **tolerance)
    for found, wanted in zip(pair(kind, f, x_t, *way), (x_0, eps)):
        np.testing.assert_allclose(found, wanted, **tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_may_have_a_time_of_its_own(kind):
    x_0, eps, _ = drawn(1)
    ways = np.array([drawn(seed)[2] for seed in range(4)])
    a, b, da, db = ways.T[:, :, None]  # four columns (4, 1)
    together = combined(kind, x_0, eps, a, b, da, db)
    found = pair(kind, together, a * x_0 + b * eps, a, b, da, db)
    np.testing.assert_allclose(found, (x_0, eps), atol=1e-12)
    for i, way in enumerate(ways):
        np.testing.assert_allclose(together[i], combined(kind, x_0[i], eps[i], *way), atol=1e-14)


@given(seed=st.integers(0, 10_000))
def test_each_kind_by_its_definition(seed):
    x_0, eps, _ = drawn(seed)
    t, h = 0.1 + 1.3 * float(Rng((seed, 2), F64).uniform(())), 1e-20

    def x(t):  # √ᾱ = sin t, √(1 - ᾱ) = cos t
        return np.sin(t) * x_0 + np.cos(t) * eps

    a, b, da, db = np.sin(t), np.cos(t), np.cos(t), -np.sin(t)
    assert combined("x0", x_0, eps, a, b) is x_0 and combined("eps", x_0, eps, a, b) is eps
    v = combined("v", x_0, eps, a, b)
    np.testing.assert_allclose(v, a * eps - b * x_0, atol=1e-14)
    np.testing.assert_allclose(x_0, a * x(t) - b * v, atol=1e-12)  # Salimans & Ho, appendix D
    np.testing.assert_allclose(combined("score", x_0, eps, a, b), -(x(t) - a * x_0) / b**2, rtol=1e-9, atol=1e-9)
    slope = x(t + 1j * h).imag / h
    np.testing.assert_allclose(combined("velocity", x_0, eps, a, b, da, db), slope, atol=1e-13)


def test_on_the_straight_way_the_velocity_is_data_minus_noise():
    x_0, eps, _ = drawn(1)
    for t in (0.0, 0.3, 1.0):
        assert (combined("velocity", x_0, eps, t, 1 - t, 1.0, -1.0) == x_0 - eps).all()


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'epsilon' is unknown, use one of x0, eps, v, score, velocity"):
        combined("epsilon", 0, 0, 1, 1)


# ---- the score ----


@given(seed=st.integers(0, 10_000))
def test_the_score_of_a_mixture_is_the_slope_of_its_log_density(seed):
    rng = Rng((seed, 1), F64)
    c, w, sigma, (_, _, (a, b, *_)) = rng.normal((3, 2)), np.array([0.2, 0.5, 0.3]), 0.4, drawn(seed)

    def log_p(x):  # of x_t = a x_0 + b ε, but for a constant; x may be complex
        squares = ((x[:, None] - a * c) ** 2).sum(axis=2)
        return np.log((w * np.exp(-squares / (2 * (a**2 * sigma**2 + b**2)))).sum(axis=1))

    x, h = 1.5 * rng.normal((5, 2)), 1e-20
    slope = np.stack([log_p(x + 1j * h * unit).imag / h for unit in np.eye(2)], axis=1)
    found = converted("x0", mixture_mean(c, w, sigma)(x, a, b), "score", x, a, b)
    np.testing.assert_allclose(found, slope, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_predicting_the_noise_is_denoising_score_matching(seed):
    """For x_0 ~ N(m, C) the best f is linear, so least squares finds it from draws: -b times the score, known exactly."""
    rng, n = Rng((seed, 1), F64), 200_000
    m, root, (a, b) = rng.normal(2), rng.normal((2, 2)), (0.8, 0.5)
    x_0, eps = m + rng.normal((n, 2)) @ root, rng.normal((n, 2))
    x_t = a * x_0 + b * eps
    f, *_ = np.linalg.lstsq(np.hstack([x_t, np.ones((n, 1))]), eps)  # the minimum of Σ ‖ε - x_t W - w‖²
    precision = np.linalg.inv(a**2 * root.T @ root + b**2 * np.eye(2))
    score = -precision, a * m @ precision  # of x_t: x ↦ x @ score[0] + score[1]
    error = 5 * np.sqrt(np.diag(precision).max() / n)  # of a coefficient: the noise of ε is at most 1
    np.testing.assert_allclose(f[:2], -b * score[0], atol=error)
    np.testing.assert_allclose(f[2], -b * score[1], atol=error * (1 + np.linalg.norm(a * m)))
