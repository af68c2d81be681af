"""Optimizers, gradient clipping, averaged weights and learning-rate schedules, all on one flat vector.

`Parameters` keeps every weight in theta and every gradient in grad, so each rule below is a few lines on vectors, done in
place. An optimizer keeps the Parameters, not its theta: `cast` replaces that. A learning rate is a number, or a schedule:
a function of the number of steps done so far.
"""

import contextlib
import math

import numpy as np


class Optimizer:
    """Base: counts the steps t, works out the learning rate, and tells Parameters that theta has changed."""

    slots = ()  # names of the vectors as long as theta that a rule remembers

    def __init__(self, params, lr):
        self.params, self.lr = params, lr
        self.t = np.zeros(1, np.int64)  # an array, so that a checkpoint can list it and write into it
        for name in self.slots:
            setattr(self, name, params.rng.xp.zeros_like(params.theta))

    def step(self):
        """One update of theta from grad."""
        lr = self.lr(int(self.t[0])) if callable(self.lr) else self.lr
        self.t += 1
        self.update(self.params.theta, self.params.grad, lr, int(self.t[0]))
        self.params.changed()

    def state(self):
        return {"t": self.t} | {name: getattr(self, name) for name in self.slots}


class SGD(Optimizer):
    """v ← μ v + g,   θ ← θ - lr v   (Nesterov: θ ← θ - lr (g + μ v)).      μ = momentum

    Sutskever et al. 2013, in PyTorch's form: lr stands outside v.
    """

    slots = ("v",)

    def __init__(self, params, lr, momentum=0.0, nesterov=False):
        super().__init__(params, lr)
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, theta, g, lr, t):
        self.v *= self.momentum
        self.v += g
        if self.nesterov:
            theta -= lr * (g + self.momentum * self.v)
        else:
            theta -= lr * self.v


class RMSProp(Optimizer):
    """v ← α v + (1 - α) g²,   θ ← θ - lr g / (√v + ε).      Tieleman & Hinton 2012, lecture 6.5"""

    slots = ("v",)

    def __init__(self, params, lr, alpha=0.99, eps=1e-8):
        super().__init__(params, lr)
        self.alpha, self.eps = alpha, eps

    def update(self, theta, g, lr, t):
        self.v += (1 - self.alpha) * (g * g - self.v)
        theta -= lr * g / (self.params.rng.xp.sqrt(self.v) + self.eps)


class Adam(Optimizer):
    """m ← β1 m + (1 - β1) g,   v ← β2 v + (1 - β2) g²,   θ ← θ - lr m̂ / (√v̂ + ε).      Kingma & Ba 2014, algorithm 1

    with m̂ = m / (1 - β1ᵗ), v̂ = v / (1 - β2ᵗ), without which the first steps would be far too small (m) or large (v).
    Kept are M = m / (1 - β1) and V = v / (1 - β2): M ← β1 M + g saves passes over memory, where the time goes. Then
    m̂ / (√v̂ + ε) = (1 - β1) / (1 - β1ᵗ) / k · M / (√V + ε / k),   k = √((1 - β2) / (1 - β2ᵗ)).
    """

    slots = ("M", "V")

    def __init__(self, params, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        super().__init__(params, lr)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.scratch = params.rng.xp.empty_like(params.theta)

    def update(self, theta, g, lr, t):
        xp, scratch = self.params.rng.xp, self.scratch
        k = math.sqrt((1 - self.beta2) / (1 - self.beta2**t))
        self.M *= self.beta1
        self.M += g
        self.V *= self.beta2
        xp.multiply(g, g, out=scratch)
        self.V += scratch
        xp.sqrt(self.V, out=scratch)
        scratch += self.eps / k
        xp.divide(self.M, scratch, out=scratch)
        scratch *= lr * (1 - self.beta1) / (1 - self.beta1**t) / k
        theta -= scratch


class AdamW(Adam):
    """Adam, and θ ← θ - lr λ θ beside it rather than through g.      λ = weight_decay; Loshchilov & Hutter 2017.

    lr λ is PyTorch's convention; in the paper's algorithm 2 the rate α does not multiply λ.
    """

    def __init__(self, params, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr, beta1, beta2, eps)
        self.weight_decay = weight_decay

    def update(self, theta, g, lr, t):
        theta *= 1 - lr * self.weight_decay
        super().update(theta, g, lr, t)


def clip_by_norm(params, max_norm):
    """g ← g · min(1, max_norm / ‖g‖) over all of grad. Returns ‖g‖ as it was, on the device (nothing waits for it)."""
    xp, g = params.rng.xp, params.grad
    norm = xp.sqrt((g * g).sum())
    g *= xp.minimum(max_norm / (norm + 1e-12), 1.0)
    return norm


class EMA:
    """θ̄ ← d θ̄ + (1 - d) θ after every step: averaged weights, smoother than the last ones. d = min(decay, (1+t)/(10+t)).

    The rising d, as in TensorFlow, lets the average forget the random start quickly. Buffers are not averaged.
    `with ema.swapped():` puts θ̄ in place of θ.
    """

    def __init__(self, params, decay=0.999):
        self.params, self.decay = params, decay
        self.average, self.t = params.theta.copy(), np.zeros(1, np.int64)

    def step(self):
        self.t += 1
        t = int(self.t[0])
        self.average += (1 - min(self.decay, (1 + t) / (10 + t))) * (self.params.theta - self.average)

    @contextlib.contextmanager
    def swapped(self):
        kept = self.params.theta.copy()
        self.params.theta[...] = self.average
        self.params.changed()
        try:
            yield
        finally:
            self.params.theta[...] = kept
            self.params.changed()

    def state(self):
        return {"average": self.average, "t": self.t}


# Schedules: each returns a function from the number of steps done so far to a learning rate.


def constant(lr):
    return lambda step: lr


def cosine(lr, n_steps, last=0.0):
    """From lr down to last along half a cosine in n_steps, then last. Loshchilov & Hutter 2016, eq 5, one period."""
    return lambda step: last + 0.5 * (lr - last) * (1 + math.cos(math.pi * min(step / n_steps, 1)))


def steps(lr, every, factor=0.1):
    """lr · factor^⌊step / every⌋: down by a factor every so many steps."""
    return lambda step: lr * factor ** (step // every)


def iwae(steps_per_pass, lr=1e-3):
    """lr · 10^(-i/7) for 3^i passes over the data, i = 0 ... 7: eight stages, 3,280 passes. Burda et al. 2015, section 5"""

    def schedule(step):
        passes, i = step // steps_per_pass, 0
        while i < 7 and passes >= 3**i:
            passes, i = passes - 3**i, i + 1
        return lr * 10 ** (-i / 7)

    return schedule
