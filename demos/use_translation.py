"""A network paints a digit from its outline; on MNIST a discriminator makes it more like a real one.

One network minimises the absolute error. Two must also pass a discriminator that sees outline and picture: with
the usual loss, and with Wasserstein's. The strips show test outlines painted as training goes on; "again" is a second
draw of dropout, the only noise.

Try `--data mnist --input FILE`: your own drawing of an outline. Read scratchgen/models/pix2pix.py (Isola et al. 2017).
"""

import pathlib
import time

import numpy as np
from common import is_small, judge_of, picture_path, pictures, run, train

from scratchgen.backend import UsageError, to_host
from scratchgen.data.files import read_picture
from scratchgen.metrics.image import sharpness
from scratchgen.models.pix2pix import Pix2Pix
from scratchgen.plots import name_columns, new_figure, save_figure, show_images

STEPS = (0, 50, 200, 1000)  # the strip's moments, and the end
OF, SHOWN = 100, 3  # pictures to choose from, and rows of each kind


def options(parser):
    parser.add_argument("--input", type=pathlib.Path, help="a picture of an outline, to be painted too")


def read_drawing(path, outlines):
    """An outline c (1, side²) of zeros and ones from a picture of a drawing, placed as outlines (N, side²) are.

    The drawing is cut out of its paper, scaled so that its longer side is as long as most outlines' are, and centred. Raises
    UsageError, a line that names the file, for one that is missing, no picture, or blank.
    """
    from PIL import Image

    if not path.is_file():
        raise UsageError(f"--input {path}: no such file: check the path")
    grey = read_picture(path).mean(axis=2) / 255  # (h, w)
    ink = grey if np.median(grey) < 0.5 else 1 - grey  # there is more paper than ink
    ink = ink - ink.min()
    if ink.max() < 0.1:
        raise UsageError(f"--input {path}: one even colour: draw the outline of a digit on it")
    ink /= ink.max()
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    side = int(np.sqrt(outlines.shape[1]))
    images = outlines.reshape(-1, side, side)
    extents = [[np.ptp(np.flatnonzero(image.any(axis=axis))) + 1 for axis in (0, 1)] for image in images if image.any()]
    if not extents:
        raise UsageError("--data: none of its pictures has an outline to take the size from")
    longest = np.median(np.max(extents, axis=1))
    h, w = (max(1, round(n * longest / max(cut.shape))) for n in cut.shape)
    line = np.asarray(Image.fromarray(cut.astype(np.float32)).resize((w, h), Image.Resampling.BOX))
    c = np.zeros((side, side), np.float32)
    top, left = (side - h) // 2, (side - w) // 2
    c[top : top + h, left : left + w] = line > 0.4 * line.max()
    return c.reshape(1, -1)


class Filmed(Pix2Pix):
    """A Pix2Pix that paints the outlines `shown` at the moments STEPS of its training, into the list `film`."""

    def train_step(self, x, rng, labels=None):
        if int(self.optimizer_G.t[0]) in STEPS:
            self.film.append(self.painted(self.shown))
        return super().train_step(x, rng)

    def painted(self, c, seed=0):
        """Pictures of outlines c (N, n_features) of the host, on the host, with dropout by this seed."""
        rng = self.rng(seed)
        return to_host(self.generate(rng.array(c), rng))


def show_columns(axis, columns, shape, names, title="", words=""):
    """Pictures column by column, each of (N, D), their names below."""
    sheet = np.stack(columns, axis=1).reshape(-1, columns[0].shape[1])
    show_images(axis, sheet, shape, len(columns), title)
    name_columns(axis, names)
    axis.set_xlabel(words, fontsize=8)


def main(args):
    data = pictures(args, 2 * SHOWN, side=2, grey=True, square=True)
    small, x = is_small(data), data.x_test
    settings = {"n_features": x.shape[1], "dropout": 0.2, "lr_G": 1e-3} | ({"hidden_G": (256, 256)} if small else {})
    settings_D = {"adversarial_weight": 10.0, "r1": 0.1, "lam": 1.0}
    models = {
        "absolute error alone": Filmed(**settings, adversarial_weight=0.0),
        "with D, non-saturating loss and R1": Filmed(**settings, **settings_D),
        "with D, Wasserstein loss": Filmed(**settings, **settings_D, adversarial_loss="wasserstein"),
    }
    c = Pix2Pix(n_features=x.shape[1]).conditions(x)
    drawing = read_drawing(args.input, c[:1000]) if args.input else None  # complains before anything is trained
    judge = judge_of(data, "Fréchet distance and reading")

    def words(x_hat):
        found = f"error {np.abs(x_hat - x).mean():.4f} a pixel, sharpness {sharpness(x_hat, data.shape):.3f}"
        if judge:
            right = judge.read(x_hat) == data.labels_test
            found += f"\nFréchet distance {judge.measure(x_hat)}, read right {right.mean():.1%}"
        return found

    print("test pictures: " + words(x).replace("\n", ", "))
    figure, axes = new_figure(11.5, 0.54 * 2 * SHOWN + 1, 1, 5, width_ratios=[1, 6, 6, 6, 1])
    outline, *strips, truth = axes[0]
    shown = None
    for axis, (name, model) in zip(strips, models.items()):
        model.shown, model.film, started = c[:OF], [], time.process_time()
        model, _ = train(model, data, args, 3_000 if small else 5_000, x_test=None)
        seconds = time.process_time() - started
        first, second = model.painted(c, 0), model.painted(c, 1)
        print(f"{name}: {words(first)}".replace("\n", ", "))
        print(f"  two draws of dropout differ by {np.abs(first - second).mean():.4f} a pixel; {seconds:.0f} s of CPU")
        names = [f"{step:,}" for step in STEPS[: len(model.film)]] + [f"{int(model.optimizer_G.t[0]):,}", "again"]
        if shown is None:  # the first ones, and those that the error alone gets most wrong
            worst = np.abs(first - x)[SHOWN:OF].sum(axis=1).argsort()[-SHOWN:]
            shown = [*range(SHOWN), *np.sort(SHOWN + worst)]
        columns = [painted[shown] for painted in (*model.film, first, second)]
        show_columns(axis, columns, data.shape, names, name, f"steps of training\n{words(first)}")
    show_columns(outline, [c[shown]], data.shape, [""], "outline")
    show_columns(truth, [x[shown]], data.shape, [""], "truth")
    save_figure(figure, picture_path(args, "use_translation"))

    if drawing is not None:
        draws = [drawing, *(model.painted(drawing, seed) for model in models.values() for seed in (0, 1))]
        figure, axes = new_figure(6.4, 1.6)
        names = [
            "as seen",
            *(f"{name}{again}" for name in ("error\nalone", "with D", "Wasserstein") for again in ("", ",\nagain")),
        ]
        show_columns(axes[0, 0], draws, data.shape, names)
        save_figure(figure, picture_path(args, "use_translation_input"))


if __name__ == "__main__":
    run(main, __doc__, options=options)
