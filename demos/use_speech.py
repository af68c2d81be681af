"""A diffusion model learns to say five vowels.

A voice is pulses of air that ring through the mouth; the resonances F1, F2, F3 decide which vowel is heard. The model
is told a word and makes the answer to one pulse. use_speech.wav plays real voices, made by formula, then generated
ones. Below: spectrograms, and F1 against F2 of all voices.

Try `--seed 1`. Read scratchgen/data/vowels.py, scratchgen/models/ddpm.py, scratchgen/metrics/formants.py.
"""

import wave

import numpy as np
from common import nearest, run, spread, train

from scratchgen.backend import to_host, written_whole
from scratchgen.data.vowels import FORMANTS, RATE, SIZE, WORDS, play, vowels
from scratchgen.metrics.formants import EMPHASIS, formants
from scratchgen.models.ddpm import DDPM
from scratchgen.plots import BLUE, GREY, INK, PAPER, RED, new_figure, save_figure

PITCHES, FRAME = (100, 120, 140, 160), 480  # in Hz; how many samples of a voice are measured, 60 ms
SECONDS, GAP = 0.45, 0.05  # of a word in use_speech.wav, and of silence after it


def measured(x):
    """F1, F2, F3 in Hz (N, 3) of voices made of x (N, SIZE), each at one of PITCHES in turn, once they are steady."""
    sounds = [play(one, np.full(2 * FRAME, PITCHES[i % len(PITCHES)])) for i, one in enumerate(x)]
    return np.array([formants(sound[FRAME:], RATE) for sound in sounds])


def summary(f, usual):
    """Mean and deviation (3,) of the formants f (N, 3) that were found, and how often F1 or F2 went wrong.

    Wrong is a formant that is missing, or more than 30 % off the usual one (3,): another one, taken for it.
    """
    found = np.isfinite(f)
    n, known = np.maximum(found.sum(axis=0), 1), np.where(found, f, 0)
    mean = known.sum(axis=0) / n
    right = np.abs(known / usual - 1)[:, :2] < 0.3
    return mean, np.sqrt((found * (known - mean) ** 2).sum(axis=0) / n), 1 - right.all(axis=1).mean()


def say(x):
    """A word: the voice of x (SIZE,), its pitch gliding from 120 to 145 and down to 95 Hz, then silence."""
    t = np.linspace(0, 1, round(SECONDS * RATE))
    sound = play(x, 120 + 25 * np.sin(1.5 * np.pi * t))
    sound *= np.minimum(1, 12 * np.minimum(t, 1 - t))
    return np.concatenate([sound / np.abs(sound).max(), np.zeros(round(GAP * RATE))])


def save_sound(sound, path):
    """Write a .wav of 16 bits, one channel, and print its path."""
    with written_whole(path) as file, wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((30_000 * sound / np.abs(sound).max()).astype("<i2").tobytes())
    print(path, flush=True)


def spectrogram(sound, window=80, hop=20, n=256):
    """Decibels below the loudest (n / 2 + 1, moments) of a sound (T,): windows of 10 ms, too short to part the harmonics."""
    sound = np.concatenate([[0], sound[1:] - EMPHASIS * sound[:-1]])
    windows = np.lib.stride_tricks.sliding_window_view(sound, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(windows, n, axis=1)).T ** 2
    return 10 * np.log10(power / power.max() + 1e-9)


def tracks(sound, hop=240):
    """Moments in seconds (M,) and F1 ... F3 (M, 3) along a sound, where it is loud enough."""
    starts = range(0, len(sound) - FRAME, hop)
    loud = [start for start in starts if np.abs(sound[start : start + FRAME]).reshape(4, -1).max(axis=1).min() > 0.1]
    moments = (np.array(loud) + FRAME / 2) / RATE
    return moments, np.array([formants(sound[start : start + FRAME], RATE) for start in loud])


def draw_answers(axis, real, made, word, names):
    t = 1000 * np.arange(SIZE) / RATE
    for x, height, colour in ((real, 1.1, GREY), (made, -1.1, BLUE)):
        axis.plot(t, height + 2 * x.T - 1, color=colour, linewidth=0.7, alpha=0.8)
    axis.set(ylim=(-2.2, 2.2), yticks=[1.1, -1.1], xlim=(0, 24))
    axis.set_yticklabels(names, rotation=90, va="center")
    axis.set_xlabel("time, ms", fontsize=8, labelpad=1)
    axis.tick_params(labelsize=8, left=False)
    axis.set_title(word, fontsize=10)


