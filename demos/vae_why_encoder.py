"""log p(x) can be estimated without an encoder, but hardly any z of the prior could have made x.

p(x) = E_p(z)[p(x|z)] = E_q(z|x)[p(x|z) p(z) / q(z|x)].
Above, for three digits: the log of this average over k draws. From q a hundred draws are enough; from the prior
thousands are not. Below: the spread; then, for a code of two numbers, draws of the prior, and the posterior with q.

Try `--data mnist` (minutes). Read scratchgen/models/vae.py: log_weights.
"""

import math

import numpy as np
from common import black_and_white, is_small, picture_path, pictures, run, train

from scratchgen.metrics.divergences import grid
from scratchgen.models.vae import VAE
from scratchgen.nn.distributions import bernoulli_log_prob, diagonal_gaussian_log_prob, reparameterize
from scratchgen.nn.layers import log_sum_exp
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure, show_images
from scratchgen.train.progress import told

BELOW = {"fontsize": 8, "frameon": False, "ncols": 2, "loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}  # a legend
COUNTS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)


def log_joint(model, x, z):
    """log p(x|z) + log p(z) in nats (K,) of one picture x (1, D) and codes z (K, n_latent)."""
    parts = []
    for i in range(0, len(z), 5_000):  # to spare memory
        logits = model.decoder(z[i : i + 5_000])
        parts.append(bernoulli_log_prob(np.broadcast_to(x, logits.shape), logits))
    return np.concatenate(parts) + diagonal_gaussian_log_prob(z, 0.0, np.zeros(z.shape[1], z.dtype))


def prior(model, x):
    """μ and log σ² (1, n_latent) of p(z), whatever x."""
    zeros = np.zeros((1, model.n_latent), x.dtype)
    return zeros, zeros


def encoder(model, x):
    """μ and log σ² (1, n_latent) of q(z|x)."""
    return model.encode(x)


def log_weights(model, x, source, k, rng):
    """log w = log p(x|z) + log p(z) - log q(z) (k,) of k draws of a source, and these (k, n_latent)."""
    mu, log_var = (np.repeat(part, k, axis=0) for part in source(model, x))
    z, _ = reparameterize(mu, log_var, rng)
    return log_joint(model, x, z).astype(np.float64) - diagonal_gaussian_log_prob(z, mu, log_var), z


SOURCES = {prior: (RED, "z ~ p(z), the prior"), encoder: (BLUE, "z ~ q(z|x), the encoder")}


def log_mean(log_w, axis=-1):
    """log of the mean of the weights."""
    return log_sum_exp(log_w, axis) - math.log(log_w.shape[axis])


def effective(log_w, axis=-1):
    """(Σ w)² / Σ w²: how many draws of equal weight would do as well."""
    w = np.exp(log_w - log_w.max(axis=axis, keepdims=True))
    return w.sum(axis=axis) ** 2 / (w * w).sum(axis=axis)


