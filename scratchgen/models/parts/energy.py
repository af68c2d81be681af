"""The free energy F(v) of a restricted Boltzmann machine, from its energy E(v, h) = -b·v - c·h - vᵀ W h by a sum over h.

    e^-F(v) = Σ_h e^-E(v, h) = e^(b·v) Π_j (1 + e^a_j),      a = c + v W

Each h_j is 0 or 1, and no product of two h occurs in E, so the sum over all h is a product over j. See models/rbm.py.
"""

import numpy as np

from ...backend import UsageError, to_host
from ...nn.activations import sigmoid, softplus
from ...nn.layer import Layer, Weight, check_width
from ...nn.layers import add_matmul, add_rows, matmul

MOST = 20  # the most units that the smaller side may have in log_z, which sums over all its states


def small(rng, shape, fan_in):
    """Weights from N(0, 0.01²), as in Hinton 2010, section 8."""
    return 0.01 * rng.normal(shape)


class FreeEnergy(Layer):
    """F(v) = -b·v - Σ_j softplus(a_j), a = c + v W.      With s = sigmoid(a) = E[h|v]:

    dW = -vᵀ (s dF),   dc = -Σ_batch s dF,   db = -Σ_batch v dF,   dv = -(b + s Wᵀ) dF.      v (B, n_visible), F (B,)

    It has two buffers. base: the log odds of the units in the training data. chains: the states of the persistent chains.
    """

    def __init__(self, n_visible, n_hidden, n_chains):
        self.W = Weight((n_visible, n_hidden), small)
        self.b, self.c = Weight((n_visible,)), Weight((n_hidden,))
        self.base, self.chains = Weight((n_visible,), learned=False), Weight((n_chains, n_visible), learned=False)

    def up(self, v):
        """The logits of p(h_j = 1 | v), (B, n_hidden)."""
        check_width(self, v, len(self.W))
        return matmul(v, self.W) + self.c

    def down(self, h):
        """The logits of p(v_i = 1 | h), (B, n_visible)."""
        return matmul(h, self.W.T) + self.b

    def forward(self, v, rng):
        a = self.up(v)  # (B, n_hidden)

        def backward(dF, learn=True, inputs=True):  # dF (B,)
            da, dF = -sigmoid(a) * dF[:, None], dF[:, None]
            if learn:
                add_matmul(self.dW, v.T, da)
                add_rows(self.dc, da)
                add_rows(self.db, -v * dF)
            if inputs:
                return matmul(da, self.W.T) - self.b * dF

        return -(v * self.b).sum(axis=1) - softplus(a).sum(axis=1), backward

    def log_z(self):
        """log Z = log Σ_v e^-F(v) in nats, exact, in float64: a sum over all states of the side with fewer units.

        Raises UsageError if that side has more than 20 units.
        """
        W, b, c = (to_host(part).astype(np.float64) for part in (self.W, self.b, self.c))
        if len(b) > len(c):  # the energy has the same form if the sides are exchanged
            W, b, c = W.T, c, b
        n, total = len(b), -np.inf
        if n > MOST:
            raise UsageError(
                f"log_z sums over all states of at most {MOST} units, but the smaller side has {n}: use metrics/annealed.py"
            )
        for first in range(0, 2**n, 4096):  # in blocks, to save memory
            states = np.arange(first, min(first + 4096, 2**n))[:, None] >> np.arange(n) & 1
            states = states.astype(np.float64)
            minus_F = matmul(states, b[:, None])[:, 0] + softplus(matmul(states, W) + c).sum(axis=1)
            total = np.logaddexp(total, np.logaddexp.reduce(minus_F))
        return float(total)

    @classmethod
    def example(cls, rng):
        return cls(4, 3, 2), rng.uniform((5, 4))
