"""A VAE that is told the digit has only the handwriting left to keep in z.

Each row: one z, decoded as each of the ten digits. Above it is the z of a test digit, below a random one. Printed: how
often a classifier reads the digit asked for, and how well z tells the digit, by its nearest neighbours, beside a plain VAE.

Try `--data mnist` (a minute). Read scratchgen/models/vae.py: told.
"""

import numpy as np
from common import is_small, picture_path, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.vae import VAE
from scratchgen.plots import name_columns, new_figure, save_figure, show_images

ROWS, NEIGHBOURS = 5, 5


def nearest(z, labels, z_test):
    """The commonest label (M,) among the NEIGHBOURS codes of z (N, d), labels (N,), that are nearest to z_test (M, d)."""
    squares = (z * z).sum(axis=1) - 2 * z_test @ z.T  # (M, N), of distances but for a constant of each row
    near = labels[np.argpartition(squares, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]]
    return np.array([np.bincount(row).argmax() for row in near])


def main(args):
    data = pictures(args, least=ROWS, of_each=NEIGHBOURS)
    judge, classes = FrechetJudge(data), np.unique(data.labels_train)
    few = slice(5_000)  # the neighbours are looked for among these
    for name, conditional in (("plain", False), ("told the digit", True)):
        sizes = {"n_features": data.x_train.shape[1], "n_classes": data.n_classes, "hidden": (512, 256), "n_latent": 8}
        model = VAE(**sizes, conditional=conditional, likelihood="gaussian", variance=0.02, batch=50)
        steps = 6_000 if is_small(data) else 12_000
        model, _ = train(model, data, args, steps, x_test=None, falling=True)
        rng = model.rng((args.seed, 0, 2))
        parts = (
            {"x": data.x_train[few], "labels": data.labels_train[few]},
            {"x": data.x_test, "labels": data.labels_test},
        )
        told = [{key: rng.array(array) for key, array in part.items()} for part in parts]
        z, z_test = (to_host(model.encode(**part)[0]) for part in told)
        read = np.mean(nearest(z, data.labels_train[few], z_test) == data.labels_test)
        found = {key: float(value) for key, value in model.evaluate(**told[1], rng=rng).items()}
        codes = f"mean squared error {found['mse']:.4f}, KL {found['kl']:.1f} nats"
        print(f"{name}: {codes}; z tells the digit of {read:.1%} of the test pictures")
    asked = np.repeat(classes, 200)
    x = to_host(model.decode(rng.normal((len(asked), model.n_latent)), rng.array(asked)))
    right = judge.read(x) == asked
    print(f"read as the digit asked for: {right.mean():.1%} of {len(x)}; real test pictures: {judge.accuracy:.1%}")

    real, labels = data.x_test[:ROWS], data.labels_test[:ROWS]
    z = model.encode(rng.array(real), rng.array(labels))[0]
    drawn = rng.normal((ROWS, model.n_latent))
    every = [[to_host(model.decode(codes, rng.integers(1, ROWS) + int(k))) for k in classes] for codes in (z, drawn)]
    written, made = (np.stack(one, axis=1) for one in every)  # (rows, classes, pixels)
    blank = np.zeros_like(real)
    halves = [np.concatenate([first[:, None], rest], axis=1) for first, rest in ((real, written), (blank, made))]
    sheet = np.concatenate(halves)
    figure, axes = new_figure(6.6, 6.2)
    title = "one z, decoded as each digit: above z of a test digit, below random z"
    show_images(axes[0, 0], sheet.reshape(-1, real.shape[1]), data.shape, sheet.shape[1], title)
    name_columns(axes[0, 0], ["test\ndigit", *(f"as {k}" for k in classes)])
    save_figure(figure, picture_path(args, "vae_conditional"))


if __name__ == "__main__":
    run(main, __doc__)
