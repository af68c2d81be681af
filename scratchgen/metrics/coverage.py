"""Mode coverage: how many modes of a known mixture a model generates, how accurately, and how evenly.

It follows PacGAN (Lin et al. 2018, arXiv:1712.04086, section 4.1), so that results can be compared with its tables. A
generator's loss does not show a lost mode: it is a mean over what G generates, and says nothing about what G leaves out.
"""

import math

import numpy as np

from ..backend import to_host

REACH = 3  # in units of σ


def coverage(x, centres, sigma):
    """Mode coverage of samples x (N, D), 2,500 of them in PacGAN, against a mixture's centres (K, D) of one sigma.

    A sample is of high quality if it lies within 3σ (Euclidean) of the mode nearest to it. Returns a dict of plain numbers:
    modes: how many modes have at least one sample of high quality; high_quality: the samples' fraction, 0 to 1; reverse_kl:
    KL(h ‖ uniform) = Σ_k h_k log(K h_k) = log K - H(h), in nats, where h is the fraction of the samples of high quality that
    lies at each mode. It is 0 for even modes and log K for a single one. The reference is uniform, as in PacGAN, for any
    weights of the mixture.

    If no sample is of high quality, h does not exist. reverse_kl is then log K, its worst value, so that curves and tables
    need no exception. A sample that is nan is not of high quality. For real data, high_quality is expected_quality(D), and
    reverse_kl is not 0: it is about (K - 1) / 2N if the weights are equal. Raises ValueError for other shapes or no samples.
    """
    x, centres = to_host(x).astype(np.float64), to_host(centres).astype(np.float64)
    if x.ndim != 2 or centres.ndim != 2 or x.shape[1] != centres.shape[1] or not len(x) or not len(centres):
        raise ValueError(f"coverage: x has shape {x.shape} and centres {centres.shape}; expected (N, D) and (K, D)")
    n_modes = len(centres)
    distances = np.stack([np.linalg.norm(x - c, axis=1) for c in centres], axis=1)  # (N, K)
    good = distances.min(axis=1) <= REACH * sigma  # (N,)
    counts = np.bincount(distances[good].argmin(axis=1), minlength=n_modes)  # (K,)
    h = counts[counts > 0] / max(1, good.sum())  # 0 log 0 = 0
    return {
        "modes": len(h),
        "high_quality": float(good.mean()),
        "reverse_kl": max(0.0, float((h * np.log(n_modes * h)).sum())) if len(h) else math.log(n_modes),
    }


def expected_quality(n_dim):
    """The high_quality of real data: P(‖ε‖ <= 3), ε ~ N(0, I) in n_dim dimensions, if modes are 6σ apart or more.

    ‖ε‖² is chi-square, so this is the incomplete gamma function P(a, t) = Σ_k t^(a+k) e^-t / Γ(a + k + 1), a = n_dim / 2,
    t = 9/2: erf(3/√2) = 99.7 % in 1-D, 1 - exp(-9/2) = 98.9 % in 2-D, 97.1 % in 3-D. A model with a higher value
    is not better than the data: it is narrower.
    """
    a, t = n_dim / 2, REACH**2 / 2
    return math.fsum(math.exp((a + k) * math.log(t) - t - math.lgamma(a + k + 1)) for k in range(64))
