"""A MADE learns to spell: it writes lines of a book and knows what each letter costs.

The examples are 16 characters of Alice's Adventures in Wonderland. Left: what a character costs by its place, beside
tables of what follows one, two or three letters. Right: lines that MADE and the tables draw (red: words that the
training text does not have), and openings that MADE ends.

Try `--prompt "the cat"`. Read scratchgen/models/made.py, scratchgen/data/text.py.
"""

import math
import re
import textwrap

import numpy as np
from common import run, train

from scratchgen.backend import UsageError, to_host
from scratchgen.data import Data
from scratchgen.data.text import Alphabet, load_text, split, windows
from scratchgen.models.made import MADE
from scratchgen.nn.layers import log_softmax
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure
from scratchgen.uses import completion

N, KEPT = 16, 7  # characters a window; of them the opening of the next: the costs are least about there
COOL, LINE = 0.6, 48  # a temperature; characters in a line of the figure
OPENINGS = ["alice was ", "the queen ", "'oh, ", "said the "]
WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
MADE_TEST, MADE_TRAIN = "MADE", "MADE, on the training part"
TABLES = ["frequencies alone", "table, 1 letter before", "table, 2 letters before", "table, 3 letters before"]


# ---- tables of frequencies, to compare with ----


def tables(tokens, n_values, longest):
    """p(next | the m characters before) for m = 0 ... longest, each (n_values,) * (m + 1), from tokens (L,).

    Witten & Bell 1991: (count + kinds p(next | m - 1 before)) / (seen + kinds), kinds: how many different ones followed.
    """
    found, p = [], 1 / n_values
    for m in range(longest + 1):
        code = windows(tokens, m + 1) @ n_values ** np.arange(m + 1)[::-1]
        counts = np.bincount(code, minlength=n_values ** (m + 1)).reshape((n_values,) * (m + 1))
        kinds = np.maximum((counts > 0).sum(axis=-1, keepdims=True), 1)
        p = (counts + kinds * p) / (counts.sum(axis=-1, keepdims=True) + kinds)
        found.append(p)
    return found


def following(found, x):
    """p(next) of each row of x (N, d), (N, n_values), by the table of the most characters before that are there."""
    m = min(len(found) - 1, x.shape[1])
    return np.broadcast_to(found[m][tuple(x[:, x.shape[1] - m :].T)], (len(x), found[0].size))


def cost_by(found, x):
    """-log p of each character of x (N, n) in nats, by tables."""
    p = np.stack([following(found, x[:, :d]) for d in range(x.shape[1])], axis=1)  # (N, n, n_values)
    return -np.log(np.take_along_axis(p, x[:, :, None], axis=2)[:, :, 0])


def drawn_by(found, x, n, rng):
    """x (N, d) continued to (N, n) by tables."""
    while x.shape[1] < n:
        p = following(found, x)
        below = (p.cumsum(axis=1) < rng.random((len(x), 1))).sum(axis=1, keepdims=True)
        x = np.concatenate([x, np.minimum(below, p.shape[1] - 1)], axis=1)
    return x


# ---- what MADE does ----


def cost(model, x):
    """-log p(x_d | x_<d) of each character of x (N, n) in nats, on the host."""
    found = []
    with model.average.swapped():
        for part in np.array_split(x, math.ceil(len(x) / 1000)):
            log_p = log_softmax(model.conditionals(model.rng(0).array(part), 0, None)[0])
            found.append(-np.take_along_axis(to_host(log_p), part.reshape(-1, 1), 1).reshape(part.shape))
    return np.concatenate(found)


def begun(model, alphabet, openings, rng, temperature=1.0):
    """A window of N characters for each of the openings, which may differ in length, drawn from p(rest | opening)."""
    x, known = np.zeros((len(openings), N), np.int64), np.zeros((len(openings), N), bool)
    for row, opening in enumerate(openings):
        x[row, : len(opening)] = alphabet.encode(opening)
        known[row, : len(opening)] = True
    return alphabet.decode(to_host(completion.complete(model, rng.array(x), rng.array(known), rng, temperature)))


