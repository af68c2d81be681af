"""A network that carries a Gaussian onto a ring must fail near z = 0, where z/‖z‖ jumps.

A network is continuous and cannot jump. Above: z, where the largest network carries it, and its output along a line
through 0. Below: the error against ‖z‖; the steepness of the networks; the error that is left outside a disc about 0. A
larger network is steeper and keeps its error in a smaller disc.

Try `--seed 1`. Read scratchgen/nn/layers.py.
"""

import numpy as np
from common import run
from threadpoolctl import threadpool_limits

from scratchgen.backend import Rng
from scratchgen.nn.activations import Tanh
from scratchgen.nn.layers import mlp
from scratchgen.nn.losses import squared_error
from scratchgen.nn.optim import Adam
from scratchgen.nn.parameters import Parameters
from scratchgen.nn.schedules import cosine
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.train.progress import told

SIZES, COLOURS = (4, 8, 64), (GREY, BLUE, RED)


def to_ring(z):
    """z/‖z‖ for z (N, 2)."""
    return z / np.sqrt((z * z).sum(axis=1, keepdims=True))


def learn(size, steps, seed, batch=256):
    """A network of two hidden layers of `size` units that has learned z → z/‖z‖ from batches of z ~ N(0, I)."""
    rng = Rng((seed, size))
    network = mlp([2, size, size, 2], Tanh)
    adam = Adam(Parameters(rng, network=network), cosine(1e-2, steps))
    for _ in told(range(steps), f"{size} units: step"):
        network.params.zero_grad()
        z = rng.normal((batch, 2))
        y, back = network.forward(z, rng)
        _, dy = squared_error(y, to_ring(z))
        back(dy, inputs=False)
        adam.step()
    return network


def jacobian(network, z):
    """∂y_i/∂z_j (N, 2, 2) at z (N, 2), row by row from the network's backward."""
    _, back = network.forward(z, None)
    rows = [back(np.tile(row, (len(z), 1)), learn=False) for row in np.eye(2, dtype=z.dtype)]
    return np.stack(rows, axis=1)


def steepness(network, z):
    """The largest singular value (N,) of the Jacobian at z (N, 2): by how much a small step is stretched at most."""
    return np.linalg.svd(jacobian(network, z), compute_uv=False)[:, 0]


@threadpool_limits.wrap(limits=1, user_api="blas")  # more threads only get in each other's way on so small networks
def main(args):
    steps = 300 if args.quick else 10_000
    networks = {size: learn(size, steps, args.seed) for size in SIZES}
    rng = Rng((args.seed, 0))
    z = rng.normal((200_000, 2))
    radius = np.sqrt((z * z).sum(axis=1))
    images = {size: network(z) for size, network in networks.items()}
    errors = {size: ((y - to_ring(z)) ** 2).sum(axis=1) for size, y in images.items()}
    near = radius < 0.25
    print(f"‖z‖ < 0.25 for {near.mean():.2%} of z; 1 - exp(-0.25²/2) = {1 - np.exp(-(0.25**2) / 2):.2%}")
    edges = np.linspace(0, 3, 61)
    angle = np.linspace(0, 2 * np.pi, 257)[:-1]
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(z.dtype)
    radii = np.geomspace(1e-3, 3, 80)
    steep = {size: [] for size in SIZES}
    for size, network in networks.items():
        for r in radii:
            steep[size].append(steepness(network, z=(r * circle).astype(z.dtype)).mean())
        disc = (0.3 * np.sqrt(np.linspace(0, 1, 400))[:, None, None] * circle).reshape(-1, 2).astype(z.dtype)
        found = np.sqrt((network(disc) ** 2).sum(axis=1)).min()
        print(
            f"2 layers of {size} units: mean squared error {errors[size].mean():.4f}, "
            f"{errors[size][near].sum() / errors[size].sum():.0%} of it where ‖z‖ < 0.25; elsewhere "
            f"{errors[size][~near].mean():.5f}; steepness up to {max(steep[size]):.1f}; "
            f"nearest to 0 lands a z with ‖z‖ < 0.3: at {found:.3f}"
        )

    figure, axes = new_figure(13, 7.6, 2, 3)
    (first, second, third), (fourth, fifth, sixth) = axes
    some = slice(0, 4_000)
    colours = np.arctan2(*z[some].T[::-1])
    y = images[SIZES[-1]][some]
    first.scatter(*z[some].T, c=colours, cmap="twilight", s=4, linewidths=0)
    first.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", xlabel="z₁", ylabel="z₂")
    first.set_title("z ~ N(0, I), coloured by angle", fontsize=10)
    second.scatter(*y.T, c=colours, cmap="twilight", s=4, linewidths=0)
    second.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xlabel="x₁", ylabel="x₂")
    inside = (np.sqrt((images[SIZES[-1]] ** 2).sum(axis=1)) < 0.9).mean()
    second.set_title(f"where 2 layers of {SIZES[-1]} units carry it; {inside:.1%} within 0.9", fontsize=10)
    t = np.linspace(-1, 1, 2_001)
    third.plot(t, np.sign(t), color=INK, linestyle=":", label="z/‖z‖ jumps")
    line = np.stack([t, 0 * t], axis=1).astype(z.dtype)
    middles = (edges[1:] + edges[:-1]) / 2
    which = np.digitize(radius, edges) - 1
    for (size, network), colour in zip(networks.items(), COLOURS):
        name = f"2 layers of {size}"
        third.plot(t, network(line)[:, 0], color=colour, label=name)
        count = np.bincount(which, minlength=61)[:60]
        fourth.plot(middles, np.bincount(which, errors[size], minlength=61)[:60] / count, color=colour, label=name)
        fifth.plot(radii, steep[size], color=colour, label=name)
        order = np.argsort(radius)
        kept = np.arange(len(z), 0, -1)
        beyond = np.cumsum(errors[size][order][::-1])[::-1] / kept
        sixth.plot(radius[order][:-5_000:50], beyond[:-5_000:50], color=colour, label=name)
    third.set(xlabel="t, where z = (t, 0)", ylabel="x₁")
    third.set_title("along a line through 0", fontsize=10)
    share = fourth.twinx()
    share.fill_between(edges, 1 - np.exp(-(edges**2) / 2), color=GREY, alpha=0.15, linewidth=0)
    share.set(ylim=(0, 1), ylabel="share of z with a smaller ‖z‖ (shaded)")
    fourth.set(yscale="log", xlabel="‖z‖", ylabel="squared error", xlim=(0, 3))
    fourth.set_title("the error against ‖z‖", fontsize=10)
    fifth.plot(radii, 1 / radii, color=INK, linestyle=":", label="z/‖z‖: 1/‖z‖")
    fifth.set(xscale="log", yscale="log", xlabel="‖z‖", ylabel="largest singular value", ylim=(0.2, 300))
    fifth.set_title("steepness of the networks (of their Jacobian)", fontsize=10)
    sixth.set(yscale="log", xlabel="ε", ylabel="squared error", xlim=(0, 2))
    sixth.set_title("mean error of the z with ‖z‖ > ε", fontsize=10)
    for axis, place in ((third, "upper left"), (fourth, "upper right"), (fifth, "lower left"), (sixth, "upper center")):
        axis.legend(fontsize=8, frameon=False, loc=place)
    save_figure(figure, args.out / "density_gaussian_to_ring.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
