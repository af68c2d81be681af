"""A normalizing flow bends noise into data and knows every density, but it cannot tear noise into separate spots.

Colour: log p of the data and of three flows. A bent stroke is easy. Spots stay joined by bridges, thick ones if layers
are affine. The grid's rows and columns are independent, so RealNVP's couplings find nothing to start with. The
animation bends a net of noise, layer by layer.

Try `--data circle,ring`. Read scratchgen/models/flow.py, scratchgen/models/parts/coupling.py.
"""

import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from common import results, run, train
from recipes import PLANE_MAF, PLANE_REALNVP, PLANE_SPLINE, plane_data

from scratchgen.backend import Rng
from scratchgen.metrics.divergences import grid
from scratchgen.models.flow import Flow
from scratchgen.models.parts.invertible import ActNorm, Permute
from scratchgen.plots import BLUE, INK, RED, new_figure, save_animation, save_figure
from scratchgen.train.progress import told

KINDS = {  # settings, steps, words beside a row
    "RealNVP": (PLANE_REALNVP, 7_800, "RealNVP:\naffine couplings"),
    "MAF": (PLANE_MAF, 7_800, "MAF:\naffine, autoregressive"),
    "splines": (PLANE_SPLINE, 6_200, "neural spline flow:\nspline couplings"),
}
SIDE = 2.3  # half of the side of a panel, in standard deviations of the data
CELLS, FINE = 180, 3  # of a panel along a side, and of a cell along a side
DEPTH = 10  # so many nats below the highest density a colour is white
FAR = 5  # a sample further than so many σ from the middle of every spot or stroke is off the data
LINES, POINTS = np.linspace(-2.1, 2.1, 11), 400  # of the animation: of its net, of noise
QUARTERS = (BLUE, "#2e8b57", INK, RED)  # colours of the points of noise


def one_run(name, kind, args):
    """Train a flow, and return what is drawn and printed of it."""
    data, (settings, steps, _) = plane_data(name, args), KINDS[kind]
    options = {"labels": None, "x_test": None, "progress": False, "compile": args.compile}
    model, history = train(Flow(**settings), data, args, steps, **options)
    toy, n = data.toy, 1_000 if args.quick else 10_000
    x = toy.sample(n, Rng((args.seed, 0, 8)))
    less, made = toy.log_density(x) - model.log_prob(x), model.sample(n, Rng((args.seed, 0, 2)))
    places = panel(data, args)
    return {
        "seconds": sum(row["seconds"] for row in history),
        "truth": toy.log_density(x).mean(),
        "less": less.mean(),
        "error": less.std() / math.sqrt(n),
        "off": float(np.mean([far(toy, part) for part in np.array_split(made, 20)])),
        "log_p": of_cells(model.log_prob(places)),
        "true_log_p": of_cells(toy.log_density(places)),
        "stages": bending(model, args.seed),
    }


def far(toy, x):
    """The share of points x (n, 2) that are more than FAR σ from every centre of the toy."""
    squares = (x**2).sum(axis=1)[:, None] - 2 * x @ toy.nodes.T + (toy.nodes**2).sum(axis=1)
    return (squares.min(axis=1) > (FAR * toy.sigma) ** 2).mean()


def panel(data, args):
    """Points (n², 2) of a square around the data, for a density in each cell."""
    cells = 8 * FINE if args.quick else CELLS * FINE
    places, _ = grid(-SIDE, SIDE, cells, 2)
    return (data.x_train.mean(axis=0) + data.x_train.std(axis=0) * places).astype(np.float32)


def of_cells(log_p):
    """log p at the points of a panel -> of its cells (n, n): the greatest in each, so that a thin bridge can be seen."""
    n = math.isqrt(len(log_p)) // FINE
    return log_p.reshape(n, FINE, n, FINE).max(axis=(1, 3))


def bending(model, seed):
    """Where a net and POINTS points of noise are after each layer, on the way to data: (n_layers + 2, n, 2).

    Every coupling moves points along one axis only. Each picture is scaled to unit variance, and shows the axes of the data:
    the layers swap them, which would look like a reflection.
    """
    line = np.linspace(LINES[0], LINES[-1], 97)
    lines = [np.stack(pair, axis=1) for c in LINES for pair in ((line, 0 * line + c), (0 * line + c, line))]
    points = Rng((seed, 0, 9)).normal((POINTS, 2))
    z = np.concatenate([*lines, points]).astype(np.float32)
    swaps = model.n_layers
    stages = [z[:, ::-1] if swaps % 2 else z]
    with model.average.swapped():
        for layer in reversed(model.flow.layers):
            z = layer.inverse(z)
            swaps -= isinstance(layer, Permute)
            if isinstance(layer, ActNorm):
                stages.append(z[:, ::-1] if swaps % 2 else z)
    stages = np.stack(stages)
    middle = stages[:, -POINTS:]
    return (stages - middle.mean(axis=1, keepdims=True)) / middle.std(axis=1, keepdims=True)


