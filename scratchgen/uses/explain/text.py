"""A watched step as a text for the terminal."""

import inspect
import linecache
import textwrap

import numpy as np

from .complex_step import FEW
from .events import Aside, Pass, Update, leaves, own_weights, short

WIDTH = 118
ARROWS = {"forward": "→", "backward": "←", "gradient": "⇠", "double": "⇢"}
SAID = {
    "forward": "forward",
    "backward": "backward",
    "gradient": "the gradient of the output in the input: it is a part of the loss",
    "double": "the backward pass of that gradient",
}
SIDE_BY_SIDE, WIDEST = 6, 12  # columns of a gradient that stands beside its measured numbers, and of any table
LEGEND = (
    "Events are numbered as they happen: → a forward call, ← its backward. Beside each gradient, which is written by hand, "
    "stand the numbers of the complex step, Im L(a + ih)/h with h = 1e-20. They come from forward passes alone."
)
METHODS = {"complex-step": "complex step", "central": "central difference"}


def text_of(explanation):
    """The text of an Explanation."""
    lines = [explanation.title, "=" * len(explanation.title)]
    for note in [*explanation.notes, LEGEND]:
        lines += wrapped(note.partition("\n\n")[0])
    for part in explanation.timeline:
        if part.shown:
            lines += ["", *WRITERS[type(part)](part)]
        elif isinstance(part, Pass):
            lines += ["", *wrapped(left_out(part), 3)]
    return "\n".join(line.rstrip() for line in [*lines, "", *wrapped(explanation.verdict())]) + "\n"


def left_out(part):
    """What is said of a Pass that is not shown."""
    return f"{part.name} runs{' again' * part.again}, which is not shown:   {numbers(part.losses)}"


def wrapped(text, indent=0):
    text = text if indent else " ".join(text.split())
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)


def numbers(values):
    return "   ".join(f"{name} = {float(np.real(value)):.6g}" for name, value in values.items())


def heading(text, place):
    return [f"── {text} {'─' * max(2, WIDTH - len(text) - len(place) - 5)} {place}"]


# ---- passes and updates ----


def pass_lines(part):
    said = "" if not part.alone else ", alone, as train_step does not call it"
    lines = heading(f"{part.name}{said}", at(part.where))
    lines += [source_line(part.where[0])] if part.where else []
    lines += wrapped(part.said, 8)
    direction, last = None, []
    for event in part.events:
        if event.inside is None and event.direction != direction:
            direction, last = event.direction, []
            lines += ["", f"  {SAID[direction]}"]
        where = [frame for frame in event.where if frame not in part.where]
        new = [frame for frame in where[::-1] if frame not in last]
        lines += [""] * (event.inside is None)
        lines += [source_line(frame, inner=frame is not where[-1]) for frame in new]
        last = where
        lines += event_lines(event)
    lines += ["", *wrapped(f"returns   {numbers(part.losses)}", 2)]
    if part.totals:
        lines += ["", "  gradients of whole tensors, to which more than one line has added"]
        for g in part.totals:
            lines += gradient_lines(g, 9)
    return lines


def at(where):
    """The file and line of the innermost function of the model that was running, or ""."""
    return place_of(*where[0]) if where else ""


def place_of(code, line=None):
    """file:line of some code, or of a class; by default the first line of the code."""
    file = getattr(code, "co_filename", None) or (inspect.getsourcefile(code) if code else "")
    return f"{short(file)}:{line or code.co_firstlineno}" if file else ""


def source_line(frame, inner=False):
    code, line = frame
    return f"  {line:>4} {f' in {code.co_name}:  ' if inner else ' '}{code_on(frame)}"


def code_on(frame):
    """The text of a line of code."""
    return linecache.getline(frame[0].co_filename, frame[1]).strip()


def update_lines(part):
    kind = type(part.stepper).__name__ if part.stepper else "the weights after train_step"
    lines = heading(f"{part.name}, {kind}" if part.name else kind, at(part.where))
    lines += [source_line(part.where[0])] if part.where else []
    lines += [f"        {part.formula}"] if part.formula else []
    lines += [f"        {numbers(part.numbers)}"] if part.numbers else []
    if part.rows:
        width = max(len(row.name) for row in part.rows)
        lines += ["", f"    {'':<{width}}  {'shape':<12}{'‖g‖':>12}{'‖θ‖':>12}{'‖Δθ‖':>12}{'‖Δθ‖/‖θ‖':>12}"]
        for row in part.rows:
            norms = "".join(f"{number:>12.4g}" for number in (row.grad, row.theta, row.change))
            lines += [f"    {row.name:<{width}}  {row.shape!s:<12}{norms}{row.share:>12.2%}"]
        lines += ["    Δθ includes what changes the weights afterwards, such as clipping"] if part.others else []
    return lines


def aside_lines(part):
    lines = heading("outside of the objectives", at(part.events[0].where))
    return lines + [line for event in part.events if event.inside is None for line in headline(event)]


WRITERS = {Pass: pass_lines, Update: update_lines, Aside: aside_lines}


# ---- events ----


def headline(event):
    """The number of an event, its name, class and formula, and the place of its code: one line, or two."""
    left = f"  {event.number:>4} {ARROWS[event.direction]} {'  ' * event.depth}{event.name}"
    left += f"  {event.kind}" if event.kind else ""
    said, place = formula_of(event), place_of(event.code)
    room = WIDTH - len(left) - len(place) - 6
    if len(said) <= room:
        return [f"{left}   {said:<{room}}   {place}"]
    return [f"{left}   {'':<{room}}   {place}", *wrapped(said, 9 + 2 * event.depth)]


