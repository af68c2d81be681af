"""D's loss cannot tell a bad G from a good one while data and samples do not overlap.

Above: two lines at distance d. Their JSD is log 2 until they meet, and their Wasserstein distance W₁ is d; trained
networks find this. Below: digits of G after 1, 10 and 25 epochs, and real ones. They get better, and a fresh D still
tells nearly all from real ones.

Try `--data mnist`. Read scratchgen/nn/losses.py: loss_D; scratchgen/models/wgan.py.
"""

import math

import numpy as np
from common import accuracy, line, nearest, pictures, run, train, train_D

from scratchgen.backend import Rng, to_host
from scratchgen.models.gan import GAN
from scratchgen.models.wgan import WGAN
from scratchgen.nn.losses import loss_D
from scratchgen.plots import BLUE, INK, RED, new_figure, save_figure, show_images

DISTANCES, EPOCHS, LOG_2 = (1.0, 0.5, 0.25, 0.1, 0.05, 0.0), (1, 10, 25), math.log(2)


def two_lines(steps, seed):
    """For each of DISTANCES the JSD by a fresh D, and W₁ by a fresh critic; both on fresh points."""
    settings = {"n_features": 2, "hidden_D": (64, 64), "batch": 128, "lr_D": 3e-3, "decay_steps": steps}
    found = []
    for d in DISTANCES:
        D = GAN(**settings, r1=0.0, beta1=0.9, beta2=0.999).build(Rng(seed))
        C = WGAN(**settings, d_steps=1, beta1=0.5).build(Rng(seed))
        for model in (D, C):
            model.generator = lambda z, rng, d=d: line(len(z), d, rng)  # G is a line that stands still
            _, rng = train_D(model, lambda n, rng: line(n, 0, rng), steps, seed)
        data, made = line(10_000, 0, rng), line(10_000, d, rng)
        jsd = LOG_2 - float(loss_D(D.judge(data), D.judge(made))[0]) / 2
        found.append((jsd, float(C.discriminator(data).mean() - C.discriminator(made).mean())))
        print(
            f"lines {d:.2f} apart: JSD {LOG_2 if d else 0:.4f}, by the trained D {jsd:.4f}; "
            f"Wasserstein {d:.4f}, by the trained critic {found[-1][1]:.4f}"
        )
    return np.array(found)


def draw_lines(axes, found):
    for d in DISTANCES[:-1]:
        axes[0].plot(
            [d, d],
            [-1, 1],
            color=BLUE,
            alpha=0.35 + 0.65 * (d == 1),
            label="p_g at several distances" if d == 1 else None,
        )
    axes[0].plot([0, 0], [-1, 1], color=INK, label="data")
    axes[0].set(xlim=(-0.6, 1.6), ylim=(-1.2, 1.9), yticks=[-1, 0, 1], xlabel="x₁", ylabel="x₂")
    axes[0].set_title("two lines in the plane", fontsize=10)
    d = np.array(DISTANCES)
    axes[1].plot([0, 1], [LOG_2, LOG_2], color=INK, label="exact: log 2, and 0 where they meet")
    axes[1].plot([0], [0], "s", color=INK, markersize=9, fillstyle="none")
    axes[1].plot(d, found[:, 0], "o", color=RED, label="log 2 - loss / 2 of the trained D")
    axes[1].set(xlabel="distance of the lines", ylabel="JSD, nats", ylim=(-0.05, 1))
    axes[1].set_title("JSD: the same at every distance", fontsize=10)
    axes[2].plot([0, 1], [0, 1], color=INK, label="exact: the distance")
    axes[2].plot(d, found[:, 1], "o", color=RED, label="trained WGAN-GP critic")
    axes[2].set(xlabel="distance of the lines", ylabel="W₁", ylim=(-0.05, 1.25))
    axes[2].set_title("Wasserstein distance W₁: falls with it", fontsize=10)
    for axis in axes:
        axis.legend(fontsize=8, frameon=False, loc="upper left")


def digits(axes, data, args):
    """G after some epochs, and for each a fresh D."""
    settings = {
        "n_features": data.x_train.shape[1],
        "hidden_G": (128, 256),
        "r1": 0.3,
        "batch": 20,
        "lr_G": 1e-3,
        "lr_D": 1e-3,
    }
    kept, epochs = {}, args.epochs or EPOCHS[-1]

    def keep(model, row):
        if row["epoch"] in (*EPOCHS, epochs):
            kept[row["epoch"]] = model.average.average.copy()

    args.epochs = epochs  # also with --quick: this is a few seconds
    train(GAN(**settings, hidden_D=(256, 128)), data, args, 0, x_test=None, on_epoch=keep)
    steps = 200 if args.quick else 4_000
    slow = {"batch": 64, "r1": 0.0, "beta1": 0.9, "beta2": 0.999, "decay_steps": steps}
    for axis, (epoch, weights) in zip(axes, kept.items()):
        model = GAN(**settings | slow, hidden_D=(512, 256)).build(Rng(args.seed, device=args.device))
        model.params_G.theta[...] = weights
        model.params_G.changed()
        x, x_test = (model.rng(0).array(part) for part in (data.x_train, data.x_test))
        _, rng = train_D(model, lambda n, rng: x[rng.integers(len(x), n)], steps, args.seed)
        made = model.generator(rng.normal((len(x), model.n_latent)))
        far = nearest(to_host(made), data.x_train).mean()
        (loss, right), (loss_test, right_test) = (
            (float(loss_D(model.judge(real), model.judge(made))[0]), accuracy(model, real, made))
            for real in (x, x_test)
        )
        show_images(
            axis, to_host(made[:36]), data.shape, 9,
            f"G of epoch {epoch}: {far:.2f} from a real picture\n"
            f"a fresh D: {right:.1%} right, test {right_test:.1%}",
        )  # fmt: skip
        print(
            f"G of epoch {epoch}, {far:.2f} from the nearest training picture. Fresh D: loss {loss:.4f}, JSD "
            f"{LOG_2 - loss / 2:.4f}, right {right:.1%}; with test pictures: loss {loss_test:.3f}, right {right_test:.1%}"
        )
    far = nearest(data.x_test, data.x_train).mean()
    print(f"test pictures: {far:.2f} from the nearest training picture")
    show_images(axes[-1], data.x_test[:36], data.shape, 9, f"real test pictures:\n{far:.2f} from another real one")


def main(args):
    data = pictures(args)
    figure, axes = new_figure(13, 5.7, 2, 1, height_ratios=[1.3, 0.8])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec().subgridspec(1, n).subplots() for axis, n in zip(axes[:, 0], (3, 4)))
    draw_lines(above, two_lines(75 if args.quick else 1_500, args.seed))
    digits(below, data, args)
    save_figure(figure, args.out / "gan_jsd_stuck.png")


if __name__ == "__main__":
    run(main, __doc__)
