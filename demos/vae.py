"""A variational autoencoder learns to write digits.

Left: digits made from noise. Middle: test pictures, and under them what the VAE restores from codes of eight numbers.
Right: -ELBO while it trains, a bound on -log p of black and white pictures whose pixels are drawn with the grey values
as probabilities.

Try `--data mnist`, `--data fashion`, or a folder of pictures. Read scratchgen/models/vae.py.
"""

from common import in_turn, picture_path, pictures, run, train

from scratchgen.models.vae import VAE
from scratchgen.plots import new_figure, save_figure, show_curves, show_images


def main(args):
    data = pictures(args)
    model = VAE(n_features=data.x_train.shape[1], hidden=(512, 256), n_latent=8, batch=50)
    model, history = train(model, data, args, steps=10_000, falling=False)
    print(", ".join(f"{name} {value:.2f}" for name, value in history[-1].items() if name.startswith("test_")))

    figure, axes = new_figure(11, 3.9, 1, 3, width_ratios=[1, 1, 1.1])
    show_images(axes[0, 0], model.sample(64, model.rng((args.seed, 0, 2))), data.shape, 8, "made from noise")
    x = model.rng(0).array(data.x_test[:32])
    pairs, columns = in_turn(x, model.reconstruct(x), 4, 8)
    title = "rows in turn: test pictures, restored from their codes"
    show_images(axes[0, 1], pairs, data.shape, columns, title)
    curves = {"training": "loss", "test": "test_negative_elbo"}
    epochs = [row["epoch"] for row in history]
    curves = {label: [row[name] for row in history] for label, name in curves.items()}
    show_curves(axes[0, 2], epochs, curves, "-ELBO", "epoch", "nats per picture")
    axes[0, 2].set_ylim(min(map(min, curves.values())) - 1, min(map(min, curves.values())) + 5)
    save_figure(figure, picture_path(args, "vae"))


if __name__ == "__main__":
    run(main, __doc__)
