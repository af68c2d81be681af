"""The models that benchmark.py measures, in JAX: jax.grad makes the gradients, and a whole step is one compiled function.

A peer holds the settings of a model. Its weights are {name: array}, with the names, shapes and first values of ours.
draw(key, x) is the noise of a step on a batch x (B, n_features), and loss(weights, x, *noise) the loss. code(key, n) is what
sample turns into n examples.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax, nn, random

from scratchgen.backend import Rng
from scratchgen.models.parts.diffusion import alpha_bars, times


def numbers(name):
    return [int(part) for part in name.split(".") if part.isdigit()]


def linear(weights, name, x):
    return x @ weights[f"{name}.W"] + weights[f"{name}.b"]


def mlp(weights, name, x, activation=nn.relu):
    """The Linear layers under this name, with the activation between them."""
    layers = [key.removesuffix(".W") for key in weights if key.startswith(f"{name}.") and key.endswith(".W")]
    for layer in sorted(layers, key=numbers)[:-1]:
        x = activation(linear(weights, layer, x))
    return linear(weights, max(layers, key=numbers), x)


def bernoulli_nll(logits, x):
    return nn.softplus(logits) - logits * x


def weights_of(params):
    return {name: jnp.array(weight) for name, weight in params.named().items()}


def first_moments(weights):
    """The state of Adam: the number of steps, m and v."""
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros)


def adam(weights, gradients, moments, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t, m, v = moments
    t = t + 1
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, v, gradients)
    first, second = 1 / (1 - beta1**t), 1 / (1 - beta2**t)
    weights = jax.tree.map(lambda w, m, v: w - lr * first * m / (jnp.sqrt(second * v) + eps), weights, m, v)
    return weights, (t, m, v)


class OneLoss:
    """Base of the peers that learn by one loss. start() is the state of the training, step(state, ...) its next value."""

    def __init__(self, model):
        self.model = model

    def weights(self):
        return weights_of(self.model.build(Rng(0)).params)

    def start(self):
        weights = self.weights()
        return weights, first_moments(weights)

    def draw(self, key, x):
        return ()

    def step(self, state, key, x):
        """(the state after a step on the batch x, the loss)."""
        weights, moments = state
        loss, gradients = jax.value_and_grad(self.loss)(weights, x, *self.draw(key, x))
        return adam(weights, gradients, moments, self.model.lr), loss


class AutoEncoder(OneLoss):
    def loss(self, weights, x):
        return jnp.sum((mlp(weights, "decoder", mlp(weights, "encoder", x)) - x) ** 2) / len(x)


class VAE(OneLoss):
    """The loss is without the constant of the Gaussian decoder."""

    def draw(self, key, x):
        return (random.normal(key, (self.model.n_samples * len(x), self.model.n_latent)),)

    def nll(self, out, x):
        if self.model.likelihood == "bernoulli":
            return jnp.sum(bernoulli_nll(out, x), axis=1)
        return jnp.sum((out - x) ** 2, axis=1) / (2 * self.model.variance)

    def loss(self, weights, x, eps):
        mu, log_var = jnp.split(mlp(weights, "encoder", x), 2, axis=1)
        out = mlp(weights, "decoder", mu + jnp.exp(0.5 * log_var) * eps)
        kl = -0.5 * jnp.sum(1 + log_var - mu**2 - jnp.exp(log_var), axis=1)
        return jnp.mean(self.nll(out, x) + kl)

    def code(self, key, n):
        return random.normal(key, (n, self.model.n_latent))

    def sample(self, weights, z):
        return nn.sigmoid(mlp(weights, "decoder", z))


class IWAE(VAE):
    def loss(self, weights, x, eps):
        k = self.model.n_samples
        mu, log_var = jnp.split(jnp.tile(mlp(weights, "encoder", x), (k, 1)), 2, axis=1)
        z = mu + jnp.exp(0.5 * log_var) * eps
        log_p = -self.nll(mlp(weights, "decoder", z), jnp.tile(x, (k, 1)))
        log_w = log_p + 0.5 * jnp.sum(eps**2 + log_var - z**2, axis=1)  # + log p(z) - log q(z|x)
        return math.log(k) - jnp.mean(nn.logsumexp(log_w.reshape(k, -1), axis=0))


class VQVAE(OneLoss):
    """The state also holds the codes, and how often each was chosen: they follow a moving average. No code is restarted."""

    def start(self):
        weights, moments = super().start()
        book = self.model.book
        return weights, moments, (jnp.array(book.W), jnp.array(book.N))

    def loss(self, weights, x, codes):
        """The loss, and what moves the codes: how often each was chosen, and the sum of the differences to its tokens."""
        z = mlp(weights, "encoder", x)
        tokens = lax.stop_gradient(z).reshape(-1, self.model.n_dim)
        nearest = jnp.argmin(0.5 * jnp.sum(codes**2, axis=1) - tokens @ codes.T, axis=1)
        e = codes[nearest].reshape(z.shape)
        x_hat = nn.sigmoid(mlp(weights, "decoder", z + lax.stop_gradient(e - z)))
        loss = (jnp.sum((x_hat - x) ** 2) + self.model.beta * jnp.sum((z - e) ** 2)) / len(x)
        chosen = nn.one_hot(nearest, len(codes))
        return loss, (chosen.sum(axis=0), chosen.T @ (tokens - codes[nearest]))

    def step(self, state, key, x):
        weights, moments, (codes, counts) = state
        (loss, moved), gradients = jax.value_and_grad(self.loss, has_aux=True)(weights, x, codes)
        return (*adam(weights, gradients, moments, self.model.lr), self.follow(codes, counts, *moved)), loss

    def follow(self, codes, counts, n, pull):
        rate = 1 - self.model.decay
        counts = counts + rate * (n - counts)
        return codes + rate * pull / jnp.maximum(counts, 1e-6)[:, None], counts


class MADE(OneLoss):
    """Without the averaged weights, which ours keeps in every step. One hidden layer, and the natural order."""

    def start(self):
        state = super().start()
        self.masks = [jnp.array(mask) for mask in self.model.network.masks(0)]
        return state

    def draw(self, key, x):
        return (random.uniform(key, x.shape),)

    def loss(self, weights, x, u):
        x, (before, after) = (u < x).astype(x.dtype), self.masks
        h = nn.relu(x @ (weights["network.hidden.0.W"] * before) + weights["network.hidden.0.b"])
        h = jnp.concatenate([h, x], axis=1)
        logits = h @ (weights["network.output.W"] * after) + weights["network.output.b"]
        return jnp.sum(bernoulli_nll(logits, x)) / len(x)


class DDPM(OneLoss):
    """Without the averaged weights, which ours keeps in every step."""

    def draw(self, key, x):
        keys = random.split(key)
        return random.randint(keys[0], len(x), 1, self.model.n_times + 1), random.normal(keys[1], x.shape)

    def norm(self, weights, name, x):
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred * lax.rsqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.gamma"] + weights[f"{name}.beta"]

    def network(self, weights, x, t):
        half = self.model.n_waves // 2
        angle = t[:, None] * 10_000 ** (-jnp.arange(half) / half)
        waves = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)
        e = nn.silu(linear(weights, "denoiser.time.1", waves))
        h = linear(weights, "denoiser.enter", x)
        for i in range(self.model.n_blocks):
            name = f"denoiser.blocks.{i}"
            u = linear(weights, f"{name}.before.1", self.norm(weights, f"{name}.before.0", h))
            h = h + linear(weights, f"{name}.after.1", nn.silu(u + linear(weights, f"{name}.condition", e)))
        return linear(weights, "denoiser.leave.1", self.norm(weights, "denoiser.leave.0", h))

    def loss(self, weights, x, t, eps):
        alpha_bar = jnp.array(alpha_bars(self.model.schedule, self.model.n_times), jnp.float32)[t][:, None]
        signal, noise, x_0 = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar), 2 * x - 1
        f = self.network(weights, signal * x_0 + noise * eps, t)
        if self.model.predict == "logits":
            return jnp.sum(bernoulli_nll(f, x)) / len(x)
        return jnp.sum((f - (signal * eps - noise * x_0)) ** 2) / len(x)

    def code(self, key, n):
        return random.normal(key, (n, self.model.n_features))

    def sample(self, weights, x):
        """DDIM without noise, from x (n, n_features) at the last time to pixels. For predict=logits."""
        steps = jnp.array(times(self.model.n_times, self.model.n_steps))
        table = jnp.array(alpha_bars(self.model.schedule, self.model.n_times), jnp.float32)

        def jump(x, ends):
            t, s = ends
            x_0 = jnp.clip(2 * nn.sigmoid(self.network(weights, x, jnp.full(len(x), t))) - 1, -1, 1)
            eps = (x - jnp.sqrt(table[t]) * x_0) / jnp.sqrt(1 - table[t])
            return jnp.sqrt(table[s]) * x_0 + jnp.sqrt(1 - table[s]) * eps, None

        x, _ = lax.scan(jump, x, (steps[:-1], steps[1:]))
        return 0.5 * x + 0.5
