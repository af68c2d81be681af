"""list: show the models, data sets and demos, or the settings of one model."""

import ast
import dataclasses
import pathlib
import sys
import textwrap

import scratchgen

from ..data import names
from ..models import find_model, kind_of, model_names
from ..models.settings import is_model, trained_class
from .settings import FROM_DATA, choices, meanings


def run(args):
    if args.model:
        return list_settings(args.model)
    print("models (scratchgen train MODEL; `list MODEL` shows its settings)")
    for name in model_names():
        print(f"  {name:<24}{sys.modules[find_model(name).__module__].__doc__.splitlines()[0]}")
    print("\ndata sets (--data)\n  " + ", ".join(names()) + ", a folder of pictures, a .npy, .npz or .csv file")
    demos = sorted((pathlib.Path(scratchgen.__file__).parent.parent / "demos").glob("*.py"))
    print("\ndemos (python demos/NAME.py)" + ("" if demos else ": in the repository's demos folder"))
    for path in demos:
        if path.stem not in ("common", "recipes"):
            print(f"  {path.stem:<32}{ast.get_docstring(ast.parse(path.read_bytes())).splitlines()[0]}")


def list_settings(name):
    """Print the settings of one model: their defaults, meanings and allowed values."""

    model = find_model(name)
    print(sys.modules[model.__module__].__doc__.splitlines()[0])
    print(f"\nsettings (--set name=value), models/{name}.py")
    said_of = meanings(model)
    for field in dataclasses.fields(model):
        name, said = field.name, said_of[field.name]
        if is_model(field.type):
            kinds = [kind_of(kind) for kind in dict.fromkeys([field.type, trained_class(field)])]
            setting = f"{name}=DIR"
            said += f": the folder of a trained {' or '.join(kinds)}. Without it a {kinds[-1]} is trained first: "
            said += f"{name}.batch=50 sets its batch"
        elif name in FROM_DATA:
            setting, said = name, f"{said}; taken from the data"
        else:
            value = field.default
            setting = f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            said += f" [{choices(field.type)}]" if choices(field.type) else ""
        first, *rest = textwrap.wrap(said, 90) or [""]
        print(f"  {setting:<33} {first}".rstrip())
        for line in rest:
            print(f"  {'':<33} {line}")
