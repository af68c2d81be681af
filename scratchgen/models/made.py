"""MADE, the masked autoencoder: it predicts each feature from those before it, and so knows the exact probability of an x.

    p(x) = Π_d p(x_d | x_<d),      all D factors from one pass of an MLP

Germain et al. 2015. Every p(x) is such a product (the chain rule), so nothing is approximated: -log p(x) itself is the
loss. But output d must not see x_d, nor what comes after it: masks on the weights see to that (models/parts/masked.py).

To know p(x) takes one pass; to draw an x takes up to D, as a feature must be there before the next is predicted. If the
first ones are given, the rest is drawn from p(rest | first ones), exactly. With order=agnostic one network learns several
random orders, each under masks of its own, and p(x) is the mean of theirs.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from ..backend import array_module, on_host
from ..nn.activations import sigmoid
from ..nn.distributions import bernoulli_log_prob, categorical_log_prob, sample_gumbel
from ..nn.embeddings import Embedding
from ..nn.layers import log_sum_exp, one_hot
from ..nn.losses import bernoulli_nll, softmax_cross_entropy
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import constant, linear
from .base import Model
from .parts.masked import MaskedMLP
from .settings import Count, Fraction, Positive, Range, Whole


@dataclass(eq=False)
class MADE(Model):
    """The settings, then the model. Shapes: x (B, n_features), and of a choice among n_values a row of so many logits.

    n_values=2: x is black and white, each feature 0 or 1 and its output one logit. Grey x in [0, 1] is binarized, each
    pixel black with probability x, anew in every training step and in evaluate, whose "binarized_nll" is then that of a
    random black-and-white version of the test data. Data that is black and white already stays as it is.
    n_values > 2: x holds whole numbers 0 ... n_values - 1, tokens; these are given to fit, as the command line loads pixels.
    """

    n_features: Count = 784
    n_values: Annotated[int, Range(2)] = 2  # 2: black and white pixels; more: tokens
    hidden: tuple[int, ...] = (1024,)
    n_embed: Count = 16  # as how many learned numbers a token enters the network; tokens only
    direct: bool = True  # connections from the input to the output, past the hidden layers
    order: Literal["natural", "agnostic"] = "natural"  # agnostic: n_orders random ones, in each step one of them
    n_orders: Count = 8  # of agnostic
    batch: Count = 100
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # training length in steps: the rate falls linearly to 0. 0: never falls
    averaging: Fraction = 0.999  # decay of the averaged weights that everything but training uses; 0: the last ones

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
        """Start the output's bias at the log odds or log frequencies of each feature of x, every count ½ more than it is."""
        xp = array_module(x)
        if self.tokens:
            counts = xp.stack([one_hot(x[:, d], self.n_values, rng.real).sum(axis=0) for d in range(self.n_features)])
            bias = xp.log((counts + 0.5) / (len(x) + 0.5 * self.n_values)).reshape(-1)
        else:
            black = x.sum(axis=0)
            bias = xp.log(black + 0.5) - xp.log(len(x) - black + 0.5)
        self.network.output.b[...] = bias
        self.average.average[...] = self.params.theta
        self.params.changed()

    # What training does.

    def discrete(self, x, rng):
        """x as it is to be predicted: every pixel black or white, drawn anew at each call, or whole numbers."""
        return x.astype(int) if self.tokens else rng.bernoulli(x)

    def conditionals(self, x, k, rng):
        """Logits of all p(x_d | x_<d), (B, n_features) or of tokens (B n_features, n_values), and their backward.

        x (B, n_features) of zeros and ones or integers; k: in which order, see MaskedMLP.
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
        mean, d_logits = softmax_cross_entropy(logits, x.reshape(-1))  # a mean over n_features times as many rows
        return self.n_features * mean, self.n_features * d_logits

    def loss(self, x, rng, labels=None):
        """-log p(x) in nats per example of x (B, n_features) as shown, in an order drawn at random."""
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

    # What it is good for, always by the averaged weights.

    def log_prob(self, x):
        """log p(x) in nats (N,), exact, of x (N, n_features) of zeros and ones, or of tokens. p: the mean over the orders.

        Raises ValueError for other x on the host; see on_host.
        """
        x, xp = self.checked("log_prob", x), array_module(x)
        with self.average.swapped():
            return xp.concatenate([self.log_mean(x[i : i + 1000]) for i in range(0, len(x), 1000)])  # to spare memory

    def checked(self, method, x):
        """x as zeros and ones or integers. Raises ValueError in the method's name where it is not, as log_prob says."""
        if on_host(x) and not (self.tokens or ((x == 0) | (x == 1)).all()):
            raise ValueError(f"{method}: x must be 0 or 1 everywhere; binarize grey pixels first, as evaluate does")
        if on_host(x) and self.tokens and not (x == x.astype(int)).all():
            raise ValueError(f"{method}: x must be whole numbers everywhere")
        return x.astype(int if self.tokens else self.params.theta.dtype)

    def log_mean(self, x):
        """log p(x) (N,), the mean over the orders, by the weights as they are."""
        xp = array_module(x)
        log_p = xp.stack([self.log_prob_in(x, k) for k in range(len(self.network.degree))])  # (n_orders, N)
        return log_sum_exp(log_p, 0) - math.log(len(log_p))

    def log_prob_in(self, x, k):
        """log p(x) (N,) in the k-th order alone, by the weights as they are."""
        logits, _ = self.conditionals(x, k, None)
        if self.tokens:
            return categorical_log_prob(x.reshape(-1), logits).reshape(x.shape).sum(axis=1)
        return bernoulli_log_prob(x, logits)

    def sample(self, n, rng, label=None):
        """n exact draws from p (n, n_features): zeros and ones, or tokens as integers. Each in one of the orders."""
        n_orders = len(self.network.degree)
        counts = rng.host.multinomial(n, n_orders * [1 / n_orders])  # on the host: they are sizes of arrays
        with self.average.swapped():
            x = rng.xp.concatenate([self.sample_in(int(m), k, rng) for k, m in enumerate(counts) if m or not n])
        return x[rng.permutation(n)]

    def sample_in(self, n, k, rng):
        """n draws in the k-th order, by the weights as they are."""
        x = rng.xp.zeros((n, self.n_features), dtype=int if self.tokens else rng.real)
        return self.fill(x, x != 0, k, rng)

    def fill(self, x, known, k, rng, temperature=1.0):
        """x (n, n_features) with what is not known drawn in the k-th order, by the weights as they are.

        The noise u comes first, and then x_d = [u_d < p(x_d = 1 | x_<d)] for all d at once, again and again: a pass settles
        the first feature of the order, the next one the second, ... as later features cannot change them. n_features passes
        settle all. Mostly many settle together, and once a pass changes nothing no other would (Song et al. 2021).
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
        """{name: nats per example} of x (N, n_features), exact: of tokens "nll", else "binarized_nll", see the class."""
        return {"nll" if self.tokens else "binarized_nll": -self.log_prob(self.discrete(x, rng)).mean()}
