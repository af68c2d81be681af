"""One file per system, readable alone. A model's name is the name of its file.

base.py and settings.py are what all of them share, parts/ is what some are built of.
"""

import importlib
import pkgutil

from ..backend import UsageError
from .base import Model


def model_names():
    """The names of all models, which are the names of their files in this folder."""
    files = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
    return sorted(files - {"base", "rules", "settings"})


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
    """The name of a model's class: that of its file."""
    return model.__module__.rpartition(".")[2]
