"""Half-way between two codes a VAE makes pictures like real ones; an autoencoder does not.

Each strip decodes the codes on the way from one test digit, at its left, to another, at its right. Shown are each
model's worst pairs, whose half-way pictures lie furthest from any real one. Printed: that distance, and how well each
model restores training and test pictures. The VAE restores worse and generalises better.

Try `--data mnist`. Read scratchgen/models/vae.py beside scratchgen/models/autoencoder.py.
"""

import numpy as np
from common import nearest, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.vae import VAE
from scratchgen.plots import name_columns, new_figure, save_figure, show_images

PAIRS, STEPS = 7, 11


def main(args):
    data = pictures(args, least=2)
    settings = {"n_features": data.x_train.shape[1], "hidden": (256, 128), "n_latent": 16, "batch": 50}
    figure, axes = new_figure(12, 4, 1, 2)
    for axis, (name, kind) in zip(axes[0], {"autoencoder": AutoEncoder, "VAE": VAE}.items()):
        model, _ = train(kind(**settings, likelihood="bernoulli"), data, args, steps=10_000, falling=False)

        def encode(x):
            codes = model.encode(model.rng(0).array(x))
            return codes if kind is AutoEncoder else codes[0]

        squares = {}
        for part, x in (("training", data.x_train), ("test", data.x_test)):
            squares[part] = float(((to_host(model.decode(encode(x))) - x) ** 2).sum(axis=1).mean())
        ratio = squares["test"] / squares["training"]
        a, b = encode(data.x_test), encode(data.x_test[::-1].copy())
        distances = nearest(to_host(model.decode(0.5 * a + 0.5 * b)), data.x_train)
        print(
            f"{name}: squared error {squares['training']:.2f} training, {squares['test']:.2f} test (×{ratio:.1f}); "
            f"half-way pictures lie {distances.mean():.2f} from the nearest training picture"
        )
        worst = np.argsort(-distances[: len(a) // 2])[:PAIRS].copy()  # the second half is the first, backwards
        strip = [to_host(model.decode((1 - s) * a[worst] + s * b[worst])) for s in np.linspace(0, 1, STEPS).tolist()]
        strip = [data.x_test[worst], *strip, data.x_test[::-1][worst]]
        title = f"{name}, its worst pairs; half-way pictures lie {distances.mean():.2f} from a real one"
        show_images(axis, np.stack(strip, axis=1).reshape(len(worst) * len(strip), -1), data.shape, len(strip), title)
        shares = [f"{i / (STEPS - 1):.0%}" if i in (0, STEPS // 2, STEPS - 1) else "" for i in range(STEPS)]
        name_columns(axis, ["real", *shares, "real"])
        axis.set_xlabel("how far from the left digit's code to the right one's", fontsize=9)
    print(f"test pictures lie {nearest(data.x_test, data.x_train).mean():.2f} from the nearest training picture")
    save_figure(figure, args.out / "autoencoder_interpolation.png")


if __name__ == "__main__":
    run(main, __doc__)
