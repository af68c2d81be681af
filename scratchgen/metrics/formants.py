"""The formants of a sound, by linear prediction: the resonances of the filter that it could have come through.

    x_t ≈ -Σ a_i x_t-i, i = 1 ... order, with the least squared error;     1 / (1 + Σ a_i z⁻ⁱ) is then the filter.

Its poles r exp(±iω) are resonances at F = ω rate / 2π, of bandwidth -log r · rate / π. Atal & Hanauer 1971; the coefficients
by the autocorrelation method (Markel & Gray 1976): of a windowed sound the normal equations are Toeplitz, and Levinson's and
Durbin's recursion solves them in order² steps. Between two harmonics of a voice there is nothing to see: a formant is drawn
towards the harmonic nearest to it, the more so the higher the pitch. So compare sounds of one pitch.
"""

import math

import numpy as np

from ..backend import to_host

EMPHASIS = 0.97  # x_t - 0.97 x_t-1 takes off the fall of a voice's spectrum, which is no resonance
WIDEST, LOWEST = 400.0, 90.0  # in Hz: a pole that is wider, or lower, is not taken for a formant


def autocorrelation(x, order):
    """r_i = Σ_t x_t x_t+i for i = 0 ... order, (order + 1,), of x (T,)."""
    return np.array([x[: len(x) - i] @ x[i:] for i in range(order + 1)])


def levinson(r):
    """a (order + 1,) with a_0 = 1 and Σ_j r_|i-j| a_j = 0 for i = 1 ... order, and the squared error that stays.

    Order after order: the coefficients so far, and k times the same in reverse. Durbin 1960; k is minus the correlation of
    what is left over before and after. r (order + 1,). Raises ValueError where r_0 is not positive: a silent sound.
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
    """Frequencies and bandwidths in Hz, both (n,), the lowest first, of the pole pairs of 1 / Σ a_i z⁻ⁱ; a (order + 1,)."""
    poles = np.roots(a)
    poles = poles[poles.imag > 0]
    order = np.argsort(np.angle(poles))
    frequencies, bandwidths = np.angle(poles) * rate / (2 * math.pi), -np.log(np.abs(poles)) * rate / math.pi
    return frequencies[order], bandwidths[order]


def formants(sound, rate, order=10, n=3):
    """The lowest n formants in Hz, (n,), of a sound (T,) at `rate` samples a second; nan for those that are not found.

    order: two for each formant up to rate / 2, and two more. T: some periods of the voice, 30 to 60 ms, in which it does not
    change. Raises ValueError for a sound of another shape, one too short or silent, or one that is not finite.
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
