"""Distances between two distributions: exact ones if their densities are known on a grid, and estimates from samples.

p is the data and q the model. Each measure reacts to something else. KL(p‖q) is large if q misses parts of p, and KL(q‖p) if
q has parts that p does not have. Jensen–Shannon, which a GAN's best discriminator computes, is log 2 whenever p and q do not
overlap, even if they are near. Wasserstein-1 also tells near from far: it is the least mean distance by which p must be
moved to become q.

    points, cell = grid(-6, 6, 500)
    js(TOYS["two_modes"].log_density(points), TOYS["three_modes"].log_density(points), cell)

Densities are given as logs, log_p and log_q (N,), -∞ included, at the points of a regular grid with cells of volume `cell`.
A sum over cells replaces the integral, with P = p · cell. ΣP and ΣQ must be 1 within 1e-3; otherwise ValueError is raised. P
and Q are then divided by their sums, so that they are distributions and no measure leaves its range. Everything takes NumPy
or CuPy arrays and is computed in float64 on the host. Values are in nats; Wasserstein distances are in the units of x.
"""

import math

import numpy as np

from ..backend import UsageError, to_host
from ..nn.layer import same_shape

TOLERANCE = 1e-3  # the mass that a grid may lose


def grid(low, high, n, n_dim=1):
    """The centres (n**n_dim, n_dim) of the n**n_dim equal cells of the cube [low, high]**n_dim, and a cell's volume.

    The last coordinate changes fastest: f.reshape(n, n)[i, j] belongs to (x_i, y_j). The sum of a smooth function that is 0
    at the edges converges faster than any power of the spacing. A Gaussian's mass is right to 8e-14 at a spacing of 0.8 σ; a
    JSD needs about a quarter of that spacing. |p - q| and |F - G| have kinks: their error decreases with the spacing
    squared.
    """
    width = (high - low) / n
    axis = low + width * (np.arange(n) + 0.5)
    axes = np.meshgrid(*[axis] * n_dim, indexing="ij")
    return np.stack([a.ravel() for a in axes], axis=1), width**n_dim


# ---- densities on a grid: log_p, log_q (N,), and the volume of a cell ----


def kl(log_p, log_q, cell):
    """KL(p‖q) = ∫ p log(p/q) dx >= 0, in nats. ∞ if q = 0 somewhere where p > 0.      0 log 0 = 0, the limit.

    Minimising it over q is maximum likelihood: q must cover all of p, and may cover too much.
    """
    log_P, log_Q = _cells("kl", cell, log_p=log_p, log_q=log_q)
    return _relative_entropy(log_P, log_Q)


def reverse_kl(log_p, log_q, cell):
    """KL(q‖p) = ∫ q log(q/p) dx >= 0, in nats. ∞ if p = 0 somewhere where q > 0.

    Minimising it over q keeps q where p is, but q may leave out modes of p: leaving out half of p costs log 2, not ∞.
    """
    log_P, log_Q = _cells("reverse_kl", cell, log_p=log_p, log_q=log_q)
    return _relative_entropy(log_Q, log_P)


def js(log_p, log_q, cell):
    """JSD(p‖q) = ½ KL(p‖m) + ½ KL(q‖m), m = ½ (p + q), in nats (Lin 1991). Always finite.

    It is 0 only where p = q. Its greatest value, log 2, is reached if p and q do not overlap.
    """
    log_P, log_Q = _cells("js", cell, log_p=log_p, log_q=log_q)
    log_M = np.logaddexp(log_P, log_Q) - math.log(2)
    return 0.5 * (_relative_entropy(log_P, log_M) + _relative_entropy(log_Q, log_M))


def total_variation(log_p, log_q, cell):
    """½ ∫ |p - q| dx, from 0 to 1: the largest difference in the probability that p and q give to an event."""
    log_P, log_Q = _cells("total_variation", cell, log_p=log_p, log_q=log_q)
    return float(0.5 * np.abs(np.exp(log_P) - np.exp(log_Q)).sum())


