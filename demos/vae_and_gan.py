"""A VAE's pictures are blurred because it answers with a mean; a GAN's D accepts no mean.

Above: digits of a VAE and a GAN whose decoder and G have the same layers. Below, the reason, for data with two modes.
Left: where z may come from either mode, the VAE answers their mean. Right: the cost of an answer x. Squared error is
least between the modes, -log D on them.

Try `--data mnist`. Read scratchgen/models/vae.py, scratchgen/models/gan.py.
"""

import numpy as np
from common import DRAWS, is_small, judge_of, picture_path, pictures, run, train

from scratchgen.backend import Rng, to_host
from scratchgen.data import Data
from scratchgen.data.toys import Mixture
from scratchgen.metrics.image import sharpness
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_figure, show_images

MODES = Mixture("two narrow modes", 0.1, [[-1], [1]])
VARIANCES = {0.5: "#7fb2e5", 0.02: BLUE}  # c of the decoders shown


def between(x):
    """The share of numbers x (N,) that lie between the modes, more than 5 σ from both."""
    return (np.abs(x) < 1 - 5 * MODES.sigma).mean()


def on_pictures(axes, data, args):
    """Samples of both models and real pictures, with their measures."""
    small, n_features = is_small(data), data.x_train.shape[1]
    judge, n = judge_of(data, "Fréchet distance", args.device), min(2_000, len(data.x_test))
    hidden, n_latent = (128, 256) if small else (256, 512), 32
    vae = VAE(n_features=n_features, hidden=hidden[::-1], n_latent=n_latent, batch=50)
    sizes = {"n_features": n_features, "n_latent": n_latent, "hidden_G": hidden, "hidden_D": hidden[::-1]}
    shown = {}
    for name, model, steps in (
        ("VAE", vae, 8_000 if small else 20_000),
        ("GAN", GAN(**sizes, r1=0.3 if small else 1.0), 7_500 if small else 15_000),
    ):
        train(model, data, args, steps, x_test=None)
        x = to_host(model.sample(DRAWS * n, model.rng((args.seed, 0, 2))))
        shown[name] = x, judge and judge.measure(x, n)
    shown["real"] = data.x_test, judge and judge.floor(n)
    for axis, (name, (x, distance)) in zip(axes, shown.items()):
        sharp = sharpness(x, data.shape)
        print(f"{name:<4}  sharpness {sharp:.3f}" + (f"  Fréchet distance of {n:,} {distance}" if judge else ""))
        title = f"{name}: sharpness {sharp:.3f}" + (f"\nFréchet distance {distance}" if judge else "")
        show_images(axis, x[:64], data.shape, 8, title, pixels=40)


def on_two_modes(axes, args):
    """Two VAEs and a GAN on the two modes: what each code becomes, how often that lies between, what an answer costs."""
    x = MODES.sample(10_000, Rng((args.seed, 1)))
    data = Data(MODES.name, x, x[:1])
    sizes = {"n_features": 1, "n_latent": 1, "batch": 128}
    vae = {"hidden": (64, 64), "likelihood": "gaussian", "activation": "tanh"}
    models = {f"VAE, c = {c}": (VAE(**sizes, **vae, variance=c), colour) for c, colour in VARIANCES.items()}
    gan = GAN(**sizes, hidden_G=(64, 64), hidden_D=(64, 64), output="linear", r1=0.1, averaging=0.0)
    models["GAN"] = gan, RED
    left, middle, right = axes
    z, bins = np.linspace(-3, 3, 601, dtype=np.float32), np.linspace(-1.5, 1.5, 61)
    middle.hist(x[:, 0], bins, density=True, color="0.85", label="data")
    for name, (model, colour) in models.items():
        train(model, data, args, 5_000, x_test=None)
        network = model.generator if model is gan else model.decoder
        left.plot(z, to_host(network(model.rng(0).array(z[:, None]))), color=colour, label=name)
        if model is not gan:
            left.plot(
                z, expected(model, x, z), color=GREY, linestyle="--", label="" if model.variance < 0.1 else "E[x|z]"
            )
        made = to_host(model.sample(20_000, model.rng((args.seed, 0, 2))))[:, 0]
        print(f"{name:<13} {between(made):5.1%} of the samples lie between the modes")
        label = f"{name}: {between(made):.1%} between"
        middle.hist(made, bins, density=True, histtype="step", color=colour, label=label)
    left.set(title="what each code z becomes", xlabel="z", ylabel="x")
    middle.set(title="samples: z ~ N(0, 1)", xlabel="x", ylabel="density", ylim=(0, 5))

    x = np.linspace(-1.5, 1.5, 401)
    p, q = np.exp(MODES.log_density(x[:, None])), 1 / 3
    right.plot(x, 0.5 * ((x - 1) ** 2 + (x + 1) ** 2), color=BLUE, label="squared error, mean over both modes")
    right.plot(x, -np.log(p / (p + q)), color=RED, label="-log D*(x)")
    right.set(title="what an answer x costs", xlabel="x", ylabel="squared error; nats", ylim=(0, 9))
    for axis in axes:
        axis.title.set_size(10)
        axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def expected(model, x, z):
    """E[x|z] = Σ x q(z|x) / Σ q(z|x) over the data x (N, 1), at codes z (M,): the best answer in the squared error."""
    mu, log_var = (to_host(part)[:, 0].astype(np.float64) for part in model.encode(model.rng(0).array(x[:2_000])))
    q = np.exp(-0.5 * (z[:, None] - mu) ** 2 / np.exp(log_var) - 0.5 * log_var)  # (M, N), up to √2π
    return q @ x[:2_000, 0] / q.sum(axis=1)


def main(args):
    data = pictures(args, side=2)
    figure, axes = new_figure(12, 7.6, 2, 3, height_ratios=[1.25, 1])
    on_pictures(axes[0], data, args)
    on_two_modes(axes[1], args)
    save_figure(figure, picture_path(args, "vae_and_gan"))


if __name__ == "__main__":
    run(main, __doc__)
