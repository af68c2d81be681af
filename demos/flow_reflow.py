"""After reflow the paths from noise to data are nearly straight, so one step of Euler's method nearly suffices.

Above: 40 paths from noise (grey) to data (blue), and where one step of Euler's method brings 1,500 points, before and
after reflow. Below: how far samples are from real points against the passes of the network that a sample costs, for
three solvers, for a diffusion model's DDIM, and after reflow.

Try `--data moons`. Read scratchgen/models/reflow.py, scratchgen/models/parts/ode.py.
"""

import numpy as np
from common import run, train
from flow_2d import draw_paths, frame_of, paths
from recipes import PLANE_DDPM, PLANE_FLOW, plane_data

from scratchgen.backend import to_host
from scratchgen.metrics.transport import ToyJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.models.reflow import Reflow
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.train.progress import told

PASSES = (1, 2, 4, 8, 16, 32, 64)  # of the network, for a sample
DISTANCES = (1, 2, 5, 10, 20, 50)
SOLVERS = {"euler": (1, "Euler", "o-"), "heun": (2, "Heun", "s--"), "rk4": (4, "RK4", "^:")}  # with passes for a step


def bend(x):
    """How far paths x (T + 1, n, 2) are from straight: ∫ E‖(x_1 - x_0) - dx_t/dt‖² dt. Liu et al. 2023, section 2.2."""
    straight, steps = x[-1] - x[0], len(x) - 1
    return float(((straight - np.diff(x, axis=0) * steps) ** 2).sum(axis=2).mean())


def one_step(model, seed, n):
    """Where one step of Euler's method brings n points of noise, (n, 2), scaled to unit variance."""
    rng = model.rng((seed, 0, 2))
    *_, (_, x) = model.path(rng.normal((n, 2)), rng, solver="euler", n_steps=1)
    return to_host(x)


def main(args):
    data, options = plane_data(args.data, args), {"labels": None, "x_test": None}
    n, n_samples, n_pairs = (500, 1, 1_000) if args.quick else (5_000, 4, 20_000)
    judge = ToyJudge(data, n, args.seed)
    flow, _ = train(FlowMatching(**PLANE_FLOW), data, args, 10_000, **options)
    again = Reflow(n_features=2, flow=flow, n_pairs=n_pairs, batch=PLANE_FLOW["batch"], lr=1e-3)
    again, history = train(again, data, args, 5_000, **options)
    ddpm, _ = train(DDPM(**PLANE_DDPM), data, args, 5_000, **options)
    print(f"reflow, with its {n_pairs:,} pairs: trained in {sum(row['seconds'] for row in history):.0f} s")

    def ratio(model, words, **options):
        samples = [model.generate(n, model.rng((args.seed, 0, 3, i)), **options) for i in told(range(n_samples), words)]
        return judge.over_floor(samples)

    lines = {}  # label: ({passes: distance over that of real points}, how it is drawn)
    for solver, (per_step, name, style) in SOLVERS.items():
        steps = {passes: passes // per_step for passes in PASSES if passes >= per_step}
        found = {passes: ratio(flow, name, solver=solver, n_steps=k) for passes, k in steps.items()}
        lines[f"flow, {name}"] = found, {"fmt": style, "color": BLUE}
    found = {k: ratio(ddpm, "DDIM", sampler="ddim", n_steps=k) for k in PASSES}
    lines["diffusion, DDIM"] = found, {"fmt": "o-", "color": GREY}
    found = {k: ratio(again, "reflow", solver="euler", n_steps=k) for k in PASSES[:5]}
    lines["after reflow, Euler"] = found, {"fmt": "o-", "color": RED}
    print("passes of the network, and × the distance of real points:")
    for name, (found, _) in lines.items():
        print(f"{name}: " + ", ".join(f"{passes}: {value:.2f}" for passes, value in found.items()))
    before, after = paths(flow, args.seed, 1_500), paths(again, args.seed, 1_500)
    print(f"how far paths are from straight: {bend(before):.3f} before reflow, {bend(after):.4f} after it")

    figure, axes = new_figure(11.6, 6.5, 2, 4, height_ratios=[1, 1.05])
    once = {"flow, Euler": flow, "after reflow, Euler": again}
    for pair, x, words, (line, model) in zip(
        (axes[0, :2], axes[0, 2:]), (before, after), ("flow matching", "after reflow"), once.items()
    ):
        draw_paths(pair[0], x, 40)
        frame_of(pair[0], f"{words}: paths")
        pair[1].scatter(*one_step(model, args.seed, 1_500).T, s=1.5, color=BLUE, alpha=0.5, linewidths=0)
        value = lines[line][0][1]
        frame_of(pair[1], f"one step: {value:.3g} × as far as real points")
    for axis in axes[1]:
        axis.axis("off")
    below = figure.add_subplot(axes[1, 0].get_gridspec()[1, :])
    for name, (found, style) in lines.items():
        below.plot([*found], [*found.values()], style["fmt"], color=style["color"], markersize=5, label=name)
    below.axhline(1, color=INK, linestyle="--", linewidth=0.8, label="real points")
    below.set(xscale="log", yscale="log", xticks=PASSES, xticklabels=PASSES)
    below.set(xlabel="passes of the network for a sample", ylabel="distance / that of real points")
    below.set(yticks=DISTANCES, yticklabels=DISTANCES)
    below.minorticks_off()
    below.legend(fontsize=9, frameon=False, ncols=2)
    save_figure(figure, args.out / f"flow_reflow{'' if args.data == 'ring' else f'_{args.data}'}.png")


if __name__ == "__main__":
    run(main, __doc__, data="ring", ignores=("device",))
