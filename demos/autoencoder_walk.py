"""On a walk through an autoencoder's code plane one digit turns into another.

The code of a picture is two numbers, drawn in units of their standard deviation. Left: codes of training pictures and
the walk from (-1.5, 0) to (1.5, 0). Right: what each point of the plane decodes to. Below: the pictures on the walk,
and the training picture nearest to each. Those between two digits need not be digits.

Try `--data mnist`. Read scratchgen/models/autoencoder.py.
"""

import numpy as np
from common import pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.plots import INK, new_figure, save_figure, show_images, show_points


def main(args):
    data = pictures(args)
    model = AutoEncoder(
        n_features=data.x_train.shape[1], hidden=(256, 128), n_latent=2, batch=50, likelihood="bernoulli"
    )
    model, _ = train(model, data, args, steps=12_000)
    rng = model.rng(0)
    codes = to_host(model.encode(rng.array(data.x_train[:3000])))
    mean, std = codes.mean(axis=0), np.maximum(codes.std(axis=0), 1e-6)

    def decode(points):
        return to_host(model.decode(rng.array(mean + std * np.asarray(points))))

    walk = np.stack([np.linspace(-1.5, 1.5, 13), np.zeros(13)], axis=1)
    ticks = np.linspace(-1.8, 1.8, 13)
    plane = np.array([(a, b) for b in ticks[::-1] for a in ticks])

    figure, axes = new_figure(9.6, 6.8, 2, 2, height_ratios=[2.9, 1])
    labels = None if data.labels_train is None else data.labels_train[:3000]
    show_points(
        axes[0, 0], (codes - mean) / std, labels, "codes of training pictures; the walk in black", 6, names=("z₁", "z₂")
    )
    axes[0, 0].plot(*walk.T, "o-", color=INK, markersize=3)
    show_images(axes[0, 1], decode(plane), data.shape, 13, "what each point of the plane decodes to")
    show = [(0, "-1.8"), (6, "0"), (12, "1.8")]
    step = axes[0, 1].images[0].get_array().shape[0] / 13
    axes[0, 1].set_xticks([(i + 0.5) * step for i, _ in show], [word for _, word in show])
    axes[0, 1].set_yticks([(12.5 - i) * step for i, _ in show], [word for _, word in show])
    axes[0, 1].set(xlabel="z₁", ylabel="z₂")
    for axis in axes[1]:
        axis.remove()
    below, decoded = figure.add_subplot(axes[1, 0].get_gridspec()[1, :]), decode(walk)
    squares = (decoded**2).sum(axis=1)[:, None] - 2 * decoded @ data.x_train.T + (data.x_train**2).sum(axis=1)
    sheet, rows = np.concatenate([decoded, data.x_train[squares.argmin(axis=1)]]), ("on the walk", "nearest real one")
    show_images(below, sheet, data.shape, 13, "from code (-1.5, 0) to code (1.5, 0)", rows)
    save_figure(figure, args.out / "autoencoder_walk.png")


if __name__ == "__main__":
    run(main, __doc__)
