"""Guidance makes a diffusion model's digits easier to read and less like real ones.

Guidance w goes beyond the prediction with the label: f = (1 + w) f(label) - w f(any). Above: a row for each w, a column
for each noise. Below: Fréchet distance, how often the digit asked for is read, variety.

Try `--data mnist` (minutes), in the features of a VQ-GAN. Read scratchgen/models/parts/denoising.py: guided.
"""

import numpy as np
from common import DRAWS, draw_distances, draw_floor, is_small, picture_path, pictures, run, spread, train
from recipes import feature_model

from scratchgen.backend import to_host
from scratchgen.metrics.frechet import Distance, FrechetJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.models.latent_flow import LatentFlow
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_figure, show_images
from scratchgen.train.progress import told

W = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
STARTS = {"all steps": 0.0, "the last 40 % of the way": 0.6}  # where on the way guidance begins


def one_of_each(x, labels, asked):
    """A picture of x (N, D) for each of the labels asked for, in their order: another one each time."""
    places = {k: iter(np.resize(np.flatnonzero(labels == k), len(asked))) for k in np.unique(asked)}
    return np.stack([x[next(places[k])] for k in asked])


def trained(data, args):
    """(a model that learns from labels, its history)."""
    settings = {"n_features": data.x_train.shape[1], "n_classes": data.n_classes, "conditional": True}
    if is_small(data):
        return train(DDPM(**settings, width=256, batch=128), data, args, 4_900, x_test=None)
    below, steps = feature_model(data)
    below, history = train(below, data, args, steps)
    model, more = train(LatentFlow(**settings, vqvae=below, n_steps=12), data, args, 18_000, x_test=None)
    return model, history + more


def main(args):
    data = pictures(args, of_each=2)
    judge, classes, small = FrechetJudge(data), np.unique(data.labels_train), is_small(data)
    model, history = trained(data, args)
    print(f"trained in {sum(row['seconds'] for row in history):.0f} s; test pictures read right: {judge.accuracy:.1%}")

    n, n_draws = min(5_000, len(data.x_test)), DRAWS if small and not args.quick else 1
    asked = np.resize(classes, n * n_draws)  # so that every draw has all of them
    real = [spread(data.x_train[data.labels_train == k][:200]) for k in classes]
    found = {}
    for name, w in told([(name, w) for w in W for name in STARTS if w or name == "all steps"], "guidance"):
        rng = model.rng((args.seed, 0, 2))
        x = to_host(model.generate(len(asked), rng, rng.array(asked), guidance=w, guidance_start=STARTS[name]))
        right = judge.read(x) == asked
        variety = np.mean([spread(x[asked == k][:200]) / one for k, one in zip(classes, real)])
        found[name, w] = judge.measure(x, len(x) // n_draws), right.mean(), variety
        worst = min(right[asked == k].mean() for k in classes)
        print(
            f"w = {w} in {name}: Fréchet distance {found[name, w][0]}, read as asked {right.mean():.1%} (worst digit "
            f"{worst:.1%}), distances within a digit {variety:.2f} times those of real ones; sure of {judge.sure(x):.1%}"
        )
    found["the last 40 % of the way", 0.0] = found["all steps", 0.0]
    print(f"Fréchet distance of {n} real pictures: {judge.floor(n)}")

    figure, axes = new_figure(11.5, 6.6, 2, 1, height_ratios=[1.5, 1])
    rng = model.rng((args.seed, 0, 3))
    labels = np.tile(classes, 2)
    noise = to_host(rng.normal((len(labels), model.n_diffused)))
    rows = []
    for w in W:
        *_, (_, x_0) = model.path(rng.array(noise), rng, rng.array(labels), guidance=w)
        rows.append(to_host(model.unscaled(x_0)))
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
    for i, (place, title, label, (reference, word), form) in enumerate(
        zip(places, titles, labels, references.items(), formats)
    ):
        axis = figure.add_subplot(place)
        for name, colour in zip(STARTS, (BLUE, RED)):
            values = [found[name, w][i] for w in W]
            if isinstance(reference, Distance):
                draw_distances(axis, W, values, colour, name, marker="o")
            else:
                axis.plot(W, values, color=colour, marker="o")
        if isinstance(reference, Distance):
            draw_floor(axis, reference)
        else:
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
