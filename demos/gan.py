"""A GAN learns to write digits, and its losses do not tell how well.

Above: what G makes of the same 36 codes after several epochs. Below: both losses, which settle early; the Fréchet
distance to training pictures, which falls to that of real pictures; how often each digit is made. G never sees a
picture: its loss takes none.

Try `--data mnist` (minutes). Read scratchgen/models/gan.py, scratchgen/metrics/frechet.py.
"""

import numpy as np
from common import (
    DRAWS,
    beside,
    draw_distances,
    draw_floor,
    is_small,
    judge_of,
    measured,
    nearest,
    picture_path,
    pictures,
    run,
    train,
)
from recipes import gan_sizes

from scratchgen.backend import to_host
from scratchgen.models.gan import GAN
from scratchgen.plots import BLUE, GREY, new_figure, save_figure, show_curves, show_images


def main(args):
    data = pictures(args)
    judge = judge_of(data, "Fréchet distance and classes")
    small = is_small(data)
    model = GAN(**gan_sizes(data), r1=0.3 if small else 1.0)
    snapshots, n_measured = {}, min(2_000, len(data.x_test))  # as many generated as real ones: fewer are farther off

    def measure(model, rng, epoch):
        snapshots[epoch] = to_host(model.sample(36, model.rng((args.seed, 0, 2))))
        due = epoch % 10 == 0 or epoch < 10 or not small
        return judge.measure(model.sample(n_measured, rng)).columns() if judge and due else {}

    model, history = train(model, data, args, 7_500 if small else 15_000, measure=measure, x_test=None)
    seconds = sum(row["seconds"] for row in history)
    x = to_host(model.sample(10_000, model.rng((args.seed, 0, 3))))
    print(f"{len(history)} epochs in {seconds:.0f} s")
    if judge:
        classes, n = np.unique(data.labels_train), min(len(x), len(data.x_test))
        n_sets = min(DRAWS, len(x) // n)
        distance, shares = judge.measure(x[: n_sets * n], n), judge.classes(x)[classes]
        print(f"the classifier reads {judge.accuracy:.1%} of the test pictures")
        print(f"Fréchet distance of {n} samples {beside(distance, judge.floor(n))}")
        print(f"the rarest digit is {classes[shares.argmin()]}, {shares.min():.1%} of the samples")
    found, test = (nearest(part[:300], data.x_train).mean() for part in (x, data.x_test))
    print(f"distance to the nearest training picture {found:.2f}, of test pictures {test:.2f}")

    n_epochs = len(history)
    shown = sorted({round(n_epochs ** (i / 4)) for i in range(5)})
    figure, axes = new_figure(2.2 * 6, 5.2, 2, 1, height_ratios=[1, 1])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = axes[0, 0].get_subplotspec(), axes[1, 0].get_subplotspec()
    sheets = {f"after epoch {epoch}": snapshots[epoch] for epoch in shown} | {"real test pictures": data.x_test[:36]}
    for place, (title, sheet) in zip(above.subgridspec(1, 6), sheets.items()):
        show_images(figure.add_subplot(place), sheet, data.shape, 6, title, pixels=40)
    left, *others = (figure.add_subplot(place) for place in below.subgridspec(1, 3 if judge else 1))
    epochs = [row["epoch"] for row in history]
    losses = {name: [row[f"{name}_loss"] for row in history] for name in ("discriminator", "generator")}
    show_curves(left, epochs, losses, "losses", "epoch", "nats")
    if judge:
        middle, right = others
        draw_distances(middle, *measured(history), BLUE, "samples")
        draw_floor(middle, judge.floor(n_measured))
        middle.set(yscale="log", xlabel="epoch", ylabel="Fréchet distance, squared")
        middle.set_title(f"how far {n_measured:,} samples are from real ones", fontsize=10)
        middle.legend(fontsize=8, frameon=False)
        right.bar(np.arange(len(classes)), shares, color=BLUE)
        right.axhline(1 / len(classes), color=GREY, linestyle="--", label="evenly")
        right.set_xticks(np.arange(len(classes)), classes)
        right.set(xlabel="digit, as the classifier reads it", ylabel="share of the samples")
        right.set_ylim(0, 1.3 * max(shares.max(), 1 / len(classes)))
        right.set_title("how often each digit is made", fontsize=10)
        right.legend(fontsize=8, frameon=False, loc="upper right")
    save_figure(figure, picture_path(args, "gan"))


if __name__ == "__main__":
    run(main, __doc__)
