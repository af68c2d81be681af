"""What every model is: settings, networks built from them, objectives with hand-written gradients, and a state to save.

A model file reads from top to bottom: the settings are dataclass fields, build(rng) makes networks and optimizers, loss(...)
is the objective with its backward pass written out, train_step(...) is one update, and sample(...) generates.
"""

import dataclasses
import inspect
import math
from typing import Literal, get_args, get_origin

from .backend import UsageError
from .layer import Parameters


def accepted(function, given):
    """Those of the given arguments {name: value} that the function's signature names."""
    return {name: given[name] for name in inspect.signature(function).parameters if name in given}


def call(function, **given):
    """Call a function with those of the given arguments that its signature names."""
    return function(**accepted(function, given))


class Model:
    """Base of all models; subclasses are dataclasses (eq=False) whose fields are the settings.

    objectives: {method name: name of the Parameters it differentiates}. An objective zeroes that gradient and leaves it
        fresh, steps no optimizer, and returns a dict whose entry of its own name is the value differentiated. Given
        equal rngs it is a pure function, running statistics aside.
    variants: settings with which the gradient check tries the model, beside the defaults of example.
    """

    objectives = {"loss": "params"}
    variants = ({},)
    uses_stop = False  # True where a value contains stop(): central differences do not see it

    def __post_init__(self):
        for field in dataclasses.fields(self):
            setattr(self, field.name, check_setting(type(self), field, getattr(self, field.name)))

    def build(self, rng):
        """Make networks, Parameters and optimizers with weights from rng. Returns the model."""
        raise TypeError(f"{type(self).__name__} must define build(self, rng)")

    @classmethod
    def example(cls, rng, **settings):
        """A tiny model and a batch for it, {argument name: array}: the start of every automatic check."""
        raise TypeError(f"{cls.__name__} must define example(cls, rng, **settings)")

    def check_data(self, x):
        """Raise UsageError if this model cannot learn from pixels or points like x (N, n_features)."""

    def settings(self):
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def parameters(self):
        """{name: Parameters} of this model."""
        return {name: part for name, part in vars(self).items() if isinstance(part, Parameters)}

    def rng(self, seed):
        """A random stream with this model's precision, on its device."""
        return next(iter(self.parameters().values())).rng.like(seed)

    def state(self):
        """{name: live array} of all that training changes: weights, buffers, optimizers, averages, nested models."""
        parts = {name: part.state() for name, part in vars(self).items() if hasattr(part, "state")}
        return {f"{name}.{key}": array for name, arrays in parts.items() for key, array in arrays.items()}

    def load_state(self, arrays):
        """Write saved arrays into the live ones. Raises UsageError, before anything is written, where one does not fit."""
        state = self.state()
        if state.keys() != arrays.keys():
            raise UsageError(
                f"the arrays of another model: {sorted(state.keys() ^ arrays.keys())[0]} is on one side only"
            )
        for name, live in state.items():
            if live.shape != arrays[name].shape:
                raise UsageError(
                    f"the arrays of another model: {name} has shape {arrays[name].shape}, expected {live.shape}"
                )
        rng = self.rng(0)
        for name, live in state.items():
            live[...] = arrays[name] if isinstance(live, type(arrays[name])) else rng.array(arrays[name])
        for params in self.parameters().values():
            params.changed()


def check_setting(model, field, value):
    """The value of one setting, checked: its type, one of its choices, and its range by its name.

    n_... and batch count something, lr is a step, c a variance: they must be > 0; every other number must be >= 0.
    """
    name, kind = f"{model.__name__} setting {field.name}", field.type
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{name}: {value!r} is unknown, use one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)) or not all(type(n) is int and n > 0 for n in value):
            raise UsageError(f"{name}: expected positive whole numbers such as (400, 200), got {value!r}")
        return tuple(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UsageError(f"{name}: expected {kind.__name__}, got {value!r}")
    if kind in (int, float):
        positive = field.name.startswith("n_") or field.name in ("batch", "lr", "c")
        if not math.isfinite(value) or value < 0 or (positive and value == 0):
            raise UsageError(f"{name}: expected a number {'> 0' if positive else '>= 0'}, got {value!r}")
    return value


def parse_settings(model, assignments):
    """{name: value} from strings such as "hidden=400,200", by the types of the model's fields.

    Raises UsageError for an unknown name, a missing = or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(model)}
    settings = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected name=value")
        if name not in fields:
            raise UsageError(f"--set {name}: {model.__name__} has no such setting, use one of {', '.join(fields)}")
        kind = fields[name].type
        try:
            if get_origin(kind) is tuple:
                value = tuple(int(part) for part in text.split(",") if part.strip())
            elif kind is bool:
                value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            else:
                value = text if get_origin(kind) is Literal else kind(text)
        except (ValueError, KeyError):
            words = {int: "a whole number", float: "a number", bool: "true or false"}
            raise UsageError(
                f"--set {name}={text}: expected {words.get(kind, 'whole numbers such as 400,200')}"
            ) from None
        settings[name] = check_setting(model, fields[name], value)
    return settings
