"""What every model is: settings, networks built from them, objectives with hand-written gradients, and a state to save.

A model file reads from top to bottom: the settings are dataclass fields, build(rng) makes networks and optimizers, loss(...)
is the objective with its backward pass written out, train_step(...) is one update, and sample(...) generates.
"""

import dataclasses
import inspect
import math
from typing import Any, get_args

import numpy as np

from ..backend import Array, Rng, Seed, UsageError
from ..nn.optim import Stepper
from ..nn.parameters import Parameters
from .settings import check_setting


def accepted(function, given):
    """Those of the given arguments {name: value} that the function's signature names."""
    return {name: given[name] for name in inspect.signature(function).parameters if name in given}


def call(function, **given):
    """Call a function with those of the given arguments that its signature names."""
    return function(**accepted(function, given))


def needs(function, name):
    """Whether the function's signature names this argument and has no default for it."""
    parameters = inspect.signature(function).parameters
    return name in parameters and parameters[name].default is inspect.Parameter.empty


def saturation(model, losses):
    """One line to say where D's loss, R1 aside, is below a tenth of what ignorance costs it, or "". See losses.loss_D."""
    ignorance = {"minimax": 2 * math.log(2), "non_saturating": 2 * math.log(2), "least_squares": 0.25, "hinge": 2.0}
    value = losses["discriminator_loss"] - 0.5 * model.r1 * losses.get("penalty", 0)
    if value > 0.1 * ignorance.get(model.loss, -math.inf):
        return ""
    return (
        f"discriminator_loss fell to {value:.2g}: D tells real from generated nearly without fail, and its slope, G's only "
        f"guide, fades; try {model.remedies}"
    )


def keeps_state(part):
    return hasattr(part, "state") and not isinstance(part, Model)


class Model:
    """Base of all models; subclasses are dataclasses (eq=False) whose fields are the settings. See models/vae.py.

    A model must define build, its objectives, train_step and example; sample and evaluate where they make sense.
    Arguments are passed by name: a train_step or an evaluate that names `labels` is given labels.

    Settings that mean the same everywhere: n_features and n_classes (taken from the data), batch, lr..., likelihood, whose
    choice "bernoulli" wants pixels in [0, 1], and output, whose choice "sigmoid" makes such.

    objectives: {method name: name of the Parameters it differentiates}. An objective zeroes that gradient, leaves it fresh
        and leaves all other gradients alone, steps no optimizer, and returns a dict of 0-d arrays, of which the one of
        its own name is the value differentiated. Given equal rngs it is a pure function, running statistics aside.
    variants: settings with which the gradient check tries the model, beside the defaults of example.
    What training changes must be an attribute with a state(): a Parameters, an optimizer, an EMA. A model that stands still
    inside another is a field of it, whose type is the model's class: see models/latent_diffusion.py.
    """

    objectives: dict[str, str] = {"loss": "params"}
    variants: tuple[dict[str, Any], ...] = ({},)
    # A CUDA graph (train/cuda_graph.py) repeats one train_step on the same memory. False for a model whose steps are not
    # all alike, or that binds new arrays: self.m = 0.9 * self.m + ... where self.m *= 0.9; self.m += ... would do.
    capturable: Any = True
    # True where the losses do not say how good the samples are: `train` and `evaluate` then measure these too.
    judged_by_samples = False
    sampling: frozenset[str] = frozenset()  # names of settings that no weight depends on: --resume may change them
    batch: Any = None  # a setting of nearly all
    pixels = False  # True where x must lie in [0, 1], whatever the settings
    uses_stop = False  # True where a value contains stop(): central differences do not see it

    def __post_init__(self):
        for field in dataclasses.fields(self):
            setattr(self, field.name, check_setting(type(self), field, getattr(self, field.name)))

    def build(self, rng: Rng) -> Any:
        """Make networks, Parameters and optimizers with weights from rng. Returns the model."""
        raise TypeError(f"{type(self).__name__} must define build(self, rng)")

    def prepare(self, x: Array, rng: Rng) -> None:
        """Take from the training data x (N, n_features) what it must know before the first step: a mean, a range, codes.

        fit calls it before the first step. What it finds belongs in buffers: a checkpoint holds it.
        """

    def train_step(self, x: Array, rng: Rng) -> dict[str, Any]:
        """One update from a batch x (B, n_features). Returns {name: loss}, 0-d arrays on the device."""
        raise TypeError(f"{type(self).__name__} must define train_step(self, x, rng)")

    def sample(self, n: int, rng: Rng) -> Array:
        """n generated examples (n, n_features)."""
        raise UsageError(f"a {type(self).__name__} has no way to sample")

    def evaluate(self, x: Array, rng: Rng) -> dict[str, Any]:
        """{name: number} on test data x (N, n_features)."""
        return {}

    @property
    def rows(self) -> int | None:
        """How many examples one train_step takes; None: all of the training data."""
        return self.batch

    def complaint(self, losses: dict[str, float]) -> str:
        """One line on what has gone wrong, by the last steps' mean losses {name: number}, or "". fit says it once."""
        return ""

    @classmethod
    def example(cls, rng: Rng, **settings: Any) -> tuple[Any, dict[str, Array]]:
        """A tiny model and a batch for it, {argument name: array}: the start of every automatic check."""
        raise TypeError(f"{cls.__name__} must define example(cls, rng, **settings)")

    def check_data(self, x: Array, labels: Array | None = None) -> None:
        """Raise UsageError if this model cannot learn from pixels or points like x (N, n_features), with labels (N,)."""
        n_features = getattr(self, "n_features", x.shape[1])
        if x.shape[1] != n_features:
            raise UsageError(f"the data has {x.shape[1]} numbers an example, the model n_features={n_features}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            pixels = (field.name, value) in (("likelihood", "bernoulli"), ("output", "sigmoid"))
            if pixels and (x.min() < 0 or x.max() > 1):
                other = next(choice for choice in get_args(field.type) if choice != value)
                raise UsageError(
                    f"{field.name}={value} needs pixels in [0, 1]; use --set {field.name}={other} for other numbers"
                )
        if self.pixels and (x.min() < 0 or x.max() > 1):
            raise UsageError(
                f"{type(self).__name__} needs pixels in [0, 1], and these numbers reach from {x.min():g} to {x.max():g}: "
                "use another model (vae, gan, wgan, ddpm and gmm take any numbers), or rescale"
            )
        n_classes = getattr(self, "n_classes", None)
        told = getattr(self, "conditional", True)
        if (
            n_classes
            and told
            and labels is not None
            and labels.ndim == 1
            and not 0 <= labels.min() <= labels.max() < n_classes
        ):
            raise UsageError(
                f"the labels are {labels.min()} ... {labels.max()}, the model has n_classes={n_classes}: they count from 0"
            )

    def check_rows(self, n: int) -> None:
        """Raise UsageError if n training examples are too few for one train_step that takes several batches."""
        if self.rows and self.rows > max(n, self.batch):
            most = n * self.batch // self.rows
            remedy = f"--set batch={most}" if most else f"--set k=1 batch={n}"
            raise UsageError(f"a round takes {self.rows} examples, k batches, and there are {n}: use {remedy}")

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
                whole = name == "labels" or getattr(self, "tokens", False)
                arrays[name] = array.astype(np.int64 if whole else rng.dtype)
        return arrays

    def state(self) -> dict[str, Array]:
        """{name: live array} of all that training changes: weights, buffers, optimizers, averages.

        Of a model inside this one, which stands still, the weights and buffers alone.
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
