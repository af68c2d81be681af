"""explain: show one training step of a model with all its numbers, as a text or as a page for a browser."""

import dataclasses
import pathlib

from ..backend import Rng, UsageError
from ..data import fixed_order, load
from ..models import find_model, kind_of
from ..models.base import Model
from ..models.settings import is_model, trained_class
from ..uses.explain import explain
from .settings import parse_settings
from .train import check_fits, check_width, from_data


def run(args):
    model_class = find_model(args.model)
    settings = parse_settings(model_class, args.set)
    try:
        if args.data:
            model, batch = on_data(model_class, settings, args)
            explanation = explain(model, **batch, objective=args.objective, name=args.data)
        else:
            if given := [name for name, value in settings.items() if isinstance(value, Model)]:
                raise UsageError(f"--set {given[0]}: a trained model does not fit the tiny example; give --data too")
            explanation = explain(model_class, settings=settings, objective=args.objective)
    except UsageError:
        raise
    except ValueError as error:  # settings that do not fit together, such as a batch that is no multiple of pack
        raise UsageError(f"{args.model} cannot make a step: {error}; change --set") from None
    if not args.html:
        print(explanation, end="")
        return
    explanation.save(pathlib.Path(args.html))
    print(f"{explanation.title}. {explanation.verdict()}\n{args.html}")


def on_data(model_class, settings, args):
    """(a model for the data, {name: array} of its first batch). Raises UsageError if model and data do not fit."""
    for field in dataclasses.fields(model_class):
        if is_model(field.type) and not isinstance(settings.get(field.name), Model):
            kind = kind_of(trained_class(field))
            raise UsageError(
                f"a {args.model} is built on a trained {kind}: give its folder with --set {field.name}=DIR, or leave --data "
                "out for a tiny example"
            )
    data = load(args.data)
    settings = from_data(model_class, data) | settings
    check_width(settings, data, args.data)
    model = model_class(**settings).build(Rng(0, "float64"))
    check_fits(model, data, args.data)
    model.check_size(len(data.x_train))
    labels = data.labels_train if model.needs_labels else None
    whole = model.on_device(x=data.x_train, labels=labels)
    model.prepare(whole["x"], model.rng((0, 0, 1)), whole.get("labels"))
    rows = fixed_order(len(data.x_train))[: model.examples_per_step]
    return model, {name: array[rows] for name, array in whole.items()}
