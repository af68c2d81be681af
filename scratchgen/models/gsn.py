"""The generative stochastic network: it learns to restore damaged pictures, and samples by damaging and restoring in turn.

    x̃ ~ C(x̃|x),   x ~ p(x|x̃),   x̃ ~ C(x̃|x), ...        minimise E[-log p(x|x̃)], x from the data

Bengio et al. 2013, "Generalized denoising auto-encoders as generative models"; Bengio et al. 2014. If p(x|x̃) is the true
posterior of the clean x, the chain converges to the distribution of the data (theorem 1). Here an MLP gives p(x|x̃), and its
pixels are independent. This is accurate only if x̃ almost determines x: so the damage must be small and the steps many.

If it is trained only on damaged data, the network does not learn what to do when its own chain leaves the data, and the
chain may stay in modes that the data does not have. Walk-back training (2013) also trains along the chain: it takes
walk_steps steps from x, and the target is always x. The paper draws the number of steps at random; here it is fixed.
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
    """The settings come first, then the model. Grey x in [0, 1] is binarized before the damage; the target is x itself."""

    n_features: Count = 784
    hidden: tuple[int, ...] = (512, 512)
    corruption: Literal["salt_and_pepper", "mask"] = "salt_and_pepper"  # damaged pixels become 0 or 1 at random, or 0
    corruption_rate: Annotated[float, Range(0, 1, open_low=True)] = 0.2  # the fraction of pixels that are damaged
    walk_steps: Count = 3  # steps of the chain in each training step; 1: no walk-back
    n_burn: Count = 50  # steps of each chain before sample() takes its first sample
    samples_per_chain: Count = 1  # how many successive samples each chain gives
    activation: Literal[tuple(ACTIVATIONS)] = "relu"
    batch: Count = 100
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls linearly to 0 in the second half; 0: constant rate
    averaging: Fraction = 0.999  # decay of the averaged weights that are used after training; 0: the latest weights

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
        """x (B, n_features) as zeros and ones. Each call draws them anew: a pixel is 1 with probability x."""
        return rng.bernoulli(x)

    def damaged(self, x, rng):
        """x̃ ~ C(x̃|x) for x (B, n_features) of zeros and ones."""
        kept = (rng.uniform(x.shape) >= self.corruption_rate).astype(rng.real)
        if self.corruption == "mask":
            return x * kept
        return x * kept + (rng.uniform(x.shape) < 0.5).astype(rng.real) * (1 - kept)

    def loss(self, x, rng, labels=None):
        """-log p(x|x̃) in nats per example of x (B, n_features), averaged over the walk; its draws have no gradient."""
        self.params.zero_grad()
        v, loss = self.binarized(x, rng), 0.0
        for _ in range(self.walk_steps):
            logits, back_network = self.network.forward(self.damaged(v, rng), rng)
            nll, d_logits = bernoulli_nll(logits, x)

            back_network(d_logits * (1 / self.walk_steps), inputs=False)
            loss = loss + nll * (1 / self.walk_steps)
            v = sample_bernoulli(stop(logits), rng)  # the next step starts from this draw
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        self.average.step()
        return losses

    def walk(self, v, rng, n_steps, keep=None):
        """A list of the means of p(x|x̃), (N, n_features) each, in the last `keep` steps of the chain from v, or in all.

        v (N, n_features) holds zeros and ones. The averaged weights are used.
        """
        with self.average.swapped():
            means = deque(maxlen=keep)
            for _ in range(n_steps):
                means.append(sigmoid(self.network(self.damaged(v, rng))))
                v = (rng.uniform(v.shape) < means[-1]).astype(rng.real)
        return list(means)

    def sample(self, n, rng, label=None):
        """n pictures (n, n_features), the means of p(x|x̃).

        Each chain starts at random pixels and gives samples_per_chain of them from step n_burn on.
        """
        n_chains = -(-n // self.samples_per_chain)  # rounded up
        v = (rng.uniform((n_chains, self.n_features)) < 0.5).astype(rng.real)
        return rng.xp.concatenate(self.walk(v, rng, self.n_burn + self.samples_per_chain - 1, self.samples_per_chain))[
            :n
        ]

    def evaluate(self, x, rng, labels=None):
        """{name: nats per example} on x (N, n_features): -log p(x|x̃), with one x̃ for each x."""
        with self.average.swapped():
            logits = self.network(self.damaged(self.binarized(x, rng), rng))
        return {"denoising_nll": bernoulli_nll(logits, x)[0]}
