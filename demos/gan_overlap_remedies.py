"""Noise on D's inputs, flipped labels and R1 each help a G that D sees through.

Above: two lines do not overlap. Noise on D's inputs widens them, so that their JSD gets a slope. Flipped labels leave
the JSD as it is and bound D's logit. Below: a GAN on a ring of eight modes that fails, and what each remedy makes of
it, for three seeds, also those that hardly help.

Compare gan_jsd_stuck.py. Read scratchgen/models/gan.py.
"""

import math

import numpy as np
from common import line, run, train_D

from scratchgen.backend import Rng
from scratchgen.data import TOYS
from scratchgen.metrics.coverage import coverage
from scratchgen.metrics.divergences import grid, js
from scratchgen.models.gan import GAN
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.nn.losses import loss_D
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.train.progress import told
from scratchgen.train.threads import blas_threads

RING, SCALE, LOG_2, DISTANCE = TOYS["ring"], math.sqrt(2), math.log(2), 0.25
FAILING = {
    "adversarial_loss": "minimax",
    "d_steps": 5,
    "r1": 0.0,
    "beta1": 0.5,
    "beta2": 0.999,
    "lr_G": 1e-3,
    "lr_D": 1e-3,
}
FAILING |= {"n_features": 2, "n_latent": 2, "hidden_G": (64, 64), "hidden_D": (64, 64), "output": "linear"}
FADING = 0.8  # of the rounds
REMEDIES = {
    "none": {},
    "input noise, fading": {"noise": 0.5},
    "... on half the numbers": {"noise": 0.5, "spared": 0.5},
    "label noise, fading": {"label_noise": 0.2},
    "smoothed labels": {"label_smoothing": 0.1},
    "fewer steps of D": {"d_steps": 1},
    "slower D": {"lr_D": 1e-4},
    "dropout in D": {"dropout": 0.3},
    "R1": {"r1": 0.1},
}


def blurred_js(d, sigma, spared=0.0):
    """The JSD of two lines d apart under noise: along the lines nothing differs, so it is that of N(0, σ²) and N(d, σ²).

    The points that noise spares stay on two lines that do not meet, and are told apart for certain: log 2 each.
    """
    x, cell = grid(-8 * sigma, d + 8 * sigma, 2_000)
    log_var = np.full(1, 2 * math.log(sigma))
    noisy = js(*(diagonal_gaussian_log_prob(x, centre, log_var) for centre in (0, d)), cell)
    return spared * (LOG_2 if d else 0) + (1 - spared) * noisy


