"""Masked diffusion draws a digit or a line token after token, in any order, and fills any hole.

Above: samples on their way, and holes with what fills them. Below, by the number of steps: what test data cost, and how
good samples are. Fewer steps draw more tokens at once, as if they were independent. Blue: in random order. Red: the most
predictable tokens first.

Try other holes in HOLES. Read scratchgen/models/masked_diffusion.py.
"""

import math

import numpy as np
from common import DRAWS, black_and_white, draw_distances, draw_floor, independent_nll, judge_of, run, train
from recipes import BOOK_MASKED, BOOK_STEPS, Trainer, masked_diffusion
from use_text import WORD, words, write

from scratchgen.backend import to_host
from scratchgen.data import Data, load
from scratchgen.data.text import Alphabet, load_text, split, windows
from scratchgen.models.masked_diffusion import MaskedDiffusion
from scratchgen.plots import BLUE, GREY, INK, RED, name_columns, new_figure, save_figure, show_images
from scratchgen.uses.completion import complete

N = 16  # characters of a window
STEPS, COLOURS = (1, 2, 4, 8, 16, 32, 64), {"random": BLUE, "confidence": RED}
NAMES = {"random": "random order", "confidence": "the most predictable first"}
LOOKS = 40  # random orders of each test digit, masks of each test example
PAPER, HIDDEN = (0.8, 0.89, 1.0), (0.5, 0.68, 0.9)  # the colour of paper where the hole was, and of what is hidden
HOLES = {  # pixels (8, 8)
    "middle": np.s_[2:6, 2:6],
    "left half": np.s_[:, :4],
    "lower half": np.s_[4:],
}
LINES = ["alice ______ the", "the _____ of the", "__e qu_en sa_d, ", "_____ __ _ ____ "]  # _: a hole


# ---- what is measured ----


def mean_cost(log_p, looks):
    """(nats of an example, standard error over the examples), where each has the mean of so many draws of log_p()."""
    nats = -np.mean([to_host(log_p()) for _ in range(looks)], axis=0)
    return nats.mean(), nats.std() / math.sqrt(len(nats))


def costs(model, x, rng, looks):
    """{order: [(nats of an example of x (N, D), standard error) for each number of steps]}, each by so many orders."""
    steps = steps_of(model)
    return {
        order: [
            mean_cost(lambda n=n_steps, order=order: model.log_prob_in(x, rng, n, order), looks) for n_steps in steps
        ]
        for order in COLOURS
    }


def steps_of(model):
    return [n_steps for n_steps in STEPS if n_steps <= model.n_features]


def drawn(model, n, rng, n_steps, order):
    """n samples (n, D) in so many steps, on the host."""
    model.n_steps, model.order = n_steps, order
    return to_host(model.sample(n, rng))


def known_words(lines, vocabulary):
    """The share of the words of lines that a vocabulary has, and its standard error."""
    found = [match.group() in vocabulary for line in lines for match in words(line)]
    return np.mean(found), np.std(found) / math.sqrt(max(1, len(found)))


# ---- the figure ----


def sheet(x, where, colour):
    """Pictures x (n, D) as ink on paper (n, 3 D) that has this colour where `where` (n, D) is true."""
    paper = np.where(where[..., None], colour, (1.0, 1.0, 1.0))
    return ((1 - np.where(where & (colour == HIDDEN), 0, x))[..., None] * paper).reshape(len(x), -1)


def show_way(axis, model, rng):
    """Some digits on their way, in 64 steps."""
    n = 6
    path = list(model.unmask(np.zeros((n, 64), int), np.zeros((n, 64), bool), rng, 64, "random"))
    times = [0, 8, 16, 24, 32, 40, 48, 56, 64]
    strip = np.stack([sheet(path[t][0], path[t][1], HIDDEN) for t in times], axis=1)
    title = "digits, drawn pixel by pixel in random order (blue: not yet drawn)"
    show_images(axis, strip.reshape(-1, 3 * 64), (8, 8, 3), len(times), title, pixels=40)
    name_columns(axis, times)
    axis.set_xlabel("pixels drawn", fontsize=8)


