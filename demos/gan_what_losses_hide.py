"""Losses do not tell how good G is: D may be fooled because it is weak.

Above: two GANs have much the same losses, and only one makes useful samples. Below: D against a frozen G. A bad G fools
a linear D; a larger D sees through it. A G that makes one perfect mode fools that larger D; only a D trained against
this G sees what is missing.

Try `--seed 1`. Read scratchgen/models/gan.py, scratchgen/metrics/coverage.py.
"""

import math

import numpy as np
from common import accuracy, run, train, train_D

from scratchgen.backend import Rng
from scratchgen.data import load
from scratchgen.metrics.coverage import coverage
from scratchgen.metrics.divergences import sliced_wasserstein
from scratchgen.models.gan import GAN
from scratchgen.nn.activations import sigmoid
from scratchgen.nn.losses import loss_D, loss_G
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

SCALE, LOG_2 = math.sqrt(2), math.log(2)  # SCALE gives the ring unit variance along each axis
POINTS = {"n_features": 2, "output": "linear", "batch": 128, "lr_G": 1e-3, "lr_D": 1e-3}
WIDE = {"n_latent": 2, "hidden_G": (128, 128, 128), "hidden_D": (128, 128, 128), "averaging": 0.0}
RUNS = {  # name: model, whether the rates fall to 0
    "with R1": (GAN(**POINTS | WIDE, r1=0.1), True),
    "a slow D": (
        GAN(**POINTS | {"lr_D": 1e-4}, n_latent=64, hidden_G=(128, 128), hidden_D=(128, 128), r1=0.0, beta1=0.5,
            beta2=0.999, averaging=0.0), False,
    ),
}  # fmt: skip


def trained(name, data, args):
    """Train one of RUNS; its history has D's accuracy and three measures of the samples beside the losses."""
    model, falling = RUNS[name]

    def measure(model, rng, epoch):
        made = model.sample(2_000, rng)
        found = coverage(made / SCALE, data.toy.centres, data.toy.sigma)
        found["w1"] = sliced_wasserstein(made, data.x_test, rng, 50)
        return found | {"accuracy": accuracy(model, data.x_test, made)}

    _, history = train(model, data, args, 3_500, falling=falling, x_test=None, measure=measure)
    return {key: np.array([row[key] for row in history]) for key in history[0]}


def against(made, data, hidden, steps, seed):
    """A D with these hidden layers trained against a frozen G, which draws from the points `made`."""
    model = GAN(**POINTS | {"lr_D": 2e-3}, hidden_D=hidden, r1=0.0, decay_steps=steps, beta1=0.9).build(Rng(seed))
    model.generator = lambda z, rng: made[rng.integers(len(made), len(z))]
    train_D(model, lambda n, rng: data.x_train[rng.integers(len(data.x_train), n)], steps, seed)
    return model


def picture(axis, model, data, made, name):
    """D as a map with the points on it; prints and writes its accuracy and both losses."""
    edges = np.linspace(-3, 3, 120, dtype=np.float32)
    x, y = np.meshgrid(edges, edges)
    logits = model.judge(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(120, 120)
    axis.contourf(edges, edges, sigmoid(logits), levels=np.linspace(0, 1, 11), cmap="PRGn", alpha=0.6)
    axis.plot(*data.x_test[:400].T, ".", color=GREY, markersize=3)
    axis.plot(*made[:400].T, ".", color=BLUE, markersize=3)
    axis.plot(*(SCALE * data.toy.centres.T), "o", color=INK, fillstyle="none", markersize=8)
    axis.set(aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[])
    real, fake = model.judge(data.x_test), model.judge(made)
    found = coverage(made / SCALE, data.toy.centres, data.toy.sigma)
    right, d, g = accuracy(model, data.x_test, made), float(loss_D(real, fake)[0]), float(loss_G(fake)[0])
    axis.set_title(f"{name}\naccuracy {right:.0%}, D's loss {d:.2f}, G's {g:.2f}", fontsize=9)
    print(
        f"{name}: accuracy {right:.1%}, D's loss {d:.3f}, G's loss {g:.3f}; G hits {found['modes']} modes, "
        f"{found['high_quality']:.0%} of its points within 3σ"
    )


def main(args):
    data = load("ring", args.seed)
    data.x_train, data.x_test, data.labels_train = SCALE * data.x_train, SCALE * data.x_test, None
    figure, axes = new_figure(13.5, 7.8, 2, 4)
    for i, name in enumerate(RUNS):
        h = trained(name, data, args)
        losses, hidden = axes[0, 2 * i : 2 * i + 2]
        losses.axhline(2 * LOG_2, color=GREY, linewidth=0.7, linestyle=":")
        lines = {"discriminator_loss": (RED, "D's loss (dotted: 2 log 2)"), "generator_loss": (BLUE, "G's loss")}
        for key, (colour, label) in (lines | {"accuracy": (INK, "D's accuracy")}).items():
            losses.plot(h["epoch"], h[key], color=colour, label=label)
        losses.set(ylim=(0, 2.5), xlabel="epoch", ylabel="loss, nats; accuracy")
        losses.set_title(f"{name}: what the losses say", fontsize=10)
        lines = {"modes": (GREY, "modes / 8"), "high_quality": (BLUE, "points within 3σ")}
        for key, (colour, label) in (lines | {"w1": (RED, "sliced Wasserstein distance")}).items():
            hidden.plot(h["epoch"], h[key] / (8 if key == "modes" else 1), color=colour, label=label)
        hidden.set(ylim=(0, 1.5), xlabel="epoch", ylabel="share; distance")
        hidden.set_title(f"{name}: what the samples are worth", fontsize=10)
        for axis in (losses, hidden):
            axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15))
        quarter = len(h["epoch"]) // 4
        for part, where in (("after a quarter", slice(quarter, quarter + 4)), ("at the end", slice(-4, None))):
            print(
                f"{name}, {part} (mean of 4 epochs): D's loss {h['discriminator_loss'][where].mean():.2f}, G's "
                f"{h['generator_loss'][where].mean():.2f}, accuracy {h['accuracy'][where].mean():.0%}; modes "
                f"{h['modes'][where].mean():.1f}, within 3σ {h['high_quality'][where].mean():.0%}, "
                f"sliced W₁ {h['w1'][where].mean():.3f}"
            )

    rng, steps = Rng((args.seed, 5)), 75 if args.quick else 1_500
    cloud = rng.normal((10_000, 2))  # of the data's mean and variance
    mode = (SCALE * (data.toy.centres[1] + data.toy.sigma * rng.normal((10_000, 2)))).astype(np.float32)
    weak, strong = (against(cloud, data, hidden, steps, args.seed) for hidden in ((), (128, 128, 128)))
    words = "Below: samples (blue), real points (grey, in circles); green: D says real; violet: generated"
    figure.supxlabel(words, fontsize=10)
    picture(axes[1, 0], weak, data, cloud, "a bad G before a linear D")
    picture(axes[1, 1], strong, data, cloud, "the same G before a large D")
    picture(axes[1, 2], strong, data, mode, "one perfect mode before that large D")
    picture(
        axes[1, 3], against(mode, data, (128, 128, 128), steps, args.seed), data, mode, "... before a D trained on it"
    )
    save_figure(figure, args.out / "gan_what_losses_hide.png")


if __name__ == "__main__":
    run(main, __doc__, data="ring", ignores=("data", "device"))
