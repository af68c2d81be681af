"""The tour trains every family of generative models in two minutes and shows them on one page.

It uses the bundled digits, and points in the plane for two models. A line for each says how long it trained, how good
its samples are, and which file to read. The Fréchet distance of real pictures stands beside. The page is tour.png;
the folder tour has each panel.

Try `--data mnist` (an hour or two). Read scratchgen/models/vae.py first.
"""

import math
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from common import DRAWS, black_and_white, in_turn, judge_of, picture_path, pictures, run, train
from recipes import BLACK_AND_WHITE, FAMILIES, RING_GAN, RING_SCALE, Trainer, enlarger, enlarger_sizes, has_classes
from tqdm import tqdm

from scratchgen.backend import to_host
from scratchgen.data import load
from scratchgen.metrics.coverage import coverage
from scratchgen.metrics.image import psnr
from scratchgen.models.gan import GAN
from scratchgen.models.gmm import GMM
from scratchgen.models.pix2pix import enlarged
from scratchgen.plots import BLUE, GREY, new_figure, save_figure, show_images

SHARE = 0.55  # of the steps in recipes.py
COLUMNS = 6  # of the page
LAST = "now open scratchgen/models/vae.py: the VAE, fifth picture in the second row of the page"


class Stop(NamedTuple):
    says: str  # what the model is, in a few words
    file: str  # scratchgen/models/FILE.py
    train: Callable  # () -> seconds of training, a measure of what it makes, how to draw that on an axis


def main(args):
    data = pictures(args, least=30, to_train=50)
    stops = on_pictures(data, args) | on_points(args)
    panels, failed = visit(stops)
    panels = {"test pictures": ("real ones, to compare with", "", tile(data.x_test, data))} | panels
    save_page(panels, picture_path(args, "tour"))
    if failed:
        print(f"tour.py: {len(failed)} of {len(stops)} models failed: {', '.join(failed)}", file=sys.stderr)
        return 1


def visit(stops):
    """Train at each stop and print a line. Returns {name: (what it is, its measure, how to draw it)}, and what failed."""
    panels, failed, started = {}, [], time.perf_counter()
    bar = tqdm(stops.items(), unit="model", dynamic_ncols=True, disable=None)  # None: only on a terminal
    for i, (name, stop) in enumerate(bar, 1):
        bar.set_description(name)
        if bar.disable:
            print(f"training {name}", file=sys.stderr)
        try:
            seconds, measure, draw = stop.train()
        except Exception as error:  # whatever is wrong with one model, the others are still worth seeing
            failed.append(name)
            seconds, measure, draw = 0.0, f"FAILED: {type(error).__name__}: {error}", None
        line = (
            f"{i:>2} of {len(stops)}  {name:<17} {stop.says:<40} {seconds:5.1f} s  {measure:<43} models/{stop.file}.py"
        )
        bar.write(line, file=sys.stdout)
        sys.stdout.flush()
        panels[name] = stop.says, measure, draw
    print(f"{len(stops) - len(failed)} of {len(stops)} models in {time.perf_counter() - started:.0f} s")
    return panels, failed


# ---- models of pictures ----


def on_pictures(data, args):
    """{name: Stop} of the models in recipes.py, and of one that enlarges pictures."""
    judge, two_tone = judge_of(data, "Fréchet distance", args.device), black_and_white(data)
    grey = Pictures(data, judge, args)
    judge = judge and judge_of(two_tone, "Fréchet distance of black and white pictures", args.device)
    black = Pictures(two_tone, judge, args)
    stops, shown, labelled = {}, {"autoencoder": restored, "conditional GAN": asked_for}, has_classes(data)
    for name, family in FAMILIES.items():
        if name != "conditional GAN" or labelled:
            source, show = black if name in BLACK_AND_WHITE else grey, shown.get(name, made_from_noise)
            stops[name] = Stop(family.says, family.file, partial(source.train, family.recipe, show))
    h, w, *colours = data.shape
    if h == w and not colours and h % enlarger_sizes(data)["factor"] == 0:
        says = "rows in turn: coarse, enlarged, real"
        stops["pix2pix"] = Stop(says, "pix2pix", partial(grey.train, enlarger, coarse_and_enlarged))
    return stops


class Pictures:
    """Pictures to learn from, the judge of what is made, and who trains."""

    def __init__(self, data, judge, args):
        self.data, self.judge, self.trainer, self.seed = data, judge, Trainer(data, args, SHARE), args.seed
        self.n = min(100 if args.quick else 2_000, len(data.x_test))
        self.floor = judge and judge.floor(self.n)

    def train(self, recipe, show):
        """What Stop.train returns. show(model, pictures, rng) gives the measure and the 30 pictures to draw."""
        model = self.trainer.once(recipe)
        measure, x = show(model, self, model.rng((self.seed, 0, 2)))
        return self.trainer.seconds[model], measure, tile(x, self.data)

    def distance(self, x):
        """The Fréchet distance of pictures x, a whole number of times n, and of real ones, briefly; "" without a judge."""
        if not self.judge:
            return ""
        return f"Fréchet {self.judge.measure(x, self.n)}, real {self.floor}"


