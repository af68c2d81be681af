"""What does a model know about p(x)? Some all of it, some a bound or an estimate, some can only draw.

A tree of the families in this library. Its branches are what a family answers if it is asked how probable a picture is:
the number itself, an integral, a bound, a number up to a factor, or nothing. Beside each family stands what it draws
after a short training.

Try `--data fashion` (long). Read scratchgen/metrics/likelihood.py, which measures what can be known.
"""

from typing import NamedTuple

import numpy as np
from common import black_and_white, picture_path, pictures, run
from recipes import FAMILIES, Trainer

from scratchgen.backend import to_host
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure, tile
from scratchgen.train.progress import told


class Branch(NamedTuple):
    answer: str  # what such a family says to "how probable is x?"
    why: str
    colour: str
    families: tuple[str, ...]  # names of recipes.FAMILIES


GREEN, ORANGE = "#2e8b57", "#d0801a"
TREE = (
    Branch("p(x) =", "the number itself", GREEN, ("Gaussian mixture", "MADE", "normalizing flow")),
    Branch("p(x) = ∫", "an integral along the way to noise,\nwhich a solver finds", BLUE, ("DDPM", "flow matching")),
    Branch("p(x) ≥", "a bound: all codes that could\nhave made x are too many", ORANGE, ("VAE", "IWAE, 5 z")),
    Branch("p(x) ∝", "an energy, so p up to a factor,\nwhich is only estimated", RED, ("RBM", "DBN")),
    Branch(
        "p(code)",
        "of codes or features,\nnot of the picture",
        GREY,
        ("VQ-VAE and MADE", "VQ-GAN and MADE", "latent diffusion"),
    ),
    Branch("?", "nothing: it can only draw", INK, ("GAN", "WGAN-GP", "conditional GAN", "GSN")),
)
BLACK_AND_WHITE = ("RBM", "DBN", "MADE")  # their pixels are 0 or 1, and so are the pictures they learn from
SHARE, COLUMNS = 0.4, 14  # of the steps in recipes.py; pictures of each family

# Places on the page, in heights of a row of pictures.
ROOT, NODE, LEAF, GAP, HEIGHT = -20.5, -11.2, -5.3, 0.5, 0.88


def drawn_by(data, args):
    """{name of a family: COLUMNS pictures of its own}."""
    grey, black = (Trainer(source, args, SHARE) for source in (data, black_and_white(data)))
    made = {}
    for name in told([name for branch in TREE for name in branch.families], "model"):
        model = (black if name in BLACK_AND_WHITE else grey).once(FAMILIES[name].recipe)
        made[name] = np.clip(to_host(model.sample(COLUMNS, model.rng((args.seed, 0, 2)))), 0, 1)
    return made


def strip(axis, x, shape, left, middle, height=HEIGHT, columns=COLUMNS):
    """Draw pictures x in a row: its left end, the middle of its height, and its height. Returns its right end."""
    sheet = tile(x, shape, columns, 40)
    right = left + height * sheet.shape[1] / sheet.shape[0]
    axis.imshow(sheet, extent=(left, right, middle - height / 2, middle + height / 2), interpolation="nearest")
    return right


def join(axis, start, end, colour):
    """A line from one place to another, with two right angles."""
    (x, y), (to_x, to_y) = start, end
    bend = (x + to_x) / 2
    axis.plot([x, bend, bend, to_x], [y, y, to_y, to_y], color=colour, linewidth=1.6, zorder=0, solid_capstyle="round")


def main(args):
    data = pictures(args, to_train=50)
    made = drawn_by(data, args)
    n_rows = len(made) + GAP * (len(TREE) - 1)
    figure, axes = new_figure(13, 0.42 * n_rows)
    axis, y, nodes = axes[0, 0], 0.0, []
    for branch in TREE:
        rows = [y - i for i in range(len(branch.families))]
        y, node = rows[-1] - 1 - GAP, (rows[0] + rows[-1]) / 2
        nodes.append((node, branch))
        for name, row in zip(branch.families, rows):
            join(axis, (NODE + 0.3, node), (LEAF, row), branch.colour)
            axis.text(LEAF + 0.2, row, name, va="center", fontsize=10)
            right = strip(axis, made[name], data.shape, 0, row)
    middle = (nodes[0][0] + nodes[-1][0]) / 2
    for node, branch in nodes:
        join(axis, (ROOT + 3.2, middle), (NODE - 4.4, node), GREY)
        axis.text(NODE - 2, node + 0.28, branch.answer, ha="center", va="center", fontsize=13, color=branch.colour)
        axis.text(NODE - 2, node - 0.4, branch.why, ha="center", va="center", fontsize=8)
    strip(axis, data.x_test[1:2], data.shape, ROOT, middle, 3, 1)
    axis.text(ROOT + 1.5, middle + 2.1, "How probable\nis this picture?", ha="center", va="bottom", fontsize=12)
    axis.set(xlim=(ROOT - 0.5, right), ylim=(y + GAP + 0.4, 0.6), aspect="equal")
    axis.axis("off")
    save_figure(figure, picture_path(args, "taxonomy"))


if __name__ == "__main__":
    run(main, __doc__)
