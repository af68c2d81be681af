"""The checks of a model's settings, which may come from Python, from --set on the command line or from a checkpoint.

The types of the dataclass fields are the schema: int, float, bool, tuple[int, ...], Literal[choices], or the class of a
model. The value of the last is a model, or its settings, or on the command line the folder of its run. The range of a number
belongs to its type: `eta: Share = 0.0`. A plain int or float may be any finite number. Rules that involve several settings
are in rules.py.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin

import numpy as np

from ..backend import UsageError


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may have: from low to high. Each end is included unless it is open."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    even: bool = False

    def __contains__(self, value):
        low = value > self.low if self.open_low else value >= self.low
        high = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and low and high and not (self.even and value % 2)

    def __str__(self):
        """The range in words, such as ">= 0 and < 1", or "" if any finite number is allowed."""
        ends = [f"{'>' if self.open_low else '>='} {self.low:g}"] if self.low > -math.inf else []
        ends += [f"{'<' if self.open_high else '<='} {self.high:g}"] if self.high < math.inf else []
        return " and ".join(ends + ["even"] * self.even)


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, open_high=True)]


def type_and_range(kind):
    """(the plain type of a field, its Range): (float, Range(0, 1)) for Share, (float, Range()) for float."""
    return get_args(kind)[:2] if get_origin(kind) is Annotated else (kind, Range())


def is_model(kind):
    """Whether a field of this type holds a model inside another."""
    return hasattr(kind, "objectives")


def trained_class(field):
    """The class of the model that is trained first for a field that holds a model: its type, or a class that extends it."""
    return field.metadata.get("trained_class", field.type)


def check_setting(model, field, value):
    """The value of one setting. Raises UsageError unless it has the field's type and lies in its choices or its range."""
    name, (kind, allowed) = f"{model.__name__} setting {field.name}", type_and_range(field.type)
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value  # a plain Python value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{name}: {value!r} is unknown; use one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        whole = isinstance(value, (tuple, list)) and all(isinstance(n, (int, np.integer)) and n > 0 for n in value)
        if not whole or bool in map(type, value):
            raise UsageError(f"{name}: expected positive whole numbers such as (400, 200), got {value!r}")
        return tuple(map(int, value))
    if is_model(kind):
        value = kind(**value) if isinstance(value, dict) else value
        if not isinstance(value, kind):
            got = f"a {type(value).__name__}" if is_model(value) else repr(value)
            raise UsageError(f"{name}: expected a {kind.__name__} or its settings, got {got}")
        return value
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UsageError(f"{name}: expected {kind.__name__}, got {value!r}")
    if kind in (int, float) and value not in allowed:
        raise UsageError(f"{name}: expected a number {str(allowed) or 'that is finite'}, got {value!r}")
    return value