def show_holes(axis, model, x, rng):
    """A row with each hole of test digits, and below it two fillings."""
    rows, names = [], []
    for name, where in HOLES.items():
        hole = np.zeros((8, 8), bool)
        hole[where] = True
        hole = np.broadcast_to(hole.ravel(), x.shape)
        rows.append(sheet(x, hole, HIDDEN))
        rows += [sheet(to_host(complete(model, x, ~hole, rng)), hole, PAPER) for _ in range(2)]
        names += [f"{name} hidden", "filled", "and again"]
    title = "test digits with a hole, and below each two ways to fill it"
    show_images(axis, np.concatenate(rows), (8, 8, 3), len(x), title, names, pixels=40)


def show_lines(axis, blocks):
    """Blocks {heading: [(line, booleans: which characters were drawn)]}, one above the other."""
    axis.axis("off")
    y, step = 1.0, 1 / (sum(len(lines) + 2 for lines in blocks.values()) + 0.5)
    for heading, lines in blocks.items():
        axis.text(0, y - step, heading, fontsize=10)
        for i, (line, blue) in enumerate(lines):
            colours = np.where(line_of(line) == "·", GREY, np.where(blue, BLUE, INK))
            write(axis, 0.02, y - (i + 2) * step, line, list(colours))
        y -= (len(lines) + 2) * step


def line_of(text):
    return np.array(list(text))


def ways_of(model, alphabet, rng):
    """[(line, which characters are drawn)] of one window on its way, one character a step; · is hidden."""
    path = model.unmask(np.zeros((1, N), int), np.zeros((1, N), bool), rng, N, "random")
    found = []
    for i, (x, hidden) in enumerate(path):
        if i % 2 == 0 and i:
            text = np.where(hidden[0], "·", line_of(alphabet.decode(x)[0]))
            found.append(("".join(text), ~hidden[0]))
    return found


def filled(model, alphabet, rng):
    """[(line, what was drawn)] of LINES, twice each."""
    texts = [line for line in LINES for _ in range(2)]
    hole = np.array([line_of(text) == "_" for text in texts])
    x = np.stack([alphabet.encode(text.replace("_", " ")) for text in texts])
    lines = alphabet.decode(to_host(complete(model, rng.array(x), rng.array(~hole), rng)))
    return [(line + "    " + text, [*row, *(len(text) + 4) * [False]]) for line, row, text in zip(lines, hole, texts)]


def curves(axis, x, found, what, title, ylabel, scale=1.0):
    for order, points in found.items():
        mean, error = np.transpose(points) * scale
        axis.errorbar(x, mean, error, color=COLOURS[order], marker="o", markersize=3, label=NAMES[order])
    set_steps(axis, x, f"steps for {x[-1]} {what} (1: all at once)", title, ylabel)


def set_steps(axis, x, xlabel, title, ylabel, **more):
    """An axis of numbers of steps x, on a logarithmic scale."""
    axis.set(xscale="log", xticks=x, xticklabels=x, xlabel=xlabel, **more)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.minorticks_off()
    axis.set_title(title, fontsize=10)
    axis.grid(color="0.92")


