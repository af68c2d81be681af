"""The components of a Gaussian mixture: the log density of each at x, and its gradient. See models/gmm.py.

    a_k(x) = log π_k + log N(x; μ_k, Σ_k),      log p(x) = log Σ_k exp a_k,      r_k = exp a_k / p(x)

So EM's responsibilities r are the softmax of a. The gradient of log Σ exp a in a is also this softmax, so r is the factor
with which the gradient of log p enters each component. This is Fisher's identity.
"""

from ...backend import array_module
from ...nn.distributions import LOG_2PI
from ...nn.initialisers import he, ones
from ...nn.layer import Layer, Weight, check_width
from ...nn.layers import log_softmax, matmul


class Gaussians(Layer):
    """a_k = log π_k + log N(x; μ_k, Σ_k), with log N = log|det P_k| - ½ ‖(x - μ_k) P_k‖² - ½ D log 2π.      (B, D) -> (K, B)

    π = softmax(logits) and Σ_k⁻¹ = P_k P_kᵀ, so no density needs a matrix decomposition. P_k is a lower triangular matrix
    (D, D), a diagonal (D,), or one number for all directions (1,). With d = x - μ_k, w = d P_k and sums over the batch

        dlogits_k = Σ (da_k - π_k Σ_j da_j),   dμ_k = Σ da_k w P_kᵀ,   dP_k = Σ da_k (diag(1/P_k) - dᵀw)

    (of dP_k only the lower triangle), and dx = -Σ_k da_k w P_kᵀ.
    """

    def __init__(self, n_components, n_features, covariance="full"):
        shape = {"full": (n_features, n_features), "diagonal": (n_features,), "spherical": (1,)}[covariance]
        self.full = covariance == "full"
        self.logits = Weight((n_components,))
        self.mu = Weight((n_components, n_features), he, fan_in=2)  # N(0, 1), until GMM.prepare sets it from the data
        self.P = Weight((n_components, *shape), ones)

    def diagonal(self, P):
        """A view of the diagonals of all P: (K, D), or (K, 1)."""
        return P.reshape(len(P), -1)[:, :: P.shape[1] + 1] if self.full else P

    def folded(self, products):
        """The sum of products (B, D) over the batch, and also over D if P is one number: (D,) or (1,)."""
        return products.sum(axis=0).reshape(self.P.shape[1], -1).sum(axis=1)

    def log_pi(self):
        """log π, (K,)."""
        return log_softmax(self.logits[None])[0]

    def forward(self, x, rng):  # x (B, D)
        check_width(self, x, self.mu.shape[1])
        xp, p = array_module(x), self.diagonal(self.P)
        d = [x - mu for mu in self.mu]
        P = [xp.tril(part) for part in self.P] if self.full else self.P
        w = [matmul(d[k], P[k]) if self.full else d[k] * P[k] for k in range(len(P))]  # K times (B, D)
        each = x.shape[1] / p.shape[1]  # how many directions one number of p describes
        log_det = 0.5 * each * xp.log(p * p).sum(axis=1)  # (K,); ½ log p² is log|p| for complex p too
        quadratic = xp.stack([(white * white).sum(axis=1) for white in w])  # (K, B)

        def backward(da, learn=True, inputs=True):  # da (K, B)
            if learn:
                share = da.sum(axis=1)
                self.dlogits += share - xp.exp(self.log_pi()) * share.sum()
                self.diagonal(self.dP)[...] += each * share[:, None] / p
            dx = 0.0
            for k in range(len(P)):
                dw = -da[k][:, None] * w[k]
                dd = matmul(dw, P[k].T) if self.full else dw * P[k]
                dx = dx + dd
                if learn:
                    self.dmu[k] -= dd.sum(axis=0)
                    self.dP[k] += xp.tril(matmul(d[k].T, dw)) if self.full else self.folded(d[k] * dw)
            return dx

        return (self.log_pi() + log_det - 0.5 * x.shape[1] * LOG_2PI)[:, None] - 0.5 * quadratic, backward

    @classmethod
    def example(cls, rng):
        return cls(3, 4), rng.normal((5, 4))
