"""On a ring of eight Gaussians a WGAN-GP finds every mode; a badly set GAN hops between them.

Seven trainings: a WGAN-GP, and three GANs (good settings, a weak D, chosen to fail), each without and with packing,
where D judges two points at once. Above: samples. Below: modes hit, points within 3σ of a mode, and how unevenly the
modes are hit (reverse KL). The animation shows four of them.

Try `--seeds 10`. Read scratchgen/models/wgan.py, scratchgen/models/gan.py, scratchgen/metrics/coverage.py.
"""

import dataclasses
import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from common import results, run, train
from recipes import RING_GAN, RING_SCALE

from scratchgen.backend import Rng, to_host
from scratchgen.data import TOYS, load
from scratchgen.metrics.coverage import coverage, expected_quality
from scratchgen.models.gan import GAN
from scratchgen.models.wgan import WGAN
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_animation, save_figure
from scratchgen.train.progress import told

PLAIN = RING_GAN | {"r1": 0.0, "beta1": 0.5, "beta2": 0.999}
WEAK = PLAIN | {"lr_D": 3e-4, "averaging": 0.99}
FAILING = PLAIN | {"n_latent": 64, "hidden_G": (128, 128), "hidden_D": (128, 128), "lr_D": 1e-4, "averaging": 0.0}
RUNS = {  # name: model, rounds, whether the rates fall to 0 in the second half
    "WGAN-GP": (WGAN(**RING_GAN, lam=0.1, d_steps=1), 7_000, True),
    "plain GAN": (GAN(**PLAIN), 4_000, True),
    "plain, packed": (GAN(**PLAIN, pack=2), 4_000, True),
    "weak": (GAN(**WEAK), 4_000, False),
    "weak, packed": (GAN(**WEAK, pack=2), 4_000, False),
    "chosen to fail": (GAN(**FAILING), 4_000, False),
    "chosen to fail, packed": (GAN(**FAILING, pack=2), 4_000, False),
}

TITLES = {  # over the columns of the picture
    "WGAN-GP": "WGAN with\ngradient penalty",
    "plain GAN": "GAN,\ngood settings",
    "plain, packed": "GAN, good settings,\npacking",
    "weak": "GAN,\na weak D",
    "weak, packed": "GAN, a weak D,\npacking",
    "chosen to fail": "GAN,\nchosen to fail",
    "chosen to fail, packed": "GAN, chosen to fail,\npacking",
}


def one_run(name, args, seed):
    """Train one of RUNS. Returns its history with the coverage, and 800 points after each epoch."""
    model, rounds, falling = RUNS[name]
    data, snapshots = load("ring", seed), []
    toy = data.toy
    data.x_train = RING_SCALE * toy.sample(20_000, Rng((seed, 1)))
    data.x_test = data.labels_train = None

    def measure(model, rng, epoch):
        x = to_host(model.sample(2_500, rng)) / RING_SCALE
        snapshots.append(x[:800])
        return coverage(x, toy.centres, toy.sigma)

    args.seed = seed
    options = {"falling": falling, "measure": measure, "progress": False}
    return train(dataclasses.replace(model), data, args, rounds, **options)[1], snapshots


REAL = TOYS["ring"].sample(800, Rng(0))


def draw_ring(axis, x, row, name):
    """The samples x over the modes of the data; the name, and how well the samples hit them."""
    axis.clear()
    axis.scatter(*TOYS["ring"].centres.T, s=60, facecolors="none", edgecolors=GREY, linewidths=0.6)
    axis.scatter(*REAL.T, s=2, color=GREY, linewidths=0)
    axis.scatter(*x.T, s=2, color=BLUE, linewidths=0)
    axis.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])
    axis.set_title(f"{name}{row['modes']:.0f} modes, {row['high_quality']:.0%} within 3σ", fontsize=9)


def picture(found, path):
    """Three moments of each training, and below them its coverage."""
    figure, axes = new_figure(2 * len(RUNS), 8.2, 4, len(RUNS), height_ratios=[1, 1, 1, 0.8])
    for column, (name, (history, snapshots)) in enumerate(found.items()):
        n = len(history)
        for row, i in enumerate((math.ceil(0.1 * n) - 1, math.ceil(0.4 * n) - 1, n - 1)):
            draw_ring(axes[row, column], snapshots[i], history[i], f"{TITLES[name]}\n" if row == 0 else "")
            if column == 0:
                axes[row, 0].set_ylabel(("after a tenth\nof training", "after 40 %\nof training", "at the end")[row])
        axis, t = axes[3, column], (np.arange(n) + 1) / n
        axis.plot(t, [row["modes"] / 8 for row in history], color=GREY, label="modes / 8")
        axis.plot(t, [row["high_quality"] for row in history], color=BLUE, label="within 3σ")
        axis.plot(t, [row["reverse_kl"] for row in history], color=RED, label="reverse KL, nats")
        axis.set(ylim=(0, 1.05), xlabel="share of training", xticks=[0, 0.5, 1])
        if column:
            axis.set_yticklabels([])
    axes[3, 0].set_ylabel("share, or nats")
    figure.legend(*axes[3, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    words = "circles: the eight modes of the data; grey: 800 real points; blue: 800 samples"
    figure.suptitle(f"Seven trainings, a column each ({words})", fontsize=11)
    save_figure(figure, path)


def animation(found, path):
    names = ["chosen to fail", "weak", "plain GAN", "WGAN-GP"]
    figure, axes = new_figure(2.2 * len(names), 2.9, 1, len(names))

    def draw(t):
        for axis, name in zip(axes[0], names):
            history, snapshots = found[name]
            i = round(t * (len(history) - 1))
            draw_ring(axis, snapshots[i], history[i], f"{TITLES[name]}\n")

    save_animation(figure, draw, told(np.linspace(0, 1, 30), "frame"), path)


def spread(values, form):
    """One number, or the smallest and the largest of several, as text."""
    return " to ".join(f"{value:{form}}" for value in sorted({min(values), max(values)}))


def main(args):
    seeds = range(args.seed, args.seed + args.seeds)
    jobs = [(name, args, seed) for seed in seeds for name in RUNS]
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count()), get_context("spawn")) as pool:
        trained = results([pool.submit(one_run, *job) for job in jobs], "training")
    found = {(name, seed): one for (name, _, seed), one in zip(jobs, trained)}
    print(f"real points: 8 modes, {expected_quality(2):.1%} within 3σ, reverse KL about 0.001")
    if args.quick:
        print("(a twentieth of the training: too little for any of these to work)")
    for name in RUNS:
        last = [found[name, seed][0][-1] for seed in seeds]
        modes, quality, kl = ([row[key] for row in last] for key in ("modes", "high_quality", "reverse_kl"))
        seconds = sum(row["seconds"] for row in found[name, args.seed][0])
        print(
            f"{name:<24}modes {spread(modes, 'd')}, within 3σ {spread(quality, '.1%')}, reverse KL {spread(kl, '.3f')}; "
            f"{seconds:.0f} s a seed"
        )
        if args.seeds > 1:
            good = sum(row["modes"] == 8 and row["high_quality"] >= 0.92 and row["reverse_kl"] <= 0.01 for row in last)
            print(f"{'':<24}8 modes, at least 92 % and at most 0.01 nats: in {good} of {args.seeds} seeds")
    first = {name: found[name, args.seed] for name in RUNS}
    picture(first, args.out / "gan_mode_collapse.png")
    animation(first, args.out / "gan_mode_collapse.gif")


def options(parser):
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, starting at --seed; default: 1")


if __name__ == "__main__":
    run(main, __doc__, data="ring", options=options, ignores=("data",))