def main(args):
    digits, text = black_and_white(load("digits", args.seed)), load_text()
    judge, alphabet = judge_of(digits, "Fréchet distance"), Alphabet(text)
    tokens, rest = split(alphabet.encode(text))
    x_train, x_test = windows(tokens, N)[:: 8 if args.quick else 1], windows(rest, N)[:: 100 if args.quick else 4]
    trainer = Trainer(digits, args)
    pixel_model = masked_diffusion(digits, trainer)
    smaller = {"hidden": (128,)} if args.quick else {}
    book = MaskedDiffusion(n_features=N, n_values=len(alphabet), **BOOK_MASKED | smaller)
    book, history = train(book, Data("book", x_train, x_test), args, BOOK_STEPS, x_test=None)
    seconds = sum(row["seconds"] for row in history)
    print(f"digits trained in {trainer.seconds[pixel_model]:.0f} s, the book in {seconds:.0f} s")

    looks, rng = 4 if args.quick else LOOKS, pixel_model.rng((args.seed, 0, 2))
    x = rng.array(digits.x_test)
    nats, error = mean_cost(lambda: pixel_model.log_bound(x, rng), 10 * looks)
    alone = independent_nll(digits)
    print(f"test digits cost at most {nats:.2f} ± {error:.2f} nats, as independent pixels {alone:.2f}")
    of_digits = costs(pixel_model, x, rng, max(1, looks // 8))
    n, distances = len(digits.x_test), {}
    for order in COLOURS:
        distances[order] = []
        for n_steps in STEPS:
            made = drawn(pixel_model, (2 if args.quick else DRAWS) * n, rng, n_steps, order)
            distances[order].append(judge.measure(made, n))
    for order in COLOURS:
        for n_steps, (nats, error), distance in zip(STEPS, of_digits[order], distances[order]):
            print(f"  {order}, {n_steps} steps: {nats:.2f} ± {error:.2f} nats, Fréchet distance {distance}")
    print(f"  real digits, black and white: {judge.floor(n)}")

    book_rng, vocabulary = book.rng((args.seed, 0, 2)), set(WORD.findall(alphabet.decode(tokens[None])[0]))
    line_codes = book_rng.array(x_test)
    nats, error = mean_cost(lambda: book.log_bound(line_codes, book_rng), looks)
    print(f"a test character costs at most {nats / N:.3f} ± {error / N:.3f} nats")
    of_text, shares = costs(book, line_codes, book_rng, 1), {}
    for order in COLOURS:
        shares[order] = []
        for n_steps in steps_of(book):
            lines = alphabet.decode(drawn(book, 60 if args.quick else 1_000, book_rng, n_steps, order))
            shares[order].append(known_words(lines, vocabulary))
    real = known_words(alphabet.decode(x_test[::8]), vocabulary)[0]
    for order in COLOURS:
        for n_steps, (nats, error), (share, spread) in zip(STEPS, of_text[order], shares[order]):
            cost = f"{nats / N:.3f} ± {error / N:.3f} nats a character"
            print(f"  {order}, {n_steps} steps: {cost}, {share:.0%} ± {spread:.0%} of the words are in the book")
    print(f"  of the test part {real:.0%}")

    figure, axes = new_figure(13.5, 8.5, 2, 1, height_ratios=[1.5, 1])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    way, holes, lines = (figure.add_subplot(place) for place in above.subgridspec(1, 3, width_ratios=[1.2, 1, 1]))
    show_way(way, pixel_model, rng)
    x = digits.x_test[np.unique(digits.labels_test, return_index=True)[1]][:7]
    show_holes(holes, pixel_model, x, rng)
    blocks = {"a line, drawn letter by letter (·: not yet drawn)": ways_of(book, alphabet, book_rng)}
    blocks["holes filled, twice each; at the right what was given"] = filled(book, alphabet, book_rng)
    show_lines(lines, blocks)
    first, second, third, fourth = (figure.add_subplot(place) for place in below.subgridspec(1, 4))
    curves(first, STEPS, of_digits, "pixels", "what a test digit costs", "nats, at most")
    first.legend(fontsize=8, frameon=False)
    for order, found in distances.items():
        draw_distances(second, STEPS, found, COLOURS[order], None, marker="o")
    draw_floor(second, judge.floor(n))
    title, ylabel = "how far drawn digits are from real ones", "Fréchet distance, squared"
    set_steps(second, STEPS, "steps for 64 pixels", title, ylabel, yscale="log")
    second.legend(fontsize=8, frameon=False)
    curves(third, steps_of(book), of_text, "characters", "what a test character costs", "nats, at most", 1 / N)
    curves(fourth, steps_of(book), shares, "characters", "words of drawn lines that the book has", "%", 100)
    fourth.axhline(100 * real, color=GREY, linestyle="--")
    fourth.text(1, 100 * real - 2, "lines that it was not trained on", va="top", fontsize=8, color=GREY)
    save_figure(figure, args.out / "diffusion_masked.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data",))
