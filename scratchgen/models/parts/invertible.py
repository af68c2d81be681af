"""What a flow layer is, and the simple ones: ActNorm, Permute, Logit, and Chain, which puts flow layers one after another.

A flow layer is an invertible map. It turns x (B, n) into y (B, n) and log_det (B,), the logarithm of |det ∂y/∂x| for each
example, which must be cheap to compute:

    forward(x, rng, labels=None) -> (y, log_det), backward        backward((dy, d_log_det)) -> dx        inverse(y) -> x

The loss depends on x in two ways, through y and through log_det, so backward takes a gradient for each. coupling.py has the
layers that mix features.
"""

import math

from ...backend import array_module
from ...nn.activations import sigmoid
from ...nn.layer import Layer, Weight, check_width


class ActNorm(Layer):
    """y = x eˢ + b, one s and one b for each feature.      log_det = Σ s, the same for each example

    dx = dy eˢ,   db = Σ_batch dy,   ds = Σ_batch (dy x eˢ + d_log_det).      Kingma & Dhariwal 2018, section 3.1

    measure(x) starts it so that y has mean 0 and variance 1: batch norm at the first step, and ordinary weights later. So
    an example's density does not depend on the rest of its batch.
    """

    def __init__(self, n):
        self.s, self.b = Weight((n,)), Weight((n,))

    def forward(self, x, rng, labels=None):
        check_width(self, x, len(self.s))
        xp = array_module(x)
        scale = xp.exp(self.s)
        stretched = x * scale

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            if learn:
                self.ds += (dy * stretched).sum(axis=0) + d_log_det.sum()
                self.db += dy.sum(axis=0)
            if inputs:
                return dy * scale

        return (stretched + self.b, xp.zeros_like(x[:, 0]) + self.s.sum()), backward

    def inverse(self, y, labels=None):
        return (y - self.b) * array_module(y).exp(-self.s)

    def measure(self, x):
        """Start at the mean and the standard deviation of each column of x (N, n)."""
        std = x.std(axis=0)
        std += std == 0  # a column that never changes
        self.s[...] = -array_module(x).log(std)
        self.b[...] = -x.mean(axis=0) / std

    @classmethod
    def example(cls, rng):
        return cls(3), rng.normal((4, 3))


class Permute(Layer):
    """y = x with its features in another order, which never changes: reversed, or random.      log_det = 0

    dx = dy in the old order. It lets the next layer change what this one could not.
    """

    def __init__(self, n, order="reverse"):
        def numbers(rng, shape, fan_in):
            return rng.permutation(n) if order == "random" else rng.xp.arange(n)[::-1]

        self.order = Weight((n,), numbers, constant=True)

    def forward(self, x, rng, labels=None):
        check_width(self, x, len(self.order))

        def backward(d, learn=True, inputs=True):
            dy, _ = d
            return self.inverse(dy)

        return (x[:, self.numbers()], array_module(x).zeros_like(x[:, 0])), backward

    def inverse(self, y, labels=None):
        return y[:, self.numbers().argsort()]

    def numbers(self):
        return self.order.real.astype(int)

    @classmethod
    def example(cls, rng):
        return cls(5, "random"), rng.normal((4, 5))


class Logit(Layer):
    """y = log p - log(1 - p), p = α + (1 - 2α) x: numbers in [0, 1] become any numbers.      Dinh et al. 2017, section 4.1

    p′ = 1 - 2α,   log_det = Σ [log p′ - log p - log(1 - p)],   dx = p′ [dy / p (1 - p) + d_log_det (1/(1 - p) - 1/p)].
    With α > 0, x = 0 and x = 1 have a finite y.
    """

    def __init__(self, alpha=0.05):
        self.alpha, self.slope = alpha, 1 - 2 * alpha

    def forward(self, x, rng, labels=None):
        xp = array_module(x)
        p = self.alpha + self.slope * x
        log_p, log_rest = xp.log(p), xp.log(1 - p)

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            if inputs:
                return self.slope * (dy + d_log_det[:, None] * (2 * p - 1)) / (p * (1 - p))

        return (log_p - log_rest, (math.log(self.slope) - log_p - log_rest).sum(axis=1)), backward

    def inverse(self, y, labels=None):
        return (sigmoid(y) - self.alpha) / self.slope

    @classmethod
    def example(cls, rng):
        return cls(), rng.uniform((4, 3))


class Chain(Layer):
    """y = f_m(... f_1(x)), flow layers one after another.      log_det = Σ of theirs, because determinants multiply

    backward runs through them in reverse. Each gets the dx of the layer after it as its dy, and all get the same d_log_det.
    """

    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x, rng, labels=None):
        total, backs = 0, []
        for layer in self.layers:
            (x, log_det), back = layer.forward(x, rng, labels)
            total = total + log_det
            backs.append(back)

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            for i in reversed(range(len(backs))):
                dy = backs[i]((dy, d_log_det), learn, inputs or i > 0)
            return dy

        return (x, total), backward

    def inverse(self, y, labels=None):
        for layer in reversed(self.layers):
            y = layer.inverse(y, labels)
        return y

    def measure(self, x, labels=None):
        """Start every ActNorm at the mean and standard deviation of what reaches it of x (N, n)."""
        for layer in self.layers:
            if isinstance(layer, ActNorm):
                layer.measure(x)
            x = layer.forward(x, None, labels)[0][0]

    @classmethod
    def example(cls, rng):
        return cls(Logit(), ActNorm(4), Permute(4, "random"), ActNorm(4)), rng.uniform((5, 4))
