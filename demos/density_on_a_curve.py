"""A generator's density exists only if x has no more dimensions than z.

Left: G carries a line into the plane, so its samples lie on a curve, which has no area. Middle: the finer a grid, the
smaller the share of its cells that hold a sample. Right: with noise there is a density, but for σ → 0 it grows without
bound on the curve and vanishes elsewhere.

Run density_on_a_line.py first, where the density exists. Read scratchgen/nn/layers.py: mlp.
"""

import math

import numpy as np
from common import run
from density_on_a_line import REACH, network

from scratchgen.backend import Rng
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.nn.layers import log_sum_exp
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.train.progress import told

SIDES = 2 ** np.arange(2, 12)  # cells a side of the grids
SIGMAS = np.geomspace(3e-3, 2, 25)


def main(args):
    n = 50_000 if args.quick else 1_000_000
    rng = Rng((args.seed, 1), "float64")
    G = network([1, 8, 8, 2], 21, 1.2)
    samples = {
        "z in the plane": network([2, 8, 8, 2], 21, 1.2)(rng.normal((n, 2))),
        "z on the line": G(rng.normal((n, 1))),
    }
    shares = {
        (name, m): [touched(x[:m], k) for k in told(SIDES, f"{name}: grid")]
        for name, x in samples.items()
        for m in (n // 10, n)
    }
    for (name, m), share in shares.items():
        print(f"{name}, {m:,} samples: they touch {share[5]:.2%} of 128² cells and {share[-1]:.2%} of {SIDES[-1]:,}²")

    z = np.linspace(-REACH, REACH, 20_001 if args.quick else 400_001)[:, None]
    curve, log_weights = G(z), diagonal_gaussian_log_prob(z, 0.0, np.zeros(1)) + math.log(z[1, 0] - z[0, 0])
    points = three_points(G)
    away = np.sqrt(((curve[:, None] - points) ** 2).sum(axis=2).min(axis=0))
    log_p = np.array([log_p_noisy(curve, log_weights, points, sigma) for sigma in told(SIGMAS, "noise")])  # (25, 3)
    for sigma, row in list(zip(SIGMAS, log_p))[::8]:
        print(f"noise σ = {sigma:.4f}: " + ", ".join(f"log p {v:.1f} at distance {d:.2f}" for v, d in zip(row, away)))

    figure, ((left, middle, right),) = new_figure(13, 3.9, 1, 3)
    left.plot(*samples["z on the line"][:20_000].T, ".", color=BLUE, markersize=1)
    for point, colour in zip(points, (RED, INK, GREY)):
        left.plot(*point, "o", color=colour, markersize=6)
    left.set(xlabel="x₁", ylabel="x₂")
    left.set_title("20,000 samples of G, from the line to the plane", fontsize=10)
    for (name, m), share in shares.items():
        style = {"color": BLUE if "line" in name else GREY, "linestyle": "-" if m == n else "--"}
        middle.plot(SIDES, share, "o", markersize=4, label=f"{name}, {m:,} samples", **style)
    middle.set(xscale="log", yscale="log", xlabel="cells on a side of the grid", ylabel="share of the cells")
    middle.legend(fontsize=8, frameon=False)
    middle.set_title("how many cells of a grid hold a sample", fontsize=10)
    for column, colour, distance in zip(log_p.T, (RED, INK, GREY), away):
        name = "on the curve" if distance < 1e-3 else f"at distance {distance:.2g}"
        right.plot(SIGMAS, column, color=colour, label=name)
    right.set(xscale="log", xlabel="σ of the noise", ylabel="log p(x), nats", ylim=(-40, 8))
    right.legend(fontsize=8, frameon=False, loc="lower right")
    right.set_title("the density at three points, with noise", fontsize=10)
    save_figure(figure, args.out / "density_on_a_curve.png")


def three_points(G):
    """A point on the curve of G, and two at distances 0.1 and 1 from it, (3, 2)."""
    on = G(np.array([[0.3]]))
    tangent = G(np.array([[0.301]])) - on
    normal = np.array([[-tangent[0, 1], tangent[0, 0]]]) / np.linalg.norm(tangent)
    return np.concatenate([on, on + 0.1 * normal, on + normal])


def log_p_noisy(curve, log_weights, x, sigma):
    """log ∫ p(z) N(x; G(z), σ² I) dz for x (N, D): curve (M, D) holds G at points z, log_weights (M,) log p(z) dz."""
    log_var = np.full(curve.shape[1], 2 * math.log(sigma))
    terms = np.stack([log_weights + diagonal_gaussian_log_prob(curve, point, log_var) for point in x])  # (N, M)
    return log_sum_exp(terms, 1)


def touched(points, n):
    """The share of the n × n cells of the square about the points (N, 2) that hold one of them."""
    low, high = points.min(axis=0), points.max(axis=0)
    cells = np.minimum((n * (points - low) / (high - low)).astype(int), n - 1)
    return len(np.unique(cells[:, 0] * n + cells[:, 1])) / n**2


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
