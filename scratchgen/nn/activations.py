"""Activations: y = f(x) for each number, so dx = f′(x) dy. Forward and backward are written once; each class gives f and f′.

All of them work on complex numbers, because the checker needs that: x > 0 and maximum compare real parts, and |x| is
written maximum(x, -x). They also keep float32: a boolean times a Python float would become float64, so masks are cast first.
"""

import math

from ..backend import array_module
from ..kernels import operation
from .layer import Layer


def sigmoid(x):
    """1 / (1 + e⁻ˣ), computed as ½ + ½ tanh(x/2), which never overflows."""
    return 0.5 + 0.5 * array_module(x).tanh(0.5 * x)


def softplus(x):
    """log(1 + eˣ), computed as max(x, 0) + log(1 + e^-|x|), which never overflows."""
    xp = array_module(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(xp.minimum(x, -x)))


class Activation(Layer):
    """y = f(x).      dx = f′(x) dy.      Subclasses define f(xp, x) and df(xp, x, y), which may use y = f(x) to save work.

    ddf(xp, x, y) returns f″, which only gradient penalties need. It returns None if f consists of straight lines: f″ = 0.
    """

    @operation
    def forward(self, x, rng):
        xp = array_module(x)
        y = self.f(xp, x)

        def backward(dy, learn=True, inputs=True):
            if inputs:
                return dy * self.df(xp, x, y)  # dx = f′(x) dy

        return y, backward

    def forward_twice(self, x):
        if not hasattr(self, "ddf"):
            raise ValueError(
                f"{type(self).__name__} needs a method ddf(xp, x, y) that returns f″: a gradient penalty uses it"
            )
        y, back = self.forward(x, None)

        def gradient(u):  # g = f′(x) u

            def double_backward(v, learn=True, inputs=True):  # du = f′ v,   dx = f″ u v
                ddf = self.ddf(array_module(x), x, y)
                return back(v), None if ddf is None else ddf * u * v

            return back(u), double_backward

        return y, back, gradient

    @classmethod
    def example(cls, rng):
        return cls(), 3 * rng.normal((4, 5))


class ReLU(Activation):
    """y = max(x, 0).      f′ = 1 where x > 0, else 0 (at 0 too),   f″ = 0"""

    def f(self, xp, x):
        return xp.maximum(x, 0)

    def df(self, xp, x, y):
        return y > 0

    def ddf(self, xp, x, y):
        return None


class LeakyReLU(Activation):
    """y = x where x > 0, else a x, with 0 <= a <= 1.      f′ = 1 or a. Maas et al. 2013; GANs use a = 0.2."""

    def __init__(self, a=0.2):
        if not 0 <= a <= 1:
            raise ValueError(f"LeakyReLU: a must lie in [0, 1], got {a}")
        self.a = a

    def f(self, xp, x):
        y = self.a * x
        return xp.maximum(x, y, out=y)

    def df(self, xp, x, y):
        slope = (x > 0).astype(x.dtype)
        slope *= 1 - self.a
        slope += self.a
        return slope

    def ddf(self, xp, x, y):
        return None


class ELU(Activation):
    """y = x where x > 0, else a (eˣ - 1).      f′ = 1, or a eˣ = y + a. Clevert et al. 2015, section 3."""

    def __init__(self, a=1.0):
        self.a = a

    def f(self, xp, x):
        return xp.maximum(x, 0) + self.a * xp.expm1(xp.minimum(x, 0))

    def df(self, xp, x, y):
        positive = (x > 0).astype(x.dtype)
        return positive + (1 - positive) * (y + self.a)

    def ddf(self, xp, x, y):
        return (1 - (x > 0).astype(x.dtype)) * (y + self.a)


class Tanh(Activation):
    """y = tanh x.      f′ = 1 - y²,   f″ = -2 y (1 - y²)"""

    def f(self, xp, x):
        return xp.tanh(x)

    def df(self, xp, x, y):
        return 1 - y * y

    def ddf(self, xp, x, y):
        return -2 * y * (1 - y * y)


class Sigmoid(Activation):
    """y = 1 / (1 + e⁻ˣ).      f′ = y (1 - y),   f″ = y (1 - y) (1 - 2 y)"""

    def f(self, xp, x):
        return sigmoid(x)

    def df(self, xp, x, y):
        return y * (1 - y)

    def ddf(self, xp, x, y):
        return y * (1 - y) * (1 - 2 * y)


class Softplus(Activation):
    """y = log(1 + eˣ).      f′ = s = sigmoid(x),   f″ = s (1 - s)"""

    def f(self, xp, x):
        return softplus(x)

    def df(self, xp, x, y):
        return sigmoid(x)

    def ddf(self, xp, x, y):
        s = sigmoid(x)
        return s * (1 - s)


class SiLU(Activation):
    """y = x s, s = sigmoid(x).      f′ = s + y (1 - s).      Also called Swish. Ramachandran et al. 2017"""

    def f(self, xp, x):
        return x * sigmoid(x)

    def df(self, xp, x, y):
        s = sigmoid(x)
        return s + y * (1 - s)

    def ddf(self, xp, x, y):
        s = sigmoid(x)
        return (1 - s) * (2 * s + y * (1 - 2 * s))


class GELU(Activation):
    """y = ½ x (1 + tanh u), u = √(2/π) (x + 0.044715 x³).      f′ = ½ (1 + tanh u) + ½ x (1 - tanh² u) u′

    Hendrycks & Gimpel 2016, section 2. This is their tanh form, which approximates x Φ(x).
    """

    def tanh_u(self, xp, x):
        return xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))

    def f(self, xp, x):
        return 0.5 * x * (1 + self.tanh_u(xp, x))

    def df(self, xp, x, y):
        t = self.tanh_u(xp, x)
        du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du

    def ddf(self, xp, x, y):
        t = self.tanh_u(xp, x)
        du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        d_du = math.sqrt(2 / math.pi) * 6 * 0.044715 * x
        return (1 - t * t) * (du + 0.5 * x * (d_du - 2 * t * du * du))


ACTIVATIONS = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "softplus": Softplus,
    "silu": SiLU,
    "gelu": GELU,
}
