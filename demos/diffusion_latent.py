"""Diffusion needs no pixels: it works in the features of a VQ-VAE, whose decoder makes the picture.

The VQ-VAE is trained first and then frozen. Above: samples on their way, one a row, decoded at several times t; at the
left the decoder makes a picture of pure noise. Below: samples, and their Fréchet distance by the number of steps,
beside that of restored and of real test digits.

Try `--data mnist` (minutes). Read scratchgen/models/latent_diffusion.py.
"""

import numpy as np
from common import DRAWS, beside, draw_distances, draw_floor, is_small, nearest, picture_path, pictures, run, train
from recipes import code_sizes

from scratchgen.backend import to_host
from scratchgen.data import fixed_order
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.latent_diffusion import LatentDiffusion
from scratchgen.models.vqvae import VQVAE
from scratchgen.plots import BLUE, RED, name_columns, new_figure, save_figure, show_images
from scratchgen.train.progress import told

STEPS = (2, 5, 10, 20, 50, 100)


def way(model, n, columns, rng):
    """Pictures of n samples at some times, from x_T to x_0: (n * columns, n_features), and the times."""
    path = list(model.path(rng.normal((n, model.n_diffused)), rng, n_steps=model.n_times))
    shown = [path[round(i * (len(path) - 1) / (columns - 1))] for i in range(columns)]
    made = np.stack([to_host(model.decode(model.scaler.undo(x_t))) for _, x_t in shown], axis=1)
    return made.reshape(n * columns, -1), [t for t, _ in shown]


def main(args):
    data = pictures(args)
    judge, small = FrechetJudge(data), is_small(data)
    n = min(5_000, len(data.x_test))
    vqvae, vqvae_history = train(VQVAE(**code_sizes(data)), data, args, 4_000 if small else 3_700)
    width = {"width": 128} if small else {}
    model = LatentDiffusion(n_features=data.x_train.shape[1], vqvae=vqvae, **width)
    model, history = train(model, data, args, 3_000 if small else 9_000, x_test=None)
    seconds = [sum(row["seconds"] for row in rows) for rows in (vqvae_history, history)]
    print(f"VQ-VAE {seconds[0]:.0f} s, test mse {vqvae_history[-1]['test_mse']:.4f}; diffusion {seconds[1]:.0f} s")

    x_test = data.x_test[fixed_order(len(data.x_test))[:n]]
    restored = judge.measure(vqvae.reconstruct(vqvae.rng(0).array(x_test)))
    floor, distances = judge.floor(n), {}
    for n_steps in told(STEPS, "number of steps"):
        samples = to_host(model.generate(DRAWS * n, model.rng((args.seed, 0, 3)), n_steps=n_steps))
        distances[n_steps] = judge.measure(samples, n)
    print(f"Fréchet distance of {n} samples by steps of DDIM: " + ", ".join(f"{k}: {d}" for k, d in distances.items()))
    print(f"restored test digits {restored}; 50 steps {beside(distances[50], floor)}")
    made, tests = (nearest(part[:300], data.x_train).mean() for part in (samples, x_test))
    print(f"distance to the nearest training picture {made:.2f}, of test pictures {tests:.2f}")

    figure, axes = new_figure(12.5, 7, 2, 1, height_ratios=[1, 1.25])
    strip, times = way(model, 5, 16, model.rng((args.seed, 0, 4)))
    title = "five samples on their way from noise, decoded"
    show_images(axes[0, 0], strip, data.shape, 16, title, pixels=40)
    name_columns(axes[0, 0], times)
    axes[0, 0].set_xlabel("t", fontsize=9)
    axes[1, 0].axis("off")
    places = axes[1, 0].get_subplotspec().subgridspec(1, 3, width_ratios=[1, 1, 1.1])
    left, middle, right = (figure.add_subplot(place) for place in places)
    show_images(left, samples[:80], data.shape, 10, f"samples, {STEPS[-1]} steps of DDIM", pixels=40)
    show_images(middle, x_test[:80], data.shape, 10, "real test digits", pixels=40)
    draw_distances(right, STEPS, [*distances.values()], BLUE, "latent diffusion", marker="o")
    right.axhline(restored.mean, color=RED, linestyle="--", label=f"test digits, restored by the VQ-VAE: {restored}")
    draw_floor(right, floor)
    right.set(xscale="log", yscale="log", xlabel="steps of DDIM", ylabel="Fréchet distance, squared")
    right.set_title(f"how far {n:,} samples are from real ones", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    save_figure(figure, picture_path(args, "diffusion_latent"))


if __name__ == "__main__":
    run(main, __doc__)
