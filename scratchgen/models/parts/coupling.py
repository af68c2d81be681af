"""Flow layers: invertible maps whose Jacobian has a determinant that is cheap to compute.

Each turns x (B, n) into y (B, n) and log_det (B,), the logarithm of |det ∂y/∂x| for each example:

    forward(x, rng, labels=None) -> (y, log_det), backward        backward((dy, d_log_det)) -> dx        inverse(y) -> x

The loss depends on x in two ways, through y and through log_det, so backward takes a gradient for each. If y_i depends only
on x_i and on features before it, the Jacobian is triangular: its determinant is the product of the derivatives ∂y_i/∂x_i.
Couplings and autoregressive layers are of this kind. They differ in what the other features may decide; what is done to x_i
itself, an affine map or a spline, is the same for both:

    Coupling         h_i = net(first half of x), for each x_i of the second half       one pass to invert
    Autoregressive   h_i = net(x_1 ... x_i-1), for every x_i                           n passes to invert
"""

import math
from itertools import pairwise

from ...backend import array_module
from ...nn.activations import Tanh, sigmoid, softplus
from ...nn.embeddings import Embedding
from ...nn.initialisers import pytorch, zeros
from ...nn.layer import Layer, Sequential, Weight, check_width
from ...nn.layers import Linear
from .masked import MaskedMLP

LEAST = 1e-3  # the least width and height of a bin, as a share of all, and the least slope at a knot

# ---- what is done to one number: each takes x (B, n) and its parameters h (B, n, n_params) ----


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


