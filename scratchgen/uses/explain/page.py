"""A watched step as a page for a browser: the code on the left, its numbers on the right.

The page is one file that loads nothing. page.html holds its style and the little program that walks through the events;
without that program the page still shows everything.
"""

import html
import inspect
import io
import keyword
import textwrap
import tokenize
from pathlib import Path

import numpy as np

from .complex_step import FEW
from .events import Aside, Pass, Update
from .names import functions_of
from .text import (
    METHODS,
    SAID,
    WIDEST,
    formula_of,
    label,
    left_out,
    note_of,
    numbers,
    place_of,
    power_of,
    remark,
    summary,
)

TEMPLATE = Path(__file__).with_name("page.html")


def page_of(explanation):
    """The page of an Explanation, as text."""
    page = Page(explanation)
    cards = "".join(page.part(part) for part in explanation.timeline)
    notes = "".join(f"<p>{escape(note.partition(chr(10) * 2)[0])}</p>" for note in explanation.notes)
    filled = {
        "TITLE": escape(explanation.title),
        "NOTES": notes,
        "VERDICT": escape(explanation.verdict()),
        "GOOD": "good" if all(g.right or g.kink for g in explanation.gradients) else "bad",
        "STEP": "".join(page.blocks.values()),
        "SOURCES": "".join(map(str, page.sources.values())),
        "CARDS": cards,
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in filled.items():
        text = text.replace(f"<!--{name}-->", value)
    return text


def escape(text):
    return html.escape(str(text))


class Page:
    """Collects the code that the events point to, while their cards are written."""

    def __init__(self, explanation):
        self.functions = functions_of(type(explanation.model))
        self.blocks, self.sources, self.names = {}, {}, {}  # html of the model's functions, and of layers and losses
        self.number = 0  # of the card
        for part in explanation.timeline:  # train_step comes first, then the objectives, then what these call
            for event in [part, *getattr(part, "events", ())]:
                for frame in reversed(getattr(event, "where", ()) if part.shown else ()):
                    self.line(frame)

    def line(self, frame):
        """The id of a line of the model's code, whose function is entered into the page."""
        code, number = frame
        owner = self.functions.get(code, code)
        if owner not in self.names:
            self.names[owner] = f"f{len(self.names)}"
            found = lines_of(owner)
            if found:
                self.blocks[owner] = block(self.names[owner], owner.co_qualname, place_of(owner), *found)
        return f"{self.names[owner]}-{number}"

    def source(self, event):
        """(the id of the code of a layer or loss, the ids of those lines that run in this event)."""
        target = type(event.target) if event.is_layer else event.target
        function = inspect.unwrap(getattr(target, event.key[1]) if event.is_layer else target)
        if (target, function) not in self.sources:
            source = self.sources[target, function] = Source(f"s{len(self.sources)}")
            if event.is_layer and event.key[1] not in vars(
                target
            ):  # such as f of an activation, whose base has forward
                source.add(target)
            source.add(function)
        source = self.sources[target, function]
        if not source.ids(event.code):  # another function makes this backward, such as `chained`
            source.add(event.code)
        return source.name, source.ids(event.code)

    def card(self, kind, title, body, frames=(), **data):
        self.number += 1
        data |= {"lines": " ".join(self.line(frame) for frame in frames)}
        attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items() if value)
        return f'<article class="card {kind}" id="c{self.number}" tabindex="-1"{attributes}>{title}{body}</article>\n'

    def part(self, part):
        return {Pass: self.of_pass, Update: self.of_update, Aside: self.of_aside}[type(part)](part)

    def of_pass(self, part):
        if not part.shown:
            return f'<p class="aside">{escape(left_out(part))}</p>'
        alone = "<p>train_step does not call it, so it runs alone here.</p>" if part.alone else ""
        found = f"<h2>{escape(part.name)}</h2><p>{escape(part.said)}</p>{alone}"
        direction = None
        for event in part.events:
            if event.inside is None and event.direction != direction:
                direction = event.direction
                found += f'<h3 class="{direction}">{escape(SAID[direction])}</h3>'
            found += self.of_event(event)
        title = '<header><b class="name">returns</b></header>'
        found += self.card("result", title, f"<p><code>{escape(numbers(part.losses))}</code></p>", part.where[:1])
        if part.totals:
            body = "<p>More than one line has added to these.</p>" + "".join(map(gradient, part.totals))
            found += self.card("result", '<header><b class="name">whole gradients</b></header>', body, part.where[:1])
        return f"<section>{found}</section>"

    def of_event(self, event):
        source, part = self.source(event)
        mates = [event.call.number] if event.call is not event else [answer.number for answer in event.answers]
        arrow = "→" if event.direction in ("forward", "double") else "←"
        kind = f' <span class="kind">{escape(event.kind)}</span>' if event.kind else ""
        joined = "".join(
            f' <a class="link" href="#e{n}">{"backward" if n > event.number else "forward"} {n}</a>' for n in mates
        )
        place = f'<span class="place">{escape(place_of(event.code))}</span>'
        title = (
            f'<header id="e{event.number}"><span class="number">{event.number} {arrow}</span> '
            f'<b class="name">{escape(event.name)}</b>{kind}{joined}{place}</header>'
            f'<p class="formula">{escape(formula_of(event))}</p>'
        )
        body = "".join(entry(e) for e in event.entries if not e.hidden and not event.used)
        body += "".join(gradient(g) for g in event.gradients if not g.hidden)
        body += f"<p>{note_of(event)}</p>" if note_of(event) else ""
        data = {"event": event.number, "mates": " ".join(map(str, mates)), "source": source}
        data["part"] = " ".join(part)
        inside = " inside" if event.inside else ""
        return self.card(f"{event.direction}{inside}", title, f'<div class="arrays">{body}</div>', event.where, **data)

    def of_update(self, part):
        if not part.shown and not part.rows:
            return ""
        kind = type(part.stepper).__name__ if part.stepper else "the weights after train_step"
        name = f'<b class="name">{escape(part.name)}</b> ' if part.name else ""
        title = f'<header>{name}<span class="kind">{escape(kind)}</span></header>'
        title += f'<p class="formula">{escape(part.formula)}</p>'
        body = f"<p><code>{escape(numbers(part.numbers))}</code></p>" if part.numbers else ""
        if part.rows:
            body += '<table class="rows"><tr><th>tensor<th>shape<th>‖g‖<th>‖θ‖<th>‖Δθ‖<th>‖Δθ‖/‖θ‖'
            for row in part.rows:
                norms = "".join(f"<td>{number:.4g}" for number in (row.grad, row.theta, row.change))
                body += f"<tr><td>{escape(row.name)}<td>{escape(row.shape)}{norms}<td>{row.share:.2%}"
            body += "</table>"
        body += "<p>Δθ includes what changes the weights afterwards, such as clipping.</p>" if part.others else ""
        kind = type(part.stepper)
        if kind not in self.sources:
            self.sources[kind] = Source(f"s{len(self.sources)}")
            self.sources[kind].add(kind)
        code = kind.update.__code__ if part.stepper else None
        source = {"source": self.sources[kind].name, "part": " ".join(self.sources[kind].ids(code))}
        return self.card("update", title, body, part.where, **source)

    def of_aside(self, part):
        found = "".join(self.of_event(event) for event in part.events if event.inside is None)
        return f"<section><h2>outside of the objectives</h2>{found}</section>"


