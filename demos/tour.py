"""The tour trains every family of generative models in two minutes and shows them on one page.

It uses the bundled digits, and points in the plane for three models. A line for each says how long it trained, how good
its samples are, and which file to read. The Fréchet distance of real test pictures stands beside. The page is tour.png;
the folder tour has each panel.

Try `--data mnist` (an hour or two). Read scratchgen/models/vae.py first.
"""

import math
import re
import sys
import time
from functools import partial

import numpy as np
from common import black_and_white, enlarger_for, in_turn, is_small, judge_of, picture_path, pictures, run, train
from compare import Trainer, families
from diffusion_2d import SETTINGS
from gan_mode_collapse import SCALE, WIDE
from tqdm import tqdm

from scratchgen.backend import to_host
from scratchgen.data import load
from scratchgen.metrics.coverage import coverage
from scratchgen.metrics.image import psnr
from scratchgen.metrics.transport import ToyJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.models.gan import GAN
from scratchgen.models.gmm import GMM
from scratchgen.models.pix2pix import Pix2Pix, enlarged
from scratchgen.plots import BLUE, GREY, new_figure, save_figure, show_images

SHARE = 0.55  # of compare.py's steps
COLUMNS = 5
SAYS = {
    "Gaussian mixture": "a sum of bells, fitted by EM",
    "RBM": "an energy, and chains that seek low ones",
    "DBN": "an RBM on the hidden units of another",
    "GSN": "damage, restore, and again: a chain",
    "MADE": "each pixel given those before it",
    "autoencoder": "rows in turn: test digits, restored",
    "VAE": "codes with noise, a bound on log p",
    "IWAE, 5 z": "the VAE, by a tighter bound",
    "GAN": "two networks against each other",
    "WGAN-GP": "a critic of bounded slope for a judge",
    "conditional GAN": "digits on demand: 0 to 9, in turn",
    "VQ-VAE and MADE": "whole numbers for codes, their grammar",
    "VQ-GAN and MADE": "and a discriminator against their blur",
    "DDPM": "from noise, a little less at each step",
    "latent diffusion": "the same, on a VQ-VAE's features",
}
BLACK_AND_WHITE = ("RBM", "DBN", "MADE")  # their pixels are 0 or 1, and so are the pictures they are shown here


class Pictures:
    """Pictures to learn from, the judge of what is made, and who trains."""

    def __init__(self, data, args, judge):
        self.data, self.judge, self.trainer = data, judge, Trainer(data, args, SHARE)
        self.n = min(100 if args.quick else 2_000, len(data.x_test))
        self.floor = judge and judge.floor(self.n)

    def distance(self, x):
        """In words, the Fréchet distance of pictures x, a whole number of times n, and of real ones; "" without a judge."""
        if not self.judge:
            return ""
        return f"Fréchet distance {self.judge.mean_distance(x, self.n):.2f}, of real ones {self.floor:.2f}"


