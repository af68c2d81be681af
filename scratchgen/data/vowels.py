"""Vowels from formulas: the sound that leaves the lips after one pulse of air from the throat, with published resonances.

A voice is about a hundred pulses of air per second, which excite the resonances of the mouth, the formants. The formants
decide which vowel we hear (source and filter: Fant 1960). Here the pulse is that of Klatt & Klatt 1990 (KLGLOTT88), and the
mouth is a chain of resonators (Klatt 1980, eq 1 and 2). The formants are the means for men in Peterson & Barney 1952.

    flow u² - u³, u from 0 to 1 while the throat is open;     y_t = A x_t + B y_t-1 + C y_t-2,  C = -exp(-2π b / rate),
                                                              B = 2 exp(-π b / rate) cos(2π F / rate),  A = 1 - B - C

An example is the response to one pulse, SIZE numbers. All of this is linear. So the sum of shifted responses, one for each
pulse, is the voice itself, at any pitch, constant or changing. play computes this sum.
"""

import numpy as np

from ..backend import Rng, to_host
from . import Data

RATE, SIZE = 8_000, 192  # samples per second, and per example: 24 ms
CLOSED = 40  # the sample at which the throat closes and the resonance starts
FADE = 32  # samples at the end over which an example fades to silence, so that the cut makes no click
EMPHASIS = 0.8  # examples are x_t - 0.8 x_t-1 of the sound, so that high formants, up to 40 dB weaker, count

FORMANTS = {  # F1, F2, F3 in Hz for each word: Peterson & Barney 1952, table II, men
    "heed": (270, 2290, 3010),
    "hid": (390, 1990, 2550),
    "head": (530, 1840, 2480),
    "had": (660, 1720, 2410),
    "hod": (730, 1090, 2440),
    "hawed": (570, 840, 2410),
    "hood": (440, 1020, 2240),
    "who'd": (300, 870, 2240),
    "hud": (640, 1190, 2390),
    "heard": (490, 1350, 1690),
}
FOURTH, BANDWIDTHS = 3300, (50, 70, 110, 250)  # F4, and the bandwidths b of F1 ... F4, in Hz: Klatt 1980, table I
WORDS = ("heed", "head", "hod", "hawed", "who'd")  # the five vowels made here, in the order of their labels


def pulses(seconds, size=SIZE, closed=CLOSED):
    """The slope of the flow of n pulses, (n, size), that last `seconds` (n,) and end at the sample `closed`.

    The lips radiate the slope of the flow (+6 dB per octave). So this returns the slope 2 u - 3 u², not the flow itself.
    """
    u = 1 + (np.arange(size) - closed) / (RATE * np.asarray(seconds)[:, None])  # 0 as the throat opens, 1 as it closes
    return np.where((u > 0) & (u <= 1), 2 * u - 3 * u * u, 0.0)


def resonate(x, frequency, bandwidth):
    """Sounds x (n, T), each after a resonator of its frequency (n,) and this bandwidth, in Hz. The gain is 1 at 0 Hz."""
    C = -np.exp(-2 * np.pi * bandwidth / RATE)
    B = 2 * np.exp(-np.pi * bandwidth / RATE) * np.cos(2 * np.pi * np.asarray(frequency) / RATE)  # (n,)
    A, y = 1 - B - C, np.zeros_like(x)
    for t in range(x.shape[1]):
        y[:, t] = A * x[:, t] + B * y[:, t - 1] + C * y[:, t - 2]  # y[:, -1] and y[:, -2] are still 0 where t is 0 or 1
    return y


def speakers(words, rng):
    """Formants F1 ... F4 in Hz (n, 4) of n speakers who say these words, and how long their throats are open, seconds (n,).

    A mouth is up to a tenth longer or shorter than the mean, which moves all its formants together. In addition, each of the
    first three varies by 3 %. The throat is open for 3 to 5 ms.
    """
    n = len(words)
    formants = np.array([(*FORMANTS[word], FOURTH) for word in words], np.float64)
    formants[:, :3] *= np.exp(0.03 * rng.normal((n, 3)))
    return formants * (0.9 + 0.2 * rng.uniform((n, 1))), 0.003 + 0.002 * rng.uniform(n)


def respond(formants, seconds):
    """Examples (n, SIZE): responses of mouths (n, 4) to pulses (n,). 0.5 is silence; the peak of each is at 0 or 1."""
    x = pulses(seconds)
    x[:, 1:] -= EMPHASIS * x[:, :-1]
    for frequency, bandwidth in zip(formants.T, BANDWIDTHS):
        x = resonate(x, frequency, bandwidth)
    x[:, -FADE:] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, FADE + 1) / FADE)
    return (0.5 + 0.5 * x / np.abs(x).max(axis=1, keepdims=True)).astype(np.float32)


def vowels(n_train=8_000, n_test=1_000, seed=0):
    """A Data of responses to a pulse, (N, SIZE) in [0, 1]. Labels are indices of WORDS. Each seed gives other speakers."""
    parts = []
    for part, n in enumerate((n_train, n_test)):
        rng = Rng((seed, 0x766F77, part), "float64")  # a stream that training does not use, as for the toys
        labels = rng.integers(len(WORDS), n)
        parts.append((respond(*speakers([WORDS[k] for k in labels], rng)), labels))
    (x_train, labels_train), (x_test, labels_test) = parts
    return Data("vowels", x_train, x_test, labels_train, labels_test)


def play(x, pitch):
    """The sound (T,) of the example x (SIZE,) at a pitch (T,), in pulses per second. Its peak is not normalised.

    Pulses start between samples: each response is shifted there by rotating the phases of its Fourier series.
    """
    pitch = np.asarray(pitch, np.float64)
    n, phase = 2 * SIZE, np.cumsum(pitch) / RATE  # phase: how many pulses so far
    spectrum = np.fft.rfft(2 * to_host(x).astype(np.float64) - 1, n)
    sound = np.zeros(len(pitch) + n)
    for start in np.interp(np.arange(1, np.floor(phase[-1]) + 1), phase, np.arange(len(phase))):
        whole = int(start)
        turned = spectrum * np.exp(-2j * np.pi * np.arange(n // 2 + 1) * (start - whole) / n)
        sound[whole : whole + n] += np.fft.irfft(turned, n)
    for t in range(1, len(pitch)):
        sound[t] += EMPHASIS * sound[t - 1]  # undoes the emphasis
    return sound[: len(pitch)]
