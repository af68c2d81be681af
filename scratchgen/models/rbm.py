"""The restricted Boltzmann machine: visible and hidden units are 0 or 1, and an energy gives each state its probability.

    E(v, h) = -b·v - c·h - vᵀ W h,      p(v) = Σ_h e^-E(v, h) / Z = e^-F(v) / Z,      F(v) = -b·v - Σ_j softplus(c + v W)_j

Smolensky 1986; Hinton 2002. No two units of the same side are connected. So p(h|v) and p(v|h) are products, and Gibbs
sampling draws a whole side at once. F is easy to compute, but Z is a sum over all pictures. Z is exact for small machines
(log_z) and otherwise estimated (metrics/annealed.py). The gradient needs draws from p, because -log p(x) = F(x) + log Z and
∂ log Z/∂θ = -E_p[∂F/∂θ]:

    ∂(-log p(x))/∂θ = ∂F(x)/∂θ - E_v~p[∂F(v)/∂θ]

The last states of Gibbs chains replace the draws from p. Contrastive divergence (CD-k, Hinton 2002) starts the chains at the
data and runs k = gibbs_steps steps, so its gradient is biased. The persistent method (PCD, Tieleman 2008) continues the
chains of the last update.
"""

from dataclasses import dataclass

from ..backend import array_module, on_host
from ..nn.activations import sigmoid, softplus
from ..nn.distributions import sample_bernoulli
from ..nn.layers import one_hot
from ..nn.losses import bernoulli_nll
from ..nn.optim import SGD
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .base import Model
from .parts.energy import FreeEnergy
from .settings import Count, NonNegative, Positive, Whole


