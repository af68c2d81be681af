"""How probable is a picture? Some models know exactly, some know a bound or an estimate, some only draw.

A tree of the families in this library. Its branches are what a family answers: the number itself, an integral, a bound,
a number up to a factor, or nothing. Beside each family stands what it draws after a short training.

Try `--data fashion` (long). Read scratchgen/metrics/likelihood.py, which measures what can be known.
"""

from typing import NamedTuple

import numpy as np
from common import black_and_white, picture_path, pictures, run
from recipes import BLACK_AND_WHITE, FAMILIES, Trainer, has_classes

from scratchgen.backend import to_host
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure, tile
from scratchgen.train.progress import told


class Branch(NamedTuple):
    answer: str  # what such a family says of p(x)
    why: str
    colour: str
    families: tuple[str, ...]  # names of recipes.FAMILIES


GREEN, ORANGE = "#2e8b57", "#d0801a"
TREE = (
    Branch("=   exactly", "p(x) is a formula", GREEN, ("Gaussian mixture", "MADE", "normalizing flow")),
    Branch("∫   by a solver", "log p(x) is an integral\nalong the way to noise", BLUE, ("DDPM", "flow matching")),
    Branch(
        "≥   a bound",
        "too many codes, or orders\nof pixels, could have made x",
        ORANGE,
        ("VAE", "IWAE, 5 z", "masked diffusion"),
    ),
    Branch(
        "∝   up to a factor",
        "x has an energy, but the sum over\nall x is at best an estimate",
        RED,
        ("EBM", "RBM", "DBN"),
    ),
    Branch(
        "z   of its codes only",
        "p(code), but not\np of the picture",
        GREY,
        ("VQ-VAE and MADE", "VQ-GAN and MADE", "latent diffusion"),
    ),
    Branch("?   not at all", "it draws, and that is all", INK, ("GAN", "WGAN-GP", "conditional GAN", "GSN")),
)
SHARE, COLUMNS = 0.4, 14  # of the steps in recipes.py; pictures of each family

# Places on the page, in heights of a row of pictures.
ROOT, NODE, LEAF, GAP, HEIGHT = -17.6, -12.5, -4.4, 0.5, 0.88


def drawn_by(data, args):
    """{name of a family: COLUMNS pictures of its own}."""
    grey, black = (Trainer(source, args, SHARE) for source in (data, black_and_white(data)))
    made, names, labelled = {}, [name for branch in TREE for name in branch.families], has_classes(data)
    for name in told([name for name in names if name != "conditional GAN" or labelled], "model"):
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
    figure, axes = new_figure(12, 0.42 * n_rows)
    axis, y, nodes = axes[0, 0], 0.0, []
    for branch in TREE:
        families = [name for name in branch.families if name in made]
        rows = [y - i for i in range(len(families))]
        y, node = rows[-1] - 1 - GAP, (rows[0] + rows[-1]) / 2
        nodes.append((node, branch))
        for name, row in zip(families, rows):
            join(axis, (NODE + 5.9, node), (LEAF, row), branch.colour)
            axis.text(LEAF + 0.2, row, name, va="center", fontsize=10)
            right = strip(axis, made[name], data.shape, 0, row)
    middle = (nodes[0][0] + nodes[-1][0]) / 2
    for node, branch in nodes:
        join(axis, (ROOT + 3.2, middle), (NODE - 0.2, node), GREY)
        axis.text(NODE, node + 0.15, branch.answer, va="bottom", fontsize=13, color=branch.colour)
        axis.text(NODE, node - 0.1, branch.why, va="top", fontsize=9)
    strip(axis, data.x_test[1:2], data.shape, ROOT, middle, 3, 1)
    axis.text(ROOT + 1.5, middle + 2.1, "How probable\nis this picture?", ha="center", va="bottom", fontsize=12)
    axis.text(right / 2, 0.75, "what each draws, after a short training", ha="center", fontsize=10)
    axis.set(xlim=(ROOT - 0.5, right), ylim=(y + GAP + 0.4, 1.3), aspect="equal")
    axis.axis("off")
    save_figure(figure, picture_path(args, "taxonomy"))


if __name__ == "__main__":
    run(main, __doc__)
