"""A codebook: K code vectors. The nearest one replaces each input.

The choice of the nearest vector is constant almost everywhere, with jumps in between. So no gradient passes through it to
the input; models/vqvae.py passes the gradient around it. The vectors themselves learn by gradient, or by a moving average of
the inputs that chose them. A vector that no input chooses learns nothing, so unused vectors are moved onto encoder outputs.
"""

from ...backend import array_module, stop
from ...nn.batch import agreed, total
from ...nn.initialisers import he, ones
from ...nn.layer import Layer, Weight, check_width
from ...nn.layers import matmul, sum_by_label

BLOCK = 8192  # inputs per block: the scores of all tokens of a data set would fill the memory


def perplexity(counts):
    """exp H(p) with p = counts / Σ counts, (K,): the number of evenly used codes with the same entropy. From 1 to K; 0-d."""
    xp = array_module(counts)
    p = counts / counts.sum()
    return xp.exp(-(p * xp.log(xp.maximum(p, 1e-30))).sum())  # 0 log 0 = 0


class Codebook(Layer):
    """e = W_c, c = argmin_k ‖z - W_k‖².      dW = one_hot(c)ᵀ de, a product as in Embedding;   dz = 0.      z, e (B, n_dim)

    averaged: W is a buffer that `follow` moves, instead of a weight. If learn is true, backward stores what `follow` and
    `restart` need: n (K,), how many z chose each code, and pull (K, n_dim), the sum of their z - W_k.
    """

    def __init__(self, n_embeddings, n_dim, averaged=False):
        self.W = Weight((n_embeddings, n_dim), he, fan_in=n_dim, learned=not averaged)
        self.n = Weight((n_embeddings,), learned=False)
        self.used = Weight((n_embeddings,), learned=False)  # n, summed since the last restart
        self.averaged = averaged
        if averaged:
            self.N = Weight((n_embeddings,), ones, learned=False)  # the moving average of n
            self.pull = Weight((n_embeddings, n_dim), learned=False)

    def nearest(self, z):
        """The index c of the nearest code for each z (B, n_dim): (B,) integers. Of equally near codes it is the first."""
        xp, z, W = array_module(z), stop(z), stop(self.W)
        centre = W.mean(axis=0)  # taken from both, or far from 0 the difference below would drown in rounding
        W = W - centre
        half = 0.5 * (W * W).sum(axis=1)  # ‖z - W_k‖² = ‖z‖² - 2 (z·W_k - ½ ‖W_k‖²), and ‖z‖² is the same for all k
        codes = []
        for i in range(0, max(1, len(z)), BLOCK):
            scores = matmul(z[i : i + BLOCK] - centre, W.T)
            scores -= half
            codes.append(scores.argmax(axis=1))
        return xp.concatenate(codes)

    def forward(self, z, rng):  # z (B, n_dim)
        check_width(self, z, self.W.shape[1])
        codes = self.nearest(z)  # (B,)
        e = self.W[codes]

        def backward(de, learn=True, inputs=True):  # de (B, n_dim)
            if learn:
                n, sums = sum_by_label(z - e if self.averaged else de, codes, len(self.W))
                self.n[...] = total(n)  # total: for several processes, nn/batch.py
                if self.averaged:
                    self.pull[...] = total(sums)
                else:
                    self.dW += sums
            if inputs:
                return array_module(z).zeros_like(z)

        return e, backward

    def follow(self, decay):
        """N_k ← γ N_k + (1-γ) n_k,   m_k ← γ m_k + (1-γ) Σ z,   W_k = m_k / N_k, with γ = decay and the last batch's z.

        van den Oord et al. 2017, appendix A.1. Because m_k = N_k W_k, m_k need not be stored: W_k ← W_k + (1-γ) Σ (z - W_k)
        / N_k. In this form a code that is not chosen does not move, even if its N_k is tiny. For the same purpose the
        authors' program smooths N (Laplace), but that pulls such codes towards 0.
        """
        self.N += (1 - decay) * (self.n - self.N)
        self.W += (1 - decay) * self.pull / array_module(self.N).maximum(self.N, 1e-6)[:, None]

    def restart(self, z, least, rng):
        """Move dead codes onto random rows of z (B, n_dim).

        A code is dead if, since the last restart, it was chosen less often than the fraction `least` of its fair share.
        """
        xp = array_module(z)
        dead = self.used < (least / len(self.W)) * self.used.sum()  # (K,)
        self.put(agreed(xp.where(dead[:, None], z[rng.integers(len(z), len(self.W))], self.W)))
        if self.averaged:
            self.N[...] = xp.where(dead, xp.ones_like(self.N), self.N)
        self.used.fill(0)

    def put(self, W):
        """Set the codes to the rows of W (K, n_dim)."""
        self.W[...] = W
        self.params.changed()

    @classmethod
    def example(cls, rng):
        return cls(4, 3), rng.normal((9, 3))
