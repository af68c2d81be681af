"""Vowels by formula: what leaves the lips after one pulse of air from the throat, at resonances that were published.

A voice is pulses of air, some hundred a second, that ring through the mouth's resonances, the formants; these decide which
vowel is heard (source and filter: Fant 1960). Here the pulse is that of Klatt & Klatt 1990 (KLGLOTT88), the mouth a chain of
resonators after one another (Klatt 1980, eq 1 and 2), and the formants are the men's means of Peterson & Barney 1952.

    flow u² - u³, u from 0 to 1 while the throat is open;     y_t = A x_t + B y_t-1 + C y_t-2,  C = -exp(-2π b / rate),
                                                              B = 2 exp(-π b / rate) cos(2π F / rate),  A = 1 - B - C

An example is the answer to one pulse, SIZE numbers. As all of this is linear, answers laid over one another, one for each
pulse, are the voice itself, at any pitch, steady or gliding: play does that.
"""

import numpy as np

from ..backend import Rng, to_host
from . import Data

RATE, SIZE = 8_000, 192  # samples a second, and of an example: 24 ms
CLOSED = 40  # the sample at which the throat closes; there the ringing starts
FADE = 32  # over so many samples at the end an example fades to silence: what rings on is cut off, without a click
EMPHASIS = 0.8  # examples are x_t - 0.8 x_t-1 of the sound: high formants, up to 40 dB weaker, then count

FORMANTS = {  # F1, F2, F3 in Hz by the words read: Peterson & Barney 1952, table II, men
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
    """The rate of flow of pulses that last so long, (n,), and end at the sample `closed`: (n, size).

    The lips send out the slope of the flow (a radiation of +6 dB an octave), so it is the slope 2 u - 3 u² that is given.
    """
    u = 1 + (np.arange(size) - closed) / (RATE * np.asarray(seconds)[:, None])  # 0 as the throat opens, 1 as it closes
    return np.where((u > 0) & (u <= 1), 2 * u - 3 * u * u, 0.0)


def resonate(x, frequency, bandwidth):
    """Sounds x (n, T) after one resonator each, of the frequency (n,) and the bandwidth in Hz; of gain 1 at 0 Hz."""
    C = -np.exp(-2 * np.pi * bandwidth / RATE)
    B = 2 * np.exp(-np.pi * bandwidth / RATE) * np.cos(2 * np.pi * np.asarray(frequency) / RATE)  # (n,)
    A, y = 1 - B - C, np.zeros_like(x)
    for t in range(x.shape[1]):
        y[:, t] = A * x[:, t] + B * y[:, t - 1] + C * y[:, t - 2]  # y[:, -1] and y[:, -2] are still 0 where t is 0 or 1
    return y


def speakers(words, rng):
    """Formants F1 ... F4 in Hz (n, 4) of n speakers who say these words, and how long their throats open, seconds (n,).

    A mouth is up to a tenth longer or shorter than the mean, which moves all its formants together; each of the first three
    varies by 3 % besides. The throat is open for 3 to 5 ms.
    """
    n = len(words)
    formants = np.array([(*FORMANTS[word], FOURTH) for word in words], np.float64)
    formants[:, :3] *= np.exp(0.03 * rng.normal((n, 3)))
    return formants * (0.9 + 0.2 * rng.uniform((n, 1))), 0.003 + 0.002 * rng.uniform(n)


def respond(formants, seconds):
    """Examples (n, SIZE) in [0, 1], 0.5 being silence, of unit peak: the answers of mouths (n, 4) to a pulse (n,) each."""
    x = pulses(seconds)
    x[:, 1:] -= EMPHASIS * x[:, :-1]
    for frequency, bandwidth in zip(formants.T, BANDWIDTHS):
        x = resonate(x, frequency, bandwidth)
    x[:, -FADE:] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, FADE + 1) / FADE)
    return (0.5 + 0.5 * x / np.abs(x).max(axis=1, keepdims=True)).astype(np.float32)


def vowels(n_train=8_000, n_test=1_000, seed=0):
    """A Data of answers to one pulse, (N, SIZE) in [0, 1], with labels that count in WORDS; other seeds, other speakers."""
    parts = []
    for part, n in enumerate((n_train, n_test)):
        rng = Rng((seed, 0x766F77, part), "float64")  # a stream apart from those of training, as the toys'
        labels = rng.integers(len(WORDS), n)
        parts.append((respond(*speakers([WORDS[k] for k in labels], rng)), labels))
    (x_train, labels_train), (x_test, labels_test) = parts
    return Data("vowels", x_train, x_test, labels_train, labels_test)


def play(x, pitch):
    """The sound (T,) of the example x (SIZE,) with pitch (T,), pulses a second at each of the T samples. Peak as it comes.

    Pulses fall between samples: each answer is moved there by turning the phases of its Fourier series.
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
        sound[t] += EMPHASIS * sound[t - 1]  # takes the emphasis back
    return sound[: len(pitch)]
