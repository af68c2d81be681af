"""The variance c of the decoder weighs restoring against the KL, just as β = 2c does.

The loss is ‖x - x̂‖²/2c + KL. With a small c restored pictures are sharp, codes hardly overlap, and samples are poor.
With a large c the KL wins, codes carry nothing, and every sample is the mean picture. In between lies a useful VAE.

Try `--data mnist`. Read scratchgen/nn/losses.py: gaussian_nll.
"""

import numpy as np
from common import pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.vae import VAE
from scratchgen.plots import new_figure, save_figure, show_images

VARIANCES = (0.001, 0.01, 0.05, 0.2, 0.5)


def main(args):
    data = pictures(args)
    n = min(12, len(data.x_test), len(data.x_train))
    restored, made, names = [data.x_test[:n]], [data.x_train[:n]], []
    for c in VARIANCES:
        model = VAE(
            n_features=data.x_train.shape[1], hidden=(256, 128), n_latent=8, batch=50, likelihood="gaussian", variance=c
        )
        model, history = train(model, data, args, steps=8_000, falling=False)
        restored.append(to_host(model.reconstruct(model.rng(0).array(data.x_test[:n]))))
        made.append(to_host(model.sample(n, model.rng((args.seed, 0, 2)))))
        last = history[-1]
        names.append(f"c = {c:g}\nKL {last['test_kl']:.1f} nats")
        print(f"c = {c:g} (β = {2 * c:g}): test mse {last['test_mse']:.4f}, KL {last['test_kl']:.2f} nats")
    figure, axes = new_figure(12, 3.7, 1, 2)
    rows = ["real pictures", *names]
    show_images(axes[0, 0], np.concatenate(restored), data.shape, n, "restored from the mean code", rows)
    show_images(axes[0, 1], np.concatenate(made), data.shape, n, "made from noise")
    save_figure(figure, args.out / "vae_decoder_variance.png")


if __name__ == "__main__":
    run(main, __doc__)
