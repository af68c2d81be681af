"""The energy-based model: a network gives each point an energy, and points of low energy are probable.

    p(x) = e^-E(x) / Z,      Z = ∫ e^-E(x) dx

The network may be any, but nobody knows Z. There are two ways to train without it. The first is that of an RBM
(models/rbm.py). From -log p(x) = E(x) + log Z follows the gradient ∂E(x)/∂θ - E_p[∂E/∂θ], and chains give the draws from p:

    objective=contrastive    minimise E(x) - E(v), v the states of persistent Langevin chains (parts/langevin.py)

Tieleman 2008; Du & Mordatch 2019. The second learns the score ∇log p(x) = -∇E(x), in which Z does not occur. Take noisy
data x̃ = x + σ ε. Given x, the score of x̃ is that of N(x, σ² I): (x - x̃)/σ² = -ε/σ. The mean of this, over all x that may
have become x̃, is the score of x̃ itself. And a squared error learns a mean (Vincent 2011):

    objective=score          minimise σ² ‖-∇E(x̃, σ) - (x - x̃)/σ²‖² = ‖σ ∇E(x̃, σ) - ε‖², for σ from large to small

Song & Ermon 2019. Its gradient in θ is the derivative of a derivative: nn/double_backward.py. The score within one mode says
nothing about the weight of that mode. But E has a slope in σ too. Given x, that of -log N(x̃; x, σ² I) is (D - ‖ε‖²)/σ. So
we also minimise (dual/D) (σ ∂E/∂σ - (D - ‖ε‖²))², by the same argument (Guth et al. 2025). This ties the energies at small
σ to those at large σ, where all modes are one, and then e^-E gives each mode its weight.

One function is all three. An RBM has an energy, diffusion (models/ddpm.py) a denoiser, and both have a score:

    energy E(x̃, σ)      score -∇E = (x̂ - x̃)/σ²      noise ε̂ = σ ∇E      denoiser x̂ = E[x|x̃] = x̃ - σ² ∇E

Here E(x, σ) = -log N(x; 0, (1 + σ²) I) + √D f(x̄, c), with x̄ = x/√(1 + σ²), and c = log σ, shifted and scaled to [-1, 1]. As
f is an MLP, it grows no faster than ‖x‖, so e^-E has an integral, whatever the weights are. And f has little to learn where
noise has made a Gaussian of the data. √D is how much energies of D numbers vary: those of N(0, I) by √(D/2). At small noise
∇E must tell the noise of every pixel, so the layers of f must be wider than D: this is for points and small pictures.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from ..backend import UsageError, array_module
from ..nn.activations import ACTIVATIONS
from ..nn.distributions import LOG_2PI
from ..nn.double_backward import gradient_penalty
from ..nn.layers import log_sum_exp, mlp
from ..nn.losses import squared_error
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import cosine
from .base import Model
from .parts.denoiser import Scaling
from .parts.langevin import ReplayBuffer, annealed_langevin, ladder, langevin
from .settings import Count, Fraction, NonNegative, Positive, Range, Share, Whole

CELLS, MARGIN, ROWS = 400, 1.0, 8_192  # of log_z: cells along each axis, space beyond the data, points at once


@dataclass(eq=False)
class EBM(Model):
    """The settings come first, then the model. Shapes: x, x_0, x̃ (B, n_features), energies (B,). x_0 is x, scaled."""

    n_features: Count = 784
    objective: Literal["score", "contrastive"] = "score"  # how it is trained; see the top of models/ebm.py
    scaling: Literal["pixels", "standard"] = "pixels"  # [0, 1] -> [-1, 1], or mean 0 and variance 1 in each column
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: Literal[tuple(ACTIVATIONS)] = "silu"  # of the hidden layers; a smooth one, or the score has jumps
    sigma_min: Positive = 0.05  # the least noise σ, in units of x_0: the model describes data with this noise
    sigma_max: Positive = 3.0  # for score: the largest noise
    dual: NonNegative = 0.1  # for score: weight of the error of σ ∂E/∂σ, which finds the weights of modes
    chain_steps: Count = 10  # for contrastive: steps of the chains in each update
    n_chains: Count = 1000  # for contrastive: number of persistent chains; each update continues `batch` of them
    restart: Share = 0.0  # for contrastive: the share of these that starts again from noise
    r1: NonNegative = 0.0  # for contrastive: γ, ½ γ E‖∇f‖² at the data is added to the loss
    step: Annotated[float, Range(0, 4, True, True)] = 0.3  # h/σ², the size of Langevin steps; from 4 on they diverge
    n_steps: Count = 20  # for sampling: Langevin steps at each noise, or for contrastive in all
    n_sigmas: Count = 20  # for score: number of noises that sampling goes through
    batch: Count = 128
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls to 0 along half a cosine; 0: constant rate
    averaging: Fraction = 0.999  # decay of the averaged weights that are used after training; 0: the latest weights

    judged_by_samples = True
    sampler_settings = frozenset({"n_steps", "n_sigmas"})
    tiny = {"n_features": 3, "hidden": (5, 4), "chain_steps": 2, "n_chains": 6, "batch": 4, "n_sigmas": 3, "n_steps": 2}

    @property
    def data_range(self):
        return (0, 1) if self.scaling == "pixels" else None

    def build(self, rng):
        self.network = mlp([self.n_features + 1, *self.hidden, 1], ACTIVATIONS[self.activation])
        self.scaler = Scaling(self.n_features)
        self.params = Parameters(rng, network=self.network, scaler=self.scaler)
        self.adam = Adam(self.params, cosine(self.lr, self.decay_steps) if self.decay_steps else self.lr)
        self.average = EMA(self.params, self.averaging)
        self.buffer = ReplayBuffer(self.n_chains, self.n_features, rng)
        return self

    def prepare(self, x, rng, labels=None):
        if self.scaling == "standard":
            self.scaler.measure(x)

    # The energy, and its gradient in x.

    @property
    def scale(self):
        return math.sqrt(self.n_features)

    @property
    def rate(self):
        """dc/dlog σ."""
        return 2 / math.log(self.sigma_max / self.sigma_min)

    def entering(self, x, sigma):
        """What f takes, [x̄, c] (n, D + 1), and a = 1/√(1 + σ²) and σ (n, 1). sigma: a float or (n, 1)."""
        xp = array_module(x)
        sigma = sigma + xp.zeros_like(x[:, :1])
        a = 1 / xp.sqrt(1 + sigma * sigma)
        return xp.concatenate([a * x, self.rate * xp.log(sigma / self.sigma_min) - 1], axis=1), a, sigma

    def energy(self, x, sigma=None):
        """E(x, σ) in nats (n,), up to a constant, of scaled x (n, D). sigma: a float or (n, 1); sigma_min if not given."""
        rows, a, _ = self.entering(x, self.sigma_min if sigma is None else sigma)
        x_bar, f = rows[:, :-1], self.network(rows)
        log_a = array_module(x).log(a)
        return 0.5 * (x_bar * x_bar + LOG_2PI - 2 * log_a).sum(axis=1) + self.scale * f[:, 0]

    def score(self, x, sigma):
        """-∇E(x, σ) = -a (x̄ + √D ∂f/∂x̄), (n, D), of scaled x (n, D)."""
        rows, a, _ = self.entering(x, sigma)
        f, back_network = self.network.forward(rows, None)
        df = back_network(array_module(x).full_like(f, self.scale), learn=False)  # (n, D + 1)
        return -a * (rows + df)[:, :-1]

    # Training.

    def loss(self, x, rng, labels=None, v=None):
        """{"loss": what the objective minimises} for x (B, n_features), and its gradient.

        v (M, n_features): for contrastive the states of chains, scaled; if not given, some of the persistent chains.
        """
        self.params.zero_grad()
        x_0 = self.scaler(x)
        if self.objective == "score":
            loss, backward = self.score_matching(x_0, rng)
            backward()
            return {"loss": loss}
        return {"loss": self.contrast(x_0, self.buffer.states[: self.batch] if v is None else v, rng)}

    def noised(self, x_0, rng):
        """(x̃, σ, ε) for x_0 (B, D). log σ is uniform for objective=score, else σ is sigma_min."""
        u = rng.uniform((len(x_0), 1)) if self.objective == "score" else 0.0
        sigma, eps = self.sigma_min * (self.sigma_max / self.sigma_min) ** u, rng.normal(x_0.shape)
        return x_0 + sigma * eps, sigma, eps

    def score_matching(self, x_0, rng):
        """E‖σ ∇E(x̃, σ) - ε‖², plus dual (σ ∂E/∂σ - (D - ‖ε‖²))², and backward(), which adds its gradient in θ."""
        xp = array_module(x_0)
        x, sigma, eps = self.noised(x_0, rng)
        rows, a, sigma = self.entering(x, sigma)
        f, _, gradient = self.network.forward_twice(rows)
        df, double_backward = gradient(xp.full_like(f, self.scale))  # (B, D + 1): √D ∂f/∂x̄ and √D ∂f/∂c
        x_bar, share = rows[:, :-1], (sigma * a) ** 2  # σ²/(1 + σ²), the noise's share of the variance
        eps_hat = sigma * a * (x_bar + df[:, :-1])
        loss, d_eps_hat = squared_error(eps_hat, eps)
        d_x_bar, d_c = sigma * a * d_eps_hat, xp.zeros_like(f)
        if self.dual:  # σ ∂x̄/∂σ = -share x̄
            slope = share * (self.n_features - (x_bar * (x_bar + df[:, :-1])).sum(axis=1, keepdims=True))
            slope = slope + self.rate * df[:, -1:]  # σ ∂E/∂σ
            error, d_slope = squared_error(slope, self.n_features - (eps * eps).sum(axis=1, keepdims=True))
            weight = self.dual / self.n_features
            loss, d_slope = loss + weight * error, weight * d_slope
            d_x_bar, d_c = d_x_bar - share * x_bar * d_slope, self.rate * d_slope
        return loss, lambda: double_backward(xp.concatenate([d_x_bar, d_c], axis=1), inputs=False)

    def contrast(self, x_0, v, rng):
        """Mean E(x̃) - mean E(v), plus ½ γ E‖∇f‖², with its gradient in θ. Its value does not say how good the model is."""
        xp, (x, sigma, _) = array_module(x_0), self.noised(x_0, rng)
        rows, rows_v = self.entering(x, sigma)[0], self.entering(v, sigma)[0]
        f, back_data = self.network.forward(rows, rng)
        f_v, back_model = self.network.forward(rows_v, rng)

        back_data(xp.full_like(f, self.scale / len(f)), inputs=False)
        back_model(xp.full_like(f_v, -self.scale / len(f_v)), inputs=False)
        squares, squares_v = (0.5 * (rows[:, :-1] ** 2).sum(axis=1).mean() for rows in (rows, rows_v))
        loss = squares - squares_v + self.scale * (f.mean() - f_v.mean())
        if self.r1:
            penalty, back_penalty = gradient_penalty(self.network, rows, centre=0.0, columns=slice(self.n_features))
            back_penalty(0.5 * self.r1)
            loss = loss + 0.5 * self.r1 * penalty
        return loss

    def chain(self, v, rng, n_steps):
        """v (n, D) after n_steps Langevin steps on e^-E at the least noise."""
        return langevin(lambda x: self.score(x, self.sigma_min), v, self.step * self.sigma_min**2, n_steps, rng)

    def train_step(self, x, rng, labels=None):
        if self.objective == "score":
            losses = self.loss(x, rng)
        else:
            places = self.buffer.stretch(self.batch, rng)
            v, fresh = self.buffer.states[places], rng.uniform((self.batch, 1)) < self.restart
            v = array_module(x).where(fresh, rng.normal(v.shape), v)
            self.buffer.states[places] = v = self.chain(v, rng, self.chain_steps)
            losses = self.loss(x, rng, v=v)
        self.adam.step()
        self.average.step()
        return losses

    # Using the trained model, by its averaged weights.

    def denoise(self, x, sigma):
        """x̂ = E[x_0|x̃] (n, D) of x̃ = x_0 + σ ε."""
        return x + sigma**2 * self.score(x, sigma)

    def sample(self, n, rng, label=None):
        """n examples (n, n_features). For score they come from noise, by annealed Langevin steps, and are denoised once.

        For contrastive they continue the persistent chains for n_steps steps. Pixels are cut to [0, 1].
        """
        with self.average.swapped():
            if self.objective == "score":
                x = math.sqrt(1 + self.sigma_max**2) * rng.normal((n, self.n_features))
                sigmas = ladder(self.sigma_max, self.sigma_min, self.n_sigmas)
                x = annealed_langevin(self.score, x, sigmas, self.step, self.n_steps, rng)
                x = self.denoise(x, self.sigma_min)
            else:
                x = self.chain(self.buffer.states[self.buffer.stretch(n, rng)], rng, self.n_steps)
        return self.scaler.undo(self.scaler.clip(x) if self.scaling == "pixels" else x)

    def log_z(self, n_cells=CELLS):
        """log Z in nats of scaled points on a line or in the plane: a sum over n_cells cells along each axis.

        The grid reaches MARGIN beyond the data on each side. Raises UsageError for more than two numbers per example.
        """
        if self.n_features > 2:
            raise UsageError(f"log_z by a grid is for 1 or 2 numbers per example; these have {self.n_features}")
        xp, low, high = array_module(self.scaler.low), self.scaler.low - MARGIN, self.scaler.high + MARGIN
        width = (high - low) / n_cells
        axes = [low[i] + width[i] * (xp.arange(n_cells) + 0.5) for i in range(self.n_features)]
        points = xp.stack([axis.ravel() for axis in xp.meshgrid(*axes)], axis=1).astype(low.dtype)
        with self.average.swapped():
            energies = [self.energy(points[i : i + ROWS]) for i in range(0, len(points), ROWS)]
        return float(log_sum_exp(-xp.concatenate(energies).astype(xp.float64), 0) + xp.log(width).sum())

    def grid_log_prob(self, x, n_cells=CELLS):
        """log p(x) = -E(x) - log Z in nats (N,), of x (N, n_features). To see the error of log Z, halve n_cells."""
        log_z = self.log_z(n_cells) + array_module(x).log(self.scaler.std).sum()  # in the units of x
        with self.average.swapped():
            return -self.energy(self.scaler(x)) - log_z

    def evaluate(self, x, rng, labels=None):
        """{"denoising_error": E‖σ ∇E(x̃, σ) - ε‖²} on x (N, n_features): for contrastive at the least noise alone."""
        x_0 = self.scaler(x)
        x, sigma, eps = self.noised(x_0, rng)
        with self.average.swapped():
            return {"denoising_error": squared_error(-sigma * self.score(x, sigma), eps)[0]}
