"""The toys are measuring sticks: their densities must be exact, and their samples must come from those densities."""

import math

import numpy as np
import pytest

from scratchgen.backend import Rng, UsageError
from scratchgen.data import TOYS, toys

MIXTURES = ["ring", "wide_ring", "grid", "two_modes", "three_modes"]
CURVES = ["moons", "swiss_roll", "circle"]


def grid_of(lows, highs, step):
    """The points of a regular grid (N, D) and the volume of its cells."""
    axes = [np.arange(low, high, step) for low, high in zip(lows, highs, strict=True)]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1), step ** len(axes)


@pytest.fixture(scope="module", params=TOYS)
def integrated(request):
    """(toy, points, log p, mass) of a quadrature rule: equally spaced sums of Gaussians are all but exact.

    A step of 0.8 σ leaves a relative error of exp(-2π²/0.64), 4e-14. Mixtures are so narrow that each component gets a
    grid of its own; the components must not overlap for that, which is the case.
    """
    toy = TOYS[request.param]
    if toy.name in ("ring", "grid"):
        reach = 8 * toy.sigma
        grids = [grid_of(c - reach, c + reach, 0.8 * toy.sigma) for c in toy.centres]
        points, cell = np.concatenate([points for points, _ in grids]), grids[0][1]
    else:
        lows, highs = toy.nodes.min(axis=0) - 8 * toy.sigma, toy.nodes.max(axis=0) + 8 * toy.sigma
        points, cell = grid_of(lows, highs, 0.8 * toy.sigma)
    log_p = toy.log_density(points)
    return toy, points, log_p, np.exp(log_p) * cell


def test_density_integrates_to_one(integrated):
    mass = integrated[3]
    assert mass.sum() == pytest.approx(1, abs=1e-10)


def test_samples_have_the_moments_of_the_density(integrated):
    toy, points, _, mass = integrated
    n = 40_000
    x = toy.sample(n, Rng(1, "float64"))
    powers = [lambda x, i=i: x[:, i] for i in range(toy.n_dim)]
    powers += [lambda x, i=i, j=j: x[:, i] * x[:, j] for i in range(toy.n_dim) for j in range(i + 1)]
    powers += [lambda x, i=i: x[:, i] ** 3 for i in range(toy.n_dim)]
    for power in powers:
        exact = (mass * power(points)).sum()
        spread = math.sqrt((mass * power(points) ** 2).sum() - exact**2)
        assert power(x).mean() == pytest.approx(exact, abs=4.5 * spread / math.sqrt(n))


def test_samples_have_the_entropy_of_the_density(integrated):
    # Moments do not see a wrong σ of 0.01 beside a radius of 1; the mean of −log p does.
    toy, _, log_p, mass = integrated
    n = 40_000
    entropy = -(mass * log_p).sum()
    spread = math.sqrt((mass * (log_p + entropy) ** 2).sum())
    estimate = -toy.log_density(toy.sample(n, Rng(2, "float64"))).mean()
    assert estimate == pytest.approx(entropy, abs=4.5 * spread / math.sqrt(n))


@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_density_is_the_textbook_sum(name):
    toy = TOYS[name]
    for x in toy.sample(20, Rng(0, "float64")):
        p = 0.0
        for centre, weight in zip(toy.centres, toy.weights, strict=True):
            square = ((x - centre) ** 2).sum() / toy.sigma**2
            p += weight * math.exp(-square / 2) / (2 * math.pi * toy.sigma**2) ** (toy.n_dim / 2)
        assert toy.log_density(x[None])[0] == pytest.approx(math.log(p), abs=1e-12)


CURVE_FORMULAS = {  # written out again, piece by piece
    "circle": [lambda t: (np.cos(2 * np.pi * t), np.sin(2 * np.pi * t))],
    "moons": [
        lambda t: (np.cos(np.pi * t) - 0.5, np.sin(np.pi * t) - 0.25),
        lambda t: (1 - np.cos(np.pi * t) - 0.5, 0.5 - np.sin(np.pi * t) - 0.25),
    ],
    "swiss_roll": [
        lambda t: ((0.5 + t) * np.cos(1.5 * np.pi * (1 + 2 * t)), (0.5 + t) * np.sin(1.5 * np.pi * (1 + 2 * t)))
    ],
}


