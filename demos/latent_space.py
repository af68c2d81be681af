"""Why an autoencoder is no generator and a VAE is: where the codes lie, and what random codes decode to.

Left and right are the same network trained twice, without and with noise on the codes and a KL that pulls them to N(0, I).
The autoencoder leaves holes and lies where it likes; the VAE fills the plane around 0. Below, random codes from 16
dimensions, drawn with the codes' own mean and variance for the autoencoder: its pictures are further from any real one.
Read scratchgen/models/vae.py beside autoencoder.py. (Row A3)
"""

from common import nearest, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.vae import VAE
from scratchgen.plots import new_figure, save_figure, show_images, show_points


def main(args):
    data = pictures(args)
    settings = {"n_features": data.x_train.shape[1], "hidden": (256, 128), "batch": 50, "likelihood": "bernoulli"}
    figure, axes = new_figure(9.6, 8.6, 2, 2)
    x, labels = data.x_test[:1500], None if data.labels_test is None else data.labels_test[:1500]
    for column, (name, kind) in enumerate({"autoencoder": AutoEncoder, "VAE": VAE}.items()):
        plane, _ = train(kind(n_latent=2, **settings), data, args, steps=10_000)
        codes = plane.encode(plane.rng(0).array(x))
        codes = codes if kind is AutoEncoder else codes[0]  # a VAE gives mu and log_var
        show_points(axes[0, column], codes, labels, f"{name}: codes of test pictures", 8)
        model, _ = train(kind(n_latent=16, **settings), data, args, steps=10_000)
        made = to_host(model.sample(500, model.rng((args.seed, 0, 2))))
        distance = nearest(made, data.x_train)
        print(f"{name}: random codes decode to pictures at distance {distance:.2f} from the nearest training picture")
        show_images(
            axes[1, column], made[:100], data.shape, 10, f"{name}: random codes (nearest picture at {distance:.2f})"
        )
    print(f"real test pictures: {nearest(data.x_test, data.x_train):.2f}")
    save_figure(figure, args.out / "latent_space.png")


if __name__ == "__main__":
    run(main, __doc__)
