"""The VQ-GAN: a VQ-VAE whose decoder must also convince a discriminator, so that few codes give sharp pictures.

    autoencoder   ‖x̂ - x‖² + (‖sg[z] - e‖²) + β ‖z - sg[e]‖² + λ L_G(D(x̂))          the loss of vqvae.py, and G's loss by D
    D             tells real x from restored sg[x̂]
    λ = w ‖∇_L ‖x̂ - x‖²‖ / (‖∇_L L_G‖ + δ)                    L: the weights of the decoder's last layer; λ is a constant

Esser et al. 2021, eq 4 to 7. λ keeps the gradients of the two losses at the decoder's last layer in the ratio 1 : w, while D
and the error change. The encoder's output is quantised, and the decoder makes the picture from it. If the codes hold too
little information, many pictures share them. The squared error is smallest for the mean of these pictures, which is blurred,
and D easily tells it from a real picture. A sharp picture is farther from x on average: so D makes pictures sharper and the
error larger. The paper also adds a distance in the features of a network for photographs; here the error is in pixels only.
"""

from dataclasses import dataclass
from typing import Literal

from ..backend import array_module, stop
from ..nn.activations import LeakyReLU
from ..nn.layers import mlp
from ..nn.losses import loss_G
from ..nn.optim import Adam
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .parts.adversarial import Adversarial
from .settings import Count, NonNegative, Positive, Whole
from .vqvae import VQVAE

DELTA, LARGEST = 1e-6, 1e4  # δ of eq 7, and the upper bound of the ratio in the authors' program


@dataclass(eq=False)
class VQGAN(VQVAE, Adversarial):
    """The settings of a VQVAE and the following. Shapes: x and x_hat (B, n_features), logits (B, 1)."""

    n_dim: Count = 4
    n_embeddings: Count = 128
    hidden_D: tuple[int, ...] = (512, 256)
    adversarial_loss: Literal["hinge", "non_saturating"] = "hinge"  # the losses of D and G; see nn/losses.py
    adversarial_weight: NonNegative = 1.0  # w, the weight of the adversarial loss
    warmup_steps: Whole = 0  # steps of a plain VQ-VAE before D is added
    r1: NonNegative = 1.0  # γ, the weight of the R1 penalty, see models/gan.py
    lr_D: Positive = 5e-4

    judged_by_samples = False  # it restores pictures and cannot sample
    objectives = {"loss": "params", "discriminator_loss": "params_D"}
    tiny = VQVAE.tiny | {"hidden_D": (7,)}

    def build(self, rng):
        super().build(rng)
        self.discriminator = mlp([self.n_features, *self.hidden_D, 1], LeakyReLU)
        self.params_D = Parameters(rng, discriminator=self.discriminator)
        self.optimizer_D = Adam(
            self.params_D, falling(self.lr_D, max(0, self.decay_steps - self.warmup_steps)), 0.0, 0.99
        )
        return self

    @property
    def warming_up(self):
        """Whether the next step is one of a plain VQ-VAE."""
        return int(self.adam.t[0]) < self.warmup_steps

    @property
    def same_every_step(self):
        return super().same_every_step and not self.warmup_steps

    def error(self, x_hat, x, back_head, rng):
        """The error of x̂ plus λ L_G(D(x̂)), its terms and its gradient in x̂. D is frozen; the warm-up leaves D out."""
        squares, terms, d_squares = super().error(x_hat, x, back_head, rng)
        if self.warming_up:
            return squares, terms, d_squares
        logits, back_discriminator = self.discriminator.forward(x_hat, rng)
        adversarial, d_logits = loss_G(logits, self.adversarial_loss)
        d_adversarial = back_discriminator(d_logits, learn=False)
        lam = self.balance(back_head, d_squares, d_adversarial)
        terms |= {"adversarial": adversarial, "lambda": lam}
        return squares + lam * adversarial, terms, d_squares + lam * d_adversarial

    def balance(self, back_head, d_squares, d_adversarial):
        """λ of eq 7, from the gradients of both terms in x_hat. Afterwards the gradient of the weights is 0."""
        norms, L = [], self.head.layers[0]
        for d in (d_squares, d_adversarial):
            back_head(d, inputs=False)
            norms.append(array_module(d).sqrt((L.dW * L.dW).sum()))
            self.params.zero_grad()
        return stop(self.adversarial_weight * array_module(d).minimum(norms[0] / (norms[1] + DELTA), LARGEST))

    def discriminator_loss(self, x, rng, labels=None):
        """D's loss with R1, on real x (B, n_features) against the restored x. Only D gets a gradient."""
        return self.tell_apart(x, stop(self.reconstruct(x)), rng)

    def train_step(self, x, rng, labels=None):
        warming_up = self.warming_up
        losses = super().train_step(x, rng)
        if not warming_up:
            losses |= self.discriminator_loss(x, rng)
            self.optimizer_D.step()
        return losses

    def judge(self, x):
        """D's logits (N, 1) of pictures x (N, n_features): > 0 means real."""
        return self.discriminator(x)

    def evaluate(self, x, rng, labels=None):
        """{name: number} on x (N, n_features): the measures of a VQVAE, and D's mean logits on x and on the restored x."""
        logits = {"logit_real": self.judge(x).mean(), "logit_fake": self.judge(self.reconstruct(x)).mean()}
        return super().evaluate(x, rng) | logits
