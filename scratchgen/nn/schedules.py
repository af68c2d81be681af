"""Learning-rate schedules: each is a function of the number of steps done so far and returns a learning rate."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class constant:
    """lr, always."""

    lr: float

    def __call__(self, step):
        return self.lr


@dataclass(frozen=True)
class cosine:
    """From lr down to last along half a cosine in n_steps, then constant. Loshchilov & Hutter 2016, eq 5, one period."""

    lr: float
    n_steps: int
    last: float = 0.0

    def __call__(self, step):
        return self.last + 0.5 * (self.lr - self.last) * (1 + math.cos(math.pi * min(step / self.n_steps, 1)))


@dataclass(frozen=True)
class linear:
    """lr for `start` steps, then a straight line down to last, which is reached after `stop` steps."""

    lr: float
    start: float
    stop: float
    last: float = 0.0

    def __call__(self, step):
        return self.lr + (self.last - self.lr) * min(max(step - self.start, 0) / (self.stop - self.start), 1)


def falling(lr, n_steps):
    """lr for the first half of n_steps, then a straight line down to 0. n_steps = 0: lr, always."""
    return linear(lr, n_steps / 2, n_steps) if n_steps else constant(lr)


@dataclass(frozen=True)
class steps:
    """lr · factor^⌊step / every⌋: multiplied by factor after every `every` steps."""

    lr: float
    every: int
    factor: float = 0.1

    def __call__(self, step):
        return self.lr * self.factor ** (step // self.every)


@dataclass(frozen=True)
class iwae:
    """lr · 10^(-i/7) for 3^i passes over the data, i = 0 ... 7: eight stages, 3,280 passes. Burda et al. 2015, section 5"""

    steps_per_pass: int
    lr: float = 1e-3

    def __call__(self, step):
        passes, i = step // self.steps_per_pass, 0
        while i < 7 and passes >= 3**i:
            passes, i = passes - 3**i, i + 1
        return self.lr * 10 ** (-i / 7)
