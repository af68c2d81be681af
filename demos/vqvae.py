"""A VQ-VAE restores a digit from a few whole numbers, but needs help to use its whole codebook.

Above: test digits, restored from 4 codes of 8 bits; then one code changed at a time. Below: how many codes are in
effect used (perplexity), and how often each. A codebook that starts from pictures uses nearly all. One that starts near
0 uses few, unless unused codes are moved to where pictures are.

Try `--data mnist` (minutes). Read scratchgen/models/vqvae.py, scratchgen/models/parts/codebook.py.
"""

import numpy as np
from common import in_turn, is_small, picture_path, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.vqvae import VQVAE
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure, show_images

COLOURS = (BLUE, RED, INK)


class NearZero(VQVAE):
    """A VQ-VAE whose codebook starts near 0, wherever the data are."""

    def prepare(self, x, rng):
        self.book.put((2 * rng.uniform(self.book.W.shape) - 1) * (1 / self.n_embeddings))


def with_another_code(model, codes, rows, columns):
    """Pictures of the first of codes (N, n_codes), each but the first of a row with one code changed to a common one."""
    places = np.linspace(0, model.n_codes - 1, rows).astype(int)
    changed = np.tile(codes[0], (rows, columns, 1))
    for row, place in zip(changed, places):
        common = np.bincount(codes[:, place]).argsort()[::-1]
        row[1:, place] = np.resize(common[common != codes[0, place]], columns - 1)  # again from the first if too few
    codes = model.rng(0).array(changed.reshape(rows * columns, -1))
    return model.decode_codes(codes), [f"code {place + 1}" for place in places]


def main(args):
    data = pictures(args)
    small = is_small(data)
    settings = {"n_features": data.x_train.shape[1], "init": "he"}
    settings |= {"hidden": (128, 64), "n_codes": 4, "batch": 50} if small else {}
    steps, by_gradient = 6_000 if small else 3_500, settings | {"codebook": "gradient"}
    trained = {  # a model and its history
        "started from pictures, moving average": train(VQVAE(**settings), data, args, steps),
        "started near 0, by gradient": train(NearZero(**by_gradient, restart_every=0), data, args, steps / 2),
        "the same, dead codes restarted": train(NearZero(**by_gradient), data, args, steps / 2),
    }
    for name, (model, history) in trained.items():
        last, seconds = history[-1], sum(row["seconds"] for row in history)
        print(
            f"codebook {name}: {model.bits:.0f} bits a picture, test mse {last['test_mse']:.4f} per pixel, perplexity "
            f"{last['test_perplexity']:.0f} of {model.n_embeddings}, {last['test_used']:.0%} used; {seconds:.0f} s"
        )

    figure, axes = new_figure(11, 7.2, 2, 2, height_ratios=[1.2, 1])
    model, _ = trained["started from pictures, moving average"]
    x = model.rng(0).array(data.x_test)
    pairs, columns = in_turn(x[:30], model.reconstruct(x[:30]), 3, 10)
    title = f"rows in turn: test digits, restored from {model.bits:.0f} bits"
    show_images(axes[0, 0], pairs, data.shape, columns, title)
    changed, words = with_another_code(model, to_host(model.codes(x)), 4, 8)
    show_images(axes[0, 1], changed, data.shape, 8, "left: a restored digit; beside it, one code changed", rows=words)
    curves, bars = axes[1]
    for (name, (model, history)), colour in zip(trained.items(), COLOURS):
        per_epoch = int(model.adam.t[0]) / len(history)
        at = [row["epoch"] * per_epoch for row in history]
        curves.plot(at, [row["test_perplexity"] for row in history], color=colour, label=name)
        counts = np.bincount(to_host(model.codes(x)).ravel(), minlength=model.n_embeddings)
        bars.plot(np.sort(counts)[::-1] / counts.sum() * model.n_embeddings, color=colour, drawstyle="steps-mid")
    curves.axhline(model.n_embeddings, color=GREY, linestyle="--")
    curves.set(xlabel="steps", ylabel="perplexity", ylim=(0, 1.08 * model.n_embeddings))
    curves.set_title(f"how many codes are in effect used (dashed: all {model.n_embeddings}, evenly)", fontsize=10)
    curves.legend(fontsize=8, frameon=False, loc="center right")
    bars.axhline(1, color=GREY, linestyle="--")
    bars.set(yscale="log", xlabel="place of the code, the commonest first", ylabel="frequency / even share")
    bars.set_title("how often each code is used", fontsize=10)
    save_figure(figure, picture_path(args, "vqvae"))


if __name__ == "__main__":
    run(main, __doc__)
