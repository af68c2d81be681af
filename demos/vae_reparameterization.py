"""z = μ + σ ε has the right distribution, and its gradient has little noise.

Left: samples of z against the density of N(μ, σ²). Middle: the mean of n one-sample gradients approaches the exact
gradient like 1/√n, so one sample a training step is enough. Right: the score-function estimator f(z) ∂log q/∂log σ²
needs no derivative of f, but its noise grows with the number of dimensions.

Try `--seed 1`. Read scratchgen/nn/distributions.py: reparameterize.
"""

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.nn.distributions import diagonal_gaussian_log_prob, reparameterize
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

MU, LOG_VAR, DIMENSIONS = 0.7, -0.6, (1, 3, 10, 30, 100)


def f(z):
    return np.cos(2 * z) + z * z / 2, -2 * np.sin(2 * z) + z


def noise_of_one_sample(d, seed):
    """The standard deviation of both one-sample estimates of ∂E[½‖z - 1‖²]/∂log σ₁², z ~ N(0, I) in d dimensions."""
    zeros = np.zeros((5_000, d))
    z, backward = reparameterize(zeros, zeros, Rng((seed, d), "float64"))
    value = 0.5 * ((z - 1) ** 2).sum(axis=1)
    return {"reparameterised": backward(z - 1)[1][:, 0].std(), "score": (value * 0.5 * (z[:, 0] ** 2 - 1)).std()}


def main(args):
    n = 2_000 if args.quick else 100_000
    mu, log_var = np.full((n, 1), MU), np.full((n, 1), LOG_VAR)
    z, backward = reparameterize(mu, log_var, Rng(args.seed, "float64"))
    value, df = f(z)
    d_mu, d_log_var = backward(df)
    score = value * 0.5 * ((z - mu) ** 2 * np.exp(-log_var) - 1)  # f ∂log q/∂log σ²

    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    sigma = np.exp(0.5 * LOG_VAR)
    exact_mu, exact = (weights @ (f(MU + sigma * nodes)[1] * part) / weights.sum() for part in (1, 0.5 * sigma * nodes))
    print(f"mean of z {z.mean():.4f} (μ = {MU}), variance {z.var():.4f} (σ² = {np.exp(LOG_VAR):.4f})")
    print(f"∂E[f]/∂μ: quadrature {exact_mu:.5f}, mean of {n:,} one-sample gradients {d_mu.mean():.5f}")
    print(
        f"∂E[f]/∂log σ²: quadrature {exact:.5f}, reparameterised {d_log_var.mean():.5f}, score function {score.mean():.5f}"
    )
    print(f"standard deviation of one sample: reparameterised {d_log_var.std():.3f}, score function {score.std():.3f}")

    figure, axes = new_figure(11, 3.3, 1, 3)
    grid = np.linspace(z.min(), z.max(), 300)[:, None]
    axes[0, 0].hist(z[:, 0], bins=80, density=True, color=BLUE, alpha=0.5, label="μ + σ ε")
    axes[0, 0].plot(grid, np.exp(diagonal_gaussian_log_prob(grid, MU, LOG_VAR)), color=INK, label="N(μ, σ²)")
    axes[0, 0].set(xlabel="z", ylabel="density")
    axes[0, 0].set_title("the distribution of z", fontsize=10)
    counts = np.arange(1, n + 1)
    for estimate, colour, name in ((score, RED, "score function"), (d_log_var, BLUE, "reparameterised")):
        axes[0, 1].plot(counts, np.cumsum(estimate) / counts, color=colour, label=name)
        spread = 2 * estimate.std() / np.sqrt(counts)
        axes[0, 1].fill_between(counts, exact - spread, exact + spread, color=colour, alpha=0.1, linewidth=0)
    axes[0, 1].axhline(exact, color=GREY, linestyle="--", label="quadrature")
    axes[0, 1].set(xscale="log", xlim=(10, n), ylim=(exact - 1, exact + 1), xlabel="samples averaged")
    axes[0, 1].set_ylabel("∂E[f(z)] / ∂log σ²")
    axes[0, 1].set_title("averages of one-sample gradients", fontsize=10)

    noise = {
        name: [noise_of_one_sample(d, args.seed)[name] for d in DIMENSIONS] for name in ("score", "reparameterised")
    }
    axes[0, 2].loglog(DIMENSIONS, noise["score"], "o-", color=RED, label="score function")
    axes[0, 2].loglog(DIMENSIONS, noise["reparameterised"], "o-", color=BLUE, label="reparameterised")
    axes[0, 2].set_title("noise of a one-sample gradient", fontsize=10)
    axes[0, 2].set(xlabel="dimensions of z", ylabel="standard deviation")
    for axis in axes[0]:
        axis.legend(fontsize=8, frameon=False)
    save_figure(figure, args.out / "vae_reparameterization.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
