"""A model's settings: checked whether they come from Python, from --set on the command line or from a checkpoint.

The types of the dataclass fields are the schema: int, float, bool, tuple[int, ...], Literal[choices], and the class of a
model, whose value is a model, its settings, or on the command line the folder of its run.
"""

import math
from typing import Literal, get_args, get_origin

import numpy as np

from ..backend import UsageError

POSITIVE = ("batch", "c", "k", "g_steps", "pack")
FRACTIONS = (
    "mask", "dropout", "spared", "label_noise", "label_smoothing", "label_dropout", "momentum", "beta1", "beta2",
    "averaging", "decay",
)  # fmt: skip


def is_model(kind):
    """Whether a field of this type holds a model inside another."""
    return hasattr(kind, "objectives")


def check_setting(model, field, value):
    """The value of one setting, checked: its type, one of its choices, and its range by its name.

    n_... and POSITIVE count something or are a bound, lr... is a step: they must be > 0. Every other number must be >= 0,
    and FRACTIONS below 1.
    """
    name, kind = f"{model.__name__} setting {field.name}", field.type
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value  # as Python has it
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{name}: {value!r} is unknown, use one of {', '.join(map(str, get_args(kind)))}")
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
    if kind in (int, float):
        positive = field.name.startswith(("n_", "lr")) or field.name in POSITIVE
        if not math.isfinite(value) or value < 0 or (positive and value == 0):
            raise UsageError(f"{name}: expected a number {'> 0' if positive else '>= 0'}, got {value!r}")
        if field.name in FRACTIONS and value >= 1:
            raise UsageError(f"{name}: expected a fraction below 1, got {value!r}")
    return value
