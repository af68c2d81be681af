"""The variational autoencoder: an autoencoder whose codes are made to look like N(0, I), so that it can generate.

    encoder   q(z|x) = N(μ(x), diag σ²(x))          decoder   p(x|z)          prior   p(z) = N(0, I)
    log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)) >= ELBO = E_q[log p(x|z)] - KL(q(z|x) ‖ p(z))

Kingma & Welling 2013, eq 3; trained by maximising the ELBO with one sample of z for each x and step (eq 10). The decoder
is Bernoulli (logits; grey pixels are soft targets) or N(f(z), c I) with a fixed variance c, as in gan-vae-notes §2.2,
where eq 2.1 is c = ½. beta weighs the KL (Higgins et al. 2017). The notes say that the ELBO can always be made equal to
log p(x): only if q's family holds the true posterior; demos/elbo.py draws the gap that stays. Nor can one "make q(z|x)
larger" (week10): q moves towards p(z|x) with log p(x) fixed, and the decoder raises log p(x). The encoder has two outputs,
μ and log σ² (lee-15 counts the drawn ε as a third); aias names the prior P(x|z) once and the decoder q(x|z): p(z), p(x|z).
"""

from dataclasses import dataclass
from typing import Literal

from ..activations import ACTIVATIONS, sigmoid
from ..distributions import gaussian_head, gaussian_posterior, reparameterize
from ..initialisers import INITIALISERS
from ..layers import mlp
from ..losses import bernoulli_nll, gaussian_nll
from ..model import Model
from ..optim import Adam
from ..parameters import Parameters


@dataclass(eq=False)
class VAE(Model):
    """The settings, then the model. Shapes: x (B, n_features), z (B, n_latent)."""

    n_features: int = 784
    hidden: tuple[int, ...] = (400,)  # the encoder's hidden sizes; the decoder's are the same in reverse
    n_latent: int = 20
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    c: float = 0.1  # variance of the Gaussian decoder
    beta: float = 1.0  # weight of the KL; 1 is the ELBO
    activation: Literal[tuple(ACTIVATIONS)] = "relu"
    init: Literal[tuple(INITIALISERS)] = "pytorch"
    batch: int = 128
    lr: float = 1e-3

    variants = ({}, {"likelihood": "gaussian", "c": 0.3, "beta": 2.0, "activation": "tanh"})

    def build(self, rng):
        options = {"activation": ACTIVATIONS[self.activation], "init": INITIALISERS[self.init]}
        self.encoder = mlp([self.n_features, *self.hidden, 2 * self.n_latent], **options)  # μ and log σ² in one matrix
        self.decoder = mlp([self.n_latent, *reversed(self.hidden), self.n_features], **options)
        self.params = Parameters(rng, encoder=self.encoder, decoder=self.decoder)
        self.adam = Adam(self.params, self.lr)
        return self

    def nll(self, out, x):
        """-log p(x|z) in nats per example and its gradient in the decoder's output, both (B, n_features)."""
        return bernoulli_nll(out, x) if self.likelihood == "bernoulli" else gaussian_nll(out, x, self.c)

    def loss(self, x, rng):
        """-ELBO in nats per example (for beta = 1), with one z for each row of x (B, n_features)."""
        self.params.zero_grad()
        h, back_encoder = self.encoder.forward(x, rng)  # (B, 2 n_latent): μ and log σ² side by side
        (z, kl), back_posterior = gaussian_posterior(h, rng)  # z = μ + σ ε (B, n_latent)
        out, back_decoder = self.decoder.forward(z, rng)  # (B, n_features)
        nll, d_out = self.nll(out, x)

        dz = back_decoder(d_out)
        dh = back_posterior((dz, self.beta))
        back_encoder(dh, inputs=False)
        return {"loss": nll + self.beta * kl, "nll": nll, "kl": kl}

    def train_step(self, x, rng):
        losses = self.loss(x, rng)
        self.adam.step()
        return losses

    def encode(self, x):
        """mu and log_var (N, n_latent) of q(z|x) for x (N, n_features)."""
        return gaussian_head(self.encoder(x))[0]

    def decode(self, z):
        """The mean of p(x|z), pixels in [0, 1] for the Bernoulli decoder, for codes z (N, n_latent)."""
        out = self.decoder(z)
        return sigmoid(out) if self.likelihood == "bernoulli" else out

    def reconstruct(self, x, rng=None):
        """decode(z) with z drawn from q(z|x), or its mean where rng is None."""
        mu, log_var = self.encode(x)
        return self.decode(mu if rng is None else reparameterize(mu, log_var, rng)[0])

    def sample(self, n, rng):
        """decode(z) for n codes z ~ N(0, I): the decoder's means, as papers show them."""
        return self.decode(rng.normal((n, self.n_latent)))

    def evaluate(self, x, rng):
        """{name: number} on x (N, n_features): the bound with one z each, its two terms, and the error of the mean code."""
        h = self.encoder(x)
        (z, kl), _ = gaussian_posterior(h, rng)
        nll = self.nll(self.decoder(z), x)[0]
        difference = self.decode(gaussian_head(h)[0][0]) - x
        return {"negative_elbo": nll + kl, "nll": nll, "kl": kl, "mse": (difference * difference).mean()}

    @classmethod
    def example(cls, rng, **settings):
        model = cls(**{"n_features": 6, "hidden": (5,), "n_latent": 2, "batch": 4} | settings).build(rng)
        return model, {"x": rng.uniform((4, 6))}
