"""Pixel error does not measure realism: of six changes with the same error, three spoil the digit.

Paler ink, a thicker stroke and a small shift leave a good digit; blur, noise and a stray mark do not. A GAN's D ranks
blur and noise below the harmless changes, but takes a stray mark for real. It sees more than pixel error and is no
judge of realism either.

Try `--data mnist`. Read scratchgen/models/gan.py: judge.
"""

import numpy as np
from common import nearest, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.gan import GAN
from scratchgen.plots import BLUE, GREY, INK, RED, name_columns, new_figure, save_figure, show_images

ERROR = 1.0  # one pixel turned from white to black
STEPS = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]


def moved(images, steps):
    """Images (N, h, w) moved by each of the steps, with paper coming in: (len(steps), N, h, w)."""
    h, w = images.shape[1:]
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return np.stack([wide[:, 1 - a : 1 - a + h, 1 - b : 1 - b + w] for a, b in steps])


def marked(images, rng):
    """A black pixel where it is furthest from any ink."""
    result, places = images.copy(), np.stack(np.indices(images.shape[1:]), axis=-1)
    for image, out in zip(images, result):
        ink = np.argwhere(image > min(0.05, image.max() - 1e-9))
        distance = ((places[:, :, None] - ink) ** 2).sum(axis=-1).min(axis=-1)
        out[np.unravel_index(distance.argmax(), distance.shape)] = 1
    return result


CHANGES = {  # name: where the change leads if it goes all the way
    "paler": lambda x, rng: 0 * x,
    "thicker": lambda x, rng: moved(x, [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]).max(axis=0),
    "moved": lambda x, rng: moved(x, [(0, 1)])[0],
    "blurred": lambda x, rng: moved(x, STEPS).mean(axis=0),
    "noise": lambda x, rng: rng.uniform(x.shape).astype(np.float64),
    "stray mark": marked,
}
HARMLESS, WORSE = list(CHANGES)[:3], list(CHANGES)[3:]


def changed(x, shape, change, rng):
    """x (N, D) on the way to what the change makes of it, so far that the squared error is ERROR: still in [0, 1]."""
    d = change(x.reshape(-1, *shape), rng).reshape(x.shape) - x
    squares = (d**2).sum(axis=1, keepdims=True)
    return x + d * np.sqrt(ERROR / np.maximum(squares, ERROR))


def main(args):
    data = pictures(args, grey=True)
    settings = {"n_features": data.x_train.shape[1], "hidden_G": (128, 256), "hidden_D": (256, 128), "r1": 0.3}
    model, _ = train(GAN(**settings), data, args, steps=5_000, x_test=None)
    rng, x = model.rng((args.seed, 3)), data.x_test[:1000].astype(np.float64)
    made = {"the digit": x} | {name: changed(x, data.shape, change, rng) for name, change in CHANGES.items()}
    logits = {name: to_host(model.judge(model.rng(0).array(part)))[:, 0] for name, part in made.items()}
    for name, part in made.items():
        error, far = ((part - x) ** 2).sum(axis=1), nearest(part, data.x_train).mean()
        below = (logits[name] < logits["the digit"]).mean()
        print(
            f"{name:<10}  squared error {error.min():.10f} to {error.max():.10f}; D's logit {logits[name].mean():+.3f}, "
            f"below the digit's in {below:.0%}; {far:.2f} from the nearest real picture"
        )
    generated = to_host(model.judge(model.sample(1000, rng))).mean()
    print(f"G's own pictures: D's logit {generated:+.3f}")
    shares = np.array([[(logits[a] > logits[b]).mean() for b in WORSE] for a in HARMLESS])

    figure, axes = new_figure(12.5, 4.3, 1, 3, width_ratios=[1.5, 1.1, 1])
    left, middle, right = axes[0]
    sheet = np.stack([part[:5] for part in made.values()], axis=1).reshape(-1, x.shape[1])
    show_images(left, sheet, data.shape, len(made), "squared error 1 for all but the first")
    name_columns(left, [n.replace(" ", "\n") for n in made])
    means = [(logits[name] - logits["the digit"]).mean() for name in CHANGES]
    middle.barh(list(CHANGES), means, color=[BLUE] * 3 + [RED] * 3)
    middle.axvline(0, color=INK, linewidth=0.8)
    middle.axvline(generated - logits["the digit"].mean(), color=GREY, linestyle="--", label="G's own pictures")
    middle.invert_yaxis()
    middle.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    middle.set_title(f"D's logit minus the digit's,\nmean of {len(x)} test digits", fontsize=10)
    right.imshow(shares, vmin=0, vmax=1, cmap="RdBu")
    for i, name in enumerate(HARMLESS):
        print(f"{name} ranked above: " + ", ".join(f"{w} in {s:.0%}" for w, s in zip(WORSE, shares[i])))
        for j, share in enumerate(shares[i]):
            right.text(j, i, f"{share:.0%}", ha="center", va="center", color="white" if abs(share - 0.5) > 0.3 else INK)
    middle.set_xlabel("logits")
    right.set_xticks(range(3), WORSE)
    right.set_yticks(range(3), HARMLESS)
    right.set_title("share of digits where D ranks\nthe row above the column, as we do", fontsize=10)
    save_figure(figure, args.out / "metric_pixel_loss.png")


if __name__ == "__main__":
    run(main, __doc__)