def optimal_discriminator(log_p, log_q):
    """D*(x) = p / (p + q) and its logit log p - log q, both (N,). Goodfellow et al. 2014, eq 2.

    D* is the D with the greatest V(G, D) = ∫ [p log D + q log(1 - D)] dx. At each x, f(D) = a log D + b log(1 - D) has
    f′ = a/D - b/(1 - D), 0 at D = a/(a + b), and f″ < 0: a maximum. With m = ½ (p + q), p/(p + q) = ½ p/m, so that
    V(G, D*) = ∫ p (log(p/m) - log 2) + ∫ q (log(q/m) - log 2) = -2 log 2 + KL(p‖m) + KL(q‖m) = -2 log 2 + 2 JSD(p‖q),
    their eq 6. Where p = q = 0 every D is best, and the result is ½.
    """
    log_p, log_q = _host(log_p), _host(log_q)
    same_shape("optimal_discriminator", log_p=log_p, log_q=log_q)
    logits = _log_ratio(log_p, log_q)
    return np.exp(-np.logaddexp(0, -logits)), logits


def gan_value(logits, log_p, log_q, cell):
    """V(G, D) = ∫ [p log D + q log(1 - D)] dx, D = sigmoid(logits), in nats.      logits (N,), ±∞ included

    It is at most -2 log 2 + 2 JSD(p‖q), which D* reaches, and -2 log 2 for D = ½. A discriminator's loss is -V
    (losses.loss_D). log D = -softplus(-l) and log(1 - D) = -softplus(l) never become log 0. Goodfellow et al. 2014, eq 1.
    """
    logits = _host(logits)
    same_shape("gan_value", logits=logits, log_p=log_p)
    log_P, log_Q = _cells("gan_value", cell, log_p=log_p, log_q=log_q)
    return -_mean(log_P, np.logaddexp(0, -logits)) - _mean(log_Q, np.logaddexp(0, logits))


def wasserstein_grid(log_p, log_q, cell):
    """W₁(p, q) = ∫ |F - G| dx on a 1-D grid in ascending order. F and G are the distribution functions.

    If p has more mass left of x than q, the difference must be moved across x. In one dimension no way is shorter.
    Peyré & Cuturi 2019, section 2.6.
    """
    log_P, log_Q = _cells("wasserstein_grid", cell, log_p=log_p, log_q=log_q)
    return float(np.abs(np.cumsum(np.exp(log_P) - np.exp(log_Q))).sum() * cell)


# ---- samples: x (N, D) from p and y (M, D) from q, each point with the weight 1/N or 1/M ----
# Two samples of the same density also have a distance: about N^-½ in 1-D, about N^(-1/D) in D > 2 dimensions. So compare a
# distance with that of real points to other real points.


def wasserstein_samples(x, y):
    """W₁ = ∫ |F - G| of two samples' step functions, exactly.      x (N,) or (N, 1), y (M,) or (M, 1)"""
    x, y = _host(x), _host(y)
    columns = [a[:, None] if a.ndim == 1 else a for a in (x, y)]
    if any(a.ndim != 2 or a.shape[1] != 1 or not len(a) for a in columns):
        raise ValueError(f"wasserstein_samples: x has shape {x.shape} and y {y.shape}; expected (N,) and (M,)")
    return float(_wasserstein_rows(columns[0].T, columns[1].T)[0])


