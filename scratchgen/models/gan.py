"""The generative adversarial network: G makes examples from noise, D tells them from real ones; each learns from the other.

    V(D, G) = E_x~p_data[log D(x)] + E_z~p_z[log(1 - D(G(z)))]           D raises V, G lowers it

Goodfellow et al. 2014, eq 1 and algorithm 1. A round is d_steps steps of D, then g_steps steps of G. D is a binary
classifier, real (1) against generated (0), with the loss -V. It needs no class labels. G never sees a real example: it
learns only from D's gradient at its own examples, while D is frozen. p_z is the distribution of z and p_g that of G(z).
One can sample from p_g but not compute its density, so a GAN has no likelihood. Nor does the loss of D or of G tell how good
the samples are; metrics/ does. The loss of G is a setting: nn/losses.py has all choices.

Several settings keep D from getting too far ahead of G. R1 (on by default) penalises how steep D's logit is at real
examples: it adds ½ γ E‖∇ₓD(x)‖² to D's loss (Mescheder et al. 2018, eq 9). The others are off by default. Input noise is
added to the examples that D sees, those of R1 too. Label noise swaps real and generated in some of D's targets. Both can
fade during training. D may also have smoothed targets and dropout. With packing (PacGAN, Lin et al. 2018) D judges several
examples at once, so it can see when they are all alike.
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
    """The settings come first, then the model. Shapes: x (B, n_features), z (B, n_latent), logits (B / pack, 1)."""

    n_features: Count = 784
    n_latent: Count = 32
    hidden_G: tuple[int, ...] = (256, 512)
    hidden_D: tuple[int, ...] = (512, 256)
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of G: sigmoid for pixels in [0, 1], linear for any numbers
    adversarial_loss: Literal[tuple(ADVERSARIAL)] = "non_saturating"
    d_steps: Count = 1  # steps of D per round, each on its own batch
    g_steps: Count = 1  # steps of G per round
    pack: Count = 1  # how many examples D judges at once
    r1: NonNegative = 1.0  # γ, the weight of the R1 penalty on D's gradient
    dropout: Fraction = 0.0  # dropout rate in D
    noise: NonNegative = 0.0  # standard deviation of the noise on D's inputs when training starts
    spared: Fraction = 0.0  # the fraction of D's inputs that get no noise
    label_noise: Fraction = 0.0  # the probability that a label of D is flipped, when training starts
    noise_steps: Whole = 0  # rounds in which noise and label_noise fall linearly to 0; 0: they stay constant
    label_smoothing: Fraction = 0.0  # D's target for real examples is 1 - label_smoothing
    optimizer: Literal["adam", "sgd"] = "adam"
    batch: Count = 64
    lr_G: Positive = 5e-4
    lr_D: Positive = 5e-4
    beta1: Fraction = 0.0  # Adam's β1
    beta2: Fraction = 0.99
    momentum: Fraction = 0.5  # momentum of SGD
    decay_steps: Whole = 0  # rounds of training: the rates fall linearly to 0 in the second half; 0: constant rates
    averaging: Fraction = 0.999  # decay of the averaged weights of G that sample() uses; 0: the latest weights

    tiny = {"n_features": 6, "n_latent": 2, "hidden_G": (5,), "hidden_D": (7,), "batch": 4}

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

    # Training.

    def discriminator_loss(self, x, rng, labels=None):
        """D's loss with R1, on real x (B, n_features) against B generated examples. Only D gets a gradient."""
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
        """G's loss on B generated examples; only the number of rows of x is used. Only G gets a gradient: D is frozen."""
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
        """D's input (B / pack, pack n_features): the examples x (B, n_features) with noise added, then packed."""
        if self.noise:
            noise = self.noise_level.value * rng.normal(x.shape)
            x = x + (noise * (rng.uniform(x.shape) >= self.spared) if self.spared else noise)
        return self.packed(x)

    def packed(self, x):
        """x (N, n_features) as (N / pack, pack n_features). Raises ValueError if N is not a multiple of pack."""
        if len(x) % self.pack:
            raise ValueError(
                f"GAN got examples of shape {x.shape}, expected (N, n_features) with N a multiple of pack={self.pack}"
            )
        return x.reshape(-1, self.pack * self.n_features)

    def targets(self, n, rng):
        """(y of n real inputs, y of n generated inputs): two numbers, or two arrays (n, 1) if some labels are flipped."""
        y_real, y_fake = 1.0 - self.label_smoothing, 0.0
        if not self.label_noise:
            return y_real, y_fake
        flipped = (rng.uniform((2, n, 1)) < self.label_noise_level.value).astype(rng.real)
        return y_real * (1 - flipped[0]), y_real * flipped[1]

    # Using the trained model.

    def judge(self, x):
        """D's logits (N / pack, 1) of examples x (N, n_features). With a cross-entropy or hinge loss, > 0 means real."""
        return self.discriminator(self.packed(x))

    def evaluate(self, x, rng, labels=None):
        """{name: number}: D's mean logits on test data x (N, n_features) and on N generated examples."""
        x = x[: len(x) // self.pack * self.pack]
        if not len(x):  # fewer examples than one pack
            return {}
        return {"logit_real": self.judge(x).mean(), "logit_fake": self.judge(self.sample(len(x), rng)).mean()}
