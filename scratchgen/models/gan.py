"""The generative adversarial network: G makes examples from noise, D tells them from real ones, each learns from the other.

    V(D, G) = E_x~p_data[log D(x)] + E_z~p_z[log(1 - D(G(z)))]           D raises V, G lowers it

Goodfellow et al. 2014, eq 1 and algorithm 1: a round is d_steps of D, then g_steps of G. D is a binary classifier, real (1)
against generated (0), no class labels (week10 has "labelled pictures of each class"): its loss is -V. G never meets a real
example, only D's slope at what it made, and D is frozen meanwhile. p_z is the law of the noise (gan-vae-notes and the
slides misprint it in the pseudo-code), p_g that of G(z): p_g(x) = ∫ p_z(z) δ(x - G(z)) dz, which nobody can compute (lee-15
§2.2 prints an integral over x of an indicator, which is 0). Which loss G lowers is a setting: nn/losses.py has them all.

What keeps D from running ahead of G: R1, ½ γ E‖∇ₓD(x)‖² at real x as D is shown them (Mescheder et al. 2018, eq 9); noise on
its inputs and on its labels, which fade as training goes on (lee-15 §3.3 calls noise in part of a picture "label noise":
that is input noise, label noise flips labels); smoothed labels; dropout; packing, where D judges several examples at once
and so sees when all are alike (PacGAN, Lin et al. 2018). Neither loss says how good the samples are: see metrics/.
"""

from dataclasses import dataclass
from typing import Literal

from ..nn.activations import LeakyReLU, Sigmoid
from ..nn.double_backward import gradient_penalty
from ..nn.layers import mlp
from ..nn.losses import ADVERSARIAL, loss_D, loss_G
from ..nn.optim import Annealed
from ..nn.schedules import constant, linear
from .parts.adversarial import Adversarial
from .settings import Count, Fraction, NonNegative, Positive, Whole


