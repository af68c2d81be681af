"""The Gaussian mixture: a model with an explicit density, fitted by EM.

    p(x) = Σ_k π_k N(x; μ_k, Σ_k)           E_data[log p(x)] = -H(p_data) - KL(p_data ‖ p)

The entropy H does not depend on p. So the p of maximum likelihood is also the p with the smallest KL from the data
(demos/likelihood_mixture.py).

EM (Dempster, Laird & Rubin 1977) repeats two steps. The E step computes the responsibilities r_k of the components for each
x. The M step fits each component to its share of the data:

    r_k = π_k N(x; μ_k, Σ_k) / p(x)
    N_k = Σ_x r_k,   π_k = N_k / N,   μ_k = Σ_x r_k x / N_k,   S_k = Σ_x r_k (x - μ_k)ᵀ(x - μ_k) / N_k

The likelihood never decreases, and there is no learning rate to choose.

Σ_k is S_k with every eigenvalue below `floor` raised to `floor`. This is the Σ of maximum likelihood among those whose
variance is at least `floor` in every direction, so the likelihood still never decreases. (scikit-learn adds its reg_covar
to S_k instead. That is not a maximum, and the likelihood can decrease.) In float32, S_k has errors of about 1e-7 of its
largest eigenvalue. A full Σ_k needs a floor of at least 1e-6 of that eigenvalue; below it the likelihood rises and falls.
"""

from dataclasses import dataclass
from typing import Literal

from ..backend import array_module
from ..nn.batch import total
from ..nn.distributions import sample_categorical
from ..nn.layers import add_matmul, log_sum_exp, matmul, one_hot
from ..nn.optim import Adam, Stepper
from ..nn.parameters import Parameters
from .base import Model
from .parts.gaussians import Gaussians
from .settings import Count, Positive

CHUNK = 2**23  # the most numbers computed at a time, so that memory does not grow with N
LEAST = 1e-30  # a component with a smaller total responsibility has lost all examples
SHORT = 10  # iterations of each of several starts before the starts are compared


class Iterations(Stepper):
    """A counter of EM's iterations, in place of an optimizer that counts its steps."""

    def step(self):
        self.t += 1
        self.params.changed()


