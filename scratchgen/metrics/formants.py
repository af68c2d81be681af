"""The formants of a sound by linear prediction: the resonances of a filter that could have produced it.

    x_t ≈ -Σ a_i x_t-i, i = 1 ... order, with the least squared error;     1 / (1 + Σ a_i z⁻ⁱ) is then the filter.

Its poles r exp(±iω) are resonances at F = ω rate / 2π, of bandwidth -log r · rate / π (Atal & Hanauer 1971). The
coefficients come from the autocorrelation method (Markel & Gray 1976): for a windowed sound the normal equations are
Toeplitz, and the recursion of Levinson and Durbin solves them in order² steps. A voice has no energy between two harmonics.
So a measured formant lies too close to the nearest harmonic, and more so at a higher pitch. Compare sounds of equal pitch.
"""

import math

import numpy as np

from ..backend import to_host

EMPHASIS = 0.97  # x_t - 0.97 x_t-1 removes the slope of a voice's spectrum, which is not a resonance
WIDEST, LOWEST = 400.0, 90.0  # in Hz: a pole that is wider or lower is not a formant


def autocorrelation(x, order):
    """r_i = Σ_t x_t x_t+i for i = 0 ... order, (order + 1,), of x (T,)."""
    return np.array([x[: len(x) - i] @ x[i:] for i in range(order + 1)])


def levinson(r):
    """a (order + 1,) with a_0 = 1 and Σ_j r_|i-j| a_j = 0 for i = 1 ... order, and the squared error that remains.

    Each step raises the order by one. It adds k times the coefficients in reverse order to the coefficients (Durbin 1960). k
    is minus the correlation of the errors of forward and backward prediction. r (order + 1,). Raises ValueError if r_0 is
    not positive, as for a silent sound.
    """
    if not r[0] > 0:
        raise ValueError(f"levinson: the sound has energy {r[0]:g}; it must be positive")
    a, error = np.zeros(len(r)), r[0]
    a[0] = 1
    for i in range(1, len(r)):
        k = -(a[:i] @ r[i:0:-1]) / error
        a[: i + 1] += k * a[: i + 1][::-1]
        error *= 1 - k * k
    return a, error


def resonances(a, rate):
    """Frequencies and bandwidths in Hz, both (n,), of the pole pairs of 1 / Σ a_i z⁻ⁱ, lowest first. a (order + 1,)."""
    poles = np.roots(a)
    poles = poles[poles.imag > 0]
    order = np.argsort(np.angle(poles))
    frequencies, bandwidths = np.angle(poles) * rate / (2 * math.pi), -np.log(np.abs(poles)) * rate / math.pi
    return frequencies[order], bandwidths[order]


def formants(sound, rate, order=10, n=3):
    """The lowest n formants in Hz, (n,), of a sound (T,) at `rate` samples per second; nan if not found.

    order: two for each formant up to rate / 2, plus two. T: a few periods of the voice, 30 to 60 ms, in which it does not
    change. Raises ValueError for a sound that has another shape, is too short or silent, or is not finite.
    """
    x = to_host(sound).astype(np.float64)
    if x.ndim != 1 or len(x) <= 2 * order:
        raise ValueError(f"formants: a sound of shape {x.shape}, expected (T,) with T > 2 order = {2 * order}")
    if not np.isfinite(x).all():
        raise ValueError("formants: the sound is not finite")
    x = (x[1:] - EMPHASIS * x[:-1]) * np.hamming(len(x) - 1)
    frequencies, bandwidths = resonances(levinson(autocorrelation(x, order))[0], rate)
    found = frequencies[(frequencies > LOWEST) & (bandwidths < WIDEST)][:n]
    return np.concatenate([found, np.full(n - len(found), np.nan)])
