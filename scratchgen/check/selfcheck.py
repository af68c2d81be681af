"""The gradient checker applied to everything in this library: layers, losses and every objective of every model.

Nothing is listed by hand. This file finds every subclass of Layer, every public function of nn/losses.py with each of its
options, every marked function of nn/distributions.py, every second-order pass and every objective that a model names. Each
is checked on its own example. One without an example fails, so nothing new can be left out.
"""

import copy
import importlib
import inspect
import pkgutil
from functools import partial

from ..backend import Rng
from ..models import find_model, kind_of, model_names
from ..nn import distributions, losses
from ..nn.activations import ACTIVATIONS, Activation, Tanh
from ..nn.double_backward import Gradient, gradient_penalty
from ..nn.layer import Layer, Sequential
from ..nn.layers import Linear, Residual, mlp
from ..nn.norms import BatchNorm, LayerNorm
from ..nn.parameters import Parameters
from .flow import check_flow
from .gradcheck import check_layer, check_loss, gradcheck
from .report import GradReport
from .variants import variants


def selfcheck(pattern="", seed=0):
    """Yield (kind, GradReport) for everything with pattern in its name. kind: layer, loss, second_order, objective.

    Case and underscores do not matter: a model is found by the name of its class or of its file.
    """
    for kind, name, check in targets():
        if plain(pattern) in plain(name):
            try:
                report = check(seed=seed)
            except Exception as error:  # an error in one must not stop the others
                report = GradReport.failure(name, seed, f"{type(error).__name__}: {error}")
            report.name = name
            yield kind, report


def plain(name):
    return name.lower().replace("_", "")


def targets():
    """Every (kind, name, check), where check(seed=...) makes the GradReport."""
    for found in sorted(_layers(), key=lambda found: (found.__module__, found.__name__)):
        if found is Sequential:
            layers = mlp([3, 4, 4], Tanh, norm=LayerNorm), Tanh(), mlp([4, 3, 2], Tanh)
            yield "layer", found.__name__, partial(check_layer, Sequential(*layers), (5, 3))
        elif found not in (Layer, Activation, Gradient):
            yield "layer", found.__name__, partial(_check_layer, found)
    for name, found in vars(distributions).items():
        if hasattr(found, "example") and found.__module__ == distributions.__name__:
            yield "layer", name, partial(_check_example, found)
    for name, found in vars(losses).items():
        own = inspect.isfunction(found) and found.__module__ == losses.__name__ and not name.startswith("_")
        term = hasattr(found, "plain") and not hasattr(found, "example")  # such as square: it is checked with its loss
        if own and not term:
            for options in getattr(found, "options", [{}]):
                yield "loss", named(name, options), partial(_check_loss, found, options)
    for found in _layers():
        if found.forward_twice is not Layer.forward_twice and found not in (Activation, BatchNorm):
            yield "second_order", f"{found.__name__}.forward_twice", partial(_check_forward_twice, found)
    for name in ACTIVATIONS:
        for penalty in ({"centre": 1.0}, {"centre": 1.0, "one_sided": True}, {"centre": 0.0, "columns": slice(1, 3)}):
            check = partial(_check_penalty, ACTIVATIONS[name], penalty)
            yield "second_order", named("gradient_penalty", {"activation": name} | penalty), check
    for model in map(find_model, model_names()):
        for settings in variants(kind_of(model)):
            for objective in model.objectives:
                name = named(f"{model.__name__}.{objective}", settings)
                yield "objective", name, partial(check_objective, model, objective, settings)


def named(name, options):
    return name + (f" [{', '.join(f'{k}={v}' for k, v in options.items())}]" if options else "")


def _layers():
    """Every public Layer class of this package, wherever it is defined."""
    package = __name__.partition(".")[0]
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            for name, found in vars(importlib.import_module(module.name)).items():
                own = isinstance(found, type) and found.__module__ == module.name and not name.startswith("_")
                if own and issubclass(found, Layer):
                    yield found


