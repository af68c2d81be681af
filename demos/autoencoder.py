"""An autoencoder restores digits from fewer numbers than PCA needs.

Both squeeze a picture into a code of k numbers and restore it from the code. PCA is the best linear method. Left: how
well test pictures are restored, as PSNR (higher is better), for each k. Right: digits restored from 2 and from 8
numbers.

Try `--data mnist`. Read scratchgen/models/autoencoder.py.
"""

import numpy as np
from common import pictures, run, train

from scratchgen.backend import to_host
from scratchgen.metrics.image import psnr
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.plots import new_figure, save_figure, show_curves, show_images

SIZES, SHOWN = (1, 2, 4, 8, 16, 32), (2, 8)


def main(args):
    data = pictures(args)
    x, x_test, shown = data.x_train, data.x_test, min(12, len(data.x_test))
    mean = x.mean(axis=0)
    components = np.linalg.svd(x - mean, full_matrices=False)[2]  # rows: directions of falling variance
    found = {"autoencoder": [], "PCA": []}
    strips = [x_test[:shown]]
    for k in SIZES:
        by_pca = mean + (x_test - mean) @ components[:k].T @ components[:k]
        model = AutoEncoder(n_features=x.shape[1], hidden=(256, 128), n_latent=k, batch=50)
        model, _ = train(model, data, args, steps=6_000)
        restored = to_host(model.reconstruct(model.rng(0).array(x_test)))
        found["autoencoder"].append(psnr(restored, x_test))
        found["PCA"].append(psnr(by_pca, x_test))
        print(f"k = {k:2}: autoencoder {found['autoencoder'][-1]:.2f} dB, PCA {found['PCA'][-1]:.2f} dB")
        if k in SHOWN:
            strips += [restored[:shown], by_pca[:shown]]

    figure, axes = new_figure(10.5, 3.6, 1, 2, width_ratios=[1, 1.6])
    show_curves(axes[0, 0], SIZES, found, "restored test pictures", "numbers in the code", "PSNR (dB)")
    axes[0, 0].set_xscale("log", base=2)
    axes[0, 0].set_xticks(SIZES, SIZES)
    rows = ["test picture", *(f"{name}, {k}" for k in SHOWN for name in found)]
    show_images(axes[0, 1], np.concatenate(strips), data.shape, shown, "restored from 2 and from 8 numbers", rows)
    save_figure(figure, args.out / "autoencoder.png")


if __name__ == "__main__":
    run(main, __doc__)
