"""MADE, the masked autoencoder: it predicts each feature from the features before it, so it can compute p(x) exactly.

    p(x) = Π_d p(x_d | x_<d),      all D factors from one pass of an MLP

Germain et al. 2015. Every p(x) is such a product (the chain rule), so nothing is approximated, and the loss is -log p(x)
itself. Output d must not depend on x_d or on later features. Masks on the weights ensure this (models/parts/masked.py).

Computing p(x) takes one pass of the network. Drawing x takes up to D passes, because the next feature can be predicted only
after the one before it is drawn. If the first features are given, the rest is drawn exactly from p(rest | first features).
With order=agnostic, one network learns several random orders, each with its own masks, and p(x) is the mean over the orders.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from ..backend import array_module, on_host
from ..nn.activations import sigmoid
from ..nn.distributions import bernoulli_log_prob, categorical_log_prob, log_frequencies, sample_gumbel
from ..nn.embeddings import Embedding
from ..nn.layers import log_sum_exp
from ..nn.losses import bernoulli_nll, softmax_cross_entropy
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import constant, linear
from .base import Model
from .parts.masked import MaskedMLP
from .settings import Count, Fraction, Positive, Range, Whole


@dataclass(eq=False)
class MADE(Model):
    """The settings come first, then the model. Shapes: x (B, n_features), logits (B, n_features), or (..., n_values).

    n_values=2: x is black and white. Each feature is 0 or 1, and its output is one logit. Grey x in [0, 1] is binarized:
        each pixel becomes black with probability x. Every training step and evaluate draw this anew, so "binarized_nll" is
        that of a random black-and-white version of the test data. Data that is already black and white does not change.
    n_values > 2: x holds tokens, the whole numbers 0 ... n_values - 1, and each feature has n_values logits. Give such data
        to fit in Python, because the command line loads pixels.
    """

    n_features: Count = 784
    n_values: Annotated[int, Range(2)] = 2  # 2: black-and-white pixels; more: tokens, 0 ... n_values - 1
    hidden: tuple[int, ...] = (1024,)
    n_embed: Count = 16  # length of the learned vector that stands for a token; for tokens only
    direct: bool = True  # whether the output layer also sees the input directly
    order: Literal["natural", "agnostic"] = "natural"  # agnostic: n_orders random orders, one of them in each step
    n_orders: Count = 8  # number of random orders, for order=agnostic
    batch: Count = 100
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls linearly to 0; 0: constant rate
    averaging: Fraction = 0.999  # decay of the averaged weights that are used after training; 0: the latest weights

    tiny = {"n_features": 6, "n_embed": 2, "hidden": (5,), "n_orders": 3, "batch": 4}

    def build(self, rng):
        n_in, n_out = (self.n_embed, self.n_values) if self.tokens else (1, 1)
        n_orders = self.n_orders if self.order == "agnostic" else 0
        self.network = MaskedMLP(self.n_features, n_in, self.hidden, n_out, self.direct, n_orders)
        self.embedding = Embedding(self.n_values, self.n_embed)
        layers = {"embedding": self.embedding} if self.tokens else {}
        self.params = Parameters(rng, network=self.network, **layers)
        self.adam = Adam(self.params, linear(self.lr, 0, self.decay_steps) if self.decay_steps else constant(self.lr))
        self.average = EMA(self.params, self.averaging)
        return self

    @property
    def tokens(self):
        return self.n_values > 2

    @property
    def data_range(self):
        return 0, self.n_values - 1

    def prepare(self, x, rng, labels=None):
        """Start the output's bias at the log odds or log frequencies of each feature of x, with ½ added to every count."""
        xp = array_module(x)
        if self.tokens:
            bias = log_frequencies(x, self.n_values, rng.real).reshape(-1)
        else:
            black = x.sum(axis=0)
            bias = xp.log(black + 0.5) - xp.log(len(x) - black + 0.5)
        self.network.output.b[...] = bias
        self.average.average[...] = self.params.theta
        self.params.changed()

    # Training.

    def discrete(self, x, rng):
        """x as the network predicts it: pixels as zeros and ones, drawn anew at each call, or tokens as integers."""
        return x.astype(int) if self.tokens else rng.bernoulli(x)

    def conditionals(self, x, k, rng):
        """(logits of all p(x_d | x_<d), their backward): logits (B, n_features), or (B n_features, n_values) for tokens.

        x (B, n_features) holds zeros and ones, or integers. k is the number of the order: see MaskedMLP.
        """
        if not self.tokens:
            logits, back_network = self.network.forward((x, k), rng)
            return logits, lambda d_logits: back_network(d_logits, inputs=False)
        rows, back_embedding = self.embedding.forward(x.reshape(-1), rng)  # (B n_features, n_embed)
        logits, back_network = self.network.forward((rows.reshape(len(x), self.n_features * self.n_embed), k), rng)

        def backward(d_logits):
            d_rows, _ = back_network(d_logits.reshape(logits.shape))
            back_embedding(d_rows.reshape(rows.shape))

        return logits.reshape(-1, self.n_values), backward

    def nll(self, logits, x):
        """-Σ_d log p(x_d | x_<d) in nats per example, and its gradient in the logits."""
        if not self.tokens:
            return bernoulli_nll(logits, x)
        mean, d_logits = softmax_cross_entropy(logits, x.reshape(-1))  # a mean over B n_features rows
        return self.n_features * mean, self.n_features * d_logits

    def loss(self, x, rng, labels=None):
        """-log p(x) in nats per example of x (B, n_features), binarized if grey, in one random order."""
        self.params.zero_grad()
        x, k = self.discrete(x, rng), rng.integers(len(self.network.degree), 1)
        logits, backward = self.conditionals(x, k, rng)
        loss, d_logits = self.nll(logits, x)

        backward(d_logits)
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        self.average.step()
        return losses

    # Using the trained model, always by the averaged weights.

    def log_prob(self, x):
        """log p(x) in nats (N,), exact, of x (N, n_features) of zeros and ones, or of tokens. p is the mean over the orders.

        Raises ValueError for any other x, if x is on the host: see on_host.
        """
        x, xp = self.checked("log_prob", x), array_module(x)
        with self.average.swapped():
            return xp.concatenate([self.log_mean(x[i : i + 1000]) for i in range(0, len(x), 1000)])  # to save memory

    def checked(self, method, x):
        """x as zeros and ones or integers. Raises ValueError, which names the method, as log_prob says."""
        if on_host(x) and not (self.tokens or ((x == 0) | (x == 1)).all()):
            raise ValueError(f"{method}: x must be 0 or 1 everywhere; binarize grey pixels first, as evaluate does")
        if on_host(x) and self.tokens and not (x == x.astype(int)).all():
            raise ValueError(f"{method}: x must hold tokens, which are whole numbers; round x first")
        return x.astype(int if self.tokens else self.params.theta.dtype)

    def log_mean(self, x):
        """log p(x) (N,), where p is the mean over the orders, by the current weights."""
        xp = array_module(x)
        log_p = xp.stack([self.log_prob_in(x, k) for k in range(len(self.network.degree))])  # (n_orders, N)
        return log_sum_exp(log_p, 0) - math.log(len(log_p))

    def log_prob_in(self, x, k):
        """log p(x) (N,) in the k-th order only, by the current weights."""
        logits, _ = self.conditionals(x, k, None)
        if self.tokens:
            return categorical_log_prob(x.reshape(-1), logits).reshape(x.shape).sum(axis=1)
        return bernoulli_log_prob(x, logits)

    def sample(self, n, rng, label=None):
        """n exact draws from p (n, n_features): zeros and ones, or tokens as integers. Each uses one random order."""
        n_orders = len(self.network.degree)
        counts = rng.host.multinomial(n, n_orders * [1 / n_orders])  # on the host, because they are sizes of arrays
        with self.average.swapped():
            x = rng.xp.concatenate([self.sample_in(int(m), k, rng) for k, m in enumerate(counts) if m or not n])
        return x[rng.permutation(n)]

    def sample_in(self, n, k, rng):
        """n draws (n, n_features) in the k-th order, by the current weights."""
        x = rng.xp.zeros((n, self.n_features), dtype=int if self.tokens else rng.real)
        return self.fill(x, x != 0, k, rng)

    def fill(self, x, known, k, rng, temperature=1.0):
        """x (n, n_features), with its unknown features drawn in the k-th order, by the current weights.

        The noise u is drawn first. Then x_d = [u_d < p(x_d = 1 | x_<d)] is computed for all d at once, again and again. The
        first pass gives the first feature of the order its final value, the second pass the second feature, and so on,
        because later features cannot change earlier ones. So n_features passes are always enough. Usually many features
        reach their final value together. When a pass changes nothing, no later pass would either (Song et al. 2021).
        """
        xp, given = rng.xp, x
        if self.tokens:
            gumbel = sample_gumbel((*x.shape, self.n_values), rng)  # as in distributions.sample_categorical
        else:
            u = rng.uniform(x.shape)
        for _ in range(self.n_features):
            before, logits = x, self.conditionals(x, k, None)[0] * (1 / temperature)
            if self.tokens:
                x = (logits.reshape(gumbel.shape) + gumbel).argmax(axis=2)
            else:
                x = (u < sigmoid(logits)).astype(rng.real)
            x = xp.where(known, given, x)
            if on_host(x) and (x == before).all():
                break
        return x

    def evaluate(self, x, rng, labels=None):
        """{name: nats per example} of x (N, n_features), exact: "nll" of tokens, or "binarized_nll", see the class."""
        return {"nll" if self.tokens else "binarized_nll": -self.log_prob(self.discrete(x, rng)).mean()}