class Source:
    """The code of a layer or a loss, in one or more blocks."""

    def __init__(self, name):
        self.name, self.blocks = name, []  # (file, numbers of its lines, id, html)

    def add(self, thing):
        """Enter the code of a function or a class."""
        found = lines_of(thing)
        if found:
            first, lines = found
            name, title = (
                f"{self.name}b{len(self.blocks)}",
                getattr(thing, "co_qualname", getattr(thing, "__qualname__", "")),
            )
            file, place = inspect.getsourcefile(thing), place_of(getattr(thing, "__code__", thing), first)
            self.blocks.append((file, range(first, first + len(lines)), name, block(name, title, place, first, lines)))

    def ids(self, code):
        """The ids of the lines of some code, without those of functions inside it."""
        numbers = sorted(own_lines(code)) if code else []
        return [
            f"{i}-{n}"
            for n in numbers
            for file, lines, i, _ in self.blocks
            if (file == code.co_filename and n in lines)
        ]

    def __str__(self):
        found = "".join(html for *_, html in self.blocks)
        return f'<div class="source" id="{self.name}">{found}</div>' if found else ""


# ---- numbers ----


def entry(e):
    """An array, or a number."""
    if np.ndim(e.array) == 0:
        return f'<div class="array"><div class="label">{escape(e.name)} = {float(np.real(e.array)):.6g}</div></div>'
    same = f' <a href="#e{e.same.event.number}">is {escape(e.same.name)} of {e.same.event.number}</a>' if e.same else ""
    return f'<div class="array"><div class="label">{escape(label(e))}{same}</div>{table(e.array)}</div>'


