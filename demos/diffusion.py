"""Diffusion turns noise into digits: it removes a little of the noise at each step.

Left: digits after 50 steps of DDIM, of MNIST after 200. Right: three on their way; above x_t, below the network's guess
x̂_0, at first the mean of all digits. Below: the Fréchet distance to training pictures by the number of steps.

Try `--data mnist` (minutes). There strokes break up, less so if the network also takes its last guess.
Read scratchgen/models/ddpm.py, scratchgen/models/parts/diffusion.py.
"""

import numpy as np
from common import DRAWS, beside, draw_distances, draw_floor, is_small, nearest, picture_path, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.plots import BLUE, RED, name_columns, new_figure, save_figure, show_images

STEPS, MOMENTS, WAYS = (5, 10, 20, 50, 100, 200), 9, 3


def ways(model, rng):
    """x_t (WAYS, MOMENTS, D) of some pictures on their way from noise, and what the network takes them to be, as pixels."""
    path, found, guess = list(model.path(rng.normal((WAYS, model.n_diffused)), rng))[:-1], [], None
    for t, x_t in path:
        guess = model.denoise(x_t, t, guess=guess)
        found.append((t, to_host(model.scaler.undo(x_t)), to_host(model.scaler.undo(guess))))
    times, *parts = zip(*(found[round(i)] for i in np.linspace(0, len(path) - 1, MOMENTS)))
    return times, *(np.stack(part, axis=1) for part in parts)


def main(args):
    data = pictures(args)
    judge, small = FrechetJudge(data), is_small(data)
    sizes = {"width": 256} if small else {"width": 768, "self_conditioning": True}
    model = DDPM(n_features=data.x_train.shape[1], lr=2e-3, batch=128, **sizes)
    model, history = train(model, data, args, 4_900 if small else 9_400)
    n, n_draws = min(2_000, len(data.x_test)), DRAWS if small and not args.quick else 1

    def distance(seed, **options):
        x = to_host(model.generate(n * n_draws, model.rng((args.seed, 0, seed)), **options))
        return judge.measure(x, len(x) // n_draws), x

    floor, (ancestral, _) = judge.floor(n), distance(2, sampler="ancestral")
    by_steps = {n_steps: distance(3, n_steps=n_steps) for n_steps in STEPS}
    shown = 50 if small else 200
    best, x = by_steps[shown]
    print(f"trained in {sum(row['seconds'] for row in history):.0f} s")
    words = ", ".join(f"DDIM-{n_steps} {found}" for n_steps, (found, _) in by_steps.items())
    print(f"Fréchet distance of {n} samples: {words}, ancestral {ancestral}; of {n} real pictures {floor}")
    shares = judge.classes(x)[np.unique(data.labels_train)]
    print(f"with {shown} steps: {beside(best, floor)}; the rarest digit has {shares.min():.1%} of the samples")
    found, test = (nearest(part[:300], data.x_train).mean() for part in (x, data.x_test))
    print(f"distance to the nearest training picture {found:.2f}, of test pictures {test:.2f}")
    print(
        f"the classifier is 90 % sure of {judge.sure(x):.1%} of them, of {judge.sure(data.x_test):.1%} of test pictures"
    )

    figure, axes = new_figure(13.5, 5.2, 1, 3, width_ratios=[1, 1, 1.35])
    show_images(axes[0, 0], x[:96], data.shape, 8, "made from noise", pixels=48)
    show_images(axes[0, 1], data.x_test[:96], data.shape, 8, "real test pictures", pixels=48)
    axes[0, 2].axis("off")
    place = axes[0, 2].get_subplotspec().subgridspec(2, 1, height_ratios=[1.75, 1])
    above, below = (figure.add_subplot(part) for part in place)
    times, seen, taken = ways(model, model.rng((args.seed, 0, 4)))
    strip = np.stack([seen, taken], axis=1).reshape(2 * WAYS * MOMENTS, -1)
    title = "three samples on their way, and what the network takes them to be"
    show_images(above, strip, data.shape, MOMENTS, title, ["x_t", "x̂_0"] * WAYS, pixels=48)
    name_columns(above, times)
    above.set_xlabel("t", fontsize=9)
    draw_distances(below, STEPS, [found for found, _ in by_steps.values()], BLUE, "DDIM", marker="o")
    below.errorbar([model.n_times], *zip(ancestral), color=RED, marker="o", linestyle="", label="ancestral")
    draw_floor(below, floor)
    ticks = [*STEPS, model.n_times]
    below.set(xscale="log", ylim=(0, None), xlabel="steps of the sampler", xticks=ticks, xticklabels=ticks)
    below.set_ylabel("Fréchet distance, squared")
    below.minorticks_off()
    below.set_title(f"how far {n:,} samples are from real ones", fontsize=10)
    below.legend(fontsize=8, frameon=False)
    save_figure(figure, picture_path(args, "diffusion"))


if __name__ == "__main__":
    run(main, __doc__)
