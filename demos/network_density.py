"""The density of what a network makes: a sum over roots where x has as many dimensions as z, and none where it has more.

lee-15 prints P_G(x) = ∫ p(z) 1[G(z) = x] dz, an integral over x; over z it is, and for continuous z the indicator's
integral is 0: what is meant is ∫ p(z) δ(x - G(z)) dz. From the line to the line it is Σ p(z)/|G′(z)| over all z with
G(z) = x. Above, for a small network with random weights: the roots are found by bisection, one between any two turns, and
G′ is the network's own backward. The sum fits a histogram and integrates to 1. Where G turns, G′ = 0 and the density is
infinite, like 1/√distance, yet integrable.
Below, z on the line and x in the plane: G draws a curve, which has no area. The finer a grid, the smaller the share of its
cells that G touches, however many the samples: a point off the curve has log-likelihood -∞, one on it no density at all.
With noise, p(x) = ∫ p(z) N(x; G(z), σ² I) dz, it is finite, and a matter of σ: as σ → 0 it falls to -∞ off the curve and
grows without bound on it. So it is for pictures, whose z is shorter than x. lee-15 gives another reason for GANs, that G is
too complex to compute its likelihood; often there is none to compute. Read mlp in scratchgen/nn/layers.py. (Row L9)
"""

import math

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.nn.activations import Tanh
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.nn.layers import log_sum_exp, mlp
from scratchgen.nn.parameters import Parameters
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.train.progress import told

REACH = 8.0  # |z| is larger with probability 1e-15


def network(sizes, seed, spread=1.0):
    """A tanh network with weights and biases from N(0, spread²): wide enough to turn back several times."""
    rng = Rng(seed, "float64")
    G = mlp(sizes, Tanh)
    params = Parameters(rng, G=G)
    params.theta[...] = spread * rng.normal(params.theta.shape)
    return G


def value(G, z):
    """G(z) (N,) for z (N,)."""
    return G(z[:, None])[:, 0]


def slope(G, z):
    """G′(z) (N,) for z (N,), by the network's backward."""
    y, back = G.forward(z[:, None], None)
    return back(np.ones_like(y), learn=False)[:, 0]


def bisect(f, low, high):
    """Where f changes its sign between low and high (N,), one place each."""
    sign = np.sign(f(low))
    for _ in range(55):
        middle = (low + high) / 2
        left = np.sign(f(middle)) == sign
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return (low + high) / 2


def turns(G, n=8_001):
    """The z at which G′ = 0."""
    z = np.linspace(-REACH, REACH, n)
    rising = slope(G, z) > 0
    place = np.nonzero(rising[1:] != rising[:-1])[0]
    return bisect(lambda z: slope(G, z), z[place], z[place + 1])


def roots(G, x):
    """All z with G(z) = x for each x (N,): which x (M,), and the z (M,). Between two turns there is at most one."""
    z = np.concatenate([[-REACH], turns(G), [REACH]])
    above = value(G, z) > x[:, None]  # (N, turns + 2)
    which, place = np.nonzero(above[:, 1:] != above[:, :-1])
    return which, bisect(lambda z: value(G, z) - x[which], z[place], z[place + 1])


def density(G, x):
    """p_G(x) = Σ p(z)/|G′(z)| over the roots of G(z) = x, z ~ N(0, 1), for x (N,)."""
    which, z = roots(G, x)
    p = np.exp(diagonal_gaussian_log_prob(z[:, None], 0.0, np.zeros(1)))
    return np.bincount(which, p / np.abs(slope(G, z)), minlength=len(x))


def nodes(G, n=400):
    """Points x and weights of a quadrature over all that G makes, dense at the spikes: Σ weights · p_G(x) ≈ 1.

    Between two values at which the density may be infinite, x = middle - half cos θ, so that dx = half sin θ dθ is 0 at both
    ends as fast as 1/√distance grows.
    """
    ends = np.sort(np.concatenate([value(G, turns(G)), value(G, np.array([-REACH, REACH]))]))
    theta = (np.arange(n) + 0.5) * np.pi / n
    half, middle = (ends[1:, None] - ends[:-1, None]) / 2, (ends[1:, None] + ends[:-1, None]) / 2
    return (middle - half * np.cos(theta)).ravel(), (half * np.sin(theta) * np.pi / n).ravel()


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