@dataclass(eq=False)
class GAN(Adversarial):
    """The settings, then the model. Shapes: x (B, n_features), z (B, n_latent), logits (B / pack, 1)."""

    n_features: Count = 784
    n_latent: Count = 32
    hidden_G: tuple[int, ...] = (256, 512)
    hidden_D: tuple[int, ...] = (512, 256)
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of G: pixels in [0, 1], or any numbers
    adversarial_loss: Literal[tuple(ADVERSARIAL)] = "non_saturating"
    d_steps: Count = 1  # steps of D a round, each on a batch of its own
    g_steps: Count = 1  # steps of G a round
    pack: Count = 1  # how many examples D judges at once
    r1: NonNegative = 1.0  # γ
    dropout: Fraction = 0.0  # in D
    noise: NonNegative = 0.0  # standard deviation of the noise on D's inputs at the start
    spared: Fraction = 0.0  # the fraction of an example's numbers that this noise spares
    label_noise: Fraction = 0.0  # the probability that D is told the wrong label, at the start
    noise_steps: Whole = 0  # both fall linearly to 0 in so many rounds. 0: they never fall
    label_smoothing: Fraction = 0.0  # D's target for real examples is 1 - label_smoothing
    optimizer: Literal["adam", "sgd"] = "adam"
    batch: Count = 64
    lr_G: Positive = 5e-4
    lr_D: Positive = 5e-4
    beta1: Fraction = 0.0  # Adam's
    beta2: Fraction = 0.99
    momentum: Fraction = 0.5  # SGD's
    decay_steps: Whole = 0  # training length in rounds; from half of it on the rates fall linearly to 0. 0: never fall
    averaging: Fraction = 0.999  # decay of the averaged weights of G that sample() uses; 0: the last ones

    tiny = {"n_features": 6, "n_latent": 2, "hidden_G": (5,), "hidden_D": (7,), "batch": 4}

    @property
    def data_range(self):
        return (0, 1) if self.output == "sigmoid" else None

    def build(self, rng):
        last = Sigmoid if self.output == "sigmoid" else None
        self.generator = mlp([self.n_latent, *self.hidden_G, self.n_features], last=last)
        self.discriminator = mlp([self.pack * self.n_features, *self.hidden_D, 1], LeakyReLU, dropout=self.dropout)
        self.with_optimizers(rng)
        self.noise_level, self.label_noise_level = (
            Annealed(self.params_D, linear(level, 0, self.noise_steps) if self.noise_steps else constant(level))
            for level in (self.noise, self.label_noise)
        )
        return self

    # What training does.

    def discriminator_loss(self, x, rng, labels=None):
        """D's loss on real x (B, n_features) against as many generated ones, R1 included. Trains D alone."""
        self.params_D.zero_grad()
        z = rng.normal((len(x), self.n_latent))
        real = self.discriminator_input(x, rng)  # (B / pack, pack n_features)
        fake = self.discriminator_input(self.generator(z, rng), rng)
        logits_real, back_real = self.discriminator.forward(real, rng)
        logits_fake, back_fake = self.discriminator.forward(fake, rng)
        loss, d_real, d_fake = loss_D(logits_real, logits_fake, self.adversarial_loss, *self.targets(len(real), rng))

        back_real(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        if not self.r1:
            return {"discriminator_loss": loss}
        penalty, back_penalty = gradient_penalty(self.discriminator, real, centre=0.0)
        back_penalty(0.5 * self.r1)
        return {"discriminator_loss": loss + 0.5 * self.r1 * penalty, "penalty": penalty}

    def generator_loss(self, x, rng, labels=None):
        """G's loss on as many examples of its own as x has rows, which is all it takes of x. Trains G alone; D is frozen."""
        self.params_G.zero_grad()
        z = rng.normal((len(x), self.n_latent))
        x_hat, back_generator = self.generator.forward(z, rng)  # (B, n_features)
        logits, back_discriminator = self.discriminator.forward(self.discriminator_input(x_hat, rng), rng)
        loss, d_logits = loss_G(logits, self.adversarial_loss)

        dx_hat = back_discriminator(d_logits, learn=False)
        back_generator(dx_hat.reshape(x_hat.shape), inputs=False)
        return {"generator_loss": loss}

    def train_step(self, x, rng, labels=None):
        self.noise_level.step()
        self.label_noise_level.step()
        return super().train_step(x, rng, labels)

    def discriminator_input(self, x, rng):
        """What D is shown of examples (B, n_features): with noise on them, and packed. -> (B / pack, pack n_features)"""
        if self.noise:
            noise = self.noise_level.value * rng.normal(x.shape)
            x = x + (noise * (rng.uniform(x.shape) >= self.spared) if self.spared else noise)
        return self.packed(x)

    def packed(self, x):
        """(N, n_features) -> (N / pack, pack n_features). Raises ValueError if N is no multiple of pack."""
        if len(x) % self.pack:
            raise ValueError(
                f"GAN got examples of shape {x.shape}, expected (N, n_features), N a multiple of {self.pack}"
            )
        return x.reshape(-1, self.pack * self.n_features)

    def targets(self, n, rng):
        """y for D's n real and n generated logits: numbers, or (n, 1) where some labels are flipped."""
        y_real, y_fake = 1.0 - self.label_smoothing, 0.0
        if not self.label_noise:
            return y_real, y_fake
        flipped = (rng.uniform((2, n, 1)) < self.label_noise_level.value).astype(rng.real)
        return y_real * (1 - flipped[0]), y_real * flipped[1]

    # What it is good for.

    def judge(self, x):
        """D's logits (N / pack, 1) of examples x (N, n_features). Cross-entropies and hinge: > 0 where it says real."""
        return self.discriminator(self.packed(x))

    def evaluate(self, x, rng, labels=None):
        """{name: number}: D's mean logit on test data x (N, n_features) and on as many generated examples."""
        x = x[: len(x) // self.pack * self.pack]
        if not len(x):  # less than one pack
            return {}
        return {"logit_real": self.judge(x).mean(), "logit_fake": self.judge(self.sample(len(x), rng)).mean()}
