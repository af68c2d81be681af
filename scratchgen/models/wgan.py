"""The Wasserstein GAN: D is a critic that measures how far generated examples must be moved to match the real ones.

    W₁(p_data, p_g) = max over D of slope <= 1 of E_x~p_data[D(x)] - E_z~p_z[D(G(z))]

Arjovsky et al. 2017, eq 2. If real and generated examples do not overlap, the JSD is log 2 however near they are, and its
gradient is 0. The Wasserstein distance decreases with every step that brings them nearer. So the critic should be trained
well (d_steps steps for each step of G), and its estimate, the column `wasserstein`, shows the progress of training.

There are two ways to limit the slope. constraint="clip" clips each weight to [-clip, clip] after every step (algorithm 1;
use optimizer="rmsprop", because optimizers with momentum did badly there). constraint="gradient" adds λ (‖∇D‖ - 1)² at
points between real and generated examples (Gulrajani et al. 2017, eq 3; nn/double_backward.py has its exact gradient). λ
must fit the distances in the data: 10 suits pictures, and 0.1 suits points of unit variance. For such points λ = 10 is too
large: a critic that starts with the wrong sign cannot change it, and its estimate stays negative.

Three bugs are common. D may have a wrong sign: it must raise its score on real examples. G may have a wrong sign: it must
raise D's score on its own examples. And α must be drawn once per example, not once per number.
"""

from dataclasses import dataclass
from typing import Literal

from ..nn.activations import ACTIVATIONS, Sigmoid
from ..nn.double_backward import between, gradient_penalty
from ..nn.layers import mlp
from ..nn.losses import loss_D, loss_G
from ..nn.optim import clip_weights
from .parts.adversarial import Adversarial
from .settings import Count, Fraction, NonNegative, Positive, Whole


@dataclass(eq=False)
class WGAN(Adversarial):
    """The settings come first, then the model. Shapes: x (B, n_features), z (B, n_latent), scores (B, 1)."""

    n_features: Count = 784
    n_latent: Count = 32
    hidden_G: tuple[int, ...] = (256, 512)
    hidden_D: tuple[int, ...] = (512, 256)
    activation_D: Literal[tuple(ACTIVATIONS)] = "leaky_relu"
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of G: sigmoid for pixels in [0, 1], linear for any numbers
    constraint: Literal["gradient", "clip"] = "gradient"  # what limits the critic's slope: a penalty, or clipping
    lam: NonNegative = 10.0  # λ, the weight of the gradient penalty
    one_sided: bool = False  # true: only slopes above 1 are penalised
    clip: Positive = 0.01  # for constraint=clip: the critic's weights are clipped to [-clip, clip]
    d_steps: Count = 5  # steps of the critic per round, each on its own batch
    optimizer: Literal["adam", "rmsprop"] = "adam"
    batch: Count = 64
    lr_G: Positive = 1e-4
    lr_D: Positive = 1e-4
    beta1: Fraction = 0.0  # Adam's β1
    beta2: Fraction = 0.9
    decay_steps: Whole = 0  # rounds of training: the rates fall linearly to 0 in the second half; 0: constant rates
    averaging: Fraction = 0.999  # decay of the averaged weights of G that sample() uses; 0: the latest weights

    tiny = {"n_features": 6, "n_latent": 2, "hidden_G": (5,), "hidden_D": (7, 4), "batch": 4}

    def build(self, rng):
        last = Sigmoid if self.output == "sigmoid" else None
        self.generator = mlp([self.n_latent, *self.hidden_G, self.n_features], last=last)
        self.discriminator = mlp([self.n_features, *self.hidden_D, 1], ACTIVATIONS[self.activation_D])
        return self.with_optimizers(rng)

    def discriminator_loss(self, x, rng, labels=None):
        """E[D(G(z))] - E[D(x)] for real x (B, n_features), plus the penalty. Only the critic gets a gradient."""
        self.params_D.zero_grad()
        x_hat = self.generator(rng.normal((len(x), self.n_latent)), rng)  # (B, n_features)
        real, back_real = self.discriminator.forward(x, rng)  # (B, 1)
        fake, back_fake = self.discriminator.forward(x_hat, rng)
        loss, d_real, d_fake = loss_D(real, fake, "wasserstein")

        back_real(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        if self.constraint == "clip":
            return {"discriminator_loss": loss, "wasserstein": -loss}
        penalty, back_penalty = gradient_penalty(self.discriminator, between(x, x_hat, rng), one_sided=self.one_sided)
        back_penalty(self.lam)
        return {"discriminator_loss": loss + self.lam * penalty, "wasserstein": -loss, "penalty": penalty}

    def generator_loss(self, x, rng, labels=None):
        """-E[D(G(z))] for B codes z; only the number of rows of x is used. Only G gets a gradient: the critic is frozen."""
        self.params_G.zero_grad()
        z = rng.normal((len(x), self.n_latent))
        x_hat, back_generator = self.generator.forward(z, rng)  # (B, n_features)
        score, back_discriminator = self.discriminator.forward(x_hat, rng)  # (B, 1)
        loss, d_score = loss_G(score, "wasserstein")

        dx_hat = back_discriminator(d_score, learn=False)
        back_generator(dx_hat, inputs=False)
        return {"generator_loss": loss}

    def constrain(self):
        if self.constraint == "clip":
            clip_weights(self.params_D, self.clip)

    def evaluate(self, x, rng, labels=None):
        """{"wasserstein": estimate of W₁}: the critic's mean on test data x (N, n_features) minus that on generated data.

        The estimate has the unit of the data only if the critic's slope is 1. With clipping, it has an unknown factor.
        """
        return {"wasserstein": self.discriminator(x).mean() - self.discriminator(self.sample(len(x), rng)).mean()}
