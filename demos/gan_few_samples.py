"""From few samples a strong D separates two overlapping clouds, because it learns the samples by heart.

D is trained on n points of each of two Gaussians, and its loss is read as a divergence, log 2 - loss / 2. With few
points that is nearly log 2, whatever the true JSD. On fresh points the same D is sure and wrong. With 1,000 points
every D comes near the truth.

Try `--seed 1`. Read scratchgen/nn/losses.py: loss_D.
"""

import math

import numpy as np
from common import accuracy, run, train_D

from scratchgen.backend import Rng
from scratchgen.metrics.divergences import grid, js
from scratchgen.models.gan import GAN
from scratchgen.nn.activations import sigmoid
from scratchgen.nn.distributions import gaussian_log_prob
from scratchgen.nn.losses import loss_D
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

SIZES, COUNTS, LOG_2 = (8, 32, 128), (20, 50, 200, 1_000, 5_000, 20_000), math.log(2)
SHOWN = 50  # points of each ellipse in the picture
SHAPE = np.array([[1.0, 0.0], [0.6, 0.5]])  # an ellipse is centre + ε SHAPE; the other one leans the other way
CENTRES, LEANS = ((-0.5, 0.0), (0.5, 0.0)), (1.0, -1.0)


def points(n, which, rng):
    """n points of ellipse 0 (data) or 1 (generated)."""
    return rng.array(CENTRES[which]) + rng.normal((n, 2)) @ rng.array(SHAPE * [1, LEANS[which]])


def log_density(x, which):
    """log N(x; centre, AᵀA), A = SHAPE."""
    A = SHAPE * [1, LEANS[which]]
    return gaussian_log_prob(x, np.array(CENTRES[which]), A.T @ A)


def learn(real, made, size, steps, seed):
    """A D of three layers of `size` units, trained on these points alone."""
    settings = {"hidden_D": (size, size, size), "r1": 0.0, "batch": 64, "lr_D": 3e-3, "beta1": 0.9, "beta2": 0.999}
    model = GAN(n_features=2, decay_steps=steps, **settings).build(Rng(seed))
    model.generator = lambda z, rng: made[rng.integers(len(made), len(z))]  # a "G" that draws from a fixed set
    train_D(model, lambda n, rng: real[rng.integers(len(real), n)], steps, seed)
    return model


def divergence(model, real, made):
    return LOG_2 - float(loss_D(model.judge(real), model.judge(made))[0]) / 2


def main(args):
    x, cell = grid(-6, 6, 600, 2)
    true = js(log_density(x, 0), log_density(x, 1), cell)
    print(f"true JSD {true:.4f} nats")
    rng = Rng((args.seed, 2))
    fresh = [points(20_000, which, rng) for which in (0, 1)]
    sets = {n: [points(n, which, rng) for which in (0, 1)] for n in COUNTS}
    found, strong = {}, None
    for size in SIZES:
        for n, (real, made) in sets.items():
            model = learn(real, made, size, 150 if args.quick else 3_000, args.seed)
            found[size, n] = divergence(model, real, made), divergence(model, *fresh)
            strong = model if (size, n) == (SIZES[-1], SHOWN) else strong
            print(
                f"{size:>4} units, {n:>6,} points: JSD {found[size, n][0]:.3f} on them, {found[size, n][1]:.3f} on others"
            )

    figure, axes = new_figure(13, 4.2, 1, 3)
    (left, middle, right), colours = axes[0], (BLUE, GREY, RED)
    real, made = sets[SHOWN]
    picture, _ = grid(-3, 3, 200, 2)
    logits = strong.judge(picture.astype(np.float32)).reshape(200, 200).T  # rows are y
    edges = np.linspace(-3, 3, 200)
    left.contourf(edges, edges, sigmoid(logits), levels=20, cmap="RdBu", alpha=0.5)
    best = (log_density(picture, 0) - log_density(picture, 1)).reshape(200, 200).T
    left.contour(edges, edges, best, levels=[0], colors=INK, linestyles="--")
    right_ones = accuracy(strong, real, made)
    for points_, colour, name in ((real, "navy", "data"), (made, "darkred", "generated")):
        left.plot(*points_.T, "o", color=colour, markersize=4, label=name)
    left.plot([], [], "--", color=INK, label="where the best D says ½")
    left.set(xlim=(-3, 3), ylim=(-3, 3), xlabel="x₁", ylabel="x₂")
    left.set_title(
        f"D of {SIZES[-1]} units, right on {right_ones:.0%} of {SHOWN} + {SHOWN} points\n(it says real where it is blue)",
        fontsize=10,
    )
    left.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16), columnspacing=1)
    for axis, which, name in ((middle, 0, "on the points it learned from"), (right, 1, "on fresh points")):
        for size, colour in zip(SIZES, colours):
            axis.plot(COUNTS, [found[size, n][which] for n in COUNTS], "o-", color=colour, label=f"3 layers of {size}")
        axis.axhline(true, color=INK, linestyle="--", label="true JSD")
        axis.axhline(LOG_2, color=INK, linestyle=":", label="log 2")
        axis.set(xscale="log", xlabel="points of each", ylabel="log 2 - loss / 2, nats")
        axis.set_title(f"JSD by D's loss {name}", fontsize=10)
        axis.legend(fontsize=8, frameon=False, loc="lower right" if which else "center right")
    save_figure(figure, args.out / "gan_few_samples.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
