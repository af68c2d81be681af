"""The autoencoder: it compresses a picture x to a code z of a few numbers and restores x from z.

    z = encoder(x),   x̂ = decoder(z),   minimise ‖x̂ - x‖²

A linear autoencoder finds the same subspace as PCA; with hidden layers it can follow a curved surface. The denoising
autoencoder (Vincent et al. 2008) sees a damaged x and must restore the clean one, so copying its input does not help.
Nothing controls where the codes lie. The decoder is trained only at the codes of training pictures, and a random code
usually lies elsewhere, so it gives a poor picture. The VAE solves this problem (vae.py).
"""

from dataclasses import dataclass
from typing import Literal

from ..nn.activations import ACTIVATIONS, sigmoid
from ..nn.initialisers import INITIALISERS
from ..nn.layer import Sequential
from ..nn.layers import mlp
from ..nn.losses import bernoulli_nll, squared_error
from ..nn.norms import RunningMoments
from ..nn.optim import Adam
from ..nn.parameters import Parameters
from .base import Model
from .settings import Count, Fraction, NonNegative, Positive


@dataclass(eq=False)
class AutoEncoder(Model):
    """likelihood: "squares" is for any numbers (squared error), "bernoulli" for pixels in [0, 1] (cross-entropy)."""

    n_features: Count = 784
    hidden: tuple[int, ...] = (400,)  # the encoder's hidden sizes; the decoder's are the same in reverse
    n_latent: Count = 20
    likelihood: Literal["squares", "bernoulli"] = "squares"
    noise: NonNegative = 0.0  # standard deviation of the Gaussian noise that is added to the encoder's input
    mask: Fraction = 0.0  # the fraction of the encoder's inputs that are set to zero
    activation: Literal[tuple(ACTIVATIONS)] = "relu"
    init: Literal[tuple(INITIALISERS)] = "pytorch"
    batch: Count = 128
    lr: Positive = 1e-3

    tiny = {"n_features": 6, "hidden": (5,), "n_latent": 2, "batch": 4}

    @property
    def data_range(self):
        return (0, 1) if self.likelihood == "bernoulli" else None

    def build(self, rng):
        options = {"activation": ACTIVATIONS[self.activation], "init": INITIALISERS[self.init]}
        self.moments = RunningMoments(self.n_latent)  # mean and variance of the codes, for sample()
        self.encoder = Sequential(mlp([self.n_features, *self.hidden, self.n_latent], **options), self.moments)
        self.decoder = mlp([self.n_latent, *reversed(self.hidden), self.n_features], **options)
        self.params = Parameters(rng, encoder=self.encoder, decoder=self.decoder)
        self.adam = Adam(self.params, self.lr)
        return self

    def damage(self, x, rng):
        """x (B, n_features) with the noise and the mask of the settings."""
        if self.noise:
            x = x + self.noise * rng.normal(x.shape)
        if self.mask:
            x = x * (rng.uniform(x.shape) >= self.mask)
        return x

    def loss(self, x, rng, labels=None):
        """The squared error or cross-entropy per example when x (B, n_features) is restored from a damaged x."""
        self.params.zero_grad()
        z, back_encoder = self.encoder.forward(self.damage(x, rng), rng)  # (B, n_latent)
        out, back_decoder = self.decoder.forward(z, rng)  # (B, n_features)
        restore = bernoulli_nll if self.likelihood == "bernoulli" else squared_error
        loss, d_out = restore(out, x)

        dz = back_decoder(d_out)
        back_encoder(dz, inputs=False)
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        return losses

    def encode(self, x):
        """The codes z (N, n_latent) of x (N, n_features)."""
        return self.encoder(x)

    def decode(self, z):
        """The pictures (N, n_features) that belong to codes z (N, n_latent)."""
        out = self.decoder(z)
        return sigmoid(out) if self.likelihood == "bernoulli" else out

    def reconstruct(self, x):
        return self.decode(self.encode(x))

    def sample(self, n, rng, label=None):
        """n pictures (n, n_features) of random Gaussian codes. Each coordinate has the training codes' mean and variance.

        An autoencoder is not made to generate, and these pictures show why.
        """
        xp = rng.xp
        return self.decode(self.moments.mean + xp.sqrt(self.moments.variance) * rng.normal((n, self.n_latent)))

    def evaluate(self, x, rng, labels=None):
        """{name: number} on x (N, n_features): the squared error per example and the mean squared error per feature."""
        squares = squared_error(self.reconstruct(x), x)[0]
        return {"squared_error": squares, "mse": squares / self.n_features}
