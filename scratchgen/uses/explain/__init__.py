"""One training step, explained: every layer and loss with its numbers, and beside every gradient the complex step's number.

    explain(VAE)             a step of a tiny VAE, on its own example
    explain(model, x)        a step of any model on a batch x (B, n_features)
    explain(layer, x)        any layer: forward and backward, learning

Printed, it is a text in the order of what happens: forward, backward, and what the optimizer does to the weights. save(path)
writes the same as a page for a browser, with the code beside it. The step is made by a copy, so the model stays as it is.
"""

import copy
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...backend import Array, Rng, UsageError, on_host, written_whole
from ...check.trial import layer_inputs
from ...models.base import Model
from ...nn.layer import Layer
from ...nn.parameters import Parameters
from .complex_step import measure
from .events import Aside, Gradient, Pass, Update, first_line, leaves
from .page import page_of
from .text import METHODS, text_of
from .trace import Recorder, before, rows

STEP, MOVE, OUTPUT = 2, 3, 4  # streams of random numbers: of the step, of what moves weights, of a layer's dy
MOVED = "Its weights are moved by 0.1 N(0, 1) from where they start: at exact zeros, ReLU has no derivative."


@dataclass(eq=False)
class Explanation:
    """What happened in one training step. str(...) is the text, save(path) writes the page.

    timeline: what was noted, in order (events.py). model, rng: the copy of the model that made the step, and the random
    stream, as they are after it.
    """

    title: str
    notes: list[str]
    model: Any
    rng: Rng
    timeline: list[Any] = field(default_factory=list)

    @property
    def gradients(self) -> list[Gradient]:
        """Every gradient that was compared with the complex step."""
        return [g for part in self.timeline for g in getattr(part, "gradients", ()) if g.error is not None]

    def verdict(self) -> str:
        """How many gradients agree with what was measured, their largest error, and which is the first wrong one."""
        found = [g for g in self.gradients if not g.kink and not g.split]
        right, wrong = [g for g in found if g.right], [g for g in found if not g.right]
        if not found:
            return "There is no gradient to compare."
        methods = " or ".join(dict.fromkeys(METHODS[g.method] for g in found))
        said = f"{len(right)} of {len(found)} gradients agree with the {methods}"
        said += (
            f"; the largest error is {max(g.error for g in right):.0e} of the tensor's largest number."
            if right
            else "."
        )
        if wrong:
            event = wrong[0].event
            where = f" in {event.number}, {event.name} {event.kind}".rstrip() if event else ""
            said += f" The first that does not agree is {wrong[0].name}{where}."
        return said

    def __str__(self) -> str:
        return text_of(self)

    def html(self) -> str:
        """The page, complete in itself: it loads nothing."""
        return page_of(self)

    def save(self, path: Any) -> None:
        """Write the page. Raises UsageError if that cannot be done."""
        with written_whole(path, "w") as file:
            file.write(self.html())


class OneLayer(Model):
    """A layer as a model, with a loss that has every dy: L = Σ w y, w fixed random numbers, so dy = w."""

    def __init__(self, layer: Any, x: Any, seed: int):
        self.layer = copy.deepcopy(layer)
        self.params = self.layer.params or Parameters(Rng((seed, 1), "float64"), layer=self.layer)
        if layer.params is None:
            move(self.params, seed)
        y, rng = copy.deepcopy(self).layer.forward(x, self.rng((seed, STEP)))[0], self.rng((seed, OUTPUT))
        self.w = tuple(rng.normal(part.shape) for part in y) if isinstance(y, tuple) else rng.normal(y.shape)

    def loss(self, x, rng, labels=None):
        """L = Σ w y with fixed random numbers w, so dy = w."""
        self.params.zero_grad()
        y, backward = self.layer.forward(x, rng)
        backward(self.w)
        pairs = zip(self.w, y) if isinstance(y, tuple) else [(self.w, y)]
        return {"loss": sum((w * part).sum() for w, part in pairs)}

    def train_step(self, x, rng, labels=None):
        return self.loss(x, rng)


def move(params: Parameters, seed: int) -> None:
    """Move weights by 0.1 N(0, 1): at exact zeros, with which many weights start, ReLU has no derivative."""
    params.theta += 0.1 * params.rng.like((seed, MOVE)).normal(params.theta.shape)
    params.changed()


