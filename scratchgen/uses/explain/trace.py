"""One training step, watched: which layers and losses run, in which order, called from which line, with which numbers.

Losses and samplers are `watched` functions where they are defined, and every optimizer calls its observers. A layer is no
such function, because anybody may write one. So while the step runs, each layer of a copy of the model has an attribute
`forward` of its own. It notes what goes in and out, and calls the forward of the class. The backward function that comes
out is wrapped in the same way. Nothing that is noted goes back into the step, so its numbers are those of any other step.
"""

import contextlib
import copy
import functools
import inspect
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ...backend import Rng
from ...kernels import watching
from ...models.base import Model
from ...nn import batch
from ...nn.layer import Layer, layers_in
from ...nn.optim import observed
from .events import (
    Aside,
    Entry,
    Event,
    Gradient,
    Pass,
    Row,
    Update,
    code_of,
    first_line,
    is_float,
    leaves,
    own_weights,
    part_of,
)
from .names import arguments, d_of, functions_of, output_names, parameter_names, unpacked

# ---- how calls are seen ----


def layers_of(model):
    """{name: layer} of a model and of the models inside it, with the names that Parameters gives."""
    own = [params for name, params in model.parameters().items() if "." not in name]
    roots = [full.partition(".")[0] for params in own for full in params.named()]
    found: dict[int, tuple] = {}

    def walk(name, layer):
        if id(layer) not in found:
            found[id(layer)] = name, layer
            for below, child in layer.children():
                walk(f"{name}.{below}", child)

    for name in dict.fromkeys([root for root in roots if root in vars(model)] + list(vars(model))):
        value = vars(model)[name]
        inner = layers_of(value).items() if isinstance(value, Model) else ()
        for path, layer in [*layers_in(name, value), *((f"{name}.{path}", layer) for path, layer in inner)]:
            walk(path, layer)
    return dict(found.values())


@contextlib.contextmanager
def seen(layers, handler):
    """A context in which handler.call stands in for forward and forward_twice of layers, and for every watched function
    but those of nn/batch.py.

    layers: {name: layer}. It gets (name, target, method, frame, function, given, named): target is the layer or the watched
    function, frame that of the caller, and function(*given, **named) does what would have been done.
    """

    def instead(name, layer, method, function, *given, **named):
        return handler.call(name, layer, method, sys._getframe(1), function, given, named)

    def watcher(function, given, named):
        if function.__module__ == batch.__name__:  # which do nothing in one process
            return function(*given, **named)
        return handler.call(function.__name__, function, "", sys._getframe(2), function, given, named)

    for name, layer in layers.items():
        vars(layer)["forward"] = functools.partial(instead, name, layer, "forward", layer.forward)
        if type(layer).forward_twice is not Layer.forward_twice:
            vars(layer)["forward_twice"] = functools.partial(instead, name, layer, "forward_twice", layer.forward_twice)
    try:
        with watching(watcher):
            yield
    finally:
        for layer in layers.values():
            vars(layer).pop("forward", None)
            vars(layer).pop("forward_twice", None)


