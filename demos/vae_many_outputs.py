"""A VAE turns one digit into many similar ones, because its code is a cloud.

For each test digit z is drawn from q(z|x) eight times and decoded. The last column shows where the eight drawings
differ. An autoencoder has one output for each input.

Try `--data mnist`. Read scratchgen/models/vae.py: reconstruct.
"""

import numpy as np
from common import pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.vae import VAE
from scratchgen.plots import name_columns, new_figure, save_figure, show_images

DIGITS, DRAWS = 6, 8


def main(args):
    data = pictures(args)
    model = VAE(n_features=data.x_train.shape[1], hidden=(512, 256), n_latent=8, batch=50)
    model, _ = train(model, data, args, steps=10_000, falling=False)
    rng = model.rng((args.seed, 0, 2))
    x = rng.array(data.x_test[:DIGITS])
    draws = np.stack([to_host(model.reconstruct(x, rng)) for _ in range(DRAWS)], axis=1)  # (digits, draws, pixels)
    spread = draws.std(axis=1)
    print(f"standard deviation of a pixel over draws of z: mean {spread.mean():.3f}, largest {spread.max():.3f}")
    columns = [to_host(x)[:, None], to_host(model.reconstruct(x))[:, None], draws, (spread / spread.max())[:, None]]
    sheet = np.concatenate(columns, axis=1)

    figure, axes = new_figure(7.4, 4.4)
    title = "test digits, and what the VAE makes of the cloud of codes of each"
    show_images(axes[0, 0], sheet.reshape(-1, x.shape[1]), data.shape, sheet.shape[1], title)
    name_columns(axes[0, 0], ["test digit", "mean code,\ndecoded", *(f"draw {i + 1}" for i in range(DRAWS)), "spread"])
    save_figure(figure, args.out / "vae_many_outputs.png")


if __name__ == "__main__":
    run(main, __doc__)
