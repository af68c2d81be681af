"""What no gradient check sees in a diffusion model: the law of x_t, what each prediction means, guidance, scaling."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import TOYS, load
from scratchgen.metrics.divergences import sliced_wasserstein
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.models.parts.diffusion import SCHEDULES
from scratchgen.train.checkpoint import read_checkpoint
from scratchgen.train.fit import fit

F64 = "float64"
PREDICTIONS = ("eps", "v", "x0", "logits")


def tiny(dtype=F64, **settings):
    return DDPM.example(Rng((0, 1), dtype), **settings)


def given_for(predict):
    return {"predict": predict, "scaling": "pixels" if predict == "logits" else "standard"}


# ---- the way to noise ----


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_x_t_has_the_marginals_of_the_theory(schedule):
    """Of step after step x_t = √(1 - β) x_{t-1} + √β ε the law is that of one jump, which has the moments of eq 4."""
    model, _ = tiny(schedule=schedule, n_times=30, n_steps=10)
    a, n, rng = model.alpha_bar, 40_000, Rng(1, F64)
    x_0 = np.tile([[-1.0, 0.2, 0.7]], (n, 1))
    x = x_0
    for t in range(1, 31):
        alpha = a[t] / a[t - 1]
        x = math.sqrt(alpha) * x + math.sqrt(1 - alpha) * rng.normal(x.shape)
        jump = model.q_sample(x_0, np.full(n, t), rng.normal(x.shape))
        for x_t in (x, jump):
            assert np.abs(x_t.mean(axis=0) - math.sqrt(a[t]) * x_0[0]).max() < 5 * math.sqrt((1 - a[t]) / n)
            np.testing.assert_allclose(x_t.var(axis=0), 1 - a[t], rtol=6 * math.sqrt(2 / n))


def test_each_row_has_a_time_of_its_own():
    model, _ = tiny()
    x_0, eps = Rng(1, F64).normal((4, 6)), Rng(2, F64).normal((4, 6))
    together = model.q_sample(x_0, np.array([0, 3, 8, 5]), eps)
    for i, t in enumerate((0, 3, 8, 5)):
        a = model.alpha_bar[t]
        np.testing.assert_allclose(together[i], math.sqrt(a) * x_0[i] + math.sqrt(1 - a) * eps[i])
    assert (together[0] == x_0[0]).all()


def what_the_network_sees(model, x, rng, **given):
    """The inputs of the network in one evaluation of the loss."""
    seen, forward = [], model.denoiser.forward
    model.denoiser.forward = lambda inputs, rng: seen.append(inputs) or forward(inputs, rng)
    model.loss(x, rng, **given)
    del model.denoiser.forward
    return seen[0]


def test_training_draws_every_time_alike_and_noises_as_it_says():
    model, _ = tiny(n_times=5, n_steps=5)
    x = np.ones((50_000, 6))
    x_t, t = what_the_network_sees(model, x, Rng(3, F64))
    shares = np.bincount(t, minlength=6) / len(t)
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:], 0.2, atol=5 * math.sqrt(0.16 / len(t)))
    for time in range(1, 6):
        rows, a = x_t[t == time], model.alpha_bar[time]
        assert rows.mean() == pytest.approx(math.sqrt(a), abs=0.02)  # a white picture: x_0 = 1 everywhere
        assert rows.var() == pytest.approx(1 - a, rel=0.03)


# ---- what the network predicts ----


@pytest.mark.parametrize("predict", PREDICTIONS)
@given(seed=st.integers(0, 10_000))
def test_the_true_prediction_gives_the_true_x_0(predict, seed):
    model, _ = tiny(**given_for(predict), n_times=20)
    rng = Rng((seed, 1), F64)
    t = 1 + int(rng.integers(20, 1)[0])
    a = model.alpha_bar[t]
    pixels, eps = 0.05 + 0.9 * rng.uniform((3, 6)), rng.normal((3, 6))
    x_0 = 2 * pixels - 1
    x_t = model.q_sample(x_0, np.full(3, t), eps)
    f = {
        "eps": eps,
        "v": math.sqrt(a) * eps - math.sqrt(1 - a) * x_0,
        "x0": x_0,
        "logits": np.log(pixels / (1 - pixels)),
    }
    np.testing.assert_allclose(model.x_0(f[predict], x_t, t), x_0, atol=1e-10 / math.sqrt(a))


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_loss_is_least_for_the_true_prediction(predict):
    """A network that knows x_0: no error is left, or of pixels their entropy."""
    model, batch = tiny(**given_for(predict), n_times=20)
    x, forward = batch["x"], model.denoiser.forward
    x_0 = model.scaler(x)

    def knows(inputs, rng):
        x_t, t = inputs
        a = model.alpha_bar[t][:, None]
        eps = (x_t - np.sqrt(a) * x_0) / np.sqrt(1 - a)
        true = {"eps": eps, "v": np.sqrt(a) * eps - np.sqrt(1 - a) * x_0, "x0": x_0, "logits": np.log(x / (1 - x))}
        return true[predict], forward(inputs, rng)[1]

    model.denoiser.forward = knows
    entropy = -(x * np.log(x) + (1 - x) * np.log(1 - x)).sum(axis=1).mean()
    for seed in range(3):
        found = float(model.loss(x, Rng(seed, F64))["loss"])
        assert found == pytest.approx(entropy if predict == "logits" else 0, abs=1e-12)


def test_the_tests_loss_is_by_the_averaged_weights():
    model, batch = tiny()
    model.average.average[...] = 0
    assert model.params.theta.any()
    found = float(model.evaluate(batch["x"], Rng(1, F64))["loss"])
    assert found == pytest.approx(6 * math.log(2))  # logits of 0


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_loss_is_the_mean_square_of_its_target(predict):
    """Of a network that says 0: E‖ε‖², E‖v‖² and E‖x_0‖² are known, and logits of 0 cost log 2 a pixel."""
    model, _ = tiny(**given_for(predict), n_times=50)
    model.params.theta[...] = 0
    x = Rng(1, F64).uniform((20_000, 6))
    model.prepare(x, Rng(2, F64))
    wanted = {"eps": 6, "v": 6, "x0": 6, "logits": 6 * math.log(2)}[predict]  # standardised, x_0 has variance 1 too
    assert float(model.loss(x, Rng(3, F64))["loss"]) == pytest.approx(wanted, rel=0.02)


def test_an_error_of_eps_grows_without_bound_and_one_of_v_does_not():
    """Where ᾱ is near 0: why few steps of DDIM fail with a network that predicts the noise."""
    x_t, f = np.zeros((1, 6)), np.ones((1, 6))
    reach = {}
    for predict in ("eps", "v", "x0"):
        model, _ = tiny(predict=predict, scaling="standard", n_times=100)
        reach[predict] = [abs(float(model.x_0(f, x_t, t)[0, 0])) for t in (1, 50, 100)]
    assert reach["eps"][2] > 500 and max(reach["v"]) <= 1 and max(reach["x0"]) <= 1


# ---- sampling ----


def test_x_0_is_kept_within_the_data():
    model, _ = tiny(predict="eps", scaling="standard")
    x = np.array([[0.0, 5, 10, 1, 1, 1], [1, 7, 30, 2, 2, 2], [2, 9, 20, 3, 3, 3]])
    model.prepare(x, Rng(0))
    x_t = 50 * Rng(1, F64).normal((200, 6))
    found = model.scaler.undo(model.denoise(x_t, 8))
    assert np.allclose(found.min(axis=0), x.min(axis=0)) and np.allclose(found.max(axis=0), x.max(axis=0))
    free = model.denoise(x_t, 8, clip_x0=False)
    assert np.abs(free).max() > 100 * np.abs(model.denoise(x_t, 8)).max()


def test_numbers_of_any_size_are_brought_to_variance_one_and_back():
    model, _ = tiny(predict="v", scaling="standard")
    x = 1000 + np.array([1, 10, 100, 0.1, 5, 0]) * Rng(1, F64).normal((500, 6))  # the last column never changes
    model.prepare(x, Rng(0))
    x_0 = model.scaler(x)
    np.testing.assert_allclose(x_0.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x_0.std(axis=0), [1, 1, 1, 1, 1, 0], atol=1e-9)
    np.testing.assert_allclose(model.scaler.undo(x_0), x)


def test_guidance_goes_beyond_the_labels_own_prediction():
    model, _ = tiny(predict="v", scaling="standard", conditional=True)
    x_t, labels = Rng(1, F64).normal((3, 6)), np.array([0, 1, 2])
    free, told = model.denoise(x_t, 5, clip_x0=False), model.denoise(x_t, 5, labels, clip_x0=False)
    assert not np.allclose(free, told)
    for w in (0.0, 0.7, 3.0):
        guided = model.denoise(x_t, 5, labels, guidance=w, clip_x0=False)
        np.testing.assert_allclose(guided, told + w * (told - free), atol=1e-12)
    # In terms of the noise it is eq 6 of the paper, as ε̂ = (x_t - √ᾱ x̂_0) / √(1 - ᾱ) and the weights have the sum 1.
    a = model.alpha_bar[5]
    eps_free, eps_told, eps_guided = ((x_t - math.sqrt(a) * x) / math.sqrt(1 - a) for x in (free, told, guided))
    np.testing.assert_allclose(eps_guided, (1 + 3.0) * eps_told - 3.0 * eps_free, atol=1e-11)


def test_labels_are_withheld_now_and_then():
    model, _ = tiny(conditional=True, label_dropout=0.2)
    labels = Rng(1).integers(3, 10_000)
    _, _, shown = what_the_network_sees(model, np.zeros((10_000, 6)), Rng(2, F64), labels=labels)
    withheld = shown == 3  # the row of the table that means "any"
    assert withheld.mean() == pytest.approx(0.2, abs=0.02)
    assert (shown[~withheld] == labels[~withheld]).all()


def test_a_label_can_be_asked_for():
    model, _ = tiny(conditional=True, clip_x0=False)
    one, two, again = (model.sample(4, Rng(1, F64), label=k) for k in (1, 2, 1))
    assert (one == again).all() and not np.allclose(one, two)
    mixed = model.generate(4, Rng(1, F64), labels=np.array([1, 2, 1, 2]))
    np.testing.assert_allclose(mixed[::2], one[::2])
    np.testing.assert_allclose(mixed[1::2], two[1::2])


def test_samples_come_from_the_averaged_weights():
    model, _ = tiny()
    model.average.average[...] = 0
    assert model.params.theta.any()
    assert np.allclose(model.sample(4, Rng(1, F64)), 0.5)  # the sigmoid of 0
    kept = model.params.theta.copy()
    path = model.path(Rng(1, F64).normal((2, 6)), Rng(2, F64))
    next(path), next(path)
    assert (model.params.theta == kept).all()  # between two steps of a sampler the weights are the model's own


def test_a_path_takes_other_options_than_the_settings():
    model, _ = tiny(n_times=8, n_steps=4)
    x_T = Rng(1, F64).normal((2, 6))
    taken = [
        [t for t, _ in model.path(x_T, Rng(2, F64), **options)]
        for options in ({}, {"n_steps": 2}, {"sampler": "ancestral"}, {"n_steps": 8})
    ]
    assert taken == [[8, 6, 4, 2, 0], [8, 4, 0], list(range(8, -1, -1)), list(range(8, -1, -1))]
    with pytest.raises(ValueError, match="step; use one of ancestral_variance, clip_x0"):
        model.path(x_T, Rng(2), step=3)
    for options in (
        {"sampler": "ddpm"},
        {"ancestral_variance": "tilde"},
        {"n_steps": 9},
        {"eta": -1.0},
        {"guidance": 1.0},
    ):
        with pytest.raises(UsageError, match=f"^DDPM setting {next(iter(options))}: "):
            model.path(x_T, Rng(2), **options)


def test_labels_must_be_as_many_as_samples_and_known_to_the_model():
    told, plain = tiny(conditional=True)[0], tiny()[0]
    with pytest.raises(ValueError, match=r"x_T has shape \(4, 6\) and labels \(1,\)"):
        told.generate(4, Rng(1, F64), labels=np.array([1]))
    with pytest.raises(ValueError, match="trained without"):
        plain.generate(2, Rng(1, F64), labels=np.array([1, 2]))


def test_guidance_begins_after_a_part_of_the_way():
    model, _ = tiny(conditional=True, n_times=8)
    x_T, labels = Rng(1, F64).normal((3, 6)), np.array([0, 1, 2])
    options = {}, {"guidance": 2.0}, {"guidance": 2.0, "guidance_start": 0.5}
    plain, guided, later = (list(model.path(x_T, Rng(2, F64), labels, n_steps=8, **given)) for given in options)
    for (t, x), (_, y) in zip(plain, later):
        assert (x == y).all() == (t >= 4)  # the step from 4 to 3 is the first with guidance
    assert not np.allclose(plain[1][1], guided[1][1])


# ---- the guess of the step before ----


def test_a_step_gets_the_guess_of_the_step_before():
    model, _ = tiny(self_conditioning=True, conditional=True, n_times=8, n_steps=4)
    x_T, labels = Rng(1, F64).normal((5, 6)), np.array([0, 1, 2, 0, 1])
    path = list(model.path(x_T, Rng(2, F64), labels, n_steps=4))
    a, guess = model.alpha_bar, None
    for (t, x_t), (s, x_s) in itertools.pairwise(path):
        assert guess is None or not np.allclose(
            model.denoise(x_t, t, labels), model.denoise(x_t, t, labels, guess=guess)
        )
        guess = model.denoise(x_t, t, labels, guess=guess)
        eps = (x_t - math.sqrt(a[t]) * guess) / math.sqrt(1 - a[t])
        np.testing.assert_allclose(x_s, math.sqrt(a[s]) * guess + math.sqrt(1 - a[s]) * eps)  # DDIM with η = 0


def test_half_of_the_rows_are_trained_with_a_guess(monkeypatch):
    model, batch = tiny(self_conditioning=True, batch=7)
    forward, seen = model.denoiser.forward, []
    monkeypatch.setattr(model.denoiser, "forward", lambda inputs, rng=None: seen.append(inputs) or forward(inputs, rng))
    model.loss(**batch, rng=model.rng(1))
    (alone, t_alone), (x, t) = seen
    assert (alone[:, 6:] == 0).all() and (alone[:, :6] == x[:4, :6]).all() and (t_alone == t[:4]).all()
    first = 2 / (1 + np.exp(-model.denoiser((alone, t_alone)))) - 1  # by the latest weights, not by the averaged ones
    np.testing.assert_allclose(x[:4, 6:], first)
    assert (x[4:, 6:] == 0).all()


# ---- settings ----

OTHER = {
    "schedule": "linear", "predict": "x0", "n_times": 25, "n_waves": 6, "lr": 1e-2, "decay_steps": 3,
    "averaging": 0.3, "sampler": "ancestral", "n_steps": 2, "eta": 0.5, "ancestral_variance": "beta",
    "guidance": 1.0, "clip_x0": False, "self_conditioning": True, "guidance_start": 0.5,
    "label_dropout": 0.6, "conditional": True, "scaling": "standard", "levels": 3,
}  # fmt: skip
BESIDE = {
    "ancestral_variance": {"sampler": "ancestral"},
    "guidance": {"conditional": True},
    "guidance_start": {"conditional": True, "guidance": 2.0},
    "label_dropout": {"conditional": True},
}
BESIDE |= {"clip_x0": {"predict": "eps"}, "scaling": {"predict": "v"}, "levels": {"predict": "v"}}
ELSEWHERE = {"n_features", "n_classes", "width", "n_blocks", "batch"}  # the sizes of the network, and what fit minds


def after_four_steps(settings):
    model, batch = tiny(**settings)
    batch["x"] = (batch["x"] > 0.5).astype(float)
    for step in range(4):
        model.train_step(rng=model.rng(step), **batch)
    return model.sample(3, model.rng(9))


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    beside = BESIDE.get(setting, {})
    assert not np.array_equal(after_four_steps(beside), after_four_steps(beside | {setting: OTHER[setting]}))


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(DDPM)} - ELSEWHERE == OTHER.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_times": 20}, "n_steps: 50 steps are more than n_times=20; use n_steps=20"),
        ({"n_times": 10, "n_steps": 5, "schedule": "linear"}, "n_times: 10 .*schedule=linear"),
        ({"guidance": 1.0, "conditional": True, "label_dropout": 0.0}, "label_dropout > 0"),
        ({"eta": 1.5}, r"eta: .* >= 0 and <= 1, got 1\.5"),
        ({"scaling": "standard"}, "predict=v"),
        ({"guidance": 1.0}, "conditional=true"),
        ({"n_waves": 5}, "n_waves.*even.*5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(UsageError, match=f"^DDPM setting .*{message}"):
        DDPM(**settings)


def test_labels_that_are_missing_or_not_wanted_are_refused():
    model, batch = tiny("float32", conditional=True)
    with pytest.raises(UsageError, match="conditional=true needs labels"):
        fit(model, batch["x"], epochs=1, progress=False)
    with pytest.raises(UsageError, match=r"label 3: expected 0 \.\.\. 2"):
        model.sample(2, Rng(0), label=3)
    plain, batch = tiny("float32")
    with pytest.raises(UsageError, match="without labels"):
        plain.sample(2, Rng(0), label=1)
    fit(plain, batch["x"], labels=np.full(4, 7), epochs=1, progress=False)  # labels that it does not look at
    with pytest.raises(UsageError, match="scaling=standard predict=v"):
        fit(plain, batch["x"] - 3, epochs=1, progress=False)
    with pytest.raises(UsageError, match="give labels_test"):
        fit(model, batch["x"], labels=np.arange(4) % 3, x_test=batch["x"], epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"shape \(4, 1\), expected \(B, 6\)"):
        plain.loss(batch["x"][:, :1], Rng(0))


def test_how_it_samples_can_be_changed_after_training(tmp_path):
    out, small = str(tmp_path / "run"), ["width=16", "n_blocks=1", "n_waves=8", "n_times=20", "n_steps=5"]
    train = ["train", "ddpm", "--epochs", "1", "--out", out]
    assert main([*train, "--set", *small, "conditional=true"]) == 0
    arrays = read_checkpoint(tmp_path / "run" / "checkpoint.npz")[1]
    assert main([*train, "--resume", "--set", "guidance=2", "sampler=ancestral"]) == 0
    notes, after = read_checkpoint(tmp_path / "run" / "checkpoint.npz")
    assert notes["settings"]["guidance"] == 2 and notes["settings"]["sampler"] == "ancestral"
    assert all((after[name] == array).all() for name, array in arrays.items())
    assert main([*train, "--resume", "--set", "width=8"]) == 2


# ---- it learns ----

POINTS = {
    "scaling": "standard",
    "predict": "v",
    "n_times": 50,
    "n_steps": 20,
    "width": 48,
    "n_blocks": 2,
    "n_waves": 16,
}


def test_it_learns_two_modes_of_uneven_weight_on_any_scale():
    rng = Rng(1)
    modes = (rng.uniform((4000, 1)) < 0.3).astype(np.float32)
    x = 50 + 20 * modes + rng.normal((4000, 1))
    model = DDPM(n_features=1, batch=128, lr=3e-3, decay_steps=900, averaging=0.99, **POINTS).build(Rng(0))
    fit(model, x, epochs=30, progress=False)
    found = model.sample(4000, Rng(3))[:, 0]
    high = found > 60
    assert high.mean() == pytest.approx(0.3, abs=0.05)
    assert found[high].mean() == pytest.approx(70, abs=0.7) and found[~high].mean() == pytest.approx(50, abs=0.7)
    assert 0.5 < found[~high].std() < 2


def test_through_the_command_line(tmp_path):
    out = str(tmp_path / "run")
    small = ["width=16", "n_blocks=1", "n_waves=8", "n_times=20", "n_steps=5"]
    command = ["train", "ddpm", "--epochs", "1", "--out", out, "--set", "conditional=true", *small]
    assert main(command) == 0
    assert main(["sample", out, "-n", "3", "--label", "7", "-o", str(tmp_path / "x.npy")]) == 0
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (3, 64) and x.min() >= 0 and x.max() <= 1


@pytest.mark.slow
def test_points_in_the_plane():
    toy, data = TOYS["ring"], load("ring")
    settings = {
        "n_times": 100,
        "width": 128,
        "n_blocks": 3,
        "n_waves": 32,
        "batch": 256,
        "lr": 2e-3,
        "decay_steps": 2340,
    }
    model = DDPM(n_features=2, **POINTS | settings).build(Rng(0))
    fit(model, data.x_train, epochs=60, progress=False)
    scale = data.x_train.std(axis=0)

    def distance(x, seed):
        return sliced_wasserstein(x / scale, toy.sample(5000, Rng((seed, 2))) / scale, Rng(seed))

    floor = np.mean([distance(toy.sample(5000, Rng((seed, 1))), seed) for seed in range(10)])
    for limit, options in ((2, {"sampler": "ancestral"}), (3, {"sampler": "ddim", "n_steps": 20})):
        found = np.mean([distance(model.generate(5000, Rng((seed, 3)), **options), seed) for seed in range(2)])
        assert found <= limit * floor, (found / floor, options)


@pytest.mark.slow
def test_digits():
    data = load("digits")
    model = DDPM(n_features=64, width=256, batch=128, decay_steps=1000).build(Rng(0))
    fit(model, data.x_train, epochs=100, progress=False)
    judge, n = FrechetJudge(data), len(data.x_test)
    found = np.mean([judge.distance(model.sample(n, Rng((1, seed)))) for seed in range(5)])
    assert found <= 2 * judge.floor(n).mean, found
