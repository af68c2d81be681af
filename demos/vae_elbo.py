"""Training q alone raises the ELBO to log p(x) only if q can be the posterior p(z|x).

The gap is log p(x) - ELBO = KL(q(z|x) ‖ p(z|x)); with one latent dimension it can be integrated. Two trained decoders
are frozen, and a fresh encoder is trained for one x. The linear decoder's posterior is Gaussian, and the gap closes.
The curved decoder's posterior has two bumps, and a gap stays.

Try `--seed 1`. Read scratchgen/models/vae.py.
"""

import numpy as np
from common import run, train

from scratchgen.backend import Rng
from scratchgen.data import load
from scratchgen.models.vae import VAE
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(100)
GRID = np.linspace(-7, 7, 14_001)[:, None]  # z, for quadrature
DZ = GRID[1, 0] - GRID[0, 0]


class Fixed(Rng):
    """An Rng whose noise is one number."""

    def __init__(self, number):
        super().__init__(0, "float64")
        self.number = number

    def normal(self, shape):
        return np.full(shape, self.number)


def elbo(model, x):
    """The ELBO in nats: the model's own loss, averaged over its noise by Gauss-Hermite quadrature."""
    return -sum(w * model.loss(x, Fixed(node))["loss"] for node, w in zip(NODES, WEIGHTS)) / WEIGHTS.sum()


def posterior(model, x):
    """log p(x) in nats and p(z|x) on GRID, by quadrature of the densities."""
    log_joint = diagonal_gaussian_log_prob(GRID, 0.0, np.zeros(1))
    log_joint = log_joint + diagonal_gaussian_log_prob(x, model.decode(GRID), np.full(2, np.log(model.variance)))
    log_p = np.log(np.exp(log_joint).sum() * DZ)
    return log_p, np.exp(log_joint - log_p)


def q_density(model, x):
    return np.exp(diagonal_gaussian_log_prob(GRID, *model.encode(x)))


def kl_to_posterior(model, x):
    """KL(q(z|x) ‖ p(z|x)) in nats by quadrature."""
    q, p = q_density(model, x), posterior(model, x)[1]
    return (q * np.log((q + 1e-300) / (p + 1e-300))).sum() * DZ


def train_q(trained, x, steps, seed):
    """A fresh encoder for the trained model's decoder, trained for x alone. Returns (model, [(step, ELBO), ...])."""
    model = VAE(**trained.settings() | {"lr": 3e-3}).build(Rng(seed, "float64"))
    places = model.params.slices()
    decoder = slice(min(places[n].start for n in places if n.startswith("decoder")), model.params.theta.size)
    model.params.theta[decoder] = trained.params.theta[decoder]
    batch, rng, curve = np.repeat(x, 50, axis=0), model.rng((seed, 1)), []
    for step in range(steps + 1):
        if step % (steps // 50) == 0:
            curve.append((step, elbo(model, x)))
        if step == steps * 2 // 3:
            model.adam.lr /= 30  # to settle: the noise of a constant rate would hide a gap of 0
        model.loss(batch, rng)
        model.params.grad[decoder] = 0  # q alone moves
        model.adam.step()
    return model, np.array(curve)


def main(args):
    data = load("circle", args.seed)
    figure, axes = new_figure(11, 6, 2, 3)
    for row, (name, hidden) in enumerate({"linear decoder": (), "curved decoder": (64, 64)}.items()):
        model = VAE(
            n_features=2, hidden=hidden, n_latent=1, likelihood="gaussian", variance=0.02, batch=200, activation="tanh"
        )
        model, _ = train(model, data, args, steps=4_000, falling=False)
        model.params.cast("float64")
        ends = model.decode(np.array([[-2.5], [2.5]]))
        x = ends.mean(axis=0, keepdims=True) / np.linalg.norm(ends.mean(axis=0)) if hidden else np.array([[0.8, 0.6]])
        model, curve = train_q(model, x, 200 if args.quick else 6_000, args.seed)
        (log_p, density), found, gap = posterior(model, x), elbo(model, x), kl_to_posterior(model, x)
        print(f"{name}: log p(x) {log_p:.6f} = ELBO {found:.6f} + KL {gap:.6f}, off by {abs(found + gap - log_p):.1e}")

        left, middle, right = axes[row]
        left.scatter(*data.x_test[:800].T, s=3, color=GREY, linewidths=0, label="data")
        left.plot(*model.decode(GRID[np.abs(GRID[:, 0]) < 3]).T, color=BLUE, label="decoder, z from -3 to 3")
        left.plot(*x.T, "o", color=RED, label="x")
        left.set(aspect="equal", xlim=(-1.9, 1.9), ylim=(-1.4, 2.3), xlabel="x₁", ylabel="x₂")
        left.set_title(name, fontsize=10)
        middle.plot(*curve.T, color=BLUE, label="ELBO")
        middle.axhline(log_p, color=INK, linestyle="--", label="log p(x)")
        middle.fill_between(curve[:, 0], curve[:, 1], log_p, color=GREY, alpha=0.15, label="KL(q ‖ p(z|x))")
        middle.set(xlabel="steps of q alone", ylabel="nats", ylim=(log_p - 4, log_p + 0.5))
        middle.set_title(f"gap left: {gap:.2g} nats", fontsize=10)
        right.plot(GRID, density, color=INK, label="p(z|x)")
        q = q_density(model, x)
        right.plot(GRID, q, color=BLUE, linestyle="--", label="q(z|x)")
        right.set(xlim=(-4, 4), ylim=(0, 1.3 * max(density.max(), q.max())), xlabel="z", ylabel="density")
        right.set_title("posterior and the Gaussian q", fontsize=10)
        for axis in axes[row]:
            axis.legend(fontsize=8, frameon=False, loc="lower right" if axis is middle else "upper left")
    save_figure(figure, args.out / "vae_elbo.png")


if __name__ == "__main__":
    run(main, __doc__, data="circle", ignores=("data", "device"))
