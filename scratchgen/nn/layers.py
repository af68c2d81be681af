"""The layers: the formula of each, and its gradient derived by hand.

Each docstring gives the forward formula and the gradients that follow from it. The functions below it are these formulas as
code. B is the batch, D a number of features; dy is the gradient of the loss with respect to y, dW that with respect to W.
All layers also work on complex numbers, because check/gradcheck.py measures derivatives by the complex step. So |x| is
written maximum(x, -x), and a variance as a mean of products.
"""

from itertools import pairwise

from ..backend import array_module, on_host
from ..kernels import operation
from .activations import ReLU
from .initialisers import he, pytorch, zeros
from .layer import Layer, Sequential, Weight, check_width


class Linear(Layer):
    """y = x W + b.      dW = xᵀ dy,   db = Σ_batch dy,   dx = dy Wᵀ"""

    def __init__(self, n_in, n_out, init=he):
        self.W = Weight((n_in, n_out), init)
        self.b = Weight((n_out,), pytorch if init is pytorch else zeros, fan_in=n_in)  # only PyTorch's makes b random

    @operation
    def forward(self, x, rng):  # x (B, n_in)
        check_width(self, x, len(self.W))
        y = x @ self.W + self.b  # y (B, n_out)

        def backward(dy, learn=True, inputs=True):  # dy (B, n_out)
            if learn:  # unless the network is frozen
                self.dW += x.T @ dy
                self.db += dy.sum(axis=0)
            if inputs:  # unless x is data
                return dy @ self.W.T  # dx (B, n_in)

        return y, backward

    @operation
    def forward_twice(self, x):
        y, back = self.forward(x, None)

        def gradient(u):  # g = u Wᵀ

            def double_backward(v, learn=True, inputs=True):  # du = v W,   dW = vᵀ u,   dx = 0
                if learn:
                    self.dW += v.T @ u
                return v @ self.W, None

            return back(u, learn=False), double_backward

        return y, back, gradient

    @classmethod
    def example(cls, rng):
        return cls(3, 4), rng.normal((5, 3))


class Dropout(Layer):
    """y = x m / (1 - p), m = 0 with probability p, else 1, so that E[y] = x.      dx = dy m / (1 - p), with the same m.

    Srivastava et al. 2014, in the inverted form. When the layer is used (rng None), it does nothing.
    """

    def __init__(self, p=0.5):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must lie in [0, 1), got {p}")
        self.p = p

    def forward(self, x, rng):
        if rng is None or self.p == 0:
            return x, lambda dy, learn=True, inputs=True: dy
        scaled_mask = (rng.uniform(x.shape) >= self.p).astype(rng.real) * (1 / (1 - self.p))

        def backward(dy, learn=True, inputs=True):
            return dy * scaled_mask

        return x * scaled_mask, backward

    def forward_twice(self, x):  # no dropout: the penalty is on the slope of the whole network
        return x, lambda dy, learn=True, inputs=True: dy, lambda u: (u, lambda v, learn=True, inputs=True: (v, None))

    @classmethod
    def example(cls, rng):
        return cls(0.4), rng.normal((6, 5))


# ---- functions that several layers use ----


@operation
def matmul(a, b):
    """a b.      (n, k), (k, m) -> (n, m)

    A layer that calls this function, instead of writing a @ b, can be part of a training step that is recorded and replayed.
    """
    return a @ b


@operation
def add_matmul(out, a, b):
    """out ← out + a b, in place.      out (n, m), a (n, k), b (k, m)"""
    out += a @ b


@operation
def add_rows(out, rows):
    """out ← out + Σ_batch rows, in place.      out (n,), rows (B, n)"""
    out += rows.sum(axis=0)


@operation
def masked(W, M):
    """W ∘ M for booleans M of the same shape."""
    return W * M


@operation
def add_masked(out, W, M):
    """out ← out + W ∘ M, in place."""
    out += W * M


def one_hot(labels, n, dtype):
    """Rows (B, n) with a single 1 each, for labels (B,). Raises ValueError unless these are integers from 0 to n - 1."""
    xp = array_module(labels)
    if labels.ndim != 1:
        raise ValueError(f"one_hot got labels of shape {labels.shape}, expected (B,)")
    if on_host(labels) and labels.size and not 0 <= labels.min() <= labels.max() < n:
        raise ValueError(f"labels must lie in 0 ... {n - 1}, got {labels.min()} ... {labels.max()}")
    return (labels[:, None] == xp.arange(n)).astype(dtype)


