"""A network gives points an energy; chains run down it, and e^-E is nearly the true density.

Above, moons and a ring: the energy with paths of Langevin chains, and e^-E, learned as a score and by chains, beside the
true density. Below: plain Langevin steps leave the weights of two modes wrong, annealed ones mend them; and each mode's
weight in e^-E. The animation lowers the noise.

Try `--data moons,circle`. Read scratchgen/models/ebm.py, scratchgen/models/parts/langevin.py.
"""

import math

import numpy as np
from common import run, train
from recipes import PLANE_CHAINS, PLANE_EBM, plane_data

from scratchgen.backend import Rng, UsageError, to_host
from scratchgen.data.toys import Mixture
from scratchgen.metrics.divergences import grid
from scratchgen.metrics.transport import ToyJudge
from scratchgen.models.ebm import EBM
from scratchgen.models.parts.diffusion import mixture_mean
from scratchgen.models.parts.langevin import annealed_langevin, ladder, langevin
from scratchgen.models.parts.predictions import converted
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_animation, save_figure
from scratchgen.train.progress import told

SIDE, CELLS = 2.6, 90  # of a panel: half of its side, in standard deviations of the data; cells along it
DEPTH = 14  # energies are drawn up to so many nats above the lowest
KINDS = {"score": PLANE_EBM, "score, without the one in σ": PLANE_EBM | {"dual": 0.0}, "chains": PLANE_CHAINS}
COLOURS = dict(zip(KINDS, (BLUE, GREY, RED)))
TITLES = ("energy (light: low), and chains", "e⁻ᴱ/Z, trained as a score", "e⁻ᴱ/Z, trained by chains", "true density")
UNEVEN = Mixture("uneven", 0.5, [[-3.0, -3.0], [3.0, 3.0]], [0.8, 0.2])


def places(model, cells=CELLS):
    """The points of a grid over a panel, in the model's units and in those of the data."""
    scaled = grid(-SIDE, SIDE, cells, 2)[0].astype(np.float32)
    return scaled, to_host(model.scaler.undo(model.rng(0).array(scaled)))


def energy(model, sigma=None, cells=CELLS):
    """E (cells²,) over a panel, at the least noise or at sigma."""
    with model.average.swapped():
        return to_host(model.energy(model.rng(0).array(places(model, cells)[0]), sigma))


def show(axis, values, **style):
    """Values (cells²,) of a grid as a picture."""
    cells = math.isqrt(len(values))
    extent = 2 * [-SIDE, SIDE]
    axis.imshow(values.reshape(cells, cells).T, origin="lower", extent=extent, interpolation="bilinear", **style)
    axis.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal", xticks=[], yticks=[])


def show_energy(axis, E):
    show(axis, np.minimum(E - E.min(), DEPTH), cmap="Greys", vmin=0, vmax=1.6 * DEPTH)


def show_density(axis, log_p, highest):
    """The root of a density, so that a low one can be seen too."""
    show(axis, np.exp(0.5 * (log_p - highest)), cmap="Blues", vmin=0, vmax=1)


def paths(model, n, n_steps, seed):
    """States (n_steps + 1, n, 2) of plain chains on the energy at the least noise, from N(0, 1)."""
    rng = model.rng((seed, 0, 2))
    x = [rng.normal((n, 2))]
    with model.average.swapped():
        for _ in range(n_steps):
            x.append(model.chain(x[-1], rng, 1))
    return to_host(rng.xp.stack(x))


