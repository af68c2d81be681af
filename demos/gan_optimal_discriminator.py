"""A trained D becomes p/(p + q), and its value gives the Jensen-Shannon divergence.

q is p moved to the right. For each shift a fresh network learns to tell samples of p and q apart; it never sees a
density. Above: what it learned for three shifts. Below: the value V(G, D) it reached, beside the greatest possible, -2
log 2 + 2 JSD(p‖q).

Try `--seed 1`. Read scratchgen/metrics/divergences.py.
"""

import math

import numpy as np
from common import run
from threadpoolctl import threadpool_limits

from scratchgen.backend import Rng
from scratchgen.data.toys import Mixture
from scratchgen.metrics.divergences import gan_value, grid, js, optimal_discriminator
from scratchgen.nn.activations import Tanh
from scratchgen.nn.layers import mlp
from scratchgen.nn.losses import loss_D
from scratchgen.nn.optim import Adam
from scratchgen.nn.parameters import Parameters
from scratchgen.nn.schedules import cosine
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.train.progress import told

SHIFTS, SHOWN = (6, 5, 4, 3, 2.5, 2, 1.5, 1, 0.5, 0), (5, 1.5, 0)
POINTS, CELL = grid(-5, 12, 1700)
LOWEST = -2 * math.log(2)


def bumps(shift):
    return Mixture("bumps", 0.5, [[shift - 0.9], [shift + 0.9]], [0.6, 0.4])


@threadpool_limits.wrap(limits=1, user_api="blas")  # more threads only get in each other's way on so small a network
def train_D(p, q, steps, seed, batch=512):
    """The logits on POINTS of a fresh network, trained on samples of p (real) and q (generated)."""
    rng = Rng(seed)
    network = mlp([1, 32, 32, 1], Tanh)
    params = Parameters(rng, network=network)
    adam = Adam(params, cosine(1e-2, steps))  # down to 0: the noise of the batches would hide how near it comes
    for _ in told(range(steps), "step of D"):
        params.zero_grad()
        real, back_real = network.forward(p.sample(batch, rng), rng)
        fake, back_fake = network.forward(q.sample(batch, rng), rng)
        _, d_real, d_fake = loss_D(real, fake)
        back_real(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        adam.step()
    return network(rng.array(POINTS))[:, 0]


def main(args):
    steps = 100 if args.quick else 2_500
    p = bumps(0)
    log_p = p.log_density(POINTS)
    figure, axes = new_figure(12, 6.2, 2, 3)
    top, (left, middle, right) = axes
    rows = []
    print("shift  JSD     V*       V        mean |D - D*|")
    for shift in SHIFTS:
        q = bumps(shift)
        log_q = q.log_density(POINTS)
        best, best_logits = optimal_discriminator(log_p, log_q)
        logits = train_D(p, q, steps, (args.seed, int(10 * shift)))
        D = 1 / (1 + np.exp(-logits.astype(np.float64)))
        jsd, v = js(log_p, log_q, CELL), gan_value(logits, log_p, log_q, CELL)
        v_best = gan_value(best_logits, log_p, log_q, CELL)
        distance = float((0.5 * (np.exp(log_p) + np.exp(log_q)) * np.abs(D - best)).sum() * CELL)
        rows.append((shift, jsd, v_best, v, distance))
        print(f"{shift:<5}  {jsd:.4f}  {v_best:.4f}  {v:.4f}  {distance:.4f}")

        if shift in SHOWN:
            axis = top[SHOWN.index(shift)]
            for log_density, colour, name in ((log_p, BLUE, "p, the data"), (log_q, RED, "q, generated")):
                axis.fill_between(POINTS[:, 0], np.exp(log_density), color=colour, alpha=0.25, linewidth=0, label=name)
            axis.plot(POINTS, best, color=INK, linewidth=3, alpha=0.35, label="D* = p / (p + q)")
            axis.plot(POINTS, D, color=INK, linestyle="--", linewidth=1.2, label="D, trained on samples")
            axis.set(xlim=(-3, 4 + shift), ylim=(-0.03, 1.05), xlabel="x", ylabel="density; D")
            where = f"q moved by {shift}" if shift else "q = p"
            axis.set_title(f"{where}: JSD {jsd:.3f}, mean |D - D*| {distance:.4f}", fontsize=10)
    shifts, jsds, best_values, values, distances = np.array(rows).T
    lacks = best_values - values
    print(f"farthest from D*: {distances.max():.4f}; V lies below V* by {lacks.min():.1e} to {lacks.max():.1e}")

    top[0].legend(fontsize=8, frameon=False, loc="upper right")
    for level, name in ((0, "0"), (LOWEST, "-2 log 2")):
        left.axhline(level, color=GREY, linestyle=":")
        left.text(6, level + 0.03, name, ha="right", color=GREY, fontsize=9)
    fine = np.linspace(0, max(SHIFTS), 61)
    exact = [LOWEST + 2 * js(log_p, bumps(shift).log_density(POINTS), CELL) for shift in fine]
    left.plot(fine, exact, color=INK, linewidth=3, alpha=0.35, label="V* = -2 log 2 + 2 JSD, exact")
    left.plot(shifts, values, "o", color=BLUE, markersize=4, label="V(G, D) of the trained D")
    left.set(xlabel="shift of q", ylabel="V, nats", ylim=(-1.5, 0.2))
    left.set_title("the value, and its bounds", fontsize=10)
    left.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.15))
    middle.plot(jsds, best_values, color=INK, linewidth=3, alpha=0.35, label="-2 log 2 + 2 JSD")
    middle.plot(jsds, values, "o", color=BLUE, markersize=4, label="V(G, D) of the trained D")
    middle.set(xlabel="JSD(p‖q) in nats; at most log 2 = 0.693", ylabel="V, nats")
    middle.set_title("the value against the JSD", fontsize=10)
    middle.legend(fontsize=8, frameon=False, loc="upper left")
    right.plot(shifts, distances, "o-", color=BLUE, markersize=4, label="mean |D - D*|")
    right.plot(shifts, lacks, "s-", color=RED, markersize=4, label="V* - V, nats")
    right.set(xlabel="shift of q", ylabel="difference", ylim=(0, None))
    right.set_title("what the trained D lacks", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    save_figure(figure, args.out / "gan_optimal_discriminator.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
