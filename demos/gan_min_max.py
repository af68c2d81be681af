"""Min-max: D looks for the greatest V(G, D), and the best G is the one whose greatest V is least.

Left: a curve is V(G, D_t) of one G against discriminators D_t = p / (p + N(t, 1)), and the dot is its maximum. The
dashed line is the maximum over all D, -2 log 2 + 2 JSD. Right: the three generators; the nearest to the data wins.

Compare gan_optimal_discriminator.py. Read scratchgen/metrics/divergences.py: gan_value.
"""

import math

import numpy as np
from common import run
from threadpoolctl import threadpool_limits

from scratchgen.backend import Rng
from scratchgen.metrics.divergences import gan_value, grid, js
from scratchgen.models.gan import GAN
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

MEAN, START, MOMENTS, COLOURS = 3.0, (1.6, -1.0), (0, 640, 880), (RED, BLUE, INK)
POINTS, CELL = grid(-14, 16, 3_000)
T = np.linspace(-4, 7, 441)
LOWEST = -2 * math.log(2)


def log_density(mean, sigma):
    return diagonal_gaussian_log_prob(POINTS, np.full(1, mean), np.full(1, 2 * math.log(abs(sigma))))


@threadpool_limits.wrap(limits=1, user_api="blas")  # more threads only get in each other's way on so small a network
def generators(moments, seed):
    """(a, b) of G(z) = a z + b after each of these numbers of rounds, from START."""
    model = GAN(
        n_features=1, n_latent=1, hidden_G=(), hidden_D=(32, 32), output="linear", batch=256, lr_G=5e-3, lr_D=5e-3
    )
    model.build(Rng(seed))
    linear, rng, found = model.generator.layers[0], Rng((seed, 1)), []
    linear.W[...], linear.b[...] = START
    for rounds in range(moments[-1] + 1):
        if rounds in moments:
            found.append((linear.W.item(), linear.b.item()))
        model.train_step(MEAN + rng.normal((model.examples_per_step, 1)), rng)
    return found


def main(args):
    moments = (0, 30, 60) if args.quick else MOMENTS
    log_p = log_density(MEAN, 1.0)
    judges = [log_p - log_density(t, 1.0) for t in T]  # the logits of each D_t
    figure, axes = new_figure(12, 4.4, 1, 2, width_ratios=[1.6, 1])
    left, right = axes[0]
    x = POINTS[:, 0]
    right.fill_between(x, np.exp(log_p), color=GREY, alpha=0.3, linewidth=0, label="p, the data: N(3, 1)")
    greatest = []
    for i, (rounds, (a, b)) in enumerate(zip(moments, generators(moments, args.seed))):
        log_q, name, colour = log_density(b, a), f"G{'₁₂₃'[i]}", COLOURS[i]
        curve = np.array([gan_value(logits, log_p, log_q, CELL) for logits in judges])
        exact, best = LOWEST + 2 * js(log_p, log_q, CELL), curve.argmax()
        greatest.append((curve[best], T[best]))
        print(
            f"{name}, {rounds} rounds: N({b:.3f}, {abs(a):.3f}²), greatest V {curve[best]:.4f} at t = {T[best]:.3f}; ",
            end="",
        )
        print(f"-2 log 2 + 2 JSD = {exact:.4f}")
        left.plot(T, curve, color=colour, label=f"V({name}, D_t)")
        left.plot(T[best], curve[best], "o", color=colour)
        left.axhline(exact, color=colour, linestyle="--", linewidth=0.9)
        right.plot(x, np.exp(log_q), color=colour, label=f"{name}, {rounds} rounds: N({b:.2f}, {abs(a):.2f}²)")
    chosen = min(range(3), key=greatest.__getitem__)
    value, t = greatest[chosen]
    print(f"the least maximum is that of G{'₁₂₃'[chosen]}; none can be below -2 log 2 = {LOWEST:.4f}")
    left.annotate(
        f"G* = G{'₁₂₃'[chosen]}: the least maximum", (t, value), (2.6, -0.75), color=COLOURS[chosen],
        arrowprops={"arrowstyle": "->", "color": COLOURS[chosen]}, ha="left", fontsize=9,
    )  # fmt: skip
    left.axhline(LOWEST, color=GREY, linestyle=":")
    left.text(T[-1] - 0.05, LOWEST + 0.03, "-2 log 2", ha="right", color=GREY, fontsize=9)
    left.annotate("D = ½", (MEAN, LOWEST), (3.9, -1.75), arrowprops={"arrowstyle": "->", "color": GREY}, color=GREY)
    left.set(xlabel="t of D_t", ylabel="V(G, D_t), nats", xlim=(T[0], T[-1]), ylim=(-3, 0.1))
    left.set_title("V(G, D_t): dots are maxima, dashed lines -2 log 2 + 2 JSD", fontsize=10)
    left.legend(fontsize=8, frameon=False, loc="lower right")
    right.set(xlabel="x", ylabel="density", xlim=(-6, 7), ylim=(0, None))
    right.set_title("the three generators", fontsize=10)
    right.legend(fontsize=8, frameon=False, loc="upper left")
    save_figure(figure, args.out / "gan_min_max.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
