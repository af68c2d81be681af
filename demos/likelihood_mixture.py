"""EM finds three Gaussians again; the largest likelihood is the smallest KL(P_data‖P_G).

Above: EM's circles on their way to the true ones (dotted). Below, left: from each of twelve starts, no iteration loses
likelihood. Middle: full covariances can separate two slanted clouds; diagonal and spherical ones cannot. Right: the mean
log-likelihood is -KL minus a constant, so both are best at the same radius.

Try `--seed 1`. Read scratchgen/models/gmm.py.
"""

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.metrics.divergences import grid, kl
from scratchgen.models.gmm import GMM
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

WEIGHTS, SIGMAS = np.array([0.5, 0.3, 0.2]), np.array([1.2, 0.7, 0.4])
MEANS = np.array([[0.0, 0.0], [2.4, 1.4], [-1.2, 2.2]])
SHOWN = (0, 3, 10, 80)  # iterations
COLOURS = (BLUE, RED, "#3a8f4a")


def mixture(weights, means, sigmas):
    """A spherical mixture of these weights (K,), means (K, 2) and standard deviations (K,)."""
    model = GMM(n_features=2, n_components=len(weights), covariance="spherical").build(Rng(0, "float64"))
    model.gaussians.logits[...] = np.log(weights)
    model.gaussians.mu[...], model.gaussians.P[...] = means, 1 / np.reshape(sigmas, (-1, 1))
    return model


def found(model):
    """The weights (K,), means (K, 2) and standard deviations (K,) of a spherical mixture."""
    return np.exp(model.gaussians.log_pi()), model.gaussians.mu, 1 / model.gaussians.P[:, 0]


def em(x, iterations, seed, **settings):
    """A mixture fitted to x (N, 2), its mean log-likelihood before every iteration, and after those SHOWN what it was."""
    model = GMM(n_features=2, **settings).build(Rng(seed, "float64"))
    model.prepare(x, model.rng((seed, 1)))
    curve, states = [], {}
    for i in range(iterations + 1):
        if i in SHOWN or i == iterations:
            states[i] = model.params.theta.copy()
        curve.append(model.log_prob(x).mean())
        if i < iterations:
            model.train_step(x, None)
    return model, np.array(curve), states


def show_ellipses(axis, model, colours, style="-"):
    """Where every component of a mixture is one and two standard deviations from its mean."""
    t = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(t), np.sin(t)], axis=1)
    for mu, P, colour in zip(model.gaussians.mu, model.gaussians.P, colours):
        ring = circle @ np.linalg.inv(np.tril(P)) if model.gaussians.full else circle / P  # ‖(x - μ) P‖ = 1
        for radius, width in ((1, 1.8), (2, 0.9)):
            axis.plot(*(mu + radius * ring).T, color=colour, linestyle=style, linewidth=width)


def show_cloud(axis, x, title):
    axis.scatter(*x.T, s=3, color=GREY, alpha=0.45, linewidths=0)
    axis.set(aspect="equal", xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)


def main(args):
    iterations = args.epochs or (5 if args.quick else max(SHOWN))
    rng, truth = Rng((args.seed, 7), "float64"), mixture(WEIGHTS, MEANS, SIGMAS)
    x = truth.sample(1_500, rng)
    runs = [em(x, iterations, (args.seed, i), n_components=3, covariance="spherical") for i in range(12)]
    model, curve, states = max(runs, key=lambda run: run[1][-1] - run[1][0])  # the longest way
    best = max(run[1][-1] for run in runs)
    ended = sum(run[1][-1] > best - 0.001 for run in runs)
    least = min(np.diff(run[1]).min() for run in runs)
    print(f"12 starts: {ended} end at {best:.4f} nats; the most that an iteration loses is {max(0, -least):.0e}")
    print(f"true density: {truth.log_prob(x).mean():.4f} nats; the run shown ends at {curve[-1]:.4f}")
    weights, means, sigmas = found(model)
    for k in range(3):
        j = np.linalg.norm(means - MEANS[k], axis=1).argmin()
        print(
            f"weight {weights[j]:.3f} ({WEIGHTS[k]}), mean {means[j, 0]:+.2f} {means[j, 1]:+.2f} "
            f"({MEANS[k, 0]:+.1f} {MEANS[k, 1]:+.1f}), standard deviation {sigmas[j]:.3f} ({SIGMAS[k]})"
        )

    figure, axes = new_figure(13, 7, 2, 4)
    for axis, (i, state) in zip(axes[0], states.items()):
        model.params.theta[...] = state
        show_cloud(axis, x, f"after {i} iterations: {model.log_prob(x).mean():.3f} nats")
        show_ellipses(axis, model, COLOURS)
    show_ellipses(axis, truth, [INK] * 3, ":")
    for axis in axes[0, len(states) :]:
        axis.axis("off")
    for _, other, _ in runs:
        axes[1, 0].plot(other, color=RED if other is curve else BLUE, linewidth=2 if other is curve else 1)
    axes[1, 0].set(xlabel="iteration", ylabel="mean log p(x), nats")
    axes[1, 0].grid(color="0.92")
    axes[1, 0].set_title("12 starts; red: the one above", fontsize=10)
    slanted(args, iterations, axes[1, 1:3])
    identity(args, truth, axes[1, 3])
    save_figure(figure, args.out / "likelihood_mixture.png")


