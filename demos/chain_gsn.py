"""A chain that damages a picture and restores it, again and again, turns random pixels into digits.

One network learns to restore damaged pictures. The other learns along three steps of its own chain, always towards the
clean picture: that is walk-back. Above: chains after 50 steps beside real digits, their Fréchet distance to
training pictures. Below: three chains from their first step on.

Try `--data mnist` (minutes): only with walk-back do chains end in digits. Read scratchgen/models/gsn.py.
"""

import numpy as np
from common import draw_distances, draw_floor, is_small, picture_path, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.gsn import GSN
from scratchgen.plots import BLUE, RED, new_figure, save_figure, show_images

STEPS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200)  # of the chain, after which it is measured
NAMES = {1: "no walk-back", 3: "walk-back, k = 3"}


def main(args):
    data = pictures(args)
    small, judge = is_small(data), FrechetJudge(data)
    n = min(1_000, len(data.x_test))
    settings = {"hidden": (256, 256), "corruption_rate": 0.1, "batch": 50} if small else {"corruption_rate": 0.2}
    floor, chains, distances = judge.floor(n), {}, {}
    print(f"Fréchet distance of {n} real pictures {floor}")
    for k, name in NAMES.items():
        model = GSN(n_features=data.x_train.shape[1], walk_steps=k, **settings)
        model, history = train(model, data, args, 5_600 if small else 1_200, x_test=None)
        rng = model.rng((args.seed, 0, 2))
        random_pixels = (rng.uniform((n, model.n_features)) < 0.5).astype(rng.real)
        chains[k] = model.walk(random_pixels, rng, STEPS[-1])
        distances[k] = [judge.measure(chains[k][step - 1]) for step in STEPS]
        rarest = judge.classes(chains[k][-1])[np.unique(data.labels_train)].min()
        found = ", ".join(f"{distances[k][STEPS.index(step)]} after {step}" for step in (1, 10, 50, 200))
        print(
            f"{name}: {len(history)} epochs in {sum(row['seconds'] for row in history):.0f} s; distance {found}; ",
            end="",
        )
        print(f"rarest digit after 200 steps {rarest:.1%}", flush=True)

    figure, axes = new_figure(13.5, 5.8, 2, 1, height_ratios=[1, 0.48])
    axes[0, 0].axis("off")
    *grids, right = (
        figure.add_subplot(place)
        for place in axes[0, 0].get_subplotspec().subgridspec(1, 4, width_ratios=[1, 1, 1, 1.15])
    )
    *grids, real = grids
    show_images(real, data.x_test[:64], data.shape, 8, "real test digits", pixels=40)
    for axis, (k, name), colour in zip(grids, NAMES.items(), (RED, BLUE)):
        show_images(axis, chains[k][49][:64], data.shape, 8, f"{name}: after 50 steps", pixels=40)
        draw_distances(right, STEPS, distances[k], colour, name, marker="o")
    draw_floor(right, floor)
    right.set(xscale="log", yscale="log", xlabel="steps of the chain", ylabel="Fréchet distance, squared")
    right.set_ylim(bottom=0.5 * floor.mean)
    right.set_title(f"how far from real: {n:,} chains", fontsize=10)
    right.legend(
        fontsize=7.5, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.18), columnspacing=1
    )
    strips = [np.stack([to_host(x[i]) for x in chains[k][:24]]) for k, i in ((1, 0), (3, 0), (3, 1))]
    words = ("no walk-back", "walk-back", "walk-back")
    show_images(
        axes[1, 0],
        np.concatenate(strips),
        data.shape,
        24,
        "the first 24 steps of three chains, from left to right",
        words,
        pixels=40,
    )
    save_figure(figure, picture_path(args, "chain_gsn"))


if __name__ == "__main__":
    run(main, __doc__)
