"""What each kernel of scratchgen.kernels.elementwise computes, in NumPy: the simulated device's hardware, so to speak.

Most is the function of nn/ that the kernel stands for. {name of a kernel: f(*inputs), or f(*inputs, *outputs) in place}
"""

import inspect

from scratchgen.backend import array_module
from scratchgen.nn import activations, losses, optim


def add_bias(b, y):
    y += b


def posterior(mu, raw, eps, low, high, scale):
    xp = array_module(mu)
    log_var = xp.maximum(xp.minimum(raw, high), low)
    noise = xp.exp(0.5 * log_var) * eps
    return mu + noise, noise, (mu * mu + xp.exp(log_var) - 1 - log_var) * (0.5 * scale)


def posterior_backward(dz, mu, raw, noise, d_kl, low, high, scale, d_mu, d_raw):
    xp = array_module(dz)
    log_var = xp.maximum(xp.minimum(raw, high), low)
    d_mu[...] = dz + d_kl * scale * mu
    beyond = (raw < low) | (raw > high)
    d_raw[...] = xp.where(beyond, 0, 0.5 * (noise * dz + d_kl * scale * (xp.exp(log_var) - 1)))


def adam(g, beta1, rest1, beta2, rest2, rate, eps, keep, theta, m, v):
    optim.adam.plain(theta, g, m, v, beta1, beta2, rate, eps, keep)


def move_towards(theta, rate, average):
    optim.move_towards.plain(average, theta, rate)


def with_setting(f, a):
    """An activation of this class with the setting a, where it has one."""
    return f(a) if "a" in inspect.signature(f).parameters else f()


def of_activation(f):
    """The twins of an activation's three kernels."""

    def forward(x, a):
        return with_setting(f, a).f(array_module(x), x)

    def backward(dy, x, y, a):
        return dy * with_setting(f, a).df(array_module(x), x, y)

    def bias(b, a, x, y):
        x += b
        y[...] = forward(x, a)

    return {f.__name__: forward, f"{f.__name__}_backward": backward, f"bias_{f.__name__}": bias}


TWINS = {
    "add_bias": add_bias,
    "bernoulli": losses.bernoulli.plain,
    "square": losses.square.plain,
    "posterior": posterior,
    "posterior_backward": posterior_backward,
    "adam": adam,
    "move_towards": move_towards,
}
for f in activations.ACTIVATIONS.values():
    TWINS |= of_activation(f)