def written(model, alphabet, openings, length, rng, temperature=1.0):
    """Each opening and what follows, `length` characters in all: the first N an exact draw if the opening is shorter."""
    texts = list(openings)
    while min(map(len, texts)) < length:
        kept = [text if len(text) < N else text[-KEPT:] for text in texts]
        filled = begun(model, alphabet, kept, rng, temperature)
        texts = [text + window[len(end) :] for text, end, window in zip(texts, kept, filled)]
    return [text[:length] for text in texts]


# ---- how good it is ----


def words(line):
    """The words of a line, as matches, without those that its two ends may have cut."""
    return [match for match in WORD.finditer(line) if match.start() > 0 and match.end() < len(line)]


def longest_copy(line, source):
    """How many neighbouring characters of a line stand like that in the source."""
    start = longest = 0
    for end in range(1, len(line) + 1):
        while line[start:end] not in source:
            start += 1
        longest = max(longest, end - start)
    return longest


def report(name, lines, source, vocabulary):
    found = [match.group() in vocabulary for line in lines for match in words(line)]
    copies = [longest_copy(line, source) for line in lines]
    whole = sum(copy == len(line) for copy, line in zip(copies, lines))
    share = np.mean(found) if found else 0
    print(f"  {name:<28}{share:.0%} of {len(found)}; {np.mean(copies):.1f}, {max(copies)}; {whole} of {len(lines)}")


def print_costs(costs):
    print(f"cost of a character, and of those from place {KEPT + 1} of {N} on")
    for name, nats in costs.items():
        late = nats[:, KEPT:].mean()
        print(f"  {name:<28}{nats.mean():.3f} nats, {nats.mean() / math.log(2):.2f} bits; {late:.3f} nats")


# ---- the figure ----


def show_costs(axis, costs):
    place = np.arange(1, N + 1)
    for name, nats in costs.items():
        nats, colour, style = nats.mean(axis=0), BLUE if name.startswith("MADE") else GREY, "-"
        y = nats[-6:].max() + 0.02
        if name == MADE_TRAIN:
            y, style = nats[-6:].min() - 0.07, "--"
        axis.plot(place, nats, "o-" if name == MADE_TEST else style, color=colour, markersize=4)
        axis.text(N, y, name, ha="right", fontsize=9, color=INK if colour == GREY else colour)
    axis.set(
        xlabel="place of the character in the window",
        ylabel="-log p of a character, nats",
        ylim=(1.2, 3.1),
        xticks=[1, *range(4, N + 1, 4)],
    )
    axis.set_title("what a character of the test part costs", fontsize=10)
    axis.grid(color="0.92")


def typeset(axis, x, y, line, given, vocabulary):
    """Write a line: black what was given, blue what was drawn, red where that is no word of the vocabulary."""
    colours = np.array([INK] * given + [BLUE] * (len(line) - given))
    for match in words(line):
        if match.end() > given and match.group() not in vocabulary:
            colours[max(given, match.start()) : match.end()] = RED
    write(axis, x, y, line, colours)


def write(axis, x, y, line, colours):
    """Write a line of which each character has its own colour: one upon the other, as all characters are equally wide."""
    for colour in dict.fromkeys(colours):
        layer = "".join(character if own == colour else " " for character, own in zip(line, colours))
        axis.text(x, y, layer, color=colour, family="monospace", fontsize=9)


def show_text(axis, blocks, vocabulary):
    """Blocks, one above the other, are {heading: [(line, how many of its characters were given)]}, side by side."""
    y, step = 1.0, 1 / sum(len(next(iter(block.values()))) + 2 for block in blocks)
    axis.axis("off")
    for block in blocks:
        for i, (heading, lines) in enumerate(block.items()):
            axis.text(i / len(block), y - step, heading, fontsize=10)
            for row, (line, given) in enumerate(lines):
                typeset(axis, i / len(block), y - (row + 2) * step, line, given, vocabulary)
        y -= (len(lines) + 2) * step


