"""The Wasserstein GAN: D becomes a critic that measures how far generated examples must be carried to lie as real ones do.

    W₁(p_data, p_g) = max over D of slope <= 1 of E_x~p_data[D(x)] - E_z~p_z[D(G(z))]

Arjovsky et al. 2017, eq 2. Where real and generated examples do not overlap, the JSD says log 2 however near they are, and
its slope is 0; this distance shrinks with every step nearer. So the critic should be trained well (k steps for one of G),
and its estimate, the column `wasserstein`, tells how far training has come. Two ways to keep the slope small:
constraint="clip" cuts each weight to [-c, c] after every step (algorithm 1; with optimizer="rmsprop", as steps with momentum
did badly there), and "gradient" adds λ (‖∇D‖ - 1)² at points between real and generated ones (Gulrajani et al. 2017, eq 3;
nn/double_backward.py has its exact gradient). λ weighs against distances in the data: 10 suits pictures, 0.1 points of unit
variance, where with 10 a critic that starts the wrong way round cannot turn, and its estimate is negative. Against the
common slips: D raises its score on real examples, G that on its own; α is one number for an example.
"""

from dataclasses import dataclass
from typing import Literal

from ..nn.activations import ACTIVATIONS, Sigmoid
from ..nn.double_backward import between, gradient_penalty
from ..nn.layers import mlp
from ..nn.losses import loss_D, loss_G
from ..nn.optim import EMA, Adam, RMSProp, clip_weights
from ..nn.parameters import Parameters
from ..nn.schedules import falling
from .base import Model


@dataclass(eq=False)
class WGAN(Model):
    """The settings, then the model. Shapes: x (B, n_features), z (B, n_latent), scores (B, 1)."""

    n_features: int = 784
    n_latent: int = 32
    hidden_G: tuple[int, ...] = (256, 512)
    hidden_D: tuple[int, ...] = (512, 256)
    activation_D: Literal[tuple(ACTIVATIONS)] = "leaky_relu"
    output: Literal["sigmoid", "linear"] = "sigmoid"  # of G: pixels in [0, 1], or any numbers
    constraint: Literal["gradient", "clip"] = "gradient"  # how the critic's slope is kept near 1
    lam: float = 10.0  # λ, the weight of the gradient penalty
    one_sided: bool = False  # whether slopes below 1 are free
    c: float = 0.01  # where "clip" cuts the critic's weights
    k: int = 5  # steps of the critic a round, each on a batch of its own
    optimizer: Literal["adam", "rmsprop"] = "adam"
    batch: int = 64
    lr_G: float = 1e-4
    lr_D: float = 1e-4
    beta1: float = 0.0  # Adam's
    beta2: float = 0.9
    rounds: int = 0  # of the whole training: the rates stay for half of them, then fall linearly to 0; 0: they stay
    averaging: float = 0.999  # decay of the averaged weights of G that sample() uses; 0: the last ones

    judged_by_samples = True
    variants = (
        {},
        {"one_sided": True, "activation_D": "tanh", "k": 2, "lam": 1.0, "output": "linear"},
        {"constraint": "clip", "optimizer": "rmsprop", "k": 2, "c": 0.1, "rounds": 3},
        {"activation_D": "softplus", "k": 1, "averaging": 0.0},
    )

    def build(self, rng):
        last = Sigmoid if self.output == "sigmoid" else None
        self.generator = mlp([self.n_latent, *self.hidden_G, self.n_features], last=last)
        self.critic = mlp([self.n_features, *self.hidden_D, 1], ACTIVATIONS[self.activation_D])
        self.params_G, self.params_D = Parameters(rng, generator=self.generator), Parameters(rng, critic=self.critic)
        self.optimizer_G = self.make_optimizer(self.params_G, self.lr_G, 1)
        self.optimizer_D = self.make_optimizer(self.params_D, self.lr_D, self.k)
        self.average = EMA(self.params_G, self.averaging)
        return self

    def make_optimizer(self, params, lr, steps):
        """steps: how many it makes a round, by which its rate falls."""
        rate = falling(lr, steps * self.rounds)
        return Adam(params, rate, self.beta1, self.beta2) if self.optimizer == "adam" else RMSProp(params, rate)

    def critic_loss(self, x, rng):
        """E[D(G(z))] - E[D(x)] for real x (B, n_features), plus the penalty. Trains the critic alone."""
        self.params_D.zero_grad()
        x_hat = self.generator(rng.normal((len(x), self.n_latent)), rng)  # (B, n_features)
        real, back_real = self.critic.forward(x, rng)  # (B, 1)
        fake, back_fake = self.critic.forward(x_hat, rng)
        loss, d_real, d_fake = loss_D(real, fake, "wasserstein")

        back_real(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        if self.constraint == "clip":
            return {"critic_loss": loss, "wasserstein": -loss}
        penalty, back_penalty = gradient_penalty(self.critic, between(x, x_hat, rng), one_sided=self.one_sided)
        back_penalty(self.lam)
        return {"critic_loss": loss + self.lam * penalty, "wasserstein": -loss, "penalty": penalty}

    def generator_loss(self, rng):
        """-E[D(G(z))]. Trains G alone, through the critic, which stands still."""
        self.params_G.zero_grad()
        z = rng.normal((self.batch, self.n_latent))
        x_hat, back_generator = self.generator.forward(z, rng)  # (batch, n_features)
        score, back_critic = self.critic.forward(x_hat, rng)  # (batch, 1)
        loss, d_score = loss_G(score, "wasserstein")

        dx_hat = back_critic(d_score, learn=False)
        back_generator(dx_hat, inputs=False)
        return {"generator_loss": loss}

    objectives = {"critic_loss": "params_D", "generator_loss": "params_G"}

    def train_step(self, x, rng):
        """A round, from x (k batch, n_features). Returns the losses of its last step of the critic and of G's."""
        for part in x.reshape(self.k, -1, self.n_features):
            losses = self.critic_loss(part, rng)
            self.optimizer_D.step()
            if self.constraint == "clip":
                clip_weights(self.params_D, self.c)
        losses |= self.generator_loss(rng)
        self.optimizer_G.step()
        self.average.step()
        return losses

    @property
    def rows(self):
        return self.k * self.batch

    def complaint(self, losses):
        if losses["wasserstein"] > -0.05:
            return ""
        return (
            f"wasserstein fell to {losses['wasserstein']:.2g}: the critic scores generated examples above real ones, and "
            "its penalty keeps it from turning round; try a smaller lam (0.1 for points in the plane) or one_sided=true"
        )

    def sample(self, n, rng):
        """G(z) for n codes z ~ N(0, I), by the averaged weights: (n, n_features), pixels in [0, 1] if output is sigmoid."""
        with self.average.swapped():
            return self.generator(rng.normal((n, self.n_latent)))

    def evaluate(self, x, rng):
        """{"wasserstein": estimate of W₁}: the critic's mean on test data x (N, n_features) less that on generated examples.

        It is in units of the data only where the critic's slope is 1; by clipping it has another, unknown factor.
        """
        return {"wasserstein": self.critic(x).mean() - self.critic(self.sample(len(x), rng)).mean()}

    @classmethod
    def example(cls, rng, **settings):
        tiny = {"n_features": 6, "n_latent": 2, "hidden_G": (5,), "hidden_D": (7, 4), "batch": 4}
        model = cls(**tiny | settings).build(rng)
        return model, {"x": rng.uniform((model.rows, 6))}
