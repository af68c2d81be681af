"""Between two digits: what lies half-way between their codes, in an autoencoder and in a VAE.

One note says that noise makes a VAE generalise to codes between those of the data, another that a VAE "does not
generalise well". Both can be looked at: the strips show the way from one test digit's code to another's; the numbers are
the error of restoring training and test pictures, and how far the half-way pictures lie from any real one. Read
scratchgen/models/vae.py beside autoencoder.py. (Row V4)
"""

import numpy as np
from common import nearest, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.vae import VAE
from scratchgen.plots import new_figure, save_figure, show_images

PAIRS, STEPS = 7, 11


def main(args):
    data = pictures(args)
    settings = {"n_features": data.x_train.shape[1], "hidden": (256, 128), "n_latent": 16, "batch": 50}
    figure, axes = new_figure(10, 3.6, 1, 2)
    for axis, (name, kind) in zip(axes[0], {"autoencoder": AutoEncoder, "VAE": VAE}.items()):
        model, _ = train(kind(**settings, likelihood="bernoulli"), data, args, steps=10_000)
        rng = model.rng(0)

        def encode(x, model=model, rng=rng, kind=kind):
            codes = model.encode(rng.array(x))
            return codes if kind is AutoEncoder else codes[0]

        squares = {}
        for part, x in (("training", data.x_train), ("test", data.x_test)):
            squares[part] = float(((to_host(model.decode(encode(x))) - x) ** 2).sum(axis=1).mean())
        z = encode(data.x_test)
        half_way = to_host(model.decode(0.5 * z + 0.5 * z[::-1].copy()))
        distance = nearest(half_way, data.x_train)
        print(
            f"{name}: squared error {squares['training']:.2f} training, {squares['test']:.2f} test (ratio "
            f"{squares['test'] / squares['training']:.2f}); half-way pictures at {distance:.2f} from the nearest real one"
        )
        a, b = z[:PAIRS], z[PAIRS : 2 * PAIRS]
        strip = np.stack([to_host(model.decode((1 - s) * a + s * b)) for s in np.linspace(0, 1, STEPS)], axis=1)
        title = f"{name}: test error {squares['test']:.2f}, nearest real picture at {distance:.2f}"
        show_images(axis, strip.reshape(PAIRS * STEPS, -1), data.shape, STEPS, title)
    print(f"real test pictures lie at {nearest(data.x_test, data.x_train):.2f}")
    save_figure(figure, args.out / "interpolation.png")


if __name__ == "__main__":
    run(main, __doc__)
