"""Every divergence against closed forms, against what theory allows it to be, and against SciPy where SciPy has it."""

import itertools
import math
import re
import sys

import numpy as np
import pytest
import simcupy
from hypothesis import assume, given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError, to_host
from scratchgen.data import TOYS
from scratchgen.metrics.divergences import (
    gan_value,
    grid,
    js,
    kl,
    optimal_discriminator,
    reverse_kl,
    sliced_wasserstein,
    total_variation,
    wasserstein_assignment,
    wasserstein_grid,
    wasserstein_samples,
)
from scratchgen.nn.losses import kl_gaussians, loss_D

F64 = "float64"
LOG_2 = math.log(2)
SEEDS = st.integers(0, 2**32 - 1)
DIMS = st.integers(1, 2)
SIZES = st.integers(1, 12)
ON_A_GRID = [kl, reverse_kl, js, total_variation, wasserstein_grid]


def gaussian(x, mu, sigma):
    """log N(x; μ, diag σ²), written out again."""
    mu, sigma = np.broadcast_to(mu, x.shape[1:]), np.broadcast_to(sigma, x.shape[1:])
    return (-0.5 * ((x - mu) / sigma) ** 2 - np.log(sigma * math.sqrt(2 * math.pi))).sum(axis=1)


def histograms(seed, empty, n=12):
    """log p and log q of two random histograms over n cells of width 0.5. empty: some cells of each hold nothing."""
    rng = Rng(seed, F64)
    logs = []
    for _ in range(2):
        mass = rng.uniform(n) ** 4 * (rng.uniform(n) < 0.6 if empty else 1)
        mass[rng.integers(n, ())] += 0.1  # never nothing at all
        with np.errstate(divide="ignore"):
            logs.append(np.log(mass / mass.sum() / 0.5))
    return *logs, 0.5


# The grid.


@pytest.mark.parametrize("n_dim", [1, 2, 3])
def test_grid_is_the_middles_of_cells_that_fill_the_cube(n_dim):
    points, cell = grid(-1, 2, 6, n_dim)
    assert points.shape == (6**n_dim, n_dim)
    assert cell * len(points) == pytest.approx(3**n_dim)
    middles = [-0.75, -0.25, 0.25, 0.75, 1.25, 1.75]
    np.testing.assert_allclose(points, list(itertools.product(middles, repeat=n_dim)))  # the last runs fastest


@pytest.mark.parametrize("divergence", ON_A_GRID)
@pytest.mark.parametrize(
    ("low", "high", "n"), [(-1, 5, 300), (-6, 6, 6)], ids=["a piece is cut off", "cells too coarse"]
)
def test_a_grid_that_does_not_hold_the_mass_is_refused(divergence, low, high, n):
    points, cell = grid(low, high, n)
    whole, lost = np.full(n, -math.log(high - low)), gaussian(points, 0.3, 0.5)
    with pytest.raises(ValueError, match=rf"{divergence.__name__}: exp\(log_q\) has mass .*wider or finer"):
        divergence(whole, lost, cell)
    with pytest.raises(ValueError, match=rf"{divergence.__name__}: exp\(log_p\) has mass"):
        divergence(lost, whole, cell)


def test_nan_and_overflow_are_refused():
    log_p = np.full(4, -math.log(4))
    for bad in (np.nan, np.inf, 1e4):
        with pytest.raises(ValueError, match=r"mass (nan|inf)"):
            kl(log_p, np.array([bad, 0, 0, 0]), 1.0)


@given(seed=SEEDS, empty=st.booleans(), off=st.floats(-9e-4, 9e-4))
def test_mass_that_is_a_little_off_changes_nothing(seed, empty, off):
    log_p, log_q, cell = histograms(seed, empty)
    for divergence in ON_A_GRID:
        shifted = divergence(log_p + math.log1p(off), log_q - math.log1p(off), cell)
        assert shifted == pytest.approx(divergence(log_p, log_q, cell), abs=1e-12)