def line_D(steps, seed, **settings):
    """D trained on two lines. Returns its loss with true labels, its loss as trained, and its mean |logit|."""
    model = GAN(n_features=2, hidden_D=(64, 64), r1=0.0, lr_D=3e-3, beta1=0.9, decay_steps=steps, **settings).build(
        Rng(seed)
    )
    model.generator = lambda z, rng: line(len(z), DISTANCE, rng)
    losses, rng = train_D(model, lambda n, rng: line(n, 0, rng), steps, seed)
    real, made = model.judge(line(5_000, 0, rng)), model.judge(line(5_000, DISTANCE, rng))
    return (
        float(loss_D(real, made)[0]),
        np.mean(losses[-steps // 4 :], dtype=np.float64),
        float(np.abs([real, made]).mean()),
    )


def entropy(e):
    return -e * np.log(e) - (1 - e) * np.log(1 - e)


def theory(axes, args):
    steps, sigma = 60 if args.quick else 800, np.linspace(0.005, 0.6, 80)
    for spared, colour in ((0.0, BLUE), (0.25, GREY), (0.5, RED)):
        values = [blurred_js(DISTANCE, s, spared) for s in sigma]
        axes[0].plot(sigma, values, color=colour, label=f"noise spares {spared:.0%} of the numbers")
        print(
            f"lines {DISTANCE} apart, noise of σ = 0.3 sparing {spared:.0%}: JSD {blurred_js(DISTANCE, 0.3, spared):.4f}"
        )
    axes[0].set(xlabel="σ of the noise on D's inputs", ylabel="exact JSD, nats", ylim=(0, 1))
    axes[0].set_title(f"two lines {DISTANCE} apart", fontsize=10)
    distance = np.linspace(0, 1, 101)
    for s, colour in ((0.3, BLUE), (0.1, GREY), (0.02, RED)):
        axes[1].plot(distance, [blurred_js(d, s) for d in distance], color=colour, label=f"input noise, σ = {s}")
    axes[1].plot(
        [0, 1], [LOG_2 - entropy(0.2)] * 2, color=INK, linestyle="--", label="labels flipped, ε = 0.2: no slope"
    )
    axes[1].set(xlabel="distance of the lines", ylabel="exact JSD, nats", ylim=(0, 1))
    axes[1].set_title("noise on inputs gives the JSD a slope", fontsize=10)
    e = np.linspace(0.005, 0.4, 200)
    axes[2].plot(e, np.log((1 - e) / e), color=INK, label="the best D's |logit|, log((1 - ε)/ε)")
    axes[2].plot(e, 2 * entropy(e), color=BLUE, label="the best D's loss, 2 H(ε)")
    for flip in (0.01, 0.05, 0.1, 0.2, 0.3):
        _, loss, logit = line_D(steps, args.seed, label_noise=flip)
        print(
            f"labels flipped with ε = {flip}: trained D's |logit| {logit:.2f}, best {math.log((1 - flip) / flip):.2f}; "
            f"its loss {loss:.3f}, best {2 * entropy(flip):.3f}"
        )
        axes[2].plot(flip, logit, "o", color=INK)
        axes[2].plot(flip, loss, "o", color=BLUE)
    axes[2].set(xlabel="probability ε of a flipped label", ylabel="|logit|; loss, nats", ylim=(0, 6.5))
    axes[2].set_title("flips bound D's logit (dots: a trained D)", fontsize=10)
    for axis in axes:
        axis.legend(fontsize=8, frameon=False, loc="upper right" if axis is axes[2] else "upper left")
    for n, settings in ((steps, {}), (steps // 20, {}), (steps, {"dropout": 0.5})):
        true_labels, as_trained, _ = line_D(n, args.seed, **settings)
        loss = as_trained if settings else true_labels
        print(f"D after {n} steps {settings or ''}: JSD {LOG_2 - loss / 2:.3f} by its loss, truly {LOG_2:.3f}")


def one_ring(name, rounds, seed):
    """Samples of the failing GAN with one of REMEDIES, its coverage, and D's mean loss over the last tenth."""
    model = GAN(
        **FAILING | {"decay_steps": rounds, "noise_steps": int(FADING * rounds), "averaging": 0.99} | REMEDIES[name]
    )
    model.build(Rng(seed))
    rng, losses = model.rng((seed, 1)), []
    with blas_threads(1):
        for _ in told(range(rounds), f"{name}, seed {seed}: round"):
            losses.append(
                model.train_step(SCALE * RING.sample(model.examples_per_step, rng), rng)["discriminator_loss"]
            )
    x = model.sample(2_500, rng) / SCALE
    return x, coverage(x, RING.centres, RING.sigma), float(np.mean(losses[-rounds // 10 :]))


def practice(axes, args):
    rounds, seeds = 75 if args.quick else 1_500, range(args.seed, args.seed + 3)
    pictures = {}
    for row, name in enumerate(REMEDIES):
        found = [one_ring(name, rounds, seed) for seed in seeds]
        pictures[name] = found[-1][0]
        modes, quality = ([c[key] for _, c, _ in found] for key in ("modes", "high_quality"))
        colour = INK if name == "none" else BLUE
        axes[0].plot(modes, [row + 0.15 * (i - 1) for i in range(3)], "o", color=colour)
        axes[1].plot(quality, [row] * 3, "o", color=colour)
        print(
            f"{name:<24} modes {modes}, within 3σ {[f'{q:.0%}' for q in quality]}, mean {np.mean(quality):.0%}; "
            f"loss of D {np.mean([loss for *_, loss in found]):.2f}".replace("'", "")
        )
    for axis in axes[:2]:
        axis.set_yticks(range(len(REMEDIES)), REMEDIES if axis is axes[0] else [])
        axis.invert_yaxis()
        axis.grid(color="0.92")
    axes[0].set(xlim=(-0.4, 8.4), xlabel="modes")
    axes[0].set_title("modes hit, of 8; three seeds", fontsize=10)
    axes[1].set(xlim=(0, 1), xlabel="share of the points")
    axes[1].set_title("samples within 3σ of a mode; three seeds", fontsize=10)
    real = RING.sample(400, Rng(0))
    for i, name in enumerate(("none", "label noise, fading")):
        for centre in RING.centres:
            axes[2].plot(centre[0] + 3.2 * i, centre[1], "o", color=GREY, fillstyle="none", markersize=9)
        axes[2].scatter(real[:, 0] + 3.2 * i, real[:, 1], s=2, color=GREY, linewidths=0)
        x = pictures[name][np.abs(pictures[name]).max(axis=1) < 1.5]  # what lies further would lie in the other picture
        axes[2].scatter(x[:, 0] + 3.2 * i, x[:, 1], s=2, color=BLUE, linewidths=0)
        axes[2].text(3.2 * i, 1.6, name, ha="center")
    axes[2].set(aspect="equal", xlim=(-1.6, 4.8), ylim=(-1.8, 2), xticks=[], yticks=[])
    axes[2].set_title("third seed: samples (blue), real points (grey)", fontsize=10)


def main(args):
    figure, axes = new_figure(13, 7, 2, 3)
    theory(axes[0], args)
    practice(axes[1], args)
    save_figure(figure, args.out / "gan_overlap_remedies.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
