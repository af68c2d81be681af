"""The VQ-VAE: an autoencoder whose code is a few whole numbers, each of which names a vector in a codebook.

    z = encoder(x),   e_t = the row of W nearest to z_t,   x̂ = decoder(e)            t = 1 ... n_codes, the tokens of x
    minimise  ‖x̂ - x‖² + ‖sg[z] - e‖² + β ‖z - sg[e]‖²                               sg[.]: constant in the gradient

van den Oord et al. 2017, eq 3. The choice of the nearest row has no gradient in z. So the decoder's gradient is passed to z
unchanged (straight-through): z + sg[e - z] has the value of e and the derivative of z. The second term moves the codes
towards the z that chose them. The third term, the commitment, keeps z close to its code. Instead of the second term, a
moving average of z may move the codes (appendix A.1). A picture costs at most n_codes log2 n_embeddings bits. The perplexity
says how much of the codebook is in use. A VQ-VAE restores pictures; to generate new ones, its codes need a prior.
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

LEAST = 0.03  # a code is dead if it is used less often than this fraction of its fair share
SETTLING = 0.3  # in this last fraction of training, dead codes are no longer moved


@dataclass(eq=False)
class VQVAE(Model):
    """The settings come first, then the model.

    Shapes: x (B, n_features), z and e (B, n_codes n_dim), codes (B, n_codes) integers.
    """

    n_features: Count = 784
    hidden: tuple[int, ...] = (512, 256)  # the encoder's hidden sizes; the decoder's are the same in reverse
    n_codes: Count = 16  # tokens per picture
    n_dim: Count = 8  # length of a token's vector
    n_embeddings: Count = 256  # K, the number of vectors in the codebook
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of the decoder: sigmoid for [0, 1], linear for any numbers
    beta: NonNegative = 0.25  # weight of the commitment, which keeps z close to its code
    codebook: Literal["ema", "gradient"] = "ema"  # what moves the codes: a moving average of z, or the gradient
    decay: Fraction = 0.99  # decay of the moving average
    restart_every: Whole = 200  # steps between two searches for dead codes, which are then moved; 0: never
    activation: Literal[tuple(ACTIVATIONS)] = "relu"
    init: Literal[tuple(INITIALISERS)] = (
        "pytorch"  # "he" restores better; "pytorch" has smaller weights, and its features suit a prior better
    )
    batch: Count = 128
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls linearly to 0 in the second half; 0: constant rate

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
        """Start the codebook with tokens of random training pictures x (N, n_features)."""
        z = self.as_tokens(self.encode(x[rng.permutation(len(x))[: self.n_embeddings]]))
        rows = rng.permutation(len(z))
        self.book.put(z[rows[rng.xp.arange(self.n_embeddings) % len(z)]])

    def as_tokens(self, z):
        """The tokens (B n_codes, n_dim) of z (B, n_codes n_dim), one per row."""
        check_width(self.book, z, self.n_codes * self.n_dim)
        return z.reshape(-1, self.n_dim)

    def loss(self, x, rng, labels=None):
        """The loss of eq 3 on x (B, n_features), in squared units per picture. With codebook="ema" it has no second term.

        The second term has the same value as the commitment, so only the commitment is listed.
        """
        self.params.zero_grad()
        z, back_encoder = self.encoder.forward(x, rng)  # (B, n_codes n_dim)
        e, back_book = self.book.forward(self.as_tokens(z), rng)
        e = e.reshape(z.shape)
        h, back_trunk = self.trunk.forward(z + stop(e - z), rng)  # the decoder without its last layer
        x_hat, back_head = self.head.forward(h, rng)  # (B, n_features)
        error, terms, d_x_hat = self.error(x_hat, x, back_head, rng)
        codebook, de = squared_error(e, stop(z))
        commitment, dz = squared_error(z, stop(e))

        straight_through = back_trunk(back_head(d_x_hat))  # as if z were the decoder's input
        back_book(self.as_tokens(de), inputs=False)
        back_encoder(straight_through + self.beta * dz, inputs=False)
        loss = error + self.beta * commitment + (codebook if self.codebook == "gradient" else 0)
        return {"loss": loss, "commitment": commitment} | terms | self.usage(self.book.n)

    def error(self, x_hat, x, back_head, rng):
        """(the squared error of x̂ against x, {name: term of it}, its gradient in x̂). VQGAN adds a term."""
        squares, d_x_hat = squared_error(x_hat, x)
        return squares, {"squares": squares}, d_x_hat

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        self.move_codes(x, rng)
        return losses

    def move_codes(self, x, rng):
        """Move the codes after a step: by the moving average, and every restart_every steps the dead codes."""
        self.book.used += self.book.n
        if self.codebook == "ema":
            self.book.follow(self.decay)
        step = int(self.adam.t[0])
        settling = self.decay_steps and step > (1 - SETTLING) * self.decay_steps
        if self.restart_every and step % self.restart_every == 0 and not settling:
            self.book.restart(self.as_tokens(self.encode(x)), LEAST, rng)

    @property
    def same_every_step(self):
        return not self.restart_every  # a step with a restart does other operations

    def usage(self, counts):
        """{name: number} from counts (K,), how often each code is used: the perplexity and the fraction of codes in use."""
        return {"perplexity": perplexity(counts), "used": (counts > 0).astype(counts.dtype).mean()}

    # Using the trained model.

    @property
    def bits(self):
        """The largest number of bits that the codes of a picture can cost."""
        return self.n_codes * math.log2(self.n_embeddings)

    def encode(self, x):
        """z (N, n_codes n_dim) of x (N, n_features), before quantisation."""
        return self.encoder(x)

    def quantise(self, z):
        """e (N, n_codes n_dim): each token of z is replaced by its nearest code."""
        return self.book.W[self.book.nearest(self.as_tokens(z))].reshape(z.shape)

    def codes(self, x):
        """The indices of the codes of x (N, n_features): (N, n_codes) integers from 0 to n_embeddings - 1."""
        return self.book.nearest(self.as_tokens(self.encode(x))).reshape(len(x), self.n_codes)

    def decode(self, e):
        """The pictures (N, n_features) for e (N, n_codes n_dim)."""
        return self.decoder(e)

    def decode_codes(self, codes):
        """The pictures (N, n_features) for the indices of codes (N, n_codes)."""
        return self.decode(self.book.W[codes].reshape(len(codes), -1))

    def reconstruct(self, x):
        return self.decode(self.quantise(self.encode(x)))

    def sample(self, n, rng, label=None):
        name = type(self).__name__
        raise UsageError(
            f"a {name} has no prior over its codes: train a code_prior or a latent_diffusion with --set vqvae=DIR"
        )

    def evaluate(self, x, rng, labels=None):
        """{name: number} on x (N, n_features): mean squared error per feature, and the usage of the codes over all x."""
        codes = self.codes(x)
        difference = self.decode_codes(codes) - x
        counts = sum(one_hot(column, self.n_embeddings, difference.dtype).sum(axis=0) for column in codes.T)
        return {"mse": (difference * difference).mean()} | self.usage(counts)