@pytest.mark.parametrize("divergence", [*ON_A_GRID, lambda p, q, cell: optimal_discriminator(p, q)])
def test_unequal_shapes_are_named(divergence):
    with pytest.raises(ValueError, match=r"\(4,\).*\(5,\)"):
        divergence(np.zeros(4), np.zeros(5), 0.25)


def test_a_column_is_not_taken_for_a_row():
    log_p = np.full(4, -math.log(4))
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        optimal_discriminator(log_p[:, None], log_p)
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):  # as a network gives them: a silent (4, 4) otherwise
        gan_value(np.zeros((4, 1)), log_p, log_p, 1.0)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(N,\)"):
        js(log_p.reshape(2, 2), log_p.reshape(2, 2), 1.0)


# KL, JS and total variation.


@given(seed=SEEDS, n_dim=DIMS)
def test_kl_of_gaussians_is_the_closed_form(seed, n_dim):
    rng = Rng(seed, F64)
    mu, sigma = rng.normal((2, 1, n_dim)), 0.5 + rng.uniform((2, 1, n_dim))
    points, cell = grid(-14, 14, 100, n_dim)
    log_p, log_q = (gaussian(points, mu[i, 0], sigma[i, 0]) for i in range(2))
    log_var = 2 * np.log(sigma)
    forward = kl_gaussians(mu[0], log_var[0], mu[1], log_var[1])[0]
    backward = kl_gaussians(mu[1], log_var[1], mu[0], log_var[0])[0]
    assert kl(log_p, log_q, cell) == pytest.approx(forward, rel=1e-9, abs=1e-11)
    assert reverse_kl(log_p, log_q, cell) == pytest.approx(backward, rel=1e-9, abs=1e-11)


@given(seed=SEEDS, empty=st.booleans())
def test_the_definitions_on_histograms(seed, empty):
    log_p, log_q, cell = histograms(seed, empty)
    P, Q = (np.exp(log) * cell for log in (log_p, log_q))

    def naive_kl(P, Q):
        if any(a > 0 and b == 0 for a, b in zip(P, Q)):
            return math.inf
        return sum(a * math.log(a / b) for a, b in zip(P, Q) if a > 0)

    M = (P + Q) / 2
    assert kl(log_p, log_q, cell) == pytest.approx(naive_kl(P, Q), abs=1e-12)
    assert reverse_kl(log_p, log_q, cell) == pytest.approx(naive_kl(Q, P), abs=1e-12)
    assert js(log_p, log_q, cell) == pytest.approx((naive_kl(P, M) + naive_kl(Q, M)) / 2, abs=1e-12)
    assert total_variation(log_p, log_q, cell) == pytest.approx(np.maximum(P - Q, 0).sum(), abs=1e-12)


@given(seed=SEEDS, empty=st.booleans())
def test_ranges_and_inequalities(seed, empty):
    log_p, log_q, cell = histograms(seed, empty)
    forward, backward = kl(log_p, log_q, cell), reverse_kl(log_p, log_q, cell)
    jsd, tv = js(log_p, log_q, cell), total_variation(log_p, log_q, cell)
    tiny = 1e-12
    assert 0 < tv <= 1 + tiny
    assert 2 * tv**2 <= min(forward, backward) + tiny  # Pinsker
    assert tv**2 / 2 - tiny <= jsd <= tv * LOG_2 + tiny  # Pinsker towards m, and Lin 1991, theorem 3
    assert jsd <= (forward + backward) / 4 + tiny
    assert js(log_q, log_p, cell) == pytest.approx(jsd, abs=tiny)
    assert total_variation(log_q, log_p, cell) == pytest.approx(tv, abs=tiny)
    for divergence in ON_A_GRID:
        assert 0 <= divergence(log_p, log_p, cell) <= 1e-14


