"""More importance weights bring a VAE's bound nearer to log p(x), and IWAE trains on that bound.

A network is trained by the ELBO with one z a picture, with k, and by the log of the mean of k weights (IWAE). Left: the
bound by the number of weights. Middle: training. Right: samples; a title ends in -log p(x) by 5,000 weights.

Try `--data mnist --only vae iwae` (35 minutes).
Read scratchgen/models/vae.py, scratchgen/metrics/likelihood.py (Burda et al. 2015).
"""

import numpy as np
from common import BINARIZED, is_small, picture_path, pictures, run, train

from scratchgen.__main__ import positive
from scratchgen.backend import to_host
from scratchgen.data import binarized
from scratchgen.metrics.likelihood import importance, negative_elbo
from scratchgen.models.vae import VAE
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_figure, show_images

COUNTS = (1, 2, 5, 10, 50, 100, 500, 1000)  # of weights, for the curves


def options(parser):
    parser.add_argument("--k", type=positive, default=5, help="draws of z in training (default: 5)")
    parser.add_argument("--draws", type=positive, default=5_000, help="importance weights for each test picture")
    parser.add_argument("--only", nargs="+", choices=["vae", "vae-k", "iwae"], help="train only these")


def active(model, x):
    """How many codes are active on x (N, D): the variance of their means over x is above 0.01 (Burda et al., section 5)."""
    return int((to_host(model.encode(model.rng(0).array(x))[0]).var(axis=0) > 0.01).sum())


def main(args):
    data = pictures(args, least=2)
    small, seed = is_small(data), args.seed
    x_test = binarized(data).x_test
    network = {"n_features": x_test.shape[1], "activation": "tanh", "binarize": True}
    sizes = (
        {"hidden": (100,), "n_latent": 10, "batch": 50}
        if small
        else {"hidden": (200, 200), "n_latent": 50, "batch": 100, "lr": 1.5e-3}
    )
    trainings = {
        "vae": ("VAE, one z", {}),
        "vae-k": (f"VAE, {args.k} z", {"n_samples": args.k}),
        "iwae": (f"IWAE, {args.k} z", {"n_samples": args.k, "bound": "iwae"}),
    }
    chosen = args.only or [*trainings]
    draws = max(1, args.draws // 100) if args.quick else args.draws
    ratios = [1.3, 1.3, *[0.8] * (1 + len(chosen))]
    figure, axes = new_figure(2.8 * sum(ratios), 3.4, 1, len(ratios), width_ratios=ratios)
    curves, histories = {}, {}
    for axis, name in zip(axes[0, 2:], chosen):
        label, settings = trainings[name]
        model = VAE(**network | sizes | settings)
        model, history = train(model, data, args, 3_000 if small else 60_000, x_test=x_test)
        x = model.rng(0).array(x_test)
        found = importance(model, x, model.rng((seed, 0, 1)), draws, BINARIZED)
        elbo = negative_elbo(model, x, model.rng((seed, 0, 2)), 10, BINARIZED)
        print(f"{label}: {len(history)} passes in {sum(row['seconds'] for row in history):.0f} s")
        print(
            f"  -log p(x) {found}\n  -ELBO     {elbo}\n  {active(model, data.x_test)} of {model.n_latent} codes active"
        )
        some = x[:: max(1, len(x) // 200)]
        curves[label] = [importance(model, some, model.rng((seed, 0, 3)), k).nll for k in COUNTS if k <= max(draws, 10)]
        histories[label] = [row["test_binarized_negative_elbo"] for row in history]
        show_images(
            axis, model.sample(48, model.rng((seed, 0, 4))), data.shape, 6, f"{label}: {found.nll:.2f} nats", pixels=40
        )
    show_images(axes[0, -1], x_test[:48], data.shape, 6, "test pictures, binarized", pixels=40)
    for axis, ys, title, xlabel in (
        (axes[0, 0], curves, "the bound on -log p", "importance weights"),
        (axes[0, 1], histories, "-ELBO of test pictures", "pass over the training pictures"),
    ):
        for (label, y), colour in zip(ys.items(), (BLUE, GREY, RED)):
            x = COUNTS[: len(y)] if axis is axes[0, 0] else np.arange(1, len(y) + 1)
            axis.plot(x, y, color=colour, label=label)
        axis.set(xlabel=xlabel, ylabel="nats per picture")
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=8, frameon=False)
    axes[0, 0].set(xscale="log")
    last = [min(y) for y in histories.values()]
    axes[0, 1].set(ylim=(min(last) - 1, min(last) + 12))
    save_figure(figure, picture_path(args, "vae_iwae"))


if __name__ == "__main__":
    run(main, __doc__, options=options)
