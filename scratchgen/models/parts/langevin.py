"""Langevin's sampler: a chain of small steps uphill in log p, with noise, whose states come to be draws from p.

    x ← x + (h/2) ∇log p(x) + √h ε,      ε ~ N(0, I)

It needs the score ∇log p alone, so nobody has to know the constant of p. As h tends to 0, the law of the chain tends to p.
Steps that are not small leave an error. For p = N(0, σ²) a step is x ← (1 - h/2σ²) x + √h ε, so the variance V of the chain
solves V = (1 - h/2σ²)² V + h:

    V = σ² / (1 - h/4σ²)        too large; there is none for h >= 4σ²

A chain crosses a gap between two modes only after a time that grows exponentially with the depth of the gap. The score
within a mode does not know how much weight the mode has. So a chain gives each mode as much weight as started near it.
Annealing mends this (Song & Ermon 2019, sections 3.2.2 and 4.3): the chain first samples the data with so much noise that
there are no gaps, and then with less and less.
"""

import math

from ...backend import array_module


def langevin(score, x, h, n_steps, rng):
    """x (n, D) after n_steps steps of size h, a float. score(x) -> (n, D) is ∇log p(x)."""
    for _ in range(n_steps):
        x = x + (0.5 * h) * score(x) + math.sqrt(h) * rng.normal(x.shape)
    return x


def annealed_langevin(score, x, sigmas, step, n_steps, rng):
    """x (n, D) after n_steps steps at each of the noises sigmas, floats that fall. Song & Ermon 2019, algorithm 1.

    score(x, sigma) -> (n, D) is that of the data with noise N(0, σ² I). Such data is at least σ wide in each direction. So
    steps of h = step σ² make the variance of a Gaussian at most 1/(1 - step/4) times too large.
    """
    for sigma in sigmas:
        x = langevin(lambda x, sigma=sigma: score(x, sigma), x, step * sigma**2, n_steps, rng)
    return x


def ladder(sigma_max, sigma_min, n):
    """n noises from sigma_max down to sigma_min, each the same factor smaller than the one before; sigma_min for n = 1."""
    return [sigma_min * (sigma_max / sigma_min) ** (1 - i / (n - 1)) for i in range(n - 1)] + [sigma_min]


class ReplayBuffer:
    """The states (n, D) of persistent chains, which a model continues from update to update (Tieleman 2008).

    A model keeps this object as an attribute, so that a checkpoint contains it. The chains start as N(0, I).
    """

    def __init__(self, n, n_features, rng):
        self.states = rng.normal((n, n_features))

    def state(self):
        return {"states": self.states}

    def stretch(self, n, rng):
        """The places (n,) of n chains that follow each other, from a random one on. None comes twice, unless n is larger.

        So a GPU never writes two states into one place, in an order that nobody knows.
        """
        size = len(self.states)
        return (rng.integers(size, 1) + array_module(self.states).arange(n)) % size
