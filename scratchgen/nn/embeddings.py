"""How a label, a time or a condition enters a network: as a row of a table, as waves, or beside the input."""

from ..backend import array_module
from .initialisers import he
from .layer import Layer, Weight
from .layers import add_matmul, matmul, one_hot


class Embedding(Layer):
    """y = W[label], written as one_hot(label) W.      dW = one_hotᵀ dy. Labels have no gradient.

    The gradient is a product with one-hot rows, not a sum by index. In such a sum, many threads of a GPU would add to one
    row in a different order in every run, and each order rounds differently.
    """

    def __init__(self, n_classes, n_dim, init=he):
        self.W = Weight((n_classes, n_dim), init, fan_in=n_dim)

    def forward(self, labels, rng):  # labels (B,) integers
        rows = one_hot(labels, len(self.W), self.W.dtype)  # (B, n_classes)

        def backward(dy, learn=True, inputs=True):
            if learn:
                add_matmul(self.dW, rows.T, dy)

        return matmul(rows, self.W), backward

    @classmethod
    def example(cls, rng):
        return cls(4, 3), rng.integers(4, 6)


class TimeEmbedding(Layer):
    """y = [cos ω t, sin ω t], ω from 1 down towards 1/max_period.      dt = Σ ω (cos(ω t) d_sin - sin(ω t) d_cos)

    Vaswani et al. 2017, section 3.5. t (B,) becomes (B, n_dim). Close times have similar embeddings, distant ones do not.
    """

    def __init__(self, n_dim, max_period=10_000):
        if n_dim % 2:
            raise ValueError(f"TimeEmbedding: n_dim must be even, got {n_dim}")

        def frequencies(rng, shape, fan_in):
            return rng.array([max_period ** (-k / shape[0]) for k in range(shape[0])])

        self.omega = Weight((n_dim // 2,), frequencies, constant=True)

    def forward(self, t, rng):
        xp = array_module(t)
        if t.ndim != 1:
            raise ValueError(f"TimeEmbedding got times of shape {t.shape}, expected (B,)")
        if t.dtype.kind != "c":
            t = t.astype(self.omega.dtype)  # integer times would give float64; a complex time keeps its imaginary part
        angle = t[:, None] * self.omega  # (B, n_dim / 2)
        cos, sin = xp.cos(angle), xp.sin(angle)

        def backward(dy, learn=True, inputs=True):
            half = dy.shape[1] // 2
            if inputs:
                return ((cos * dy[:, half:] - sin * dy[:, :half]) * self.omega).sum(axis=1)

        return xp.concatenate([cos, sin], axis=1), backward

    @classmethod
    def example(cls, rng):
        return cls(6), 10 * rng.uniform(4)


class Concat(Layer):
    """(x, c) -> y = [x, c] side by side: how a condition c enters a network.      dx, dc: dy cut at the same place."""

    def forward(self, pair, rng):
        x, c = pair  # (B, n), (B, m)
        if x.ndim != 2 or c.ndim != 2 or len(x) != len(c):
            raise ValueError(f"Concat got shapes {x.shape} and {c.shape}, expected (B, n) and (B, m)")
        n = x.shape[1]

        def backward(dy, learn=True, inputs=True):
            return dy[:, :n], dy[:, n:]

        return array_module(x).concatenate([x, c], axis=1), backward

    @classmethod
    def example(cls, rng):
        return cls(), (rng.normal((4, 3)), rng.normal((4, 2)))
