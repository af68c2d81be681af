"""With few steps a diffusion sampler works if its network predicts v, and fails if it predicts ε.

Above: distance of samples to a ring over that of real points, for the exact denoiser and for networks; then their
errors. From ε̂ follows x̂_0 = (x_t - √(1 - ᾱ) ε̂) / √ᾱ, with √ᾱ nearly 0 at first. Predicting v avoids the division;
clipping x̂_0 or a linear schedule helps.

Try `--seed 1`. Read scratchgen/models/parts/diffusion.py.
"""

import math

import numpy as np
from common import run, train

from scratchgen.backend import Rng, to_host
from scratchgen.data import load
from scratchgen.metrics.transport import ToyJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.models.parts.diffusion import alpha_bars, ddim, mixture_denoiser
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.train.progress import told

SETTINGS = {"n_features": 2, "n_times": 100, "scaling": "standard", "width": 128, "n_blocks": 2, "n_waves": 32}
SETTINGS |= {"batch": 256, "lr": 2e-3}
NETWORKS = {"v": {"predict": "v"}, "ε": {"predict": "eps"}, "ε, linear": {"predict": "eps", "schedule": "linear"}}
LINES = {  # name: network, clipped, and how it is drawn
    "exact": (None, False, {"color": INK, "marker": "."}),
    "v": ("v", True, {"color": BLUE, "marker": "."}),
    "ε": ("ε", False, {"color": RED, "marker": ".", "linestyle": "--"}),
    "ε, clipped": ("ε", True, {"color": RED, "marker": "."}),
    "ε, linear": ("ε, linear", True, {"color": GREY, "marker": "."}),
}
STEPS, EXACT_STEPS = (5, 10, 20, 50, 100), (5, 10, 20, 50, 100, 1000)


def exact_points(toy, n, rng, n_steps, eta):
    """n points (n, 2) by DDIM with the exact x̂_0, in the units of the data; the diffusion runs on unit variance."""
    scale = math.sqrt(toy.weights @ (toy.nodes**2).mean(axis=1) + toy.sigma**2)
    alpha_bar = alpha_bars("cosine", 1000)
    denoise = mixture_denoiser(toy.nodes / scale, toy.weights, toy.sigma / scale, alpha_bar)
    *_, (_, x_0) = ddim(denoise, rng.normal((n, 2)), alpha_bar, rng, n_steps, eta)
    return scale * x_0


def errors(model, toy, seed, n=2_000):
    """[t], and the root mean square of x̂_0's error and of ε̂'s at each, before clipping, against the exact ones."""
    scaler, rng = model.scaler, model.rng((seed, 0, 4))
    nodes, sigma = to_host(scaler(rng.array(toy.nodes))), toy.sigma / float(scaler.std.mean())
    exact = mixture_denoiser(nodes, toy.weights, sigma, model.alpha_bar)
    x_0, found, times = scaler(rng.array(toy.sample(n, Rng((seed, 0, 6))))), [], [*range(2, 100, 4), 99, 100]
    for t in times:
        x_t = model.q_sample(x_0, rng.array([t] * n), rng.normal(x_0.shape))
        wrong = to_host(model.denoise(x_t, t, clip_x0=False) - exact(x_t, t))
        error, a = math.sqrt((wrong**2).sum(axis=1).mean()), float(model.alpha_bar[t])
        found.append((error, error * math.sqrt(a / (1 - a))))
    return times, *np.array(found).T


def main(args):
    data, n = load("ring", args.seed), 500 if args.quick else 5_000
    judge, models, seconds = ToyJudge(data, n, args.seed), {}, 0
    for name, settings in NETWORKS.items():
        models[name], history = train(DDPM(**SETTINGS, **settings), data, args, 6_000, labels=None, x_test=None)
        seconds = max(seconds, sum(row["seconds"] for row in history))
    print(f"each network trained in at most {seconds:.0f} s; distance / that of real points ({judge.floor:.4f}):")

    def points(name, n_samples, n_steps, eta):
        network, clip, _ = LINES[name]
        if network is None:
            return exact_points(data.toy, n * n_samples, Rng((args.seed, 0, 3)), n_steps, eta)
        model, options = models[network], {"sampler": "ddim", "n_steps": n_steps, "eta": eta, "clip_x0": clip}
        return to_host(model.generate(n * n_samples, model.rng((args.seed, 0, 3)), **options))

    found, shown = {}, {}
    for name, eta in ((name, eta) for name in LINES for eta in (0.0, 1.0)):
        steps, n_samples = (STEPS, 2) if LINES[name][0] else (EXACT_STEPS, 20)
        for n_steps in told(steps, f"{name}, η = {eta:.0f}: number of steps"):
            x = points(name, n_samples, n_steps, eta)
            found.setdefault((name, eta), {})[n_steps] = judge.over_floor(np.split(x, n_samples))
            if (n_steps, eta) == (20, 0):
                shown[name] = x[:2_000]
        words = ", ".join(f"{n_steps}: {ratio:.2f}" for n_steps, ratio in found[name, eta].items())
        print(f"{name:<11}η = {eta:.0f}   {words}")

    figure, axes = new_figure(12.5, 7.4, 2, 1, height_ratios=[1.3, 1])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    *panels, right = (figure.add_subplot(place) for place in above.subgridspec(1, 3))
    for axis, eta in zip(panels, (0.0, 1.0)):
        for name, (_, _, style) in LINES.items():
            axis.plot(*zip(*found[name, eta].items()), label=name, **style)
        axis.axhline(1, color=GREY, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="steps of DDIM", xticks=EXACT_STEPS, xticklabels=EXACT_STEPS)
        axis.set_ylabel("distance to the ring / that of real points")
        axis.minorticks_off()
        axis.set_title(f"η = {eta:.0f}: {'noise' if eta else 'no noise'} is added on the way", fontsize=10)
        axis.legend(fontsize=8, frameon=False)
    for name, model in models.items():
        times, of_x, of_eps = errors(model, data.toy, args.seed)
        style = {"color": LINES[name][2]["color"]}
        right.plot(times, of_x, label=f"x̂_0 of the network for {name}", **style)
        if name == "ε":
            right.plot(times, of_eps, linestyle=":", label="ε̂ of the network for ε", **style)
        root = math.sqrt(model.alpha_bar[-1])
        print(f"{name}: first step: √ᾱ = {root:.2g}, error of ε̂ {of_eps[-1]:.2g}, of x̂_0 {of_x[-1]:.2g}")
    right.set(yscale="log", xlabel="t", ylabel="root mean square")
    right.set_title("errors of the networks, before clipping", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    for place, (name, x) in zip(below.subgridspec(1, len(LINES)), shown.items()):
        axis = figure.add_subplot(place)
        reach = max(1.5, float(np.quantile(np.abs(x), 0.99)))
        axis.scatter(*data.x_test.T, s=2, color="0.8", linewidths=0)
        axis.scatter(*x.T, s=2, color=LINES[name][2]["color"], linewidths=0)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.tick_params(labelsize=7)
        axis.set_xlabel("x₁", fontsize=8)
        axis.set_ylabel("x₂", fontsize=8)
        axis.set_title(f"{name}, 20 steps\nat {found[name, 0.0][20]:.3g} × the distance", fontsize=9)
    save_figure(figure, args.out / "diffusion_steps.png")


if __name__ == "__main__":
    run(main, __doc__, data="ring", ignores=("data",))
