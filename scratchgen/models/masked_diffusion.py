"""Masked diffusion: tokens are hidden at random, and one network predicts each of them from those that are left.

    hide each token with probability t, uniform on (0, 1);      loss = E 1/t Σ_hidden -log p(x_i | the rest) >= -log p(x)

Sahoo et al. 2024 (MDLM) and Shi et al. 2024, with the schedule α_t = 1 - t. The number k of hidden tokens is then uniform on
0 ... D, and every choice of k tokens is equally likely. Given the choice, t has the law Beta(k + 1, D - k + 1), so E[1/t] is
(D + 1)/k. The loss here has this mean in place of 1/t. Its expectation is the same and its variance is smaller: that of 1/t
is infinite, because ∫ E[k]/t² dt = ∫ D/t dt.

Why it is a bound (Uria et al. 2014; Hoogeboom et al. 2022): draw the tokens one at a time in an order σ. Then -log p_σ(x) is
a sum of D terms, one for each k. If σ is random, the next token is any of the k that are hidden. So E_σ[-log p_σ(x)] equals
Σ_k E 1/k Σ_hidden -log p(x_i | the rest), which is the loss. `sample` draws from p(x) = E_σ p_σ(x), and -log p(x) is at most
E_σ[-log p_σ(x)]. They are equal if all orders give x the same probability, as they do if the conditionals are exact.

The network need not be told t: it sees how much is hidden. It can fill any hole. In n_steps < D steps, several tokens are
drawn at once, each from its own conditional as if they were independent, which they are not.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from ..backend import array_module, on_host
from ..nn.activations import SiLU
from ..nn.distributions import categorical_log_prob, log_frequencies, sample_gumbel
from ..nn.embeddings import Embedding
from ..nn.initialisers import pytorch
from ..nn.layers import log_softmax, mlp
from ..nn.losses import softmax_cross_entropy
from ..nn.norms import LayerNorm
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import cosine
from .base import Model
from .settings import Count, Fraction, Positive, Range, Whole

ROWS = 1_000  # rows whose bound is computed at once, so that memory does not grow with their number
DRAWS = 20  # random masks for each example, in evaluate


@dataclass(eq=False)
class MaskedDiffusion(Model):
    """The settings come first, then the model. Shapes: x and hidden (B, n_features), logits (B n_features, n_values).

    x holds 0 ... n_values - 1, as in models/made.py: with n_values=2 pixels, and grey ones are binarized anew in every step.
    hidden holds booleans. The token n_values, the mask, stands where a token is hidden.
    """

    n_features: Count = 784
    n_values: Annotated[int, Range(2)] = 2  # 2: black-and-white pixels; more: tokens, 0 ... n_values - 1
    n_embed: Count = 4  # length of the learned vector that stands for a token
    hidden: tuple[int, ...] = (1024,)  # sizes of the hidden layers
    n_steps: Count = 64  # steps of the sampler, which share the tokens; at least as many as tokens: one at a time
    order: Literal["random", "confidence"] = "random"  # what is drawn next: any tokens, or the most predictable ones
    batch: Count = 100
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls to 0 along half a cosine; 0: constant rate
    averaging: Fraction = 0.999  # decay of the averaged weights that are used after training; 0: the latest weights

    sampler_settings = frozenset({"n_steps", "order"})
    tiny = {"n_features": 6, "n_embed": 2, "hidden": (5,), "batch": 4}

    def build(self, rng):
        sizes = [self.n_features * self.n_embed, *self.hidden, self.n_features * self.n_values]
        self.network = mlp(sizes, SiLU, pytorch, norm=LayerNorm)
        self.embedding = Embedding(self.n_values + 1, self.n_embed)
        self.params = Parameters(rng, embedding=self.embedding, network=self.network)
        self.adam = Adam(self.params, cosine(self.lr, self.decay_steps) if self.decay_steps else self.lr)
        self.average = EMA(self.params, self.averaging)
        return self

    @property
    def tokens(self):
        return self.n_values > 2

    @property
    def data_range(self):
        return 0, self.n_values - 1

    def prepare(self, x, rng, labels=None):
        """Start the output's bias at the log frequencies of each feature of x, with ½ added to every count."""
        bias = log_frequencies(self.discrete(x, rng), self.n_values, rng.real)
        self.network.layers[-1].b[...] = bias.reshape(-1)
        self.average.average[...] = self.params.theta
        self.params.changed()

    # Training.

    def discrete(self, x, rng):
        """x as integers. Grey pixels are drawn anew at each call, 1 with probability x."""
        return (x if self.tokens else rng.bernoulli(x)).astype(int)

    def conditionals(self, x, hidden, rng):
        """(logits of p(x_i | the tokens that are not hidden) for every i, their backward). x (B, n_features): integers."""
        seen = array_module(x).where(hidden, self.n_values, x)
        rows, back_embedding = self.embedding.forward(seen.reshape(-1), rng)  # (B n_features, n_embed)
        logits, back_network = self.network.forward(rows.reshape(len(x), -1), rng)

        def backward(d_logits):
            d_rows = back_network(d_logits.reshape(logits.shape))
            back_embedding(d_rows.reshape(rows.shape))

        return logits.reshape(-1, self.n_values), backward

    def weights(self, hidden, dtype):
        """(D + 1)/k for each hidden token, where k tokens of its row are hidden, and 0 for the others (B, n_features)."""
        hidden = hidden.astype(dtype)
        return hidden * ((self.n_features + 1) / array_module(hidden).maximum(hidden.sum(axis=1, keepdims=True), 1))

    def loss(self, x, rng, labels=None):
        """The bound on -log p in nats per example of x (B, n_features), by one random mask for each.

        The B values of t lie evenly in (0, 1), shifted by one random number: each is uniform, and their mean is less random.
        """
        self.params.zero_grad()
        x, xp = self.discrete(x, rng), array_module(x)
        t = (xp.arange(len(x), dtype=rng.real) * (1 / len(x)) + rng.uniform(1)) % 1
        hidden = rng.uniform(x.shape) < t[:, None]
        logits, backward = self.conditionals(x, hidden, rng)
        weights = self.n_features * self.weights(hidden, rng.real).reshape(-1)  # a mean over B n_features rows follows
        loss, d_logits = softmax_cross_entropy(logits, x.reshape(-1), weights)

        backward(d_logits)
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        self.average.step()
        return losses

    # Using the trained model, always by the averaged weights.

    def log_bound(self, x, rng):
        """A draw of the bound on log p(x) in nats (N,), by one random mask for each x (N, n_features): log p is >= its mean.

        x as in checked.
        """
        x, xp = self.checked("log_bound", x), array_module(x)
        found = []
        with self.average.swapped():
            for part in (x[i : i + ROWS] for i in range(0, len(x), ROWS)):
                hidden = rng.uniform(part.shape) < rng.uniform((len(part), 1))
                logits, _ = self.conditionals(part, hidden, None)
                log_p = categorical_log_prob(part.reshape(-1), logits).reshape(part.shape)
                found.append((self.weights(hidden, log_p.dtype) * log_p).sum(axis=1))
        return xp.concatenate(found)

    def log_prob_in(self, x, rng, n_steps=None, order=None):
        """log p(x) in nats (N,), if unmask draws x (N, n_features) in one random order. Its mean is the bound again, for
        order=random and n_steps=n_features. Fewer steps show what it costs to draw several at once. x as in checked.
        """
        x = self.checked("log_prob_in", x)
        hidden, turn, log_p = x == x, rng.uniform(x.shape), 0
        for left in self.steps_left(n_steps):
            with self.average.swapped():
                logits, _ = self.conditionals(x, hidden, None)
            now = self.next_shown(logits, hidden, turn, left, order)
            log_p = log_p + (now * categorical_log_prob(x.reshape(-1), logits).reshape(x.shape)).sum(axis=1)
            hidden = hidden & ~now
        return log_p

    def checked(self, method, x):
        """x as integers. Raises ValueError, which names the method, unless x holds 0 ... n_values - 1, on the host."""
        if on_host(x) and not ((x == x.astype(int)) & (x >= 0) & (x < self.n_values)).all():
            raise ValueError(
                f"{method}: x must hold whole numbers 0 ... {self.n_values - 1}; binarize grey pixels first"
            )
        return x.astype(int)

    def evaluate(self, x, rng, labels=None):
        """{name: nats per example}: the bound on -log p of x (N, n_features), of grey pixels binarized at random."""
        x = self.discrete(x, rng)
        bound = sum(self.log_bound(x, rng).mean() for _ in range(DRAWS)) / DRAWS
        return {"negative_elbo" if self.tokens else "binarized_negative_elbo": -bound}

    def steps_left(self, n_steps):
        """How many steps are left at each of n_steps steps, or of the setting's: n, n - 1, ... 1."""
        return range(min(n_steps or self.n_steps, self.n_features), 0, -1)

    def next_shown(self, logits, hidden, turn, left, order):
        """Which hidden tokens are shown next (n, n_features): in each row its share, if so many steps are left.

        They are random ones, those of the least turn (n, n_features), or with order=confidence those whose most probable
        value is most probable. The choice looks at no value of a hidden token.
        """
        xp = array_module(hidden)
        if (order or self.order) == "confidence":
            turn = -log_softmax(logits).max(axis=1).reshape(hidden.shape)
        place = xp.where(hidden, turn, xp.inf).argsort(axis=1).argsort(axis=1)  # 0: the first of its row
        return hidden & (place < -(-hidden.sum(axis=1, keepdims=True) // left))

    def unmask(self, x, known, rng, n_steps=None, order=None, temperature=1.0):
        """Yields (x, hidden) as x (n, n_features) gets its unknown tokens, drawn in n_steps steps: at first all are hidden.

        known (n, n_features): booleans. n_steps and order: the settings, if they are not given. One token at a time is an
        exact draw in either order, if the conditionals are exact. Several are drawn as if they were independent.
        temperature: the logits are divided by it.
        """
        hidden, turn = ~known, rng.uniform(x.shape)
        yield x, hidden
        for left in self.steps_left(n_steps):
            with self.average.swapped():
                logits = self.conditionals(x, hidden, None)[0] * (1 / temperature)
            drawn = (logits + sample_gumbel(logits.shape, rng)).argmax(axis=1).reshape(x.shape)
            now = self.next_shown(logits, hidden, turn, left, order)
            x, hidden = rng.xp.where(now, drawn, x), hidden & ~now
            yield x, hidden

    def sample(self, n, rng, label=None):
        """n draws (n, n_features): zeros and ones, or tokens as integers."""
        x = rng.xp.zeros((n, self.n_features), dtype=int)
        *_, (x, _) = self.unmask(x, x != 0, rng)
        return x if self.tokens else x.astype(rng.real)