def estimates(log_w, counts, most=100):
    """{k: log p(x) by the first, second, ... k of the draws}, at most `most` of them."""
    return {k: log_mean(log_w[: len(log_w) // k * k].reshape(-1, k)[:most]) for k in counts if k <= len(log_w)}


def show_plane(left, right, model, x, rng, k=1_000):
    """p(z), p(z|x) and q(z|x) for a code of two numbers, with k draws of the prior as large as their weight."""
    points, cell = grid(-4, 4, 400, 2)
    log_p_z = log_joint(model, x, points.astype(np.float32)).astype(np.float64)
    log_p = log_mean(log_p_z) + np.log(len(points) * cell)
    posterior = np.exp(log_p_z - log_p)
    mu, log_var = encoder(model, x)
    print(f"code of two numbers: log p(x) {log_p:.3f} by a grid", end="")
    for source in SOURCES:
        log_w, z = log_weights(model, x, source, k, rng)
        print(
            f"; by {k:,} draws of {source.__name__} {log_mean(log_w):.3f}, effective sample size {effective(log_w):.1f}",
            end="",
        )
        if source is prior:
            left.scatter(*z.T, s=3, color=GREY, linewidths=0)
            share = np.exp(log_w - log_w.max())
            left.scatter(
                *z.T, s=40 * share, color=RED, alpha=0.6, linewidths=0, label=f"{k:,} draws of p(z), by weight"
            )
            title = f"draws of the prior: in effect {effective(log_w):.1f} of {k:,} count"
        else:
            right.scatter(
                *z[:200].T,
                s=5,
                color=BLUE,
                zorder=3,
                linewidths=0,
                label="200 draws of q(z|x)",
            )
            title_of_q = f"draws of q: in effect {effective(log_w):.0f} of {k:,} count"
    print()
    axis = np.unique(points[:, 0])
    p = posterior.reshape(400, 400).T  # rows are the second coordinate
    left.contour(axis, axis, p, levels=[p.max() / 50], colors=INK, linewidths=0.8)
    left.plot([], [], color=INK, linewidth=0.8, label="p(z|x)")
    left.set(xlim=(-4, 4), ylim=(-4, 5.2), aspect="equal")
    left.set_title(title, fontsize=10)
    right.contourf(axis, axis, p, levels=p.max() * np.linspace(0.02, 1, 12), cmap="Greys")
    angle = np.linspace(0, 2 * np.pi, 100)
    for radius in (1, 2):
        ring = mu + radius * np.exp(0.5 * log_var) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        right.plot(*ring.T, color=BLUE, label="q(z|x): 1 σ, 2 σ" if radius == 1 else None)
    means, reach = [(p.sum(axis=0) @ axis * cell, p.sum(axis=1) @ axis * cell), mu[0]], 4 * np.exp(0.5 * log_var).max()
    low, high = np.min(means, axis=0) - reach, np.max(means, axis=0) + reach
    right.set(xlim=(low[0], high[0]), ylim=(low[1], high[1] + 0.3 * reach), aspect="equal")
    right.fill_between([], [], [], color="0.5", label="p(z|x)")
    right.set_title(title_of_q, fontsize=10)
    for one in (left, right):
        one.set(xlabel="z₁", ylabel="z₂")
        one.legend(fontsize=8, frameon=False, loc="upper center")


def main(args):
    data = pictures(args, least=3)
    small = is_small(data)
    data = black_and_white(data)
    hidden, steps = ((256, 128), 6_000) if small else ((400, 200), 4_700)
    settings = {"n_features": data.x_train.shape[1], "hidden": hidden, "batch": 50 if small else 128}
    model, history = train(VAE(n_latent=8 if small else 20, **settings), data, args, steps)
    print(f"test -ELBO {history[-1]['test_negative_elbo']:.2f}, KL {history[-1]['test_kl']:.2f} nats")

    rng, n = model.rng((args.seed, 0, 2)), 20_000 if args.quick else 100_000
    bound = [model.evaluate(x[None], model.rng(0))["negative_elbo"] for x in data.x_test[:300]]
    chosen = np.argsort(bound)[[len(bound) * tenth // 10 for tenth in (1, 5, 9)]]

    figure, axes = new_figure(13, 9, 2, 1)
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    top, (left, middle, right) = (place.subgridspec(1, 3).subplots() for place in (above, below))
    for axis, i, style in told([*zip(top, chosen, ("-", "--", ":"))], "picture"):
        x = data.x_test[i : i + 1]
        kl = model.evaluate(x, model.rng(0))["kl"]
        found = {source: log_weights(model, x, source, n, rng)[0] for source in SOURCES}
        best = log_mean(found[encoder])
        print(
            f"test digit {i}: log p(x) {best:.2f} by {n:,} draws of q, {log_mean(found[prior]):.2f} of the prior;",
            end=" ",
        )
        print(f"ELBO {found[encoder].mean():.2f}, KL(q ‖ p(z)) {kl:.2f}, exp(KL) {np.exp(kl):,.0f}")
        for source, (colour, name) in SOURCES.items():
            rows = estimates(found[source], COUNTS)
            low, median, high = np.transpose([np.quantile(row, (0.1, 0.5, 0.9)) for row in rows.values()])
            axis.fill_between(list(rows), low, high, color=colour, alpha=0.25, linewidth=0)
            axis.plot(list(rows), median, "o-", color=colour, markersize=3, label=name)
            left.plot(
                list(rows), [row.std() for row in rows.values()], color=colour, linestyle=style, label=f"{name}, {i}"
            )
            count = np.median(effective(found[source].reshape(-1, 1_000)))
            print(f"  {source.__name__}: 1,000 draws count as {count:.1f}; error of log p(x) by k draws: ", end="")
            print(", ".join(f"{k:,}: {row.mean() - best:.2f} ± {row.std():.2f}" for k, row in list(rows.items())[::2]))
        axis.axhline(best, color=INK, linestyle="--", linewidth=0.8, label=f"all {n:,} of q: {best:.1f}")
        if np.exp(kl) < COUNTS[-1]:
            axis.axvline(np.exp(kl), color=GREY, linestyle=":", label="exp(KL(q ‖ p(z))) draws")
        span = 28 if small else 160
        axis.set(
            xscale="log", xlabel="draws k", ylabel="estimate of log p(x), nats", ylim=(best - span, best + span / 8)
        )
        axis.set_title(f"test digit {i}, by the mean weight of k draws", fontsize=10)
        axis.legend(**BELOW)
        show_images(axis.inset_axes([0.77, 0.38, 0.2, 0.3]), x, data.shape, 1)
    left.set(xscale="log", yscale="log", xlabel="draws k", ylabel="standard deviation, nats")
    left.set_title("how uncertain the estimate is", fontsize=10)
    left.legend(**BELOW)

    plane, _ = train(VAE(n_latent=2, **settings), data, args, steps)
    show_plane(middle, right, plane, data.x_test[chosen[1]][None], rng)
    save_figure(figure, picture_path(args, "vae_why_encoder"))


if __name__ == "__main__":
    run(main, __doc__, ignores=("device",))
