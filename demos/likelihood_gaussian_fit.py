"""A Gaussian fitted by gradient gets the mean and the 1/N covariance of its points.

Above, on the line: gradient descent on -log N(x; μ, σ²) ends at the closed form. Below, in the plane: one Linear layer
u = x W + b learns to make the points white, so their covariance is (W Wᵀ)⁻¹. Run backwards it draws samples A ε + μ.
Number by number the tilt is lost.

Try `--seed 1`. Read scratchgen/nn/distributions.py: gaussian_log_prob, sample_gaussian.
"""

import math

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.check.gradcheck import check_loss, gradcheck
from scratchgen.nn.distributions import LOG_2PI, diagonal_gaussian_log_prob, gaussian_log_prob, sample_gaussian
from scratchgen.nn.layer import Layer, Weight
from scratchgen.nn.layers import Linear
from scratchgen.nn.losses import gaussian_nll
from scratchgen.nn.optim import SGD
from scratchgen.nn.parameters import Parameters
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

A, CENTRE = np.array([[1.6, 0.0], [0.9, 0.5]]), np.array([1.0, -0.5])  # the points are A ε + CENTRE
STARTS = ((-2.5, 1.6), (4.7, 1.5), (1.5, 4.5))  # (μ, σ) on the line


def nll(mu, log_var, x):
    """-log N(x; μ, σ²) in nats per point of x (N, 1), ∂/∂μ and ∂/∂log σ², both (1,)."""
    u = (x - mu) ** 2 * np.exp(-log_var)
    value = 0.5 * (LOG_2PI + log_var + u).mean()
    return value, (-(x - mu) * np.exp(-log_var)).mean(axis=0), 0.5 * (1 - u).mean(axis=0)


class Moments(Layer):
    """Holds μ and log σ², (1,) each."""

    def __init__(self):
        self.mu, self.log_var = Weight((1,)), Weight((1,))


def fit_line(x, mu, sigma, steps, lr=0.05):
    """[(μ, σ), ...] on the way down -log p of the points x (N, 1), and at its end."""
    moments = Moments()
    params = Parameters(Rng(0, "float64"), moments=moments)
    moments.mu[...], moments.log_var[...] = mu, 2 * math.log(sigma)
    sgd, path = SGD(params, lr), []
    for _ in range(steps):
        path.append((moments.mu.item(), math.exp(0.5 * moments.log_var.item())))
        params.zero_grad()
        _, d_mu, d_log_var = nll(moments.mu, moments.log_var, x)
        moments.dmu += d_mu
        moments.dlog_var += d_log_var
        sgd.step()
    return np.array([*path, (moments.mu.item(), math.exp(0.5 * moments.log_var.item()))])


def whitener(n):
    """A Linear u = x W + b of n numbers that starts as u = x, and its Parameters."""
    white = Linear(n, n, init=lambda rng, shape, fan_in: rng.array(np.eye(n)))
    return white, Parameters(Rng(0, "float64"), white=white)


def whitened_nll(white, params, x):
    """-log p(x) = -log N(x W + b; 0, I) - log det W, and its gradient, for x (N, n). ∂log det W/∂W = W⁻ᵀ.

    det W starts at 1 and stays positive, as -log det W would be infinite on the way to 0.
    """
    params.zero_grad()
    u, back = white.forward(x, None)
    value, du = gaussian_nll(u, np.zeros_like(u), 1.0)
    back(du, inputs=False)
    white.dW -= np.linalg.inv(white.W).T
    return value - np.log(np.linalg.det(white.W))


def fit_plane(x, steps, lr=0.1):
    """μ (n,), Σ (n, n) and the square root A of Σ that whitening points x (N, n) has learned."""
    white, params = whitener(x.shape[1])
    sgd = SGD(params, lr, momentum=0.5)
    for _ in range(steps):
        whitened_nll(white, params, x)
        sgd.step()
    root = np.linalg.inv(white.W).T  # u = x W + b, so x = W⁻ᵀ (u - b) in columns
    return -root @ white.b, root @ root.T, root


def three_forms(x, mu, sigma):
    """log p of x (N, D) for independent variables: one by one, as a diagonal, and with the matrix Σ = diag(σ²)."""
    singly = sum(-0.5 * ((x[:, i] - mu[i]) / sigma[i]) ** 2 - np.log(sigma[i]) - 0.5 * LOG_2PI for i in range(len(mu)))
    return singly, diagonal_gaussian_log_prob(x, mu, 2 * np.log(sigma)), gaussian_log_prob(x, mu, np.diag(sigma**2))


def ellipse(mu, cov, radius):
    """The points (2, 200) at so many standard deviations from mu."""
    angle = np.linspace(0, 2 * np.pi, 200)
    return mu[:, None] + radius * np.linalg.cholesky(cov) @ np.stack([np.cos(angle), np.sin(angle)])