def main(args):
    n = 50_000 if args.quick else 1_000_000
    rng = Rng((args.seed, 1), "float64")
    G = network([1, 8, 8, 1], 28, 1.2)
    made = value(G, rng.normal(n))
    x, weights = nodes(G)
    p = density(G, x)
    mass = weights * p
    below = np.searchsorted(np.sort(made), x) / n
    print(f"∫ p_G = {mass.sum():.6f}; its distribution function and that of {n:,} samples differ by ", end="")
    print(
        f"{np.abs(np.cumsum(mass) - mass / 2 - below).max():.5f}; by chance up to {1.36 / math.sqrt(n):.5f}, 95 times in 100"
    )
    level, bends = -0.2, turns(G)
    exact, found = density(G, np.array([level])).item(), roots(G, np.array([level]))[1]
    print(f"samples equal to x = {level:g}: {(made == level).sum()}; p_G(x) = {exact:.4f} by {len(found)} roots")
    for h in (1.0, 0.1, 0.01):
        print(f"  within h = {h:g} of x, divided by h: {(np.abs(made - level) < h / 2).mean() / h:.4f}")
    peak = value(G, bends).max()
    near = np.array([1e-8, 1e-4])
    at = density(G, peak - near)
    print(
        f"p_G at {near[1]:g} and {near[0]:g} from its last spike: {at[1]:.2f} and {at[0]:.0f}, a hundred times as much"
    )

    plane, counts = network([1, 8, 8, 2], 21, 1.2), 2 ** np.arange(2, 12)
    made_2 = {
        "z in the plane": network([2, 8, 8, 2], 21, 1.2)(rng.normal((n, 2))),
        "z on the line": plane(rng.normal((n, 1))),
    }
    shares = {
        (name, m): [touched(y[:m], k) for k in told(counts, f"{name}: grid")]
        for name, y in made_2.items()
        for m in (n // 10, n)
    }
    for (name, m), share in shares.items():
        print(f"{name}, {m:,} samples: cells touched of {counts[-1]:,} a side {share[-1]:.2%}, of 128 {share[5]:.2%}")
    fine = np.linspace(-REACH, REACH, 20_001 if args.quick else 400_001)[:, None]
    curve = plane(fine)
    log_weights = diagonal_gaussian_log_prob(fine, 0.0, np.zeros(1)) + math.log(fine[1, 0] - fine[0, 0])
    on = plane(np.array([[0.3]]))
    tangent = plane(np.array([[0.301]])) - on
    normal = np.array([[-tangent[0, 1], tangent[0, 0]]]) / np.linalg.norm(tangent)
    shown = np.concatenate([on, on + 0.1 * normal, on + normal])
    away = np.sqrt(((curve[:, None] - shown) ** 2).sum(axis=2).min(axis=0))
    sigmas = np.geomspace(3e-3, 2, 25)
    noisy = np.array([log_p_noisy(curve, log_weights, shown, sigma) for sigma in told(sigmas, "noise")])  # (25, 3)
    for sigma, row in list(zip(sigmas, noisy))[::8]:
        print(f"σ = {sigma:.4f}: " + ", ".join(f"log p {v:.1f} at {d:.2f} from the curve" for v, d in zip(row, away)))

    figure, axes = new_figure(13, 7.6, 2, 3)
    (first, second, third), (fourth, fifth, sixth) = axes
    line = np.linspace(-3, 3, 600)
    first.plot(line, value(G, line), color=BLUE, label="G")
    first.fill_between(
        line,
        -2,
        -2 + np.exp(diagonal_gaussian_log_prob(line[:, None], 0.0, np.zeros(1))),
        color=GREY,
        alpha=0.3,
        linewidth=0,
        label="p(z)",
    )
    first.axhline(level, color=GREY, linewidth=0.8, linestyle=":")
    first.plot(found, np.full(len(found), level), "o", color=INK, markersize=5, label=f"the roots of G(z) = {level:g}")
    first.plot(bends, value(G, bends), "s", color=RED, markersize=5, label="G′ = 0")
    first.set(xlim=(-3, 3), xlabel="z", ylabel="x", ylim=(-2, 3.2))
    first.legend(fontsize=8, frameon=False)
    first.set_title("G, from the line to the line", fontsize=10)
    low, high = np.quantile(made, [0.0005, 0.9995])
    even = np.linspace(low, high, 4_000)
    second.hist(made, bins=np.linspace(low, high, 161), density=True, color=GREY, alpha=0.4, label=f"{n:,} samples")
    second.plot(even, density(G, even), color=BLUE, linewidth=1.2, label="Σ p(z) / |G′(z)|")
    for k, place in enumerate(value(G, bends)):
        second.axvline(place, color=RED, linewidth=0.7, linestyle=":", label="G′ = 0" if k == 0 else None)
    second.set(xlabel="x", ylim=(0, 2), xlim=(low, high))
    second.legend(fontsize=8, frameon=False)
    second.set_title(f"the density of x = G(z), ∫ = {mass.sum():.5f}", fontsize=10)
    d = np.geomspace(1e-8, 1, 200)
    third.plot(d, density(G, peak - d), color=BLUE, label="p_G")
    third.plot(d, at[0] * np.sqrt(near[0] / d), color=INK, linestyle=":", label="1 / √distance")
    third.set(xscale="log", yscale="log", xlabel=f"distance below the spike at {peak:.2f}")
    third.legend(fontsize=8, frameon=False)
    third.set_title("infinite where G turns, yet integrable", fontsize=10)

    fourth.plot(*made_2["z on the line"][:20_000].T, ".", color=BLUE, markersize=1)
    for point, colour in zip(shown, (RED, INK, GREY)):
        fourth.plot(*point, "o", color=colour, markersize=6)
    fourth.set_title("20,000 samples of G, from the line to the plane", fontsize=10)
    for (name, m), share in shares.items():
        style = {"color": BLUE if "line" in name else GREY, "linestyle": "-" if m == n else "--"}
        fifth.plot(counts, share, "o", markersize=4, label=f"{name}, {m:,} samples", **style)
    fifth.set(xscale="log", yscale="log", xlabel="cells a side")
    fifth.legend(fontsize=8, frameon=False)
    fifth.set_title("share of the cells that are touched", fontsize=10)
    for column, colour, distance in zip(noisy.T, (RED, INK, GREY), away):
        name = "on the curve" if distance < 1e-3 else f"{distance:.2g} from it"
        sixth.plot(sigmas, column, color=colour, label=name)
    sixth.set(xscale="log", xlabel="σ of the noise", ylabel="nats", ylim=(-40, 8))
    sixth.legend(fontsize=8, frameon=False, loc="lower right")
    sixth.set_title("log p(x) with noise", fontsize=10)
    save_figure(figure, args.out / "network_density.png")


if __name__ == "__main__":
    run(main, __doc__)
