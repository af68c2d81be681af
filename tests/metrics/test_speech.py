"""Vowels by formula and their formants by linear prediction: each is held to what the other, or algebra, says."""

import numpy as np
import pytest

from scratchgen import Rng
from scratchgen.data import vowels as speech
from scratchgen.data.vowels import BANDWIDTHS, FORMANTS, FOURTH, RATE, SIZE, WORDS, play, pulses, resonate, respond
from scratchgen.metrics.formants import autocorrelation, formants, levinson, resonances
from scratchgen.models.ddpm import DDPM
from scratchgen.train.fit import fit

PUBLISHED = np.array([(*FORMANTS[word], FOURTH) for word in WORDS], np.float64)
OPEN = np.full(len(WORDS), 0.004)  # seconds


def cascade(x, frequencies, bandwidths=BANDWIDTHS):
    for frequency, bandwidth in zip(frequencies, bandwidths):
        x = resonate(x, np.array([frequency]), bandwidth)
    return x


# ---- linear prediction ----


def test_levinson_solves_the_normal_equations():
    r = autocorrelation(Rng(1, "float64").normal(200), 12)
    a, error = levinson(r)
    toeplitz = r[np.abs(np.subtract.outer(np.arange(12), np.arange(12)))]
    np.testing.assert_allclose(a[1:], np.linalg.solve(toeplitz, -r[1:]), atol=1e-12)
    assert a[0] == 1 and error == pytest.approx(a @ r)
    with pytest.raises(ValueError, match="energy 0; it must be positive"):
        levinson(np.zeros(4))


def test_autocorrelation_by_definition():
    np.testing.assert_allclose(autocorrelation(np.array([1.0, 2, 3]), 2), [14, 8, 3])


def test_the_poles_of_a_known_filter_are_found_exactly():
    """The answer of resonators to one sample is the sound of an all-pole filter: prediction leaves nothing but its start."""
    frequencies = (500, 1500, 2500, 3500)
    x = np.zeros((1, 2_000))
    x[0, 0] = 1
    a, _ = levinson(autocorrelation(cascade(x, frequencies)[0], 8))
    found, widths = resonances(a, RATE)
    np.testing.assert_allclose(found, frequencies, rtol=1e-6)
    np.testing.assert_allclose(widths, BANDWIDTHS, rtol=1e-4)


@pytest.mark.parametrize("k", range(len(WORDS)), ids=WORDS)
def test_formants_of_an_impulse_come_back_within_one_per_cent(k):
    x = np.zeros((1, 480))
    x[0, 0] = 1
    x = cascade(np.cumsum(x, axis=1) * 0.97 ** np.arange(480), PUBLISHED[k])[0]  # the emphasis takes this source off
    found = formants(np.concatenate([np.zeros(200), x]), RATE, order=8)  # no pole to spare for a source
    np.testing.assert_allclose(found, PUBLISHED[k, :3], rtol=0.01)


def test_formants_scale_with_the_rate_and_not_with_loudness():
    x = play(respond(PUBLISHED, OPEN)[1], np.full(960, 120))[480:]
    one = formants(x, RATE)
    np.testing.assert_allclose(formants(7 * x, RATE), one)
    np.testing.assert_allclose(formants(x.astype(np.float32), RATE), one, rtol=1e-3)
    np.testing.assert_allclose(formants(x, 2 * RATE)[:3], 2 * one)  # none of the three passes a bound on the way
    assert formants(x, RATE, n=2).shape == (2,)


def test_it_does_not_matter_where_a_frame_is_cut_out():
    for x in respond(PUBLISHED, OPEN):
        sound = play(x, np.full(960, 123))
        found = np.array([formants(sound[start : start + 400], RATE) for start in range(480, 560, 15)])
        assert (np.ptp(found, axis=0) < 0.002 * found.mean(axis=0)).all()  # without a window ten times as much


def test_a_hum_is_no_formant():
    t = np.arange(4_000) / RATE
    low, high = (formants(np.sin(2 * np.pi * hertz * t), RATE, order=2, n=1)[0] for hertz in (50, 300))
    assert np.isnan(low) and high == pytest.approx(300, rel=0.02)


