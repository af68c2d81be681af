"""The variational autoencoder: an autoencoder whose codes are made to look like N(0, I), so that it can generate.

    encoder   q(z|x) = N(μ(x), diag σ²(x))          decoder   p(x|z)          prior   p(z) = N(0, I)
    log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)) >= ELBO = E_q[log p(x|z)] - KL(q(z|x) ‖ p(z))

Kingma & Welling 2013, eq 3. Training maximises the ELBO with k = n_samples draws of z for each x and step (eq 10), or a
tighter bound, the log of the mean importance weight (Burda et al. 2015, eq 8):

    log p(x) >= E[log 1/k Σ_i w_i] >= ELBO,      w_i = p(x|z_i) p(z_i) / q(z_i|x),      z_i ~ q(z|x)

This bound converges to log p(x) as k grows; metrics/likelihood.py uses it to estimate log p(x). The encoder has two outputs,
μ and log σ². The decoder is Bernoulli (logits; grey pixels are soft targets) or N(f(z), c I) with a fixed variance c. beta
weighs the KL (Higgins et al. 2017). Learning moves the encoder's q(z|x) towards p(z|x), which does not change log p(x). The
decoder learns to raise log p(x). The ELBO can equal log p(x) only if the family of q contains the true posterior; otherwise
a gap remains, which demos/vae_elbo.py draws.

With conditional=true both networks also get the label y (Sohn et al. 2015, eq 4): q(z|x, y) and p(x|z, y), and the ELBO is
that of log p(x|y). Then z need not say which digit it is: it keeps the handwriting.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ..backend import array_module
from ..nn.activations import ACTIVATIONS, sigmoid
from ..nn.distributions import diagonal_gaussian_log_prob, gaussian_head, gaussian_posterior, reparameterize
from ..nn.initialisers import INITIALISERS
from ..nn.layers import log_softmax, log_sum_exp, mlp, one_hot
from ..nn.losses import bernoulli, bernoulli_nll, gaussian_nll, square
from ..nn.optim import Adam
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .base import Model
from .parts.classes import Classes, Conditional
from .settings import Count, NonNegative, Positive, Whole


def copies(x, k):
    """(k copies of x (B, D), one below the other, as (k B, D); the backward, which sums over the copies)."""
    if k == 1:
        return x, lambda d: d
    return array_module(x).concatenate(k * [x]), lambda d: d.reshape(k, *x.shape).sum(axis=0)


@dataclass(eq=False)
class VAE(Conditional, Model):
    """The settings come first, then the model. Shapes: x (B, n_features), z (B, n_latent), labels (B,)."""

    n_features: Count = 784
    n_classes: Count = 10
    conditional: bool = False  # whether it learns p(x | label) and can sample a chosen class
    hidden: tuple[int, ...] = (400,)  # the encoder's hidden sizes; the decoder's are the same in reverse
    n_latent: Count = 20
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    variance: Positive = 0.1  # c, the variance of the Gaussian decoder
    beta: NonNegative = 1.0  # weight of the KL; 1 gives the ELBO
    bound: Literal["elbo", "iwae"] = "elbo"  # the lower bound on log p(x) that training maximises
    n_samples: Count = 1  # draws of z for each x
    draw_x: bool = False  # samples are draws from p(x|z), with its noise, not its means: for points and tables
    binarize: bool = False  # draw every pixel as black or white at each use; its grey value is the probability of black
    activation: Literal[tuple(ACTIVATIONS)] = "relu"
    init: Literal[tuple(INITIALISERS)] = "pytorch"
    batch: Count = 128
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls linearly to 0 in the second half; 0: constant rate

    sampler_settings = frozenset({"draw_x"})
    tiny = {"n_features": 6, "n_classes": 3, "hidden": (5,), "n_latent": 2, "batch": 4}

    @property
    def data_range(self):
        return (0, 1) if self.likelihood == "bernoulli" else None

    def build(self, rng):
        options = {"activation": ACTIVATIONS[self.activation], "init": INITIALISERS[self.init]}
        n_told = self.n_classes if self.conditional else 0  # numbers that tell the label
        self.encoder = mlp([self.n_features + n_told, *self.hidden, 2 * self.n_latent], **options)  # μ and log σ²
        self.decoder = mlp([self.n_latent + n_told, *reversed(self.hidden), self.n_features], **options)
        self.classes = Classes(self.n_classes)
        self.params = Parameters(rng, encoder=self.encoder, decoder=self.decoder)
        self.adam = Adam(self.params, falling(self.lr, self.decay_steps) if self.decay_steps else self.lr)
        return self

    def prepare(self, x, rng, labels=None):
        if self.conditional and labels is not None:
            self.classes.note(labels)

    def told(self, x, labels):
        """x (k B, n) and beside it the labels (B,) as n_classes numbers in each row; x itself if not conditional."""
        if not self.conditional:
            return x
        c = one_hot(self.needed(labels), self.n_classes, x.real.dtype)  # (B, n_classes)
        return array_module(x).concatenate([x, copies(c, len(x) // len(c))[0]], axis=1)

    def binarized(self, x, rng):
        """x binarized anew if the setting binarize is true, else x itself."""
        return rng.bernoulli(x) if self.binarize else x

    def nll(self, out, x):
        """(-log p(x|z) in nats per example, its gradient in the decoder's output); out and x are (B, n_features)."""
        return bernoulli_nll(out, x) if self.likelihood == "bernoulli" else gaussian_nll(out, x, self.variance)

    def loss(self, x, rng, labels=None):
        """-ELBO in nats per example (for beta = 1), averaged over n_samples z per row of x (B, n_features); or iwae_loss."""
        x = self.binarized(x, rng)
        if self.bound == "iwae":
            return self.iwae_loss(x, rng, labels)
        self.params.zero_grad()
        h, back_encoder = self.encoder.forward(self.told(x, labels), rng)  # (B, 2 n_latent): μ and log σ² side by side
        h, back_copies = copies(h, self.n_samples)  # (k B, 2 n_latent)
        (z, kl), back_posterior = gaussian_posterior(h, rng)  # z = μ + σ ε (k B, n_latent)
        out, back_decoder = self.decoder.forward(self.told(z, labels), rng)  # (k B, n_features)
        nll, d_out = self.nll(out, copies(x, self.n_samples)[0])

        dz = back_decoder(d_out)[:, : self.n_latent]  # the label needs no gradient
        dh = back_posterior((dz, self.beta))
        back_encoder(back_copies(dh), inputs=False)
        return {"loss": nll + self.beta * kl, "nll": nll, "kl": kl}

    def iwae_loss(self, x, rng, labels=None):
        """-log 1/k Σ_i w_i in nats per example of x (B, n_features). Burda et al. 2015, eq 8 and 13.

        Its gradient is that of -Σ_i a_i log w_i with a_i = w_i / Σ_j w_j held constant. At z = μ + σ ε, log p(z) - log
        q(z|x) is ½ Σ (log σ² + ε² - z²). Its derivative in z is -z, which passes on to μ and σ. Its direct derivative in log
        σ² is ½.
        """
        self.params.zero_grad()
        k, B = self.n_samples, len(x)
        h, back_encoder = self.encoder.forward(self.told(x, labels), rng)
        h, back_copies = copies(h, k)  # (k B, 2 n_latent)
        (mu, log_var), back_head = gaussian_head(h)
        z, back_z = reparameterize(mu, log_var, rng)  # (k B, n_latent)
        out, back_decoder = self.decoder.forward(self.told(z, labels), rng)  # (k B, n_features)
        nll, d_out = self.row_nll(out.reshape(k, B, -1), x)  # (k, B) and (k, B, n_features)
        log_w = self.log_weight(nll.reshape(-1), z, mu, log_var).reshape(k, B)

        share = array_module(x).exp(log_softmax(log_w.T)).T  # (k, B): w_i / Σ_j w_j
        a = share.reshape(-1, 1) / B  # (k B, 1)
        d_out *= a.reshape(k, B, 1)
        dz = back_decoder(d_out.reshape(out.shape))[:, : self.n_latent]
        d_mu, d_log_var = back_z(dz + a * z)
        back_encoder(back_copies(back_head((d_mu, d_log_var - 0.5 * a))), inputs=False)
        return {"loss": math.log(k) - log_sum_exp(log_w, 0).mean(), "negative_elbo": -log_w.mean()}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng, labels)
        self.adam.step()
        return losses

    def row_nll(self, out, x):
        """(-log p(x|z) in nats of each row, its gradient in out); x (B, n_features), out the same or (k, B, n_features)."""
        if self.likelihood == "bernoulli":
            nll, d = bernoulli(out, x, 1.0)
            return nll.sum(axis=-1), d
        nll, d = square(out, x, 0.5 / self.variance)
        return nll.sum(axis=-1) + 0.5 * self.n_features * math.log(2 * math.pi * self.variance), d

    def log_weight(self, nll, z, mu, log_var):
        """log w = log p(x|z) + log p(z) - log q(z|x) in nats (N,), from nll = -log p(x|z) and z (N, n_latent)."""
        return -nll + diagonal_gaussian_log_prob(z, 0.0, 0 * z) - diagonal_gaussian_log_prob(z, mu, log_var)

    def log_weights(self, x, n_samples, rng, labels=None):
        """log w (n_samples, N) for x (N, n_features) and z ~ q(z|x). The log of the mean of w estimates log p(x).

        Here and below, labels (N,) are for a conditional model: then it is log p(x | label).
        """
        mu, log_var = (copies(part, n_samples)[0] for part in self.encode(x, labels))
        z = reparameterize(mu, log_var, rng)[0]  # (n_samples N, n_latent)
        nll, _ = self.row_nll(self.decoder(self.told(z, labels)).reshape(n_samples, *x.shape), x)
        return self.log_weight(nll.reshape(-1), z, mu, log_var).reshape(n_samples, len(x))

    def encode(self, x, labels=None):
        """(mu, log_var), both (N, n_latent), of q(z|x) for x (N, n_features)."""
        return gaussian_head(self.encoder(self.told(x, labels)))[0]

    def decode(self, z, labels=None):
        """The mean of p(x|z) (N, n_features) for codes z (N, n_latent): pixels in [0, 1] if the decoder is Bernoulli."""
        out = self.decoder(self.told(z, labels))
        return sigmoid(out) if self.likelihood == "bernoulli" else out

    def reconstruct(self, x, rng=None, labels=None):
        """decode(z), where z is drawn from q(z|x), or is its mean if rng is None."""
        mu, log_var = self.encode(x, labels)
        return self.decode(mu if rng is None else reparameterize(mu, log_var, rng)[0], labels)

    def sample(self, n, rng, label=None):
        """decode(z) for n codes z ~ N(0, I): the mean of p(x|z), as is usual in papers, or with draw_x a draw from it.

        A conditional model makes them of the class `label`, or of random classes of the training data. Raises UsageError for
        a class that the training data does not have, and for a label if the model was trained without labels.
        """
        labels = self.labels_to_sample(n, rng, label)
        mean = self.decode(rng.normal((n, self.n_latent)), labels)
        return self.drawn(mean, rng) if self.draw_x else mean

    def drawn(self, mean, rng):
        """x ~ p(x|z) from its mean (N, n_features). Bernoulli means stay grey unless the model binarizes its data."""
        if self.likelihood == "gaussian":
            return mean + math.sqrt(self.variance) * rng.normal(mean.shape)
        return self.binarized(mean, rng)

    def evaluate(self, x, rng, labels=None):
        """{name: number} on x (N, n_features): the bound with one z per row, its two terms, and the error of the mean code.

        With binarize they are measured on a black-and-white version of x, and their names begin with "binarized_".
        """
        x = self.binarized(x, rng)
        h = self.encoder(self.told(x, labels))
        (z, kl), _ = gaussian_posterior(h, rng)
        nll = self.nll(self.decoder(self.told(z, labels)), x)[0]
        difference = self.decode(gaussian_head(h)[0][0], labels) - x
        found = {"negative_elbo": nll + kl, "nll": nll, "kl": kl, "mse": (difference * difference).mean()}
        return {f"binarized_{name}": value for name, value in found.items()} if self.binarize else found
