"""The base of every model: settings, networks built from them, objectives with hand-written gradients, a state to save.

You can read a model file from top to bottom. The settings are dataclass fields. build(rng) makes the networks and the
optimizers. loss(...) is the objective, with its backward pass written out. train_step(...) makes one update, and sample(...)
generates examples.
"""

import dataclasses
from typing import Any

import numpy as np

from ..backend import Array, Rng, Seed, UsageError
from ..nn.optim import Stepper
from ..nn.parameters import Parameters
from . import rules
from .settings import check_setting


def keeps_state(part):
    return hasattr(part, "state") and not isinstance(part, Model)


class Model:
    """Base class of all models. Subclasses are dataclasses (eq=False) whose fields are the settings; see models/vae.py.

    A model must define build, its objectives, train_step and tiny. It may also define prepare, sample and evaluate. All
    methods that take a batch are called in the same way, train_step(x, rng, labels=None), even if the model ignores labels.

    Some settings mean the same in every model: n_features and n_classes (which come from the data), batch, lr...,
    decay_steps, likelihood ("bernoulli" is for pixels in [0, 1]) and output ("sigmoid" gives pixels in [0, 1]).

    objectives: {name of a method: name of the Parameters that it differentiates}. An objective (x, rng, labels=None) first
        zeroes that gradient and then computes it. It changes no other gradient and steps no optimizer. It returns a dict of
        0-d arrays; the entry with its own name is the value that was differentiated. With the same rng it must return the
        same value: only running statistics may change.
    Everything that training changes must be an attribute with a method state(): a Parameters, an optimizer or an EMA. A
    frozen model inside another one is a dataclass field annotated with that model's class: see models/latent_diffusion.py.
    """

    objectives: dict[str, str] = {"loss": "params"}
    tiny: dict[str, Any] = {}  # the settings of a tiny model, for `example`
    # What the model needs. Each of these may be a property, if it depends on the settings.
    needs_labels: Any = False  # True if train_step and evaluate need labels
    labels_are_vectors: Any = False  # True if a label is a vector of n_classes numbers
    data_range: Any = None  # (low, high) if all numbers of x must lie in this range
    tokens: Any = False  # True if x holds whole numbers that stand for something, such as letters
    needs_levels = False  # True if it must know the number of grey levels of pixels; it then has the setting `levels`
    side: Any = None  # the side of the pictures, if the model takes only square grey pictures
    # Whether every train_step does the same operations on the same memory, so that one step can be recorded and replayed.
    # It must be False if a step binds a new array: self.m = 0.9 * self.m + ... does, self.m *= 0.9; self.m += ... does not.
    same_every_step: Any = True
    # True if the losses do not say how good the samples are: `train` and `evaluate` then measure the samples too.
    judged_by_samples = False
    # Names of settings that no weight depends on: --resume may change them.
    sampler_settings: frozenset[str] = frozenset()
    uses_stop = False  # True if a loss contains stop(): central differences ignore stop() and would disagree
    # Settings of nearly all models. They are None in a model that does not have them.
    batch: Any = None
    n_features: Any = None
    n_classes: Any = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            setattr(self, field.name, check_setting(type(self), field, getattr(self, field.name)))
        self.check_settings()

    def check_settings(self) -> None:
        """Raise UsageError for settings that contradict each other: rules.py holds these rules."""
        if line := rules.broken(rules.SETTINGS, self):
            raise UsageError(f"{type(self).__name__} setting {line}")

    def build(self, rng: Rng) -> Any:
        """The model itself, after making its networks, Parameters and optimizers; rng draws the initial weights."""
        raise TypeError(f"{type(self).__name__} must define build(self, rng)")

    def prepare(self, x: Array, rng: Rng, labels: Array | None = None) -> None:
        """Measure what the model needs from the training data x (N, n_features): a mean, a range, first codes.

        fit calls this before the first step. Store the results in buffers, so that a checkpoint contains them.
        """

    def train_step(self, x: Array, rng: Rng, labels: Array | None = None) -> dict[str, Any]:
        """{name: loss}, 0-d arrays on the device. Makes one update with x (B, n_features), and labels (B,) if needed."""
        raise TypeError(f"{type(self).__name__} must define train_step(self, x, rng, labels=None)")

    def sample(self, n: int, rng: Rng, label: int | None = None) -> Array:
        """n generated examples (n, n_features). A model that needs labels makes them of one class if a label is given."""
        raise UsageError(f"a {type(self).__name__} has no way to sample")

    def evaluate(self, x: Array, rng: Rng, labels: Array | None = None) -> dict[str, Any]:
        """{name: number} measured on test data x (N, n_features), with labels (N,) if the model needs them."""
        return {}

    @property
    def examples_per_step(self) -> int | None:
        """How many examples one train_step takes. None means all of the training data."""
        return self.batch

    @property
    def tested_on_labels(self) -> bool:
        """Whether evaluate needs labels."""
        return self.needs_labels and type(self).evaluate is not Model.evaluate

    @classmethod
    def example(cls, rng: Rng, **settings: Any) -> tuple[Any, dict[str, Array]]:
        """A tiny model and a batch for it, {argument name: array}. Every automatic check starts from these.

        settings: the settings that differ from `tiny`.
        """
        if not cls.tiny:
            raise TypeError(f"{cls.__name__} must define tiny, the settings of a tiny model, for the checks")
        model = cls(**cls.tiny | settings).build(rng)
        n = model.examples_per_step or 40
        shape = n, model.n_features
        batch = {"x": rng.integers(model.data_range[1] + 1, shape) if model.tokens else rng.uniform(shape)}
        if model.needs_labels:
            vectors = model.labels_are_vectors
            batch["labels"] = rng.normal((n, model.n_classes)) if vectors else rng.integers(model.n_classes, n)
        model.prepare(batch["x"], rng)
        return model, batch

    def check_data(self, x: Array, labels: Array | None = None) -> None:
        """Raise UsageError if this model cannot learn from x (N, n_features) with labels (N,) or without labels."""
        if x.shape[1] != (self.n_features or x.shape[1]):
            raise UsageError(
                f"the data has {x.shape[1]} numbers per example, but the model has n_features={self.n_features}"
            )
        if line := rules.broken(rules.DATA, self, x, labels):
            raise UsageError(line)
        low, high = self.data_range or (-np.inf, np.inf)
        if x.min() < low or x.max() > high:
            raise UsageError(
                f"{type(self).__name__} needs pixels in [{low:g}, {high:g}], but this data ranges from {x.min():g} to "
                f"{x.max():g}: {rules.remedy(type(self))}"
            )
        classes = self.n_classes if self.needs_labels and not self.labels_are_vectors else None
        if classes and labels is not None and not 0 <= labels.min() <= labels.max() < classes:
            raise UsageError(
                f"the labels are {labels.min()} ... {labels.max()}, but with n_classes={classes} they must lie in "
                "0 ... n_classes - 1"
            )

    def check_size(self, n: int) -> None:
        """Raise UsageError if one train_step takes several batches and needs more than n training examples."""

    def settings(self) -> dict[str, Any]:
        """{name: value}. The value of a model inside this one is the dict of its own settings."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value.settings() if isinstance(value, Model) else value for name, value in values.items()}

    def parameters(self) -> dict[str, Parameters]:
        """{name: Parameters} of this model and of the models inside it."""
        found = {name: part for name, part in vars(self).items() if isinstance(part, Parameters)}
        for name, part in vars(self).items():
            if isinstance(part, Model):
                found |= {f"{name}.{key}": params for key, params in part.parameters().items()}
        return found

    def rng(self, seed: Seed) -> Rng:
        """A random stream on this model's device and in its precision."""
        return next(iter(self.parameters().values())).rng.like(seed)

    def on_device(self, **arrays: Any) -> dict[str, Array]:
        """{name: array} of the given arrays, on this model's device and in its precision. Arrays that are None are left out.

        Labels and tokens remain whole numbers; other whole numbers become floats.
        """
        rng = self.rng(0)
        arrays = {name: rng.array(array) for name, array in arrays.items() if array is not None}
        for name, array in arrays.items():
            if array.dtype.kind in "iub":
                whole = name == "labels" or self.tokens
                arrays[name] = array.astype(np.int64 if whole else rng.dtype)
        return arrays

    def state(self) -> dict[str, Array]:
        """{name: live array} of everything that training changes: weights, buffers, optimizers, averages.

        A model inside this one is frozen, so only its weights and buffers are included.
        """
        parts = {name: part.state() for name, part in (vars(self) | self.parameters()).items() if keeps_state(part)}
        return {f"{name}.{key}": array for name, arrays in parts.items() for key, array in arrays.items()}

    @classmethod
    def copy_of(cls, model, rng):
        """A model of this class with another model's settings, weights and buffers, on rng's device and in its precision.

        It makes the frozen copy of a trained model inside another one. Settings that this class does not have are left out,
        for example when a VQGAN becomes a VQVAE.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        copy = cls(**{name: value for name, value in model.settings().items() if name in names}).build(rng)
        if model.parameters():
            theirs = model.params.state()
            for name, array in copy.params.state().items():
                array[...] = rng.array(theirs[name])
        return copy

    def has_stepped(self) -> bool:
        """Whether any optimizer of this model has made a step."""
        return any(array[0] for name, array in self.state().items() if name.endswith(".t"))

    def load_state(self, arrays: dict[str, Array]) -> None:
        """Write saved arrays into the live ones. Raises UsageError if one does not fit, and then writes nothing."""
        state = self.state()
        # A checkpoint of an older version does not say which classes were seen: then all count as seen.
        arrays = {name: array for name, array in state.items() if name.endswith(".seen")} | arrays
        if state.keys() != arrays.keys():
            raise UsageError(
                f"the arrays of another model: only one of the two has {sorted(state.keys() ^ arrays.keys())[0]}"
            )
        for name, live in state.items():
            if live.shape != arrays[name].shape:
                raise UsageError(
                    f"the arrays of another model: {name} has shape {arrays[name].shape}, expected {live.shape}"
                )
        rng = self.rng(0)
        for name, live in state.items():
            live[...] = arrays[name] if isinstance(live, type(arrays[name])) else rng.array(arrays[name])
        for params in self.parameters().values():
            params.changed()
        for part in vars(self).values():
            if isinstance(part, Stepper):
                part.loaded()
