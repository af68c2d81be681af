"""A VAE's random codes decode to digits; an autoencoder's do not, because its codes leave holes.

The networks are the same, but the VAE adds noise to the codes, and its KL pulls them to N(0, I). Above: two-number
codes of test pictures. An ellipse is one standard deviation of a code; the circle holds 86 % of N(0, I). Below:
pictures decoded from random codes of 16 numbers.

Try `--data mnist`. Read scratchgen/models/vae.py beside scratchgen/models/autoencoder.py.
"""

from common import nearest, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.vae import VAE
from scratchgen.plots import INK, new_figure, save_figure, show_clouds, show_images, show_points


def main(args):
    from matplotlib.patches import Circle

    data = pictures(args)
    settings = {"n_features": data.x_train.shape[1], "hidden": (256, 128), "batch": 50, "likelihood": "bernoulli"}
    figure, axes = new_figure(9.6, 8.6, 2, 2)
    x, labels = data.x_test[:1500], None if data.labels_test is None else data.labels_test[:1500]
    for column, (name, kind) in enumerate({"autoencoder": AutoEncoder, "VAE": VAE}.items()):
        plane, _ = train(kind(n_latent=2, **settings), data, args, steps=10_000, falling=False)
        codes = plane.encode(plane.rng(0).array(x))
        if kind is VAE:
            show_clouds(axes[0, column], *codes, labels)
            codes = codes[0]
        show_points(axes[0, column], codes, labels, f"{name}: two-number codes of test pictures", 8)
        axes[0, column].add_patch(Circle((0, 0), 2, fill=False, color=INK))
        model, _ = train(kind(n_latent=16, **settings), data, args, steps=10_000, falling=False)
        made = to_host(model.sample(500, model.rng((args.seed, 0, 2))))
        distance = nearest(made, data.x_train).mean()
        print(f"{name}: random codes decode to pictures at distance {distance:.2f} from the nearest training picture")
        title = f"{name}: random codes of 16 numbers ({distance:.2f} from a real picture)"
        show_images(axes[1, column], made[:100], data.shape, 10, title)
    print(f"test pictures lie at distance {nearest(data.x_test, data.x_train).mean():.2f}")
    save_figure(figure, args.out / "autoencoder_latent_space.png")


if __name__ == "__main__":
    run(main, __doc__)
