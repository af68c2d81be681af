"""The generative adversarial network: G makes examples from noise, D tells them from real ones, each learns from the other.

    V(D, G) = E_x~p_data[log D(x)] + E_z~p_z[log(1 - D(G(z)))]           D raises V, G lowers it

Goodfellow et al. 2014, eq 1 and algorithm 1: a round is d_steps of D, then g_steps of G. D is a binary classifier, real (1)
against generated (0), and its loss is -V. It needs no class labels. G never sees a real example: it learns only from D's
gradient at the examples that it made, while D is frozen. p_z is the law of the noise, and p_g that of G(z):
p_g(x) = ∫ p_z(z) δ(x - G(z)) dz, which cannot be computed. Which loss G lowers is a setting: nn/losses.py has them all.

What keeps D from running ahead of G: R1, ½ γ E‖∇ₓD(x)‖² at real x as D is shown them (Mescheder et al. 2018, eq 9); noise on
its inputs, and on its labels, of which it flips some; both fade as training goes on; smoothed labels; dropout; packing,
where D judges several examples at once and so sees when all are alike (PacGAN, Lin et al. 2018). Neither loss says how
good the samples are: see metrics/.
"""

from dataclasses import dataclass
from typing import Literal

from ..backend import UsageError
from ..nn.activations import LeakyReLU, Sigmoid
from ..nn.double_backward import gradient_penalty
from ..nn.layers import mlp
from ..nn.losses import ADVERSARIAL, loss_D, loss_G
from ..nn.optim import EMA, SGD, Adam, Annealed
from ..nn.parameters import Parameters
from ..nn.schedules import constant, falling, linear
from .base import Model, saturation


