"""A VAE is a mixture of infinitely many Gaussians: p(x) = ∫ p(z) N(x; f(z), c) dz.

The decoder f says where each component sits. With data and codes of one number it can be drawn. The thin curves are
components at equally likely z, and their average is the model's density. It is smoother than the true one, because the
bound is loose where f is steep.

Try `--seed 1`. Read scratchgen/models/vae.py.
"""

import math
from statistics import NormalDist

import numpy as np
from common import run, train

from scratchgen.backend import UsageError
from scratchgen.data import load
from scratchgen.models.vae import VAE
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.plots import BLUE, GREY, INK, new_figure, save_figure

C, SHOWN, NODES = 0.05, 25, 4000


def main(args):
    data = load(args.data, args.seed)
    if data.toy is None or data.x_train.shape[1] != 1:
        raise UsageError(f"--data {args.data}: this demo needs data on a line, two_modes or three_modes")
    model = VAE(n_features=1, hidden=(64, 64), n_latent=1, likelihood="gaussian", variance=C, batch=250, init="he")
    model, _ = train(model, data, args, steps=15_000, falling=False)
    model.params.cast("float64")

    x = np.linspace(data.x_train.min() - 0.5, data.x_train.max() + 0.5, 600)[:, None]
    quantiles = np.array([[NormalDist().inv_cdf((i + 0.5) / NODES)] for i in range(NODES)])  # equally likely z
    places = model.decode(quantiles)
    log_variance = np.full(1, math.log(C))
    components = np.exp(diagonal_gaussian_log_prob(x[:, None], places[None], log_variance))  # (600, NODES)
    density, true = components.mean(axis=1), np.exp(data.toy.log_density(x))
    dx = x[1, 0] - x[0, 0]
    kl = float((true * np.log(true / density)).sum() * dx)
    x_test = data.x_test.astype(np.float64)
    log_p = np.log(np.exp(diagonal_gaussian_log_prob(x_test[:, None], places[None], log_variance)).mean(axis=1)).mean()
    bound = -model.evaluate(x_test, model.rng((args.seed, 0, 3)))["negative_elbo"]
    print(
        f"test points, nats: ELBO {bound:.3f}, log p {log_p:.3f}, true density {data.toy.log_density(x_test).mean():.3f}"
    )
    print(f"the mixture integrates to {density.sum() * dx:.4f}; KL(true density ‖ mixture) = {kl:.4f} nats")

    figure, axes = new_figure(10, 3.6, 1, 2, width_ratios=[1.7, 1])
    left, right = axes[0]
    left.hist(data.x_train[:, 0], bins=100, density=True, color=GREY, alpha=0.3, label="data")
    for k in range(NODES // SHOWN // 2, NODES, NODES // SHOWN):
        label = f"{SHOWN} of the components, each 1/{SHOWN}" if k == NODES // SHOWN // 2 else None
        left.plot(x, components[:, k] / SHOWN, color=BLUE, linewidth=0.7, alpha=0.7, label=label)
    left.plot(x, density, color=BLUE, linewidth=2, label="their average over all z: the VAE's p(x)")
    left.plot(x, true, color=INK, linewidth=1, linestyle="--", label="true density")
    left.set(xlabel="x", ylabel="density", ylim=(0, 1.45 * true.max()))
    left.legend(fontsize=8, frameon=False, loc="upper right")
    left.set_title(f"KL(true ‖ VAE) = {kl:.4f} nats", fontsize=10)
    z = np.linspace(-3, 3, 400)[:, None]
    right.plot(z, model.decode(z), color=BLUE)
    right.fill_between(z[:, 0], *(model.decode(z)[:, 0] + s * math.sqrt(C) for s in (-1, 1)), color=BLUE, alpha=0.15)
    right.set(xlabel="z ~ N(0, 1)", ylabel="x")
    right.set_title("the decoder f(z), ± √c", fontsize=10)
    save_figure(figure, args.out / "vae_infinite_mixture.png")


if __name__ == "__main__":
    run(main, __doc__, data="three_modes", ignores=("device",))