def formula_of(event):
    """What stands beside the name of an event: a formula, and for a layer made of layers the shapes."""
    said = event.formula
    if event.used:
        more = f"; {event.repeats} more such calls follow" if event.repeats else ""
        return f"{shapes(event.given[:1])} → {shapes(event.result[0])}, and no backward is needed{more}"
    if event.direction == "forward" and event.is_layer and any(True for _ in event.target.children()):
        return f"{shapes(event.given[:1])} → {shapes(event.result[0])}   {said}"
    return said


def shapes(value):
    return ", ".join(shape(part) for _, part in leaves(value) if isinstance(part, np.ndarray))


def shape(array):
    return "(" + ", ".join(map(str, array.shape)) + ("," if array.ndim == 1 else "") + ")"


def event_lines(event):
    indent, lines = 9 + 2 * event.depth, headline(event)
    for entry in event.entries:
        if not entry.hidden and not event.used:
            lines += entry_lines(entry, indent)
    for g in event.gradients:
        if not g.hidden:
            lines += gradient_lines(g, indent)
    return lines + [f"{'':<{indent}}{said}" for said in [note_of(event)] if said]


def note_of(event):
    """What is to be said of an event besides its numbers, or ""."""
    if event.direction != "backward" or not event.is_layer:
        return ""
    if not event.learn and own_weights(event.target):
        return "no dW: this network is frozen"
    return "" if event.gradients or any(True for _ in event.target.children()) else "no gradient comes of it"


def label(entry):
    return f"{entry.name} {shape(entry.array)}" if np.ndim(entry.array) else entry.name


def entry_lines(entry, indent):
    array, pad = entry.array, " " * indent
    if np.ndim(array) == 0:
        return [f"{pad}{entry.name} = {float(np.real(array)):.6g}"]
    if entry.same is not None:
        return [f"{pad}{label(entry)}   is {entry.same.name} of {entry.same.event.number}"]
    power, table = rows_of(array)
    if not table:
        return [f"{pad}{label(entry)}   {summary(array)}"]
    return [f"{pad}{label(entry)}{power}", *(f"{pad}  {line}" for line in table)]


def gradient_lines(g, indent):
    """A gradient, and beside it the numbers of the complex step."""
    pad, more = " " * indent, f", plus that of {g.also[0].event.number}" if g.also else ""
    if g.same is not None and not g.wanted:
        return entry_lines(g, indent)
    if g.counted_in is not None:
        first, *others = entry_lines(g, indent)
        return [f"{first}   which is a part of that of {g.counted_in.event.number}", *others]
    name, method = f"{pad}{label(g)}{more}", METHODS.get(g.method, "")
    if np.ndim(g.array) == 0:
        measured = f"   {method} {float(np.reshape(g.numeric, -1)[-1]):.6g}{remark(g)}" if method else ""
        return [f"{name} = {float(g.array):.6g}{measured}"]
    together = np.append(g.total, g.numeric) if g.error is not None and g.signs is None else g.total
    power, hand = rows_of(g.total, together)
    if g.error is None or g.signs is not None:
        lines = [f"{name}{power}", *(f"{pad}  {line}" for line in hand)] if hand else [f"{name}   {summary(g.total)}"]
        if g.error is not None:
            one, other = g.numeric
            lines.append(f"{pad}  along a random direction {one:.10g}, {method} {other:.10g}{remark(g)}")
        return lines
    if not hand:  # too wide for a table
        return [f"{name}   {summary(g.total)}; {method}{remark(g)}"]
    _, measured = rows_of(g.numeric, together)
    if len(hand[0]) > 9 * SIDE_BY_SIDE:
        lines = [f"{name}{power}", *hand, f"{method}{remark(g)}", *measured]
        return [lines[0], *(f"{pad}  {line}" for line in lines[1:])]
    left = f"{label(g)}{more}{power}"
    lines = [f"{pad}{left:<{len(hand[0]) + 5}} |  {method}{remark(g)}"]
    return lines + [f"{pad}  {a}   |{b}" for a, b in zip(hand, measured)]


def remark(g):
    """What is to be said of the comparison of a gradient."""
    if g.kink:
        return ", on a kink: there is no derivative"
    of = f", of {g.of}" if g.event is not None and g.of != g.objective else ""
    if g.right:
        return f"{of}, error {g.error:.0e}".replace("0e+00", "0")
    if g.split:
        return f"{of}, another number: the model joins this gradient with others, and the sum is right"
    return f"{of}, DIFFERENT by {g.error:.1e}{': ' * bool(g.clue)}{g.clue}"


# ---- numbers ----


def rows_of(array, together=None):
    """(" × 10^k" or "", the lines of a table of the numbers, or none if they are too many). together: sets k."""
    array = np.asarray(array)
    if not 0 < array.size <= FEW or array.shape[-1] > WIDEST:
        return "", []
    power, write = power_of(array if together is None else together)
    lines = ["".join(f"{write(x):>9}" for x in row) for row in array.reshape(-1, array.shape[-1])]
    return f" × 1e{power}" if power else "", lines


def power_of(array):
    """(k, how a number x is written as x / 10^k) for numbers as large as those of an array."""
    if array.dtype.kind in "iub":
        return 0, lambda x: str(int(x))
    largest = float(np.abs(array).max())
    power = int(np.floor(np.log10(largest))) if np.isfinite(largest) and largest and not 0.01 <= largest < 1e4 else 0
    digits = 4 if largest / 10.0**power < 100 else 2
    return power, lambda x: "0" if x == 0 else f"{float(np.real(x)) / 10.0**power:.{digits}f}"


def summary(array):
    """Mean, spread and extremes of an array in words."""
    if not array.size:
        return "empty"
    x = np.real(array).astype(float)
    return f"mean {x.mean():.4g}   spread {x.std():.4g}   from {x.min():.4g} to {x.max():.4g}"
