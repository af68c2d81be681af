"""Settings on the command line: read from name=value, and told with their meaning and choices."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from ..backend import UsageError
from ..models import kind_of
from ..models.settings import check_setting, is_model, type_and_range
from ..train.checkpoint import RENAMED, load_model

COMMON = {  # what a setting means where its model's file does not say it
    "n_features": "numbers an example",
    "n_classes": "how many classes the labels tell apart",
    "n_latent": "numbers of a code z",
    "hidden": "sizes of the hidden layers",
    "hidden_G": "sizes of G's hidden layers",
    "hidden_D": "sizes of D's hidden layers",
    "likelihood": "of the decoder: bernoulli for pixels in [0, 1], the other for any numbers",
    "adversarial_loss": "the adversarial losses, by that of G; see nn/losses.py",
    "activation": "of the hidden layers",
    "activation_D": "of D's hidden layers",
    "init": "how the weights start; see nn/initialisers.py",
    "optimizer": "see nn/optim.py",
    "batch": "examples a step",
    "lr": "learning rate",
    "lr_G": "learning rate of G",
    "lr_D": "learning rate of D",
    "beta2": "Adam's",
}
FROM_DATA = ("n_features", "n_classes")  # fields that the command line fills in


def meanings(model):
    """{name of a setting: what it means}: the comment beside the field, of the model's class or one that it extends."""
    found = dict.fromkeys((field.name for field in dataclasses.fields(model)), "")
    for kind in reversed([kind for kind in model.__mro__ if dataclasses.is_dataclass(kind)]):
        found |= dict(re.findall(r"^    (\w+): [^\n]*?  # (.*)$", inspect.getsource(kind), flags=re.MULTILINE))
    return {field.name: found[field.name] or COMMON.get(field.name, "") for field in dataclasses.fields(model)}


def choices(kind):
    """The values that a setting of this type may have, in words: the choices, or the range of a number; "" for all."""
    kind, allowed = type_and_range(kind)
    if kind is bool:
        return "true, false"
    return ", ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else str(allowed)


def parse_settings(model, assignments):
    """{name: value} from strings such as "hidden=400,200", by the types of the model's fields.

    Of a model inside another, "vqvae.hidden=400,200" are settings: {"vqvae": {"hidden": (400, 200)}}.
    Raises UsageError for an unknown name, a missing = or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(model)}
    settings, inside = {}, {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected name=value")
        outer, dot, inner = name.partition(".")
        if dot and outer in fields and is_model(fields[outer].type):
            inside.setdefault(outer, []).append(f"{inner}={text}")
        elif name in fields:
            settings[name] = check_setting(model, fields[name], parsed(name, fields[name].type, text))
        elif name in RENAMED.get(kind_of(model), {}):
            now = RENAMED[kind_of(model)][name]
            raise UsageError(
                f"--set {name}: this setting of a {model.__name__} is called {now} now; use --set {now}={text}"
            )
        else:
            raise UsageError(f"--set {name}: {model.__name__} has no such setting, use one of {', '.join(fields)}")
    for name, given in inside.items():
        if name in settings:
            raise UsageError(f"--set {name}={settings[name]}: is trained already: leave --set {name}.{given[0]} out")
        settings[name] = parse_settings(fields[name].type, given)
    return settings


def parsed(name, kind, text):
    """The value of a setting of this type that a text stands for. Raises UsageError for one that stands for none."""
    if is_model(kind):
        return load_model(Path(text) / "checkpoint.npz")[0]
    kind, _ = type_and_range(kind)
    try:
        if get_origin(kind) is tuple:
            return tuple(int(part) for part in text.split(",") if part.strip())
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return text if get_origin(kind) is Literal else kind(text)
    except (ValueError, KeyError):
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        raise UsageError(f"--set {name}={text}: expected {words.get(kind, 'whole numbers such as 400,200')}") from None
