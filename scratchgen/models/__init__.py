"""One file for each model, which can be read alone. The name of a model is the name of its file.

All models share base.py, settings.py and rules.py. parts/ holds building blocks that only some models use.
"""

import functools
import importlib
import pkgutil

from ..backend import UsageError
from .base import Model


@functools.cache
def model_names():
    """The names of all models, a tuple: the names of their files in this folder."""
    files = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
    return tuple(sorted(files - {"base", "rules", "settings"}))


def find_model(name):
    """The model class in models/<name>.py. Raises UsageError for an unknown name."""
    if name not in model_names():
        raise UsageError(f"model {name!r} is unknown: use one of {', '.join(model_names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Model) and c.__module__ == module.__name__
    )


def kind_of(model):
    """The name of a model class, which is the name of its file."""
    return model.__module__.rpartition(".")[2]
