"""The Gaussian mixture, an explicit density, fitted by EM.

    p(x) = Σ_k π_k N(x; μ_k, Σ_k)           E_data[log p(x)] = -H(p_data) - KL(p_data ‖ p)

The entropy H does not depend on p, so the likeliest p is the nearest to the data by KL (demos/likelihood_mixture.py).
EM (Dempster, Laird & Rubin 1977) finds how far each component answers for each x, r_k = π_k N(x; μ_k, Σ_k) / p(x), and fits
each to its share: N_k = Σ_x r_k, π_k = N_k / N, μ_k = Σ_x r_k x / N_k, S_k = Σ_x r_k (x - μ_k)ᵀ(x - μ_k) / N_k. No step can
make the data less likely, and there is no rate to choose. Σ_k is S_k, its eigenvalues raised to `floor` where they are less:
the likeliest Σ of no smaller variance in any direction, so EM stays monotone. (scikit-learn adds its reg_covar to S_k: no
maximum, and likelihood can fall.) In float32 S_k is right to about 1e-7 of its largest eigenvalue, and a full Σ_k needs a
floor of at least 1e-6 of that: below it EM rises and falls. lee-15 §2.1 takes "the variance" for a circle's radius: that is
σ, the standard deviation.
"""

from dataclasses import dataclass
from typing import Literal

from ..backend import array_module
from ..nn.distributions import sample_categorical
from ..nn.layers import add_matmul, log_sum_exp, matmul, one_hot
from ..nn.optim import Adam, Stepper
from ..nn.parameters import Parameters
from .base import Model
from .parts.gaussians import Gaussians
from .settings import Count, Positive

CHUNK = 2**23  # numbers that the examples looked at together make: memory does not grow with N
LEAST = 1e-30  # a component that answers for less of the data has lost them all
SHORT = 10  # iterations that each of several starts gets before they are compared


class Iterations(Stepper):
    """Counts the iterations of EM, as an optimizer does its steps."""

    def step(self):
        self.t += 1
        self.params.changed()


