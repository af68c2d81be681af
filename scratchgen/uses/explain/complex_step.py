"""Every gradient of a watched pass, measured: the pass runs again, with one array moved where the gradient belongs.

    Im L(a + ih)/h = dL/da,      a: what goes into a call, what comes out of it, or the weights during it

So dx is measured at the input of one layer, dy at its output, and dW with weights that are moved during this call alone. As
in check/derivative.py, h = 1e-20 and no digits are lost. A few numbers are moved one after the other; of many, all together
along one random direction of ±1. Of a loss, whose gradient belongs to its own value, only the loss is run again.
"""

import contextlib
import copy
import warnings

import numpy as np

from ...backend import Rng
from ...check.derivative import CENTRAL, COMPLEX, SINGLE_TOLERANCE, TOLERANCE, Check, H
from ...check.report import explain as clue_of
from ...nn.layer import Layer, Weight
from ...nn.parameters import Parameters
from .trace import layers_of, seen

FEW = 48  # up to so many numbers are shown, and measured, one by one
FLOOR = 1e-3  # the error of a gradient is relative to at least this share of the largest one of its pass
SINGLE = 100 * SINGLE_TOLERANCE[COMPLEX]  # of gradients that were computed in float32


class _Moves(Layer):
    """How far each place is moved: a weight, at first 0, of the shape of its gradient."""

    def __init__(self, shapes):
        for i, shape in enumerate(shapes):
            setattr(self, f"move{i}", Weight(shape))


class Nudge:
    """A handler for `seen` that moves one array by `move`, at the place of one gradient."""

    def __init__(self):
        self.counts, self.place, self.move = {}, (), None

    def call(self, name, target, method, frame, function, given, named):
        count = self.counts[name, method] = self.counts.get((name, method), -1) + 1
        if self.place[1] != (name, method, count):
            return function(*given, **named)
        kind, _, where = self.place
        if kind == "in":
            return function(*moved(given, where, self.move), **named)
        if kind == "weight":
            function = self.with_weights(target, where, function)
        result = function(*given, **named)
        if method == "forward_twice":
            y, back, gradient = result
            gradient = self.with_weights(target, where, gradient) if kind == "weight" else gradient
            return moved(y, where, self.move) if kind == "out" else y, back, self.in_gradient(kind, gradient)
        if kind == "out":
            return (moved(result[0], where, self.move), *result[1:])
        return result

    def with_weights(self, layer, name, function):
        """The same function, run with weights of the layer that are moved."""

        def run(*given, **named):
            weight = getattr(layer, name)
            kept = weight.copy()
            weight[...] = kept + self.move
            try:
                return function(*given, **named)
            finally:
                weight[...] = kept

        return run

    def in_gradient(self, kind, gradient):
        """The same function u -> g, double_backward, with u or g moved."""

        def run(u):
            g, double = gradient(u + self.move if kind == "u" else u)
            return g + self.move if kind == "g" else g, double

        return run


def moved(value, path, move):
    """value, which may be a tuple of arrays, with the part at a path moved."""
    if not path:
        return value + move
    return tuple(moved(part, path[1:], move) if i == path[0] else part for i, part in enumerate(value))


class Remake:
    """Runs a pass again, on a copy of the model: remake() is the objective's value at the present move.

    terms: {name: value} of all numbers that the objective returned.
    """

    def __init__(self, part, model, gradients):
        self.part, self.model, self.gradients = part, model, gradients
        self.layers, self.nudge, self.terms = layers_of(model), Nudge(), {}
        self.params = getattr(model, part.params)
        self.everything = list(model.parameters().values())
        self.moves = _Moves([np.shape(g.array) for g in gradients])
        self.offsets = Parameters(Rng(0, "float64"), moves=self.moves)
        model.load_state(part.state)
        self.now = 0

    def __call__(self):
        kind, key, *_ = place = ("", "") if self.now is None else self.gradients[self.now].place
        move = None if self.now is None else getattr(self.moves, f"move{self.now}")
        if kind == "alone":
            event, self.terms = self.gradients[self.now].event, {}
            return event.target(*moved(event.given, place[2], move))[0]
        self.nudge.place, self.nudge.move, self.nudge.counts = place, move, {}
        weight = self.params.named()[key] if kind == "all" else None
        kept = None if weight is None else weight.copy()
        if weight is not None:
            weight += move
        try:
            with seen(self.layers, self.nudge):
                self.terms = getattr(self.model, self.part.name)(
                    *map(self.again, self.part.given),
                    **{name: self.again(value) for name, value in self.part.named.items()},
                )
        finally:
            if weight is not None:
                weight[...] = kept
        return self.terms[self.part.name]

    def again(self, value):
        """An argument of the pass. The random stream starts where it was, and makes arrays in the present precision."""
        if not isinstance(value, Rng):
            return value
        rng = copy.deepcopy(self.part.rng)
        rng.dtype = self.params.theta.dtype
        return rng

    def first(self):
        """The value, with nothing moved. What a model makes only once, such as a Reflow's pairs, is made now."""
        self.now = None
        return self()

    def derivatives(self, check, i, derivative):
        """[(name, numbers)] of the derivatives along each direction of gradient i; the objective comes first."""
        g, where, found, self.now = self.gradients[i], self.offsets.slices()[f"moves.move{i}"], [], i
        for direction in units(g.array) if g.signs is None else [g.signs]:
            flat = np.zeros(self.offsets.theta.size)
            flat[where] = direction.reshape(-1)
            check.analytic, check.size = 0 * flat, abs(self.part.losses[self.part.name])
            check.analytic[where] = g.total.reshape(-1)
            numbers = {self.part.name: derivative(flat)}
            found.append({name: complex(term).imag / H[COMPLEX] for name, term in self.terms.items()} | numbers)
        names = dict.fromkeys([self.part.name, *found[0]]) if found else ()
        return [(name, np.array([numbers[name] for numbers in found])) for name in names]

    def kink(self, check, i):
        """Whether a gradient lies on a kink, such as that of ReLU at 0, and so has no derivative."""
        g, where = self.gradients[i], self.offsets.slices()[f"moves.move{i}"]
        directions = units(g.array) if g.signs is None else [g.signs]
        for direction in directions:
            flat = np.zeros(self.offsets.theta.size)
            flat[where] = direction.reshape(-1)
            if check.kink(flat, np.abs(g.total).max(initial=0) or 1.0):
                return True
        return False

    def cast(self, dtype):
        """A Check of the measured derivatives, in this precision."""
        for params in (self.offsets, *self.everything):
            params.cast(dtype)
        return Check(self, self.offsets, [self.offsets, *self.everything], self.part.name, 0)