def slanted(args, iterations, axes):
    """Two clouds side by side that lean, by a mixture of two with each kind of covariance."""
    rng = Rng((args.seed, 8), "float64")
    lean = np.array([[1.4, 1.2], [0.15, -0.25]])
    which = (rng.uniform((1_000, 1)) < 0.5).astype(float)
    x, test = (rng.normal((1_000, 2)) @ lean + (2 * which - 1) * np.array([0.55, -0.75]) for _ in range(2))
    models = {}
    for kind in ("full", "diagonal", "spherical"):
        models[kind] = em(x, iterations, (args.seed, 0), n_components=2, covariance=kind, n_init=5)[0]
        right = (models[kind].predict(x) == which[:, 0]).mean()
        nats, right = models[kind].log_prob(test).mean(), max(right, 1 - right)
        print(f"two slanted clouds, {kind}: {nats:.3f} nats on new points, {right:.1%} told apart")
        axis = axes[0] if kind == "full" else axes[1]
        show_ellipses(axis, models[kind], [COLOURS[list(models).index(kind)]] * 2, "--" if kind == "diagonal" else "-")
        title = f"{kind}: {nats:.2f} nats"
        show_cloud(axis, x, f"{axis.get_title()}, {title}" if axis.get_title() else title)


def identity(args, truth, axis):
    """Mean log-likelihoods and -KL - H over the radius of the second component of P_G."""
    points, cell = grid(-8, 9, 120 if args.quick else 300, 2)
    log_p = truth.log_prob(points)
    entropy = -cell * (np.exp(log_p) * log_p).sum()
    radii = np.linspace(0.3, 1.4, 23 if args.quick else 111)
    models = [mixture(WEIGHTS, MEANS, np.where(SIGMAS == 0.7, radius, SIGMAS)) for radius in radii]
    by_kl = np.array([-kl(log_p, model.log_prob(points), cell) for model in models]) - entropy
    print(f"H(P_data) = {entropy:.4f} nats; -KL(P_data‖P_G) is largest at the radius {radii[by_kl.argmax()]:.2f}")
    axis.plot(radii, by_kl, color=INK, alpha=0.25, linewidth=7, label="-KL(P_data‖P_G) - H")
    x = truth.sample(100_000, Rng((args.seed, 9), "float64"))
    for n, colour in ((100, COLOURS[2]), (1_000, RED), (100_000, BLUE)):
        mean = np.array([model.log_prob(x[:n]).mean() for model in models])
        best, off = mean.argmax(), mean - by_kl
        print(
            f"{n:>7,} points: largest at {radii[best]:.2f}; mean log p + KL + H is {off.mean():+.4f} on average and varies "
            f"by {off.max() - off.min():.4f} over all radii"
        )
        axis.plot(radii, mean, color=colour, label=f"of {n:,} points")
        axis.plot(radii[best], mean[best], "o", color=colour, markersize=5)
    axis.axvline(0.7, color=GREY, linestyle="--", linewidth=1)
    axis.yaxis.tick_right()
    axis.yaxis.set_label_position("right")
    axis.set(xlabel="radius of one circle of P_G (dashed: true)", ylim=(by_kl.max() - 0.5, by_kl.max() + 0.02))
    axis.set_ylabel("nats a point")
    axis.set_title("mean log p, largest at the dots", fontsize=10)
    axis.legend(fontsize=7.5, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "device"))
