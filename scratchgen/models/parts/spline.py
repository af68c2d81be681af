"""What a coupling may do to a number: a spline that is increasing, smooth and cheap to invert, of many bins."""

import math

from ...backend import array_module
from ...nn.activations import sigmoid, softplus
from ...nn.layer import Layer

LEAST = 1e-3  # the least width and height of a bin, as a share of all, and the least slope at a knot


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
