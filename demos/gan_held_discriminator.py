"""If D is held while G learns, the divergence falls at first and then rises.

G is one Linear layer, so the JSD is exact. The held D is best against the first G and knows no later one. It calls real
what lies beyond the data, so G passes through the data, its loss still falling. With the best D for each step the JSD
falls to 0.

Compare gan_generator_losses.py. Read scratchgen/nn/losses.py: loss_G.
"""

import math
from statistics import NormalDist

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.metrics.divergences import gan_value, grid, js, optimal_discriminator
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.nn.layers import Linear
from scratchgen.nn.losses import loss_G
from scratchgen.nn.optim import SGD
from scratchgen.nn.parameters import Parameters
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

START, MEAN, VARIANCE, RATE = (1.5, -1.0), 2.0, 1.0, 0.02
RENEWALS = {"held": 10**9, "renewed after 50 steps": 50, "renewed at each step": 1}
POINTS, CELL = grid(-12, 14, 5_200)
Z = np.array(
    [[NormalDist().inv_cdf((i + 0.5) / 1_000)] for i in range(1_000)]
)  # equally likely: no noise in the gradient


def log_density(x, mean, variance):
    return diagonal_gaussian_log_prob(x, np.full(1, mean), np.full(1, math.log(variance)))


def train_G(renew, steps):
    """G's path against a D* made anew every `renew` steps: rows of a, b, JSD(p‖p_g) and V(G, D)."""
    generator = Linear(1, 1)
    params = Parameters(Rng(0, "float64"), generator=generator)
    generator.W[...], generator.b[...] = START
    sgd = SGD(params, RATE)
    log_p, history = log_density(POINTS, MEAN, VARIANCE), []
    for step in range(steps + 1):
        a, b = generator.W.item(), generator.b.item()
        log_q = log_density(POINTS, b, a * a)
        if step % renew == 0:
            old_a, old_b = a, b
            on_grid = optimal_discriminator(log_p, log_q)[1]
        history.append((a, b, js(log_p, log_q, CELL), gan_value(on_grid, log_p, log_q, CELL)))

        params.zero_grad()
        x, back = generator.forward(Z, None)
        logits = log_density(x, MEAN, VARIANCE) - log_density(x, old_b, old_a**2)  # log p - log p_g: D*'s
        slope = (x - old_b) / old_a**2 - (x - MEAN) / VARIANCE  # in x
        _, d_logits = loss_G(logits[:, None], "minimax")
        back(d_logits * slope, inputs=False)
        sgd.step()
    return np.array(history)


def main(args):
    steps = 45 if args.quick else 900
    runs = {name: train_G(renew, steps) for name, renew in RENEWALS.items()}
    held = runs["held"]
    best = int(held[:, 2].argmin())
    for name, history in runs.items():
        print(f"D {name}: JSD {history[0, 2]:.4f}, least {history[:, 2].min():.4f} after", end=" ")
        print(f"{history[:, 2].argmin()} steps, at last {history[-1, 2]:.4f}; V(G, D) at last {history[-1, 3]:.3f}")
    print(f"held: G ends as N({held[-1, 1]:.3f}, {abs(held[-1, 0]):.3f}²); p = N({MEAN:g}, {VARIANCE:g})")
    first = log_density(POINTS, START[1], START[0] ** 2)
    D, logits = optimal_discriminator(log_density(POINTS, MEAN, VARIANCE), first)
    print(f"D₀* is greatest at x = {POINTS[logits.argmax(), 0]:.3f}")

    figure, axes = new_figure(13, 3.9, 1, 3)
    left, middle, right = axes[0]
    colours = dict(zip(RENEWALS, (RED, GREY, BLUE)))
    for name, history in runs.items():
        left.plot(history[:, 2], color=colours[name], label=f"D* {name}")
    left.plot(best, held[best, 2], "o", color=RED)
    left.axhline(math.log(2), color=GREY, linestyle=":")
    left.text(0, math.log(2) - 0.04, "log 2, the greatest possible", color=GREY, fontsize=9)
    left.set(xlabel="steps of G", ylabel="nats", ylim=(0, 0.75))
    left.set_title("the true JSD(p‖p_g)", fontsize=10)
    left.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(0, 0.75))
    middle.plot(held[:, 3], color=RED, label="V(G, D₀*): what G sees")
    middle.plot(2 * held[:, 2] - 2 * math.log(2), color=INK, label="-2 log 2 + 2 JSD of the same G: what is true")
    middle.axhline(-2 * math.log(2), color=GREY, linestyle=":")
    middle.text(0, -2 * math.log(2) - 0.25, "-2 log 2", color=GREY, fontsize=9)
    middle.set(xlabel="steps of G, D₀* held", ylabel="nats", ylim=(None, 1.2))
    middle.set_title("what the held D₀* says", fontsize=10)
    middle.legend(fontsize=8, frameon=False, loc="upper left")
    x = POINTS[:, 0]
    right.fill_between(x, np.exp(log_density(POINTS, MEAN, VARIANCE)), color=GREY, alpha=0.3, linewidth=0, label="p")
    moments = {0: GREY, best: BLUE, min(steps, best + (steps - best) // 3): RED}
    for step, colour in moments.items():
        a, b = held[step, :2]
        right.plot(x, np.exp(log_density(POINTS, b, a * a)), color=colour, label=f"p_g after {step} steps")
    right.plot(x, D, color=INK, linestyle="--", linewidth=1, label="D₀*")
    right.set(xlabel="x", ylabel="density; D₀*", xlim=(-6, 8), ylim=(0, 1.6))
    right.set_title("G runs through the data to where D₀* is greatest", fontsize=10)
    right.legend(fontsize=8, frameon=False, loc="upper left")
    save_figure(figure, args.out / "gan_held_discriminator.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "seed", "device"))