class Recorder:
    """Notes all that happens while a model makes a step. timeline: the Pass, Update and Aside objects in order."""

    def __init__(self, model, only=None):
        self.model, self.only = model, only
        self.layers, self.codes = layers_of(model), functions_of(type(model))
        self.timeline: list[Any] = []
        self.numbers = itertools.count(1)
        self.counts: dict[tuple, int] = {}  # how often each layer and function was called in the present pass
        self.stack: list[Event] = []  # the events that are going on, the innermost last
        self.quiet = False  # nothing is noted
        self.current: Any = None  # the Pass or Aside that is going on
        self.update: Any = None  # the last Update, until it is known what the weights are after it

    def record(self, run):
        """What run() returns, a function that makes the step."""
        for name in self.model.objectives:
            vars(self.model)[name] = functools.partial(self.objective, name, getattr(self.model, name))
        try:
            with seen(self.layers, self), observed(self.step):
                return run()
        finally:
            self.settle()
            for name in self.model.objectives:
                del vars(self.model)[name]
            for part in self.timeline:
                if not isinstance(part, Update):
                    find_the_same(part.events)

    def objective(self, name, method, *given, **named):
        """Stands in for an objective of the model."""
        if isinstance(self.current, Pass):  # one objective calls another
            return method(*given, **named)
        self.settle()
        state = {key: np.copy(array) for key, array in self.model.state().items()}
        rng = next((copy.deepcopy(part) for part in (*given, *named.values()) if isinstance(part, Rng)), None)
        repeated = any(isinstance(part, Pass) and part.name == name for part in self.timeline)
        params, where = self.model.objectives[name], self.where(sys._getframe(1))
        now = Pass(name, params, first_line(getattr(type(self.model), name)), where, given, named, state, rng)
        now.again, now.shown = repeated, not repeated and self.only in (None, name)
        self.timeline.append(now)
        self.current, self.quiet, self.counts = now, not now.shown, {}
        try:
            losses = method(*given, **named)
        finally:
            self.current, self.quiet = None, False
        now.losses = dict(losses)
        if now.shown:
            now.totals = totals(now.events, getattr(self.model, now.params))
        return losses

    def step(self, stepper, numbers):
        """The observer of every Stepper."""
        self.settle()
        names = [*inspect.signature(type(stepper).update).parameters][1:]
        name = next((name for name, part in vars(self.model).items() if part is stepper), "")
        p = stepper.params
        self.update = Update(name, stepper, dict(zip(names, numbers)), self.where(sys._getframe(1)), p, before(p))
        differentiated = [params for name, params in self.model.objectives.items() if self.only in (None, name)]
        self.update.shown = any(getattr(self.model, params) is p for params in differentiated)
        self.timeline.append(self.update)
        self.current = None
        return numbers

    def settle(self):
        """Look at what the last update has done to the weights, before something else happens."""
        if self.update is not None:
            self.update.rows, changes = rows(self.update.params, self.update.before)
            self.update.others = changes > 1
            self.update = None

    def where(self, frame):
        found = []
        while frame is not None:
            if frame.f_code in self.codes:
                found.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        return found

    def event(self, direction, name, target, key, frame, function, call=None):
        """A new event."""
        if self.current is None:
            self.settle()
            self.current = Aside()
            self.timeline.append(self.current)
        inside = self.stack[-1] if self.stack else None
        where, number = self.where(frame), next(self.numbers)
        event = Event(number, direction, name, target, key, where, inside, code_of(function), call)
        event.call = call or event
        self.current.events.append(event)
        return event

    def call(self, name, target, method, frame, function, given, named):
        """Stands in for a layer's forward or forward_twice, or for a watched function: see `seen`."""
        count = self.counts[name, method] = self.counts.get((name, method), -1) + 1
        used = frame.f_code is Layer.__call__.__code__
        if not self.quiet and used and self.again(name, frame):
            return self.quietly(function, given, named)
        own = self.stack and self.stack[-1].target is target  # forward_twice calls the layer's own forward
        if self.quiet or own:
            return self.quietly(function, given, named)
        original = getattr(type(target), method) if method else target
        event = self.event("forward", name, target, (name, method, count), frame, original)
        event.used = used
        with self.during(event):
            result = self.quietly(function, given, named) if used else function(*given, **named)
        names = parameter_names(original)
        event.given, event.result = arguments(names, given, named), result
        closures = [part for part in result if callable(part)] if isinstance(result, tuple) else []
        inside = unpacked(original)
        for argument, value in zip(names, event.given):
            note(event.entries, inside.get(argument, argument), value, event)
        if event.is_layer and not any(True for _ in target.children()):
            for weight in own_weights(target):
                event.entries.append(Entry(weight, self.weight(target, weight), event))
        y = result[0] if isinstance(result, tuple) else result
        note(event.entries, output_names(event, frame, y), y, event)
        if isinstance(result, tuple) and not closures:  # a loss: its value and its gradients
            ds = result[1] if len(result) == 2 and isinstance(result[1], tuple) else result[1:]
            for i, (argument, d) in enumerate(zip(names, ds)):
                if is_float(d):
                    event.gradients.append(Gradient(f"∂/∂{argument}", d, event, place=("alone", event.key, (i,))))
        if used or not closures:
            return result
        if method == "forward_twice":
            return y, self.wrapped(event, "backward", result[1]), self.wrapped(event, "gradient", result[2])
        return y, self.wrapped(event, "backward", result[1])

    def weight(self, layer, name):
        """A copy of a weight: that of an earlier call in this pass, if the numbers are the same."""
        now = getattr(layer, name)
        for event in self.current.events:
            for entry in event.entries if event.target is layer else ():
                if entry.name == name and np.array_equal(entry.array, now):
                    return entry.origin
        return now.copy()

    def again(self, name, frame):
        """Whether the event before this was the same call, from the same line, of a layer of which no backward is wanted."""
        last = self.current.events[-1] if self.current is not None and self.current.events else None
        if last is not None and last.used and last.name == name and last.where == self.where(frame):
            last.repeats += 1
            return True
        return False

    def quietly(self, function, given, named):
        self.quiet, before = True, self.quiet
        try:
            return function(*given, **named)
        finally:
            self.quiet = before

    @contextlib.contextmanager
    def during(self, event):
        self.stack.append(event)
        try:
            yield
        finally:
            self.stack.pop()

    def wrapped(self, call, direction, closure):
        """A function that a call has returned. It does the same, but is noted."""

        @functools.wraps(closure)
        def run(*given, **named):
            if self.quiet:
                return closure(*given, **named)
            frame = sys._getframe(1)
            event = self.event(direction, call.name, call.target, call.key, frame, closure, call)
            call.answers.append(event)
            names = parameter_names(closure)
            event.given = arguments(names, given, named)
            chosen = {**dict(zip(names, given)), **named}
            event.learn, event.inputs = chosen.get("learn", True), chosen.get("inputs", True)
            held = {name: getattr(call.target, "d" + name).copy() for name in own_weights(call.target)}
            with self.during(event):
                result = closure(*given, **named)
            if direction == "gradient":
                note(event.entries, "u", event.given[0], event)
                note(event.entries, "g", result[0], event)
                event.result = result[0]
                return result[0], self.wrapped(call, "double", result[1])
            NOTES[direction](event, result)
            if event.learn:
                for name, old in held.items():
                    d = getattr(call.target, "d" + name) - old
                    event.gradients.append(Gradient(d_of(name), d, event, place=("weight", call.key, name)))
            return result

        return run