class Spline(Layer):
    """(x, h) -> y = g(x), increasing in K bins between -c and c, and y = x outside.      log_det = Σ log g′(x)

    Durkan et al. 2019, section 3.1. h gives the widths w and heights v of the bins, by softmax, and the slopes δ of g at the
    K - 1 knots between them, by softplus; at -c and c the slope is 1. In a bin whose lower left corner is (x_k, y_k), with
    s = v / w, ξ = (x - x_k) / w and q = ξ (1 - ξ), g is a quotient of two quadratic functions:

        y = y_k + v N / D,     N = s ξ² + δ_k q,     D = s + (δ_k + δ_k+1 - 2s) q
        g′ = s² M / D²,        M = δ_k+1 ξ² + 2 s q + δ_k (1 - ξ)²

    Backward, with ℓ = d_log_det and log g′ = 2 log s + log M - 2 log D:

        dN = dy v / D,    dD = -(dN N + 2 ℓ) / D,    dM = ℓ / M,    dq = dN δ_k + dD (δ_k + δ_k+1 - 2s) + 2 s dM
        ds = dN ξ² + dD (1 - 2q) + 2 q dM + 2 ℓ / s
        dδ_k = (dN + dD) q + dM (1 - ξ)²,    dδ_k+1 = dD q + dM ξ²
        dξ = 2 s ξ dN + 2 (δ_k+1 ξ - δ_k (1 - ξ)) dM + (1 - 2ξ) dq
        dv = dy N / D + ds / w,    dw = -(s ds + ξ dξ) / w,    dx = -dx_k = dξ / w,    dy_k = dy

    x_k is -c plus the widths of all bins before this one, so each of these widths gets dx_k too; likewise the heights.
    """

    def __init__(self, n_bins=8, c=4.0):
        self.K, self.c, self.n_params = n_bins, c, 3 * n_bins - 1

    def knots(self, h):
        """(sizes (B, n, 2, K), slopes (B, n, 2, K)) of all bins, and their backward. h = 0 makes g(x) = x.

        sizes: w and v. slopes: δ_k and δ_k+1, at the lower and the upper end of each bin.
        """
        xp, K = array_module(h), self.K
        logits = h[:, :, : 2 * K].reshape(*h.shape[:2], 2, K)
        e = xp.exp(logits - logits.max(axis=3, keepdims=True))
        p, total, rest = e / e.sum(axis=3, keepdims=True), 2 * self.c, 1 - K * LEAST
        raw = h[:, :, 2 * K :] + math.log(math.expm1(1 - LEAST))  # softplus of this number is 1 - LEAST
        end = xp.ones_like(h[:, :, :1])
        slopes = xp.concatenate([end, LEAST + softplus(raw), end], axis=2)

        def backward(d_sizes, d_slopes):
            d_p = (total * rest) * d_sizes
            d_logits = p * (d_p - (d_p * p).sum(axis=3, keepdims=True))
            d_raw = (d_slopes[:, :, 0, 1:] + d_slopes[:, :, 1, :-1]) * sigmoid(raw)
            return xp.concatenate([d_logits.reshape(*h.shape[:2], 2 * K), d_raw], axis=2)

        return total * (LEAST + rest * p), xp.stack([slopes[:, :, :-1], slopes[:, :, 1:]], axis=2), backward

    def bins(self, u, sizes):
        """(passed, chosen), each (B, n, 1, K), for u (B, n) and the sizes of the bins on its axis, (B, n, K).

        passed is 1 for every bin below that of u, chosen for its own. Sums of products with them take the place of indices,
        by which a GPU would have to gather and scatter.
        """
        xp = array_module(u)
        ends = xp.cumsum(sizes, axis=2)[:, :, :-1] - self.c
        above = (u[:, :, None] >= ends).astype(u.real.dtype)
        edge = xp.ones_like(above[:, :, :1])
        passed = xp.concatenate([above, 0 * edge], axis=2)
        return passed[:, :, None], (xp.concatenate([edge, above], axis=2) - passed)[:, :, None]

    def corner(self, sizes, slopes, passed, chosen):
        """x_k, y_k, w, v, δ_k, δ_k+1 of the chosen bins, each (B, n)."""
        found = (sizes * passed).sum(axis=3) - self.c, (sizes * chosen).sum(axis=3), (slopes * chosen).sum(axis=3)
        return [pair[:, :, i] for pair in found for i in (0, 1)]

    def inside(self, u):
        """(whether u lies between -c and c, u where it does and 0 elsewhere)."""
        within = (u > -self.c) & (u < self.c)
        return within, array_module(u).where(within, u, 0)

    def forward(self, pair, rng):
        x, h = pair
        xp, (within, u) = array_module(x), self.inside(x)
        sizes, slopes, back_knots = self.knots(h)
        passed, chosen = self.bins(u, sizes[:, :, 0])
        x_k, y_k, w, v, low, high = self.corner(sizes, slopes, passed, chosen)
        s, xi = v / w, (u - x_k) / w
        q, curve = xi * (1 - xi), low + high - 2 * s
        N, D = s * xi * xi + low * q, s + curve * q
        M = high * xi * xi + 2 * s * q + low * (1 - xi) * (1 - xi)
        log_slope = 2 * xp.log(s) + xp.log(M) - 2 * xp.log(D)

        def backward(d, learn=True, inputs=True):
            dy = xp.where(within, d[0], 0)
            dl = xp.where(within, d[1][:, None], 0)
            dN = dy * v / D
            dD, dM = -(dN * N + 2 * dl) / D, dl / M
            dq = dN * low + dD * curve + 2 * s * dM
            ds = dN * xi * xi + dD * (1 - 2 * q) + 2 * q * dM + 2 * dl / s
            d_low, d_high = (dN + dD) * q + dM * (1 - xi) * (1 - xi), dD * q + dM * xi * xi
            dxi = 2 * s * xi * dN + 2 * (high * xi - low * (1 - xi)) * dM + (1 - 2 * xi) * dq
            dv, dw, dx = dy * N / D + ds / w, -(s * ds + xi * dxi) / w, dxi / w

            own, before = xp.stack([dw, dv], axis=2), xp.stack([-dx, dy], axis=2)  # of w and v; of x_k and y_k
            d_sizes = own[:, :, :, None] * chosen + before[:, :, :, None] * passed
            d_slopes = xp.stack([d_low, d_high], axis=2)[:, :, :, None] * chosen
            return xp.where(within, dx, d[0]), back_knots(d_sizes, d_slopes)

        y = xp.where(within, y_k + v * N / D, x)
        return (y, xp.where(within, log_slope, 0).sum(axis=1)), backward

    def undo(self, y, h):
        """x, by solving y = g(x) in its bin, a quadratic equation in ξ: Durkan et al. 2019, eq 6 to 8."""
        xp, (within, u) = array_module(y), self.inside(y)
        sizes, slopes, _ = self.knots(h)
        x_k, y_k, w, v, low, high = self.corner(sizes, slopes, *self.bins(u, sizes[:, :, 1]))
        s, rise = v / w, u - y_k
        curved = rise * (low + high - 2 * s)
        a, b, c = v * (s - low) + curved, v * low - curved, -s * rise
        root = xp.sqrt(xp.maximum(b * b - 4 * a * c, 0))  # rounding may make it negative at a knot
        return xp.where(within, x_k + w * (2 * c / (-b - root)), y)  # this form loses no digits where a is small

    @classmethod
    def example(cls, rng):
        return cls(3, 1.5), (rng.normal((5, 4)), rng.normal((5, 4, 8)))


# ---- flow layers ----


