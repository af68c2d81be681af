"""The means of a Gaussian mixture of digits are blurry; its samples are noisy.

Mixtures of 1, 10 and 50 Gaussians, fitted by EM, beside a VAE, a GAN and test digits. A mean averages many digits. A
sample adds noise, and that noise knows no strokes. A title gives the Fréchet distance and the sharpness, which blur
lowers and noise raises.

Try `--data mnist` (15 minutes): with 784 pixels the mixtures are far worse than the VAE. Read scratchgen/models/gmm.py.
"""

import dataclasses

import numpy as np
from common import DRAWS, is_small, judge_of, nearest, picture_path, pictures, run, train
from recipes import gan_sizes

from scratchgen.backend import to_host
from scratchgen.data import fixed_order
from scratchgen.metrics.image import sharpness
from scratchgen.models.gan import GAN
from scratchgen.models.gmm import GMM
from scratchgen.models.vae import VAE
from scratchgen.plots import new_figure, save_figure, show_images

FLOOR = 1e-3  # the least variance: a standard deviation of 0.03, half of one of the small digits' 17 levels of grey

TITLES = {
    "10 full": "10 Gaussians",
    "50 diagonal": "50 diagonal Gaussians",
    "1 Gaussian": "samples of one Gaussian",
    "VAE": "samples of a VAE",
    "GAN": "samples of a GAN",
    "test digits": "real digits",
}


def in_title(numbers):
    """The measures of a set of pictures, in words."""
    *distance, sharp = numbers.split(", ")
    return "".join(f"Fréchet distance {one}\n" for one in distance) + f"sharpness {sharp}"


def main(args):
    data = pictures(args, to_train=50, side=2)
    judge, small, n_features = judge_of(data, "Fréchet distance"), is_small(data), data.x_train.shape[1]
    few = dataclasses.replace(data, x_train=data.x_train[fixed_order(len(data.x_train))[:20_000]], labels_train=None)
    n, made, means = min(5_000, len(data.x_test)), {}, {}
    seconds = {}

    def trained(name, model, steps, data=data, **options):
        model, history = train(model, data, args, steps, **options)
        seconds[name] = sum(row["seconds"] for row in history)
        made[name] = to_host(model.sample(DRAWS * n, model.rng((args.seed, 0, 2))))
        return model, history

    def words(x):
        real = len(x) == n  # samples are several times as many
        return (f"{judge.floor(n) if real else judge.measure(x, n)}, " if judge else "") + (
            f"{sharpness(x, data.shape):.3f}"
        )

    for n_components, covariance in ((1, "full"), (10, "full"), (50, "diagonal")):
        name = f"{n_components} {covariance}" if n_components > 1 else "1 Gaussian"
        model = GMM(n_features=n_features, n_components=n_components, covariance=covariance, floor=FLOOR)
        steps = 1 if n_components == 1 else 50 if small else 15
        model, history = trained(name, model, steps, few, x_test=data.x_test[:2_000])
        means[name] = to_host(model.gaussians.mu)[np.argsort(-to_host(model.gaussians.logits))]
        losses = np.array([row["loss"] for row in history])
        rise = np.diff(losses, prepend=losses[0]).max() / abs(losses[-1])
        print(
            f"{name:<14}{len(losses)} iterations, -log p {losses[-1]:.1f} nats on training, {history[-1]['test_nll']:.1f} "
            f"on test pictures; largest relative loss in one: {max(0, rise):.0e}"
        )
    vae = VAE(n_features=n_features, hidden=(512, 256), n_latent=8, batch=50) if small else VAE(n_features=n_features)
    trained("VAE", vae, 10_000 if small else 5_000, x_test=None)
    trained("GAN", GAN(**gan_sizes(data), r1=0.3 if small else 1.0), 7_500 if small else 15_000, x_test=None)
    made["test digits"] = data.x_test[fixed_order(len(data.x_test))[:n]]
    print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))

    found = {}
    for name, x in made.items():
        cut = np.clip(x, 0, 1)
        found[name] = words(cut)
        outside = f", uncut {words(x)}" if (cut != x).any() else ""
        blurry = f"; its means: sharpness {sharpness(means[name], data.shape):.3f}" if name in means else ""
        far = nearest(cut[:300], data.x_train).mean()
        print(
            f"{name:<14}{'distance, ' * bool(judge)}sharpness: {found[name]}{outside}{blurry}; "
            f"{far:.2f} from the nearest training picture"
        )

    shown = 40 if small else 48  # enlarged pictures make a larger file
    figure, axes = new_figure(13, 5.6, 2, 4)
    for k, name in enumerate(("10 full", "50 diagonal")):
        blurry, columns = sharpness(means[name], data.shape), 5 if len(means[name]) == 10 else 8
        title = f"the means of {TITLES[name]}:\nsharpness {blurry:.3f}"
        show_images(axes[0, 2 * k], means[name][:shown], data.shape, columns, title, pixels=30)
        title = f"samples of {TITLES[name]}:\n{in_title(found[name])}"
        show_images(axes[0, 2 * k + 1], made[name][:shown], data.shape, 8, title, pixels=30)
    for axis, name in zip(axes[1], ("1 Gaussian", "VAE", "GAN", "test digits")):
        title = f"{TITLES[name]}:\n{in_title(found[name])}"
        show_images(axis, made[name][:shown], data.shape, 8, title, pixels=30)
    save_figure(figure, picture_path(args, "likelihood_mixture_digits"))


if __name__ == "__main__":
    run(main, __doc__)
