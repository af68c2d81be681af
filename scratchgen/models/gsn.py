"""The generative stochastic network: a network that restores damaged pictures, run as a chain that damages and restores.

    x̃ ~ C(x̃|x),   x ~ p(x|x̃),   x̃ ~ C(x̃|x), ...        minimise E[-log p(x|x̃)], x from the data

Bengio et al. 2013, "Generalized denoising auto-encoders as generative models"; Bengio et al. 2014. If p(x|x̃) is the true
posterior of the clean x, the data's distribution is what the chain tends to (theorem 1). Here p(x|x̃) is independent pixels
by an MLP, so this holds as far as x̃ leaves little open: small damage, many steps.

Trained at the data alone, the network is never asked what to do where its own chain strays, and the chain may stay in
modes that the data does not have. Walk-back training (2013) goes along the chain: walk_steps of it from x, the target always
x. The paper draws the number of steps; here it is the same each time.
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated, Literal

from ..backend import stop
from ..nn.activations import ACTIVATIONS, sigmoid
from ..nn.distributions import sample_bernoulli
from ..nn.layers import mlp
from ..nn.losses import bernoulli_nll
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .base import Model
from .settings import Count, Fraction, Positive, Range, Whole


@dataclass(eq=False)
class GSN(Model):
    """The settings, then the model. Grey x in [0, 1] is binarized before it is damaged; the target stays x itself."""

    n_features: Count = 784
    hidden: tuple[int, ...] = (512, 512)
    corruption: Literal["salt_and_pepper", "mask"] = "salt_and_pepper"  # struck pixels: 0 or 1 by a coin, or 0
    corruption_rate: Annotated[float, Range(0, 1, open_low=True)] = 0.2  # the fraction of pixels that are struck
    walk_steps: Count = 3  # steps of the walk in a training step; 1: no walk-back
    n_burn: Count = 50  # steps to the first sample of each of sample()'s chains
    samples_per_chain: Count = 1  # how many samples in a row each chain gives
    activation: Literal[tuple(ACTIVATIONS)] = "relu"
    batch: Count = 100
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # training length in steps; from half of it on the rate falls linearly to 0. 0: never falls
    averaging: Fraction = 0.999  # decay of the averaged weights that everything but training uses; 0: the last ones

    judged_by_samples = True
    data_range = (0, 1)
    sampler_settings = frozenset({"n_burn", "samples_per_chain"})
    tiny = {"n_features": 6, "hidden": (5,), "n_burn": 3, "walk_steps": 2, "batch": 4}

    def build(self, rng):
        self.network = mlp([self.n_features, *self.hidden, self.n_features], ACTIVATIONS[self.activation])
        self.params = Parameters(rng, network=self.network)
        self.adam = Adam(self.params, falling(self.lr, self.decay_steps))
        self.average = EMA(self.params, self.averaging)
        return self

    def binarized(self, x, rng):
        """x (B, n_features) as zeros and ones, drawn anew at each call: each pixel 1 with probability x."""
        return rng.bernoulli(x)

    def damaged(self, x, rng):
        """x̃ ~ C(x̃|x) for x (B, n_features) of zeros and ones."""
        kept = (rng.uniform(x.shape) >= self.corruption_rate).astype(rng.real)
        if self.corruption == "mask":
            return x * kept
        return x * kept + (rng.uniform(x.shape) < 0.5).astype(rng.real) * (1 - kept)

    def loss(self, x, rng, labels=None):
        """-log p(x|x̃) in nats per example of x (B, n_features), the mean over a walk from x, its draws held fixed."""
        self.params.zero_grad()
        v, loss = self.binarized(x, rng), 0.0
        for _ in range(self.walk_steps):
            logits, back_network = self.network.forward(self.damaged(v, rng), rng)
            nll, d_logits = bernoulli_nll(logits, x)

            back_network(d_logits * (1 / self.walk_steps), inputs=False)
            loss = loss + nll * (1 / self.walk_steps)
            v = sample_bernoulli(stop(logits), rng)  # the next step starts where the chain went
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        self.average.step()
        return losses

    def walk(self, v, rng, n_steps, keep=None):
        """The chain from v (N, n_features), zeros and ones, by the averaged weights: the means of its last `keep` steps.

        Of all of them if keep is not given; a list.
        """
        with self.average.swapped():
            means = deque(maxlen=keep)
            for _ in range(n_steps):
                means.append(sigmoid(self.network(self.damaged(v, rng))))
                v = (rng.uniform(v.shape) < means[-1]).astype(rng.real)
        return list(means)

    def sample(self, n, rng, label=None):
        """n pictures (n, n_features), means of p(x|x̃): samples_per_chain of each chain, n_burn steps after random pixels."""
        n_chains = -(-n // self.samples_per_chain)  # rounded up
        v = (rng.uniform((n_chains, self.n_features)) < 0.5).astype(rng.real)
        return rng.xp.concatenate(self.walk(v, rng, self.n_burn + self.samples_per_chain - 1, self.samples_per_chain))[
            :n
        ]

    def evaluate(self, x, rng, labels=None):
        """{name: nats per example} on x (N, n_features): what it costs to restore each from one damage."""
        with self.average.swapped():
            logits = self.network(self.damaged(self.binarized(x, rng), rng))
        return {"denoising_nll": bernoulli_nll(logits, x)[0]}