def test_kl_minds_what_q_misses_and_reverse_kl_what_it_invents():
    inner, outer = np.array([0.0, 0.0, -np.inf, -np.inf]) - LOG_2, np.full(4, -math.log(4))
    assert kl(inner, outer, 1.0) == pytest.approx(LOG_2)
    assert kl(outer, inner, 1.0) == math.inf
    assert reverse_kl(inner, outer, 1.0) == math.inf
    assert reverse_kl(outer, inner, 1.0) == pytest.approx(LOG_2)  # missing half of p costs log 2, not ∞
    assert js(inner, outer, 1.0) < LOG_2


def test_kl_is_infinite_though_the_mass_without_q_is_too_small_for_a_double():
    log_p, log_q = np.array([0.0, -800.0]), np.array([0.0, -np.inf])
    assert kl(log_p, log_q, 1.0) == math.inf
    assert reverse_kl(log_p, log_q, 1.0) == js(log_p, log_q, 1.0) == 0


@given(seed=SEEDS, distance=st.sampled_from([1e-9, 1e-12, 1e-15]))
def test_rounding_makes_nothing_negative(seed, distance):
    log_p, _, cell = histograms(seed, False, n=200)
    log_q = log_p + distance * Rng(seed, F64).normal(200)
    for divergence in ON_A_GRID:
        assert 0 <= divergence(log_p, log_q, cell) <= 100 * distance


@pytest.mark.parametrize("n_dim", [1, 2])
def test_modes_a_hundred_sigma_apart(n_dim):
    # exp(-100² / 2) is 0 in double precision, so p/(p + q) would be 0/0 between and beyond the modes.
    points, cell = grid(-80, 80, 400, n_dim)
    mu = np.array([50.0, 0.0])[:n_dim]
    log_p, log_q = gaussian(points, -mu, 1), gaussian(points, mu, 1)
    assert np.exp(np.maximum(log_p, log_q)).min() == 0
    assert kl(log_p, log_q, cell) == pytest.approx(100**2 / 2, rel=1e-12)
    assert reverse_kl(log_p, log_q, cell) == pytest.approx(100**2 / 2, rel=1e-12)
    assert js(log_p, log_q, cell) == pytest.approx(LOG_2, abs=1e-12)
    assert total_variation(log_p, log_q, cell) == pytest.approx(1, abs=1e-12)
    D, logits = optimal_discriminator(log_p, log_q)
    np.testing.assert_allclose(logits, -100 * points[:, 0], atol=1e-9)
    assert np.isfinite(D).all()
    assert gan_value(logits, log_p, log_q, cell) == pytest.approx(0, abs=1e-12)


# The discriminator.


@given(seed=SEEDS, empty=st.booleans())
def test_the_best_discriminator_reads_off_the_jsd(seed, empty):
    log_p, log_q, cell = histograms(seed, empty)
    D, logits = optimal_discriminator(log_p, log_q)
    P, Q = np.exp(log_p), np.exp(log_q)
    some = P + Q > 0
    np.testing.assert_allclose(D[some], P[some] / (P + Q)[some], rtol=1e-12)
    assert (D[~some] == 0.5).all()
    best = gan_value(logits, log_p, log_q, cell)
    assert best == pytest.approx(-2 * LOG_2 + 2 * js(log_p, log_q, cell), abs=1e-10)
    assert -2 * LOG_2 <= best <= 1e-12


@given(seed=SEEDS, empty=st.booleans(), size=st.floats(0.01, 5))
def test_any_other_discriminator_has_a_smaller_value(seed, empty, size):
    log_p, log_q, cell = histograms(seed, empty)
    D, logits = optimal_discriminator(log_p, log_q)
    best = gan_value(logits, log_p, log_q, cell)
    change = size * (1 + Rng(seed, F64).uniform(logits.shape))
    finite = np.isfinite(logits)
    for sign in (-1, 1):
        # Where D* is certain, pulled back to a finite logit; elsewhere moved: either must cost something.
        other = np.where(finite, logits, np.sign(logits) * 3) + sign * change
        assert gan_value(other, log_p, log_q, cell) < best
    assert gan_value(np.zeros(len(D)), log_p, log_q, cell) == pytest.approx(-2 * LOG_2, abs=1e-12)


