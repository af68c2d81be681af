"""Normalizing flows: an invertible network turns data into noise, so the density of data is known exactly.

    z = f(x),   z ~ N(0, I);      log p(x) = log N(f(x); 0, I) + log |det ∂f/∂x|;      to sample, x = f⁻¹(z)

Where f stretches space, it spreads the noise's probability thinly, and where it squeezes, densely: the determinant keeps
count. So training is plain maximum likelihood, with no bound and no adversary. f consists of layers whose inverse and
determinant are cheap (models/parts/invertible.py, models/parts/coupling.py):

    conditioner=coupling, transform=affine              RealNVP, Dinh et al. 2017, with the ActNorm of Kingma & Dhariwal 2018
    conditioner=coupling, transform=spline              neural spline flow, Durkan et al. 2019
    conditioner=autoregressive, transform=affine        MAF, Papamakarios et al. 2017: sampling takes D passes a layer

f is continuous and so is its inverse. So a flow cannot tear the one hill of noise into separate ones: it draws thin bridges
between them. Splines, which can be nearly flat and nearly steep, draw thinner ones.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from ..backend import array_module
from ..nn.layers import log_sum_exp
from ..nn.optim import EMA, Adam, clip_by_norm
from ..nn.parameters import Parameters
from ..nn.schedules import cosine
from .base import Model
from .parts.classes import Classes, Conditional
from .parts.coupling import Affine, Autoregressive, Coupling
from .parts.denoising import standard_normal
from .parts.invertible import ActNorm, Chain, Logit, Permute
from .parts.levels import dequantise, quantise
from .parts.spline import Spline
from .settings import Count, Fraction, Positive, Range, Whole

FIRST = 5_000  # so many examples start the ActNorms
ROWS = 1_000  # rows whose log p is computed at once, so that memory does not grow with their number


@dataclass(eq=False)
class Flow(Conditional, Model):
    """The settings come first, then the model. Shapes: x, z (B, n_features), labels (B,), log_prob (B,).

    levels: the data are pixels of so many grey levels. Then noise as wide as a level is added, a logit takes [0, 1] to all
    numbers, and the loss is a bound on -log P of the pixels: models/parts/levels.py.
    """

    n_features: Annotated[int, Range(2)] = 784
    n_classes: Count = 10
    conditional: bool = False  # whether it learns p(x | label) and can sample a chosen class
    levels: Whole = 0  # grey levels of the data, which `train` finds itself; 0: the data are any numbers
    alpha: Annotated[float, Range(0.0, 0.5, True, True)] = 0.05  # for levels: the logit is of alpha + (1 - 2 alpha) x
    conditioner: Literal["coupling", "autoregressive"] = "coupling"  # what may decide how a feature is changed
    transform: Literal["affine", "spline"] = "affine"  # how it is changed
    n_layers: Count = 12  # number of couplings, or of autoregressive layers
    hidden: tuple[int, ...] = (64, 64)  # sizes of the hidden layers of the network in each of them
    order: Literal["reverse", "random"] = "reverse"  # how the features are reordered after each of them
    max_log_scale: Positive = 2.0  # for affine: a layer stretches by at most exp of this
    n_bins: Annotated[int, Range(2)] = 8  # number of bins of a spline
    reach: Positive = 4.0  # for spline: how many standard deviations it covers; beyond, it changes nothing
    batch: Count = 256
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training: the rate falls to 0 along half a cosine; 0: constant rate
    max_norm: Positive = 5.0  # a longer gradient is shortened to this
    averaging: Fraction = 0.999  # decay of the averaged weights that are used after training; 0: the latest weights

    judged_by_samples = True
    needs_levels = True
    tiny = {"n_features": 5, "n_classes": 3, "n_layers": 2, "hidden": (6, 5), "n_bins": 3, "batch": 4}

    @property
    def data_range(self):
        return (0, 1) if self.levels else None

    def build(self, rng):
        n, n_classes = self.n_features, self.n_classes if self.conditional else 0
        layers = [Logit(self.alpha)] if self.levels else []
        for i in range(self.n_layers):
            g = Affine(self.max_log_scale) if self.transform == "affine" else Spline(self.n_bins, self.reach)
            if self.conditioner == "coupling":  # the two parts change roles in turn, also if n is odd
                layer = Coupling(n, g, self.hidden, n_classes, n_a=(n + i % 2) // 2)
            else:
                layer = Autoregressive(n, g, self.hidden, n_classes)
            layers += [ActNorm(n), layer, Permute(n, self.order)]
        self.classes = Classes(self.n_classes)
        self.flow = Chain(*layers, ActNorm(n))
        self.params = Parameters(rng, flow=self.flow)
        self.adam = Adam(self.params, cosine(self.lr, self.decay_steps) if self.decay_steps else self.lr)
        self.average = EMA(self.params, self.averaging)
        return self

    def prepare(self, x, rng, labels=None):
        """Start each ActNorm from random examples of x (N, n_features)."""
        chosen, known = rng.permutation(len(x))[:FIRST], self.conditional and labels is not None
        self.flow.measure(self.dequantised(x[chosen], rng), labels[chosen] if known else None)
        self.average.average[...] = self.params.theta
        self.params.changed()
        if known:
            self.classes.note(labels)

    # Training.

    def dequantised(self, x, rng):
        """x (N, n_features) with noise as wide as a grey level. Without levels it is x itself."""
        return dequantise(x, self.levels, rng) if self.levels else x

    @property
    def cell(self):
        """-log of the volume in which x lies: log P(pixels) >= E log p(x) - cell. Without levels it is 0."""
        return self.n_features * math.log(max(self.levels, 1))

    def loss(self, x, rng, labels=None):
        """{"loss": -log p(x), nats per example, and with levels plus cell: then a bound on -log P of the pixels}.

        -log p = ½ ‖z‖² + ½ D log 2π - log_det, so dz = z / B and d_log_det = -1/B.
        """
        self.params.zero_grad()
        (z, log_det), backward = self.flow.forward(self.dequantised(x, rng), rng, self.needed(labels))
        loss = self.cell - (standard_normal(z) + log_det).mean()

        weight = 1 / len(x)
        backward((z * weight, array_module(z).full(len(x), -weight, z.dtype)), inputs=False)
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng, labels)
        clip_by_norm(self.params, self.max_norm)
        self.adam.step()
        self.average.step()
        return losses

    # Using the trained model, always by the averaged weights. With levels, x here are pixels with their noise: dequantised.

    def to_noise(self, x, labels=None):
        """(z (N, n_features), log |det ∂z/∂x| (N,)) of x (N, n_features), given labels (N,) if the model is conditional."""
        self.check_labels(labels, len(x))
        with self.average.swapped():
            return self.flow.forward(x, None, labels)[0]

    def inverse(self, z, labels=None):
        """x (n, n_features) of noise z (n, n_features): the way back from to_noise."""
        self.check_labels(labels, len(z))
        with self.average.swapped():
            return self.flow.inverse(z, labels)

    def log_prob(self, x, labels=None):
        """log p(x) in nats (N,), exact, of x (N, n_features): log p(x | label) if labels (N,) are given.

        Without them, a conditional model gives log p(x) under equally probable classes.
        """
        xp = array_module(x)
        if self.conditional and labels is None:
            seen = [int(k) for k in self.classes.seen.nonzero()[0]]
            each = [self.log_prob(x, xp.full(len(x), k)) for k in seen]
            return log_sum_exp(xp.stack(each), 0) - math.log(len(seen))
        parts = []
        for i in range(0, max(1, len(x)), ROWS):
            z, log_det = self.to_noise(x[i : i + ROWS], None if labels is None else labels[i : i + ROWS])
            parts.append(standard_normal(z) + log_det)
        return xp.concatenate(parts)

    def check_labels(self, labels, n):
        """Raise an error unless labels are what the model needs: classes (n,) that it has seen, or None."""
        if self.conditional != (labels is not None) or (labels is not None and labels.shape != (n,)):
            wanted = f"({n},)" if self.conditional else "none: the model is trained without labels"
            raise ValueError(f"labels: got {None if labels is None else labels.shape}, expected {wanted}")
        if labels is not None:
            self.classes.check(labels)

    def evaluate(self, x, rng, labels=None):
        """{"nll": -log p, nats per example} of x (N, n_features); of pixels the bound, also as "bits_per_dim"."""
        log_p = self.log_prob(self.dequantised(x, rng), self.needed(labels))
        nll = self.cell - log_p.mean()
        return {"nll": nll} | ({"bits_per_dim": nll / (self.n_features * math.log(2))} if self.levels else {})

    def sample(self, n, rng, label=None):
        """n examples (n, n_features): f⁻¹ of noise. A conditional model makes them of the class label, or of random ones.

        Raises UsageError for a class that the training data does not have, and for a label if the model was trained without
        labels.
        """
        x = self.inverse(rng.normal((n, self.n_features)), self.labels_to_sample(n, rng, label))
        return quantise(x, self.levels) if self.levels else x

    @classmethod
    def example(cls, rng, **settings):
        model, batch = super().example(rng, **settings)
        if model.levels:
            batch["x"] = quantise(batch["x"], model.levels)
        return model, batch