def draw_sound(axis, sound, title):
    axis.imshow(
        spectrogram(sound), origin="lower", aspect="auto", cmap="Greys", vmin=-50, vmax=-5,
        extent=(0, len(sound) / RATE, 0, RATE / 2000),
    )  # fmt: skip
    moments, f = tracks(sound)
    for column in f.T:
        axis.plot(moments, column / 1000, ".", color=RED, markersize=2.5)
    step = SECONDS + GAP
    axis.set(
        xticks=[step * (i + 0.45) for i in range(len(WORDS))], xticklabels=WORDS, ylabel="frequency, kHz", ylim=(0, 4)
    )
    axis.tick_params(axis="x", length=0)
    axis.set_title(title, fontsize=10)


def draw_chart(axis, real, made, labels):
    for k, word in enumerate(WORDS):
        for f, colour, name in ((real, GREY, "real"), (made, BLUE, "generated")):
            f1, f2, _ = f[labels == k].T
            axis.plot(f2, f1, ".", color=colour, markersize=3, alpha=0.6, label=name if k == 0 else None)
        f1, f2, _ = FORMANTS[word]
        axis.plot(f2, f1, "+", color=RED, markersize=12, markeredgewidth=2, label=None if k else "published mean, men")
        place = {"textcoords": "offset points", "bbox": {"color": PAPER, "alpha": 0.7, "pad": 1}}
        axis.annotate(word, (f2, f1), (8, 8), fontsize=10, color=INK, weight="bold", **place)
    axis.set(xlim=(2900, 500), ylim=(950, 180), xlabel="F2, Hz", ylabel="F1, Hz")
    axis.legend(fontsize=8, frameon=False, loc="lower left", markerscale=1.2)
    axis.set_title(f"{len(labels)} voices each, at {PITCHES[0]} to {PITCHES[-1]} Hz", fontsize=10)


def main(args):
    n = 50 if args.quick else 500
    data = vowels(2_000 if args.quick else 8_000, n, args.seed)
    model = DDPM(n_features=SIZE, n_classes=len(WORDS), conditional=True, predict="x0", width=256, eta=1.0)
    model, history = train(model, data, args, 9_000, x_test=None)
    rng = model.rng((args.seed, 0, 2))
    labels = data.labels_test
    x = to_host(model.generate(n, rng, rng.array(labels)))
    print(f"{len(history)} epochs in {sum(row['seconds'] for row in history):.0f} s")

    real, made = measured(data.x_test), measured(x)
    for k, word in enumerate(WORDS):
        means = {}
        for name, f, answers in (("real", real, data.x_test), ("generated", made, x)):
            means[name], deviation, wrong = summary(f[labels == k], FORMANTS[word])
            each = "  ".join(f"F{i + 1} {m:4.0f} ± {s:3.0f} Hz" for i, (m, s) in enumerate(zip(means[name], deviation)))
            apart = spread(answers[labels == k])
            print(f"{word:>5}, {name:9}: {each}; F1 or F2 wrong in {wrong:.1%}; answers {apart:.2f} apart")
        print(f"{'off by':>17}: " + "  ".join(f"{off:+17.1%}" for off in means["generated"] / means["real"] - 1))
    near = [nearest(part, data.x_train).mean() for part in (x, data.x_test)]
    print(f"distance to the nearest training example {near[0]:.2f}, of test examples {near[1]:.2f}")

    rows = [np.flatnonzero(labels == k) for k in range(len(WORDS))]
    sounds = [np.concatenate([say(part[which[0]]) for which in rows]) for part in (data.x_test, x)]
    save_sound(np.concatenate([sounds[0], np.zeros(RATE // 4), sounds[1]]), args.out / "use_speech.wav")
    figure, axes = new_figure(12.4, 8.3, 2, 1, height_ratios=[1, 2.1])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    for place, of_word, word in zip(above.subgridspec(1, len(WORDS)), rows, WORDS):
        names = ["real", "generated"] if word == WORDS[0] else ["", ""]
        draw_answers(figure.add_subplot(place), data.x_test[of_word[:6]], x[of_word[:6]], word, names)
    grid = below.subgridspec(2, 2, width_ratios=[1, 0.9])
    draw_sound(figure.add_subplot(grid[0, 0]), sounds[0], "real; dots: F1, F2 and F3, measured by linear prediction")
    draw_sound(figure.add_subplot(grid[1, 0]), sounds[1], "generated")
    draw_chart(figure.add_subplot(grid[:, 1]), real, made, labels)
    save_figure(figure, args.out / "use_speech.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data",))
