"""What diffusion and flow matching share: a network between noise and data, labels and guidance, averaged weights, samples.

Both make x_t from an example and noise, train a network on it by a simple squared error, and sample from noise step by step.
What is special in a paper, the way from data to noise, what the network predicts, and the sampler, is in the file of its
model.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from ...backend import UsageError, array_module
from ...nn.distributions import diagonal_gaussian_log_prob
from ...nn.optim import EMA, Adam
from ...nn.parameters import Parameters
from ...nn.schedules import cosine
from ..base import Model
from ..settings import Count, Fraction, NonNegative, Positive, Range, Whole
from .classes import Classes
from .denoiser import Denoiser, Scaling
from .ode import log_density


def standard_normal(x):
    """log N(x; 0, I) in nats (n,) of x (n, D)."""
    return diagonal_gaussian_log_prob(x, 0.0, array_module(x).zeros(x.shape[1], x.dtype))


@dataclass(eq=False)
class Denoising(Model):
    """Base of DDPM and FlowMatching: their common settings. Shapes: x (B, n_features), x_0, x_t (B, n_diffused).

    A model defines `predicted`, its loss; `path`, its sampler; and `ode`, its way from data to noise without randomness.
    """

    n_features: Count = 784
    n_classes: Count = 10
    conditional: bool = False  # whether it learns from labels and can sample a chosen class
    scaling: Literal["pixels", "standard"] = "pixels"  # [0, 1] -> [-1, 1], or mean 0 and variance 1 in each column
    width: Count = 512  # width of every hidden layer
    n_blocks: Count = 2  # number of residual blocks
    n_waves: Annotated[int, Range(2, even=True)] = 64  # how many cosines and sines encode the time t
    label_dropout: Fraction = 0.1  # the probability that a label is withheld in training
    batch: Count = 64
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls to 0 along half a cosine; 0: constant rate
    averaging: Fraction = 0.999  # decay of the averaged weights that samplers use; 0: the latest weights
    n_steps: Count = 50  # number of steps of the sampler
    guidance: NonNegative = 0.0  # weight w: (1 + w) prediction(label) - w prediction(no label)

    judged_by_samples = True

    @property
    def needs_labels(self):
        return self.conditional

    @property
    def data_range(self):
        return (0, 1) if self.scaling == "pixels" else None

    def build(self, rng):
        self.classes = Classes(self.n_classes)
        n, n_classes = self.n_diffused, self.n_classes if self.conditional else 0
        self.denoiser, self.scaler = Denoiser(n, self.width, self.n_blocks, self.n_waves, n_classes), Scaling(n)
        self.params = Parameters(rng, denoiser=self.denoiser, scaler=self.scaler)
        self.adam = Adam(self.params, cosine(self.lr, self.decay_steps) if self.decay_steps else self.lr)
        self.average = EMA(self.params, self.averaging)
        return self

    # What is diffused: here the examples themselves. A model that works in the features of another overrides these three.

    @property
    def n_diffused(self):
        return self.n_features

    def encode(self, x):
        """The numbers (N, n_diffused) that are diffused for examples x (N, n_features), before scaling."""
        return x

    def decode(self, features):
        """The examples (N, n_features) for such numbers (N, n_diffused): the way back from encode."""
        return features

    def prepare(self, x, rng, labels=None):
        if self.scaling == "standard":
            self.scaler.measure(self.encode(x))
        if self.conditional and labels is not None:
            self.classes.note(labels)

    def predicted(self, x, labels, rng):
        """(loss, its gradient in the network's output, the network's backward) of examples x (B, n_features)."""
        raise TypeError(f"{type(self).__name__} must define predicted(self, x, labels, rng)")

    def path(self, x, rng, labels=None, **options):
        """Yields (t, x_t) from noise x to data. options replace the settings with these names."""
        raise TypeError(f"{type(self).__name__} must define path(self, x, rng, labels=None, **options)")

    def ode(self, n_steps, labels=None):
        """(u, times, log_p): the velocity field u(x, t), the times from data to noise, and log p of the noise at the end.

        x at the first time is x_0, scaled data. Labels (n,), if any, belong to the examples.
        """
        raise UsageError(f"a {type(self).__name__} has no ODE")

    # Training.

    def drop_labels(self, labels, rng):
        """(labels,) with some labels withheld, or () if the model is not conditional."""
        if not self.conditional:
            return ()
        if labels is None:
            raise UsageError("conditional=true needs labels, for the training data and for the test data")
        withheld = rng.uniform(len(labels)) < self.label_dropout
        return (array_module(labels).where(withheld, self.n_classes, labels),)

    def loss(self, x, rng, labels=None):
        """E‖target - f(x_t, t)‖², or nats per example for logits. Each row of x (B, n_features) gets its own random time."""
        self.params.zero_grad()
        loss, df, back_denoiser = self.predicted(x, labels, rng)
        back_denoiser(df, inputs=False)
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng, labels)
        self.adam.step()
        self.average.step()
        return losses

    def evaluate(self, x, rng, labels=None):
        """{"loss": the training loss} on x (N, n_features), by the averaged weights."""
        with self.average.swapped():
            return {"loss": self.predicted(x, labels, rng)[0]}

    # Using the trained model.

    def guided(self, predict, x_t, labels, guidance):
        """(1 + w) predict(labels) - w predict(none) (n, n_diffused) for a guidance w > 0 and labels (n,), else predict.

        predict(*labels) is called with () if the model is not conditional. Ho & Salimans 2022, eq 6.
        """
        unknown = [array_module(x_t).full(len(x_t), self.n_classes)] if self.conditional else []
        found = predict(*(unknown if labels is None else [labels]))
        if labels is not None and guidance:
            found = (1 + guidance) * found - guidance * predict(*unknown)
        return found

    def chosen(self, options):
        """{name: value}: the settings of the sampler, with options in place of those that they name.

        Raises ValueError for an unknown option, and UsageError if its value is not allowed.
        """
        if unknown := options.keys() - self.sampler_settings:
            known = ", ".join(sorted(self.sampler_settings))
            raise ValueError(f"path: unknown option {', '.join(sorted(unknown))}; use one of {known}")
        return vars(type(self)(**self.settings() | options))  # this checks the options

    def ode_log_prob(self, x, n_steps=100, labels=None, method="rk4"):
        """log p(x) in nats (n,) of x (n, n_features), by the ODE: exact up to the error of the solver (parts/ode.py).

        To know this error, halve n_steps. A step of rk4 costs 4 n_features passes of the network. Raises UsageError if the
        model works in the features of another, where it knows no density of x.
        """
        if type(self).encode is not Denoising.encode:
            raise UsageError(
                f"a {type(self).__name__} knows a density of features, not of x: use ddpm or flow_matching"
            )
        self.check_labels(labels, x=x)
        u, times, log_p = self.ode(n_steps, labels)
        return log_density(u, self.scaler(x), times, log_p, method) - array_module(x).log(self.scaler.std).sum()

    def check_labels(self, labels, **given):
        """Raise an error unless labels are None, or classes (n,) that a conditional model has seen.

        given: one array name=(n, D). Raises ValueError for labels of a wrong shape or if the model was trained without
        labels, and UsageError for a class that the training data does not have.
        """
        ((name, x),) = given.items()
        if labels is not None and (not self.conditional or labels.shape != (len(x),)):
            wanted = f"labels ({len(x)},)" if self.conditional else "none: the model is trained without labels"
            raise ValueError(f"{name} has shape {x.shape} and labels {labels.shape}; expected {wanted}")
        if labels is not None:
            self.classes.check(labels)

    def generate(self, n, rng, labels=None, **options):
        """n examples (n, n_features), of the classes in labels (n,) if they are given. options: see path."""
        *_, (_, x_0) = self.path(rng.normal((n, self.n_diffused)), rng, labels, **options)
        return self.decode(self.scaler.undo(x_0))

    def sample(self, n, rng, label=None):
        """n examples (n, n_features), drawn with the sampler of the settings.

        A conditional model makes them of the class `label`, or of random classes of the training data if label is None.
        Raises UsageError for a class that the training data does not have, and for a label if the model was trained without
        labels.
        """
        if not self.conditional:
            if label is not None:
                raise UsageError(
                    "this model was trained without labels: leave --label out, or train with conditional=true"
                )
            return self.generate(n, rng)
        if label is None:
            return self.generate(n, rng, self.classes.draw(n, rng))
        self.classes.check(label)
        return self.generate(n, rng, rng.integers(1, n) + label)
