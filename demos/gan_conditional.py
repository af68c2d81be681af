"""A conditional GAN makes the digit it is asked for.

Left: ten rows, one digit each; beside them real ones. Right: the Fréchet distance while training, beside that of a
plain GAN of the same size. Printed: how often a classifier reads the digit asked for, and how different the pictures
of one digit are, compared with real ones.

Try `--data mnist` (minutes). Read scratchgen/models/conditional_gan.py.
"""

import numpy as np
from common import (
    DRAWS,
    beside,
    draw_distances,
    draw_floor,
    is_small,
    measured,
    picture_path,
    pictures,
    run,
    spread,
    train,
)
from recipes import gan_sizes

from scratchgen.backend import to_host
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.gan import GAN
from scratchgen.plots import BLUE, RED, new_figure, save_figure, show_images


def main(args):
    data = pictures(args, of_each=2)
    judge, classes = FrechetJudge(data), np.unique(data.labels_train)
    small = is_small(data)
    sizes = {"n_latent": 64, "hidden_D": (256, 256), "r1": 0.3 if small else 1.0} | gan_sizes(data)
    histories, ends, n = {}, {}, min(2_000, len(data.x_test))

    def measure(model, rng, epoch):
        return judge.measure(model.sample(n, rng)).columns() if not small or epoch % 10 == 1 else {}

    for name, model in (("plain", GAN(**sizes)), ("conditional", ConditionalGAN(**sizes, n_classes=data.n_classes))):
        steps = 5_000 if small else 7_500
        model, histories[name] = train(model, data, args, steps, measure=measure, x_test=None)
        ends[name] = judge.measure(to_host(model.sample(DRAWS * n, model.rng((args.seed, 0, 3)))), n)
    asked = np.repeat(classes, 100)
    rng = model.rng((args.seed, 0, 2))
    x = to_host(model.generate(rng.array(asked), rng))
    right = judge.read(x) == asked
    by_class = right.reshape(-1, 100).mean(axis=1)
    seconds = {name: sum(row["seconds"] for row in history) for name, history in histories.items()}
    print(f"{len(histories['conditional'])} epochs in {seconds['conditional']:.0f} s")
    worst = by_class.argmin()
    print(
        f"read as the digit asked for: {right.mean():.1%} of {len(x)}; worst, {classes[worst]}: {by_class[worst]:.1%}"
    )
    real = [data.x_train[data.labels_train == k][:100] for k in classes]
    ratios = np.array([spread(x[asked == k]) / spread(some) for k, some in zip(classes, real)])
    print(f"distance between pictures of one digit: {ratios.mean():.2f} of the real ones', at least {ratios.min():.2f}")
    for name, distance in ends.items():
        print(f"Fréchet distance of {n} samples, {name} GAN: {beside(distance, judge.floor(n))}")
    same = "differ" if ends["plain"].differs(ends["conditional"]) else "cannot be told apart"
    print(f"the two GANs' distances {same}")

    figure, axes = new_figure(13, 4.6, 1, 3, width_ratios=[1, 1, 1.1])
    grid = x.reshape(len(classes), 100, -1)[:, :10].reshape(10 * len(classes), -1)
    real = np.concatenate([np.resize(some, (10, x.shape[1])) for some in real])
    for axis, sheet, title in zip(axes[0], (grid, real), ("generated, a digit each row", "real")):
        show_images(axis, sheet, data.shape, 10, title, rows=[str(k) for k in classes])
    axes[0, 0].set_ylabel("digit asked for")
    axes[0, 1].set_ylabel("digit")
    axis = axes[0, 2]
    for (name, history), colour in zip(histories.items(), (RED, BLUE)):
        draw_distances(axis, *measured(history), colour, f"{name} GAN")
    draw_floor(axis, judge.floor(n))
    axis.set(yscale="log", xlabel="epoch", ylabel="Fréchet distance, squared")
    axis.set_title(f"how far {n:,} samples are from real ones", fontsize=10)
    axis.legend(fontsize=9, frameon=False)
    save_figure(figure, picture_path(args, "gan_conditional"))


if __name__ == "__main__":
    run(main, __doc__)
