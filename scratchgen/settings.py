"""A model's settings: checked whether they come from Python, from --set on the command line or from a checkpoint.

The types of the dataclass fields are the schema: int, float, bool, tuple[int, ...], Literal[choices], and the class of a
model, whose value is a model, its settings, or on the command line the folder of its run.
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal, get_args, get_origin

from .backend import UsageError

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
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{name}: {value!r} is unknown, use one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)) or not all(type(n) is int and n > 0 for n in value):
            raise UsageError(f"{name}: expected positive whole numbers such as (400, 200), got {value!r}")
        return tuple(value)
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


def parse_settings(model, assignments):
    """{name: value} from strings such as "hidden=400,200", by the types of the model's fields.

    Raises UsageError for an unknown name, a missing = or a value of the wrong type.
    """
    from .checkpoint import load_model  # imports the models, which stand above this file

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
            elif is_model(kind):
                value = load_model(Path(text) / "checkpoint.npz")[0]
            else:
                value = text if get_origin(kind) is Literal else kind(text)
        except UsageError:
            raise
        except (ValueError, KeyError):
            words = {int: "a whole number", float: "a number", bool: "true or false"}
            raise UsageError(
                f"--set {name}={text}: expected {words.get(kind, 'whole numbers such as 400,200')}"
            ) from None
        settings[name] = check_setting(model, fields[name], value)
    return settings
