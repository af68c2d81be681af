"""The conditional GAN: G is told what to make, and D judges whether an example is real and is what was asked for.

    V(D, G) = E[log D(x|c)] + ½ E[log(1 - D(G(z|c)|c))] + ½ E[log(1 - D(x|c′))]           D raises V, G lowers it

Mirza & Osindero 2014, eq 2, with the third term of Reed et al. 2016, algorithm 1. Real examples with their own
condition c are positives; negatives are G's examples with the condition they were made for, and real ones with a wrong
condition c′, without which D could pass any real-looking example. D sees the condition in every term, and G takes
both c and z. The third term has its price: D's negatives are ½ p_g + ½ p_wrong, so the best
p_g is 2 p - p_wrong where that is positive; an x that fits several conditions is made more seldom than it occurs.

A condition is a class label, entered as a one-hot row, or any vector. Where c alone nearly decides x, G may learn to
overlook z: dropout in G, kept on when sampling, is another source of variety (Isola et al. 2017).
"""

from dataclasses import dataclass
from typing import Literal

from ..backend import UsageError, array_module
from ..nn.activations import LeakyReLU, Sigmoid
from ..nn.double_backward import gradient_penalty
from ..nn.layers import mlp, one_hot
from ..nn.losses import ADVERSARIAL, loss_D, loss_G
from ..nn.optim import EMA, Adam
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .base import Model, saturation
from .parts.classes import Classes


