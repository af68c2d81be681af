"""A network invents what a small picture has lost; its sharpest answer is not the most accurate one.

Digits are shrunk and enlarged again in four ways. Squared error asks for the mean of all digits that shrink to the same
picture, and a mean is soft. A discriminator buys sharpness with PSNR. Under each column: PSNR and SSIM, sharpness,
Fréchet distance to real digits.

Try `--data mnist`: from 7×7 to 28×28 pixels.
Read scratchgen/models/pix2pix.py, scratchgen/metrics/image.py (Ledig et al. 2017).
"""

import time

import numpy as np
from common import is_small, judge_of, picture_path, pictures, run, train
from recipes import enlarger_sizes

from scratchgen.backend import UsageError, to_host
from scratchgen.metrics.image import WINDOW, psnr, sharpness, ssim
from scratchgen.models.pix2pix import Pix2Pix, enlarged
from scratchgen.plots import name_columns, new_figure, save_figure, show_images

SHOWN, OF = 4, 100
TITLES = {  # under the columns of the picture
    "pixels repeated": "pixels\nrepeated",
    "bicubic": "bicubic\nenlargement",
    "squares": "network of least\nsquared error",
    "squares + adversarial": "network that\nalso fools a D",
    "original": "original\n",
}


def bicubic(images, side):
    """Images (N, h, h) enlarged to (N, side, side) by Pillow, floats in and out."""
    from PIL import Image

    resized = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image) for image in resized])


def main(args):
    data = pictures(args, grey=True, square=True)
    small, x, settings = is_small(data), data.x_test, enlarger_sizes(data)
    if data.shape[0] % settings["factor"] or data.shape[0] < WINDOW:
        factor = settings["factor"]
        raise UsageError(f"--data {args.data}: this demo needs sides of {WINDOW} pixels or more that {factor} divides")
    judge = judge_of(data, "Fréchet distance")
    by_squares, adversarial = Pix2Pix(**settings | {"adversarial_weight": 0.0, "beta1": 0.9}), Pix2Pix(**settings)
    c = by_squares.conditions(x)
    small_images = c.reshape(len(x), by_squares.side // by_squares.factor, -1)
    made = {
        "pixels repeated": enlarged(small_images, by_squares.factor).reshape(x.shape),
        "bicubic": bicubic(small_images, by_squares.side).reshape(x.shape),
    }
    for name, model in (("squares", by_squares), ("squares + adversarial", adversarial)):
        started = time.process_time()
        model, _ = train(model, data, args, 3_000 if small else 4_000, x_test=None)
        print(f"{name}: {time.process_time() - started:.0f} s of CPU")
        made[name] = to_host(model.generate(model.rng(0).array(c)))
    moved = ((made["squares + adversarial"] - made["squares"]) ** 2).sum(axis=1)[:OF]
    shown = np.sort(moved.argsort()[-SHOWN:])
    made["original"] = x

    words = []
    for name, x_hat in made.items():
        decibels = "\n" if x_hat is x else f"PSNR {psnr(x_hat, x):.2f} dB\nSSIM {ssim(x_hat, x, data.shape):.4f}"
        sharp = f"sharpness {sharpness(np.clip(x_hat, 0, 1), data.shape):.3f}"
        words.append(f"{decibels}\n{sharp}" + (f"\nFréchet distance {judge.measure(x_hat)}" if judge else ""))
        print(f"{name}: " + words[-1].strip().replace("\n", ", "))
    figure, axes = new_figure(7.8, 1.5 * SHOWN + 0.8)
    sheet = np.stack([x_hat[shown] for x_hat in made.values()], axis=1).reshape(-1, x.shape[1])
    axis = axes[0, 0]
    title = f"test digits, enlarged {by_squares.factor} times from the coarse copies at the left"
    show_images(axis, sheet, data.shape, len(made), title, pixels=84)
    narrow = [numbers.replace("distance ", "distance\n") for numbers in words]
    name_columns(axis, [f"{TITLES[name]}\n{numbers}" for name, numbers in zip(made, narrow)])
    save_figure(figure, picture_path(args, "use_super_resolution"))


if __name__ == "__main__":
    run(main, __doc__)