class ActNorm(Layer):
    """y = x eˢ + b, one s and one b for each feature.      log_det = Σ s, the same for each example

    dx = dy eˢ,   db = Σ_batch dy,   ds = Σ_batch (dy x eˢ + d_log_det).      Kingma & Dhariwal 2018, section 3.1

    measure(x) starts it so that y has mean 0 and variance 1: batch norm at the first step, and ordinary weights later. So
    an example's density does not depend on the rest of its batch.
    """

    def __init__(self, n):
        self.s, self.b = Weight((n,)), Weight((n,))

    def forward(self, x, rng, labels=None):
        check_width(self, x, len(self.s))
        xp = array_module(x)
        scale = xp.exp(self.s)
        stretched = x * scale

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            if learn:
                self.ds += (dy * stretched).sum(axis=0) + d_log_det.sum()
                self.db += dy.sum(axis=0)
            if inputs:
                return dy * scale

        return (stretched + self.b, xp.zeros_like(x[:, 0]) + self.s.sum()), backward

    def inverse(self, y, labels=None):
        return (y - self.b) * array_module(y).exp(-self.s)

    def measure(self, x):
        """Start at the mean and the standard deviation of each column of x (N, n)."""
        std = x.std(axis=0)
        std += std == 0  # a column that never changes
        self.s[...] = -array_module(x).log(std)
        self.b[...] = -x.mean(axis=0) / std

    @classmethod
    def example(cls, rng):
        return cls(3), rng.normal((4, 3))


class Permute(Layer):
    """y = x with its features in another order, which never changes: reversed, or random.      log_det = 0

    dx = dy in the old order. It lets the next layer change what this one could not.
    """

    def __init__(self, n, order="reverse"):
        def numbers(rng, shape, fan_in):
            return rng.permutation(n) if order == "random" else rng.xp.arange(n)[::-1]

        self.order = Weight((n,), numbers, constant=True)

    def forward(self, x, rng, labels=None):
        check_width(self, x, len(self.order))

        def backward(d, learn=True, inputs=True):
            dy, _ = d
            return self.inverse(dy)

        return (x[:, self.numbers()], array_module(x).zeros_like(x[:, 0])), backward

    def inverse(self, y, labels=None):
        return y[:, self.numbers().argsort()]

    def numbers(self):
        return self.order.real.astype(int)

    @classmethod
    def example(cls, rng):
        return cls(5, "random"), rng.normal((4, 5))


class Logit(Layer):
    """y = log p - log(1 - p), p = α + (1 - 2α) x: numbers in [0, 1] become any numbers.      Dinh et al. 2017, section 4.1

    p′ = 1 - 2α,   log_det = Σ [log p′ - log p - log(1 - p)],   dx = p′ [dy / p (1 - p) + d_log_det (1/(1 - p) - 1/p)].
    With α > 0, x = 0 and x = 1 have a finite y.
    """

    def __init__(self, alpha=0.05):
        self.alpha, self.slope = alpha, 1 - 2 * alpha

    def forward(self, x, rng, labels=None):
        xp = array_module(x)
        p = self.alpha + self.slope * x
        log_p, log_rest = xp.log(p), xp.log(1 - p)

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            if inputs:
                return self.slope * (dy + d_log_det[:, None] * (2 * p - 1)) / (p * (1 - p))

        return (log_p - log_rest, (math.log(self.slope) - log_p - log_rest).sum(axis=1)), backward

    def inverse(self, y, labels=None):
        return (sigmoid(y) - self.alpha) / self.slope

    @classmethod
    def example(cls, rng):
        return cls(), rng.uniform((4, 3))


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
        *sizes, n_out = *hidden, (n - self.n_a) * g.n_params
        self.enter = Linear(self.n_a, sizes[0], pytorch)
        layers = [layer for pair in pairwise(sizes) for layer in (Tanh(), Linear(*pair, pytorch))]
        self.rest = Sequential(*layers, Tanh(), Linear(sizes[-1], n_out, zeros))
        self.table = Embedding(n_classes, sizes[0]) if n_classes else None

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


class Chain(Layer):
    """y = f_m(... f_1(x)), flow layers one after another.      log_det = Σ of theirs, because determinants multiply

    backward runs through them in reverse. Each gets the dx of the layer after it as its dy, and all get the same d_log_det.
    """

    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x, rng, labels=None):
        total, backs = 0, []
        for layer in self.layers:
            (x, log_det), back = layer.forward(x, rng, labels)
            total = total + log_det
            backs.append(back)

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            for i in reversed(range(len(backs))):
                dy = backs[i]((dy, d_log_det), learn, inputs or i > 0)
            return dy

        return (x, total), backward

    def inverse(self, y, labels=None):
        for layer in reversed(self.layers):
            y = layer.inverse(y, labels)
        return y

    def measure(self, x, labels=None):
        """Start every ActNorm at the mean and standard deviation of what reaches it of x (N, n)."""
        for layer in self.layers:
            if isinstance(layer, ActNorm):
                layer.measure(x)
            x = layer.forward(x, None, labels)[0][0]

    @classmethod
    def example(cls, rng):
        layers = ActNorm(4), Coupling(4, Spline(3), (5,)), Permute(4), Autoregressive(4, Affine(), (6,))
        return cls(*layers), rng.normal((5, 4))
