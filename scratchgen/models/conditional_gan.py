"""The conditional GAN: G makes an example for a condition, and D judges whether the example is real and fits the condition.

    V(D, G) = E[log D(x|c)] + ½ E[log(1 - D(G(z|c)|c))] + ½ E[log(1 - D(x|c′))]           D raises V, G lowers it

Mirza & Osindero 2014, eq 2, with the third term of Reed et al. 2016, algorithm 1. G takes both c and z, and D sees the
condition in every term. D's positives are real examples with their own condition c. Its negatives are G's examples with the
condition they were made for, and real examples with a wrong condition c′. Without the latter, D could accept any example
that looks real. The third term has a price: D's negatives are ½ p_g + ½ p_wrong, so the best p_g is max(0, κ p - p_wrong),
where κ ≤ 2 makes it sum to one. Where 2 p ≥ p_wrong for every x, this is 2 p - p_wrong. An x that fits several conditions is
therefore generated less often than it occurs.

A condition is a class label, which becomes a one-hot row, or any vector. If c alone nearly determines x, G may learn to
ignore z. Dropout in G, which is also active during sampling, is another source of variety (Isola et al. 2017).
"""

from dataclasses import dataclass
from typing import Literal

from ..backend import UsageError, array_module
from ..nn.activations import LeakyReLU, Sigmoid
from ..nn.layers import mlp, one_hot
from ..nn.losses import ADVERSARIAL, loss_G
from .parts.adversarial import Adversarial
from .parts.classes import Classes
from .settings import Count, Fraction, NonNegative, Positive, Whole


@dataclass(eq=False)
class ConditionalGAN(Adversarial):
    """The settings come first, then the model.

    Shapes: x (B, n_features), labels (B,) or (B, n_classes), c (B, n_classes).
    """

    n_features: Count = 784
    n_classes: Count = 10  # how many classes the labels have, or how many numbers a condition vector has
    condition: Literal["label", "vector"] = "label"  # what the condition is: a class, or a vector of any numbers
    n_latent: Count = 64
    hidden_G: tuple[int, ...] = (256, 512)
    hidden_D: tuple[int, ...] = (256, 256)
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of G: sigmoid for pixels in [0, 1], linear for any numbers
    adversarial_loss: Literal[tuple(ADVERSARIAL)] = "non_saturating"
    d_steps: Count = 1  # steps of D per round, each on its own batch
    dropout: Fraction = 0.1  # dropout rate in G
    r1: NonNegative = 1.0  # γ, the weight of the R1 penalty, see models/gan.py
    batch: Count = 64
    lr_G: Positive = 5e-4
    lr_D: Positive = 5e-4
    beta1: Fraction = 0.0  # Adam's β1
    beta2: Fraction = 0.99
    decay_steps: Whole = 0  # rounds of training: the rates fall linearly to 0 in the second half; 0: constant rates
    averaging: Fraction = 0.999  # decay of the averaged weights of G that sample() uses; 0: the latest weights

    needs_labels = True
    tiny = {"n_features": 6, "n_classes": 3, "n_latent": 2, "hidden_G": (5,), "hidden_D": (7,), "batch": 4}

    @property
    def labels_are_vectors(self):
        return self.condition == "vector"

    def build(self, rng):
        self.classes = Classes(self.n_classes)
        last = Sigmoid if self.output == "sigmoid" else None
        sizes = [self.n_latent + self.n_classes, *self.hidden_G, self.n_features]
        self.generator = mlp(sizes, dropout=self.dropout, last=last)
        self.discriminator = mlp([self.n_features + self.n_classes, *self.hidden_D, 1], LeakyReLU)
        return self.with_optimizers(rng)

    def prepare(self, x, rng, labels=None):
        if self.condition == "label" and labels is not None:
            self.classes.note(labels)

    def as_vectors(self, labels):
        """The conditions c (B, n_classes) that the networks take, from labels or vectors."""
        return labels if self.condition == "vector" else one_hot(labels, self.n_classes, self.params_G.theta.real.dtype)

    def wrong(self, labels, rng):
        """A wrong condition for each example: another label, all equally likely, or the vector of another example.

        This assumes that the vectors of neighbours differ. If two neighbours share a vector, D sees it as right and as
        wrong.
        """
        if self.condition == "vector":
            return array_module(labels).roll(labels, 1, axis=0)
        return self.classes.other(labels, rng)

    def discriminator_loss(self, x, rng, labels=None):
        """D's loss with R1: (x, c) against ½ (G(z|c), c) + ½ (x, c′), where c′ is wrong. Only D gets a gradient."""
        join = array_module(x).concatenate
        c, c_wrong = self.as_vectors(labels), self.as_vectors(self.wrong(labels, rng))
        z = rng.normal((len(x), self.n_latent))
        x_hat = self.generator(join([z, c], axis=1), rng)  # (B, n_features)
        positives = join([x, c], axis=1)  # (B, n_features + n_classes)
        negatives = join([join([x_hat, x]), join([c, c_wrong])], axis=1)  # (2 B, ...): in their mean each kind weighs ½
        return self.tell_apart(positives, negatives, rng, columns=slice(0, self.n_features))  # R1 acts on x only

    def generator_loss(self, x, rng, labels=None):
        """G's loss on one generated example per label; x is not used. Only G gets a gradient: D is frozen."""
        self.params_G.zero_grad()
        join, c = array_module(labels).concatenate, self.as_vectors(labels)
        z = rng.normal((len(c), self.n_latent))
        x_hat, back_generator = self.generator.forward(join([z, c], axis=1), rng)  # (B, n_features)
        logits, back_discriminator = self.discriminator.forward(join([x_hat, c], axis=1), rng)
        loss, d_logits = loss_G(logits, self.adversarial_loss)

        d_both = back_discriminator(d_logits, learn=False)  # the gradient in x̂ and c
        back_generator(d_both[:, : self.n_features], inputs=False)
        return {"generator_loss": loss}

    def generate(self, labels, rng):
        """One example per condition, (n, n_features), by the averaged weights; labels (n,) or vectors (n, n_classes).

        Raises UsageError for a class that the training data does not have.
        """
        if self.condition == "label":
            self.classes.check(labels)
        c = self.as_vectors(labels)
        z = rng.normal((len(c), self.n_latent))
        with self.average.swapped():
            return self.generator(array_module(c).concatenate([z, c], axis=1), rng)  # with rng, dropout is active

    def sample(self, n, rng, label=None):
        """n examples (n, n_features) of one class, or of random classes if no label is given.

        Random classes are drawn from those of the training data. Raises UsageError for a label that the training data does
        not have, and for a model whose conditions are vectors: use generate for such a model.
        """
        if self.condition == "vector":
            raise UsageError(
                "sample: this ConditionalGAN needs a vector for each example; use its method generate(vectors, rng)"
            )
        if label is None:
            return self.generate(self.classes.draw(n, rng), rng)
        self.classes.check(label)
        return self.generate(rng.integers(1, n) + label, rng)