def explain(
    what: Any,
    x: Any = None,
    labels: Array | None = None,
    *,
    objective: str | None = None,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    mode: str = "auto",
    name: str = "",
) -> Explanation:
    """An Explanation of one training step.

    what: a Model or a class of models, or a Layer. Without x, a class of models makes its own tiny example with these
        settings, a model takes a batch of random numbers, and a class of layers makes its example.
    x: a batch (B, n_features); for a layer its input, or the shape of an input, or a tuple of these. labels: as train_step
        takes them. name: of the data, for the title.
    objective: show only this one of the model's objectives.
    mode: "entries" compares gradients of up to 48 numbers number by number with the complex step, and larger ones along one
        random direction; "directions" all along one direction; "auto" is "directions" if a model gets x, else "entries".
    A model on a GPU is copied to the host, where all runs. Raises UsageError for an objective that the model does not have.
    """
    if mode not in ("auto", "entries", "directions"):
        raise ValueError(f"explain: unknown mode {mode!r}; use auto, entries or directions")
    kind = what if isinstance(what, type) else type(what)
    rng = Rng((seed, 1), "float64")
    if issubclass(kind, Layer):
        if what is kind:
            what, x = kind.example(rng) if hasattr(kind, "example") and x is None else (what, x)
        if what is kind or x is None:
            raise UsageError(f"{kind.__name__}: give a layer and its input, explain({kind.__name__}(...), x)")
        several, parts, _ = layer_inputs(x, seed)
        if not on_host(getattr(what.params, "theta", 0)):
            raise UsageError(f"{kind.__name__}: its weights are on a GPU, but explain runs on the CPU; make it there")
        x = tuple(parts) if several else parts[0]
        model, title = OneLayer(what, x, seed), f"{kind.__name__}: forward and backward"
        return explained(model, title, [first_line(kind)], {"x": x}, None, seed, mode.replace("auto", "entries"))
    if not issubclass(kind, Model):
        raise UsageError(f"{what!r}: expected a model, a class of models or a layer")
    notes = [sys.modules[kind.__module__].__doc__ or first_line(kind)]
    mode = mode.replace("auto", "entries" if x is None else "directions")
    if what is kind:
        model, batch = kind.example(rng, **settings or {})
        if x is not None:
            raise UsageError(f"{kind.__name__}: a class has no weights; make a model to explain it on data")
        for inner, params in model.parameters().items():
            if "." not in inner:
                move(params, seed)
        notes.append(MOVED)
    else:
        model = host_copy(what)
        given = {field: getattr(what, field) for field in model.settings()}
        batch = {"x": x, "labels": labels} if x is not None else kind.example(rng, **given)[1]
    if objective is not None and objective not in model.objectives:
        raise UsageError(
            f"objective {objective!r}: a {kind.__name__} has no such objective; use one of {', '.join(model.objectives)}"
        )
    batch = model.on_device(**batch)
    said = f"on {name}" if name else "on its tiny example" if what is kind else "on a batch"
    title = f"{kind.__name__}: one training step {said}"
    return explained(model, title, notes, batch, objective, seed, mode)


def host_copy(model):
    """A copy of a model in the host's memory."""
    params = next(iter(model.parameters().values()))
    if on_host(params.theta):
        return copy.deepcopy(model)
    twin = type(model)(**model.settings()).build(Rng(0, params.theta.dtype))
    twin.load_state(model.state())
    return twin


def explained(model, title, notes, batch, objective, seed, mode):
    """The Explanation of one train_step of a model, which makes it."""
    start, rng = copy.deepcopy(model), model.rng((seed, STEP))
    recorder = Recorder(model, objective)
    kept = {name: before(params) for name, params in model.parameters().items()}
    recorder.record(lambda: model.train_step(**batch, rng=rng))
    timeline = recorder.timeline
    if not isinstance(model, OneLayer) and not any(isinstance(part, Update) for part in timeline):
        timeline += [
            Update("", None, {}, [], params, kept[name], rows(params, kept[name])[0])
            for name, params in model.parameters().items()
        ]
    for missing in [name for name in model.objectives if objective in (None, name)]:
        if not any(isinstance(part, Pass) and part.name == missing and part.shown for part in timeline):
            alone = Recorder(copy.deepcopy(start))
            alone.record(
                lambda alone=alone, name=missing: getattr(alone.model, name)(**batch, rng=model.rng((seed, STEP)))
            )
            timeline[:0] = alone.timeline
            alone.timeline[0].alone = True
    for number, event in enumerate((event for part in timeline for event in getattr(part, "events", ())), start=1):
        event.number = number
    for part in timeline:
        if isinstance(part, Pass) and part.shown and (problem := measure(part, copy.deepcopy(start), mode, seed)):
            notes = [*notes, problem]
    shapes = ", ".join(f"{name} {np.shape(part)}" for name, value in batch.items() for _, part in leaves(value))
    notes = [f"{shapes}; {model.rng(0).dtype}, seed {seed}", *notes]
    return Explanation(title, [note.strip() for note in notes if note.strip()], model, rng, timeline)


__all__ = ["Aside", "Explanation", "Pass", "Update", "explain"]