def draw_net(axis, x, colours):
    """The net and the points x (n, 2), as `bending` returns them."""
    for line in np.split(x[:-POINTS], 2 * len(LINES)):
        axis.plot(*line.T, color="0.55", linewidth=0.6)
    axis.scatter(*x[-POINTS:].T, s=6, c=colours, linewidths=0, zorder=3)
    axis.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal", xticks=[], yticks=[])


def colours_of(found):
    """A colour for each point of noise, by its quarter of the plane."""
    z = found["stages"][0][-POINTS:]
    return np.array(QUARTERS)[2 * (z[:, 0] > 0) + (z[:, 1] > 0)]


def draw_density(axis, log_p, highest):
    style = {"cmap": "Blues", "vmin": highest - DEPTH, "vmax": highest, "interpolation": "nearest"}
    axis.set(xticks=[], yticks=[])
    return axis.imshow(log_p.T, origin="lower", extent=2 * [-SIDE, SIDE], **style)


def main(args):
    names = args.data.split(",")
    for name in names:
        plane_data(name, args)  # complains before anything is trained
    jobs = [(name, kind, args) for kind in reversed(KINDS) for name in names]
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count()), get_context("spawn")) as pool:
        trained = results([pool.submit(one_run, *job) for job in jobs], "training")
    found = {(name, kind): one for (name, kind, _), one in zip(jobs, trained)}

    rows = ["true density", *(words for *_, words in KINDS.values())]
    figure, axes = new_figure(2.75 * len(names) + 0.6, 2.85 * len(rows), len(rows), len(names))
    for column, name in zip(axes.T, names):
        first, words = found[name, "RealNVP"], name.replace("_", " ")
        highest = first["true_log_p"].max()
        drawn = draw_density(column[0], first["true_log_p"], highest)
        column[0].set_title(f"{words}: the data", fontsize=10)
        for axis, kind in zip(column[1:], KINDS):
            one = found[name, kind]
            print(
                f"{words}, {kind}: trained in {one['seconds']:.0f} s; mean log p of fresh points "
                f"{one['truth'] - one['less']:.3f} nats, the truth {one['truth']:.3f}, less by {one['less']:.3f} ± "
                f"{one['error']:.3f}; {one['off']:.2%} of the samples more than {FAR}σ off"
            )
            draw_density(axis, one["log_p"], highest)
            axis.set_title(f"mean log p {one['less']:.2f} nats too low", fontsize=10)
            axis.set_xlabel(f"{one['off']:.1%} of the samples off the data", fontsize=9)
    for axis, words in zip(axes[:, 0], rows):
        axis.set_ylabel(words, fontsize=11)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.4, aspect=30, ticks=[highest - DEPTH, highest])
    bar.ax.set_yticklabels([f"{DEPTH} nats\nlower", "highest\ndensity"], fontsize=9)
    save_figure(figure, args.out / "likelihood_flow.png")
    animation(found, names, args)


def animation(found, names, args):
    """The first shape by affine layers, the last one by splines."""
    shown = [(names[0], "RealNVP"), (names[-1], "splines")]
    figure, axes = new_figure(3 * len(shown), 3.2, 1, len(shown))

    def draw(t):
        for axis, key in zip(axes[0], shown):
            stages, colours = found[key]["stages"], colours_of(found[key])
            place = t * (len(stages) - 1)
            i = min(int(place), len(stages) - 2)
            axis.clear()
            draw_net(axis, stages[i] + (place - i) * (stages[i + 1] - stages[i]), colours)
            layer = "noise" if t == 0 else f"layer {min(i + 1, len(stages) - 2)} of {len(stages) - 2}"
            axis.set_title(f"{key[0].replace('_', ' ')}, {key[1]}: {layer}", fontsize=10)

    times = np.concatenate([[0, 0, 0], np.linspace(0, 1, 40)])
    save_animation(figure, draw, told(times, "frame"), args.out / "likelihood_flow.gif")


if __name__ == "__main__":
    run(main, __doc__, data="moons,swiss_roll,ring,grid", ignores=("device",))