class Tour:
    """The stops of the tour: what is trained at each, and how what it makes is measured and drawn."""

    def __init__(self, args):
        self.args, self.data = args, pictures(args, least=30, to_train=50)
        self.enlarger = enlarger_for(self.data)
        judge, two_tone = judge_of(self.data, "Fréchet distance", args.device), black_and_white(self.data)
        self.grey = Pictures(self.data, args, judge)
        judge = judge and judge_of(two_tone, "Fréchet distance of black and white pictures", args.device)
        self.black_and_white = Pictures(two_tone, args, judge)
        self.labelled = self.data.labels_train is not None and len(np.unique(self.data.labels_train)) > 1
        if not self.labelled:
            print("left out: conditional GAN: the pictures have no labels, or are all of one class")

    def tile(self, x):
        """How to draw 30 pictures x on an axis."""
        return lambda axis: show_images(axis, x[:30], self.data.shape, 5, pixels=40)

    def stops(self):
        """{name: (what it is, its file, a function that trains it: (seconds, its measure, how to draw it on an axis))}"""
        found = {}
        for name, says in SAYS.items():
            if name == "conditional GAN" and not self.labelled:
                continue
            source = self.black_and_white if name in BLACK_AND_WHITE else self.grey
            file, make = families(source.trainer)[name]
            found[name] = says, file, partial(self.pictures, name, source, make)
        h, w, *colours = self.data.shape
        if h == w and not colours and h % self.enlarger["factor"] == 0:
            found["pix2pix"] = "rows in turn: coarse, enlarged, real", "pix2pix", self.enlarged
        found["mixture, moons"] = "sixteen bells (blue) along two moons", "gmm", self.mixture
        found["GAN, ring"] = "noise onto a ring of eight modes", "gan", self.ring
        found["DDPM, swiss roll"] = "noise rolls itself up", "ddpm", self.swiss_roll
        return found

    def pictures(self, name, source, make):
        model = make()
        seconds, rng = source.trainer.seconds[model], model.rng((self.args.seed, 0, 2))
        if name == "autoencoder":
            x = self.data.x_test
            restored = to_host(model.reconstruct(rng.array(x)))
            rows, _ = in_turn(x, restored, 3, 5)
            return seconds, f"PSNR {psnr(restored, x):.1f} dB", self.tile(rows)
        x = np.clip(to_host(model.sample(2 * source.n, rng)), 0, 1)
        measure = source.distance(x)
        if name == "conditional GAN":
            x = to_host(model.generate(rng.array(np.resize(np.unique(self.data.labels_train), 30)), rng))
        return seconds, measure, self.tile(x)

    def enlarged(self):
        model = Pix2Pix(**self.enlarger)
        model = self.grey.trainer(model, 2_000 if is_small(self.data) else 4_000)
        x = self.data.x_test
        c = model.conditions(model.rng(0).array(x))
        coarse = enlarged(c.reshape(len(x), model.side // model.scale, -1), model.scale).reshape(x.shape)
        made = to_host(model.generate(c))
        rows = np.stack([part[:10].reshape(2, 5, -1) for part in (to_host(coarse), made, x)], axis=1).reshape(30, -1)
        measure = f"PSNR {psnr(made, x):.1f} dB, of the coarse copy {psnr(coarse, x):.1f}"
        return self.grey.trainer.seconds[model], measure, self.tile(rows)

    def points(self, model, data, steps, **options):
        """Train on points, and draw 1,500 samples over as many real ones."""
        model, history = train(model, data, self.args, steps, x_test=None, labels=None, **options)
        x = to_host(model.sample(2_000, model.rng((self.args.seed, 0, 2))))

        def draw(axis):
            axis.scatter(*data.x_test[:1_500].T, s=3, color=GREY, alpha=0.4, linewidths=0)
            axis.scatter(*x[:1_500].T, s=2, color=BLUE, linewidths=0)
            axis.set(aspect="equal", xticks=[], yticks=[])

        return sum(row["seconds"] for row in history), x, draw, model

    def mixture(self):
        data = load("moons", self.args.seed)
        model = GMM(n_features=2, n_components=16)
        seconds, _, draw, model = self.points(model, data, 60)
        nats = float(model.log_prob(model.rng(0).array(data.x_test)).mean())
        return seconds, f"{nats:.2f} nats a point, the truth {data.toy.log_density(data.x_test).mean():.2f}", draw

    def ring(self):
        data = load("ring", self.args.seed)
        toy = data.toy
        data.x_train, data.x_test = SCALE * data.x_train, SCALE * data.x_test
        model = GAN(**WIDE, r1=0.1, beta2=0.9)
        seconds, x, draw, _ = self.points(model, data, 4_000)
        found = coverage(x / SCALE, toy.centres, toy.sigma)
        return seconds, f"{found['modes']} of 8 modes, {found['high_quality']:.0%} within 3σ", draw

    def swiss_roll(self):
        data = load("swiss_roll", self.args.seed)
        seconds, x, draw, _ = self.points(DDPM(**SETTINGS), data, 3_000)
        return (
            seconds,
            f"{ToyJudge(data, len(x), self.args.seed).over_floor([x]):.2f} × the distance of real points",
            draw,
        )


def main(args):
    tour, started, panels, failed = Tour(args), time.perf_counter(), {}, []
    stops = tour.stops()
    bar = tqdm(stops.items(), unit="model", dynamic_ncols=True, disable=None)  # None: only on a terminal
    for i, (name, (says, file, visit)) in enumerate(bar, 1):
        bar.set_description(name)
        if bar.disable:
            print(f"training {name}", file=sys.stderr)
        try:
            seconds, measure, draw = visit()
        except Exception as error:  # whatever is wrong with one model, the others are still worth seeing
            failed.append(name)
            seconds, measure, draw = 0.0, f"FAILED: {type(error).__name__}: {error}", None
        line = f"{i:>2} of {len(stops)}  {name:<17} {says:<40} {seconds:5.1f} s  {measure:<43} models/{file}.py"
        bar.write(line, file=sys.stdout)
        sys.stdout.flush()
        panels[name] = says, measure, draw
    print(f"{len(stops) - len(failed)} of {len(stops)} models in {time.perf_counter() - started:.0f} s")

    real = {"test pictures": ("real ones, to compare with", "", tour.tile(tour.data.x_test))}
    panels = real | panels
    n_rows = math.ceil(len(panels) / COLUMNS)
    figure, axes = new_figure(2.7 * COLUMNS, 3.1 * n_rows, n_rows, COLUMNS)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (name, panel) in zip(axes.ravel(), panels.items()):
        show(axis, name, *panel)
    save_figure(figure, picture_path(args, "tour"))
    folder = picture_path(args, "tour").with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, panel in panels.items():
        figure, axes = new_figure(4, 4.4)
        show(axes[0, 0], name, *panel)
        save_figure(figure, folder / (re.sub(r"\W+", "_", name.lower()) + ".png"))
    if failed:
        print(f"tour.py: {len(failed)} of {len(stops)} models failed: {', '.join(failed)}", file=sys.stderr)
        return 1


def show(axis, name, says, measure, draw):
    """One panel: what a model made, under its name and measure."""
    if draw:
        draw(axis)
    else:
        axis.text(0.5, 0.5, "failed", ha="center", transform=axis.transAxes)
    axis.set_title(f"{name}\n{says}\n{measure}", fontsize=8)


if __name__ == "__main__":
    run(main, __doc__)
