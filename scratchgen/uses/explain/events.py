"""What is noted of a training step: events, the arrays and gradients in them, and what the optimizers do."""

import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...nn.layer import Layer

ROOT = Path(__file__).parents[2]  # the library's folder: its files are named as seen from here


@dataclass(eq=False)
class Entry:
    """An array of an event, copied, because it may be changed later. origin: the array itself.

    same: the earlier entry with this origin, or None. hidden: an event inside this one shows it.
    """

    name: str
    origin: Any
    event: Any
    same: Any = None
    hidden: bool = False

    def __post_init__(self):
        self.array = np.array(self.origin)


@dataclass(eq=False)
class Gradient(Entry):
    """A gradient written by hand, and what the complex step says about it: complex_step.py.

    place: what is moved to measure it: ("in", key of a call, path of the argument), ("out", key, path of the result),
    ("weight", key, name); for a gradient penalty ("u", key, ()) and ("g", key, ()); for a loss by itself ("alone", key,
    path); for all calls together ("all", name of the tensor). also: other gradients of this place, which count only together
    with it.
    """

    place: tuple = ()
    also: tuple = ()
    counted_in: Any = None  # the gradient that names this one in `also`
    numeric: Any = None  # an array like this one; along a direction: (the number of this gradient, the measured one)
    error: Any = None  # the largest difference, relative to the tensor's largest number; None if nothing was measured
    tolerance: float = 0.0
    of: str = ""  # which of the numbers that the objective returns is differentiated
    objective: str = ""
    method: str = ""
    signs: Any = None  # the direction along which it was measured; None: each number by itself
    kink: bool = False  # it has no derivative here, as ReLU has none at 0
    split: bool = False  # it differs, but all weights are right: the model joins it with another gradient
    clue: str = ""  # what the difference suggests

    @property
    def right(self):
        """Whether it agrees with what was measured. None if nothing was."""
        return None if self.error is None else self.error <= self.tolerance

    @property
    def wanted(self):
        """Whether it must be measured: not if it is shown elsewhere, or is the very array of an earlier gradient."""
        return not (self.hidden or isinstance(self.same, Gradient) or self.counted_in)

    @property
    def total(self):
        return self.array + sum(other.array for other in self.also)


DERIVATIVE = re.compile(r"d\S* (\+=|=|←) |∂|f′")  # how a formula of a gradient begins
FORMULAS = {"gradient": "g = Jᵀ u,   J = ∂y/∂x", "double": "du = J v,   v = ∂loss/∂g"}


@dataclass(eq=False)
class Event:
    """A call of a layer or of a watched function ("forward"), or of a function that such a call returned.

    direction: "forward" or "backward". A gradient penalty also has "gradient": the gradient of the output in the input is
    computed, and its backward, "double". call: the forward event that this belongs to, for a forward event itself.
    key: (name, method, how many such calls came before it in the pass). where: [(code, line)] of those functions of the
    model that were running, the innermost first. inside: the event around this one, or None.
    """

    number: int
    direction: str
    name: str
    target: Any
    key: tuple
    where: list
    inside: Any
    code: Any  # of the function that ran
    call: Any = None
    entries: list = field(default_factory=list)
    gradients: list = field(default_factory=list)
    answers: list = field(default_factory=list)  # for a forward event: the events that belong to it
    given: tuple = ()
    result: Any = None
    learn: bool = True
    inputs: bool = True
    used: bool = False  # called as layer(x), so that nobody can want its backward
    repeats: int = 0  # how many calls like this one followed directly and are not noted

    @property
    def is_layer(self):
        return isinstance(self.target, Layer)

    @property
    def kind(self):
        """The name of the layer's class, or "" for a function."""
        return type(self.target).__name__ if self.is_layer else ""

    @property
    def depth(self):
        return 0 if self.inside is None else self.inside.depth + 1

    @property
    def formula(self):
        """What the docstring's first line says about this direction: y = ..., or the gradients, or these of a later line."""
        of = type(self.target) if self.is_layer else self.target
        first, *rest = re.split(r"[.]? {3,}", first_line(of))
        if self.direction in FORMULAS:
            return FORMULAS[self.direction]
        if self.direction == "forward":
            return first if self.is_layer else ",   ".join(part.strip(",;") for part in (first, *rest))
        found = [part.strip(",;") for part in rest if "=" in part and not part.endswith(":")]
        if not any(DERIVATIVE.match(part) for part in found):
            later = [line.strip() for line in (of.__doc__ or "").splitlines()[1:]]
            found = [line for line in later if DERIVATIVE.match(line)][:1] or found
        return ",   ".join(found)

    def around(self, other):
        """Whether another event is inside this one."""
        while other is not None and other is not self:
            other = other.inside
        return other is self


@dataclass(eq=False)
class Pass:
    """One run of an objective. state, rng: what the model's state and the random stream were when it started."""

    name: str
    params: str
    said: str
    where: list
    given: tuple
    named: dict
    state: dict
    rng: Any
    shown: bool = True
    again: bool = False  # the objective ran before, and that pass is shown
    alone: bool = False  # train_step does not call it
    events: list = field(default_factory=list)
    losses: dict = field(default_factory=dict)
    totals: list = field(default_factory=list)  # gradients of whole weights to which several calls have added

    @property
    def gradients(self):
        return [g for event in self.events for g in event.gradients] + self.totals


@dataclass(eq=False)
class Update:
    """One step of an optimizer, of averaged weights or of a scheduled number. rows: one for each tensor, if weights moved.

    others: something else also changed the weights before the next event, such as clipping.
    """

    name: str
    stepper: Any
    numbers: dict
    where: list
    params: Any
    before: tuple
    rows: list = field(default_factory=list)
    others: bool = False
    shown: bool = True

    @property
    def formula(self):
        return first_line(type(self.stepper)) if self.stepper else ""


@dataclass(eq=False)
class Aside:
    """Calls outside of the objectives, such as a new look at the data after the update."""

    events: list = field(default_factory=list)
    shown: bool = True
    gradients = ()


@dataclass
class Row:
    """What an update did to a tensor: norms of its weights, of their gradient and of their change."""

    name: str
    shape: tuple
    theta: float
    grad: float
    change: float

    @property
    def share(self):
        """‖Δθ‖ / ‖θ‖."""
        return self.change / self.theta if self.theta else float("inf") if self.change else 0.0


def first_line(thing):
    """The first line of the docstring of a class or a function itself, or ""."""
    doc = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    return (doc or "").strip().partition("\n")[0]


def code_of(function):
    """The code of a function as it was written, or None."""
    return getattr(inspect.unwrap(function), "__code__", None)


def short(file):
    path = Path(file)
    for folder in (ROOT, Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


# ---- small things ----


def leaves(value, path=()):
    """(path, part) of each part of a value, which may be a tuple or list of parts, also nested."""
    if isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            yield from leaves(part, (*path, i))
    else:
        yield path, value


def part_of(value, path):
    """The part at a path, or None if there is none."""
    for i in path:
        if not isinstance(value, (tuple, list)) or i >= len(value):
            return None
        value = value[i]
    return value


def is_float(value):
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fc"


def own_weights(target):
    """The names of the learned weights that a layer itself declares."""
    weights = vars(target).get("_weights", {}) if isinstance(target, Layer) else {}
    return [name for name, weight in weights.items() if weight.learned]
