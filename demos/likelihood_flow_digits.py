"""A normalizing flow finds new digits far more probable than a mixture of Gaussians does.

Samples of mixtures and flows that learned the same digits, with noise in their grey levels. Right: how many nats a test
digit costs. A large part of what flows gain is the logit at their entrance: a mixture behind a logit gains it too.
Splines gain the rest, and labels make the samples like real digits.

Try `--seed 1`. Read scratchgen/models/flow.py, scratchgen/models/parts/levels.py.
"""

import math
import time
from dataclasses import replace

import numpy as np
from common import DRAWS, is_small, judge_of, picture_path, pictures, run, train
from recipes import DIGITS_MAF, DIGITS_REALNVP, DIGITS_SPLINE, grey_levels, pixels

from scratchgen.backend import Rng, UsageError, to_host
from scratchgen.data import fixed_order
from scratchgen.metrics.likelihood import with_noise
from scratchgen.models.flow import Flow
from scratchgen.models.gmm import GMM
from scratchgen.models.parts.invertible import Chain, Logit
from scratchgen.models.parts.levels import dequantise, quantise
from scratchgen.plots import BLUE, GREY, new_figure, save_figure, show_images

COPIES = 10  # of each training digit, with other noise, for a mixture; a flow meets new noise in every epoch
NOISES = 10  # draws of the noise of each test digit
RUNS = {  # name: settings, steps
    "5 Gaussians": ({}, 40),
    "5 Gaussians of logits": ({"logit": True}, 40),
    "RealNVP": (DIGITS_REALNVP, 600),
    "MAF": (DIGITS_MAF, 400),
    "spline flow": (DIGITS_SPLINE, 600),
    "spline flow, labels": (DIGITS_SPLINE | {"conditional": True}, 500),
}


class Mixture:
    """Gaussians with full covariances, of pixels with noise in their grey levels, or of the logits of these."""

    def __init__(self, n_features, levels, logit=False):
        self.levels, self.entrance = levels, Chain(*[Logit()] * logit)
        self.model = GMM(n_features=n_features, n_components=5, floor=1e-3 if logit else 1 / (6 * levels) ** 2)

    def fit(self, data, args, steps):
        x = np.tile(data.x_train, (COPIES, 1))
        x = self.dequantised(x, Rng((args.seed, 1))).astype(np.float32)
        (y, _), _ = self.entrance.forward(x, None)
        return train(self.model, replace(data, x_train=y), args, steps, labels=None, x_test=None)[1]

    def dequantised(self, x, rng):
        return dequantise(x, self.levels, rng)

    def log_prob(self, x):
        (y, log_det), _ = self.entrance.forward(x, None)
        return self.model.log_prob(y) + log_det

    def sample(self, n, rng):
        return quantise(self.entrance.inverse(self.model.sample(n, rng)), self.levels)


def trained(name, data, levels, args):
    """(the model, its rng, seconds of training) of one of RUNS."""
    settings, steps = RUNS[name]
    if "Gaussians" in name:
        mixture = Mixture(pixels(data), levels, **settings)
        history = mixture.fit(data, args, steps)
        return mixture, mixture.model.rng, sum(row["seconds"] for row in history)
    model = Flow(n_features=pixels(data), levels=levels, n_classes=data.n_classes, **settings)
    model, history = train(model, data, args, steps, x_test=None)
    return model, model.rng, sum(row["seconds"] for row in history)


def main(args):
    data = pictures(args, least=2, to_train=50)
    levels, n = grey_levels(data), min(2_000, len(data.x_test))
    if not is_small(data) or not levels:
        needs = "at most 100 pixels" if levels else "2, 17 or 256 grey levels"
        raise UsageError(f"--data {args.data}: this demo needs pictures of {needs}, such as digits")
    judge, rows = judge_of(data, "Fréchet distance"), fixed_order(len(data.x_test))[:n]
    made, nats, distances = {}, {}, {}
    for name in RUNS:
        labelled = "labels" in name
        if labelled and data.labels_train is None:
            print(f"left out: {name}: the pictures have none")
            continue
        model, rng, seconds = trained(name, data, levels, args)
        started = time.perf_counter()
        made[name] = to_host(model.sample(DRAWS * n, rng((args.seed, 0, 2))))
        taken = (time.perf_counter() - started) / (DRAWS * n)
        distances[name] = judge and judge.measure(made[name], n)
        x = rng(0).array(data.x_test[rows])
        nats[name] = with_noise(model, x, rng((args.seed, 0, 3)), NOISES)
        saved = nats[name].log_p - nats["5 Gaussians"].log_p
        print(
            f"{name}: test digits {words(nats[name], pixels(data))}, {saved.mean():.1f} ± {spread(saved):.1f} nats less "
            f"than by 5 Gaussians; {f'Fréchet distance {distances[name]}; ' if judge else ''}trained in {seconds:.0f} s; "
            f"{1000 * taken:.2f} ms to draw one"
        )
        if labelled:
            labels = rng(0).array(data.labels_test[rows])
            told = with_noise(model, x, rng((args.seed, 0, 3)), NOISES, labels)
            print(f"{name}: if it is told the label, {words(told, pixels(data))}")
    draw(data, made, nats, distances, judge and judge.floor(n), picture_path(args, "likelihood_flow_digits"))


def words(likelihood, n_features):
    """A Likelihood in nats and in bits per pixel."""
    bits = likelihood.nll / (n_features * math.log(2))
    return f"{likelihood.nll:.1f} ± {likelihood.standard_error:.1f} nats, {bits:.2f} bits a pixel"


def spread(x):
    """The standard error of the mean of x (n,)."""
    return x.std(ddof=1) / math.sqrt(len(x))


def draw(data, made, nats, distances, floor, path):
    """Real digits, samples of each model, and bars of their nats."""
    figure, axes = new_figure(13, 5.6, 2, 4)
    panels = {"real digits": (data.x_test, floor)} | {name: (x, distances[name]) for name, x in made.items()}
    for axis in axes.ravel()[len(panels) :]:
        axis.axis("off")
    for axis, (name, (x, distance)) in zip(axes.ravel(), panels.items()):
        title = name + (f"\nFréchet distance {distance}" if distance else "")
        show_images(axis, x[:40], data.shape, 8, title, pixels=30)
    bars = axes[1, 3]
    bars.axis("on")
    colours = [GREY if "Gaussians" in name else BLUE for name in nats]
    bars.barh(range(len(nats)), [one.nll for one in nats.values()], color=colours)
    for i, (name, one) in enumerate(nats.items()):
        bars.text(2, i, name, va="center", color="white", fontsize=9)
        bars.text(one.nll - 2, i, f"{one.nll:.0f}", ha="right", va="center", color="white", fontsize=9)
    bars.invert_yaxis()
    bars.set(xlabel="nats", yticks=[], box_aspect=0.62)
    bars.set_title("what a test digit costs:\n-log P, less is better", fontsize=10)
    save_figure(figure, path)


if __name__ == "__main__":
    run(main, __doc__)
