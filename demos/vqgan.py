"""From few bits a VQ-VAE restores a blurred digit, a VQ-GAN a sharp one that is less accurate.

Both have the same encoder, codes and decoder. Above: test digits, restored by each. Below: by sharpness the VQ-GAN's
are nearer to real digits; by squared error the VQ-VAE's are nearer to the originals. Where bits are few, the VQ-VAE
averages and the VQ-GAN decides.

Try `--data mnist` (minutes), where the VQ-GAN's Fréchet distance is far smaller too. Read scratchgen/models/vqgan.py.
"""

import numpy as np
from common import is_small, judge_of, picture_path, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.metrics.frechet import Distance
from scratchgen.metrics.image import sharpness
from scratchgen.models.vqgan import VQGAN
from scratchgen.models.vqvae import VQVAE
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_figure, show_images


def in_words(value, form):
    """A number in the given form, or a Distance in its own."""
    return str(value) if isinstance(value, Distance) else f"{value:{form}}"


def main(args):
    data = pictures(args, side=2)
    judge, small = judge_of(data, "Fréchet distance and reading"), is_small(data)
    settings = {"n_features": data.x_train.shape[1], "init": "he"}
    settings |= {"n_codes": 2, "n_dim": 4, "n_embeddings": 16} if small else {"n_codes": 4, "n_embeddings": 32}
    settings |= {"hidden": (128, 64), "batch": 50} if small else {}
    beside = {"hidden_D": (256, 128), "r1": 0.1} if small else {}
    steps, x = 6_000 if small else 3_500, data.x_test
    restored, measured = {"test digits": x}, {}
    for name, model in {"VQ-VAE": VQVAE(**settings), "VQ-GAN": VQGAN(**settings, **beside)}.items():
        model, history = train(model, data, args, steps)
        restored[name] = to_host(model.reconstruct(model.rng(0).array(x)))
        print(f"{name}: {model.bits:.0f} bits a picture, {sum(row['seconds'] for row in history):.0f} s")
    for name, x_hat in restored.items():
        found = measured[name] = {"sharpness": sharpness(x_hat, data.shape)}
        if judge:
            found["Fréchet distance (squared)"] = judge.measure(x_hat)
        found["squared error per pixel"] = float(((x_hat - x) ** 2).mean())
        if judge:
            found["read as another digit"] = float((judge.read(x_hat) != data.labels_test).mean())
        print(f"{name:<12}" + ", ".join(f"{what} {in_words(value, '.4f')}" for what, value in found.items()))

    figure, axes = new_figure(11, 6.2, 2, len(found), height_ratios=[1.5, 1])
    for axis in axes[0]:
        axis.axis("off")
    above = figure.add_subplot(axes[0, 0].get_gridspec()[0, :])
    columns = min(18, len(x))
    starts = [start for start in (0, columns) if start + columns <= len(x)]
    rows = [part[start : start + columns] for start in starts for part in restored.values()]
    show_images(above, np.concatenate(rows), data.shape, columns, rows=[*restored] * len(starts))
    for axis, what in zip(axes[1], measured["VQ-VAE"]):
        values = [measured[name][what] for name in restored]
        heights = [value.mean if isinstance(value, Distance) else value for value in values]
        axis.bar([*restored], heights, color=[GREY, BLUE, RED])
        axis.set_title(what, fontsize=10)
        for place, value in enumerate(values):
            axis.text(place, heights[place], in_words(value, ".3g"), ha="center", va="bottom", fontsize=8)
        axis.set_ylim(0, 1.15 * max(heights) or 1)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_yticks([])  # the numbers stand over the bars
    save_figure(figure, picture_path(args, "vqgan"))


if __name__ == "__main__":
    run(main, __doc__)
