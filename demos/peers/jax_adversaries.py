"""The GANs that benchmark.py measures, in JAX: see jax_models.py. A whole round of both networks is one compiled function.

Without the averaged weights of G, which ours keeps in every round.
"""

import jax
import jax.numpy as jnp
from jax import nn, random
from peers.jax_models import adam, first_moments, mlp, weights_of

from scratchgen.backend import Rng


def cross_entropy(logits, target):
    return jnp.mean(nn.softplus(logits) - target * logits)


class Adversaries:
    """discriminator_loss(D, G, x, *noise) and generator_loss(G, D, x, *noise), with D and G the weights of both networks."""

    def __init__(self, model):
        self.model = model

    def generate(self, G, z):
        x = mlp(G, "generator", z)
        return nn.sigmoid(x) if self.model.output == "sigmoid" else x

    def judge(self, D, x):
        return mlp(D, "discriminator", x, lambda h: nn.leaky_relu(h, 0.2))

    def slope(self, D, x, columns=None):
        """(the gradient of D's logit at each row of x (B, n), in the first columns; the logits)."""

        def judged(part, rest):
            logits = self.judge(D, jnp.concatenate([part, rest], axis=1))
            return logits.sum(), logits

        return jax.grad(judged, has_aux=True)(x[:, :columns], x[:, columns:] if columns else x[:, :0])

    def draw_D(self, key, x):
        return (random.normal(key, (len(x), self.model.n_latent)),)

    draw_G = draw_D

    def weights(self):
        return weights_of(self.model.build(Rng(0)).params_G)

    def start(self):
        G, D = self.weights(), weights_of(self.model.params_D)
        return (G, first_moments(G)), (D, first_moments(D))

    def step(self, state, key, x, labels=None):
        """(the state after a round, the losses). x (d_steps batch, n_features)."""
        model, ((G, moments_G), (D, moments_D)) = self.model, state
        betas, keys = (model.beta1, model.beta2), random.split(key, model.d_steps + 1)
        for i in range(model.d_steps):
            rows = slice(i * model.batch, (i + 1) * model.batch)
            part = (x[rows],) if labels is None else (x[rows], labels[rows])
            loss_D, gradients = jax.value_and_grad(self.discriminator_loss)(D, G, *part, *self.draw_D(keys[i], part[0]))
            D, moments_D = adam(D, gradients, moments_D, model.lr_D, *betas)
        loss_G, gradients = jax.value_and_grad(self.generator_loss)(G, D, *part, *self.draw_G(keys[-1], part[0]))
        G, moments_G = adam(G, gradients, moments_G, model.lr_G, *betas)
        return ((G, moments_G), (D, moments_D)), (loss_D, loss_G)


class GAN(Adversaries):
    def discriminator_loss(self, D, G, x, z):
        slope, real = self.slope(D, x)
        loss = cross_entropy(real, 1.0) + cross_entropy(self.judge(D, self.generate(G, z)), 0.0)
        return loss + 0.5 * self.model.r1 * jnp.mean(jnp.sum(slope**2, axis=1))

    def generator_loss(self, G, D, x, z):
        return cross_entropy(self.judge(D, self.generate(G, z)), 1.0)

    def code(self, key, n):
        return random.normal(key, (n, self.model.n_latent))

    def sample(self, G, z):
        return self.generate(G, z)


class WGAN(Adversaries):
    def draw_D(self, key, x):
        keys = random.split(key)
        return random.normal(keys[0], (len(x), self.model.n_latent)), random.uniform(keys[1], (len(x), 1))

    def discriminator_loss(self, D, G, x, z, alpha):
        x_hat = self.generate(G, z)
        slope, _ = self.slope(D, alpha * x + (1 - alpha) * x_hat)
        penalty = jnp.mean((jnp.sqrt(jnp.sum(slope**2, axis=1)) - 1) ** 2)
        return jnp.mean(self.judge(D, x_hat)) - jnp.mean(self.judge(D, x)) + self.model.lam * penalty

    def generator_loss(self, G, D, x, z):
        return -jnp.mean(self.judge(D, self.generate(G, z)))


class ConditionalGAN(Adversaries):
    """The noise of G is z and, for each hidden layer, what dropout keeps, in ones and zeros."""

    def generate(self, G, z, *kept):
        kept, scale = iter(kept), 1 / (1 - self.model.dropout)
        return nn.sigmoid(mlp(G, "generator", z, lambda h: nn.relu(h) * (next(kept) * scale)))

    def draw_G(self, key, x):
        keys, widths = random.split(key, 1 + len(self.model.hidden_G)), self.model.hidden_G
        z = random.normal(keys[0], (len(x), self.model.n_latent))
        share = 1 - self.model.dropout
        masks = (random.bernoulli(k, share, (len(x), n)).astype(x.dtype) for k, n in zip(keys[1:], widths))
        return z, *masks

    def draw_D(self, key, x):
        keys = random.split(key)
        return random.randint(keys[0], len(x), 1, self.model.n_classes), *self.draw_G(keys[1], x)

    def discriminator_loss(self, D, G, x, labels, shift, z, *kept):
        """shift (B,): a wrong label is the right one plus this."""
        n = self.model.n_classes
        c, wrong = nn.one_hot(labels, n), nn.one_hot((labels + shift) % n, n)
        x_hat = self.generate(G, jnp.concatenate([z, c], axis=1), *kept)
        negatives = jnp.concatenate([jnp.concatenate([x_hat, x]), jnp.concatenate([c, wrong])], axis=1)
        slope, real = self.slope(D, jnp.concatenate([x, c], axis=1), columns=self.model.n_features)
        loss = cross_entropy(real, 1.0) + cross_entropy(self.judge(D, negatives), 0.0)
        return loss + 0.5 * self.model.r1 * jnp.mean(jnp.sum(slope**2, axis=1))

    def generator_loss(self, G, D, x, labels, z, *kept):
        c = nn.one_hot(labels, self.model.n_classes)
        x_hat = self.generate(G, jnp.concatenate([z, c], axis=1), *kept)
        return cross_entropy(self.judge(D, jnp.concatenate([x_hat, c], axis=1)), 1.0)
