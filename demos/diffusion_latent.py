"""Diffusion needs no pixels: it works in the features of a VQ-GAN, whose decoder makes the picture.

The VQ-GAN is trained first and then frozen. Diffusion and flow matching learn its features. Above: samples of the flow
on their way, one a row, decoded. Below: samples, and their Fréchet distance by how often the network runs.

Try `--data mnist` (minutes). Read scratchgen/models/latent_diffusion.py, scratchgen/models/latent_flow.py.
"""

import numpy as np
from common import DRAWS, beside, draw_distances, draw_floor, is_small, nearest, picture_path, pictures, run, train
from recipes import feature_model

from scratchgen.backend import to_host
from scratchgen.data import fixed_order
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.latent_diffusion import LatentDiffusion
from scratchgen.models.latent_flow import LatentFlow
from scratchgen.plots import BLUE, INK, RED, name_columns, new_figure, save_figure, show_images
from scratchgen.train.progress import told

STEPS = {"diffusion": (5, 10, 20, 50, 100), "flow matching": (3, 5, 10, 25)}  # of DDIM, of Heun's method
PASSES = {"diffusion": 1, "flow matching": 2}  # of the network in a step


def way(model, n, columns, rng):
    """Pictures of n samples at some times, from noise to data: (n * columns, n_features), and the times."""
    path = list(model.path(rng.normal((n, model.n_diffused)), rng, n_steps=4 * (columns - 1)))
    shown = [path[round(i * (len(path) - 1) / (columns - 1))] for i in range(columns)]
    made = np.stack([to_host(model.decode(model.scaler.undo(x_t))) for _, x_t in shown], axis=1)
    return made.reshape(n * columns, -1), [f"{t:.2f}" for t, _ in shown]


def main(args):
    data = pictures(args)
    judge, small = FrechetJudge(data), is_small(data)
    n, n_draws = min(5_000, len(data.x_test)), DRAWS if small else 1
    below, steps = feature_model(data)
    below, history = train(below, data, args, steps)
    print(
        f"{type(below).__name__}: {sum(row['seconds'] for row in history):.0f} s, test mse {history[-1]['test_mse']:.4f}"
    )
    settings = {"n_features": data.x_train.shape[1], "vqvae": below} | ({"width": 128} if small else {})
    models = {"diffusion": LatentDiffusion(**settings), "flow matching": LatentFlow(**settings)}

    x_test = data.x_test[fixed_order(len(data.x_test))[:n]]
    floor, restored = judge.floor(n), judge.measure(below.reconstruct(below.rng(0).array(x_test)))
    print(f"Fréchet distance of {n} pictures: real ones {floor}, restored test digits {restored}")
    distances, samples = {}, {}
    for name, model in models.items():
        models[name], history = train(model, data, args, 3_000 if small else 7_000, x_test=None)
        print(f"{name}: {sum(row['seconds'] for row in history):.0f} s")
        for k in told(STEPS[name], f"number of steps of {name}"):
            samples[name] = to_host(models[name].generate(n_draws * n, model.rng((args.seed, 0, 3)), n_steps=k))
            distances[name, k] = judge.measure(samples[name], n)
        print(f"{name}, by steps: " + ", ".join(f"{k}: {distances[name, k]}" for k in STEPS[name]))
        print(f"{name}, most steps: {beside(distances[name, STEPS[name][-1]], floor)}")
        sure = [f"{judge.sure(part):.1%}" for part in (samples[name], x_test)]
        print(f"{name}: the classifier is 90 % sure of {sure[0]} of the samples, of {sure[1]} of test pictures")
        made, tests = (nearest(part[:300], data.x_train).mean() for part in (samples[name], x_test))
        print(f"{name}: distance to the nearest training picture {made:.2f}, of test pictures {tests:.2f}")

    figure, axes = new_figure(12.5, 7, 2, 1, height_ratios=[1, 1.25])
    flow = models["flow matching"]
    strip, times = way(flow, 5, 16, flow.rng((args.seed, 0, 4)))
    show_images(axes[0, 0], strip, data.shape, 16, "five samples on their way from noise, decoded", pixels=40)
    name_columns(axes[0, 0], times)
    axes[0, 0].set_xlabel("t", fontsize=9)
    axes[1, 0].axis("off")
    places = axes[1, 0].get_subplotspec().subgridspec(1, 3, width_ratios=[1, 1, 1.1])
    left, middle, right = (figure.add_subplot(place) for place in places)
    title = f"flow matching, {STEPS['flow matching'][-1]} steps of Heun"
    show_images(left, samples["flow matching"][:80], data.shape, 10, title, pixels=40)
    show_images(middle, x_test[:80], data.shape, 10, "real test digits", pixels=40)
    for (name, per_step), colour in zip(PASSES.items(), (BLUE, RED)):
        passes = [per_step * k for k in STEPS[name]]
        draw_distances(right, passes, [distances[name, k] for k in STEPS[name]], colour, name, marker="o")
    right.axhline(restored.mean, color=INK, linestyle=":", label=f"test digits, restored: {restored}")
    draw_floor(right, floor)
    ticks = STEPS["diffusion"]
    right.set(xscale="log", ylim=(0, None), xlabel="passes of the network", ylabel="Fréchet distance, squared")
    right.set(xticks=ticks, xticklabels=ticks)
    right.minorticks_off()
    right.set_title(f"how far {n:,} samples are from real ones", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    save_figure(figure, picture_path(args, "diffusion_latent"))


if __name__ == "__main__":
    run(main, __doc__)
