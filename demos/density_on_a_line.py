"""From a line to a line, a network's density is a sum over the roots of G(z) = x.

It is p_G(x) = Σ p(z) / |G′(z)|. Left: a random network G and its roots for one x. Middle: the sum agrees with a
histogram of samples. Right: where G turns, the density is infinite, yet its integral is 1.

Run density_on_a_curve.py next, where x has more dimensions than z. Read scratchgen/nn/layers.py: mlp.
"""

import math

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.nn.activations import Tanh
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.nn.layers import mlp
from scratchgen.nn.parameters import Parameters
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

REACH = 8.0  # |z| is larger with probability 1e-15
LEVEL = -0.2  # the x whose roots are drawn


def main(args):
    n = 50_000 if args.quick else 1_000_000
    G = network([1, 8, 8, 1], 28, 1.2)
    samples = value(G, Rng((args.seed, 1), "float64").normal(n))
    mass = compare_with(G, samples)
    peak = value(G, turns(G)).max()
    near, far = density(G, peak - np.array([1e-8, 1e-4]))
    print(
        f"p_G at distance 0.0001 from its last spike: {far:.2f}; at distance 1e-08: {near:.0f}, a hundred times as much"
    )

    figure, ((left, middle, right),) = new_figure(13, 3.9, 1, 3)
    draw_roots(left, G)
    draw_density(middle, G, samples, mass)
    draw_spike(right, G, peak, near)
    save_figure(figure, args.out / "density_on_a_line.png")


def compare_with(G, samples):
    """∫ p_G. Prints how far p_G and the samples of G are apart, over all x and close to one."""
    n, (x, weights) = len(samples), nodes(G)
    mass = weights * density(G, x)
    below = np.searchsorted(np.sort(samples), x) / n
    apart = np.abs(np.cumsum(mass) - mass / 2 - below).max()
    print(f"∫ p_G = {mass.sum():.6f}")
    print(f"distribution functions of p_G and of {n:,} samples: at most {apart:.5f} apart,", end=" ")
    print(f"by chance up to {1.36 / math.sqrt(n):.5f} in 95 of 100 cases")
    exact, found = density(G, np.array([LEVEL])).item(), roots(G, np.array([LEVEL]))[1]
    print(
        f"p_G({LEVEL:g}) = {exact:.4f}, by {len(found)} roots; {(samples == LEVEL).sum()} samples are equal to {LEVEL:g}"
    )
    for h in (1.0, 0.1, 0.01):
        share = (np.abs(samples - LEVEL) < h / 2).mean()
        print(f"  share of the samples in an interval of length h = {h:g} about it, divided by h: {share / h:.4f}")
    return mass.sum()


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


def draw_roots(axis, G):
    """G with its turns, the roots of G(z) = LEVEL, and p(z) at the bottom."""
    z, bends, found = np.linspace(-3, 3, 600), turns(G), roots(G, np.array([LEVEL]))[1]
    p = np.exp(diagonal_gaussian_log_prob(z[:, None], 0.0, np.zeros(1)))
    axis.plot(z, value(G, z), color=BLUE, label="G")
    axis.fill_between(z, -2, -2 + p, color=GREY, alpha=0.3, linewidth=0, label="p(z)")
    axis.axhline(LEVEL, color=GREY, linewidth=0.8, linestyle=":")
    axis.plot(found, np.full(len(found), LEVEL), "o", color=INK, markersize=5, label=f"the roots of G(z) = {LEVEL:g}")
    axis.plot(bends, value(G, bends), "s", color=RED, markersize=5, label="G′ = 0")
    axis.set(xlim=(-3, 3), xlabel="z", ylabel="x", ylim=(-2, 3.2))
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("G, from the line to the line", fontsize=10)


def draw_density(axis, G, samples, mass):
    """The density over a histogram of samples."""
    low, high = np.quantile(samples, [0.0005, 0.9995])
    x, bins = np.linspace(low, high, 4_000), np.linspace(low, high, 161)
    axis.hist(samples, bins=bins, density=True, color=GREY, alpha=0.4, label=f"{len(samples):,} samples")
    axis.plot(x, density(G, x), color=BLUE, linewidth=1.2, label="Σ p(z) / |G′(z)|")
    for k, place in enumerate(value(G, turns(G))):
        axis.axvline(place, color=RED, linewidth=0.7, linestyle=":", label="G′ = 0" if k == 0 else None)
    axis.set(xlabel="x", ylabel="density", ylim=(0, 2), xlim=(low, high))
    axis.legend(fontsize=8, frameon=False)
    axis.set_title(f"the density of x = G(z), ∫ = {mass:.5f}", fontsize=10)


def draw_spike(axis, G, peak, near):
    """The density just below a spike at `peak`, where it is `near` at the distance 1e-8."""
    d = np.geomspace(1e-8, 1, 200)
    axis.plot(d, density(G, peak - d), color=BLUE, label="p_G")
    axis.plot(d, near * np.sqrt(1e-8 / d), color=INK, linestyle=":", label="1 / √distance")
    axis.set(xscale="log", yscale="log", xlabel=f"distance below the spike at x = {peak:.2f}", ylabel="density")
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("infinite where G turns, yet integrable", fontsize=10)


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
