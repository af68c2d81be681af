"""Settings on the command line: how they are read from name=value, and what they mean."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from ..backend import UsageError
from ..models import kind_of
from ..models.settings import check_setting, is_model, trained_class, type_and_range
from ..train.checkpoint import RENAMED, load_model

COMMON = {  # what a setting means if its model's file does not say it
    "n_features": "numbers per example",
    "n_classes": "how many classes the labels have",
    "n_latent": "length of a code z",
    "hidden": "sizes of the hidden layers",
    "hidden_G": "sizes of G's hidden layers",
    "hidden_D": "sizes of D's hidden layers",
    "likelihood": "how x is restored: bernoulli for pixels in [0, 1], the other choice for any numbers",
    "adversarial_loss": "the losses of D and G; see nn/losses.py",
    "activation": "activation of the hidden layers",
    "activation_D": "activation of D's hidden layers",
    "init": "how the weights are initialised; see nn/initialisers.py",
    "optimizer": "the optimizer of both networks; see nn/optim.py",
    "batch": "examples per batch",
    "lr": "learning rate",
    "lr_G": "learning rate of G",
    "lr_D": "learning rate of D",
    "beta2": "Adam's β2",
}
FROM_DATA = ("n_features", "n_classes")  # settings that the command line takes from the data


def meanings(model):
    """{name of a setting: its meaning}: the comment next to the field, in the model's class or in one that it extends."""
    found = dict.fromkeys((field.name for field in dataclasses.fields(model)), "")
    for kind in reversed([kind for kind in model.__mro__ if dataclasses.is_dataclass(kind)]):
        found |= dict(re.findall(r"^    (\w+): [^\n]*?  # (.*)$", inspect.getsource(kind), flags=re.MULTILINE))
    return {field.name: found[field.name] or COMMON.get(field.name, "") for field in dataclasses.fields(model)}


def choices(kind):
    """The allowed values of a setting of this type, in words: the choices, or the range of a number, or "" for any value."""
    kind, allowed = type_and_range(kind)
    if kind is bool:
        return "true, false"
    return ", ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else str(allowed)


def parse_settings(model, assignments):
    """{name: value} from strings such as "hidden=400,200", with the types of the model's fields.

    A setting of a model inside another one is written "vqvae.hidden=400,200", which gives {"vqvae": {"hidden": (400, 200)}}.
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
                f"--set {name}: this setting of a {model.__name__} is now called {now}; use --set {now}={text}"
            )
        else:
            raise UsageError(f"--set {name}: {model.__name__} has no such setting; use one of {', '.join(fields)}")
    for name, given in inside.items():
        if name in settings:
            raise UsageError(f"--set {name}={settings[name]}: is already trained; leave --set {name}.{given[0]} out")
        settings[name] = parse_settings(trained_class(fields[name]), given)
    return settings


def parsed(name, kind, text):
    """The value of a setting of this type, read from a text. Raises UsageError if the text is no such value."""
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
