"""Three models fill a hole in a picture, though they were trained on whole pictures only.

The GAN searches for a code whose picture agrees with the known pixels. The VAE encodes and decodes in turn. Diffusion
puts the known pixels back at every step. Above: one filling by each. Below: six fillings of one hole, and their PSNR,
which rewards blur: the mean of eight beats a single filling.

Try `--hole`, `--data mnist` (minutes). Read scratchgen/uses/completion.py.
"""

import numpy as np
from common import is_small, judge_of, picture_path, pictures, run, spread, train
from recipes import gan_sizes

from scratchgen.backend import to_host
from scratchgen.metrics.image import psnr, sharpness
from scratchgen.models.ddpm import DDPM
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.plots import BLUE, GREY, new_figure, save_figure, show_images
from scratchgen.train.progress import told
from scratchgen.uses import completion

HOLES = {  # of a picture (h, w)
    "lower": lambda h, w: np.s_[h // 2 :],
    "right": lambda h, w: np.s_[:, w // 2 :],
    "centre": lambda h, w: np.s_[h // 4 : h - h // 4, w // 4 : w - w // 4],
}
PAPER, HIDDEN = (0.85, 0.92, 1.0), (0.5, 0.68, 0.9)  # the colour of paper where the hole was, and of the hole itself
WAYS = {"GAN": {"n_starts": 1}, "GAN, best of 4": {"n_starts": 4}, "VAE": {}, "diffusion": {}}


def options(parser):
    parser.add_argument(
        "--hole", choices=HOLES, default="lower", help="what is hidden (default: lower, the lower half)"
    )


def trained(data, args):
    """{name: model}, of the sizes in demos/gan.py, vae.py and diffusion.py."""
    small, n_features = is_small(data), data.x_train.shape[1]
    sizes = {"width": 256} if small else {"width": 768, "self_conditioning": True}
    plans = {
        "GAN": (GAN(**gan_sizes(data), r1=0.3 if small else 1.0), 5_000 if small else 7_500, True),
        "VAE": (VAE(n_features=n_features, hidden=(512, 256), n_latent=8, batch=50), 6_000 if small else 10_000, False),
        "diffusion": (DDPM(n_features=n_features, lr=2e-3, batch=128, **sizes), 4_000 if small else 9_400, True),
    }
    models = {}
    for name, (model, steps, falling) in plans.items():
        models[name], history = train(model, data, args, steps, falling, x_test=None)
        print(f"{name} trained in {sum(row['seconds'] for row in history):.0f} s", flush=True)
    return models


def most_alike(x, hole, others):
    """For each x (N, D) the one of others (M, D) that is nearest to it outside the hole (D,)."""
    a, b = x[:, ~hole], others[:, ~hole]
    squares = (b**2).sum(axis=1) - 2 * a @ b.T  # but for ‖a‖²
    return others[squares.argmin(axis=1)]


def coloured(x, hole, paper):
    """Grey pictures x (N, D) as ink on paper (N, 3 D), which in the hole (D,) has this colour."""
    sheet = np.where(hole[:, None], paper, (1.0, 1.0, 1.0))  # (D, 3)
    return ((1 - np.clip(x, 0, 1))[:, :, None] * sheet).reshape(len(x), -1)


def measured(name, filled, x, labels, hole, shape, judge):
    """PSNR of one of filled (m, n, D) and of their mean, in the hole of x (n, D), and how far apart they are (n,)."""
    m, together = len(filled), np.concatenate(filled)
    single = float(np.mean([psnr(one[:, hole], x[:, hole]) for one in filled]))
    mean = psnr(filled.mean(axis=0)[:, hole], x[:, hole])
    differ = np.array([spread(several) for several in filled.swapaxes(0, 1)]) if m > 1 else None
    sharp = sharpness(together, shape) / max(sharpness(x, shape), 1e-9)
    several = f", of the mean of {m} {mean:.2f}; two fillings of a hole {differ.mean():.2f} apart" if m > 1 else ""
    print(
        f"{name}: PSNR in the hole {single:.2f} dB{several}; {sharp:.2f} as sharp as real ones"
        + (f"; read as the digit it was {(judge.read(together) == np.tile(labels, m)).mean():.1%}" if judge else "")
    )
    return single, mean, differ


def main(args):
    data = pictures(args, side=4, grey=True)
    judge = judge_of(data, "reading of the filled pictures")
    models = trained(data, args)
    shape, hole = data.shape, np.zeros(data.shape, bool)
    hole[HOLES[args.hole](*shape)] = True
    hole = hole.ravel()  # (D,)
    n, m, few = (20, 6, {"n_steps": 10}) if args.quick else (100, 8, {})
    chosen = np.random.default_rng(args.seed).permutation(len(data.x_test))[:n]  # MNIST's are in order of difficulty
    n = len(chosen)
    x, labels = data.x_test[chosen], None if data.labels_test is None else data.labels_test[chosen]

    baselines = {"mean picture": data.x_train.mean(axis=0), "nearest picture": most_alike(x, hole, data.x_train)}
    fillings = {name: np.where(hole, picture, x)[None] for name, picture in baselines.items()}  # (1, n, D)
    for name, given in told(WAYS.items(), "way to fill"):
        model = models[name.split(",")[0]]
        rng = model.rng((args.seed, 0, 2))
        filled = completion.complete(model, rng.array(np.tile(x, (m, 1))), rng.array(~hole), rng, **given | few)
        fillings[name] = to_host(filled).reshape(m, n, -1)

    found = {name: measured(name, filled, x, labels, hole, shape, judge) for name, filled in fillings.items()}

    figure, axes = new_figure(10.5, 8, 2, 1, height_ratios=[1.7, 1])
    first = np.arange(min(10, n)) if labels is None else np.unique(labels, return_index=True)[1]
    rows = {"original": coloured(x[first], hole, (1.0, 1.0, 1.0)), "hole": coloured(x[first] * ~hole, hole, HIDDEN)}
    rows |= {name: coloured(fillings[name][0, first], hole, PAPER) for name in ("GAN, best of 4", "VAE", "diffusion")}
    show_images(axes[0, 0], np.concatenate([*rows.values()]), (*shape, 3), len(first), "", [*rows], pixels=48)
    axes[1, 0].axis("off")
    left, right = (figure.add_subplot(p) for p in axes[1, 0].get_subplotspec().subgridspec(1, 2, width_ratios=[2.3, 1]))
    names = ("GAN", "VAE", "diffusion")
    i = int(sum(found[name][2] / found[name][2].mean() for name in names).argmax())  # whose fillings differ most
    given = coloured(x[i : i + 1] * ~hole, hole, HIDDEN)
    rows = []
    for name in names:
        shown = fillings[name][:, i]
        rows += [given, coloured(np.concatenate([shown[:6], shown.mean(axis=0)[None]]), hole, PAPER)]
    title = f"one hole, six fillings each; last, the mean of {m}"
    show_images(left, np.concatenate(rows), (*shape, 3), 8, title, names, pixels=48)
    y = np.arange(len(found))
    right.plot([single for single, _, _ in found.values()], y, "o", color=BLUE, label="one filling")
    right.plot([found[name][1] for name in WAYS], y[2:], "D", color=GREY, markersize=5, label=f"the mean of {m}")
    right.set(yticks=y, yticklabels=list(found), ylim=(-0.6, len(found) - 0.4))
    right.grid(axis="x", color="0.92")
    right.invert_yaxis()
    right.set_xlabel("PSNR in the hole, dB")
    right.set_title(f"how near to the original, {n} pictures", fontsize=10)
    right.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=2)
    save_figure(figure, picture_path(args, "use_completion"))


if __name__ == "__main__":
    run(main, __doc__, options=options)
