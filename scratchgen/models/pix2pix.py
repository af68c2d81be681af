"""Picture to picture: G makes a picture x from a condition c, its outline or a coarse copy, and D judges whether they fit.

    G lowers  E Σ |G(c) - x|  (or squares)  + w E[L_G(D(G(c), c))]            D tells (x, c) from (G(c), c)

Isola et al. 2017, eq 1, 3 and 4, whose λ is 1/w. With squares and a coarse c it is super-resolution (Ledig et al. 2017, eq 2
and 3). Several pictures x may fit the same c. With the pixel error alone, the best G(c) is their mean or median, which is
blurred or has gaps. D tells such a picture from a real one, so G learns to make sharp ones; with the squared error,
sharpness increases the error. There is no z, because G would learn to ignore it. The noise is dropout, which is also active
when G is used (Isola et al.). w = 0 leaves D out: this is plain regression. The model computes c from x, so any square grey
pictures can be the data.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ..backend import UsageError, array_module
from ..nn.activations import LeakyReLU, Sigmoid
from ..nn.double_backward import between
from ..nn.layers import mlp
from ..nn.losses import ADVERSARIAL, absolute_error, loss_G, squared_error
from .parts.adversarial import Adversarial
from .settings import Count, Fraction, NonNegative, Positive, Whole


def outlines(images):
    """(B, h, w): 1 at each pixel of paper that touches ink, else 0. This draws a line around every stroke of the images.

    The line is closed and one pixel wide. A pixel is ink if it exceeds ½; it touches its neighbours above, below, left and
    right. There is no line outside the picture.
    """
    ink = (images > 0.5).astype(images.dtype)
    beside = array_module(images).zeros_like(ink)  # how many neighbours of each pixel are ink
    beside[:, 1:] += ink[:, :-1]
    beside[:, :-1] += ink[:, 1:]
    beside[:, :, 1:] += ink[:, :, :-1]
    beside[:, :, :-1] += ink[:, :, 1:]
    return array_module(images).minimum(beside, 1 - ink)


def block_means(images, factor):
    """The means (B, h / factor, w / factor) of the blocks of factor × factor pixels in images (B, h, w)."""
    batch, h, w = images.shape
    return images.reshape(batch, h // factor, factor, w // factor, factor).mean(axis=(2, 4))


def enlarged(images, factor):
    """(B, factor h, factor w): each pixel of images (B, h, w) becomes a block of factor × factor equal pixels."""
    batch, h, w = images.shape
    blocks = array_module(images).broadcast_to(images[:, :, None, :, None], (batch, h, factor, w, factor))
    return blocks.reshape(batch, h * factor, w * factor)


@dataclass(eq=False)
class Pix2Pix(Adversarial):
    """The settings come first, then the model. Shapes: x (B, n_features), c (B, n_features / scale²), logits (B, 1)."""

    n_features: Count = 784
    condition: Literal["edges", "low_resolution"] = "edges"  # what c is: the outlines of x, or a coarse copy of x
    factor: Count = 4  # for low_resolution: each pixel of c is the mean of factor × factor pixels of x
    hidden_G: tuple[int, ...] = (512, 512)
    hidden_D: tuple[int, ...] = (256, 256)
    output: Literal["sigmoid", "linear", "residual"] = "sigmoid"  # of G; residual: what is added to the enlarged c
    error: Literal["absolute", "squares"] = "absolute"  # |G(c) - x| or its square, summed over the pixels
    adversarial_weight: NonNegative = 1.0  # w, the weight of the adversarial loss; 0: no D
    adversarial_loss: Literal[tuple(ADVERSARIAL)] = "non_saturating"
    d_steps: Count = 1  # steps of D per round, each on its own batch
    dropout: Fraction = 0.0  # dropout rate in G, its only noise
    r1: NonNegative = 1.0  # γ of the R1 penalty, see models/gan.py; for all losses except wasserstein
    lam: NonNegative = 10.0  # λ of the gradient penalty, see models/wgan.py; for wasserstein only
    batch: Count = 64
    lr_G: Positive = 5e-4
    lr_D: Positive = 5e-4
    beta1: Fraction = 0.0  # Adam's β1
    beta2: Fraction = 0.99
    decay_steps: Whole = 0  # rounds of training: the rates fall linearly to 0 in the second half; 0: constant rates
    averaging: Fraction = 0.999  # decay of the averaged weights of G that generate() uses; 0: the latest weights

    judged_by_samples = False  # it cannot sample
    data_range = (0, 1)
    tiny = {"n_features": 16, "factor": 2, "hidden_G": (5,), "hidden_D": (7,), "batch": 4}

    @property
    def side(self):
        return math.isqrt(self.n_features)

    @property
    def scale(self):
        """How many pixels of x, along a side, one pixel of c represents."""
        return self.factor if self.condition == "low_resolution" else 1

    def build(self, rng):
        n_condition = (self.side // self.scale) ** 2
        last = Sigmoid if self.output == "sigmoid" else None
        self.generator = mlp([n_condition, *self.hidden_G, self.n_features], dropout=self.dropout, last=last)
        self.discriminator = None
        if self.adversarial_weight:
            self.discriminator = mlp([self.n_features + n_condition, *self.hidden_D, 1], LeakyReLU)
        else:
            self.objectives = {"generator_loss": "params_G"}
        return self.with_optimizers(rng)

    def conditions(self, x):
        """The c of pictures x (N, n_features): outlines (N, n_features), or means of blocks (N, n_features / factor²)."""
        images = x.reshape(len(x), self.side, self.side)
        c = outlines(images) if self.condition == "edges" else block_means(images, self.scale)
        return c.reshape(len(x), -1)

    def translate(self, c, rng):
        """(G(c), its backward), with G(c) (B, n_features)."""
        x_hat, back_generator = self.generator.forward(c, rng)
        if self.output == "residual":
            side = self.side // self.scale
            x_hat = x_hat + enlarged(c.reshape(len(c), side, side), self.scale).reshape(x_hat.shape)
        return x_hat, back_generator

    def pairs(self, x, c):
        """D's input: x (B, n_features) and c (B, ...) side by side."""
        return array_module(x).concatenate([x, c], axis=1)

    def discriminator_loss(self, x, rng, labels=None):
        """D's loss with its penalty, on real pairs (x, c) against (G(c), c). Only D gets a gradient."""
        c = self.conditions(x)
        real, fake = self.pairs(x, c), self.pairs(self.translate(c, rng)[0], c)
        pixels = slice(0, self.n_features)  # the penalty uses the gradient in x only
        if self.adversarial_loss != "wasserstein":
            return self.tell_apart(real, fake, rng, columns=pixels)
        loss = self.loss_of_both(real, fake, rng)
        losses = self.penalised(loss, self.lam, between(real, fake, rng), centre=1.0, columns=pixels)
        return losses | {"wasserstein": -loss}

    def generator_loss(self, x, rng, labels=None):
        """The error of G(c) against x (B, n_features), plus w times L_G. Only G gets a gradient: D is frozen."""
        self.params_G.zero_grad()
        c = self.conditions(x)
        x_hat, back_generator = self.translate(c, rng)  # (B, n_features)
        error, dx_hat = (absolute_error if self.error == "absolute" else squared_error)(x_hat, x)
        if not self.adversarial_weight:
            back_generator(dx_hat, inputs=False)
            return {"generator_loss": error}
        logits, back_discriminator = self.discriminator.forward(self.pairs(x_hat, c), rng)
        adversarial, d_logits = loss_G(logits, self.adversarial_loss)

        d_pair = back_discriminator(d_logits, learn=False)  # the gradient in x̂ and c
        back_generator(dx_hat + self.adversarial_weight * d_pair[:, : self.n_features], inputs=False)
        loss = error + self.adversarial_weight * adversarial
        return {"generator_loss": loss, "error": error, "adversarial": adversarial}

    def train_step(self, x, rng, labels=None):
        return super().train_step(x, rng) if self.adversarial_weight else self.train_G(x, rng)

    @property
    def examples_per_step(self):
        return super().examples_per_step if self.adversarial_weight else self.batch

    def generate(self, c, rng=None):
        """G(c), a picture (n_features,) for each row of c, by the averaged weights. With rng, dropout is active."""
        with self.average.swapped():
            return self.translate(c, rng)[0]

    def sample(self, n, rng, label=None):
        raise UsageError(
            "a Pix2Pix has no way to sample: it needs a condition c; use its method generate, see demos/use_translation.py"
        )

    def evaluate(self, x, rng, labels=None):
        """{name: number} on test pictures x (N, n_features): errors per picture and per pixel, and D's mean logits.

        With rng, dropout is active, as in generate.
        """
        c = self.conditions(x)
        x_hat = self.generate(c, rng)
        squares = squared_error(x_hat, x)[0]
        found = {
            "absolute_error": absolute_error(x_hat, x)[0],
            "squared_error": squares,
            "mse": squares / self.n_features,
        }
        if self.adversarial_weight:
            for name, made in (("logit_real", x), ("logit_fake", x_hat)):
                found[name] = self.discriminator(self.pairs(made, c)).mean()
        return found
