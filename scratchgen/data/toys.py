"""Toy densities in one and two dimensions, from which points are drawn and whose log-density is known exactly.

Each one spreads a Gaussian over a set of centres:  p(x) = ∫ N(x; c, σ² I) w(c) dc.  With finitely many centres this is a
mixture. With the centres on a curve c(t), 0 ≤ t < 1, it is the curve drawn with a round brush of width σ. Ring and grid are
those of VEEGAN (arXiv:1705.07761) and PacGAN (arXiv:1712.04086), so mode counts can be compared with these papers.
"""

import math

import numpy as np

from ..backend import UsageError, array_module

CHUNK = 2**20  # numbers in the largest array that log_density makes


class Toy:
    """p(x) = Σ_k weights[k] N(x; nodes[k], σ² I).

    nodes (K, n_dim), weights (K,): float64 on the host. sigma: in the units of x. centres: the nodes of a mixture, or None
    for a curve. n_classes: how many different labels its points have.
    """

    centres = None

    def __init__(self, name, sigma, nodes, weights, n_classes):
        self.name, self.sigma, self.n_classes = name, sigma, n_classes
        self.nodes, self.weights = np.asarray(nodes, np.float64), np.asarray(weights, np.float64)
        self.n_dim = self.nodes.shape[1]

    def sample(self, n, rng):
        """n independent points, (n, n_dim), in rng's real precision and on its device."""
        return self.sample_with_labels(n, rng)[0]

    def sample_with_labels(self, n, rng):
        """The points, and the number of the mixture component or piece of the curve each comes from, (n,) int64."""
        centres, labels = self.draw_centres(n, rng)  # (n, n_dim), (n,)
        return centres + self.sigma * rng.normal((n, self.n_dim)), labels

    def log_density(self, x):
        """log p(x) in nats, (N,) float64, for points x (N, n_dim) on any device.

        It uses log-sum-exp, so it is right even far from every node, and chunks, so its memory does not grow with N K.
        Raises UsageError if x has another shape.
        """
        if x.ndim != 2 or x.shape[1] != self.n_dim:
            raise UsageError(f"{self.name} has points of shape (N, {self.n_dim}), but these have {x.shape}")
        xp = array_module(x)
        x = x.astype(np.float64)
        nodes, weights = xp.asarray(self.nodes), xp.asarray(self.weights)
        constant = xp.log(weights) - self.n_dim * math.log(math.sqrt(2 * math.pi) * self.sigma)  # (K,)
        rows = max(1, CHUNK // len(self.weights))
        chunks = [x[start : start + rows] for start in range(0, max(1, len(x)), rows)]
        return xp.concatenate([self.log_sum(chunk, nodes, constant) for chunk in chunks])

    def log_sum(self, x, nodes, constant):
        """log Σ_k exp(constant[k] − |x − nodes[k]|² / 2σ²), (N,)."""
        # Differences first: |x|² − 2 x·c + |c|² would lose the digits that σ ≪ |x| needs.
        squares = sum((x[:, i, None] - nodes[:, i]) ** 2 for i in range(self.n_dim))  # (N, K)
        terms = constant - squares / (2 * self.sigma**2)  # (N, K)
        largest = terms.max(axis=1, keepdims=True)  # (N, 1)
        return largest[:, 0] + array_module(x).log(array_module(x).exp(terms - largest).sum(axis=1))


class Mixture(Toy):
    """Gaussians at centres (K, n_dim) with one σ, chosen with probabilities `weights` (equal if not given)."""

    def __init__(self, name, sigma, centres, weights=None):
        n_centres = len(centres)
        weights = np.full(n_centres, 1 / n_centres) if weights is None else weights
        super().__init__(name, sigma, centres, weights, n_centres)
        self.centres = self.nodes

    def draw_centres(self, n, rng):
        edges = rng.array(np.cumsum(self.weights)[:-1]).real  # (K - 1,)
        labels = (rng.uniform((n, 1)) >= edges).sum(axis=1)  # (n,): how many edges lie at or below u
        return rng.array(self.centres).real[labels], labels


class Curve(Toy):
    """p(x) = ∫₀¹ N(x; c(t), σ² I) dt: t is uniform, so the density is lower where c(t) moves faster.

    curve: turns t (n,) into c(t) (n, 2). speed: the maximum of |c′(t)|. pieces: how many equal intervals of t there are on
    each of which c is smooth; a point's label is the number of its interval.

    The integral is a sum over panels of length σ or less along the curve, with 16 Gauss–Legendre nodes in each. Then log p
    is right to 1e-11 within 30σ of the curve, and to the rounding error within 10σ. (On a closed curve, equally spaced nodes
    would be as good: their error decreases faster than any power of the spacing. At an open end it decreases only with the
    square of the spacing, and 1e-10 would need a million nodes.)
    """

    def __init__(self, name, sigma, curve, speed, pieces=1):
        self.curve = curve
        n_panels = pieces * math.ceil(speed / (sigma * pieces))
        s, w = np.polynomial.legendre.leggauss(16)  # nodes and weights on [-1, 1]
        t = (np.arange(n_panels)[:, None] + (1 + s) / 2) / n_panels  # (n_panels, 16)
        super().__init__(name, sigma, curve(t.ravel()), np.tile(w / (2 * n_panels), n_panels), pieces)

    def draw_centres(self, n, rng):
        t = rng.uniform(n)  # (n,)
        return self.curve(t), (self.n_classes * t).astype(np.int64)


def circle(t):
    """The unit circle, t = angle / 2π."""
    xp = array_module(t)
    return xp.stack([xp.cos(2 * math.pi * t), xp.sin(2 * math.pi * t)], axis=1)  # (n, 2)


def moons(t):
    """Two interleaved half circles of radius 1. t < ½ is the upper one, and the other is its reflection in the origin.
    Uniform in angle, as scikit-learn's make_moons, but centred at the origin."""
    xp = array_module(t)
    second = (t >= 0.5).astype(t.dtype)
    angle, sign = math.pi * (2 * t - second), 1 - 2 * second
    return xp.stack([sign * (xp.cos(angle) - 0.5), sign * (xp.sin(angle) - 0.25)], axis=1)  # (n, 2)


def swiss_roll(t):
    """A spiral of one and a half turns, from radius ½ to 3/2. Uniform in angle, so the density is higher inside."""
    xp = array_module(t)
    angle, radius = 1.5 * math.pi * (1 + 2 * t), 0.5 + t
    return xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)  # (n, 2)


def ring_of(n):
    angles = 2 * math.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (n, 2)


GRID = [(a, b) for a in (-4, -2, 0, 2, 4) for b in (-4, -2, 0, 2, 4)]

TOYS = {
    toy.name: toy
    for toy in (
        Mixture("ring", 0.01, ring_of(8)),
        Mixture("wide_ring", 0.1, ring_of(8)),  # so wide that an energy can learn it, and still with gaps
        Mixture("grid", 0.05, GRID),
        Curve("moons", 0.05, moons, speed=2 * math.pi, pieces=2),
        Curve("swiss_roll", 0.05, swiss_roll, speed=math.hypot(1, 4.5 * math.pi)),
        Curve("circle", 0.05, circle, speed=2 * math.pi),
        Mixture("two_modes", 0.5, [[-2], [2]]),
        Mixture("three_modes", 0.5, [[-3], [0], [3]], [0.5, 0.3, 0.2]),
    )
}