def measure(part, model, mode, seed=0):
    """Measure every gradient of a Pass. Returns why this was not possible, or "". model: a copy, whose state this changes.

    mode: "entries" moves each number of a gradient of up to FEW; "directions" moves all of each gradient together.
    """
    gradients = [g for g in part.gradients if g.wanted]
    if not gradients:
        return ""
    remake = Remake(part, model, gradients)
    if remake.first() != part.losses[part.name]:
        return f"{part.name} run again with equal random numbers gives another value, so nothing is compared"
    single = remake.params.theta.dtype == np.float32
    floor = FLOOR * max(np.abs(g.total).max(initial=0) for g in gradients)
    rng = np.random.default_rng(seed)
    for g in gradients:
        g.objective = part.name
        g.signs = None if mode == "entries" and g.array.size <= FEW else rng.choice([-1.0, 1.0], g.array.shape)
    with np.errstate(all="ignore"), warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)  # a forward pass may not take complex numbers
        check = remake.cast("complex128")
        for i, g in enumerate(gradients):
            found = remake.derivatives(check, i, lambda flat: check.derivative(flat, COMPLEX)[0])
            settle(g, found, COMPLEX, SINGLE if single else TOLERANCE[COMPLEX], floor)
    doubtful = [i for i, g in enumerate(gradients) if not g.right]  # or abs, sign, ... have lost the imaginary part
    check = remake.cast("float64") if doubtful else None
    for i in doubtful:
        g, found = gradients[i], remake.derivatives(check, i, lambda flat: check.central(flat)[0])[:1]
        settle(g, found, CENTRAL, SINGLE if single else TOLERANCE[CENTRAL], floor)
        g.kink = not g.right and remake.kink(check, i)
    weights = [g for g in gradients if g.place[0] in ("weight", "all")]
    all_learn_right = bool(weights) and all(g.right or g.kink for g in weights)
    for g in [g for g in gradients if not g.right and not g.kink]:
        g.split = all_learn_right and g.event is not None and not g.event.is_layer
        if g.signs is None:
            g.clue = clue_of(g.total.reshape(-1), g.numeric.reshape(-1), g.tolerance * np.abs(g.total).max(initial=0))
    return ""


def settle(g, found, method, tolerance, floor):
    """Keep the first of the measured derivatives, [(name, numbers)], that agrees with a gradient; else the very first."""
    for of, numbers in found:
        numeric = numbers.reshape(g.array.shape) if g.signs is None else (float((g.total * g.signs).sum()), numbers[0])
        size = np.abs(g.total).max(initial=0) if g.signs is None else np.linalg.norm(g.total)
        a, b = (g.total, numeric) if g.signs is None else (numeric[0], numeric[1])
        error = np.abs(a - b).max(initial=0) / (max(size, np.abs(b).max(initial=0), floor) or 1.0)
        error = float(error) if np.isfinite(error) else np.inf
        if g.error is None or (error <= tolerance and not g.right):
            g.numeric, g.error, g.tolerance, g.of, g.method = numeric, error, tolerance, of, method


def units(array):
    """Each direction in which one number of an array is moved."""
    for i in range(np.size(array)):
        unit = np.zeros(np.size(array))
        unit[i] = 1
        yield unit.reshape(np.shape(array))
