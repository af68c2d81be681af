"""Alternating updates circle around the solution; their average reaches it, and so does R1.

Left: on min max x y, simultaneous steps spiral outwards, and alternating ones stay on an ellipse. Middle: their
distances from the solution (0, 0). Right: a GAN of two numbers circles with the minimax loss, creeps inwards with -log
D, and arrives with R1.

Compare Mescheder et al. 2018. Read scratchgen/models/gan.py: r1; scratchgen/nn/double_backward.py.
"""

import math

import numpy as np
from common import run

from scratchgen.nn.losses import loss_D, loss_G
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

RATE, GAMMA, SHOWN = 0.1, 0.3, 200  # SHOWN: of how many steps the path is drawn


def bilinear(x, y, together):
    """x descends x y, y ascends it: ∂/∂x = y, ∂/∂y = x."""
    new_x = x - RATE * y
    return new_x, y + RATE * (x if together else new_x)


def dirac_gan(theta, psi, kind, gamma):
    """D's step, then G's, where every real x is 0 and every generated one θ: logits ψ·0 and ψ θ."""
    real = np.zeros((1, 1))
    _, _, d_fake = loss_D(real, np.full((1, 1), psi * theta), kind)
    psi = psi - RATE * (d_fake.item() * theta + gamma * psi)  # γ ψ: the slope of R1
    _, d_fake = loss_G(np.full((1, 1), psi * theta), kind)
    return theta - RATE * d_fake.item() * psi, psi


def path(step, n, *options):
    """The places (n + 1, 2) from (1, 0) on."""
    places = [(1.0, 0.0)]
    for _ in range(n):
        places.append(step(*places[-1], *options))
    return np.array(places)


def main(args):
    n = 250 if args.quick else 5_000
    together, in_turn = path(bilinear, n, True), path(bilinear, n, False)
    average = np.cumsum(in_turn, axis=0) / np.arange(1, n + 2)[:, None]
    games = {"at once": (together, RED), "in turn": (in_turn, BLUE), "average of the steps in turn": (average, INK)}
    gans = {
        "minimax": (path(dirac_gan, n, "minimax", 0.0), BLUE),
        "non-saturating": (path(dirac_gan, n, "non_saturating", 0.0), RED),
        f"minimax with R1, γ = {GAMMA}": (path(dirac_gan, n, "minimax", GAMMA), INK),
    }

    growth = np.hypot(*together[-1]) ** (1 / n)
    x, y = in_turn.T
    invariant = x * x + y * y - RATE * x * y
    print(f"distance from (0, 0) after {n:,} steps of rate {RATE}; at first 1")
    print(f"at once: the distance grows {growth:.6f} times a step; √(1 + η²) = {math.hypot(1, RATE):.6f}")
    print(f"in turn: the distance stays between {np.hypot(x, y).min():.3f} and {np.hypot(x, y).max():.3f}, ", end="")
    print(f"and x² + y² - η x y changes by {np.ptp(invariant):.0e}")
    reach = (np.hypot(*average.T) * np.arange(1, n + 2)).max()
    print(f"average: distance {np.hypot(*average[-1]):.1e}; at most {reach:.1f} / (steps + 1) on the way")
    for name, (places, _) in gans.items():
        last = np.hypot(*places[-200:].T)
        print(f"Dirac GAN, {name}: last 200 steps from {last.min():.3g} to {last.max():.3g}")

    figure, axes = new_figure(13, 4.4, 1, 3)
    left, middle, right = axes[0]
    for name, (places, colour) in games.items():
        left.plot(*places[: SHOWN + 1].T, color=colour, label=name, linewidth=1.2)
        middle.plot(np.hypot(*places.T), color=colour, label=name, linewidth=1.2)
    for name, (places, colour) in gans.items():
        shown = places[: 4 * SHOWN + 1].T
        right.plot(*shown, color=colour, label=name, linewidth=1.2 if colour != RED else 0.8)
    for axis in (left, right):
        axis.plot(0, 0, "+", color=GREY, markersize=12)
        axis.plot(1, 0, "o", color=GREY, markersize=5)
        axis.set_aspect("equal")
    left.set(xlabel="x, which lowers x y", ylabel="y, which raises it", xlim=(-3, 3), ylim=(-2.6, 3.9))
    left.set_title(f"x y: {SHOWN} steps from (1, 0)", fontsize=10)
    middle.plot([21, 1000], [1, 21 / 1000], color=GREY, linestyle=":", label="21 / steps")
    middle.set(xscale="log", yscale="log", xlim=(1, 1000), ylim=(1e-3, 1e4))
    middle.set(xlabel="steps", ylabel="distance from (0, 0)")
    middle.set_title("x y: the first 1,000 steps", fontsize=10)
    right.set(xlabel="θ, where G puts all its points", ylabel="ψ, D's slope", xlim=(-1.4, 1.4), ylim=(-1.2, 1.8))
    right.set_title(f"Dirac GAN, in turn: {4 * SHOWN} steps from (1, 0)", fontsize=10)
    for axis in axes[0]:
        axis.legend(fontsize=8, frameon=False, loc="upper left")
    save_figure(figure, args.out / "gan_circling.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "seed", "device"))
