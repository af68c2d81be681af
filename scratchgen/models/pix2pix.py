"""Picture to picture: G makes a picture x of a condition c, its outline or a coarse copy, and D judges whether they fit.

    G lowers  E Σ |G(c) - x|  (or squares)  + w E[L_G(D(G(c), c))]            D tells (x, c) from (G(c), c)

Isola et al. 2017, eq 1, 3 and 4, whose λ is 1/w; with squares and a coarse c it is super-resolution, Ledig et al. 2017, eq 2
and 3. Where c leaves open what x is, the pixel error alone is least for a mean or a median of all that it may be: blur, or
gaps. D tells that from a real picture; where the error is squared, G pays for sharpness with error. There is no z, which G
would learn to overlook: the noise is dropout, kept on when G is used (Isola et al.). w = 0 leaves D out: plain regression.
The model makes c from x by itself, so any square grey pictures will do.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ..backend import UsageError, array_module
from ..nn.activations import LeakyReLU, Sigmoid
from ..nn.double_backward import between, gradient_penalty
from ..nn.layers import mlp
from ..nn.losses import ADVERSARIAL, absolute_error, loss_D, loss_G, squared_error
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .base import Model, saturation


def outlines(images):
    """1 where paper touches ink, else 0, of images (B, h, w): a closed line, one pixel wide, round every stroke.

    Ink is what exceeds ½, and pixels touch above, below, left and right. Outside of the picture there is no line.
    """
    ink = (images > 0.5).astype(images.dtype)
    beside = array_module(images).zeros_like(ink)  # how many of a pixel's neighbours are ink
    beside[:, 1:] += ink[:, :-1]
    beside[:, :-1] += ink[:, 1:]
    beside[:, :, 1:] += ink[:, :, :-1]
    beside[:, :, :-1] += ink[:, :, 1:]
    return array_module(images).minimum(beside, 1 - ink)


def block_means(images, factor):
    """The mean of every block of factor × factor pixels: (B, h, w) -> (B, h / factor, w / factor)."""
    batch, h, w = images.shape
    return images.reshape(batch, h // factor, factor, w // factor, factor).mean(axis=(2, 4))


def enlarged(images, factor):
    """Every pixel as a block of factor × factor equal ones: (B, h, w) -> (B, factor h, factor w)."""
    batch, h, w = images.shape
    blocks = array_module(images).broadcast_to(images[:, :, None, :, None], (batch, h, factor, w, factor))
    return blocks.reshape(batch, h * factor, w * factor)


@dataclass(eq=False)
class Pix2Pix(Model):
    """The settings, then the model. Shapes: x (B, n_features), c (B, n_features / scale²), logits (B, 1)."""

    n_features: int = 784
    condition: Literal["edges", "low_resolution"] = "edges"
    factor: int = 4  # low_resolution: c has a pixel for a block of factor × factor
    hidden_G: tuple[int, ...] = (512, 512)
    hidden_D: tuple[int, ...] = (256, 256)
    output: Literal["sigmoid", "linear", "residual"] = "sigmoid"  # of G; residual: numbers to be added to c, enlarged
    error: Literal["absolute", "squares"] = "absolute"  # summed over the pixels
    adversarial: float = 1.0  # w; 0: no D
    loss: Literal[tuple(ADVERSARIAL)] = "non_saturating"
    k: int = 1  # steps of D a round, each on a batch of its own
    dropout: float = 0.0  # in G, its only noise
    r1: float = 1.0  # γ of R1, see gan.py; of all losses but wasserstein
    lam: float = 10.0  # λ of the gradient penalty, see wgan.py; of wasserstein
    batch: int = 64
    lr_G: float = 5e-4
    lr_D: float = 5e-4
    beta1: float = 0.0  # Adam's
    beta2: float = 0.99
    rounds: int = 0  # of the whole training: the rates stay for half of them, then fall linearly to 0; 0: they stay
    averaging: float = 0.999  # decay of the averaged weights of G that generate() uses; 0: the last ones

    pixels = True
    variants = (  # w = 0 has no objective of D's: its own test checks it
        {},
        {"condition": "low_resolution", "output": "residual", "error": "squares", "dropout": 0.3, "loss": "hinge"},
        {"loss": "wasserstein", "output": "linear", "averaging": 0.0},
        {"condition": "low_resolution", "loss": "least_squares", "k": 2, "r1": 0.0, "rounds": 3},
    )

    def __post_init__(self):
        super().__post_init__()
        self.side = math.isqrt(self.n_features)
        if self.side**2 != self.n_features:
            raise UsageError(
                f"Pix2Pix setting n_features: expected a square, of square grey pictures, got {self.n_features}"
            )
        self.scale = self.factor if self.condition == "low_resolution" else 1  # pixels of x to one of c, along a side
        if self.factor == 0 or self.side % self.scale:
            raise UsageError(
                f"Pix2Pix setting factor: expected one that divides the side of {self.side} pixels, got {self.factor}"
            )

    def build(self, rng):
        n_condition = (self.side // self.scale) ** 2
        last = Sigmoid if self.output == "sigmoid" else None
        self.generator = mlp([n_condition, *self.hidden_G, self.n_features], dropout=self.dropout, last=last)
        self.params_G = Parameters(rng, generator=self.generator)
        self.optimizer_G = Adam(self.params_G, falling(self.lr_G, self.rounds), self.beta1, self.beta2)
        self.average = EMA(self.params_G, self.averaging)
        if not self.adversarial:
            self.objectives = {"generator_loss": "params_G"}
            return self
        self.discriminator = mlp([self.n_features + n_condition, *self.hidden_D, 1], LeakyReLU)
        self.params_D = Parameters(rng, discriminator=self.discriminator)
        self.optimizer_D = Adam(self.params_D, falling(self.lr_D, self.k * self.rounds), self.beta1, self.beta2)
        return self

    def conditions(self, x):
        """c of pictures x (N, n_features): outlines (N, n_features), or means of blocks (N, n_features / factor²)."""
        images = x.reshape(len(x), self.side, self.side)
        c = outlines(images) if self.condition == "edges" else block_means(images, self.scale)
        return c.reshape(len(x), -1)

    def translate(self, c, rng):
        """G(c) (B, n_features), and a backward that takes its gradient."""
        x_hat, back_generator = self.generator.forward(c, rng)
        if self.output == "residual":
            side = self.side // self.scale
            x_hat = x_hat + enlarged(c.reshape(len(c), side, side), self.scale).reshape(x_hat.shape)
        return x_hat, back_generator

    def pairs(self, x, c):
        """What D is shown: (B, n_features) and (B, ...) side by side."""
        return array_module(x).concatenate([x, c], axis=1)

    def discriminator_loss(self, x, rng):
        """D's loss on real pairs (x, c) against (G(c), c), with its penalty. Trains D alone."""
        self.params_D.zero_grad()
        c = self.conditions(x)
        real, fake = self.pairs(x, c), self.pairs(self.translate(c, rng)[0], c)
        logits_real, back_real = self.discriminator.forward(real, rng)  # (B, 1)
        logits_fake, back_fake = self.discriminator.forward(fake, rng)
        loss, d_real, d_fake = loss_D(logits_real, logits_fake, self.loss)

        back_real(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        terms, weight = {}, 0.5 * self.r1
        if self.loss == "wasserstein":
            terms["wasserstein"], weight = -loss, self.lam
        if not weight:
            return {"discriminator_loss": loss} | terms
        at, centre = (between(real, fake, rng), 1.0) if self.loss == "wasserstein" else (real, 0.0)
        pixels = slice(0, self.n_features)  # the slope in x alone
        penalty, back_penalty = gradient_penalty(self.discriminator, at, centre, columns=pixels)
        back_penalty(weight)
        return {"discriminator_loss": loss + weight * penalty} | terms | {"penalty": penalty}

    def generator_loss(self, x, rng):
        """The error of G(c) against x (B, n_features), and w times what D says of it. Trains G alone; D stands still."""
        self.params_G.zero_grad()
        c = self.conditions(x)
        x_hat, back_generator = self.translate(c, rng)  # (B, n_features)
        error, dx_hat = (absolute_error if self.error == "absolute" else squared_error)(x_hat, x)
        if not self.adversarial:
            back_generator(dx_hat, inputs=False)
            return {"generator_loss": error}
        logits, back_discriminator = self.discriminator.forward(self.pairs(x_hat, c), rng)
        adversarial, d_logits = loss_G(logits, self.loss)

        d_pair = back_discriminator(d_logits, learn=False)  # of x̂ and c
        back_generator(dx_hat + self.adversarial * d_pair[:, : self.n_features], inputs=False)
        loss = error + self.adversarial * adversarial
        return {"generator_loss": loss, "error": error, "adversarial": adversarial}

    objectives = {"discriminator_loss": "params_D", "generator_loss": "params_G"}

    def train_step(self, x, rng):
        """A round, from x (k batch, n_features). Returns the losses of its last step of D, if there is one, and of G's."""
        losses, part = {}, x
        for part in x.reshape(self.k, -1, self.n_features) if self.adversarial else ():
            losses = self.discriminator_loss(part, rng)
            self.optimizer_D.step()
        losses |= self.generator_loss(part, rng)
        self.optimizer_G.step()
        self.average.step()
        return losses

    @property
    def rows(self):
        return self.k * self.batch if self.adversarial else self.batch

    remedies = "a larger r1, fewer steps of D (k) or a smaller lr_D"

    def complaint(self, losses):
        return saturation(self, losses) if self.adversarial else ""

    def generate(self, c, rng=None):
        """G(c), a picture (n_features,) for each row of c, by the averaged weights. rng: dropout stays on."""
        with self.average.swapped():
            return self.translate(c, rng)[0]

    def sample(self, n, rng):
        raise UsageError(
            "a Pix2Pix has no way to sample: it paints what it is given; see generate, demos/use_translation.py"
        )

    def evaluate(self, x, rng):
        """{name: number} on test pictures x (N, n_features): errors per picture and per pixel, D's mean logits.

        rng: dropout stays on, as in generate.
        """
        c = self.conditions(x)
        x_hat = self.generate(c, rng)
        squares = squared_error(x_hat, x)[0]
        found = {
            "absolute_error": absolute_error(x_hat, x)[0],
            "squared_error": squares,
            "mse": squares / self.n_features,
        }
        if self.adversarial:
            for name, made in (("logit_real", x), ("logit_fake", x_hat)):
                found[name] = self.discriminator(self.pairs(made, c)).mean()
        return found

    @classmethod
    def example(cls, rng, **settings):
        tiny = {"n_features": 16, "factor": 2, "hidden_G": (5,), "hidden_D": (7,), "batch": 4}
        model = cls(**tiny | settings).build(rng)
        return model, {"x": rng.uniform((model.rows, 16))}
