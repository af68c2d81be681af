"""The VQ-VAE: an autoencoder whose code is a few whole numbers, the places of its vectors in a codebook.

    z = encoder(x),   e_t = the row of W nearest to z_t,   x̂ = decoder(e)            t = 1 ... n_codes, the tokens of x
    minimise  ‖x̂ - x‖² + ‖sg[z] - e‖² + β ‖z - sg[e]‖²                               sg[.]: a constant to the gradient

van den Oord et al. 2017, eq 3. The nearest row has no slope in z, so the decoder's gradient is handed to z as it is
(straight-through): z + sg[e - z] has the value of e and the derivative of z. The second term draws the codes to the z that
chose them; the third, the commitment, holds z to its code. Codes may follow by a moving average instead (appendix A.1), and
the second term falls away. A picture costs at most n_codes log2 n_embeddings bits; perplexity says how much of the codebook
is in use. It restores and cannot invent: for that its codes need a prior.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ..backend import UsageError, stop
from ..nn.activations import ACTIVATIONS, Sigmoid
from ..nn.initialisers import INITIALISERS
from ..nn.layer import Sequential, check_width
from ..nn.layers import mlp, one_hot
from ..nn.losses import squared_error
from ..nn.optim import Adam
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .base import Model
from .parts.codebook import Codebook, perplexity
from .settings import Count, Fraction, NonNegative, Positive, Whole

LEAST = 0.03  # of its fair share: a code that is used less is dead
SETTLING = 0.3  # the last part of training, in which codes are left where they are


@dataclass(eq=False)
class VQVAE(Model):
    """The settings, then the model. Shapes: x (B, n_features), z and e (B, n_codes n_dim), codes (B, n_codes) integers."""

    n_features: Count = 784
    hidden: tuple[int, ...] = (512, 256)  # the encoder's hidden sizes; the decoder's are the same in reverse
    n_codes: Count = 16  # tokens of a picture
    n_dim: Count = 8  # numbers of a token's vector
    n_embeddings: Count = 256  # K, the rows of the codebook
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of the decoder: pixels in [0, 1], or any numbers
    beta: NonNegative = 0.25  # weight of the third term, commitment
    codebook: Literal["ema", "gradient"] = "ema"  # how the codes move: by a moving average, or by the second term
    decay: Fraction = 0.99  # of the moving average
    restart_every: Whole = 200  # steps between two looks for dead codes; 0: never
    activation: Literal[tuple(ACTIVATIONS)] = "relu"
    init: Literal[tuple(INITIALISERS)] = (
        "pytorch"  # "he" restores better; features of the smaller "pytorch" suit a prior
    )
    batch: Count = 128
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # training length in steps; from half of it on the rate falls linearly to 0. 0: never falls

    uses_stop = True
    tiny = {"n_features": 6, "hidden": (5,), "n_codes": 3, "n_dim": 2, "n_embeddings": 5, "batch": 4}

    @property
    def data_range(self):
        return (0, 1) if self.output == "sigmoid" else None

    def build(self, rng):
        width, options = self.n_codes * self.n_dim, {"activation": ACTIVATIONS[self.activation]}
        options |= {"init": INITIALISERS[self.init]}
        last = Sigmoid if self.output == "sigmoid" else None
        self.encoder = mlp([self.n_features, *self.hidden, width], **options)
        self.book = Codebook(self.n_embeddings, self.n_dim, averaged=self.codebook == "ema")
        layers = mlp([width, *reversed(self.hidden), self.n_features], **options, last=last).layers
        self.trunk, self.head = Sequential(*layers[: 2 * len(self.hidden)]), Sequential(*layers[2 * len(self.hidden) :])
        self.decoder = Sequential(self.trunk, self.head)
        self.params = Parameters(rng, encoder=self.encoder, book=self.book, decoder=self.decoder)
        self.adam = Adam(self.params, falling(self.lr, self.decay_steps))
        return self

    def prepare(self, x, rng, labels=None):
        """Start the codebook from tokens of random training pictures x (N, n_features)."""
        z = self.as_tokens(self.encode(x[rng.permutation(len(x))[: self.n_embeddings]]))
        rows = rng.permutation(len(z))
        self.book.put(z[rows[rng.xp.arange(self.n_embeddings) % len(z)]])

    def as_tokens(self, z):
        """(B, n_codes n_dim) -> (B n_codes, n_dim)"""
        check_width(self.book, z, self.n_codes * self.n_dim)
        return z.reshape(-1, self.n_dim)

    def loss(self, x, rng, labels=None):
        """Eq 3 on x (B, n_features), in squared units per picture; codebook="ema": without its second term.

        That has the same value as the commitment, which alone is listed.
        """
        self.params.zero_grad()
        z, back_encoder = self.encoder.forward(x, rng)  # (B, n_codes n_dim)
        e, back_book = self.book.forward(self.as_tokens(z), rng)
        e = e.reshape(z.shape)
        h, back_trunk = self.trunk.forward(z + stop(e - z), rng)  # the decoder but for its last layer
        x_hat, back_head = self.head.forward(h, rng)  # (B, n_features)
        error, terms, d_x_hat = self.error(x_hat, x, back_head, rng)
        codebook, de = squared_error(e, stop(z))
        commitment, dz = squared_error(z, stop(e))

        straight_through = back_trunk(back_head(d_x_hat))  # as if the decoder had been given z
        back_book(self.as_tokens(de), inputs=False)
        back_encoder(straight_through + self.beta * dz, inputs=False)
        loss = error + self.beta * commitment + (codebook if self.codebook == "gradient" else 0)
        return {"loss": loss, "commitment": commitment} | terms | self.usage(self.book.n)

    def error(self, x_hat, x, back_head, rng):
        """The squared error of x̂ against x, {name: each of its terms}, and its gradient in x̂. VQGAN adds a term."""
        squares, d_x_hat = squared_error(x_hat, x)
        return squares, {"squares": squares}, d_x_hat

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        self.move_codes(x, rng)
        return losses

    def move_codes(self, x, rng):
        """After a step: the moving average, and from time to time a new place for dead codes."""
        self.book.used += self.book.n
        if self.codebook == "ema":
            self.book.follow(self.decay)
        step = int(self.adam.t[0])
        settling = self.decay_steps and step > (1 - SETTLING) * self.decay_steps
        if self.restart_every and step % self.restart_every == 0 and not settling:
            self.book.restart(self.as_tokens(self.encode(x)), LEAST, rng)

    @property
    def same_every_step(self):
        return not self.restart_every  # the step that restarts is another

    def usage(self, counts):
        """How evenly the codes are used, from how often each was, (K,), and the share of them that was at all."""
        return {"perplexity": perplexity(counts), "used": (counts > 0).astype(counts.dtype).mean()}

    # What it is good for.

    @property
    def bits(self):
        """What the codes of a picture cost at most."""
        return self.n_codes * math.log2(self.n_embeddings)

    def encode(self, x):
        """z (N, n_codes n_dim) of x (N, n_features), before it is quantised."""
        return self.encoder(x)

    def quantise(self, z):
        """e (N, n_codes n_dim): the nearest codes in the place of z's tokens."""
        return self.book.W[self.book.nearest(self.as_tokens(z))].reshape(z.shape)

    def codes(self, x):
        """The codes' numbers, (N, n_codes) integers from 0 to n_embeddings - 1, of x (N, n_features)."""
        return self.book.nearest(self.as_tokens(self.encode(x))).reshape(len(x), self.n_codes)

    def decode(self, e):
        """Pictures (N, n_features) of e (N, n_codes n_dim)."""
        return self.decoder(e)

    def decode_codes(self, codes):
        """Pictures (N, n_features) of the codes' numbers (N, n_codes)."""
        return self.decode(self.book.W[codes].reshape(len(codes), -1))

    def reconstruct(self, x):
        return self.decode(self.quantise(self.encode(x)))

    def sample(self, n, rng, label=None):
        name = type(self).__name__
        raise UsageError(
            f"a {name} has no prior over its codes: train a latent_diffusion on it, or a MADE over its codes"
        )

    def evaluate(self, x, rng, labels=None):
        """{name: number} on x (N, n_features): mean squared error per feature, and how the codes of all x are used."""
        codes = self.codes(x)
        difference = self.decode_codes(codes) - x
        counts = sum(one_hot(column, self.n_embeddings, difference.dtype).sum(axis=0) for column in codes.T)
        return {"mse": (difference * difference).mean()} | self.usage(counts)