@dataclass(eq=False)
class GMM(Model):
    """The settings, then the model. Shapes: x (N, n_features), in training all of the data; r (K, N), K = n_components."""

    n_features: Count = 784
    n_components: Count = 10  # K
    covariance: Literal["full", "diagonal", "spherical"] = "full"  # what a Σ_k may be
    floor: Positive = 1e-6  # of EM: the least variance in any direction, in units of x squared; see above for float32
    n_init: Count = 1  # starts, the best of which goes on
    by: Literal["em", "gradient"] = "em"  # how it is fitted
    lr: Positive = 1e-2  # of Adam on the gradient

    same_every_step = False  # eigh and qr take memory as they go
    tiny = {"n_features": 3, "n_components": 2, "floor": 0.01}

    def build(self, rng):
        self.gaussians = Gaussians(self.n_components, self.n_features, self.covariance)
        self.params = Parameters(rng, gaussians=self.gaussians)
        self.steps = Iterations(self.params) if self.by == "em" else Adam(self.params, self.lr)
        return self

    def blocks(self, x):
        """x (N, n_features) in slices, whose rows all components can look at together."""
        rows = max(1, CHUNK // (self.n_components * self.n_features))
        return [slice(i, i + rows) for i in range(0, max(1, len(x)), rows)]

    # What training does.

    def prepare(self, x, rng, labels=None):
        """Start from x (N, n_features): of several starts the best after SHORT iterations each (Biernacki et al. 2003)."""
        if self.n_init == 1:
            return self.start(x, rng)
        losses, found = [], []
        for _ in range(self.n_init):
            self.start(x, rng)
            for _ in range(SHORT):
                self.maximise(x, self.expect(x)[1])
            losses.append(-self.log_prob(x).mean())
            found.append(self.params.theta.copy())
        self.params.theta[...] = rng.xp.stack(found)[rng.xp.stack(losses).argmin()[None]][0]
        self.params.changed()

    def start(self, x, rng):
        """An M step in which each example belongs to the nearest of K centres, examples picked by k-means++.

        The next centre is drawn with a probability that goes as the squared distance to the nearest so far, so that none
        is drawn twice and spread ones are likelier. Arthur & Vassilvitskii 2007.
        """
        xp, squares, nearest = rng.xp, rng.zeros(len(x)).real + 1, rng.xp.zeros(len(x), dtype=int)
        for k in range(self.n_components):
            chosen = sample_categorical(xp.log(xp.maximum(squares, LEAST))[None], rng)  # (1,)
            self.gaussians.mu[k] = x[chosen][0]
            found = xp.concatenate([((x[rows] - x[chosen]) ** 2).sum(axis=1) for rows in self.blocks(x)])
            nearest = xp.where(found < squares, k, nearest)
            squares = xp.minimum(found, squares) if k else found
        wide = xp.maximum(found.mean() / self.n_features, self.floor)  # for a centre that is there twice: the second
        self.gaussians.P.fill(0)  # time nothing is nearest to it
        self.gaussians.diagonal(self.gaussians.P)[...] = 1 / xp.sqrt(wide)
        self.maximise(x, one_hot(nearest, self.n_components, x.dtype).T.copy())

    def expect(self, x):
        """The E step: log p(x) (N,) and the responsibilities r (K, N) for x (N, n_features)."""
        a = array_module(x).concatenate([self.gaussians(x[rows]) for rows in self.blocks(x)], axis=1)  # (K, N)
        log_p = log_sum_exp(a, 0)
        return log_p, array_module(x).exp(a - log_p)

    def maximise(self, x, r):
        """The M step, in place: the likeliest π, μ and Σ for x (N, n_features) with responsibilities r (K, N).

        A component that answers for nothing stays where and as wide as it is, with next to no weight.
        """
        xp, to, total = array_module(x), self.gaussians, r.sum(axis=1)
        n, S = xp.maximum(total, LEAST), xp.zeros_like(to.P)
        to.logits[...] = xp.log(n / len(x))
        to.mu[...] = xp.where((total > LEAST)[:, None], matmul(r, x) / n[:, None], to.mu)
        for k in range(len(n)):
            for rows in self.blocks(x):
                d = (x[rows] - to.mu[k]) * xp.sqrt(r[k, rows] / n[k])[:, None]  # not E[x²] - μ², which cancels
                if to.full:
                    add_matmul(S[k], d.T, d)
                else:
                    S[k] += to.folded(d * d) * (S.shape[1] / x.shape[1])
        to.P[...] = xp.where((total > LEAST).reshape(-1, *[1] * (S.ndim - 1)), self.factor(S), to.P)
        self.params.changed()

    def factor(self, S):
        """P of the likeliest Σ >= floor, from the S of all components: (K, D, D), or (K, D) or (K, 1) of variances."""
        xp = array_module(S)
        if not self.gaussians.full:
            return 1 / xp.sqrt(xp.maximum(S, self.floor))
        variance, axes = xp.linalg.eigh(S)  # ascending, so the rows of A descend: QR then keeps small ones exact
        A = axes.swapaxes(1, 2) / xp.sqrt(xp.maximum(variance, self.floor))[:, :, None]  # Aᵀ A = Σ⁻¹, and A = Q Pᵀ
        P = xp.linalg.qr(A, mode="r").swapaxes(1, 2)
        return P * (2 * (xp.diagonal(P, axis1=1, axis2=2) > 0).astype(P.dtype) - 1)[:, None]  # QR leaves signs open

    def loss(self, x, rng, labels=None):
        """-log p(x) in nats per example of x (N, n_features).

        Fisher's identity: ∂log Σ exp a_k = Σ r_k ∂a_k, the gradient of what the M step maximises, with r held constant.
        """
        self.params.zero_grad()
        xp, log_p = array_module(x), []
        for rows in self.blocks(x):
            a, back = self.gaussians.forward(x[rows], rng)  # (K, B)
            log_p.append(log_sum_exp(a, 0))
            back(xp.exp(a - log_p[-1]) * (-1 / len(x)), inputs=False)
        return {"loss": -xp.concatenate(log_p).mean()}

    def train_step(self, x, rng, labels=None):
        """One iteration of EM, or one step down the gradient. Returns {"loss": -log p(x) before it}."""
        if self.by == "gradient":
            losses = self.loss(x, rng)
        else:
            log_p, r = self.expect(x)
            self.maximise(x, r)
            losses = {"loss": -log_p.mean()}
        self.steps.step()
        return losses

    # What it is good for.

    def log_prob(self, x):
        """log p(x) in nats (N,) of x (N, n_features)."""
        return self.expect(x)[0]

    def responsibilities(self, x):
        """r_k(x), the probability that x (N, n_features) came from component k: (N, K), each row of sum 1."""
        return self.expect(x)[1].T

    def predict(self, x):
        """The most responsible component of each x (N, n_features): (N,) integers."""
        return self.expect(x)[1].argmax(axis=0)

    def evaluate(self, x, rng, labels=None):
        """{"nll": -log p(x), nats per example} of x (N, n_features)."""
        return {"nll": -self.log_prob(x).mean()}

    def sample(self, n, rng, label=None):
        """n draws x = μ_k + ε P_k⁻¹ (n, n_features), with k ~ π and ε ~ N(0, I): of covariance P_k⁻ᵀ P_k⁻¹ = Σ_k."""
        xp, eps, x = rng.xp, rng.normal((n, self.n_features)), 0.0
        drawn = sample_categorical(self.gaussians.logits + xp.zeros((n, 1), eps.dtype), rng)
        for k, (mu, P) in enumerate(zip(self.gaussians.mu, self.gaussians.P)):
            noise = matmul(eps, xp.linalg.inv(xp.tril(P))) if self.gaussians.full else eps / P
            x = xp.where((drawn == k)[:, None], mu + noise, x)
        return x