def wasserstein_assignment(x, y):
    """W₁ of two samples of equal size, exactly: min over permutations π of 1/N Σ_i ‖x_i - y_π(i)‖.      Both (N, D)

    No plan that splits points is cheaper than the best permutation (Peyré & Cuturi 2019, proposition 2.1). It needs N²
    memory and up to N³ time: seconds for a few thousand points. Raises UsageError if SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
        from scipy.spatial.distance import cdist
    except ImportError:
        raise UsageError("wasserstein_assignment needs SciPy: pip install scipy") from None
    x, y = _points("wasserstein_assignment", x, y)
    same_shape("wasserstein_assignment", x=x, y=y)
    distances = cdist(x, y)  # (N, N)
    return float(distances[linear_sum_assignment(distances)].mean())


def sliced_wasserstein(x, y, rng, n_directions=200):
    """The mean over random directions u, ‖u‖ = 1, of W₁ between the projections u·x and u·y.      x (N, D), y (M, D)

    It is never more than W₁. Over all directions it is 0 only for equal samples. In the plane a shift by d gives 2/π ‖d‖,
    not ‖d‖. Equal rngs give equal directions. Bonneel et al. 2015, with W₁ instead of W₂.
    """
    x, y = _points("sliced_wasserstein", x, y)
    u = _host(rng.normal((n_directions, x.shape[1])))
    u /= np.linalg.norm(u, axis=1, keepdims=True)  # a Gaussian prefers no direction, so u is uniform on the sphere
    return float(_wasserstein_rows(u @ x.T, u @ y.T).mean())


# ---- what these share ----


def _host(x):
    return to_host(x).astype(np.float64)


def _points(name, x, y):
    x, y = _host(x), _host(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"{name}: x has shape {x.shape} and y {y.shape}; expected (N, D) and (M, D)")
    return x, y


def _cells(name, cell, **log_densities):
    """log P = log(p · cell), (N,), of each density, with ΣP made exactly 1."""
    hosts = {which: _host(log_density) for which, log_density in log_densities.items()}
    same_shape(name, **hosts)
    logs = []
    for which, log_density in hosts.items():
        if log_density.ndim != 1:
            raise ValueError(f"{name}: {which} has shape {log_density.shape}; expected (N,), a number for each cell")
        log_P = log_density + math.log(cell)
        with np.errstate(over="ignore"):
            mass = np.exp(log_P).sum()
        if not abs(mass - 1) <= TOLERANCE:  # nan is caught as well
            raise ValueError(
                f"{name}: exp({which}) has mass {mass:.4g} on the grid, not 1: make the grid wider or finer"
            )
        logs.append(log_P - math.log(mass))
    return logs


def _log_ratio(log_p, log_q):
    """log p - log q, and 0 where both are -∞: there is no mass, and the difference would be nan."""
    neither = np.isneginf(log_p) & np.isneginf(log_q)
    return np.where(neither, 0, log_p) - np.where(neither, 0, log_q)


def _mean(log_P, f):
    """Σ P f. A term with P = 0 is 0 for every f. A term with f = ±∞ and log P > -∞ is ±∞, even if exp(log P) is 0."""
    some = ~np.isneginf(log_P)
    P, f = np.exp(log_P[some]), f[some]
    infinite = np.isinf(f)
    return float(f[infinite][0] if infinite.any() else P @ f)


def _relative_entropy(log_P, log_Q):
    return max(0.0, _mean(log_P, _log_ratio(log_P, log_Q)))  # for equal distributions rounding would give -1e-17


def _wasserstein_rows(x, y):
    """W₁ between each row of x (K, N) and the same row of y (K, M): ∫ |F - G| of step functions, (K,).

    F rises by 1/N at each x and G by 1/M at each y; times N M these are whole numbers, whose running sum is exact.
    """
    both = np.concatenate([x, y], axis=1)  # (K, N + M)
    steps = np.concatenate([np.full(x.shape[1], y.shape[1]), np.full(y.shape[1], -x.shape[1])])
    order = both.argsort(axis=1)
    heights = np.abs(np.cumsum(steps[order], axis=1))[:, :-1]  # N M |F - G| between neighbours
    widths = np.diff(np.take_along_axis(both, order, axis=1), axis=1)
    return (heights * widths).sum(axis=1) / (x.shape[1] * y.shape[1])
