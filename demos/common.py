"""What all demos share: their options, training with a budget of steps, and errors that end in one line."""

import argparse
import contextlib
import math
import pathlib
import sys
import time
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace

import numpy as np

from scratchgen.__main__ import Parser
from scratchgen.backend import Rng, UsageError, find_device, to_host
from scratchgen.commands.console import run_to_the_end
from scratchgen.data import binarized, load
from scratchgen.kernels.native import compiled_kernels
from scratchgen.metrics.frechet import Distance, FrechetJudge
from scratchgen.plots import GREY
from scratchgen.train.fit import fit
from scratchgen.train.progress import CLOCK, new_bar, told
from scratchgen.train.threads import blas_threads

ALIKE = ", which cannot be told apart"
DRAWS = 5  # a Fréchet distance is the mean of so many sets of samples
BINARIZED = "binarized by chance, once, seed 28"  # data.binarized, in the words of a Likelihood


def run(main, doc, data="digits", options=None, ignores=(), last=None):
    """Parse the common options and call main(args); doc is the help. Exits with 2 on a mistake of the user.

    options(parser) adds a demo's own options. With --json among them, main alone writes to standard output.
    ignores: the common options that the demo does not use. A line on standard error says so if one of them is given.
    last: a line to print at the end.
    """
    epilog = f"This demo ignores {', '.join(f'--{name}' for name in ignores)}." if ignores else None
    parser = Parser(description=doc, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=data, help=f"default: {data}; what `scratchgen list` names, or a file")
    parser.add_argument(
        "--epochs", type=int, help="passes over the data for every model; default: a fixed number of steps"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--out", default=pathlib.Path(__file__).parent / "out", type=pathlib.Path, help="folder of pictures"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu", "auto"], help="default: cpu")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the training: to see that it runs")
    parser.add_argument("--compile", action="store_true", help="run kernels compiled for this CPU, which is faster")
    if options:
        options(parser)
    usual = {name: parser.get_default(name) for name in ignores}
    parser.set_defaults(**dict.fromkeys(ignores))  # None: not given

    def work():
        started, args = time.perf_counter(), parser.parse_args()
        if given := [f"--{name}" for name in ignores if getattr(args, name) is not None]:
            print(f"{parser.prog} ignores {', '.join(given)}", file=sys.stderr)
        vars(args).update(usual)
        if args.seed < 0 or (args.epochs is not None and args.epochs < 1):
            raise UsageError("--seed must be >= 0 and --epochs >= 1")
        xp = find_device(args.device)
        args.out.mkdir(parents=True, exist_ok=True)  # now rather than after the training
        with compiled_kernels(xp) if args.compile else contextlib.nullcontext():
            code = main(args)
        if not getattr(args, "json", False):
            print(f"{time.perf_counter() - started:.0f} s")
        if last and not code:
            print(last)
        return code

    if code := run_to_the_end(parser.prog, work):
        sys.exit(code)


def pictures(args, least=1, to_train=1, of_each=1, side=1, grey=False, square=False):
    """The Data of --data. If they are not what the demo needs, a line says so before any training.

    least, to_train: the least numbers of test and of training pictures. of_each: the least number of training pictures of
    each class, if there are classes. side: the least height and width. grey, square: whether pictures must be so.
    """
    data = load(args.data, args.seed)
    needs = f"--data {args.data}: this demo needs"
    fits = (
        data.shape is not None and not (grey and len(data.shape) == 3) and not (square and len({*data.shape[:2]}) == 2)
    )
    if not fits:
        kind = "square " * square + "grey " * grey
        raise UsageError(f"{needs} {kind}pictures, such as digits or mnist")
    if min(data.shape[:2]) < side:
        h, w = data.shape[:2]
        raise UsageError(
            f"{needs} pictures at least {side} pixels high and wide, and these are {w}x{h}: use larger ones"
        )
    for n, x, use in ((to_train, data.x_train, "training"), (least, data.x_test, "test")):
        if len(x) < n:
            raise UsageError(f"{needs} {n} {use} pictures, and there {is_or_are(len(x))}: use more")
    if data.labels_train is not None:
        classes, counts = np.unique(data.labels_train, return_counts=True)
        if counts.min() < of_each:
            where = f"of class {classes[counts.argmin()]} there {is_or_are(counts.min())}"
            raise UsageError(f"{needs} {of_each} training pictures of each class, and {where}: use more")
    return data


def is_or_are(n):
    return f"is {n}" if n == 1 else f"are {n}"


def judge_of(data, left_out, device="cpu"):
    """A FrechetJudge of the Data, or None if its distances would mean nothing; then a line says what is left out and why."""
    try:
        return FrechetJudge(data, device)
    except UsageError as error:
        print(f"left out: {left_out}: {str(error).removeprefix('no Fréchet distance: ')}")


def beside(distance, floor):
    """The Distances of samples and of real pictures, in words."""
    return f"{distance}, of real ones {floor}" + ("" if distance.differs(floor) else ALIKE)


def measured(history):
    """The rows of a history with a Fréchet distance: their epochs, and their Distances."""
    rows = [row for row in history if "frechet" in row]
    return [row["epoch"] for row in rows], [Distance(row["frechet"], row["frechet_error"]) for row in rows]


