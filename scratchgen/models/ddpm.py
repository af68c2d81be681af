"""The diffusion model: a network learns to remove noise; to sample, it starts from noise and removes it step by step.

    x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε,   t uniform on 1 ... T,   ε ~ N(0, I);      minimise E‖target - f(x_t, t)‖²

Ho et al. 2020 (DDPM), eq 14, where the target is ε. parts/diffusion.py has the schedules ᾱ and the samplers. A sampler needs
x̂_0, the network's estimate of the data. The setting `predict` chooses what f is, and x̂_0 is computed from f:

    eps     f = ε̂             x̂_0 = (x_t - √(1 - ᾱ) f) / √ᾱ      an error in f grows by 1/√ᾱ, without bound at t = T
    v       f = v̂             x̂_0 = √ᾱ x_t - √(1 - ᾱ) f          v = √ᾱ ε - √(1 - ᾱ) x_0 (Salimans & Ho 2022, appendix D)
    x0      f = x̂_0
    logits  σ(f) = pixels     x̂_0 = 2 σ(f) - 1                    by Bernoulli cross-entropy, whose best σ(f) is E[x | x_t]

To predict ε or v, the network must reproduce the noise of every pixel, which needs a width of at least the number of pixels.
A narrower network can still predict a picture: so use logits for pixels, and v for points.

With labels the model learns p(x | label). Some labels are withheld, so it also learns p(x). Guidance (Ho & Salimans 2022,
eq 6) then extrapolates: it starts at the prediction without the label and goes past the prediction with it.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from ..backend import UsageError, array_module
from ..nn.activations import sigmoid
from ..nn.losses import bernoulli_nll, squared_error
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import cosine
from .base import Model
from .parts.classes import Classes
from .parts.denoiser import Denoiser, Scaling
from .parts.diffusion import SCHEDULES, VARIANCES, alpha_bars, ancestral, ddim
from .settings import Count, Fraction, NonNegative, Positive, Range, Share, Whole


@dataclass(eq=False)
class DDPM(Model):
    """The settings come first, then the model. Shapes: x, x_0, x_t (B, n_features), t and labels (B,)."""

    n_features: Count = 784
    n_classes: Count = 10
    conditional: bool = False  # whether it learns from labels and can sample a chosen class
    n_times: Count = 200  # T, the number of noise levels
    schedule: Literal[SCHEDULES] = "cosine"  # how fast the noise grows with t; see models/parts/diffusion.py
    predict: Literal["eps", "v", "x0", "logits"] = "logits"  # what the network predicts; see the top of models/ddpm.py
    scaling: Literal["pixels", "standard"] = "pixels"  # [0, 1] -> [-1, 1], or mean 0 and variance 1 in each column
    width: Count = 512  # width of every hidden layer
    n_blocks: Count = 2  # number of residual blocks
    n_waves: Annotated[int, Range(2, even=True)] = 64  # how many cosines and sines encode the time t
    label_dropout: Fraction = 0.1  # the probability that a label is withheld in training
    batch: Count = 64
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls to 0 along half a cosine; 0: constant rate
    averaging: Fraction = 0.999  # decay of the averaged weights that samplers use; 0: the latest weights
    sampler: Literal["ddim", "ancestral"] = "ddim"  # ancestral visits every t; ddim takes n_steps jumps
    n_steps: Count = 50  # number of jumps of ddim; ancestral takes T steps
    eta: Share = 0.0  # η of ddim: 0 adds no noise while sampling, 1 adds the most
    ancestral_variance: Literal[VARIANCES] = "beta_tilde"  # variance of the noise that ancestral adds
    guidance: NonNegative = 0.0  # weight w: x̂_0 = (1 + w) x̂_0(label) - w x̂_0(no label)
    clip_x0: bool = True  # keep x̂_0 within the range of the data

    judged_by_samples = True
    sampler_settings = frozenset({"sampler", "n_steps", "eta", "ancestral_variance", "guidance", "clip_x0"})
    tiny = {"n_features": 6, "n_classes": 3, "n_times": 20, "width": 5, "n_waves": 4, "batch": 4, "n_steps": 4}

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
        self.alpha_bar = alpha_bars(self.schedule, self.n_times)  # (T + 1,) on the host, used by the samplers
        tables = np.sqrt(self.alpha_bar), np.sqrt(1 - self.alpha_bar)
        self.signal, self.noise = (rng.array(table).real for table in tables)  # √ᾱ, √(1 - ᾱ) on the device, to make x_t
        return self

    # What is diffused: here the examples themselves. LatentDiffusion overrides these three.

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

    # Training.

    def q_sample(self, x_0, t, eps):
        """x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε. Times t (B,) are integers from 0 to T, one for each row of x_0 and eps (B, n)."""
        return self.signal[t][:, None] * x_0 + self.noise[t][:, None] * eps

    def predicted(self, x, labels, rng):
        """(loss, its gradient in the network's output, the network's backward), with a random time for each row of x."""
        x_0 = self.scaler(self.encode(x))  # (B, n_diffused)
        t = 1 + rng.integers(self.n_times, len(x))
        eps = rng.normal(x_0.shape)
        x_t = self.q_sample(x_0, t, eps)
        f, back_denoiser = self.denoiser.forward((x_t, t, *self.drop_labels(labels, rng)), rng)
        if self.predict == "logits":
            return *bernoulli_nll(f, x), back_denoiser
        v = self.signal[t][:, None] * eps - self.noise[t][:, None] * x_0
        return *squared_error(f, {"eps": eps, "v": v, "x0": x_0}[self.predict]), back_denoiser

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

    def denoise(self, x_t, t, labels=None, guidance=0.0, clip_x0=True):
        """x̂_0 (n, n_diffused) from x_t at time t, an int, by the averaged weights. With labels (n,), guidance is applied."""
        xp = array_module(x_t)
        now = xp.full(len(x_t), t)
        given = [labels] if labels is not None else []
        unknown = [xp.full(len(x_t), self.n_classes)] if self.conditional else []
        with self.average.swapped():
            x_0 = self.x_0(self.denoiser((x_t, now, *(given or unknown))), x_t, t)
            if given and guidance:
                x_0 = (1 + guidance) * x_0 - guidance * self.x_0(self.denoiser((x_t, now, *unknown)), x_t, t)
        return self.scaler.clip(x_0) if clip_x0 else x_0

    def x_0(self, f, x_t, t):
        """x̂_0 from the network's output f at time t, by the formula for `predict` at the top of this file."""
        signal, noise = math.sqrt(self.alpha_bar[t]), math.sqrt(1 - self.alpha_bar[t])
        if self.predict == "eps":
            return (x_t - noise * f) * (1 / signal)
        if self.predict == "v":
            return signal * x_t - noise * f
        return f if self.predict == "x0" else 2 * sigmoid(f) - 1

    def path(self, x_T, rng, labels=None, **options):
        """Yields (t, x_t) from T down to 0, starting at noise x_T. x_t (n, n_diffused) is scaled as x_0 is; labels (n,).

        options: sampler, n_steps, eta, ancestral_variance, guidance and clip_x0 replace the settings with these names.
        Raises UsageError if the value of an option is not allowed. Raises ValueError for an unknown option, for labels if
        the model was trained without them, and if the number of labels is not n.
        """
        if unknown := options.keys() - self.sampler_settings:
            known = ", ".join(sorted(self.sampler_settings))
            raise ValueError(f"path: unknown option {', '.join(sorted(unknown))}; use one of {known}")
        settings = self.settings() | options
        chosen = vars(type(self)(**settings))  # this checks the options
        self.check_labels(labels, x_T=x_T)

        def denoise(x_t, t):
            return self.denoise(x_t, t, labels, chosen["guidance"], chosen["clip_x0"])

        if chosen["sampler"] == "ancestral":
            return ancestral(denoise, x_T, self.alpha_bar, rng, chosen["ancestral_variance"])
        return ddim(denoise, x_T, self.alpha_bar, rng, chosen["n_steps"], chosen["eta"])

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