def show_cloud(axis, points, mu, cov, colour, name):
    axis.plot(*points.T, ".", color=GREY, markersize=3, alpha=0.6)
    for radius in (1, 2):
        axis.plot(*ellipse(mu, cov, radius), color=colour, label=name if radius == 1 else None)
    axis.set(aspect="equal", xlim=(-4.5, 6.5), ylim=(-4.2, 3.2), xlabel="x₁", ylabel="x₂")


def main(args):
    steps = 700 if args.quick else 1_500
    rng = Rng(args.seed, "float64")
    x = rng.normal((300, 2)) @ A.T + CENTRE
    line = x[:, :1]
    print(check_loss(lambda mu, log_var: nll(mu, log_var, line), np.array([0.3]), np.array([0.2]), name="nll"))
    white, params = whitener(2)
    print(gradcheck(lambda: whitened_nll(white, params, x), params, name="whitened_nll"))

    mean, sigma = line.mean(), line.std()
    paths = [fit_line(line, *start, steps) for start in STARTS]
    for start, path in zip(STARTS, paths):
        off = np.abs(path[-1] - [mean, sigma]).max()
        print(f"line from {start}: μ = {path[-1, 0]:.6f}, σ = {path[-1, 1]:.6f}; off the closed form by {off:.1e}")
    mu, cov, root = fit_plane(x, steps)
    closed = x.mean(axis=0), np.cov(x.T, bias=True)
    print(
        f"plane: μ off by {np.abs(mu - closed[0]).max():.1e}, Σ by {np.abs(cov - closed[1]).max():.1e} (1/N covariance)"
    )
    singly, diagonal, matrix = three_forms(x, closed[0], np.sqrt(np.diag(closed[1])))
    differ = max(np.abs(singly - diagonal).max(), np.abs(singly - matrix).max())
    print(f"one by one, diagonal and matrix form differ by {differ:.1e} nats at most")
    few = rng.normal((100_000, 5)).var(axis=1).mean()
    print(f"variance fitted to 5 points of N(0, 1): {few:.4f} on average over 100,000 fits; (N - 1)/N = 4/5")
    drawn = sample_gaussian(100_000, mu, cov, rng)
    print(f"covariance of 100,000 draws of A ε + μ off A Aᵀ by {np.abs(np.cov(drawn.T) - root @ root.T).max():.3f}")

    figure, axes = new_figure(10.5, 7.2, 2, 2)
    (first, second), (third, fourth) = axes
    means, sigmas = np.linspace(-4, 6, 200), np.linspace(0.35, 6, 200)
    M, S = np.meshgrid(means, sigmas)
    surface = 0.5 * (LOG_2PI + 2 * np.log(S) + (sigma**2 + (mean - M) ** 2) / S**2)
    levels = surface.min() + np.geomspace(0.02, 10, 12)
    first.contour(M, S, surface, levels=levels, cmap="Blues_r", linewidths=1)
    for path in paths:
        first.plot(*path.T, "-", color=INK, linewidth=1)
        first.plot(*path[:150:5].T, ".", color=INK, markersize=5)
        first.plot(*path[0], "^", color=INK, label="starts; a dot every 5 steps" if path is paths[0] else None)
    first.plot(mean, sigma, "*", color=RED, markersize=12, label="closed form")
    first.set(xlabel="μ", ylabel="σ", xlim=(-4, 6), ylim=(0.35, 6))
    first.set_title("-log p per point, and the way down by gradient", fontsize=10)
    first.legend(fontsize=8, frameon=False, ncols=2, loc="upper center")
    z = np.linspace(-4.5, 7, 400)[:, None]
    second.hist(line[:, 0], bins=30, density=True, color=GREY, alpha=0.4, label="300 points")
    for name, (mu_, sigma_), options in (
        ("by gradient", paths[0][-1], {"color": BLUE, "linewidth": 3, "alpha": 0.5}),
        ("closed form", (mean, sigma), {"color": RED, "linestyle": "--"}),
        ("true", (CENTRE[0], A[0, 0]), {"color": INK, "linestyle": ":"}),
    ):
        log_p = diagonal_gaussian_log_prob(z, mu_, np.full(1, 2 * math.log(sigma_)))
        second.plot(z, np.exp(log_p), label=name, **options)
    second.set(xlabel="x", ylabel="density")
    second.set_title("on the line", fontsize=10)
    second.legend(fontsize=8, frameon=False)
    show_cloud(third, x, mu, cov, BLUE, "by gradient, 1 σ and 2 σ")
    third.plot(*ellipse(*closed, 2), color=RED, linestyle="--", label="closed form")
    third.set_title("in the plane: 300 points", fontsize=10)
    show_cloud(fourth, mu + rng.normal((300, 2)) @ root.T, mu, root @ root.T, BLUE, "A ε + μ, a matrix product: A Aᵀ")
    wrong = np.diag(np.diag(np.linalg.cholesky(cov)) ** 2)
    fourth.plot(*ellipse(mu, wrong, 2), color=RED, linestyle="--", label="Σ^½ ⊙ ε, number by number")
    fourth.set_title("300 draws from what was learned", fontsize=10)
    for axis in (third, fourth):
        axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    save_figure(figure, args.out / "likelihood_gaussian_fit.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
