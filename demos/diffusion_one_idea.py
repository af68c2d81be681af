"""Networks that predict the noise, the data, v or a velocity all know the score: one idea under five names.

Above: a ring of eight with noise, and its score, the way to more probable points: exact (wide arrows) and from
what each network predicts (thin). Below: the errors of these scores at all amounts of noise. A network for the data
does worst at little noise, where the change of names divides by b.

Try `--data grid`. Read scratchgen/models/parts/predictions.py.
"""

import math

import numpy as np
from common import run, train
from recipes import PLANE_DDPM, PLANE_FLOW, plane_data

from scratchgen.backend import Rng, to_host
from scratchgen.data import Toy
from scratchgen.models.ddpm import DDPM
from scratchgen.models.flow_matching import TIMES, FlowMatching, line
from scratchgen.models.parts.diffusion import mixture_mean
from scratchgen.models.parts.predictions import converted
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

NETWORKS = {  # what it predicts, and how its errors are drawn
    "the noise ε": (DDPM(**PLANE_DDPM | {"predict": "eps"}), {"color": RED}),
    "the data x₀": (DDPM(**PLANE_DDPM | {"predict": "x0"}), {"color": GREY}),
    "v": (DDPM(**PLANE_DDPM), {"color": BLUE}),
    "the velocity": (FlowMatching(**PLANE_FLOW), {"color": INK, "linestyle": "--"}),
}
SHOWN = 0.45  # b / a of the arrows, noise over signal
SIDE, CELLS, ARROWS = 2.2, 90, 17
LOWEST = 5  # arrows stand where log p(x_t) is at most so far below its maximum


def amounts(model):
    """(b / a, time) of the times at which a model's score is measured, from little noise to much."""
    if isinstance(model, DDPM):
        return [(math.sqrt(1 / model.alpha_bar[t] - 1), t) for t in range(1, model.n_times)]
    return [(r, 1 / (1 + r)) for r in np.geomspace(0.02, 60, 60)]


def signal_and_noise(model, t):
    """a, b, a′, b′ of x_t = a x_0 + b ε. A DDPM that predicts ε, x_0 or v needs no derivatives."""
    if isinstance(model, DDPM):
        return math.sqrt(model.alpha_bar[t]), math.sqrt(1 - model.alpha_bar[t]), 0.0, 0.0
    return line(t)


def score(model, x_t, t):
    """The score (n, 2) at x_t (n, 2) that follows from what the network predicts."""
    with model.average.swapped():
        times = np.full(len(x_t), t if isinstance(model, DDPM) else TIMES * t, x_t.dtype)
        f = model.denoiser((x_t, times))
    return converted(model.predict, f, "score", x_t, *signal_and_noise(model, t))


def scaled(model, toy):
    """The toy density as the network sees it, with about unit variance."""
    mean, std = to_host(model.scaler.mean), to_host(model.scaler.std)
    return Toy(toy.name, toy.sigma / float(std.mean()), (toy.nodes - mean) / std, toy.weights, toy.n_classes)


def exact_score(toy, x_t, a, b):
    """∇ log p(x_t) (n, 2) for x_t = a x_0 + b ε, with x_0 from the toy."""
    x_0 = mixture_mean(toy.nodes, toy.weights, toy.sigma)(x_t.astype(np.float64), a, b)
    return converted("x0", x_0, "score", x_t, a, b)


def errors(model, toy, seed, n):
    """[b / a], and at each the root mean square of b (score - exact score): the error of ε̂, over x_t of the data."""
    x_0, rng, found = model.scaler(model.rng(0).array(toy.sample(n, Rng((seed, 0, 6))))), Rng((seed, 0, 9)), []
    for _, t in amounts(model):
        a, b, *_ = signal_and_noise(model, t)
        x_t = (a * x_0 + b * rng.normal(x_0.shape)).astype(np.float32)
        wrong = b * (score(model, x_t, t) - exact_score(scaled(model, toy), x_t, a, b))
        found.append(math.sqrt((wrong**2).sum(axis=1).mean()))
    return [amount for amount, _ in amounts(model)], found


def draw_scores(axis, model, toy):
    """log p(x_t) in blue, and the exact score and the network's as arrows, all in units of x_t's standard deviation."""
    _, t = min((abs(math.log(amount / SHOWN)), t) for amount, t in amounts(model))
    a, b, *_ = signal_and_noise(model, t)
    unit, seen = math.hypot(a, b), scaled(model, toy)
    noised = Toy("", math.hypot(a * seen.sigma, b), a * seen.nodes, seen.weights, 1)
    fine, coarse = (
        unit * np.stack(np.meshgrid(*2 * [np.linspace(-SIDE, SIDE, k)]), axis=-1).reshape(-1, 2)
        for k in (CELLS, ARROWS)
    )
    log_p = noised.log_density(fine)
    p = np.exp(log_p - log_p.max()).reshape(CELLS, CELLS)
    axis.imshow(p, origin="lower", extent=2 * [-SIDE, SIDE], cmap="Blues", vmin=0, vmax=1.6, interpolation="bilinear")
    places = coarse[noised.log_density(coarse) > log_p.max() - LOWEST].astype(np.float32)
    for arrows, colour, width in (
        (exact_score(seen, places, a, b), "#e8a79e", 0.016),
        (score(model, places, t), INK, 0.005),
    ):
        axis.quiver(*(places / unit).T, *(b * arrows).T, color=colour, scale=34, width=width)
    axis.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal", xticks=[], yticks=[])


def main(args):
    data, n = plane_data(args.data, args), 300 if args.quick else 3_000
    figure, axes = new_figure(12.4, 6.9, 2, 4, height_ratios=[1.15, 1])
    words = "noisy data (blue), and their score: exact (wide arrows) and computed from what a network predicts (thin)"
    figure.suptitle(words, fontsize=11)
    for axis in axes[1]:
        axis.axis("off")
    below = figure.add_subplot(axes[1, 0].get_gridspec()[1, :])
    print("error of b × score, which is that of ε̂, by noise / signal (ε̂ = 0 has at most 1.41):")
    for axis, (name, (model, style)) in zip(axes[0], NETWORKS.items()):
        train(model, data, args, 5_000, labels=None, x_test=None)
        at, found = errors(model, data.toy, args.seed, n)
        below.plot(at, found, label=f"trained to predict {name}", **style)
        values = np.exp(np.interp(np.log((0.03, 0.1, 0.3, 1, 3, 10)), np.log(at), np.log(found)))
        words = ", ".join(f"{amount}: {value:.3f}" for amount, value in zip((0.03, 0.1, 0.3, 1, 3, 10), values))
        print(f"{name}: {words}")
        draw_scores(axis, model, data.toy)
        axis.set_title(f"from a network for {name}", fontsize=10)
    below.axvline(SHOWN, color=GREY, linestyle=":", label="noise of the arrows above")
    below.set(xscale="log", yscale="log", xlim=(0.02, 60))
    below.set(xlabel="noise / signal, b / a", ylabel="error of ε̂ = -b × score")
    below.legend(fontsize=9, frameon=False, ncols=2)
    save_figure(figure, args.out / "diffusion_one_idea.png")


if __name__ == "__main__":
    run(main, __doc__, data="ring", ignores=("device",))