def note_backward(event, result):
    """Note dy and dx."""
    call, given = event.call, event.given[0] if event.given else None
    dx = result if event.inputs else None
    leads_on = not call.is_layer or dx is not None or own_weights(call.target) or [*call.target.children()]
    for path, d in leaves(given):
        if leads_on:
            note_gradient(event, d, part_of(call.result[0], path), ("out", call.key, path), "y")
        elif is_float(d):  # only running statistics learn from it
            event.entries.append(Entry("dy", d, event))
    several = not call.is_layer and isinstance(dx, tuple)
    for path, d in leaves(dx):
        path = path if several else (0, *path)
        note_gradient(event, d, part_of(call.given, path), ("in", call.key, path), "x")


def note_double(event, result):
    """Note v, du and dx of a double backward."""
    call, (du, dx) = event.call, result
    event.gradients.append(Gradient("v", event.given[0], event, place=("g", call.key, ())))
    event.gradients.append(Gradient("du", du, event, place=("u", call.key, ())))
    if event.inputs and dx is not None:
        event.gradients.append(Gradient("dx", dx, event, place=("in", call.key, (0,))))


def note_gradient(event, d, of, place, name):
    """A Gradient d of the array `of`, if it is one. It is called d and the name of this array, or else d and `name`."""
    if d is not None and is_float(of) and np.shape(d) == np.shape(of):
        name = next((entry.name for entry in event.call.entries if entry.origin is of), name)
        event.gradients.append(Gradient(d_of(name), d, event, place=place))


NOTES: dict[str, Callable] = {"backward": note_backward, "double": note_double}


def note(entries, name, value, event):
    """An entry for each array in a value. name: of the value, or a tuple of names like the value."""
    for path, part in leaves(value):
        if isinstance(part, (np.ndarray, np.generic)):
            said = name
            for i in path:
                said = said[min(i, len(said) - 1)] if isinstance(said, tuple) else f"{said}[{i}]"
            entries.append(Entry(said if said and isinstance(said, str) else "y", part, event))


# ---- after a pass or an update ----


def find_the_same(events):
    """Set `same` and `hidden` of all entries, and join gradients of a penalty that count only together."""
    sharing: dict[int, list] = {}
    for event in events:
        for entry in (*event.entries, *event.gradients):
            if isinstance(entry.origin, np.ndarray) and entry.array.ndim:
                sharing.setdefault(id(entry.origin), []).append(entry)
    for entries in sharing.values():
        for entry in entries:
            entry.hidden = any(e.event is not entry.event and entry.event.around(e.event) for e in entries)
        shown = [entry for entry in entries if not entry.hidden]
        for entry in shown[1:]:
            entry.same = shown[0]
    for event in events:
        if event.key[1] == "forward_twice" and event.direction == "forward":
            together: dict[tuple, list] = {}
            for answer in event.answers:
                for g in answer.gradients:
                    if g.place[0] in ("in", "weight"):
                        together.setdefault(g.place, []).append(g)
            for *others, last in together.values():
                last.also = tuple(others)
                for g in others:
                    g.counted_in = last


def totals(events, params):
    """Gradients of those tensors of params whose gradient is not that of one call alone."""
    added: dict[tuple, list] = {}
    for event in events:
        for g in event.gradients:
            if g.place[0] == "weight":
                added.setdefault((id(event.target), g.place[2]), []).append(g)
    found = []
    for full, layer, name, weight, _ in params._places:
        if weight.learned:
            parts, grad = added.get((id(layer), name), []), getattr(layer, "d" + name)
            if len(parts) != 1 or not np.array_equal(parts[0].array, grad):
                found.append(Gradient(f"d {full}", grad, None, place=("all", full)))
    return found


def before(params):
    """What is remembered of Parameters before an update."""
    return params.theta.copy(), params.grad.copy(), params.version


def rows(params, remembered):
    """([Row of each tensor], how often the weights were changed) since `before`. No rows if no weight has moved."""
    theta, grad, version = remembered
    found = []
    for name, where in params.slices().items():
        change = params.theta[where] - theta[where]
        norms = (float(np.linalg.norm(vector)) for vector in (theta[where], grad[where], change))
        found.append(Row(name, params.named()[name].shape, *norms))
    return found if any(row.change for row in found) else [], params.version - version
