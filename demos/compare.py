"""Every family of generative models is trained on the same digits and compared by samples, cost and quality.

A panel shows samples of each. The table, also written as Markdown, lists stored numbers, seconds of training, Fréchet
distance, the share of the digit that is made most rarely, and -log p of test digits if the model has a p. For that the
test digits are made black and white once, by chance.

Try `--data mnist` (long). Read scratchgen/models/.
"""

import math

import numpy as np
from common import BINARIZED, DRAWS, picture_path, pictures, run
from recipes import FAMILIES, Trainer

from scratchgen.backend import to_host, written_whole
from scratchgen.data import binarized
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.metrics.likelihood import log_likelihood
from scratchgen.models.base import Model
from scratchgen.models.flow import Flow
from scratchgen.models.gmm import GMM
from scratchgen.plots import new_figure, save_figure, show_images
from scratchgen.train.progress import told

HEAD = "| model | stored numbers | training, s | Fréchet distance | rarest digit | -log p, nats | file |"
COLUMNS = 6


def main(args):
    data = pictures(args)
    judge, trainer, n = FrechetJudge(data, args.device), Trainer(data, args), min(2_000, len(data.x_test))
    x_test = binarized(data).x_test
    floor, rarest = judge.floor(n), judge.rarest(data.x_test)
    print(f"{'real digits':<18}{'':>31}  Fréchet {floor!s:>12}  rarest {rarest:5.1%}")
    lines, drawn = [f"| real digits | | | {floor} | {rarest:.1%} | | |"], {f"real digits\n{floor}": data.x_test}
    for name, family in told(FAMILIES.items(), "model"):
        model = trainer.once(family.recipe)
        x = np.clip(to_host(model.sample(DRAWS * n, model.rng((args.seed, 0, 2)))), 0, 1)
        distance = judge.measure(x, n)
        rarest = judge.rarest(x)
        size = sum(params.theta.size for params in model.parameters().values())
        seconds, nats, method = trainer.seconds[model], "", ""
        if isinstance(model, Model) and (p := likelihood(model, x_test, args)):
            nats, method = f"{p.nll:.1f} ± {p.standard_error:.1f}", p.method
        cost = f"{name:<18}{size:>11,} numbers {seconds:8.1f} s"
        print(f"{cost}  Fréchet {distance!s:>12}  rarest {rarest:5.1%}  {nats} {method}")
        cells = [name, f"{size:,}", f"{seconds:.0f}", str(distance), f"{rarest:.1%}"]
        cells += [f"{nats} ({method})" if nats else "", f"`models/{family.file}.py`"]
        lines.append(f"| {' | '.join(cells)} |")
        drawn[f"{name}\n{distance}"] = x
    path = picture_path(args, "compare")
    with written_whole(path.with_suffix(".md")) as sheet:
        sheet.write("\n".join([HEAD, "|---" * 7 + "|", *lines, ""]).encode())
    print(path.with_suffix(".md"))

    n_rows = math.ceil(len(drawn) / COLUMNS)
    figure, axes = new_figure(2.05 * COLUMNS, 2.4 * n_rows, n_rows, COLUMNS)
    for axis in axes.ravel()[len(drawn) :]:
        axis.axis("off")
    for axis, (title, x) in zip(axes.ravel(), drawn.items()):
        show_images(axis, x[:25], data.shape, 5, title, pixels=40)
    save_figure(figure, path)


def likelihood(model, x_test, args):
    """The Likelihood of the binarized test digits, or None for a mixture and a flow: their densities are of grey pixels."""
    if isinstance(model, GMM | Flow):
        return None
    x = model.rng(0).array(x_test)
    return log_likelihood(model, x, model.rng((args.seed, 0, 3)), 500, BINARIZED)


if __name__ == "__main__":
    run(main, __doc__)
