"""Optimizers, gradient clipping and averaged weights, all on one flat vector.

`Parameters` holds every weight in theta and every gradient in grad, so each rule below is a few lines on vectors, in place.
An optimizer keeps the Parameters and not theta itself, because `cast` replaces theta. A learning rate is a number or a
schedule, which is a function of the number of steps done so far (schedules.py).
"""

import contextlib
import contextvars
import math

import numpy as np

from ..backend import array_module
from ..kernels import operation, watched

# Functions that watch the steps: observer(stepper, numbers) is called before each update and returns the numbers for it.
OBSERVERS: contextvars.ContextVar = contextvars.ContextVar("observers", default=())


@contextlib.contextmanager
def observed(observer):
    """A context in which an observer is called at each step of every Stepper."""
    token = OBSERVERS.set((*OBSERVERS.get(), observer))
    try:
        yield
    finally:
        OBSERVERS.reset(token)


class Stepper:
    """Base of everything that is updated once in a training step. It counts the steps, t.

    numbers(t) returns a tuple of Python numbers that depend on t, and update(*numbers) does the work on arrays.
    """

    slots: tuple[str, ...] = ()  # names of its vectors, each as long as theta

    def __init__(self, params):
        self.params = params
        self.t = np.zeros(1, np.int64)  # an array, so that loading a checkpoint can write into it

    def step(self):
        self.t += 1
        numbers = self.numbers(int(self.t[0]))
        for observer in OBSERVERS.get():
            numbers = observer(self, numbers)
        self.update(*numbers)

    def loaded(self):
        """Called after a checkpoint has changed t and the slots."""

    def state(self):
        return {"t": self.t} | {name: getattr(self, name) for name in self.slots}


class Optimizer(Stepper):
    """Base of the optimizers: each step is one update of theta from grad. lr: a number, or a function of t - 1."""

    def __init__(self, params, lr):
        super().__init__(params)
        self.lr = lr
        for name in self.slots:
            setattr(self, name, params.rng.xp.zeros_like(params.theta))

    def step(self):
        """One update of theta from grad."""
        super().step()
        self.params.changed()

    def rate(self, t):
        """The learning rate of step t = 1, 2, ..."""
        return float(self.lr(t - 1) if callable(self.lr) else self.lr)  # an np.float64 would raise the precision

    def numbers(self, t):
        return (self.rate(t),)


class SGD(Optimizer):
    """v ← μ v + g,   θ ← θ - lr v   (Nesterov: θ ← θ - lr (g + μ v)).      μ = momentum

    Sutskever et al. 2013, in PyTorch's form: v does not contain lr.
    """

    slots = ("v",)

    def __init__(self, params, lr, momentum=0.0, nesterov=False):
        super().__init__(params, lr)
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, lr):
        theta, g = self.params.theta, self.params.grad
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

    def update(self, lr):
        theta, g = self.params.theta, self.params.grad
        self.v += (1 - self.alpha) * (g * g - self.v)
        theta -= lr * g / (self.params.rng.xp.sqrt(self.v) + self.eps)


@operation
def adam(theta, g, m, v, beta1, beta2, rate, eps, keep):
    """m ← β1 m + (1 - β1) g,   v ← β2 v + (1 - β2) g²,   θ ← keep θ - rate m / (√v + ε), all in place."""
    xp, scratch = array_module(g), (1 - beta1) * g  # one array for all results in between: memory is the slow part
    m *= beta1
    m += scratch
    xp.multiply(g, g, out=scratch)
    scratch *= 1 - beta2
    v *= beta2
    v += scratch
    xp.sqrt(v, out=scratch)
    scratch += eps
    xp.divide(m, scratch, out=scratch)
    scratch *= rate
    if keep != 1:
        theta *= keep
    theta -= scratch


class Adam(Optimizer):
    """m ← β1 m + (1 - β1) g,   v ← β2 v + (1 - β2) g²,   θ ← θ - lr m̂ / (√v̂ + ε).      Kingma & Ba 2014, algorithm 1

    with m̂ = m / (1 - β1ᵗ) and v̂ = v / (1 - β2ᵗ). Without these corrections the first steps would be far too small (because
    of m) or too large (because of v). The end of the paper's section 2 puts both into two numbers: with k = √(1 - β2ᵗ),
    lr m̂ / (√v̂ + ε) = rate m / (√v + ε k),   rate = lr k / (1 - β1ᵗ).
    """

    slots = ("m", "v")
    weight_decay = 0.0  # AdamW sets it

    def __init__(self, params, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        super().__init__(params, lr)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def numbers(self, t):
        """(rate, ε k, the factor of θ) at step t."""
        k, lr = math.sqrt(1 - self.beta2**t), self.rate(t)
        return lr * k / (1 - self.beta1**t), self.eps * k, 1 - lr * self.weight_decay

    def update(self, rate, eps, keep):
        adam(self.params.theta, self.params.grad, self.m, self.v, self.beta1, self.beta2, rate, eps, keep)


class AdamW(Adam):
    """Adam, and separately θ ← θ - lr λ θ, which is not a part of g.      λ = weight_decay; Loshchilov & Hutter 2017.

    lr λ is PyTorch's convention; in the paper's algorithm 2 the rate α does not multiply λ.
    """

    def __init__(self, params, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr, beta1, beta2, eps)
        self.weight_decay = weight_decay


@watched
def clip_by_norm(params, max_norm):
    """g ← g · min(1, max_norm / ‖g‖) over all of grad. Returns the old ‖g‖, a 0-d array, so a GPU need not wait."""
    xp, g = params.rng.xp, params.grad
    norm = xp.sqrt((g * g).sum())
    g *= xp.minimum(max_norm / (norm + 1e-12), 1.0)
    return norm


@operation
def move_towards(average, theta, rate):
    """θ̄ ← θ̄ + rate (θ - θ̄), in place."""
    average += rate * (theta - average)


class EMA(Stepper):
    """Averaged weights: θ̄ ← d θ̄ + (1 - d) θ after every step, with d = min(decay, (1 + t) / (10 + t)).

    d starts small and rises, as in TensorFlow, so the average soon forgets the random initial weights. Buffers are not
    averaged. `with ema.swapped():` puts θ̄ in place of θ.
    """

    slots = ("average",)

    def __init__(self, params, decay=0.999):
        super().__init__(params)
        self.decay, self.average = decay, params.theta.copy()

    def numbers(self, t):
        return (1 - min(self.decay, (1 + t) / (10 + t)),)

    def update(self, rate):
        move_towards(self.average, self.params.theta, rate)

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


class Annealed(Stepper):
    """A scheduled number, such as noise that fades: value is schedule(t - 1) at step t."""

    def __init__(self, params, schedule):
        super().__init__(params)
        self.schedule = schedule
        self.loaded()

    def numbers(self, t):
        return (float(self.schedule(t - 1)),)

    def update(self, value):
        self.value = value

    def loaded(self):
        self.update(*self.numbers(max(1, int(self.t[0]))))


def clip_weights(params, bound):
    """θ ← θ clipped to [-bound, bound], elementwise."""
    xp, theta = params.rng.xp, params.theta
    xp.minimum(xp.maximum(theta, -bound, out=theta), bound, out=theta)
    params.changed()
