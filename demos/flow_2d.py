"""A flow carries noise to moons, a ring and a swiss roll, and tells how probable each point is.

Each row: the paths of 60 points from noise (grey) to data (blue); the velocities late on the way, over the points
that are there; the true density, and the flow's own, by its divergence. One spot of the ring is enlarged. The
animation shows points and velocities.

Try `--data grid,circle`. Read scratchgen/models/flow_matching.py, scratchgen/models/parts/ode.py.
"""

import math

import numpy as np
from common import run, train
from recipes import PLANE_FLOW, plane_data

from scratchgen.backend import Rng, to_host
from scratchgen.metrics.divergences import grid
from scratchgen.metrics.transport import ToyJudge
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.plots import BLUE, GREY, INK, new_figure, save_animation, save_figure
from scratchgen.train.progress import told

SIDE, SPOT = 2.6, 6  # half of the side of a panel, in standard deviations of the data; of an enlarged spot, in its σ
CELLS, DENSITY_STEPS = 50, 10  # of a panel with a density; of its solver, rk4
STEPS = 50  # of the solver of paths
LATE = 0.8  # the time at which velocities are drawn
TITLES = ("noise (grey) to data (blue)", f"velocities at t = {LATE}", "true density", "density that the flow gives")


def paths(model, seed, n):
    """The points of n paths at STEPS + 1 times from noise to data, (STEPS + 1, n, 2), scaled to unit variance."""
    rng = model.rng((seed, 0, 2))
    return np.stack([to_host(x) for _, x in model.path(rng.normal((n, 2)), rng, solver="heun", n_steps=STEPS)])


def draw_paths(axis, x, n=60):
    """n paths of x (T, N, 2), and the ends of all of them."""
    axis.scatter(*x[-1].T, s=1.5, color=BLUE, alpha=0.5, linewidths=0)
    axis.plot(x[:, :n, 0], x[:, :n, 1], color=INK, linewidth=0.6, alpha=0.7)
    axis.scatter(*x[0, :n].T, s=9, color=GREY, linewidths=0, zorder=3)


def draw_field(axis, model, x, t, cells=15, colour=INK):
    """The velocities at time t on a grid, over points x (n, 2)."""
    places = np.stack(np.meshgrid(*2 * [np.linspace(-SIDE, SIDE, cells + 2)[1:-1]]), axis=-1).reshape(-1, 2)
    u = to_host(model.velocity(model.rng(0).array(places), t))
    axis.scatter(*x.T, s=1.5, color=BLUE, alpha=0.5, linewidths=0)
    axis.quiver(*places.T, *u.T, color=colour, scale=60, width=0.005)


def window(model, toy):
    """(middle (2,), half of the side) in units of the data scaled to unit variance: all, or one spot if spots are small."""
    mean, std = to_host(model.scaler.mean), to_host(model.scaler.std)
    sigma = toy.sigma / float(std.mean())
    if toy.centres is not None and sigma < 0.02:
        return (toy.centres[0] - mean) / std, SPOT * sigma
    return np.zeros(2), SIDE


def densities(model, toy, cells):
    """log p of the toy and of the model on a grid of the window, both (cells², )."""
    middle, half = window(model, toy)
    scaled = (middle + grid(-half, half, cells, 2)[0]).astype(np.float32)
    places = to_host(model.scaler.undo(model.rng(0).array(scaled)))
    parts = told(np.array_split(places, 8), "density, part")
    found = [to_host(model.ode_log_prob(model.rng(0).array(part), DENSITY_STEPS)) for part in parts]
    return toy.log_density(places), np.concatenate(found)


def draw_density(axis, log_p, highest):
    """The root of a density, so that a low one can be seen too."""
    cells = math.isqrt(len(log_p))
    p = np.exp(0.5 * (log_p - highest)).reshape(cells, cells)
    style = {"cmap": "Blues", "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
    axis.imshow(p.T, origin="lower", extent=2 * [-SIDE, SIDE], **style)


def frame_of(axis, title=""):
    axis.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal", xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)


def main(args):
    names = args.data.split(",")
    sets = [plane_data(name, args) for name in names]  # complains before anything is trained
    n, n_samples, n_likely, n_steps, cells = (500, 1, 20, 10, 12) if args.quick else (5_000, 4, 300, 50, CELLS)
    figure, axes = new_figure(11, 2.85 * len(names), len(names), len(TITLES))
    moving = {}
    for row, name, data in zip(axes, names, sets):
        model, history = train(FlowMatching(**PLANE_FLOW), data, args, 10_000, labels=None, x_test=None)
        judge, shown = ToyJudge(data, n, args.seed), name.replace("_", " ")
        samples = [model.generate(n, model.rng((args.seed, 0, 3, i))) for i in told(range(n_samples), "sample")]
        ratio, seconds = judge.over_floor(samples), sum(past["seconds"] for past in history)
        fresh = data.toy.sample(n_likely, Rng((args.seed, 0, 8)))
        log_p, coarse = (to_host(model.ode_log_prob(model.rng(0).array(fresh), k)) for k in (n_steps, n_steps // 2))
        truth = data.toy.log_density(fresh)
        less, error = (truth - log_p).mean(), (truth - log_p).std() / math.sqrt(n_likely)
        print(
            f"{shown}: trained in {seconds:.0f} s; {model.n_steps} steps of Heun's method: {ratio:.2f} × the distance "
            f"of real points; mean log p of {n_likely} fresh points {log_p.mean():.3f} nats, the truth "
            f"{truth.mean():.3f}, less by {less:.3f} ± {error:.3f}; half of the steps change it by "
            f"{abs((log_p - coarse).mean()):.3f}"
        )
        x_t = paths(model, args.seed, 1_500)
        moving[shown] = model, x_t
        draw_paths(row[0], x_t)
        draw_field(row[1], model, x_t[round(LATE * STEPS)], LATE)
        true, found = densities(model, data.toy, cells)
        for axis, values in zip(row[2:], (true, found)):
            draw_density(axis, values, true.max())
        for axis in row:
            frame_of(axis)
        row[0].set_ylabel(f"{shown}\n{ratio:.2f} × as far as real points", fontsize=10)
        half = window(model, data.toy)[1]
        row[2].set_xlabel("" if half == SIDE else f"one spot, enlarged {SIDE / half:.0f} times", fontsize=9)
        row[3].set_xlabel(f"mean log p {log_p.mean():.2f} nats, truth {truth.mean():.2f}", fontsize=9)
    for axis, title in zip(axes[0], TITLES):
        axis.set_title(title, fontsize=10)
    save_figure(figure, args.out / "flow_2d.png")

    figure, axes = new_figure(2.4 * len(names), 2.7, 1, len(names))

    def frame(i):
        for axis, (name, (model, x_t)) in zip(axes[0], moving.items()):
            axis.clear()
            draw_field(axis, model, x_t[i, :700], i / STEPS, 11, "0.7")
            frame_of(axis, f"{name}, t = {i / STEPS:.2f}")

    save_animation(figure, frame, told(range(0, STEPS + 1, 2), "frame"), args.out / "flow_2d.gif")


if __name__ == "__main__":
    run(main, __doc__, data="moons,ring,swiss_roll", ignores=("device",))
