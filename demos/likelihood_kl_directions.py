"""A Gaussian q fitted to two modes covers both by KL(p‖q) and picks one by KL(q‖p).

KL(p‖q) = ∫ p log(p/q) punishes p without q, so q spreads over both modes. KL(q‖p) = ∫ q log(q/p) punishes q without p,
so q shrinks into the nearer mode, or stays stuck between the two. This does not explain mode collapse: a GAN's loss is
neither KL (gan_generator_losses.py).

Compare gan_mode_collapse.py. Read scratchgen/metrics/divergences.py: kl, reverse_kl.
"""

import math

import numpy as np
from common import run

from scratchgen.check.gradcheck import check_loss
from scratchgen.data.toys import TOYS
from scratchgen.metrics.divergences import grid, kl, reverse_kl
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

POINTS, CELL = grid(-16, 16, 1_600)
X = POINTS[:, 0]
LOG_P = TOYS["two_modes"].log_density(POINTS)  # ½ N(-2, ½²) + ½ N(2, ½²)
STARTS, RATE = (-3.0, -0.5, 0.1, 0.5, 3.0), 0.02


def gaussian(mu, log_var):
    """log q on the grid, and s, its slopes in mu and in log_var."""
    square = (X - mu) ** 2 * np.exp(-log_var)
    return -0.5 * (square + log_var + math.log(2 * math.pi)), (X - mu) * np.exp(-log_var), 0.5 * (square - 1)


def forward(mu, log_var):
    """KL(p‖q), ∂/∂mu, ∂/∂log_var, all (1,) but the first."""
    log_q, *slopes = gaussian(mu, log_var)
    p = CELL * np.exp(LOG_P)
    return (p * (LOG_P - log_q)).sum(), *(-(p * s).sum(keepdims=True) for s in slopes)


def reverse(mu, log_var):
    """KL(q‖p) likewise. On a grid Σ q is only nearly 1, so the 1 of ∂(q log q) = q s (log q + 1) stays."""
    log_q, *slopes = gaussian(mu, log_var)
    q = CELL * np.exp(log_q)
    return (q * (log_q - LOG_P)).sum(), *((q * s * (log_q - LOG_P + 1)).sum(keepdims=True) for s in slopes)


def descend(f, mu, steps):
    """[(mu, log_var, KL), ...] of plain gradient descent from N(mu, 1)."""
    mu, log_var, rows = np.array([mu]), np.zeros(1), []
    for _ in range(steps + 1):
        value, d_mu, d_log_var = f(mu, log_var)
        rows.append((mu.item(), log_var.item(), value))
        mu, log_var = mu - RATE * d_mu, log_var - RATE * d_log_var
    return np.array(rows)


def main(args):
    steps = 150 if args.quick else 3_000
    for f in (forward, reverse):
        print(check_loss(f, np.array([0.3]), np.array([0.2])))
    mean = (np.exp(LOG_P) * X).sum() * CELL
    print(f"p: mean {abs(mean):.4f}, log variance {math.log((np.exp(LOG_P) * (X - mean) ** 2).sum() * CELL):.4f}")
    figure, axes = new_figure(13, 3.9, 1, 3)
    titles = {forward: "least KL(p‖q): covers", reverse: "least KL(q‖p): picks, or is stuck between"}
    for axis, f, colour, name in ((axes[0, 0], forward, BLUE, "KL(p‖q)"), (axes[0, 1], reverse, RED, "KL(q‖p)")):
        axis.fill_between(X, np.exp(LOG_P), color=GREY, alpha=0.3, linewidth=0, label="p")
        for start in STARTS:
            rows = descend(f, start, steps)
            mu, log_var = rows[-1, :2]
            log_q = gaussian(mu, log_var)[0]
            covers, picks = kl(LOG_P, log_q, CELL), reverse_kl(LOG_P, log_q, CELL)
            q = f"N({round(mu, 3) + 0.0:.3f}, {math.exp(log_var):.3f})"  # + 0.0: no -0.000
            print(f"{name} from {start:4}: q = {q}, KL(p‖q) {covers:.4f}, KL(q‖p) {picks:.4f}")
            label = "q, from each start" if start == STARTS[0] else None
            style = "--" if f is reverse and abs(mu) < 1 else "-"
            axis.plot(X, np.exp(log_q), color=colour, linestyle=style, label=label)
            axis.plot(
                start, -0.02, "^", color=INK, markersize=5, clip_on=False, label="where q started" if label else None
            )
            label = f"{name} from {len(STARTS)} starts" if label else None
            axes[0, 2].plot(rows[:, 2], color=colour, linewidth=1, label=label)
        axis.set(xlabel="x", ylabel="density", xlim=(-5.5, 5.5), ylim=(-0.02, 1.1))
        axis.set_title(titles[f], fontsize=10)
        axis.legend(fontsize=8, frameon=False, loc="upper left")
    axes[0, 2].axhline(math.log(2), color=GREY, linestyle=":", label="log 2: one of two modes left out")
    axes[0, 2].set(xlabel="steps", ylabel="nats", xlim=(0, min(steps, 400)), ylim=(0, 6.5))
    axes[0, 2].set_title("the KL that q descends", fontsize=10)
    axes[0, 2].legend(fontsize=8, frameon=False, loc="upper right")
    save_figure(figure, args.out / "likelihood_kl_directions.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "seed", "device"))
