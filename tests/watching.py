"""With what tests of meaning look into any model: its variants, what its networks and methods are given, what is drawn."""

import contextlib
import dataclasses
import inspect

import numpy as np
import pytest

from scratchgen import Rng, UsageError
from scratchgen.check.variants import variants
from scratchgen.models import find_model, model_names

F64 = "float64"


def example(name, settings, seed=0):
    """A tiny float64 model and its batch."""
    return find_model(name).example(Rng((seed, 1), F64), **settings)


def machine(n_hidden):
    """A trained machine of so many hidden units, for the stack upon it: elsewhere it has as many as there are pixels."""
    found, batch = find_model("rbm").example(Rng((0, 1), F64), n_hidden=n_hidden)
    found.train_step(**batch, rng=found.rng(1))
    return found


def fields(name):
    return {field.name for field in dataclasses.fields(find_model(name))}


def with_settings(name, settings, more):
    """The settings, and of `more` those that the model has and that go together with the others."""
    own = fields(name)
    for key, value in more.items():
        if key in own:
            with contextlib.suppress(UsageError):
                built(name, settings | {key: value})
                settings = settings | {key: value}
    return settings


BUILT = {}  # to look at, never to change: every file of tests asks for the same models


def built(name, settings):
    """A model as in `example`, made once."""
    key = name, repr(sorted(settings.items(), key=str))
    if key not in BUILT:
        BUILT[key] = example(name, settings)[0]
    return BUILT[key]


def cases(has, more=None, slow=()):
    """Marks a test of (name, settings) to run on every variant of every model for which has(model) is true.

    more: settings that each of them gets which has them. slow: ids, such as "flow-1", of those that take long.
    """
    found, seen = [], []
    for name in model_names():
        for i, settings in enumerate(variants(name)):
            settings = with_settings(name, settings, more or {})
            if (name, settings) not in seen and has(built(name, settings)):
                seen.append((name, settings))
                marks = [pytest.mark.slow] if f"{name}-{i}" in slow else []
                found.append(pytest.param(name, settings, id=f"{name}-{i}", marks=marks))
    assert found
    return pytest.mark.parametrize(("name", "settings"), found)


@contextlib.contextmanager
def watched(owner, method="forward"):
    """[(given, found)] of the calls of a layer's or a model's method within this context. What was given is copied."""
    calls, original, own = [], getattr(owner, method), vars(owner).get(method)

    def spy(*given, **named):
        kept = [copied(value) for value in (*given, *named.values())]
        found = original(*given, **named)
        calls.append((kept, found))
        return found

    vars(owner)[method] = spy
    try:
        yield calls
    finally:
        del vars(owner)[method]
        if own is not None:
            vars(owner)[method] = own


def copied(value):
    if isinstance(value, tuple):
        return tuple(copied(part) for part in value)
    return value.copy() if isinstance(value, np.ndarray) else value


class Heard(Rng):
    """A stream that keeps the shapes of what was drawn, in `drawn`: {kind: [shape, ...]}."""

    def __init__(self, seed, dtype=F64, device="cpu"):
        super().__init__(seed, dtype, device)
        self.drawn = {"normal": [], "uniform": [], "integers": []}

    def normal(self, shape):
        self.drawn["normal"].append(shape)
        return super().normal(shape)

    def uniform(self, shape):
        self.drawn["uniform"].append(shape)
        return super().uniform(shape)

    def integers(self, high, shape):
        self.drawn["integers"].append(shape)
        return super().integers(high, shape)


def called(method, given):
    """method(...), each parameter by its name among `given`; None where one is missing that has no default."""
    chosen = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if given.get(name) is not None:
            chosen[name] = given[name]
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            return None
    found = method(**chosen)
    return list(found) if inspect.isgenerator(found) else found


def flat(found):
    """All numbers of what a method gave, in one vector."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, (list, tuple)):
        return np.concatenate([flat(part) for part in found]) if found else np.zeros(0)
    return np.ravel(np.asarray(found, float))


def spoil(params, seed):
    """Other weights in place of those that are there."""
    params.theta[...] = Rng((seed, 99), F64).normal(params.theta.shape)
    params.changed()


def near(found, wanted, error, what="", sigmas=5):
    """Asserts that found is within so many standard errors of what it should be."""
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    worst = np.max(np.abs(found - wanted) / error)
    assert worst < sigmas, f"{what}: {worst:.1f} standard errors away: {found} instead of {wanted}"
