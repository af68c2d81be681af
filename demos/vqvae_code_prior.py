"""A VQ-VAE makes new digits only if something has learned which of its codes go together.

Codes that are drawn evenly, or each by its own frequency, decode to no digits. Codes drawn by a MADE or by masked
diffusion do, and so does diffusion in the encoder's features. A VAE, a GAN and real digits stand beside them. Each title
ends in the Fréchet distance to training pictures.

Try `--data mnist` (20 minutes). Read scratchgen/models/code_prior.py, scratchgen/models/latent_diffusion.py.
"""

import math

import numpy as np
from common import DRAWS, beside, is_small, judge_of, picture_path, pictures, run, train
from recipes import code_sizes, gan_sizes, prior_sizes

from scratchgen.backend import to_host
from scratchgen.data import fixed_order
from scratchgen.models.code_prior import CodePrior
from scratchgen.models.gan import GAN
from scratchgen.models.latent_diffusion import LatentDiffusion
from scratchgen.models.vae import VAE
from scratchgen.models.vqvae import VQVAE
from scratchgen.plots import new_figure, save_figure, show_images


def main(args):
    data = pictures(args)
    judge, small, seconds = judge_of(data, "Fréchet distance"), is_small(data), {}

    def trained(name, model, steps):
        model, history = train(model, data, args, steps, falling=not isinstance(model, VAE), x_test=None)
        seconds[name] = sum(row["seconds"] for row in history)
        return model

    n_features = data.x_train.shape[1]
    vqvae = trained("VQ-VAE", VQVAE(**code_sizes(data)), 4_000 if small else 3_700)
    codes = [to_host(vqvae.codes(vqvae.rng(0).array(x))) for x in (data.x_train, data.x_test)]
    priors = {}
    for name, kind in (("MADE", "made"), ("masked diffusion", "masked")):
        sizes, steps = prior_sizes(data, kind)
        priors[name] = trained(name, CodePrior(n_features=n_features, vqvae=vqvae, **sizes), steps)
    width = {"width": 128} if small else {}
    latent = LatentDiffusion(n_features=n_features, vqvae=vqvae, **width)
    latent = trained("latent diffusion", latent, 3_000 if small else 9_000)
    vae = VAE(n_features=n_features, hidden=(512, 256), n_latent=8, batch=50) if small else VAE(n_features=n_features)
    vae = trained("VAE", vae, 10_000 if small else 5_000)
    gan = trained("GAN", GAN(**gan_sizes(data), r1=0.3 if small else 1.0), 7_500 if small else 15_000)

    n, rng = min(5_000, len(data.x_test)), np.random.default_rng(args.seed)
    N = DRAWS * n
    x_test = data.x_test[fixed_order(len(data.x_test))[:n]]
    each_alone = np.stack([rng.choice(codes[0][:, i], N) for i in range(vqvae.n_codes)], axis=1)
    evenly = rng.integers(vqvae.n_embeddings, size=(N, vqvae.n_codes))
    bits = f"{vqvae.bits:.0f} bits"

    def decoded(codes):
        return vqvae.decode_codes(vqvae.rng(0).array(codes))

    def drawn(model):
        return model.sample(N, model.rng((args.seed, 0, 2)))

    found = {
        f"test digits, restored from {bits}": vqvae.reconstruct(vqvae.rng(0).array(x_test)),
        "codes drawn evenly": decoded(evenly),
        "each code alone, by frequency": decoded(each_alone),
        "codes drawn by a MADE": drawn(priors["MADE"]),
        "codes by masked diffusion": drawn(priors["masked diffusion"]),
        "latent diffusion": drawn(latent),
        "VAE": drawn(vae),
        "GAN": drawn(gan),
        "real digits": x_test,
    }
    print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    if judge:
        floor = judge.floor(n)
        print(f"Fréchet distance of {n} pictures to training pictures")
    figure, axes = new_figure(9, 8, 3, 3)
    for axis, (name, x) in zip(axes.ravel(), found.items()):
        title = name
        if judge:
            distance = floor if x is x_test else judge.measure(x, n)
            print(f"  {name:<40}{distance if x is x_test else beside(distance, floor)}")
            title = f"{name}: {distance}"
        show_images(axis, x[:48], data.shape, 8, title, pixels=40)
    if judge:
        figure.suptitle("after each name the Fréchet distance to training pictures: lower is nearer", fontsize=10)
    save_figure(figure, picture_path(args, "vqvae_code_prior"))
    alone = sum(surprise(*(part[:, i] for part in codes), vqvae.n_embeddings) for i in range(vqvae.n_codes))
    x = vqvae.rng(0).array(data.x_test)
    cost = {name: float(model.evaluate(x, model.rng((args.seed, 0, 4)))["code_bits"]) for name, model in priors.items()}
    print(
        f"test codes cost {cost['MADE']:.1f} bits a picture by the MADE, at most {cost['masked diffusion']:.1f} by masked "
        f"diffusion, {alone / math.log(2):.1f} by their frequencies, {bits} if stored as they are"
    )


def surprise(train, test, n_values):
    """Mean -log of the frequency in train (N,), every count ½ more than it is, of the codes in test (M,), in nats."""
    counts = np.bincount(train, minlength=n_values) + 0.5
    return -np.log(counts / counts.sum())[test].mean()


if __name__ == "__main__":
    run(main, __doc__)