@dataclass(eq=False)
class GMM(Model):
    """The settings come first, then the model. Shapes: x (N, n_features), r (K, N), K = n_components.

    A training step takes all of the data.
    """

    n_features: Count = 784
    n_components: Count = 10  # K, the number of Gaussians
    covariance: Literal["full", "diagonal", "spherical"] = "full"  # the form of each Σ_k
    floor: Positive = 1e-6  # for EM: the least variance in any direction, in units of x²; for float32 see models/gmm.py
    n_init: Count = 1  # how many starts are tried; training continues from the best
    by: Literal["em", "gradient"] = "em"  # how the model is fitted: EM, or Adam on the gradient
    lr: Positive = 1e-2  # learning rate of Adam, for by=gradient

    same_every_step = False  # eigh and qr allocate memory
    tiny = {"n_features": 3, "n_components": 2, "floor": 0.01}

    def build(self, rng):
        self.gaussians = Gaussians(self.n_components, self.n_features, self.covariance)
        self.params = Parameters(rng, gaussians=self.gaussians)
        self.steps = Iterations(self.params) if self.by == "em" else Adam(self.params, self.lr)
        return self

    def blocks(self, x):
        """Slices of the rows of x (N, n_features), each small enough that all components can process it at once."""
        rows = max(1, CHUNK // (self.n_components * self.n_features))
        return [slice(i, i + rows) for i in range(0, max(1, len(x)), rows)]

    # Training.

    def prepare(self, x, rng, labels=None):
        """Start from x (N, n_features); of several starts, keep the best after SHORT iterations (Biernacki et al. 2003)."""
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
        """Start with one M step: each example belongs to the nearest of K centres, which k-means++ draws from the examples.

        Each centre is drawn with a probability proportional to the squared distance to the nearest centre so far. So no
        centre is drawn twice, and centres far apart are more likely. Arthur & Vassilvitskii 2007.
        """
        xp, squares, nearest = rng.xp, rng.zeros(len(x)).real + 1, rng.xp.zeros(len(x), dtype=int)
        for k in range(self.n_components):
            chosen = sample_categorical(xp.log(xp.maximum(squares, LEAST))[None], rng)  # (1,)
            self.gaussians.mu[k] = x[chosen][0]
            found = xp.concatenate([((x[rows] - x[chosen]) ** 2).sum(axis=1) for rows in self.blocks(x)])
            nearest = xp.where(found < squares, k, nearest)
            squares = xp.minimum(found, squares) if k else found
        # If two centres are equal, no example is nearest to the second one: its component keeps this variance.
        wide = xp.maximum(found.mean() / self.n_features, self.floor)
        self.gaussians.P.fill(0)
        self.gaussians.diagonal(self.gaussians.P)[...] = 1 / xp.sqrt(wide)
        self.maximise(x, one_hot(nearest, self.n_components, x.dtype).T.copy())

    def expect(self, x):
        """log p(x) (N,) and the responsibilities r (K, N) of x (N, n_features): the E step."""
        a = array_module(x).concatenate([self.gaussians(x[rows]) for rows in self.blocks(x)], axis=1)  # (K, N)
        log_p = log_sum_exp(a, 0)
        return log_p, array_module(x).exp(a - log_p)

    def maximise(self, x, r):
        """The M step: set π, μ and Σ to maximum likelihood for x (N, n_features) with responsibilities r (K, N).

        A component without any responsibility keeps its μ and Σ, and its weight becomes almost 0.
        """
        xp, to, N = array_module(x), self.gaussians, total(r.sum(axis=1))  # total: for several processes, nn/batch.py
        n, S = xp.maximum(N, LEAST), xp.zeros_like(to.P)
        to.logits[...] = xp.log(n / total(len(x)))
        to.mu[...] = xp.where((N > LEAST)[:, None], total(matmul(r, x)) / n[:, None], to.mu)
        for k in range(len(n)):
            for rows in self.blocks(x):
                d = (x[rows] - to.mu[k]) * xp.sqrt(r[k, rows] / n[k])[:, None]  # E[x²] - μ² would lose digits
                if to.full:
                    add_matmul(S[k], d.T, d)
                else:
                    S[k] += to.folded(d * d) * (S.shape[1] / x.shape[1])
        to.P[...] = xp.where((N > LEAST).reshape(-1, *[1] * (S.ndim - 1)), self.factor(total(S)), to.P)
        self.params.changed()

    def factor(self, S):
        """P of the most likely Σ >= floor, from S of all components: both (K, D, D), or for variances (K, D) or (K, 1)."""
        xp = array_module(S)
        if not self.gaussians.full:
            return 1 / xp.sqrt(xp.maximum(S, self.floor))
        variance, axes = xp.linalg.eigh(S)  # ascending, so the rows of A descend: QR then keeps small ones exact
        A = axes.swapaxes(1, 2) / xp.sqrt(xp.maximum(variance, self.floor))[:, :, None]  # Aᵀ A = Σ⁻¹, and A = Q Pᵀ
        P = xp.linalg.qr(A, mode="r").swapaxes(1, 2)
        return P * (2 * (xp.diagonal(P, axis1=1, axis2=2) > 0).astype(P.dtype) - 1)[:, None]  # QR leaves the signs open

    def loss(self, x, rng, labels=None):
        """-log p(x) in nats per example of x (N, n_features).

        By Fisher's identity ∂log Σ exp a_k = Σ r_k ∂a_k. This is also the gradient of what the M step maximises, with r
        held constant.
        """
        self.params.zero_grad()
        xp, log_p = array_module(x), []
        for rows in self.blocks(x):
            a, back = self.gaussians.forward(x[rows], rng)  # (K, B)
            log_p.append(log_sum_exp(a, 0))
            back(xp.exp(a - log_p[-1]) * (-1 / len(x)), inputs=False)
        return {"loss": -xp.concatenate(log_p).mean()}

    def train_step(self, x, rng, labels=None):
        """{"loss": -log p(x) before the step}. Makes one iteration of EM, or one step of Adam."""
        if self.by == "gradient":
            losses = self.loss(x, rng)
        else:
            log_p, r = self.expect(x)
            self.maximise(x, r)
            losses = {"loss": -log_p.mean()}
        self.steps.step()
        return losses

    # Using the trained model.

    def log_prob(self, x):
        """log p(x) in nats (N,) of x (N, n_features)."""
        return self.expect(x)[0]

    def responsibilities(self, x):
        """r_k(x) (N, K), the probability that a row of x (N, n_features) came from component k. The sum of each row is 1."""
        return self.expect(x)[1].T

    def predict(self, x):
        """The component with the largest responsibility for each row of x (N, n_features): (N,) integers."""
        return self.expect(x)[1].argmax(axis=0)

    def evaluate(self, x, rng, labels=None):
        """{"nll": -log p(x), nats per example} of x (N, n_features)."""
        return {"nll": -self.log_prob(x).mean()}

    def sample(self, n, rng, label=None):
        """n draws x = μ_k + ε P_k⁻¹ (n, n_features), with k ~ π and ε ~ N(0, I). Their covariance is P_k⁻ᵀ P_k⁻¹ = Σ_k."""
        xp, eps, x = rng.xp, rng.normal((n, self.n_features)), 0.0
        drawn = sample_categorical(self.gaussians.logits + xp.zeros((n, 1), eps.dtype), rng)
        for k, (mu, P) in enumerate(zip(self.gaussians.mu, self.gaussians.P)):
            noise = matmul(eps, xp.linalg.inv(xp.tril(P))) if self.gaussians.full else eps / P
            x = xp.where((drawn == k)[:, None], mu + noise, x)
        return x
