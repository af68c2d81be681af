"""The VQ-GAN: a VQ-VAE whose decoder must also pass a discriminator, so that few codes make sharp pictures, not mean ones.

    autoencoder   ‖x̂ - x‖² + (‖sg[z] - e‖²) + β ‖z - sg[e]‖² + λ L_G(D(x̂))          as vqvae.py, and what D says of x̂
    D             tells real x from restored sg[x̂]
    λ = w ‖∇_L ‖x̂ - x‖²‖ / (‖∇_L L_G‖ + δ)                    L: the weights of the decoder's last layer; λ is a constant

Esser et al. 2021, eq 4 to 7; λ keeps the two pulls on the decoder's last layer in the ratio 1 : w, however D and the error
change. It is the encoder's output that is quantised, and the decoder makes the picture from it. Where the code holds too
little, many pictures share it: squares are least for their mean, which is
blurred and which D tells from real ones at once; a sharp picture is farther from x on average. So D buys sharpness with
error. The paper adds a distance in the features of a network for photographs; here the error is in pixels alone.
"""

from dataclasses import dataclass
from typing import Literal

from ..backend import array_module, stop
from ..nn.activations import LeakyReLU
from ..nn.double_backward import gradient_penalty
from ..nn.layers import mlp
from ..nn.losses import loss_D, loss_G, squared_error
from ..nn.optim import Adam
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .vqvae import VQVAE

DELTA, LARGEST = 1e-6, 1e4  # δ of eq 7, and the bound of the ratio in the authors' program


@dataclass(eq=False)
class VQGAN(VQVAE):
    """A VQVAE's settings and these. Shapes: x and x_hat (B, n_features), logits (B, 1)."""

    hidden_D: tuple[int, ...] = (512, 256)
    kind: Literal["hinge", "non_saturating"] = "hinge"  # the adversarial losses: see nn/losses.py
    adversarial: float = 1.0  # w
    warmup: int = 0  # steps of a plain VQ-VAE before D comes in
    r1: float = 1.0  # γ of R1, see gan.py
    lr_D: float = 5e-4

    objectives = {"loss": "params", "discriminator_loss": "params_D"}
    variants = (
        {},
        {"kind": "non_saturating", "codebook": "gradient", "r1": 0.0, "adversarial": 0.5, "rounds": 5},
        {"output": "linear", "restart_every": 0, "hidden": ()},
    )

    def build(self, rng):
        super().build(rng)
        self.discriminator = mlp([self.n_features, *self.hidden_D, 1], LeakyReLU)
        self.params_D = Parameters(rng, discriminator=self.discriminator)
        self.adam_D = Adam(self.params_D, falling(self.lr_D, max(0, self.rounds - self.warmup)), 0.0, 0.99)
        return self

    @property
    def warming_up(self):
        """Whether the next step is a plain VQ-VAE's."""
        return int(self.adam.t[0]) < self.warmup

    @property
    def capturable(self):
        return super().capturable and not self.warmup

    def loss(self, x, rng):
        """The autoencoder's loss on x (B, n_features), in squared units per picture. D stands still."""
        if self.warming_up:
            return super().loss(x, rng)
        self.params.zero_grad()
        z, back_encoder = self.encoder.forward(x, rng)  # (B, n_codes n_dim)
        e, back_book = self.book.forward(self.tokens(z), rng)
        e = e.reshape(z.shape)
        h, back_trunk = self.trunk.forward(z + stop(e - z), rng)  # the decoder but for its last layer
        x_hat, back_head = self.head.forward(h, rng)  # (B, n_features)
        squares, d_squares = squared_error(x_hat, x)
        codebook, de = squared_error(e, stop(z))
        commitment, dz = squared_error(z, stop(e))
        logits, back_discriminator = self.discriminator.forward(x_hat, rng)
        adversarial, d_logits = loss_G(logits, self.kind)

        d_adversarial = back_discriminator(d_logits, learn=False)
        lam = self.balance(back_head, d_squares, d_adversarial)
        dh = back_head(d_squares + lam * d_adversarial)
        straight_through = back_trunk(dh)
        back_book(self.tokens(de), inputs=False)
        back_encoder(straight_through + self.beta * dz, inputs=False)
        loss = squares + lam * adversarial + self.beta * commitment + (codebook if self.codebook == "gradient" else 0)
        terms = {"squares": squares, "commitment": commitment, "adversarial": adversarial, "lambda": lam}
        return {"loss": loss} | terms | self.usage(self.book.n)

    def balance(self, back_head, d_squares, d_adversarial):
        """λ of eq 7, from the gradients of both terms in x_hat. Leaves the gradient zeroed."""
        norms, L = [], self.head.layers[0]
        for d in (d_squares, d_adversarial):
            back_head(d, inputs=False)
            norms.append(array_module(d).sqrt((L.dW * L.dW).sum()))
            self.params.zero_grad()
        return stop(self.adversarial * array_module(d).minimum(norms[0] / (norms[1] + DELTA), LARGEST))

    def discriminator_loss(self, x, rng):
        """D's loss on real x (B, n_features) against what the autoencoder restores of them, R1 included. Trains D alone."""
        self.params_D.zero_grad()
        logits_real, back_real = self.discriminator.forward(x, rng)
        logits_fake, back_fake = self.discriminator.forward(stop(self.reconstruct(x)), rng)
        loss, d_real, d_fake = loss_D(logits_real, logits_fake, self.kind)

        back_real(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        if not self.r1:
            return {"discriminator_loss": loss}
        penalty, back_penalty = gradient_penalty(self.discriminator, x, centre=0.0)
        back_penalty(0.5 * self.r1)
        return {"discriminator_loss": loss + 0.5 * self.r1 * penalty, "penalty": penalty}

    def train_step(self, x, rng):
        warming_up = self.warming_up
        losses = super().train_step(x, rng)
        if not warming_up:
            losses |= self.discriminator_loss(x, rng)
            self.adam_D.step()
        return losses

    def judge(self, x):
        """D's logits (N, 1) of pictures x (N, n_features): > 0 where it says real."""
        return self.discriminator(x)

    def evaluate(self, x, rng):
        """{name: number} on x (N, n_features): a VQVAE's, and D's mean logits on x and on what is restored of it."""
        logits = {"logit_real": self.judge(x).mean(), "logit_fake": self.judge(self.reconstruct(x)).mean()}
        return super().evaluate(x, rng) | logits

    @classmethod
    def example(cls, rng, **settings):
        return super().example(rng, **{"hidden_D": (7,)} | settings)