@dataclass(eq=False)
class ConditionalGAN(Model):
    """The settings, then the model. Shapes: x (B, n_features), labels (B,) or (B, n_classes), c (B, n_classes)."""

    n_features: int = 784
    n_classes: int = 10  # or how many numbers a condition vector has
    condition: Literal["label", "vector"] = "label"  # what an example is asked for by: its class, or any numbers
    n_latent: int = 64
    hidden_G: tuple[int, ...] = (256, 512)
    hidden_D: tuple[int, ...] = (256, 256)
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of G: pixels in [0, 1], or any numbers
    loss: Literal[tuple(ADVERSARIAL)] = "non_saturating"
    k: int = 1  # steps of D a round, each on a batch of its own
    dropout: float = 0.1  # in G
    r1: float = 1.0  # γ of R1, see gan.py
    batch: int = 64
    lr_G: float = 5e-4
    lr_D: float = 5e-4
    beta1: float = 0.0  # Adam's
    beta2: float = 0.99
    rounds: int = 0  # of the whole training: the rates stay for half of them, then fall linearly to 0; 0: they stay
    averaging: float = 0.999  # decay of the averaged weights of G that sample() uses; 0: the last ones

    judged_by_samples = True
    variants = (
        {},
        {"condition": "vector", "loss": "hinge", "r1": 0.0, "dropout": 0.0, "k": 2, "averaging": 0.0},
        {"loss": "least_squares", "output": "linear", "rounds": 3},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.n_classes < 2 and self.condition == "label":
            raise UsageError("ConditionalGAN setting n_classes: expected 2 or more labels, or there is no wrong one")
        if self.batch < 2 and self.condition == "vector":
            raise UsageError(
                "ConditionalGAN setting batch: expected 2 or more, or a vector has no neighbour to be wrong"
            )

    def build(self, rng):
        self.classes = Classes(self.n_classes)
        last = Sigmoid if self.output == "sigmoid" else None
        sizes = [self.n_latent + self.n_classes, *self.hidden_G, self.n_features]
        self.generator = mlp(sizes, dropout=self.dropout, last=last)
        self.discriminator = mlp([self.n_features + self.n_classes, *self.hidden_D, 1], LeakyReLU)
        self.params_G = Parameters(rng, generator=self.generator)
        self.params_D = Parameters(rng, discriminator=self.discriminator)
        self.optimizer_G = Adam(self.params_G, falling(self.lr_G, self.rounds), self.beta1, self.beta2)
        self.optimizer_D = Adam(self.params_D, falling(self.lr_D, self.k * self.rounds), self.beta1, self.beta2)
        self.average = EMA(self.params_G, self.averaging)
        return self

    def check_data(self, x, labels=None):
        super().check_data(x, labels)
        wanted = {"label": (len(x),), "vector": (len(x), self.n_classes)}[self.condition]
        if labels is not None and labels.shape != wanted:
            raise UsageError(
                f"condition={self.condition} needs labels of shape {wanted}, but these are {labels.shape}; "
                "use --set condition=label for classes, condition=vector for rows of n_classes numbers"
            )

    def prepare(self, x, rng, labels=None):
        if self.condition == "label" and labels is not None:
            self.classes.note(labels)

    def rows_of(self, labels):
        """Conditions c (B, n_classes) as the networks take them."""
        return labels if self.condition == "vector" else one_hot(labels, self.n_classes, self.params_G.theta.real.dtype)

    def wrong(self, labels, rng):
        """For each label another one, all others being as likely; for each vector that of its neighbour in the batch.

        Vectors are taken to differ from example to example: where neighbours share one, D is told right and wrong of it.
        """
        if self.condition == "vector":
            return array_module(labels).roll(labels, 1, axis=0)
        return self.classes.other(labels, rng)

    def discriminator_loss(self, x, labels, rng):
        """D's loss on (x, c) against ½ (G(z|c), c) + ½ (x, c′), c′ wrong, R1 included. Trains D alone."""
        self.params_D.zero_grad()
        join = array_module(x).concatenate
        c, c_wrong = self.rows_of(labels), self.rows_of(self.wrong(labels, rng))
        z = rng.normal((len(x), self.n_latent))
        x_hat = self.generator(join([z, c], axis=1), rng)  # (B, n_features)
        positives = join([x, c], axis=1)  # (B, n_features + n_classes)
        negatives = join([join([x_hat, x]), join([c, c_wrong])], axis=1)  # (2 B, ...): their mean weighs each kind by ½
        logits_positive, back_positive = self.discriminator.forward(positives, rng)
        logits_negative, back_negative = self.discriminator.forward(negatives, rng)
        loss, d_positive, d_negative = loss_D(logits_positive, logits_negative, self.loss)

        back_positive(d_positive, inputs=False)
        back_negative(d_negative, inputs=False)
        if not self.r1:
            return {"discriminator_loss": loss}
        pixels = slice(0, self.n_features)  # the slope in x alone
        penalty, back_penalty = gradient_penalty(self.discriminator, positives, centre=0.0, columns=pixels)
        back_penalty(0.5 * self.r1)
        return {"discriminator_loss": loss + 0.5 * self.r1 * penalty, "penalty": penalty}

    def generator_loss(self, labels, rng):
        """G's loss on examples made for these conditions. Trains G alone, through D, which stands still."""
        self.params_G.zero_grad()
        join, c = array_module(labels).concatenate, self.rows_of(labels)
        z = rng.normal((len(c), self.n_latent))
        x_hat, back_generator = self.generator.forward(join([z, c], axis=1), rng)  # (B, n_features)
        logits, back_discriminator = self.discriminator.forward(join([x_hat, c], axis=1), rng)
        loss, d_logits = loss_G(logits, self.loss)

        d_both = back_discriminator(d_logits, learn=False)  # of x̂ and c
        back_generator(d_both[:, : self.n_features], inputs=False)
        return {"generator_loss": loss}

    objectives = {"discriminator_loss": "params_D", "generator_loss": "params_G"}

    def train_step(self, x, labels, rng):
        """A round, from x (k batch, n_features) and as many labels. Returns the losses of its last steps of D and of G."""
        x, labels = (array.reshape(self.k, -1, *array.shape[1:]) for array in (x, labels))
        for part, labels_part in zip(x, labels):
            losses = self.discriminator_loss(part, labels_part, rng)
            self.optimizer_D.step()
        losses |= self.generator_loss(labels[-1], rng)
        self.optimizer_G.step()
        self.average.step()
        return losses

    @property
    def rows(self):
        return self.k * self.batch

    remedies = "a larger r1, fewer steps of D (k) or a smaller lr_D"

    def complaint(self, losses):
        return saturation(self, losses)

    def generate(self, labels, rng):
        """An example for each condition, labels (n,) or vectors (n, n_classes), by the averaged weights: (n, n_features).

        Raises UsageError for a class that the training data does not have.
        """
        if self.condition == "label":
            self.classes.check(labels)
        c = self.rows_of(labels)
        z = rng.normal((len(c), self.n_latent))
        with self.average.swapped():
            return self.generator(array_module(c).concatenate([z, c], axis=1), rng)  # rng: dropout stays on

    def sample(self, n, rng, label=None):
        """n examples (n, n_features) of one class, or of classes drawn at random from those of the training data.

        Raises UsageError for a label that the training data does not have, and for a model whose conditions are vectors:
        see generate.
        """
        if self.condition == "vector":
            raise UsageError(
                "this ConditionalGAN takes vectors: its method generate(vectors, rng) makes an example for each"
            )
        if label is None:
            return self.generate(self.classes.draw(n, rng), rng)
        self.classes.check(label)
        return self.generate(rng.integers(1, n) + label, rng)

    @classmethod
    def example(cls, rng, **settings):
        tiny = {"n_features": 6, "n_classes": 3, "n_latent": 2, "hidden_G": (5,), "hidden_D": (7,), "batch": 4}
        model = cls(**tiny | settings).build(rng)
        vectors = model.condition == "vector"
        labels = rng.normal((model.rows, 3)) if vectors else rng.integers(3, model.rows)
        return model, {"x": rng.uniform((model.rows, 6)), "labels": labels}
