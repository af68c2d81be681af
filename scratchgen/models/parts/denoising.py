"""What diffusion and flow matching share: a network between noise and data, labels and guidance, averaged weights, samples.

Both mix an example with noise, and train a network to undo that. Both then sample in steps, from pure noise to an example.
Three things differ and stand in the files of the models: how noise is mixed in, what the network predicts, and the sampler.
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
from .classes import Classes, Conditional
from .denoiser import Denoiser, Scaling
from .levels import dequantise, quantise
from .ode import log_density


def standard_normal(x):
    """log N(x; 0, I) in nats (n,) of x (n, D)."""
    return diagonal_gaussian_log_prob(x, 0.0, array_module(x).zeros(x.shape[1], x.dtype))


@dataclass(eq=False)
class Denoising(Conditional, Model):
    """Base of DDPM and FlowMatching: their common settings. Shapes: x (B, n_features), x_0, x_t (B, n_diffused).

    x_0 is an example as the network sees it, without noise. A model defines `predicted`, its loss; `path`, its sampler; and
    `ode`, a way from data to noise without randomness.
    """

    n_features: Count = 784
    n_classes: Count = 10
    conditional: bool = False  # whether it learns from labels and can sample a chosen class
    scaling: Literal["pixels", "standard"] = "pixels"  # [0, 1] -> [-1, 1], or mean 0 and variance 1 in each column
    levels: Whole = 0  # grey levels of the data: training adds noise as wide as a level, so that log p exists; 0: none
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
    guidance_start: Fraction = 0.0  # the first part of the way from noise to data, which is made without guidance

    judged_by_samples = True

    @property
    def data_range(self):
        return (0, 1) if self.scaling == "pixels" else None

    def build(self, rng):
        self.classes = Classes(self.n_classes)
        n, n_classes = self.n_diffused, self.n_classes if self.conditional else 0
        self.denoiser = Denoiser(n, self.width, self.n_blocks, self.n_waves, n_classes, self.n_seen)
        self.scaler = Scaling(n)
        self.params = Parameters(rng, denoiser=self.denoiser, scaler=self.scaler)
        self.adam = Adam(self.params, cosine(self.lr, self.decay_steps) if self.decay_steps else self.lr)
        self.average = EMA(self.params, self.averaging)
        return self

    # What is diffused: here the examples themselves. A model that works in the features of another overrides these three.

    @property
    def n_diffused(self):
        return self.n_features

    @property
    def n_seen(self):
        """How many numbers the network takes beside t and the label."""
        return self.n_diffused

    def encode(self, x):
        """The numbers (N, n_diffused) that are diffused for examples x (N, n_features), before scaling."""
        return x

    def decode(self, features):
        """The examples (N, n_features) for such numbers (N, n_diffused): the way back from encode."""
        return features

    def dequantised(self, x, rng):
        """x (N, n_features) with noise as wide as a grey level. Without levels it is x itself."""
        return dequantise(x, self.levels, rng) if self.levels else x

    def scaled(self, x, rng):
        """x_0 (N, n_diffused) of examples x (N, n_features). rng draws the noise of the grey levels, if there are any."""
        return self.scaler(self.encode(self.dequantised(x, rng)))

    def unscaled(self, x_0):
        """The examples (N, n_features) for x_0 (N, n_diffused): the way back from scaled."""
        x = self.decode(self.scaler.undo(x_0))
        return quantise(x, self.levels) if self.levels else x

    def prepare(self, x, rng, labels=None):
        if self.scaling == "standard":
            self.scaler.measure(self.encode(self.dequantised(x, rng)))
        if self.conditional and labels is not None:
            self.classes.note(labels)

    def predicted(self, x, labels, rng):
        """(loss, its gradient in the network's output, the network's backward) of examples x (B, n_features)."""
        raise TypeError(f"{type(self).__name__} must define predicted(self, x, labels, rng)")

    def path(self, x, rng, labels=None, **options):
        """Yields (t, x_t) from noise x (n, n_diffused) to x_0. options replace the settings with these names."""
        raise TypeError(f"{type(self).__name__} must define path(self, x, rng, labels=None, **options)")

    def ode(self, n_steps, labels=None):
        """(u, times, log_p): a velocity field u(x, t), times from data to noise, and log p(x) of the noise at the last one.

        At the first time x is x_0. labels (n,), if any, belong to the examples.
        """
        raise UsageError(f"a {type(self).__name__} has no ODE")

    # Training.

    def drop_labels(self, labels, rng):
        """(labels,) with some labels withheld, or () if the model is not conditional."""
        if not self.conditional:
            return ()
        labels = self.needed(labels)
        withheld = rng.uniform(len(labels)) < self.label_dropout
        return (array_module(labels).where(withheld, self.n_classes, labels),)

    def loss(self, x, rng, labels=None):
        """{"loss": E‖target - f(x_t, t)‖², or for logits nats per example}. Each row of x (B, n_features) has its own t."""
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
        """(1 + w) predict(labels) - w predict(any), for a guidance w > 0 and labels (n,): Ho & Salimans 2022, eq 6.

        Without guidance it is predict(labels), without labels predict(any), and predict() if the model is not conditional.
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
        """log p(x) in nats (n,) of x (n, n_features), exact but for the error of the solver: see parts/ode.py.

        labels (n,): then it is log p(x | label). With levels, x are pixels with their noise: see `dequantised`. Each step of
        rk4 takes 4 n_features passes of the network. To see the solver's error, halve n_steps. Raises UsageError as
        check_density does.
        """
        self.check_density()
        self.check_labels(labels, x=x)
        u, times, log_p = self.ode(n_steps, labels)
        return log_density(u, self.scaler(x), times, log_p, method) - array_module(x).log(self.scaler.std).sum()

    def check_density(self):
        """Raise UsageError if the network predicts the data, or if the data are features: then x has no density."""
        if type(self).encode is not Denoising.encode:
            raise UsageError(
                f"a {type(self).__name__} has a density of features, not of x: use a DDPM or a FlowMatching"
            )
        self.ode(1)

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
        return self.unscaled(x_0)

    @classmethod
    def example(cls, rng, **settings):
        model, batch = super().example(rng, **settings)
        if model.levels:
            batch["x"] = quantise(batch["x"], model.levels)
        return model, batch

    def sample(self, n, rng, label=None):
        """n examples (n, n_features), drawn with the sampler of the settings.

        A conditional model makes them of the class `label`, or of random classes of the training data if label is None.
        Raises UsageError for a class that the training data does not have, and for a label if the model was trained without
        labels.
        """
        return self.generate(n, rng, self.labels_to_sample(n, rng, label))
