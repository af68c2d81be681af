"""The network of a diffusion model: it takes a noisy example and the time, and predicts the data or the noise.

It consists of residual blocks on one wide vector, as in He et al. 2016 but with the normalisation first. The time, which
says how noisy the example is, enters each block as cosines and sines (Vaswani et al. 2017, section 3.5), as in Ho et al.
2020, appendix B. A label, if there is one, enters with the time. The first weights are small, as in PyTorch. With He's
initialisation, whose variance is six times larger, latent diffusion takes nearly four times as many steps.
"""

from ...backend import array_module
from ...nn.activations import SiLU
from ...nn.embeddings import Embedding, TimeEmbedding
from ...nn.initialisers import ones, pytorch
from ...nn.layer import Layer, Sequential, Weight, check_width
from ...nn.layers import Linear
from ...nn.norms import LayerNorm


class Block(Layer):
    """h' = h + W₂ SiLU(W₁ norm(h) + W_e e), without the biases: a residual block, which gets the time as e.

    dh = dh' + the gradient through W₁ norm(h), de = W_eᵀ du. Here du is the gradient of the sum inside SiLU.
    """

    def __init__(self, width, n_time):
        self.before = Sequential(LayerNorm(width), Linear(width, width, pytorch))
        self.condition = Linear(n_time, width, pytorch)
        self.after = Sequential(SiLU(), Linear(width, width, pytorch))

    def forward(self, pair, rng):
        h, e = pair  # (B, width), (B, n_time)
        u, back_before = self.before.forward(h, rng)
        c, back_condition = self.condition.forward(e, rng)
        y, back_after = self.after.forward(u + c, rng)

        def backward(dy, learn=True, inputs=True):  # dy (B, width)
            du = back_after(dy, learn)
            return dy + back_before(du, learn), back_condition(du, learn)

        return h + y, backward

    @classmethod
    def example(cls, rng):
        return cls(3, 4), (rng.normal((5, 3)), rng.normal((5, 4)))


class Denoiser(Layer):
    """(x_t, t) or (x_t, t, labels) -> f (B, n): an MLP of residual blocks. Each block gets t and the label as the vector e.

    e = SiLU(W waves(t) + table[label]);  h = W x_t;  h ← block(h, e), n_blocks times;  f = W norm(h).
    There is no gradient in t or in labels. Labels are 0 ... n_classes, where n_classes means that no class is given.
    n_in: the numbers of x_t, if they are not n.
    """

    def __init__(self, n, width, n_blocks, n_time, n_classes=0, n_in=None):
        self.time = Sequential(TimeEmbedding(n_time), Linear(n_time, n_time, pytorch))
        self.table = Embedding(n_classes + 1, n_time) if n_classes else None
        self.activation = SiLU()
        self.enter = Linear(n_in or n, width, pytorch)
        self.blocks = [Block(width, n_time) for _ in range(n_blocks)]
        self.leave = Sequential(LayerNorm(width), Linear(width, n, pytorch))

    def forward(self, inputs, rng):
        x, t, *labels = inputs  # (B, n_in), (B,) and, with a table, (B,)
        e, back_time = self.time.forward(t, rng)  # (B, n_time)
        if labels:
            row, back_table = self.table.forward(labels[0], rng)
            e = e + row
        e, back_activation = self.activation.forward(e, rng)
        h, back_enter = self.enter.forward(x, rng)  # (B, width)
        backs = []
        for block in self.blocks:
            h, back = block.forward((h, e), rng)
            backs.append(back)
        f, back_leave = self.leave.forward(h, rng)

        def backward(df, learn=True, inputs=True):  # df (B, n)
            dh, de = back_leave(df, learn), 0
            for back in reversed(backs):
                dh, de_block = back(dh, learn)
                de = de + de_block
            de = back_activation(de)
            if labels:
                back_table(de, learn)
            back_time(de, learn, inputs=False)
            return (back_enter(dh, learn, inputs), *[None] * (1 + len(labels)))

        return f, backward

    @classmethod
    def example(cls, rng):
        return cls(3, 4, 2, 6, n_classes=2), (rng.normal((5, 3)), 1 + rng.integers(9, 5), rng.integers(3, 5))


class Scaling(Layer):
    """x_0 = (x - mean) / std for each column, because diffusion needs numbers of about unit size.      dx = dx_0 / std

    At first it maps pixels from [0, 1] to [-1, 1]. After measure(x), x_0 has mean 0 and variance 1 in each column, and low
    and high are its smallest and largest values.
    """

    def __init__(self, n):
        def half(rng, shape, fan_in):
            return ones(rng, shape, fan_in) * 0.5

        self.mean, self.std = Weight((n,), half, learned=False), Weight((n,), half, learned=False)
        self.high = Weight((n,), ones, learned=False)
        self.low = Weight((n,), lambda *given: -ones(*given), learned=False)

    def forward(self, x, rng):
        check_width(self, x, len(self.mean))
        return (x - self.mean) / self.std, lambda dy, learn=True, inputs=True: dy / self.std

    def undo(self, x_0):
        return x_0 * self.std + self.mean

    def measure(self, x):  # x (N, n)
        self.mean[...] = x.mean(axis=0)
        self.std[...] = x.std(axis=0)
        self.std += self.std == 0  # a column that never changes
        x_0 = self(x)
        self.low[...], self.high[...] = x_0.min(axis=0), x_0.max(axis=0)

    def clip(self, x_0):
        xp = array_module(x_0)
        return xp.minimum(xp.maximum(x_0, self.low), self.high)

    @classmethod
    def example(cls, rng):
        return cls(3), rng.normal((4, 3))
