"""What every model is: settings, networks built from them, objectives with hand-written gradients, and a state to save.

A model file reads from top to bottom: the settings are dataclass fields, build(rng) makes networks and optimizers, loss(...)
is the objective with its backward pass written out, train_step(...) is one update, and sample(...) generates.
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
    """Base of all models; subclasses are dataclasses (eq=False) whose fields are the settings. See models/vae.py.

    A model must define build, its objectives, train_step and tiny; prepare, sample and evaluate where they make sense. What
    is given x is always called as train_step(x, rng, labels=None), whether the model looks at labels or not.

    Settings that mean the same everywhere: n_features and n_classes (taken from the data), batch, lr..., decay_steps,
    likelihood, whose choice "bernoulli" is of pixels in [0, 1], and output, whose choice "sigmoid" makes such.

    objectives: {method name: name of the Parameters it differentiates}. An objective (x, rng, labels=None) zeroes that
        gradient, leaves it fresh and leaves all other gradients alone, steps no optimizer, and returns a dict of 0-d
        arrays, of which the one of its own name is the value differentiated. Given equal rngs it is a pure function,
        running statistics aside.
    What training changes must be an attribute with a state(): a Parameters, an optimizer, an EMA. A frozen model inside
    another is a field of it, whose type is the model's class: see models/latent_diffusion.py.
    """

    objectives: dict[str, str] = {"loss": "params"}
    tiny: dict[str, Any] = {}  # settings of a tiny model, for `example`
    # What it needs. Each may be a property, where it depends on the settings.
    needs_labels: Any = False  # True where train_step, and evaluate if there is one, need labels
    labels_are_vectors: Any = False  # True where a label is a vector of n_classes numbers
    data_range: Any = None  # (low, high) where the numbers of x must lie in it
    tokens: Any = False  # True where x holds whole numbers that stand for something
    side: Any = None  # of the square grey pictures that it takes, where it takes no others
    # Whether every train_step does the same operations on the same memory, so that one can be recorded and replayed. False
    # for a model that binds new arrays: self.m = 0.9 * self.m + ... where self.m *= 0.9; self.m += ... would do.
    same_every_step: Any = True
    # True where the losses do not say how good the samples are: `train` and `evaluate` then measure these too.
    judged_by_samples = False
    # Names of settings that no weight depends on: --resume may change them.
    sampler_settings: frozenset[str] = frozenset()
    uses_stop = False  # True where a value contains stop(): central differences do not see it
    # Settings of nearly all models; None in one without them.
    batch: Any = None
    n_features: Any = None
    n_classes: Any = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            setattr(self, field.name, check_setting(type(self), field, getattr(self, field.name)))
        self.check_settings()

    def check_settings(self) -> None:
        """Raise UsageError for settings that do not go together: rules.py has those of the models here."""
        if line := rules.broken(rules.SETTINGS, self):
            raise UsageError(f"{type(self).__name__} setting {line}")

    def build(self, rng: Rng) -> Any:
        """Make networks, Parameters and optimizers with weights from rng. Returns the model."""
        raise TypeError(f"{type(self).__name__} must define build(self, rng)")

    def prepare(self, x: Array, rng: Rng, labels: Array | None = None) -> None:
        """Take from the training data x (N, n_features) what it must know before the first step: a mean, a range, codes.

        fit calls it before the first step. What it finds belongs in buffers: a checkpoint holds it.
        """

    def train_step(self, x: Array, rng: Rng, labels: Array | None = None) -> dict[str, Any]:
        """{name: loss}, 0-d arrays on the device, of one update from x (B, n_features), with labels (B,) if needed."""
        raise TypeError(f"{type(self).__name__} must define train_step(self, x, rng, labels=None)")

    def sample(self, n: int, rng: Rng, label: int | None = None) -> Array:
        """n generated examples (n, n_features), of one class where the model needs labels and a label is given."""
        raise UsageError(f"a {type(self).__name__} has no way to sample")

    def evaluate(self, x: Array, rng: Rng, labels: Array | None = None) -> dict[str, Any]:
        """{name: number} on test data x (N, n_features), with labels (N,) if the model needs them."""
        return {}

    @property
    def examples_per_step(self) -> int | None:
        """How many examples one train_step takes; None: all of the training data."""
        return self.batch

    @property
    def tested_on_labels(self) -> bool:
        """Whether evaluate needs labels."""
        return self.needs_labels and type(self).evaluate is not Model.evaluate

    def warning(self, losses: dict[str, float]) -> str:
        """One line on what has gone wrong, by the last steps' mean losses {name: number}, or "". fit says it once."""
        return ""

    @classmethod
    def example(cls, rng: Rng, **settings: Any) -> tuple[Any, dict[str, Array]]:
        """A tiny model and a batch for it, {argument name: array}: the start of every automatic check.

        settings: those that differ from `tiny`.
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
        """Raise UsageError if this model cannot learn from data like x (N, n_features), with labels (N,) or none."""
        if x.shape[1] != (self.n_features or x.shape[1]):
            raise UsageError(f"the data has {x.shape[1]} numbers an example, the model n_features={self.n_features}")
        if line := rules.broken(rules.DATA, self, x, labels):
            raise UsageError(line)
        low, high = self.data_range or (-np.inf, np.inf)
        if x.min() < low or x.max() > high:
            raise UsageError(
                f"{type(self).__name__} needs pixels in [{low:g}, {high:g}], and these numbers reach from {x.min():g} to "
                f"{x.max():g}: {rules.remedy(self)}"
            )
        classes = self.n_classes if self.needs_labels and not self.labels_are_vectors else None
        if classes and labels is not None and not 0 <= labels.min() <= labels.max() < classes:
            raise UsageError(
                f"the labels are {labels.min()} ... {labels.max()}, the model has n_classes={classes}: they count from 0"
            )

    def check_size(self, n: int) -> None:
        """Raise UsageError if n training examples are too few for one train_step that takes several batches."""

    def settings(self) -> dict[str, Any]:
        """{name: value}; of a model inside this one its own settings."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value.settings() if isinstance(value, Model) else value for name, value in values.items()}

    def parameters(self) -> dict[str, Parameters]:
        """{name: Parameters} of this model and of those inside it."""
        found = {name: part for name, part in vars(self).items() if isinstance(part, Parameters)}
        for name, part in vars(self).items():
            if isinstance(part, Model):
                found |= {f"{name}.{key}": params for key, params in part.parameters().items()}
        return found

    def rng(self, seed: Seed) -> Rng:
        """A random stream with this model's precision, on its device."""
        return next(iter(self.parameters().values())).rng.like(seed)

    def on_device(self, **arrays: Any) -> dict[str, Array]:
        """Those of the arrays that are not None, {name: array}, on this model's device and in its precision.

        Labels, and tokens, are whole numbers and stay so; other whole numbers become floats.
        """
        rng = self.rng(0)
        arrays = {name: rng.array(array) for name, array in arrays.items() if array is not None}
        for name, array in arrays.items():
            if array.dtype.kind in "iub":
                whole = name == "labels" or self.tokens
                arrays[name] = array.astype(np.int64 if whole else rng.dtype)
        return arrays

    def state(self) -> dict[str, Array]:
        """{name: live array} of all that training changes: weights, buffers, optimizers, averages.

        Of a model inside this one, which is frozen, the weights and buffers alone.
        """
        parts = {name: part.state() for name, part in (vars(self) | self.parameters()).items() if keeps_state(part)}
        return {f"{name}.{key}": array for name, arrays in parts.items() for key, array in arrays.items()}

    @classmethod
    def copy_of(cls, model, rng):
        """A model's settings, weights and buffers as a model of this class, on rng's device and in its precision.

        For a trained model inside another. Settings that this class does not have are left out, as of a VQGAN for a VQVAE.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        copy = cls(**{name: value for name, value in model.settings().items() if name in names}).build(rng)
        if model.parameters():
            theirs = model.params.state()
            for name, array in copy.params.state().items():
                array[...] = rng.array(theirs[name])
        return copy

    def has_stepped(self) -> bool:
        """Whether any of its optimizers has made a step."""
        return any(array[0] for name, array in self.state().items() if name.endswith(".t"))

    def load_state(self, arrays: dict[str, Array]) -> None:
        """Write saved arrays into the live ones. Raises UsageError, before anything is written, where one does not fit."""
        state = self.state()
        # A checkpoint of an older version does not say which classes were seen: all of them count.
        arrays = {name: array for name, array in state.items() if name.endswith(".seen")} | arrays
        if state.keys() != arrays.keys():
            raise UsageError(
                f"the arrays of another model: {sorted(state.keys() ^ arrays.keys())[0]} is on one side only"
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