@operation
def sum_by_label(rows, labels, n):
    """(how many rows have each label (n,), the sum of these rows (n, D)), for rows (B, D) and labels (B,) from 0 to n - 1.

    The sums are a product with one-hot rows, for the reason given in Embedding.
    """
    chosen = one_hot(labels, n, rows.dtype)  # (B, n)
    return chosen.sum(axis=0), matmul(chosen.T, rows)


def log_sum_exp(l, axis):
    """log Σ exp l along an axis, which is removed. The largest l is subtracted first, so exp cannot overflow."""
    xp, largest = array_module(l), l.max(axis=axis, keepdims=True)
    return largest.squeeze(axis) + xp.log(xp.exp(l - largest).sum(axis=axis))


def log_softmax(logits):
    """log softmax(l) = l - log Σ_j exp l_j in each row, (B, K). Logits must be finite."""
    xp = array_module(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)  # the largest becomes 0: exp cannot overflow
    return shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))


class Residual(Layer):
    """y = x + f(x).      dx = dy + what f's backward returns. He et al. 2016, eq 1."""

    def __init__(self, body):
        self.body = body

    def forward(self, x, rng):
        f, back_body = self.body.forward(x, rng)
        if f.shape != x.shape:
            raise ValueError(f"Residual: the body turns {x.shape} into {f.shape}; both shapes must be equal")

        def backward(dy, learn=True, inputs=True):
            dx = back_body(dy, learn, inputs)
            return dy + dx if inputs else None

        return x + f, backward

    def forward_twice(self, x):
        f, back_body, gradient_body = self.body.forward_twice(x)

        def backward(dy, learn=True, inputs=True):
            return dy + back_body(dy, learn)

        def gradient(u):  # g = u + the body's
            g, body_twice = gradient_body(u)

            def double_backward(v, learn=True, inputs=True):
                du, dx = body_twice(v, learn)
                return v + du, dx

            return u + g, double_backward

        return x + f, backward, gradient

    @classmethod
    def example(cls, rng):
        return cls(Linear(3, 3)), rng.normal((4, 3))


class Maxout(Layer):
    """y = max over k of the pieces x W_k + b_k.      The winning piece gets dy, the others get 0.

    Goodfellow et al. 2013. One Linear makes all pieces, unit by unit: h (B, n_out, n_pieces).
    """

    def __init__(self, n_in, n_out, n_pieces=2, init=he):
        self.pieces, self.n_pieces = Linear(n_in, n_out * n_pieces, init), n_pieces

    def forward(self, x, rng):
        h, back_pieces = self.pieces.forward(x, rng)  # h (B, n_out n_pieces)
        gather, scatter = self.winners(h)

        def backward(dy, learn=True, inputs=True):
            return back_pieces(scatter(dy), learn, inputs)

        return gather(h), backward

    def forward_twice(self, x):
        h, back_pieces, gradient_pieces = self.pieces.forward_twice(x)
        gather, scatter = self.winners(h)

        def backward(dy, learn=True, inputs=True):
            return back_pieces(scatter(dy), learn, inputs)

        def gradient(u):
            g, pieces_twice = gradient_pieces(scatter(u))
            return g, lambda v, learn=True, inputs=True: (gather(pieces_twice(v, learn)[0]), None)

        return gather(h), backward, gradient

    def winners(self, h):
        """gather(h) takes the winners, (B, n_out n_pieces) -> (B, n_out); scatter(y) puts y back, with 0 elsewhere."""
        pieces = (len(h), -1, self.n_pieces)
        numbers = array_module(h).arange(self.n_pieces)
        winner = h.reshape(pieces).argmax(axis=2)[:, :, None] == numbers  # only one is true, also in a tie
        return (
            lambda h: (h.reshape(pieces) * winner).sum(axis=2),
            lambda y: (y[:, :, None] * winner).reshape(len(y), -1),
        )

    @classmethod
    def example(cls, rng):
        return cls(3, 4, n_pieces=3), rng.normal((5, 3))


def mlp(sizes, activation=ReLU, init=he, norm=None, dropout=0.0, last=None):
    """A Sequential of Linear layers of these sizes, with an activation (a class) after each except the last.

    last: an activation after the last one. norm: BatchNorm or LayerNorm, before each activation. dropout: the probability of
    Dropout, after each activation.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"mlp needs two or more positive sizes, got {tuple(sizes)}")
    layers = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(Linear(n_in, n_out, init))
        if i < len(sizes) - 2:
            layers += [norm(n_out)] if norm else []
            layers.append(activation())
            layers += [Dropout(dropout)] if dropout else []
    return Sequential(*layers, *([last()] if last else []))
