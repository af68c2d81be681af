"""A denoising autoencoder repairs damaged digits; one that never saw damage does not.

Damage adds noise to every pixel and deletes a quarter of the pixels. Two equal networks learn to restore the clean
picture: one is given the damaged picture, the other the clean one. The rows show test digits, damaged, and then
repaired by each network, with PSNR (higher is better).

Try `--data mnist`. Read scratchgen/models/autoencoder.py: damage (Vincent et al. 2008).
"""

import numpy as np
from common import pictures, run, train

from scratchgen.backend import to_host
from scratchgen.metrics.image import psnr
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.plots import new_figure, save_figure, show_images


def main(args):
    data = pictures(args)
    settings = {"n_features": data.x_train.shape[1], "hidden": (256,), "n_latent": 32, "batch": 50}
    denoising = AutoEncoder(**settings, likelihood="bernoulli", noise=0.2, mask=0.25)
    plain = AutoEncoder(**settings, likelihood="bernoulli")
    denoising, _ = train(denoising, data, args, steps=10_000)
    plain, _ = train(plain, data, args, steps=10_000)

    rng = denoising.rng((args.seed, 0, 2))
    damaged = denoising.damage(rng.array(data.x_test), rng)
    rows = {
        "test picture": data.x_test,
        "damaged": to_host(damaged),
        "plain autoencoder": to_host(plain.reconstruct(damaged)),
        "denoising autoencoder": to_host(denoising.reconstruct(damaged)),
    }
    names = []
    for name, x in rows.items():
        names.append(name if x is data.x_test else f"{name}\n{psnr(x, data.x_test):.1f} dB")
        print(names[-1].replace("\n", ": "))
    n = min(14, len(data.x_test))
    figure, axes = new_figure(9.6, 2.9)
    show_images(axes[0, 0], np.concatenate([x[:n] for x in rows.values()]), data.shape, n, "", names)
    save_figure(figure, args.out / "autoencoder_denoising.png")


if __name__ == "__main__":
    run(main, __doc__)
