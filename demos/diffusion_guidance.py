"""Guidance makes a diffusion model's digits easier to read and less like real ones.

One network predicts with the label and without; guidance w goes beyond the first: x̂_0 = (1 + w) x̂_0(label) - w
x̂_0(any). Above: a row for each w; all pictures of a column start as the same noise. Below: Fréchet distance, how often
a classifier reads the digit asked for, variety.

Try `--data mnist` (minutes), where w = ½ pays. Read scratchgen/models/ddpm.py: denoise.
"""

import numpy as np
from common import DRAWS, draw_distances, draw_floor, is_small, picture_path, pictures, run, spread, train

from scratchgen.backend import to_host
from scratchgen.metrics.frechet import Distance, FrechetJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.plots import BLUE, GREY, new_figure, save_figure, show_images
from scratchgen.train.progress import told

W = (0.0, 0.5, 1.0, 2.0, 4.0)


def one_of_each(x, labels, asked):
    """A picture of x (N, D) for each of the labels asked for, in their order: another one each time."""
    places = {k: iter(np.resize(np.flatnonzero(labels == k), len(asked))) for k in np.unique(asked)}
    return np.stack([x[next(places[k])] for k in asked])


def main(args):
    data = pictures(args, of_each=2)
    judge, classes, small = FrechetJudge(data), np.unique(data.labels_train), is_small(data)
    sizes = {"width": 256, "batch": 128} if small else {"width": 512, "batch": 64, "lr": 2e-3}
    model = DDPM(n_features=data.x_train.shape[1], n_classes=data.n_classes, conditional=True, **sizes)
    model, history = train(model, data, args, 4_900 if small else 16_000, x_test=None)
    print(f"trained in {sum(row['seconds'] for row in history):.0f} s; test pictures read right: {judge.accuracy:.1%}")

    n, n_draws = min(2_000, len(data.x_test)), DRAWS if small and not args.quick else 1
    asked = np.resize(classes, n * n_draws)  # so that every draw has all of them
    real = [spread(data.x_train[data.labels_train == k][:200]) for k in classes]
    columns = {"Fréchet": [], "read as asked": [], "variety": []}
    for w in told(W, "guidance"):
        rng = model.rng((args.seed, 0, 2))
        x = to_host(model.generate(len(asked), rng, rng.array(asked), guidance=w))
        right = judge.read(x) == asked
        varieties = [spread(x[asked == k][:200]) / one for k, one in zip(classes, real)]
        found = judge.measure(x, len(x) // n_draws), right.mean(), np.mean(varieties)
        for values, value in zip(columns.values(), found):
            values.append(value)
        worst = min(right[asked == k].mean() for k in classes)
        print(
            f"w = {w}: Fréchet distance {found[0]}, read as asked {found[1]:.1%} (worst digit {worst:.1%}), "
            f"distances within a digit {found[2]:.2f} times those of real ones"
        )
    print(f"Fréchet distance of {n} real pictures: {judge.floor(n)}")

    figure, axes = new_figure(11.5, 6.6, 2, 1, height_ratios=[1.5, 1])
    rng = model.rng((args.seed, 0, 3))
    labels = np.tile(classes, 2)
    noise = to_host(rng.normal((len(labels), model.n_diffused)))
    rows = []
    for w in W:
        *_, (_, x_0) = model.path(rng.array(noise), rng, rng.array(labels), guidance=w)
        rows.append(to_host(model.scaler.undo(x_0)))
    title = f"asked for {', '.join(map(str, classes))}, twice; all of a column start as the same noise"
    rows.append(one_of_each(data.x_test, data.labels_test, labels))
    names = [*(f"w = {w:g}" for w in W), "real"]
    show_images(axes[0, 0], np.concatenate(rows), data.shape, len(labels), title, names, pixels=48)
    axes[1, 0].axis("off")
    places = axes[1, 0].get_subplotspec().subgridspec(1, 3, wspace=0.1)
    titles = (f"how far {n:,} samples are from real ones", "how often they are as asked for", "how they vary")
    labels = ("Fréchet distance, squared", "read as asked", "distance within a digit / real")
    references = {judge.floor(n): "real pictures", judge.accuracy: "real test pictures", 1.0: "real pictures"}
    formats = ("{x:g}", lambda x, _: f"{100 * x:.4g}%", "{x:g}")
    for place, title, label, values, (reference, word), form in zip(
        places, titles, labels, columns.values(), references.items(), formats
    ):
        axis = figure.add_subplot(place)
        if isinstance(reference, Distance):
            draw_distances(axis, W, values, BLUE, None, marker="o")
            draw_floor(axis, reference)
        else:
            axis.plot(W, values, color=BLUE, marker="o")
            axis.axhline(reference, color=GREY, linestyle="--", label=word)
        axis.set(xlabel="guidance w", xticks=W, ylabel=label)
        axis.yaxis.set_major_formatter(form)
        axis.set_title(title, fontsize=10)
        axis.locator_params(axis="y", nbins=5)
        axis.tick_params(axis="y", labelsize=8)
        axis.legend(fontsize=8, frameon=False)
    save_figure(figure, picture_path(args, "diffusion_guidance"))


if __name__ == "__main__":
    run(main, __doc__)
