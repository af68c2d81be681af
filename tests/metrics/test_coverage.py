"""Mode coverage of points whose answer is plain, and of the very data, which sets what a model can reach."""

import math

import numpy as np
import pytest
import simcupy
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, to_host
from scratchgen.data import TOYS
from scratchgen.metrics.coverage import coverage, expected_quality

SEEDS = st.integers(0, 2**32 - 1)
MIXTURES = ["ring", "grid", "two_modes"]
N = 2500


def test_made_up_points():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    x = np.array(
        [
            [0.0, 0.0],
            [2.0, 2.0],  # 2.83 from the first: good, by the distance and not by each coordinate
            [2.5, 2.5],  # 3.54: not good, though each coordinate is within 3
            [13.0, 0.0],  # 3 from the second, just within
            [13.01, 0.0],
            [0.0, 7.5],  # 2.5 from the third
            [10.0, 5.0],  # between two, at neither
            [np.nan, 0.0],
        ]
    )
    assert coverage(x, centres, 1.0) == {
        "modes": 3,
        "high_quality": 4 / 8,
        "reverse_kl": pytest.approx(0.5 * math.log(2) + 0.5 * math.log(1)),  # h = ½, ¼, ¼, 0 against ¼ each
    }
    assert coverage(x, centres, 2.0)["high_quality"] == 7 / 8  # 5 is less than 3 · 2
    assert coverage(x, centres, 0.5)["modes"] == 1


@given(seed=SEEDS, n_modes=st.integers(1, 6), n_dim=st.integers(1, 4))
def test_any_histogram_of_points_at_the_modes(seed, n_modes, n_dim):
    rng = Rng(seed, "float64")
    centres = 100 * np.arange(n_modes)[:, None] + np.zeros(n_dim)
    counts, n_bad = rng.integers(5, n_modes), int(rng.integers(5, ()))
    counts[int(rng.integers(n_modes, ()))] += 1
    at_modes = np.repeat(centres, counts, axis=0)
    direction = rng.normal(at_modes.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    x = np.concatenate([at_modes + 0.3 * 2.99 * direction, np.full((n_bad, n_dim), -50.0)])
    scores = coverage(x[rng.permutation(len(x))], centres, 0.3)
    h = counts / counts.sum()
    assert scores == {
        "modes": (counts > 0).sum(),
        "high_quality": pytest.approx(counts.sum() / len(x)),
        "reverse_kl": pytest.approx(sum(p * math.log(p * n_modes) for p in h if p > 0), abs=1e-12),
    }
    assert 0 <= scores["reverse_kl"] <= math.log(n_modes) + 1e-12
    assert coverage(at_modes + 0.3 * 3.01 * direction, centres, 0.3)["high_quality"] == 0


@pytest.mark.parametrize("name", MIXTURES)
def test_real_data_scores_what_is_expected(name):
    toy = TOYS[name]
    n_modes, n = len(toy.centres), 10 * N
    scores = coverage(toy.sample(n, Rng(0, "float64")), toy.centres, toy.sigma)
    expected = expected_quality(toy.n_dim)
    assert scores["modes"] == n_modes
    assert scores["high_quality"] == pytest.approx(expected, abs=4.5 * math.sqrt(expected * (1 - expected) / n))
    # 2 N KL is chi-square with K - 1 degrees of freedom: (K - 1) / 2N on average.
    assert 0 < scores["reverse_kl"] < (n_modes - 1 + 6 * math.sqrt(2 * (n_modes - 1))) / (2 * n)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_collapsed_model(name):
    toy = TOYS[name]
    one = toy.centres[:1] + toy.sigma * Rng(0, "float64").normal((N, toy.n_dim))
    scores = coverage(one, toy.centres, toy.sigma)
    assert scores["modes"] == 1
    assert scores["high_quality"] > 0.98
    assert scores["reverse_kl"] == pytest.approx(math.log(len(toy.centres)))


def test_half_of_the_modes_evenly():
    toy = TOYS["ring"]
    scores = coverage(np.repeat(toy.centres[::2], 5, axis=0), toy.centres, toy.sigma)
    assert scores == {"modes": 4, "high_quality": 1.0, "reverse_kl": pytest.approx(math.log(2))}


def test_a_model_that_makes_only_rubbish_scores_the_worst_and_no_nan():
    toy = TOYS["grid"]
    for x in (np.ones((N, 2)), np.full((N, 2), np.nan), np.full((N, 2), np.inf)):
        assert coverage(x, toy.centres, toy.sigma) == {"modes": 0, "high_quality": 0.0, "reverse_kl": math.log(25)}


def test_one_mode_and_all_at_it():
    assert coverage(np.zeros((3, 2)), np.zeros((1, 2)), 1.0) == {"modes": 1, "high_quality": 1.0, "reverse_kl": 0.0}


def test_plain_numbers_from_any_device():
    toy = TOYS["ring"]
    x = toy.sample(50, Rng(0, "float32", simcupy))
    assert type(x) is not np.ndarray  # else this test is blind
    scores = coverage(x, toy.centres, toy.sigma)
    assert scores == coverage(to_host(x), toy.centres, toy.sigma)
    assert [type(value) for value in scores.values()] == [int, float, float]


@pytest.mark.parametrize("shape", [(4,), (4, 3), (0, 2), (4, 2, 1)])
def test_other_shapes_are_named(shape):
    with pytest.raises(ValueError, match=rf"x has shape \({shape[0]},.*centres \(8, 2\)"):
        coverage(np.zeros(shape), TOYS["ring"].centres, 0.01)


def test_expected_quality_is_the_chi_square_law():
    assert expected_quality(1) == pytest.approx(math.erf(3 / math.sqrt(2)), rel=1e-13)
    assert expected_quality(2) == pytest.approx(1 - math.exp(-4.5), rel=1e-13)
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    for n_dim in (1, 2, 3, 4, 7, 10, 30, 100):
        assert expected_quality(n_dim) == pytest.approx(stats.chi2.cdf(9, n_dim), rel=1e-10)