@pytest.mark.parametrize("name", CURVES)
def test_curve_density_is_the_integral(name):
    toy = TOYS[name]
    t = (np.arange(400_000) + 0.5) / 400_000
    ends = np.concatenate([toy.curve(np.array([0.0, 0.4999999, 0.9999999])), toy.curve(np.array([0.2])) + 0.3])
    for x in ends:
        p = 0.0
        for formula in CURVE_FORMULAS[name]:
            squares = sum((a - b) ** 2 for a, b in zip(x, formula(t), strict=True)) / toy.sigma**2
            p += np.exp(-squares / 2).mean() / (2 * math.pi * toy.sigma**2) / len(CURVE_FORMULAS[name])
        assert toy.log_density(x[None])[0] == pytest.approx(math.log(p), abs=1e-8)  # the midpoint rule's own error


@pytest.mark.parametrize("name", CURVES)
def test_curve_never_moves_faster_than_its_panels_assume(name):
    toy = TOYS[name]
    panels = toy.nodes.reshape(-1, 16, 2)
    lengths = np.hypot(*np.diff(panels, axis=1).transpose(2, 0, 1)).sum(axis=1)  # first node to last
    assert lengths.max() <= toy.sigma


def test_far_points_have_finite_log_density():
    for toy in TOYS.values():
        far = np.full((1, toy.n_dim), 1e3)
        nearest = ((far - toy.nodes) ** 2).sum(axis=1).min()
        assert toy.log_density(far)[0] == pytest.approx(-nearest / (2 * toy.sigma**2), rel=1e-5)


def test_chunks_change_nothing(monkeypatch):
    toy = TOYS["moons"]
    x = toy.sample(50, Rng(0))
    whole = toy.log_density(x)
    monkeypatch.setattr(toys, "CHUNK", 7 * len(toy.weights))
    np.testing.assert_array_equal(toy.log_density(x), whole)
    assert toy.log_density(x[:0]).shape == (0,)


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize(("dtype", "real"), [("float32", "float32"), ("float64", "float64"), ("complex128", "float64")])
def test_precision(name, dtype, real):
    toy = TOYS[name]
    x, labels = toy.sample_with_labels(5, Rng(0, dtype))
    assert x.shape == (5, toy.n_dim)
    assert x.dtype == real
    assert labels.dtype == np.int64
    assert toy.log_density(x).dtype == np.float64


@pytest.mark.parametrize("name", [*MIXTURES, "moons"])
def test_labels_say_where_a_point_comes_from(name):
    toy = TOYS[name]
    n = 40_000
    x, labels = toy.sample_with_labels(n, Rng(3, "float64"))
    weights = np.full(2, 0.5) if name == "moons" else toy.weights
    counts = np.bincount(labels, minlength=toy.n_classes)
    assert (abs(counts / n - weights) < 4.5 * np.sqrt(weights * (1 - weights) / n)).all()
    for k in range(toy.n_classes):
        mine = x[labels == k]
        if name == "moons":  # each moon is the other's mirror image through the origin
            upright = mine if k == 0 else -mine
            radii = np.hypot(upright[:, 0] + 0.5, upright[:, 1] + 0.25)
            assert abs(radii - 1).max() < 6 * toy.sigma
        else:
            assert np.abs(mine - toy.centres[k]).max() < 6 * toy.sigma


def test_ring_and_grid_are_the_published_ones():
    ring, grid = TOYS["ring"], TOYS["grid"]
    np.testing.assert_allclose(np.hypot(*ring.centres.T), 1)
    gaps = np.hypot(*(ring.centres - np.roll(ring.centres, 1, axis=0)).T)
    np.testing.assert_allclose(gaps, 2 * math.sin(math.pi / 8))
    assert (len(ring.centres), ring.sigma) == (8, 0.01)
    assert (len(grid.centres), grid.sigma) == (25, 0.05)
    assert {tuple(c) for c in grid.centres} == {(a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2)}


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 2)])
def test_points_of_another_shape_are_refused(shape):
    with pytest.raises(UsageError, match=r"ring has points of shape \(N, 2\)"):
        TOYS["ring"].log_density(np.zeros(shape))