@dataclass(eq=False)
class RBM(Model):
    """The settings come first, then the model. Shapes: v (B, n_features), h (B, n_hidden).

    Grey x in [0, 1] is binarized: each pixel becomes black with probability x. Every training step and evaluate draw anew.
    """

    n_features: Count = 784
    n_hidden: Count = 500  # number of hidden units
    gibbs_steps: Count = 1  # Gibbs steps of the chains in each update
    persistent: bool = True  # true: continue the chains of the last update (PCD); false: start at the data (CD-k)
    n_chains: Count = 100  # number of persistent chains
    n_steps: Count = 1000  # Gibbs steps of each chain that sample() runs
    batch: Count = 100
    lr: Positive = 0.1
    weight_decay: NonNegative = 0.0  # λ: ½ λ ‖W‖² is added to the loss
    decay_steps: Whole = 0  # steps of training: the rate falls linearly to 0 in the second half; 0: constant rate

    data_range = (0, 1)
    sampler_settings = frozenset({"n_steps"})
    tiny = {"n_features": 6, "n_hidden": 5, "n_chains": 3, "n_steps": 4, "batch": 4}

    def build(self, rng):
        self.energy = FreeEnergy(self.n_visible, self.n_hidden, self.n_chains)
        self.params = Parameters(rng, energy=self.energy)
        self.sgd = SGD(self.params, falling(self.lr, self.decay_steps))
        return self

    @property
    def n_visible(self):
        return self.n_features

    def prepare(self, x, rng, labels=None):
        """Start b at the log odds of each pixel of x, with ½ added to every count; draw the chains from b (Hinton 2010)."""
        xp, black = array_module(x), x.sum(axis=0)
        self.energy.base[...] = self.energy.b[...] = xp.log(black + 0.5) - xp.log(len(x) - black + 0.5)
        self.energy.chains[...] = self.independent(self.n_chains, rng)
        self.params.changed()

    # Training.

    def visible(self, x, rng):
        """x (B, n_features) as zeros and ones. Each call draws them anew."""
        return rng.bernoulli(x)

    def gibbs(self, v, rng, n_steps):
        """v (B, n_visible) after n_steps Gibbs steps. Each step draws h ~ p(h|v) and then v ~ p(v|h)."""
        for _ in range(n_steps):
            h = sample_bernoulli(self.energy.up(v), rng)
            v = sample_bernoulli(self.energy.down(h), rng)
        return v

    def loss(self, x, rng, labels=None, v=None):
        """Mean F(x) - mean F(v), plus the weight decay. Its gradient is the update, with v held fixed.

        Training does not minimise this value, because v changes too, and the value does not say how good the model is.
        x (B, n_visible): data. v (M, n_visible): draws from the model, or the last states of chains in their place. If v is
        not given, the persistent chains are used.
        """
        self.params.zero_grad()
        xp, v = array_module(x), self.energy.chains if v is None else v
        data, back_data = self.energy.forward(x, None)  # (B,)
        model, back_model = self.energy.forward(v, None)  # (M,)
        W = self.energy.W

        back_data(xp.full_like(data, 1 / len(x)), inputs=False)
        back_model(xp.full_like(model, -1 / len(v)), inputs=False)
        self.energy.dW += self.weight_decay * W
        return {"loss": data.mean() - model.mean() + 0.5 * self.weight_decay * (W * W).sum()}

    def train_step(self, x, rng, labels=None):
        """{name: number} of one update. "reconstruction" usually decreases, but it does not measure the likelihood."""
        x = self.visible(x, rng)
        v = self.gibbs(self.energy.chains if self.persistent else x, rng, self.gibbs_steps)
        losses = self.loss(x, rng, v=v)
        if self.persistent:
            self.energy.chains[...] = v
        self.sgd.step()
        return losses | {"reconstruction": self.reconstruct(x)}

    # Using the trained model.

    def hidden(self, v):
        """E[h|v] (N, n_hidden) for v (N, n_visible)."""
        return sigmoid(self.energy.up(v))

    def reconstruct(self, x):
        """-log p(x|h) in nats per example, at h = E[h|x], for x of zeros and ones: how well h preserves x."""
        return bernoulli_nll(self.energy.down(self.hidden(x)), x)[0]

    def free_energy(self, v):
        """F(v) = -log Σ_h e^-E(v, h), (N,), for v (N, n_visible)."""
        return self.energy(v)

    def log_z(self):
        """log Z in nats, exact. Raises UsageError if both sides have more than 20 units: use metrics/annealed.py."""
        return self.energy.log_z()

    def log_p(self, v, log_z=None):
        """log p(v) = -F(v) - log Z in nats (N,), for v (N, n_visible) of zeros and ones. log_z is exact if not given."""
        if on_host(v) and not ((v == 0) | (v == 1)).all():
            raise ValueError("log_p: v must be 0 or 1 everywhere; binarize grey pixels first")
        return -self.free_energy(v) - (self.log_z() if log_z is None else log_z)

    def independent(self, n, rng):
        """n draws (n, n_visible) of independent units. Each unit is 1 as often as in the training data."""
        return sample_bernoulli(self.energy.base + rng.zeros((n, self.n_visible)), rng)

    def sample(self, n, rng, label=None):
        """n pictures (n, n_features) of zeros and ones: the last states of n chains of n_steps steps.

        The chains start at independent pixels.
        """
        return self.gibbs(self.independent(n, rng), rng, self.n_steps)

    def evaluate(self, x, rng, labels=None):
        """{name: nats per example} on x (N, n_features), binarized: "reconstruction" and "pseudo_nll" (Besag 1975).

        "pseudo_nll" is n_features times -log p(x_i | all others), for one random i of each x.
        """
        x = self.visible(x, rng)
        flip = one_hot(rng.integers(self.n_visible, len(x)), self.n_visible, x.dtype)
        rise = self.free_energy(x + flip * (1 - 2 * x)) - self.free_energy(x)  # p(x_i | others) = sigmoid(rise)
        return {"reconstruction": self.reconstruct(x), "pseudo_nll": self.n_visible * softplus(-rise).mean()}