def test_a_discriminator_that_is_certain_and_wrong_is_infinitely_bad():
    log_p, log_q = np.array([0.0, -np.inf]), np.array([-np.inf, 0.0])
    certain = np.array([np.inf, -np.inf])
    assert gan_value(certain, log_p, log_q, 1.0) == 0
    assert gan_value(-certain, log_p, log_q, 1.0) == -math.inf


def test_the_value_is_minus_the_loss_that_trains_a_discriminator():
    p, q = TOYS["two_modes"], TOYS["three_modes"]
    points, cell = grid(-7, 7, 700)

    def logits(x):
        return 1.5 * np.sin(x[:, 0]) - 0.3

    exact = gan_value(logits(points), p.log_density(points), q.log_density(points), cell)
    n = 40_000
    loss = loss_D(logits(p.sample(n, Rng(0, F64))), logits(q.sample(n, Rng(1, F64))))[0]
    assert -loss == pytest.approx(exact, abs=4.5 * 2 / math.sqrt(n))  # |log D| <= 2 for |l| <= 1.8


def test_toys_on_a_plane():
    # The sums over the grid against means over samples: both know log p and log q, and agree on nothing else.
    p, q = TOYS["circle"], TOYS["moons"]
    points, cell = grid(-2, 2, 100, 2)  # a spacing of 0.8 σ
    log_p, log_q = p.log_density(points), q.log_density(points)
    x, y = p.sample(2000, Rng(0, F64)), q.sample(2000, Rng(1, F64))
    with_x = p.log_density(x) - q.log_density(x)
    assert kl(log_p, log_q, cell) == pytest.approx(with_x.mean(), abs=4.5 * with_x.std() / math.sqrt(len(x)))
    at_x, at_y = (optimal_discriminator(p.log_density(a), q.log_density(a))[0] for a in (x, y))
    terms = (np.log(2 * at_x) + np.log(2 * (1 - at_y))) / 2
    assert js(log_p, log_q, cell) == pytest.approx(terms.mean(), abs=4.5 * terms.std() / math.sqrt(len(x)))


# Wasserstein in one dimension.


@given(shift=st.floats(-3, 3), sigma=st.floats(0.5, 1.5))
def test_wasserstein_of_a_shift_is_the_shift(shift, sigma):
    points, cell = grid(-14, 14, 1000)
    w1 = wasserstein_grid(gaussian(points, 0.2, sigma), gaussian(points, 0.2 + shift, sigma), cell)
    assert w1 == pytest.approx(abs(shift), abs=1e-10)


@pytest.mark.parametrize(("a", "b"), [(0.5, 1.5), (2.0, 0.7)])
def test_wasserstein_of_a_stretch(a, b):
    # The optimal map is x b/a, so W₁ = |b - a| E|ε| = |b - a| √(2/π). At 0 the distribution functions cross: a kink.
    points, cell = grid(-16, 16, 4001)
    w1 = wasserstein_grid(gaussian(points, 0, a), gaussian(points, 0, b), cell)
    assert w1 == pytest.approx(abs(b - a) * math.sqrt(2 / math.pi), abs=1e-4)


def test_while_js_sticks_wasserstein_tells_near_from_far():
    points, cell = grid(-30, 30, 3000)
    log_p = gaussian(points, -20, 0.5)
    near, far = gaussian(points, 0, 0.5), gaussian(points, 20, 0.5)
    assert js(log_p, near, cell) == pytest.approx(js(log_p, far, cell), abs=1e-12) == pytest.approx(LOG_2)
    assert wasserstein_grid(log_p, near, cell) == pytest.approx(20, abs=1e-9)
    assert wasserstein_grid(log_p, far, cell) == pytest.approx(40, abs=1e-9)