def _check_layer(layer_class, seed):
    if not hasattr(layer_class, "example"):
        raise TypeError("a layer of this package needs a classmethod example(rng) -> (layer, input)")
    check = check_flow if hasattr(layer_class, "inverse") else check_layer
    return check(*layer_class.example(Rng((seed, 1), "float64")), seed=seed)


class _Function(Layer):
    """A function f(*arrays, rng) -> (output, backward) as a layer."""

    def __init__(self, f):
        self.f = f

    def forward(self, x, rng):
        arrays = x if isinstance(x, tuple) else (x,)
        y, back = self.f(*arrays, rng=rng or Rng(0, arrays[0].dtype))
        return y, lambda dy, learn=True, inputs=True: back(dy)


def check_function(f, *arrays, seed=0):
    """A GradReport of f(*arrays, rng) -> (output, backward), such as a sampler."""
    return check_layer(_Function(f), arrays if len(arrays) > 1 else arrays[0], seed=seed, name=f.__name__)


def _check_example(f, seed):
    return check_function(f, *f.example(Rng((seed, 1), "float64")), seed=seed)


def _check_loss(f, options, seed):
    return check_loss(partial(f, **options), *f.example(Rng((seed, 1), "float64")), seed=seed)


def _check_forward_twice(layer_class, seed):
    """A GradReport of the backward pass as a layer, whose own backward is double_backward."""
    rng = Rng((seed, 1), "float64")
    if layer_class is Sequential:
        layer, x = mlp([3, 4, 4, 2], Tanh), rng.normal((5, 3))
    else:
        layer, x = layer_class.example(rng)
    used = copy.deepcopy(layer)
    Parameters(rng, layer=used)
    return check_layer(Gradient(layer), (x, rng.normal(used(x).shape)), seed=seed)


def _check_penalty(activation, options, seed):
    rng = Rng((seed, 1), "float64")
    D = Sequential(mlp([4, 6, 5], activation), activation(), Residual(Linear(5, 5)), activation(), Linear(5, 1))
    params, x = Parameters(rng, D=D), 2 * rng.normal((5, 4))
    slopes = D.forward_twice(x)[2](rng.zeros((5, 1)) + 1)[0]  # (5, 4)
    D.layers[-1].W /= rng.xp.sqrt((slopes * slopes).sum(axis=1)).mean()  # slopes about 1, some above and some below

    def objective():
        params.zero_grad()
        value, backward = gradient_penalty(D, x, **options)
        backward()
        return value

    return gradcheck(objective, params, seed=seed)


def check_objective(model_class, objective="loss", settings=(), seed=0):
    """A GradReport of one objective of a tiny model of this class. settings: {name: value} of those not as in `tiny`.

    Raises ValueError if the objective returns no dict with its own name, or changes the gradient of another network.
    """
    settings = dict(settings)
    model, batch = model_class.example(Rng((seed, 1), "float64"), **settings)
    params = getattr(model, model.objectives[objective])
    everything = list(model.parameters().values())

    def value():
        for p in everything:
            p.grad.fill(1)  # an old gradient, which the objective must clear in its own Parameters only
        losses = getattr(model, objective)(**batch, rng=Rng((seed, 2), "float64"))
        if not isinstance(losses, dict) or objective not in losses:
            said = f"the keys {', '.join(losses)}" if isinstance(losses, dict) else repr(losses)
            raise ValueError(
                f"{objective} must return a dict with the entry {objective!r}, the number whose gradient it leaves; it "
                f"returned {said}"
            )
        if not all((p.grad == 1).all() for p in everything if p is not params):
            raise ValueError(
                f"{objective} changes the gradients of a network that it does not train: pass learn=False to its backward"
            )
        return losses[objective]

    name = named(f"{model_class.__name__}.{objective}", settings)
    return gradcheck(value, params, together=everything, cross_check=not model.uses_stop, seed=seed, name=name)