def gradient(g):
    """A gradient, and beside it the numbers of the complex step."""
    if g.same is not None and not g.wanted:
        return entry(g)
    if g.counted_in is not None:
        n = g.counted_in.event.number
        more = f' <a href="#e{n}">a part of that of {n}</a>'
        return f'<div class="array"><div class="label">{escape(label(g))}{more}</div>{table(g.array)}</div>'
    name, more = label(g), f", plus that of {g.also[0].event.number}" if g.also else ""
    if g.error is None:
        return f'<div class="array"><div class="label">{escape(name + more)}</div>{table(g.total)}</div>'
    method, verdict = METHODS[g.method], "good" if g.right or g.kink else "bad"
    badge = f'<span class="badge {verdict}">{escape(remark(g).strip(", "))}</span>'
    if np.ndim(g.array) == 0:
        measured = float(np.reshape(g.numeric, -1)[-1])
        said = f"{escape(name)} = {float(g.array):.6g}, {method} {measured:.6g}"
        return f'<div class="array"><div class="label">{said} {badge}</div></div>'
    if g.signs is not None:
        hand, measured = g.numeric
        said = f"along a random direction {hand:.10g}, {method} {measured:.10g}"
        title = f'<div class="label">{escape(name + more)} {badge}</div>'
        return f'<div class="array">{title}{table(g.total)}<p>{said}</p></div>'
    together = np.append(g.total, g.numeric)
    return (
        f'<div class="array pair"><div class="label">{escape(name + more)} {badge}</div><div class="both">'
        f"<div><small>by hand</small>{table(g.total, together)}</div>"
        f"<div><small>{method}</small>{table(g.numeric, together)}</div></div></div>"
    )


def table(array, together=None):
    """The numbers of an array, each on a colour that shows its sign and size; of many numbers a summary."""
    array = np.asarray(array)
    if not 0 < array.size <= FEW or array.shape[-1] > WIDEST:
        return f"<p>{escape(summary(array))}</p>"
    power, write = power_of(array if together is None else together)
    rows, largest = array.reshape(-1, array.shape[-1]), float(np.abs(array).max()) or 1.0
    cells = "".join(
        "<tr>" + "".join(f'<td style="--v:{float(np.real(x)) / largest:.2f}">{write(x)}' for x in row) for row in rows
    )
    return f'<table class="numbers">{f"<caption>× 10<sup>{power}</sup></caption>" if power else ""}{cells}</table>'


# ---- code ----


def lines_of(thing):
    """(number of the first line, the lines) of the code of a function or a class, or None if there is no file of it."""
    try:
        lines, first = inspect.getsourcelines(thing)
    except (OSError, TypeError):
        return None
    return max(first, 1), textwrap.dedent("".join(lines)).rstrip("\n").split("\n")


def own_lines(code):
    """The numbers of the lines of some code, without those of functions inside it."""
    found = lines_of(code) if code else None
    inside = [part for part in code.co_consts if inspect.iscode(part) and part.co_name[0] != "<"] if found else []
    first, lines = found or (0, [])
    return set(range(first, first + len(lines))) - {n for part in inside for n in all_lines(part)}


def all_lines(code):
    first, lines = lines_of(code) or (0, [])
    return range(first, first + len(lines))


def block(name, title, place, first, lines):
    """Code as HTML, each line with an id: that of the block and its number."""
    rows = "".join(
        f'<div class="line" id="{name}-{first + i}"><span class="no">{first + i}</span><code>{text}</code></div>'
        for i, text in enumerate(coloured(lines))
    )
    return f'<div class="block"><h4>{escape(title)} <span class="place">{escape(place)}</span></h4>{rows}</div>'


def coloured(lines):
    """Each line as HTML, with words, strings and comments of Python marked."""
    marks = [[] for _ in lines]
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline):
            kind = {tokenize.COMMENT: "c", tokenize.STRING: "q", tokenize.NUMBER: "n"}.get(token.type, "")
            if token.type == tokenize.NAME:
                kind = "k" if keyword.iskeyword(token.string) else "v" if token.string == "self" else ""
            for line in range(token.start[0], token.end[0] + 1) if kind else ():
                start = token.start[1] if line == token.start[0] else 0
                end = token.end[1] if line == token.end[0] else len(lines[line - 1])
                marks[line - 1].append((start, end, kind))
    except (tokenize.TokenError, SyntaxError, IndexError):
        return [escape(line) for line in lines]
    found = []
    for line, spans in zip(lines, marks):
        text, at = "", 0
        for start, end, kind in spans:
            text += f'{escape(line[at:start])}<span class="{kind}">{escape(line[start:end])}</span>'
            at = end
        found.append(text + escape(line[at:]))
    return found