@dataclass(eq=False)
class GAN(Model):
    """The settings, then the model. Shapes: x (B, n_features), z (B, n_latent), logits (B / pack, 1)."""

    n_features: int = 784
    n_latent: int = 32
    hidden_G: tuple[int, ...] = (256, 512)
    hidden_D: tuple[int, ...] = (512, 256)
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of G: pixels in [0, 1], or any numbers
    loss: Literal[tuple(ADVERSARIAL)] = "non_saturating"
    k: int = 1  # steps of D a round, each on a batch of its own
    g_steps: int = 1  # steps of G a round
    pack: int = 1  # how many examples D judges at once
    r1: float = 1.0  # γ
    dropout: float = 0.0  # in D
    noise: float = 0.0  # standard deviation of the noise on D's inputs at the start
    spared: float = 0.0  # the fraction of an example's numbers that this noise spares
    label_noise: float = 0.0  # the probability that D is told the wrong label, at the start
    noise_rounds: int = 0  # both fall linearly to 0 in so many rounds; 0: they stay
    label_smoothing: float = 0.0  # D's target for real examples is 1 - label_smoothing
    optimizer: Literal["adam", "sgd"] = "adam"
    batch: int = 64
    lr_G: float = 5e-4
    lr_D: float = 5e-4
    beta1: float = 0.0  # Adam's
    beta2: float = 0.99
    momentum: float = 0.5  # SGD's
    rounds: int = 0  # of the whole training: the rates stay for half of them, then fall linearly to 0; 0: they stay
    averaging: float = 0.999  # decay of the averaged weights of G that sample() uses; 0: the last ones

    judged_by_samples = True
    variants = (
        {},
        {"loss": "minimax", "optimizer": "sgd", "k": 2, "dropout": 0.3, "r1": 0.0},
        {
            "loss": "least_squares",
            "output": "linear",
            "pack": 2,
            "noise": 0.2,
            "spared": 0.5,
            "label_noise": 0.3,
            "label_smoothing": 0.1,
        },
        {"loss": "hinge", "g_steps": 2, "rounds": 3, "noise": 0.1, "noise_rounds": 5},
        {"loss": "wasserstein", "averaging": 0.0},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.batch % self.pack:
            raise UsageError(f"GAN setting pack: batch={self.batch} must be a multiple of pack={self.pack}")

    def build(self, rng):
        last = Sigmoid if self.output == "sigmoid" else None
        self.generator = mlp([self.n_latent, *self.hidden_G, self.n_features], last=last)
        self.discriminator = mlp([self.pack * self.n_features, *self.hidden_D, 1], LeakyReLU, dropout=self.dropout)
        self.params_G = Parameters(rng, generator=self.generator)
        self.params_D = Parameters(rng, discriminator=self.discriminator)
        self.optimizer_G = self.make_optimizer(self.params_G, self.lr_G, self.g_steps)
        self.optimizer_D = self.make_optimizer(self.params_D, self.lr_D, self.k)
        self.average = EMA(self.params_G, self.averaging)
        self.noise_level, self.label_noise_level = (
            Annealed(self.params_D, linear(level, 0, self.noise_rounds) if self.noise_rounds else constant(level))
            for level in (self.noise, self.label_noise)
        )
        return self

    def make_optimizer(self, params, lr, steps):
        """steps: how many it makes a round, by which its rate falls."""
        rate = falling(lr, steps * self.rounds)
        if self.optimizer == "adam":
            return Adam(params, rate, self.beta1, self.beta2)
        return SGD(params, rate, self.momentum)

    # What training does.

    def discriminator_loss(self, x, rng):
        """D's loss on real x (B, n_features) against as many generated ones, R1 included. Trains D alone."""
        self.params_D.zero_grad()
        z = rng.normal((len(x), self.n_latent))
        real, fake = self.shown(x, rng), self.shown(self.generator(z, rng), rng)  # both (B / pack, pack n_features)
        logits_real, back_real = self.discriminator.forward(real, rng)
        logits_fake, back_fake = self.discriminator.forward(fake, rng)
        loss, d_real, d_fake = loss_D(logits_real, logits_fake, self.loss, *self.targets(len(real), rng))

        back_real(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        if not self.r1:
            return {"discriminator_loss": loss}
        penalty, back_penalty = gradient_penalty(self.discriminator, real, centre=0.0)
        back_penalty(0.5 * self.r1)
        return {"discriminator_loss": loss + 0.5 * self.r1 * penalty, "penalty": penalty}

    def generator_loss(self, rng):
        """G's loss on a batch of its own making. Trains G alone, through D, which stands still."""
        self.params_G.zero_grad()
        z = rng.normal((self.batch, self.n_latent))
        x_hat, back_generator = self.generator.forward(z, rng)  # (batch, n_features)
        logits, back_discriminator = self.discriminator.forward(self.shown(x_hat, rng), rng)
        loss, d_logits = loss_G(logits, self.loss)

        dx_hat = back_discriminator(d_logits, learn=False)
        back_generator(dx_hat.reshape(x_hat.shape), inputs=False)
        return {"generator_loss": loss}

    objectives = {"discriminator_loss": "params_D", "generator_loss": "params_G"}

    def train_step(self, x, rng):
        """A round, from x (k batch, n_features). Returns the losses of its last steps of D and of G."""
        self.noise_level.step()
        self.label_noise_level.step()
        for part in x.reshape(self.k, -1, self.n_features):
            losses = self.discriminator_loss(part, rng)
            self.optimizer_D.step()
        for _ in range(self.g_steps):
            losses |= self.generator_loss(rng)
            self.optimizer_G.step()
            self.average.step()
        return losses

    @property
    def rows(self):
        return self.k * self.batch

    def shown(self, x, rng):
        """What D is shown of examples (B, n_features): with noise on them, and packed. -> (B / pack, pack n_features)"""
        if self.noise:
            noise = self.noise_level.value * rng.normal(x.shape)
            x = x + (noise * (rng.uniform(x.shape) >= self.spared) if self.spared else noise)
        return self.packed(x)

    def packed(self, x):
        """(N, n_features) -> (N / pack, pack n_features). Raises ValueError if N is no multiple of pack."""
        if len(x) % self.pack:
            raise ValueError(
                f"GAN got examples of shape {x.shape}, expected (N, n_features), N a multiple of {self.pack}"
            )
        return x.reshape(-1, self.pack * self.n_features)

    def targets(self, n, rng):
        """y for D's n real and n generated logits: numbers, or (n, 1) where some labels are flipped."""
        y_real, y_fake = 1.0 - self.label_smoothing, 0.0
        if not self.label_noise:
            return y_real, y_fake
        flipped = (rng.uniform((2, n, 1)) < self.label_noise_level.value).astype(rng.real)
        return y_real * (1 - flipped[0]), y_real * flipped[1]

    remedies = "a larger r1, noise=0.1, dropout, fewer steps of D (k) or a smaller lr_D"

    def complaint(self, losses):
        return saturation(self, losses)

    # What it is good for.

    def sample(self, n, rng):
        """G(z) for n codes z ~ N(0, I), by the averaged weights: (n, n_features), pixels in [0, 1] if output is sigmoid."""
        with self.average.swapped():
            return self.generator(rng.normal((n, self.n_latent)))

    def judge(self, x):
        """D's logits (N / pack, 1) of examples x (N, n_features). Cross-entropies and hinge: > 0 where it says real."""
        return self.discriminator(self.packed(x))

    def evaluate(self, x, rng):
        """{name: number}: D's mean logit on test data x (N, n_features) and on as many generated examples."""
        x = x[: len(x) // self.pack * self.pack]
        if not len(x):  # less than one pack
            return {}
        return {"logit_real": self.judge(x).mean(), "logit_fake": self.judge(self.sample(len(x), rng)).mean()}

    @classmethod
    def example(cls, rng, **settings):
        tiny = {"n_features": 6, "n_latent": 2, "hidden_G": (5,), "hidden_D": (7,), "batch": 4}
        model = cls(**tiny | settings).build(rng)
        return model, {"x": rng.uniform((model.rows, 6))}