def nearest_mode(x, toy):
    """For each point of x (N, 2) the number of the nearest centre, or of the nearest piece of the curve."""
    nodes = toy.nodes if toy.centres is not None else toy.nodes[:: max(1, len(toy.nodes) // 400)]
    labels = np.arange(len(nodes)) * toy.n_classes // len(nodes)
    parts = np.array_split(x, 1 + len(x) // 5_000)
    return np.concatenate([labels[((part[:, None] - nodes) ** 2).sum(axis=2).argmin(axis=1)] for part in parts])


def weights(model, toy):
    """The share (n_classes,) of e^-E that is nearest to each mode."""
    E = energy(model, cells=200)
    p = np.exp(E.min() - E)
    return np.bincount(nearest_mode(places(model, 200)[1], toy), p / p.sum(), minlength=toy.n_classes)


def judged(who, model, data, args, n, n_samples):
    """(nats above the truth, distance of samples over that of real points); prints them after who."""
    new = data.toy.sample(n, Rng((args.seed, 0, 8)))
    log_p = to_host(model.grid_log_prob(model.rng(0).array(new)))
    less = data.toy.log_density(new) - log_p
    error = less.std() / math.sqrt(n)
    judge = ToyJudge(data, n_samples, args.seed)
    ratio = judge.over_floor([to_host(model.sample(n_samples, model.rng((args.seed, 0, 3, i)))) for i in range(2)])
    halved = abs(model.log_z() - model.log_z(200))
    print(
        f"{who}: -log p of new points {-log_p.mean():.3f} nats, {less.mean():.3f} ± {error:.3f} above the truth; half of "
        f"the grid's cells change log Z by {halved:.0e}; samples {ratio:.2f} × as far as real points"
    )
    return less.mean(), ratio


def exact_score(toy):
    """score(x, sigma) of a mixture's points with noise."""
    mean = mixture_mean(toy.nodes, toy.weights, toy.sigma)
    return lambda x, sigma: converted("x0", mean(x, 1.0, sigma), "score", x, 1.0, sigma)


def draw_modes(axes, args, n):
    """Plain and annealed chains by the exact score of two modes, as in Song & Ermon 2019, figure 3."""
    score, rng = exact_score(UNEVEN), Rng((args.seed, 0, 4), "float64")
    start, sigmas = 16 * rng.uniform((n, 2)) - 8, ladder(10.0, 0.1, 30)
    found = {
        "true": UNEVEN.sample(n, rng),
        "plain Langevin": langevin(lambda x: score(x, 0.1), start, 0.3 * UNEVEN.sigma**2, 900, rng),
        "annealed Langevin": annealed_langevin(score, start, sigmas, 0.3, 30, rng),
    }
    for axis, (name, x) in zip(axes, found.items()):
        share = (x.sum(axis=1) < 0).mean()
        print(f"{name}, by the exact score: {share:.1%} of {n:,} points at the mode of weight {UNEVEN.weights[0]:.0%}")
        axis.scatter(*x.T, s=2, color=INK if name == "true" else BLUE, alpha=0.4, linewidths=0)
        axis.set(xlim=(-8, 8), ylim=(-8, 8), aspect="equal", xticks=[], yticks=[])
        axis.set_title(f"{name}: {share:.0%} and {1 - share:.0%}", fontsize=10)


def draw_weights(axis, found, toy):
    """The weight of each mode in e^-E, and the true ones."""
    modes = np.arange(1, toy.n_classes + 1)
    for kind, shares in found.items():
        axis.plot(modes, shares, "o-", markersize=4, linewidth=1, color=COLOURS[kind], label=f"trained: {kind}")
    axis.plot(modes, np.full(toy.n_classes, 1 / toy.n_classes), color=INK, linestyle=":", label="true")
    highest = 1.5 * max(shares.max() for shares in found.values())  # room for the legend
    axis.set(ylim=(0, highest), xlabel="mode", ylabel="weight in e⁻ᴱ", xticks=modes)
    axis.set_title("weights of the modes", fontsize=10)
    axis.legend(fontsize=7, frameon=False, loc="upper left")


def main(args):
    names = args.data.split(",")
    sets = {name: plane_data(name, args) for name in names}  # complains before anything is trained
    if len(names) != 2:
        raise UsageError(f"--data {args.data}: this demo draws two data sets, such as moons,wide_ring")
    n, n_samples, n_modes = (500, 500, 200) if args.quick else (20_000, 5_000, 3_000)
    models, found = {}, {}
    for name, data in sets.items():
        for kind, settings in KINDS.items():
            model, history = train(EBM(**settings), data, args, 10_000, labels=None, x_test=None)
            who = f"{name}, {kind} ({sum(row['seconds'] for row in history):.0f} s)"
            found[name, kind] = *judged(who, model, data, args, n, n_samples), weights(model, data.toy)
            models[name, kind] = model

    figure, axes = new_figure(11, 8.6, 3, 4)
    for row, (name, data) in zip(axes, sets.items()):
        of_score, of_chains = models[name, "score"], models[name, "chains"]
        show_energy(row[0], energy(of_score))
        x = paths(of_score, 25, 400, args.seed)
        row[0].plot(x[:, :, 0], x[:, :, 1], color=BLUE, linewidth=0.5, alpha=0.7)
        row[0].scatter(*x[-1].T, s=12, color=INK, linewidths=0, zorder=3)
        truth = data.toy.log_density(places(of_score)[1])
        densities = [to_host(model.grid_log_prob(places(model)[1])) for model in (of_score, of_chains)]
        for axis, log_p in zip(row[1:], (*densities, truth)):
            show_density(axis, log_p, truth.max())
        row[0].set_ylabel(name.replace("_", " "), fontsize=10)
        for axis, kind in zip(row[1:], ("score", "chains")):
            axis.set_xlabel(f"{found[name, kind][0]:.3f} nats above the truth", fontsize=9)
    for axis, title in zip(axes[0], TITLES):
        axis.set_title(title, fontsize=10)
    draw_modes(axes[2], args, n_modes)
    draw_weights(axes[2, 3], {kind: found[names[-1], kind][2] for kind in KINDS}, sets[names[-1]].toy)
    save_figure(figure, args.out / "energy_landscape.png")
    animate({name: models[name, "score"] for name in names}, args)


def animate(models, args):
    """The energy at less and less noise, and chains that follow it."""
    figure, axes = new_figure(2.6 * len(models), 2.9, 1, len(models))
    frames = []
    for model in models.values():
        rng, shown = model.rng((args.seed, 0, 5)), []
        x = math.sqrt(1 + model.sigma_max**2) * rng.normal((300, 2))
        with model.average.swapped():
            for sigma in ladder(model.sigma_max, model.sigma_min, 26):
                x = annealed_langevin(model.score, x, [sigma], model.step, model.n_steps, rng)
                shown.append((sigma, to_host(x), to_host(model.energy(rng.array(places(model, 40)[0]), sigma))))
        frames.append(shown)

    def frame(i):
        for axis, (name, shown) in zip(axes[0], zip(models, frames)):
            sigma, x, E = shown[i]
            axis.clear()
            show_energy(axis, E)
            axis.scatter(*x.T, s=3, color=BLUE, linewidths=0)
            axis.set_title(f"{name.replace('_', ' ')}, σ = {sigma:.2f}", fontsize=9)

    save_animation(figure, frame, told(range(26), "frame"), args.out / "energy_landscape.gif")


if __name__ == "__main__":
    run(main, __doc__, data="moons,wide_ring", ignores=("device",))