def main(args):
    text = load_text()
    alphabet = Alphabet(text)
    if args.prompt == "":
        raise UsageError("--prompt: an empty opening: write some characters")
    openings = OPENINGS + ([args.prompt.lower()] if args.prompt else [])
    for opening in openings:
        alphabet.encode(opening)  # complains of strange characters now, before the training
    tokens, rest = split(alphabet.encode(text))
    x_train, x_test = windows(tokens, N)[:: 8 if args.quick else 1], windows(rest, N)[:: 5 if args.quick else 1]
    model = MADE(n_features=N, n_values=len(alphabet), hidden=(1024,), n_embed=24, batch=200, lr=4e-3)
    model, history = train(model, Data("book", x_train, x_test), args, 1_905, x_test=None)
    seconds = sum(row["seconds"] for row in history)
    print(f"{len(text):,} characters of {len(alphabet)} kinds; {len(x_train):,} windows")
    print(f"{len(history)} passes in {seconds:.0f} s")

    found = tables(tokens, len(alphabet), 3)
    costs = {name: cost_by(found[: m + 1], x_test) for m, name in enumerate(TABLES)}
    costs |= {MADE_TEST: cost(model, x_test), MADE_TRAIN: cost(model, x_train[:: len(x_train) // len(x_test)])}
    print_costs(costs)

    rng, space, n = model.rng((args.seed, 0, 2)), alphabet.encode(" "), 20 if args.quick else 200
    source = alphabet.decode(tokens[None])[0]
    vocabulary = set(WORD.findall(source))
    real = windows(rest, N)[rest[: 1 - N] == space]
    host = np.random.default_rng(args.seed)
    by_tables = [alphabet.decode(drawn_by(found[:m], np.tile(space, (n, 1)), N, host)) for m in (3, 4)]
    drawn = {
        "drawn from p": begun(model, alphabet, n * [" "], rng),
        f"at temperature {COOL}": begun(model, alphabet, n * [" "], rng, COOL),
        "by table, 2 letters": by_tables[0],
        "by table, 3 letters": by_tables[1],
        "the test part": alphabet.decode(real[:: len(real) // n][:n]),
    }
    print("lines: share of words of the training part; longest copied stretch, mean and largest; lines copied whole")
    for name, lines in drawn.items():
        report(name, lines, source, vocabulary)
    given = [opening for opening in openings for _ in range(2)]
    length = max(LINE, 10 + max(map(len, openings)))
    ended = {
        "openings ended, from p(rest | opening)": written(model, alphabet, given, length, rng),
        f"at temperature {COOL}": written(model, alphabet, given, length, rng, COOL),
    }
    (longer,) = written(model, alphabet, ["alice "], 450, rng, COOL)
    for heading, lines in [*ended.items(), ("a longer text", textwrap.wrap(longer, 2 * LINE))]:
        print(heading, *lines, sep="\n  ")

    wrapped = [(f" {line} ", 0) for line in textwrap.wrap(longer, 2 * LINE)[:4]]
    figure, axes = new_figure(13.5, 6.4, 1, 2, width_ratios=[1, 1.65])
    show_costs(axes[0, 0], costs)
    blocks = [
        {name: [(line, 1) for line in lines[:8]] for name, lines in list(drawn.items())[:4]},
        {name: [(line[:LINE], len(opening)) for line, opening in zip(lines, given)] for name, lines in ended.items()},
        {f"a longer text at temperature {COOL}": wrapped},
    ]
    show_text(axes[0, 1], blocks, vocabulary)
    words = "black: given; blue: drawn by the model; red: drawn, and no word of the training part"
    axes[0, 1].set_title(words, fontsize=10, loc="left")
    save_figure(figure, args.out / "use_text.png")


if __name__ == "__main__":
    run(
        main,
        __doc__,
        options=lambda parser: parser.add_argument("--prompt", help="an opening to end, in lower case"),
        ignores=("data",),
    )
