"""Normalising layers: batch norm and layer norm with their full gradients, and a layer that only records moments.

A common mistake is to treat the mean and the variance as constants in the gradient, although every number changes both.
`normalise` derives the gradient once, for any axis.
"""

from ..backend import array_module
from ..kernels import operation
from .initialisers import ones
from .layer import Layer, Weight, check_width


def normalise(x, axis, eps):
    """x̂ = (x - m) / s with m the mean and s² = variance + eps along an axis. Returns x̂, m, variance, s, backward.

    Every x also changes m and s, so with g = dx̂:   dx = (g - mean(g) - x̂ mean(g x̂)) / s.
    """
    xp = array_module(x)
    m = x.mean(axis, keepdims=True)
    centred = x - m
    variance = (centred * centred).mean(axis, keepdims=True)  # var() takes |·|², which is wrong for complex steps
    s = xp.sqrt(variance + eps)
    x_hat = centred / s

    def backward(g):
        return (g - g.mean(axis, keepdims=True) - x_hat * (g * x_hat).mean(axis, keepdims=True)) / s

    return x_hat, m, variance, s, backward


class BatchNorm(Layer):
    """y = γ x̂ + β, x̂ standardised over the batch.      dγ = Σ dy x̂,   dβ = Σ dy,   dx: see normalise, with g = γ dy.

    When the layer is used (rng None), x̂ comes from the running mean and variance. These are constants: dx = γ dy / s. They
    are updated in backward, and only if learn is true, so a frozen network does not change. Ioffe & Szegedy 2015,
    algorithms 1 and 2.
    """

    def __init__(self, n, momentum=0.1, eps=1e-5):
        self.gamma, self.beta = Weight((n,), ones), Weight((n,))
        self.running_mean = Weight((n,), learned=False)
        self.running_variance = Weight((n,), ones, learned=False)
        self.momentum, self.eps = momentum, eps

    def forward(self, x, rng):  # x (B, n)
        check_width(self, x, len(self.gamma))
        batch = len(x)
        if rng is None:
            s = array_module(x).sqrt(self.running_variance + self.eps)
            x_hat = (x - self.running_mean) / s
        elif batch == 1:
            raise ValueError(
                f"BatchNorm cannot learn from a batch of one: input of shape {x.shape}, expected (B > 1, n)"
            )
        else:
            x_hat, m, variance, s, back_normalise = normalise(x, 0, self.eps)

        def backward(dy, learn=True, inputs=True):
            if learn:
                self.dgamma += (dy * x_hat).sum(axis=0)
                self.dbeta += dy.sum(axis=0)
                if rng is not None:
                    unbiased = variance[0] * (batch / (batch - 1))
                    self.running_mean += self.momentum * (m[0] - self.running_mean)
                    self.running_variance += self.momentum * (unbiased - self.running_variance)
            if inputs:
                return dy * self.gamma / s if rng is None else back_normalise(dy * self.gamma)

        return x_hat * self.gamma + self.beta, backward

    def forward_twice(self, x):
        raise ValueError(
            "BatchNorm makes the score of one example depend on the whole batch, so a penalty on the gradient of each "
            "example has no meaning: do not use BatchNorm with a gradient penalty (Gulrajani et al. 2017, section 4)"
        )

    @classmethod
    def example(cls, rng):
        return cls(4), rng.normal((6, 4))


class LayerNorm(Layer):
    """y = γ x̂ + β, x̂ standardised over an example's features.      Gradients as in BatchNorm. Ba et al. 2016, eq 4."""

    def __init__(self, n, eps=1e-5):
        self.gamma, self.beta, self.eps = Weight((n,), ones), Weight((n,)), eps

    @operation
    def forward(self, x, rng):  # x (B, n)
        check_width(self, x, len(self.gamma))
        x_hat, _, _, _, back_normalise = normalise(x, 1, self.eps)

        def backward(dy, learn=True, inputs=True):
            if learn:
                self.dgamma += (dy * x_hat).sum(axis=0)
                self.dbeta += dy.sum(axis=0)
            if inputs:
                return back_normalise(dy * self.gamma)

        return x_hat * self.gamma + self.beta, backward

    @classmethod
    def example(cls, rng):
        return cls(5), rng.normal((3, 5))


class RunningMoments(Layer):
    """y = x, and the mean and variance of x are recorded.      dx = dy. backward records, and only if learn is true."""

    def __init__(self, n, momentum=0.01):
        self.mean, self.variance = Weight((n,), learned=False), Weight((n,), ones, learned=False)
        self.momentum = momentum

    def forward(self, x, rng):  # x (B, n)
        check_width(self, x, len(self.mean))

        def backward(dy, learn=True, inputs=True):
            if learn and rng is not None:
                centred = x - self.mean
                self.mean += self.momentum * centred.mean(axis=0)
                self.variance += self.momentum * ((centred * centred).mean(axis=0) - self.variance)
            return dy

        return x, backward

    @classmethod
    def example(cls, rng):
        return cls(3), rng.normal((4, 3))