def test_formants_that_are_not_there_are_nan():
    found = formants(cascade(Rng(3, "float64").normal((1, 4_000)), [1_000], [50])[0], RATE, order=2)
    assert found[0] == pytest.approx(1_000, rel=0.1) and np.isnan(found[1:]).all()


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (np.zeros((2, 500)), r"\(2, 500\), expected \(T,\)"),
        (np.ones(20), "T > 2 order = 20"),
        (np.zeros(500), "must be positive"),
        (np.full(500, np.nan), "not finite"),
    ],
)
def test_sounds_without_formants_are_refused(sound, words):
    with pytest.raises(ValueError, match=words):
        formants(sound, RATE)


# ---- the vowels ----


def test_a_resonator_has_the_response_of_its_formula():
    """Klatt 1980, eq 2: A / (1 - B z⁻¹ - C z⁻²), 1 at 0 Hz, and largest near its frequency."""
    x = np.zeros((1, 8_000))
    x[0, 0] = 1
    f = np.arange(4_001)
    response = np.fft.rfft(resonate(x, np.array([700.0]), 60)[0])
    pole = np.exp((-np.pi * 60 + 2j * np.pi * 700) / RATE)
    z = np.exp(-2j * np.pi * f / RATE)
    wanted = abs(1 - pole) ** 2 / ((1 - pole * z) * (1 - pole.conj() * z))
    np.testing.assert_allclose(response, wanted, atol=1e-9)
    assert abs(np.abs(response).argmax() - 700) < 5
    half = np.flatnonzero(np.abs(response) ** 2 > np.abs(response).max() ** 2 / 2)
    assert len(half) == pytest.approx(60, abs=2)  # the bandwidth: how far it reaches at half the power


def test_a_pulse_opens_and_closes_with_no_flow_left_over():
    slope = pulses(np.array([0.003, 0.005]), size=60, closed=45)
    assert (slope[:, 46:] == 0).all() and (slope[0, :20] == 0).all() and slope[:, 45].max() == -1
    flow = slope.cumsum(axis=1)
    peak = 45 - RATE * np.array([0.003, 0.005]) / 3  # u = 2/3
    assert (np.abs(flow.argmax(axis=1) - peak) <= 1).all()
    np.testing.assert_allclose(flow.max(axis=1), RATE * np.array([0.003, 0.005]) * 4 / 27, rtol=0.05)
    np.testing.assert_allclose(flow[:, -1], -0.5, atol=0.1)  # 0, but that a sum counts the last slope, -1, whole


def test_the_published_means_are_those_of_the_paper():
    first = [270, 390, 530, 660, 730, 570, 440, 300, 640, 490]
    second = [2290, 1990, 1840, 1720, 1090, 840, 1020, 870, 1190, 1350]
    third = [3010, 2550, 2480, 2410, 2440, 2410, 2240, 2240, 2390, 1690]
    words = ["heed", "hid", "head", "had", "hod", "hawed", "hood", "who'd", "hud", "heard"]
    assert dict(zip(words, zip(first, second, third))) == FORMANTS
    assert WORDS == ("heed", "head", "hod", "hawed", "who'd")
    assert (FOURTH, BANDWIDTHS) == (3300, (50, 70, 110, 250))
    assert all(f1 < f2 < f3 < FOURTH for f1, f2, f3 in FORMANTS.values())


def test_the_data_are_rows_in_0_to_1_with_silence_between():
    data = speech.vowels(300, 100, seed=3)
    assert data.x_train.shape == (300, SIZE) and data.x_test.shape == (100, SIZE) and data.x_train.dtype == np.float32
    assert data.n_classes == len(WORDS) == 5 and np.bincount(data.labels_train).min() > 30
    swing = np.abs(2 * data.x_train - 1)
    np.testing.assert_allclose(swing.max(axis=1), 1, atol=1e-6)
    assert swing[:, -1].max() < 1e-6 and swing[:, 0].max() < 0.1
    again, other = speech.vowels(300, 100, seed=3), speech.vowels(300, 100, seed=4)
    np.testing.assert_array_equal(again.x_train, data.x_train)
    assert not np.isin(other.x_train[:, 60], data.x_train[:, 60]).any()
    equal = speech.vowels(50, 50)
    assert not np.isin(equal.x_test[:, 60], equal.x_train[:, 60]).any()


def test_speakers_differ_as_much_as_said():
    drawn, seconds = speech.speakers(["hod"] * 20_000, Rng(5, "float64"))
    log = np.log(drawn / np.array([*FORMANTS["hod"], FOURTH]))
    mouth = np.exp(log[:, 3])  # its length alone
    assert 0.9 <= mouth.min() < 0.901 and 1.099 < mouth.max() <= 1.1
    np.testing.assert_allclose((log[:, :3] - log[:, 3:]).std(axis=0), 0.03, rtol=0.05)
    assert 0.003 <= seconds.min() < 0.0031 and 0.0049 < seconds.max() <= 0.005