def made_from_noise(model, pictures, rng):
    x = np.clip(to_host(model.sample(DRAWS * pictures.n, rng)), 0, 1)
    return pictures.distance(x), x


def asked_for(model, pictures, rng):
    """Every class in turn; measured are samples of all classes."""
    measure, _ = made_from_noise(model, pictures, rng)
    labels = np.resize(np.unique(pictures.data.labels_train), 30)
    return measure, to_host(model.generate(rng.array(labels), rng))


def restored(model, pictures, rng):
    """Test pictures, and under each row the same restored from their codes."""
    x = pictures.data.x_test
    x_hat = to_host(model.reconstruct(rng.array(x)))
    rows, _ = in_turn(x, x_hat, 3, 5)
    return f"PSNR {psnr(x_hat, x):.1f} dB", rows


def coarse_and_enlarged(model, pictures, rng):
    """Rows of coarse copies of test pictures, of what the model makes of them, and of the test pictures."""
    x = pictures.data.x_test
    c = model.conditions(rng.array(x))
    coarse = to_host(enlarged(c.reshape(len(x), model.side // model.scale, -1), model.scale).reshape(x.shape))
    x_hat = to_host(model.generate(c))
    rows = np.stack([part[:10].reshape(2, 5, -1) for part in (coarse, x_hat, x)], axis=1).reshape(30, -1)
    return f"PSNR {psnr(x_hat, x):.1f} dB, of the coarse copy {psnr(coarse, x):.1f}", rows


def tile(x, data):
    """How to draw 30 pictures x on an axis."""
    return lambda axis: show_images(axis, x[:30], data.shape, 5, pixels=40)


# ---- models of points in the plane ----


def on_points(args):
    """{name: Stop} of three models of points."""
    return {
        "mixture, moons": Stop("sixteen bells (blue) along two moons", "gmm", partial(moons, args)),
        "GAN, ring": Stop("noise onto a ring of eight modes", "gan", partial(ring, args)),
    }


def moons(args):
    data, model = load("moons", args.seed), GMM(n_features=2, n_components=16)
    seconds, _, draw = train_on_points(model, data, 60, args)
    nats = float(model.log_prob(model.rng(0).array(data.x_test)).mean())
    return seconds, f"{nats:.2f} nats a point, the truth {data.toy.log_density(data.x_test).mean():.2f}", draw


def ring(args):
    data = load("ring", args.seed)
    data.x_train, data.x_test = RING_SCALE * data.x_train, RING_SCALE * data.x_test
    seconds, x, draw = train_on_points(GAN(**RING_GAN, r1=0.1, beta2=0.9), data, 4_000, args)
    found = coverage(x / RING_SCALE, data.toy.centres, data.toy.sigma)
    return seconds, f"{found['modes']} of 8 modes, {found['high_quality']:.0%} within 3σ", draw


def train_on_points(model, data, steps, args):
    """The seconds of training, 2,000 samples, and how to draw 1,500 of them over as many real points."""
    model, history = train(model, data, args, steps, x_test=None, labels=None)
    x = to_host(model.sample(2_000, model.rng((args.seed, 0, 2))))

    def draw(axis):
        axis.scatter(*data.x_test[:1_500].T, s=3, color=GREY, alpha=0.4, linewidths=0)
        axis.scatter(*x[:1_500].T, s=2, color=BLUE, linewidths=0)
        axis.set(aspect="equal", xticks=[], yticks=[])

    return sum(row["seconds"] for row in history), x, draw


# ---- the page ----


def save_page(panels, path):
    """All panels on one page, and each as a picture of its own in a folder beside it."""
    n_rows = math.ceil(len(panels) / COLUMNS)
    figure, axes = new_figure(2.7 * COLUMNS, 3.1 * n_rows, n_rows, COLUMNS)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (name, panel) in zip(axes.ravel(), panels.items()):
        show(axis, name, *panel)
    save_figure(figure, path)
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, panel in panels.items():
        figure, axes = new_figure(4, 4.4)
        show(axes[0, 0], name, *panel)
        save_figure(figure, folder / (re.sub(r"\W+", "_", name.lower()) + ".png"))


def show(axis, name, says, measure, draw):
    """One panel: what a model made, under its name and measure."""
    if draw:
        draw(axis)
    else:
        axis.text(0.5, 0.5, "failed", ha="center", transform=axis.transAxes)
    axis.set_title(f"{name}\n{says}\n{measure}", fontsize=8)


if __name__ == "__main__":
    run(main, __doc__, last=LAST)
