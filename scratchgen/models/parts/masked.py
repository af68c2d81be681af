"""Masked layers: an MLP whose output for each feature sees only the features before it, so that the outputs give a density.

Every unit has a degree. The degree of a feature is its place in the order, from 1 to D. The degree of a hidden unit is a
number from 1 to D - 1. A hidden unit sees the units of the layer before whose degree is at most its own. An output sees the
hidden units whose degree is less than that of its feature. So no path leads from a feature to its own output. For example,
with four features and three hidden units (their degrees in brackets):

                 x_1  x_2  x_3  x_4                      h_1  h_2  h_3     depends on
    h_1 (1)       ×    .    .    .         output 1       .    .    .      nothing
    h_2 (2)       ×    ×    .    .         output 2       ×    .    .      x_1
    h_3 (3)       ×    ×    ×    .         output 3       ×    ×    .      x_1, x_2
                                           output 4       ×    ×    ×      x_1, x_2, x_3

Germain et al. 2015, section 4.
"""

from itertools import accumulate, pairwise

from ...backend import array_module
from ...nn.activations import ReLU
from ...nn.embeddings import Concat
from ...nn.initialisers import pytorch
from ...nn.layer import Layer, Weight, check_width
from ...nn.layers import add_masked, add_rows, masked, matmul


class MaskedLinear(Layer):
    """(x, M) -> y = x (W ∘ M) + b.      dW = M ∘ (xᵀ dy),   db = Σ_batch dy,   dx = dy (W ∘ M)ᵀ

    M (n_in, n_out) holds booleans: M_ij says whether output j sees input i. M has no gradient. Germain et al. 2015, section
    4.
    """

    def __init__(self, n_in, n_out, init=pytorch):
        self.W, self.b = Weight((n_in, n_out), init), Weight((n_out,))

    def forward(self, pair, rng):
        x, M = pair  # (B, n_in), (n_in, n_out)
        check_width(self, x, len(self.W))
        W = masked(self.W, M)
        y = matmul(x, W)
        y += self.b  # (B, n_out)

        def backward(dy, learn=True, inputs=True):  # dy (B, n_out)
            if learn:
                add_masked(self.dW, matmul(x.T, dy), M)
                add_rows(self.db, dy)
            return matmul(dy, W.T) if inputs else None, None

        return y, backward

    @classmethod
    def example(cls, rng):
        return cls(3, 4), (rng.normal((5, 3)), rng.uniform((3, 4)) < 0.6)


class MaskedMLP(Layer):
    """(x, k) -> y: an MLP with ReLU whose outputs for a feature see only the features before it in the k-th order.

    x (B, n_features n_in) and y (B, n_features n_out) have n_in and n_out numbers per feature. direct: the output layer sees
    x and the last hidden layer. n_orders: the number of random orders; 0 means the natural order only, with k = 0. k is an
    integer, or an array with one integer on the device, so that the host need not wait for it.
    """

    def __init__(self, n_features, n_in, hidden, n_out, direct=True, n_orders=0):
        sizes = [n_features * n_in, *hidden]
        self.n_in, self.n_out, self.direct = n_in, n_out, direct and len(hidden) > 0
        self.hidden = [MaskedLinear(*pair) for pair in pairwise(sizes)]
        self.output = MaskedLinear(sizes[-1] + self.direct * sizes[0], n_features * n_out)
        self.relu, self.concat = ReLU(), Concat()
        widths, largest = [n_features, *hidden], [n_features] + len(hidden) * [n_features - 1]
        self.cuts = list(accumulate(widths))[:-1]

        def degrees(rng, shape, fan_in):  # features: 1 to D; hidden units: 1 to D - 1, about equally often
            numbers = rng.permutation if n_orders else rng.xp.arange  # 0 to n - 1
            rows = [[1 + numbers(n) * most // n for n, most in zip(widths, largest)] for _ in range(shape[0])]
            return rng.xp.stack([rng.xp.concatenate(row) for row in rows])

        self.degree = Weight((n_orders or 1, sum(widths)), degrees, constant=True)

    def masks(self, k):
        """Yields the mask M of each hidden layer, then of the output, in the k-th order. Germain et al. 2015, section 4."""
        xp = array_module(self.degree)
        features, *units = xp.split(self.degree[k].reshape(-1), self.cuts)
        inputs = below = xp.repeat(features, self.n_in)
        for degree in units:
            yield below[:, None] <= degree
            below = degree
        if self.direct:
            below = xp.concatenate([below, inputs])
        yield below[:, None] < xp.repeat(features, self.n_out)

    def forward(self, pair, rng):
        x, k = pair
        *masks, output_mask = self.masks(k)
        h, backs = x, []
        for layer, M in zip(self.hidden, masks):
            h, back = layer.forward((h, M), rng)
            h, back_relu = self.relu.forward(h, rng)
            backs.append((back, back_relu))
        if self.direct:
            h, back_concat = self.concat.forward((h, x), rng)
        y, back_output = self.output.forward((h, output_mask), rng)

        def backward(dy, learn=True, inputs=True):
            dh, _ = back_output(dy, learn)
            dh, dx = back_concat(dh) if self.direct else (dh, 0)
            for i, (back, back_relu) in reversed(list(enumerate(backs))):
                dh, _ = back(back_relu(dh), learn, inputs or i > 0)
            return dh + dx if inputs else None, None

        return y, backward

    @classmethod
    def example(cls, rng):
        return cls(4, 2, (5, 6), 3, n_orders=2), (rng.normal((5, 8)), rng.integers(2, 1))
