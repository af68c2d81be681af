"""The initial values of weights. An initialiser is a function init(rng, shape, fan_in) that returns an array.

A layer y = x W adds up fan_in products for each output. So the variance of W must decrease with fan_in: otherwise signals
grow or vanish from layer to layer. Shapes are (n_in, n_out), one row for each input.
"""

import math


def zeros(rng, shape, fan_in):
    return rng.zeros(shape)


def ones(rng, shape, fan_in):
    return rng.zeros(shape) + 1


def he(rng, shape, fan_in):
    """N(0, 2 / fan_in): keeps E[y²] through ReLU layers, half of whose inputs are zero (He et al. 2015, eq 10)."""
    return math.sqrt(2 / fan_in) * rng.normal(shape)


def glorot(rng, shape, fan_in):
    """U(-a, a), a² = 6 / (fan_in + fan_out): a compromise of forward and backward variance (Glorot & Bengio 2010, eq 16)."""
    return math.sqrt(6 / (fan_in + shape[-1])) * (2 * rng.uniform(shape) - 1)


def pytorch(rng, shape, fan_in):
    """U(-a, a), a = 1 / √fan_in, for weights and biases, as in torch.nn.Linear."""
    return (2 * rng.uniform(shape) - 1) / math.sqrt(fan_in)


def orthogonal(rng, shape, fan_in):
    """Orthonormal rows or columns, whichever are fewer, uniformly distributed (Saxe et al. 2013)."""
    n_in, n_out = shape
    normal = rng.normal((max(n_in, n_out), min(n_in, n_out)))
    q, r = rng.xp.linalg.qr(normal)  # q (max, min)
    diagonal = rng.xp.diagonal(r)
    q = q * (2 * (diagonal > 0).astype(q.dtype) - 1)  # QR does not fix the signs: without this, q is not uniform
    return q if n_in >= n_out else q.T


INITIALISERS = {"he": he, "glorot": glorot, "pytorch": pytorch, "orthogonal": orthogonal}