@given(seed=SEEDS)
def test_grid_and_samples_agree(seed):
    # Whole numbers of points at the cells' middles are the very distribution that the grid holds.
    rng = Rng(seed, F64)
    points, cell = grid(-2, 3, 10)
    counts = rng.integers(5, (2, 10)) + np.array([[1], [0]])
    assume(counts[1].any())
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(counts / counts.sum(axis=1, keepdims=True) / cell)
    x, y = (np.repeat(points, n, axis=0) for n in counts)
    assert wasserstein_samples(x, y) == pytest.approx(wasserstein_grid(log_p, log_q, cell), abs=1e-12)


def test_samples_of_toys_come_near_the_grid():
    p, q = TOYS["two_modes"], TOYS["three_modes"]
    points, cell = grid(-7, 7, 1400)
    exact = wasserstein_grid(p.log_density(points), q.log_density(points), cell)
    w1 = wasserstein_samples(p.sample(20_000, Rng(0, F64)), q.sample(30_000, Rng(1, F64)))
    assert w1 == pytest.approx(exact, abs=0.06)  # ∫ √(F (1 - F)) is about 2, and so the error some 2/√20000


@given(seed=SEEDS, n=SIZES, m=SIZES, ties=st.booleans())
def test_wasserstein_of_samples_is_scipys(seed, n, m, ties):
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    rng = Rng(seed, F64)
    x, y = rng.normal(n), 2 * rng.normal(m) + 0.5
    x, y = (np.round(x), np.round(y)) if ties else (x, y)
    w1 = wasserstein_samples(x, y)
    assert w1 == pytest.approx(stats.wasserstein_distance(x, y), abs=1e-13)
    assert wasserstein_samples(y[:, None], x[:, None]) == pytest.approx(w1, abs=1e-13)
    assert wasserstein_samples(x, np.tile(x, 3)[::-1]) == pytest.approx(0, abs=1e-15)  # the same distribution
    if n == m:
        assert w1 == pytest.approx(np.abs(np.sort(x) - np.sort(y)).mean(), abs=1e-13)


# Wasserstein in more dimensions.


@given(seed=SEEDS, n=st.integers(1, 5), n_dim=st.integers(1, 3))
def test_assignment_is_the_cheapest_of_all_pairings(seed, n, n_dim):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    rng = Rng(seed, F64)
    x, y = rng.normal((n, n_dim)), rng.normal((n, n_dim)) + 0.5
    pairings = [np.linalg.norm(x - y[list(order)], axis=1).mean() for order in itertools.permutations(range(n))]
    assert wasserstein_assignment(x, y) == pytest.approx(min(pairings), rel=1e-12)


@given(seed=SEEDS, n=st.integers(1, 40))
def test_in_one_dimension_all_ways_agree(seed, n):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    rng = Rng(seed, F64)
    x, y = rng.normal((n, 1)), 2 * rng.normal((n, 1)) + 0.5
    w1 = wasserstein_samples(x, y)
    assert wasserstein_assignment(x, y) == pytest.approx(w1, abs=1e-12)
    assert sliced_wasserstein(x, y, Rng(seed + 1, F64), 3) == pytest.approx(w1, abs=1e-12)  # u is 1 or -1


@given(seed=SEEDS, n=st.integers(1, 30), n_dim=st.integers(1, 4))
def test_assignment_of_a_shift_is_its_length_and_slices_are_shorter(seed, n, n_dim):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    rng = Rng(seed, F64)
    x, d = rng.normal((n, n_dim)), rng.normal(n_dim)
    shifted = (x + d)[::-1]  # in another order: samples are sets
    w1 = wasserstein_assignment(x, shifted)
    assert w1 == pytest.approx(np.linalg.norm(d), rel=1e-12)
    assert sliced_wasserstein(x, shifted, Rng(seed + 1, F64), 20) <= w1 * (1 + 1e-12)


@given(seed=SEEDS, n=SIZES, m=SIZES, n_dim=st.integers(1, 4))
def test_slices_are_the_projections_one_by_one(seed, n, m, n_dim):
    rng = Rng(seed, F64)
    x, y = rng.normal((n, n_dim)), rng.normal((m, n_dim)) + 1
    u = Rng(seed + 1, F64).normal((7, n_dim))
    each = [wasserstein_samples(x @ v / np.linalg.norm(v), y @ v / np.linalg.norm(v)) for v in u]
    assert sliced_wasserstein(x, y, Rng(seed + 1, F64), 7) == pytest.approx(np.mean(each), rel=1e-10)


