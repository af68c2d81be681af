"""What all models with a discriminator share: rounds of training, optimizers, D's loss, and averaged weights of G.

G makes examples, and D judges whether an example is real. A round is d_steps steps of D, each on its own batch, then g_steps
steps of G. What is special in a paper, the inputs and the losses of D and G, is in the file of its model.
"""

from typing import Any

from ...backend import UsageError
from ...nn.double_backward import gradient_penalty
from ...nn.losses import loss_D
from ...nn.optim import EMA, SGD, Adam, RMSProp
from ...nn.parameters import Parameters
from ...nn.schedules import falling
from ..base import Model


class Adversarial(Model):
    """Base of models with a generator G and a discriminator D. Each model file declares its settings as fields."""

    judged_by_samples = True
    objectives = {"discriminator_loss": "params_D", "generator_loss": "params_G"}

    generator: Any  # build makes both networks
    discriminator: Any  # None if the model has no D
    adversarial_loss: Any = "wasserstein"  # the only one of a WGAN
    optimizer: Any = "adam"
    d_steps: Any = 1
    g_steps: Any = 1
    r1: Any = 0.0
    lr_G: Any
    lr_D: Any
    beta1: Any
    beta2: Any
    momentum: Any
    decay_steps: Any
    averaging: Any
    output: Any

    @property
    def data_range(self):
        return (0, 1) if self.output == "sigmoid" else None

    def with_optimizers(self, rng):
        """The model, now with weights from rng, an optimizer for each network, and averaged weights of G."""
        self.params_G = Parameters(rng, generator=self.generator)
        self.optimizer_G = self.make_optimizer(self.params_G, self.lr_G, self.g_steps)
        self.average = EMA(self.params_G, self.averaging)
        if self.discriminator is not None:
            self.params_D = Parameters(rng, discriminator=self.discriminator)
            self.optimizer_D = self.make_optimizer(self.params_D, self.lr_D, self.d_steps)
        return self

    def make_optimizer(self, params, lr, steps):
        """The optimizer that the settings choose, for params. steps: how many steps it makes per round."""
        rate = falling(lr, steps * self.decay_steps)
        if self.optimizer == "sgd":
            return SGD(params, rate, self.momentum)
        if self.optimizer == "rmsprop":
            return RMSProp(params, rate)
        return Adam(params, rate, self.beta1, self.beta2)

    # One round.

    @property
    def examples_per_step(self):
        return self.d_steps * self.batch

    def train_step(self, x, rng, labels=None):
        """{name: loss} of the last steps of D and G in one round. x (d_steps batch, n_features) has a label for each row."""
        for part, labels_part in self.parts(x, labels):
            losses = self.discriminator_loss(part, rng, labels_part)
            self.optimizer_D.step()
            self.constrain()
        return losses | self.train_G(part, rng, labels_part)

    def parts(self, x, labels):
        """[(x, labels) for each step of D]."""
        x = x.reshape(self.d_steps, -1, *x.shape[1:])
        if labels is None:
            return [(part, None) for part in x]
        return list(zip(x, labels.reshape(self.d_steps, -1, *labels.shape[1:])))

    def constrain(self):
        """Change D's weights after each of its steps. Here nothing is done; a WGAN may clip them."""

    def train_G(self, x, rng, labels=None):
        """{name: loss} of G's last step in a round. All g_steps steps use the same batch."""
        losses = {}
        for _ in range(self.g_steps):
            losses = self.generator_loss(x, rng, labels)
            self.optimizer_G.step()
            self.average.step()
        return losses

    # D's loss.

    def tell_apart(self, positives, negatives, rng, columns=None):
        """{name: number} of D's loss with R1, on real positives (B, n) and on negatives (B', n). Only D gets a gradient.

        columns: the slice of the n numbers in which R1 takes the gradient. It leaves out a condition next to the example.
        """
        return self.penalised(self.loss_of_both(positives, negatives, rng), 0.5 * self.r1, positives, 0.0, columns)

    def loss_of_both(self, positives, negatives, rng):
        """D's loss without a penalty. Afterwards D's gradient is the gradient of this loss."""
        self.params_D.zero_grad()
        logits_positive, back_positive = self.discriminator.forward(positives, rng)
        logits_negative, back_negative = self.discriminator.forward(negatives, rng)
        loss, d_positive, d_negative = loss_D(logits_positive, logits_negative, self.adversarial_loss)

        back_positive(d_positive, inputs=False)
        back_negative(d_negative, inputs=False)
        return loss

    def penalised(self, loss, weight, at, centre, columns=None):
        """{name: number}: D's loss plus weight times the gradient penalty at the points `at`, whose gradient is added."""
        if not weight:
            return {"discriminator_loss": loss}
        penalty, back_penalty = gradient_penalty(self.discriminator, at, centre, columns=columns)
        back_penalty(weight)
        return {"discriminator_loss": loss + weight * penalty, "penalty": penalty}

    # Using the trained model.

    def sample(self, n, rng, label=None):
        """G(z) (n, n_features) for n codes z ~ N(0, I), by the averaged weights: pixels in [0, 1] if output is "sigmoid"."""
        with self.average.swapped():
            return self.generator(rng.normal((n, self.n_latent)))

    def check_size(self, n):
        if self.examples_per_step > max(n, self.batch):
            most = n * self.batch // self.examples_per_step
            remedy = f"--set batch={most}" if most else f"--set d_steps=1 batch={n}"
            raise UsageError(
                f"a round takes {self.examples_per_step} examples (d_steps batches), but there are only {n}: use {remedy}"
            )