@pytest.mark.parametrize("period", [50, 80])
def test_answers_laid_over_one_another_are_the_voice(period):
    """Against the resonators fed with the whole train of pulses: 5 % apart, what is cut off an answer's end."""
    n, steady = 1_600, slice(800, 1_500)
    train = np.zeros((len(WORDS), n))
    for start in range(0, n - 50, period):
        train[:, start : start + 50] += pulses(OPEN, size=50)
    for frequency, bandwidth in zip(PUBLISHED.T, BANDWIDTHS):
        train = resonate(train, frequency, bandwidth)
    for x, whole in zip(respond(PUBLISHED, OPEN), train):
        voice = play(x, np.full(n + period, RATE / period))[period - 1 :]  # the first pulse comes after one period
        a, b = voice[steady] / np.linalg.norm(voice[steady]), whole[steady] / np.linalg.norm(whole[steady])
        assert np.linalg.norm(a - b) < 0.06
        np.testing.assert_allclose(formants(voice[steady], RATE), formants(whole[steady], RATE), rtol=0.02)


def test_a_voice_has_the_pitch_asked_for_even_between_samples():
    voice = play(respond(PUBLISHED, OPEN)[2], np.full(RATE, 123.4))
    power = np.abs(np.fft.rfft(voice * np.hanning(RATE))) ** 2
    harmonics = 123.4 * np.arange(1, 20)
    near = np.concatenate([np.arange(round(h) - 3, round(h) + 4) for h in harmonics])
    assert power[near].sum() > 0.9999 * power[: round(harmonics[-1]) + 4][60:].sum()  # nothing between the harmonics


def test_a_gliding_voice_has_as_many_pulses_as_its_pitch_says():
    click = np.full(SIZE, 0.5)
    click[speech.CLOSED] = 1.0
    seconds = np.linspace(0, 1, RATE)
    voice = play(click, 90 + 90 * seconds)
    for end in (0.25, 0.5, 0.9):  # a click sums to 1 / (1 - EMPHASIS), and comes CLOSED samples after its pulse begins
        heard = voice[: round(end * RATE)].sum() * (1 - speech.EMPHASIS)
        t = end - speech.CLOSED / RATE
        assert heard == pytest.approx(90 * t + 45 * t * t, abs=1.1)


def test_a_gliding_voice_has_no_click_at_a_joint():
    x = respond(PUBLISHED, OPEN)[0]
    glide, high = (np.abs(np.diff(play(x, pitch))).max() for pitch in (np.linspace(90, 180, RATE), np.full(RATE, 180)))
    assert glide < 1.2 * high


@pytest.mark.parametrize("k", range(len(WORDS)), ids=WORDS)
def test_the_formants_of_a_voice_are_those_it_was_made_with(k):
    """F1 within 8 %, since a harmonic lies up to half a pitch away from it, the others within 4 %."""
    x = respond(PUBLISHED, OPEN)[k]
    found = np.mean([formants(play(x, np.full(960, pitch))[480:], RATE) for pitch in (100, 120, 140, 160)], axis=0)
    assert (np.abs(found / PUBLISHED[k, :3] - 1) < [0.08, 0.04, 0.04]).all()


@pytest.mark.slow
def test_a_diffusion_model_learns_the_formants_of_the_word_it_is_told():
    data = speech.vowels(4_000, 200)
    model = DDPM(n_features=SIZE, n_classes=5, conditional=True, predict="x0", width=256, eta=1.0, decay_steps=32 * 62)
    fit(model.build(Rng(0)), data.x_train, labels=data.labels_train, epochs=32, progress=False)
    x = model.generate(200, Rng(1), data.labels_test)
    real, made = (
        np.array([formants(play(one, np.full(960, 120))[480:], RATE, n=2) for one in part]) for part in (data.x_test, x)
    )
    near = []
    for k in range(len(WORDS)):
        of_word = data.labels_test == k
        off = np.nanmedian(made[of_word], axis=0) / np.nanmedian(real[of_word], axis=0) - 1
        near.append((np.abs(off) < 0.1).all())
    assert sum(near) >= 4