def test_slices_of_a_shift_in_the_plane():
    # E|u·d| = |d| 2/π for u uniform on the circle, and Var|u·d| = |d|² (½ - 4/π²).
    x, d, n = Rng(0, F64).normal((50, 2)), np.array([3.0, -4.0]), 10_000
    w1 = sliced_wasserstein(x, x + d, Rng(1, F64), n)
    assert w1 == pytest.approx(5 * 2 / math.pi, abs=4.5 * 5 * math.sqrt((0.5 - 4 / math.pi**2) / n))


def test_samples_of_other_shapes_are_named():
    rng = Rng(0, F64)
    for measure in (wasserstein_assignment, lambda x, y: sliced_wasserstein(x, y, rng)):
        with pytest.raises(ValueError, match=r"\(4, 2\).*\(4, 3\)"):
            measure(np.zeros((4, 2)), np.zeros((4, 3)))
        with pytest.raises(ValueError, match=r"\(4, 2\).*\(0, 2\)"):
            measure(np.zeros((4, 2)), np.zeros((0, 2)))
        with pytest.raises(ValueError, match=r"\(4,\).*\(4,\)"):
            measure(np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(5, 2\)"):  # only equal sizes can be paired
        wasserstein_assignment(np.zeros((4, 2)), np.zeros((5, 2)))
    for shape in [(4, 2), (0,), ()]:
        with pytest.raises(ValueError, match=re.escape(f"wasserstein_samples: x has shape (3,) and y {shape};")):
            wasserstein_samples(np.zeros(3), np.zeros(shape))


def test_assignment_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(UsageError, match="pip install scipy"):
        wasserstein_assignment(np.zeros((2, 2)), np.zeros((2, 2)))


# Precision and devices.


def test_float32_is_computed_in_float64():
    log_p, log_q, cell = histograms(0, False)
    singles = log_p.astype(np.float32), log_q.astype(np.float32)
    doubles = [a.astype(np.float64) for a in singles]
    for divergence in ON_A_GRID:
        assert divergence(*singles, cell) == divergence(*doubles, cell)
    rng = Rng(0, "float32")
    x, y = rng.normal((50, 2)), rng.normal((50, 2))
    X, Y = x.astype(np.float64), y.astype(np.float64)
    assert wasserstein_samples(x[:, 0], y[:, 0]) == wasserstein_samples(X[:, 0], Y[:, 0])
    assert sliced_wasserstein(x, y, Rng(1)) == sliced_wasserstein(X, Y, Rng(1))


def test_device_arrays_give_the_same_numbers():
    p, q = TOYS["two_modes"], TOYS["three_modes"]
    points, cell = grid(-7, 7, 300)
    host, device = (
        [toy.log_density(rng.array(points)) for toy in (p, q)] for rng in (Rng(0, F64), Rng(0, F64, simcupy))
    )
    assert type(device[0]) is not np.ndarray  # else this test is blind
    for divergence in ON_A_GRID:
        assert divergence(*device, cell) == pytest.approx(divergence(*host, cell), rel=1e-12)
    logits = optimal_discriminator(*device)[1]
    assert gan_value(device[0] - device[1], *device, cell) == gan_value(logits, *device, cell)

    rng = Rng(1, "float32", simcupy)
    x, y = rng.normal((6, 2)), rng.normal((6, 2))
    assert sliced_wasserstein(x, y, rng) > 0
    assert wasserstein_samples(x[:, 0], y[:, 0]) == wasserstein_samples(to_host(x)[:, 0], to_host(y)[:, 0])
    pytest.importorskip("scipy", reason="SciPy is not installed")
    assert wasserstein_assignment(x, y) == wasserstein_assignment(to_host(x), to_host(y))
