"""The two layers of a flow that mix features: couplings and autoregressive layers. invertible.py says what a flow layer is.

If y_i depends only on x_i and on features before it, the Jacobian is triangular: its determinant is the product of the
derivatives ∂y_i/∂x_i. Both layers are of this kind. They differ in what the other features may decide. What is done to x_i
itself is the same for both, an affine map (Affine, here) or a spline (spline.py):

    Coupling         h_i = net(first half of x), for each x_i of the second half       one pass to invert
    Autoregressive   h_i = net(x_1 ... x_i-1), for every x_i                           n passes to invert
"""

from itertools import pairwise

from ...backend import array_module
from ...nn.activations import Tanh
from ...nn.embeddings import Embedding
from ...nn.initialisers import pytorch, zeros
from ...nn.layer import Layer, Sequential, check_width
from ...nn.layers import Linear
from .masked import MaskedMLP
from .spline import Spline


class Affine(Layer):
    """(x, h) -> y = x eˢ + t, with (t, a) = h and s = c tanh(a / c), so |s| < c.      log_det = Σ s

    dx = dy eˢ,   dt = dy,   ds = dy x eˢ + d_log_det,   da = ds (1 - (s/c)²).      Dinh et al. 2017, eq 8

    Without the bound c, one large a in the tail of the data would make eˢ overflow. In an autoregressive layer, this says
    that x_i is Gaussian given the features before it, with mean -t e⁻ˢ and standard deviation e⁻ˢ.
    """

    n_params = 2

    def __init__(self, c=2.0):
        self.c = c

    def split(self, h):
        return h[:, :, 0], self.c * array_module(h).tanh(h[:, :, 1] * (1 / self.c))  # t, s

    def forward(self, pair, rng):
        x, h = pair
        xp, (t, s) = array_module(x), self.split(h)
        scale = xp.exp(s)
        stretched = x * scale

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            da = (dy * stretched + d_log_det[:, None]) * (1 - s * s * (1 / self.c**2))
            return dy * scale, xp.stack([dy, da], axis=2)

        return (stretched + t, s.sum(axis=1)), backward

    def undo(self, y, h):
        t, s = self.split(h)
        return (y - t) * array_module(y).exp(-s)

    @classmethod
    def example(cls, rng):
        return cls(), (rng.normal((5, 3)), rng.normal((5, 3, 2)))


class Coupling(Layer):
    """x = [x_a, x_b] -> y = [x_a, g(x_b; h)], h = net(x_a).      log_det = Σ log g′(x_b)

    x_a is the first half of the features, or the first n_a. As y_a = x_a, the same h is known when going back:
    x_b = g⁻¹(y_b; h), so net needs no inverse. ∂y/∂x is triangular, with ones for x_a and g′ for x_b. g's backward turns
    (dy_b, d_log_det) into dx_b and dh, and net's turns dh into a part of dx_a:   dx = [dy_a + netᵀ dh, dx_b].
    Dinh et al. 2017, eq 4 to 8

    g: an Affine or a Spline. net: an MLP with tanh, whose last layer starts at 0, so that y = x. Its first hidden layer gets
    the label as a row of a table, added to W x_a.
    """

    def __init__(self, n, g, hidden, n_classes=0, n_a=None):
        self.n, self.n_a, self.g = n, n_a or n // 2, g
        self.enter = Linear(self.n_a, hidden[0], pytorch)
        layers = [layer for a, b in pairwise(hidden) for layer in (Tanh(), Linear(a, b, pytorch))]
        self.rest = Sequential(*layers, Tanh(), Linear(hidden[-1], (n - self.n_a) * g.n_params, zeros))
        self.table = Embedding(n_classes, hidden[0]) if n_classes else None

    def net(self, x_a, rng, labels):
        """h (B, n - n_a, n_params) and its backward, which takes dh."""
        u, back_enter = self.enter.forward(x_a, rng)
        if labels is not None:
            row, back_table = self.table.forward(labels, rng)
            u = u + row
        h, back_rest = self.rest.forward(u, rng)

        def backward(dh, learn, inputs):
            du = back_rest(dh.reshape(h.shape), learn)
            if labels is not None:
                back_table(du, learn)
            return back_enter(du, learn, inputs)

        return h.reshape(len(h), -1, self.g.n_params), backward

    def forward(self, x, rng, labels=None):
        check_width(self, x, self.n)
        xp, x_a = array_module(x), x[:, : self.n_a]
        h, back_net = self.net(x_a, rng, labels)
        (y_b, log_det), back_g = self.g.forward((x[:, self.n_a :], h), rng)

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            dx_b, dh = back_g((dy[:, self.n_a :], d_log_det))
            dx_a = back_net(dh, learn, inputs)
            return xp.concatenate([dy[:, : self.n_a] + dx_a, dx_b], axis=1) if inputs else None

        return (xp.concatenate([x_a, y_b], axis=1), log_det), backward

    def inverse(self, y, labels=None):
        y_a = y[:, : self.n_a]
        h, _ = self.net(y_a, None, labels)
        return array_module(y).concatenate([y_a, self.g.undo(y[:, self.n_a :], h)], axis=1)

    @classmethod
    def example(cls, rng):
        return cls(5, Affine(), (4, 6)), rng.normal((6, 5))


class Autoregressive(Layer):
    """y_i = g(x_i; h_i), h_i = net(x_1 ... x_i-1), for all i in one pass of a masked MLP.      log_det = Σ log g′(x_i)

    Papamakarios et al. 2017, section 3.1; g Affine makes it their MAF. g's backward gives dx_i and dh, and net's turns dh
    into the rest:   dx = dx_g + netᵀ dh. The inverse has to wait, because h_i needs x_1 ... x_i-1. So it starts at 0 and
    computes all x_i again and again, n times. The first pass makes x_1 right, because h_1 is constant, the second x_2, and
    so on. A label adds a row of a table to h.
    """

    def __init__(self, n, g, hidden, n_classes=0):
        self.n, self.g = n, g
        self.network = MaskedMLP(n, 1, hidden, g.n_params, direct=False)
        self.table = Embedding(n_classes, n * g.n_params, zeros) if n_classes else None

    def net(self, x, rng, labels):
        """h (B, n, n_params) and its backward, which takes dh."""
        h, back_network = self.network.forward((x, 0), rng)
        if labels is not None:
            row, back_table = self.table.forward(labels, rng)
            h = h + row

        def backward(dh, learn, inputs):
            dh = dh.reshape(h.shape)
            if labels is not None:
                back_table(dh, learn)
            return back_network(dh, learn, inputs)[0]

        return h.reshape(len(h), self.n, self.g.n_params), backward

    def forward(self, x, rng, labels=None):
        check_width(self, x, self.n)
        h, back_net = self.net(x, rng, labels)
        (y, log_det), back_g = self.g.forward((x, h), rng)

        def backward(d, learn=True, inputs=True):
            dx, dh = back_g(d)
            dx_net = back_net(dh, learn, inputs)
            return dx + dx_net if inputs else None

        return (y, log_det), backward

    def inverse(self, y, labels=None):
        x = array_module(y).zeros_like(y)
        for _ in range(self.n):
            x = self.g.undo(y, self.net(x, None, labels)[0])
        return x

    @classmethod
    def example(cls, rng):
        return cls(3, Spline(3), (5, 6)), rng.normal((6, 3))