def draw_distances(axis, x, distances, colour, label, marker=None):
    """A curve of Distances, with a band from one error below to one error above."""
    mean, error = np.transpose(distances)
    axis.plot(x, mean, color=colour, marker=marker, markersize=3, label=label)
    low = np.maximum(mean - error, 0.1 * mean)  # axes may be logarithmic
    axis.fill_between(x, low, mean + error, color=colour, alpha=0.2, linewidth=0)


def draw_floor(axis, floor):
    """The Distance of real pictures, as a dashed line in a band."""
    axis.axhspan(floor.mean - floor.error, floor.mean + floor.error, color=GREY, alpha=0.2, linewidth=0)
    axis.axhline(floor.mean, color=GREY, linestyle="--", label=f"real pictures: {floor}")


def picture_path(args, name):
    """The path of a picture: NAME.png for the bundled digits, NAME_mnist.png and so on for other data."""
    return args.out / (f"{name}.png" if args.data == "digits" else f"{name}_{pathlib.Path(args.data).stem}.png")


def train(model, data, args, steps, falling=True, **options):
    """Build the model and train it for about `steps` steps, or for --epochs. Returns (model, history).

    falling: decay_steps, over which a model's rates fall to 0, become the number of steps that this makes. options: see fit.
    """
    if model.batch:
        batches = model.examples_per_step // model.batch
        model.batch = max(1, min(model.batch, len(data.x_train) // batches))
    steps_per_epoch = len(data.x_train) // (model.examples_per_step or len(data.x_train))
    epochs = args.epochs or math.ceil((steps / 20 if args.quick else steps) / steps_per_epoch)
    if falling and hasattr(model, "decay_steps"):
        model.decay_steps = epochs * steps_per_epoch
    model.build(Rng(args.seed, device=args.device))
    options = {"x_test": data.x_test, "labels": data.labels_train, "seed": args.seed} | options
    return model, fit(model, data.x_train, epochs=epochs, **options)


def train_D(model, draw, steps, seed):
    """Train the D of a built GAN or WGAN alone, on batches draw(n, rng) of real examples, against a frozen G.

    model.generator may be any function (z, rng) -> examples. Returns D's losses, and the rng as the training leaves it.
    """
    rng, losses = model.rng((seed, 1)), []
    with blas_threads(1):
        for _ in told(range(steps), "step of D"):
            losses.append(model.discriminator_loss(draw(model.batch, rng), rng)["discriminator_loss"])
            model.optimizer_D.step()
    return losses, rng


def accuracy(model, real, made):
    """The mean of two fractions: real examples with a positive logit of D, and generated ones with a negative logit."""
    return float((model.judge(real) > 0).mean() + (model.judge(made) < 0).mean()) / 2


def results(futures, what):
    """The results of futures, in their order. While they run, a bar or a line every ten seconds says how many are done."""
    bar, waiting = new_bar(len(futures), what, True), set(futures)
    CLOCK.start()
    while waiting:
        done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
        if bar:
            bar.update(len(done))
        else:
            CLOCK.say(f"{what} {len(futures) - len(waiting)} of {len(futures)} done")
    if bar:
        bar.close()
    return [future.result() for future in futures]


def line(n, x, rng):
    """n random points on the line from (x, -1) to (x, 1) in the plane, (n, 2)."""
    y = 2 * rng.uniform((n, 1)) - 1
    return np.concatenate([x + 0 * y, y], axis=1)


def is_small(data):
    """Whether pictures have at most 100 pixels, as the bundled digits do: an epoch then takes a moment."""
    return data.x_train.shape[1] <= 100


def black_and_white(data):
    """The Data with pixels 0 and 1. Pixels of large pictures are drawn once, with their grey values as probabilities.

    Pixels of small pictures are black if they are more than half grey, because drawn ones cannot be recognised.
    """
    if not is_small(data):
        return binarized(data)
    x_train, x_test = ((x > 0.5).astype(np.float32) for x in (data.x_train, data.x_test))
    return replace(data, x_train=x_train, x_test=x_test)


def independent_nll(data):
    """-log p of black and white test pictures in nats, by independent pixels with the training pictures' frequencies."""
    p = (data.x_train.sum(axis=0) + 0.5) / (len(data.x_train) + 1)  # no pixel is impossible
    return -(data.x_test * np.log(p) + (1 - data.x_test) * np.log(1 - p)).sum(axis=1).mean()


def in_turn(x, made, rows, columns):
    """Rows of pictures x (N, D), under each row those made of it; and the number of columns. At most `rows` full rows."""
    columns = min(columns, len(x))
    rows = min(rows, len(x) // columns)
    parts = [to_host(part)[: rows * columns].reshape(rows, columns, -1) for part in (x, made)]
    return np.stack(parts, axis=1).reshape(2 * rows * columns, -1), columns


def nearest(x, others):
    """The distance of each picture of x (N, D) to the nearest one of others (M, D), (N,)."""
    squares = (x**2).sum(1)[:, None] - 2 * x @ others.T + (others**2).sum(1)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))


def spread(x):
    """The mean distance between two different pictures of x (N, D)."""
    squares = (x**2).sum(axis=1)
    squares = squares[:, None] + squares - 2 * x @ x.T
    return np.sqrt(np.maximum(squares, 0)).sum() / (len(x) * (len(x) - 1))
