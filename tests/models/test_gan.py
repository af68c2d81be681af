"""What no gradient check sees in an adversarial model: signs, who learns from what, schedules, kinds of pairs."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.backend import to_host
from scratchgen.check.variants import variants
from scratchgen.data import load
from scratchgen.metrics.coverage import coverage
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models import find_model
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.gan import GAN
from scratchgen.models.wgan import WGAN
from scratchgen.nn import losses
from scratchgen.train.checkpoint import read_checkpoint
from scratchgen.train.fit import fit

FAMILY = [("gan", settings) for settings in variants("gan")] + [("wgan", settings) for settings in variants("wgan")]
FAMILY += [("conditional_gan", settings) for settings in variants("conditional_gan")]
every_member = pytest.mark.parametrize(("name", "settings"), FAMILY)


def logits(seed, n=6):
    return 2 * Rng(seed, "float64").normal((n, 1))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---- the losses say what they are said to say ----


@pytest.mark.parametrize("kind", ["minimax", "non_saturating"])
def test_the_loss_of_D_is_minus_V(kind):
    real, fake = logits(1), logits(2, 4)
    V = np.log(sigmoid(real)).mean() + np.log(1 - sigmoid(fake)).mean()
    assert losses.loss_D(real, fake, kind)[0] == pytest.approx(-V)
    assert losses.loss_D(0 * real, 0 * fake, kind)[0] == pytest.approx(2 * math.log(2))


def test_what_D_minimises_by_formula():
    real, fake = logits(1), logits(2, 4)
    wanted = {
        "least_squares": (0.5 * (real - 1) ** 2).mean() + (0.5 * fake**2).mean(),
        "hinge": np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
        "wasserstein": fake.mean() - real.mean(),
    }
    for kind, value in wanted.items():
        assert losses.loss_D(real, fake, kind)[0] == pytest.approx(value), kind


def test_what_G_minimises_by_formula():
    fake = logits(2)
    wanted = {
        "minimax": np.log(1 - sigmoid(fake)).mean(),
        "non_saturating": -np.log(sigmoid(fake)).mean(),
        "least_squares": (0.5 * (fake - 1) ** 2).mean(),
        "hinge": -fake.mean(),
        "wasserstein": -fake.mean(),
    }
    assert wanted.keys() == losses.ADVERSARIAL.keys()
    for kind, value in wanted.items():
        assert losses.loss_G(fake, kind)[0] == pytest.approx(value), kind


def test_minimax_is_flat_where_D_sees_through_G_and_the_other_is_not():
    l = np.array([[-30.0], [0.0], [30.0]])
    D = sigmoid(l)
    np.testing.assert_allclose(3 * losses.loss_G(l, "minimax")[1], -D, rtol=1e-3)
    np.testing.assert_allclose(3 * losses.loss_G(l, "non_saturating")[1], -(1 - D), rtol=1e-2, atol=1e-15)
    assert abs(losses.loss_G(l, "minimax")[1][0, 0]) < 1e-12


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
@given(seed=st.integers(0, 2**32 - 1))
def test_both_want_what_they_should(kind, seed):
    """D wants its logits higher on real examples and lower on others; G wants them higher on its own."""
    real, fake = (np.clip(logits(s, 4), -0.9, 0.9) for s in ((seed, 1), (seed, 2)))
    _, d_real, d_fake = losses.loss_D(real, fake, kind)
    if kind == "least_squares":  # towards 1 and 0
        assert ((d_real < 0) == (real < 1)).all() and ((d_fake > 0) == (fake > 0)).all()
    else:
        assert (d_real < 0).all() and (d_fake > 0).all()
    assert (losses.loss_G(fake, kind)[1] < 0).all()


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_a_target_between_weighs_the_two_losses(kind):
    """Smoothing and flipping: y times the loss of a real example, 1 - y times that of another, up to a constant."""
    l, y = logits(4), Rng(5, "float64").uniform((6, 1))
    f = losses.ADVERSARIAL[kind][0]
    each = [np.concatenate([f(l[i : i + 1], target)[1] for i in range(6)]) for target in (1, 0)]
    np.testing.assert_allclose(f(l, y)[1], (y * each[0] + (1 - y) * each[1]) / 6, atol=1e-15)


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_targets_of_another_shape_are_refused(kind):
    with pytest.raises(ValueError, match=r"\(6, 1\).*\(6,\)"):
        losses.loss_D(logits(1), logits(2), kind, y_real=np.ones(6))


# ---- who learns from what ----


@every_member
def test_the_generator_sees_no_real_data(name, settings):
    """Of x it takes the number of rows: any other x of that shape gives the same loss and the same gradient."""
    model, batch = find_model(name).example(Rng(0, "float64"), **settings)
    found = []
    for x in (batch["x"], 5 - 7 * batch["x"], np.full_like(batch["x"], np.nan)):
        loss = model.generator_loss(**batch | {"x": x}, rng=model.rng(1))["generator_loss"]
        found.append((loss, model.params_G.grad.tobytes()))
    assert found[0] == found[1] == found[2] and np.isfinite(found[0][0])


@every_member
def test_neither_loss_touches_the_other_network(name, settings):
    model, batch = find_model(name).example(Rng(0, "float64"), **settings)
    for objective, own in model.objectives.items():
        other = next(params for key, params in model.parameters().items() if key != own)
        other.grad[...] = rest = Rng(3, "float64").normal(other.grad.shape)
        theta, buffers = other.theta.copy(), other.buffers.copy()
        getattr(model, objective)(rng=model.rng(1), **batch)
        assert (other.grad == rest).all() and (other.theta == theta).all() and (other.buffers == buffers).all()
        assert getattr(model, own).grad.any()


@every_member
def test_a_round_is_k_steps_of_D_then_those_of_G(name, settings):
    model, batch = find_model(name).example(Rng(0), **settings)
    assert len(batch["x"]) == model.examples_per_step == model.d_steps * model.batch
    model.train_step(rng=model.rng(1), **batch)
    counts = {key: int(t[0]) for key, t in model.state().items() if key.endswith("_D.t") or key.endswith("_G.t")}
    assert sorted(counts.values()) == sorted([model.d_steps, getattr(model, "g_steps", 1)])


def toward_data(model, data, rounds, seed=0):
    """|mean of samples - mean of data| before and after training on 1-D points."""
    distances = []
    for n in (0, rounds):
        rng = model.rng((seed, n))
        for _ in range(n):
            model.train_step(
                x=data(model.examples_per_step, rng), labels=np.zeros(model.examples_per_step, np.int64), rng=rng
            )
        distances.append(abs(float(model.sample(500, model.rng(9)).mean()) - 3))
    return distances


SMALL = {"n_features": 1, "n_latent": 2, "hidden_G": (16,), "hidden_D": (16,), "output": "linear", "batch": 32}
SMALL |= {"lr_G": 3e-3, "lr_D": 1e-2, "averaging": 0.0}


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_every_loss_moves_G_towards_the_data(kind):
    model = GAN(**SMALL, adversarial_loss=kind, r1=0.1).build(Rng(0))
    before, after = toward_data(model, lambda n, rng: 3 + 0.5 * rng.normal((n, 1)), 300)
    assert after < 0.5 < 2 < before


@pytest.mark.parametrize("settings", [{}, {"constraint": "clip", "clip": 0.1, "optimizer": "rmsprop"}])
def test_both_wasserstein_gans_move_G_towards_the_data(settings):
    model = WGAN(**SMALL | {"hidden_D": (16, 16)}, d_steps=3, lam=1.0, **settings).build(Rng(0))
    before, after = toward_data(model, lambda n, rng: 3 + 0.5 * rng.normal((n, 1)), 400)
    assert after < 0.6 < 2 < before


# ---- no setting is dead ----

RATES = {
    "lr_G": 1e-3,
    "lr_D": 1e-3,
    "beta1": 0.5,
    "beta2": 0.8,
    "decay_steps": 3,
    "averaging": 0.3,
    "batch": 8,
    "n_latent": 4,
}
OTHER = {  # another value for each setting that says how a step is made
    "gan": RATES | {
        "adversarial_loss": "hinge", "d_steps": 2, "g_steps": 2, "pack": 2, "r1": 0.7, "dropout": 0.4,
        "noise": 0.3, "spared": 0.5,
        "label_noise": 0.3, "noise_steps": 4, "label_smoothing": 0.2, "optimizer": "sgd", "momentum": 0.9,
    },
    "wgan": RATES | {
        "constraint": "clip", "clip": 0.3, "lam": 3.0, "one_sided": True, "d_steps": 2, "optimizer": "rmsprop",
        "activation_D": "tanh",
    },
    "conditional_gan": RATES | {"adversarial_loss": "hinge", "d_steps": 2, "dropout": 0.4, "r1": 0.7},
}  # fmt: skip
BESIDE = {"spared": {"noise": 0.3}, "noise_steps": {"noise": 0.3}, "momentum": {"optimizer": "sgd"}}
BESIDE |= {"clip": {"constraint": "clip"}}
NETWORKS = {"n_features", "n_classes", "condition", "hidden_G", "hidden_D", "output"}


def after_four_rounds(name, settings):
    model, batch = find_model(name).example(Rng(0, "float64"), **settings)
    for step in range(4):
        model.train_step(rng=model.rng(step), **batch)
    return model.params_D.theta, model.sample(3, model.rng(9))


@pytest.mark.parametrize(("name", "setting"), [(name, setting) for name, other in OTHER.items() for setting in other])
def test_no_setting_is_dead(name, setting):
    beside = BESIDE.get(setting, {})
    (D, x), (other_D, other_x) = (after_four_rounds(name, beside | s) for s in ({}, {setting: OTHER[name][setting]}))
    assert not np.array_equal(x, other_x)
    assert setting == "averaging" or not np.array_equal(D, other_D)


def test_every_setting_is_tried_above():
    for name, other in OTHER.items():
        settings = {field.name for field in dataclasses.fields(find_model(name))}
        assert settings - NETWORKS == other.keys()


@pytest.mark.parametrize("name", ["gan", "wgan", "conditional_gan"])
def test_each_step_of_D_has_a_batch_of_its_own(name):
    model, batch = find_model(name).example(Rng(0), d_steps=3)
    objective, judged = next(iter(model.objectives)), []
    judge = getattr(model, objective)
    setattr(model, objective, lambda x, *rest: judged.append(x) or judge(x, *rest))
    model.train_step(rng=model.rng(1), **batch)
    np.testing.assert_array_equal(np.concatenate(judged), batch["x"])


@pytest.mark.parametrize("name", ["gan", "wgan", "conditional_gan"])
def test_samples_come_from_the_averaged_weights(name):
    model, _ = find_model(name).example(Rng(0))
    model.average.average[...] = 0
    assert (model.sample(4, model.rng(1)) == 0.5).all()  # the sigmoid of 0
    assert model.params_G.theta.any()


@pytest.mark.parametrize("name", ["gan", "wgan", "conditional_gan"])
def test_the_rates_stay_for_half_of_the_rounds_and_then_fall_to_nothing(name):
    model, batch = find_model(name).example(Rng(0), d_steps=2, decay_steps=10, lr_G=1e-3, lr_D=2e-3)
    rates = []
    for step in range(12):
        model.train_step(rng=model.rng(step), **batch)
        rates.append([o.rate(int(o.t[0])) for o in (model.optimizer_G, model.optimizer_D)])
    np.testing.assert_allclose(rates[:5], [[1e-3, 2e-3]] * 5)
    assert 0 < rates[8][0] < 5e-4 and 0 < rates[8][1] < 1e-3
    np.testing.assert_allclose(rates[10:], 0, atol=1e-20)


# ---- GAN: what D is shown, and told ----


def shown(settings, x, rounds=0, seed=7):
    model = GAN(n_features=x.shape[1], **settings).build(Rng(0, "float64"))
    for _ in range(rounds):
        model.noise_level.step()
        model.label_noise_level.step()
    return model, model.discriminator_input(x, Rng(seed, "float64"))


@pytest.mark.parametrize(("rounds", "sigma"), [(1, 0.4), (6, 0.2), (11, 0.0), (30, 0.0)])
def test_noise_on_what_D_sees_fades(rounds, sigma):
    x = np.zeros((2000, 6))
    _, seen = shown({"noise": 0.4, "noise_steps": 10}, x, rounds)
    assert abs(seen.std() - sigma) < 0.01


def test_noise_spares_a_fraction_of_the_numbers():
    _, seen = shown({"noise": 0.5, "spared": 0.75}, np.zeros((2000, 6)))
    touched = seen != 0
    assert abs(touched.mean() - 0.25) < 0.02
    assert abs(seen[touched].std() - 0.5) < 0.02
    assert 0.1 < touched.any(axis=1).mean() < 0.95  # number by number, not whole examples


def test_labels_are_flipped_at_the_rate_asked_for_and_smoothed():
    model, _ = shown({"label_noise": 0.2, "label_smoothing": 0.1, "noise_steps": 10}, np.zeros((4, 2)), rounds=1)
    y_real, y_fake = model.targets(20_000, Rng(1, "float64"))
    assert set(np.unique(y_real)) == set(np.unique(y_fake)) == {0.0, 0.9}
    assert abs((y_real == 0).mean() - 0.2) < 0.015 and abs((y_fake > 0).mean() - 0.2) < 0.015
    assert abs(np.mean((y_real == 0) & (y_fake > 0)) - 0.04) < 0.01  # independently
    later, _ = shown({"label_noise": 0.2, "noise_steps": 10}, np.zeros((4, 2)), rounds=20)
    y_real, y_fake = later.targets(1000, Rng(1, "float64"))
    assert (y_real == 1).all() and (y_fake == 0).all()


def test_noise_without_an_end_stays():
    model, _ = shown({"noise": 0.3, "label_noise": 0.1}, np.zeros((4, 2)), rounds=7)
    assert (model.noise_level.value, model.label_noise_level.value) == (0.3, 0.1)


def test_noise_levels_come_back_with_the_state():
    settings = {"noise": 0.4, "label_noise": 0.2, "noise_steps": 10}
    model, _ = shown(settings, np.zeros((4, 2)), rounds=6)
    again, _ = shown(settings, np.zeros((4, 2)))
    again.load_state(model.state())
    assert again.noise_level.value == model.noise_level.value == pytest.approx(0.2)
    assert again.label_noise_level.value == pytest.approx(0.1)


def test_a_step_takes_the_level_of_its_round():
    model, batch = GAN.example(Rng(0), noise=0.4, noise_steps=4)
    levels = []
    for _ in range(5):
        model.train_step(**batch, rng=model.rng(1))
        levels.append(model.noise_level.value)
    np.testing.assert_allclose(levels, [0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-12)


def test_G_is_judged_through_the_same_noise():
    quiet, noisy = (GAN.example(Rng(0), noise=noise)[0] for noise in (0.0, 0.5))
    a, b = (model.generator_loss(pixels(4), model.rng(1))["generator_loss"] for model in (quiet, noisy))
    assert a != b


def test_packing_lays_examples_side_by_side():
    x = np.arange(24.0).reshape(8, 3)
    model, seen = shown({"pack": 4, "batch": 8}, x)
    np.testing.assert_array_equal(seen, [x[:4].ravel(), x[4:].ravel()])
    assert model.judge(x).shape == (2, 1)
    with pytest.raises(UsageError, match=r"batch=10 must be a multiple of pack=4"):
        GAN(pack=4, batch=10)
    with pytest.raises(ValueError, match=r"\(7, 3\), expected \(N, n_features\) with N a multiple of pack=4"):
        model.judge(x[:7])
    assert model.evaluate(x[:3], Rng(0)) == {}


def test_r1_is_half_gamma_times_the_squared_slope_at_real_examples():
    settings = {"n_features": 5, "hidden_G": (4,), "hidden_D": (6,)}
    x = Rng(4, "float64").uniform((8, 5))
    plain, penalised = (GAN(**settings, r1=r1).build(Rng(0, "float64")) for r1 in (0.0, 0.7))
    difference = penalised.discriminator_loss(x, Rng(1, "float64"))["discriminator_loss"]
    difference -= plain.discriminator_loss(x, Rng(1, "float64"))["discriminator_loss"]
    y, back = plain.discriminator.forward(x, None)
    slope = back(np.ones_like(y), learn=False)
    assert difference == pytest.approx(0.35 * (slope**2).sum(axis=1).mean())


# ---- conditional GAN ----


def test_the_wrong_label_is_never_the_right_one_and_all_others_are_as_likely():
    model = ConditionalGAN.example(Rng(0))[0]
    labels = Rng(1).integers(3, 30_000)
    wrong = model.wrong(labels, Rng(2))
    assert (wrong != labels).all() and wrong.min() >= 0 and wrong.max() < 3
    np.testing.assert_allclose(np.bincount((wrong - labels) % 3)[1:] / 30_000, 0.5, atol=0.015)


def test_a_wrong_vector_is_anothers():
    model, batch = ConditionalGAN.example(Rng(0), condition="vector")
    np.testing.assert_array_equal(model.wrong(batch["labels"], Rng(1)), np.roll(batch["labels"], 1, axis=0))


def test_the_three_kinds_of_pairs():
    model, batch = ConditionalGAN.example(Rng(0, "float64"), r1=0.0, dropout=0.0)
    x, labels = batch["x"], batch["labels"]
    rng, replay = Rng(5, "float64"), Rng(5, "float64")
    found = model.discriminator_loss(x, rng, labels)["discriminator_loss"]
    wrong, z = model.wrong(labels, replay), replay.normal((len(x), model.n_latent))
    c, c_wrong = np.eye(3)[labels], np.eye(3)[wrong]
    x_hat = model.generator(np.hstack([z, c]))

    def log_D(x, c, real):
        D = sigmoid(model.discriminator(np.hstack([x, c])))
        return np.log(D if real else 1 - D).mean()

    expected = -log_D(x, c, True) - 0.5 * log_D(x_hat, c, False) - 0.5 * log_D(x, c_wrong, False)
    assert found == pytest.approx(expected)


def test_G_is_judged_with_the_condition_it_was_given():
    model, _ = ConditionalGAN.example(Rng(0, "float64"), dropout=0.0)
    labels = np.array([2, 0, 1, 1])
    c, z = np.eye(3)[labels], Rng(5, "float64").normal((4, model.n_latent))
    x_hat = model.generator(np.hstack([z, c]))
    expected = -np.log(sigmoid(model.discriminator(np.hstack([x_hat, c])))).mean()
    assert model.generator_loss(pixels(4), Rng(5, "float64"), labels)["generator_loss"] == pytest.approx(expected)


def test_r1_of_a_conditional_gan_is_the_slope_in_the_pixels_alone():
    model, batch = ConditionalGAN.example(Rng(0, "float64"), dropout=0.0)
    found = model.discriminator_loss(**batch, rng=Rng(5, "float64"))["penalty"]
    pairs = np.hstack([batch["x"], np.eye(3)[batch["labels"]]])
    y, back = model.discriminator.forward(pairs, None)
    slope = back(np.ones_like(y), learn=False)[:, :6]
    assert found == pytest.approx((slope**2).sum(axis=1).mean())


def test_dropout_stays_on_when_sampling():
    model, _ = ConditionalGAN.example(Rng(0), dropout=0.5, hidden_G=(30,))

    class Silent(Rng):
        def normal(self, shape):
            return self.zeros(shape)

    a, b = (model.generate(np.zeros(3, np.int64), Silent(seed)) for seed in (1, 2))
    assert not np.array_equal(a, b) and not np.array_equal(a[0], a[1])  # though z is 0 for all


def test_samples_by_label():
    model, _ = ConditionalGAN.example(Rng(0))
    asked = []
    model.generate = lambda labels, rng: asked.append(to_host(labels).tolist()) or np.zeros((len(labels), 6))
    model.sample(4, Rng(1), label=2)
    model.sample(3000, Rng(1))
    assert asked[0] == [2, 2, 2, 2]
    np.testing.assert_allclose(np.bincount(asked[1]) / 3000, 1 / 3, atol=0.04)
    for label in (3, -1):
        with pytest.raises(UsageError, match=rf"label {label}: expected 0 \.\.\. 2"):
            model.sample(4, Rng(1), label=label)
    vectors, _ = ConditionalGAN.example(Rng(0), condition="vector")
    with pytest.raises(UsageError, match="generate"):
        vectors.sample(4, Rng(1))


def test_labels_the_model_has_no_class_for_are_refused():
    model, batch = ConditionalGAN.example(Rng(0))
    with pytest.raises(UsageError, match=r"labels are 0 \.\.\. 3, but with n_classes=3 they must lie in"):
        fit(model, batch["x"], labels=np.array([0, 1, 2, 3]), epochs=1, progress=False)
    with pytest.raises(UsageError, match="n_classes"):
        ConditionalGAN(n_classes=1)
    with pytest.raises(UsageError, match="wrong vector from a neighbour"):
        ConditionalGAN(condition="vector", batch=1)
    vectors, _ = ConditionalGAN.example(Rng(0), condition="vector")
    with pytest.raises(UsageError, match=r"condition=vector needs .* \(4, 3\), but these have shape \(4,\)"):
        fit(vectors, batch["x"], labels=np.array([0, 1, 2, 0]), epochs=1, progress=False)


@pytest.mark.parametrize(("settings", "remedy"), [({"d_steps": 3}, "batch=3"), ({"d_steps": 30}, "d_steps=1 batch=11")])
def test_a_round_larger_than_the_data_is_refused_with_a_remedy_that_works(settings, remedy):
    settings = {"n_features": 6, "hidden_G": (4,), "hidden_D": (4,)} | settings
    with pytest.raises(UsageError, match=f"but there are only 11: use --set {remedy}"):
        fit(GAN(**settings, batch=4).build(Rng(0)), pixels(11), epochs=1, progress=False)
    settings |= {name: int(value) for name, value in (item.split("=") for item in remedy.split())}
    fit(GAN(**settings).build(Rng(0)), pixels(11), epochs=1, progress=False)


# ---- WGAN ----


def test_clipping_keeps_every_weight_within_c():
    model, batch = WGAN.example(Rng(0), constraint="clip", clip=0.02, lr_D=0.1)
    for seed in range(5):
        model.train_step(**batch, rng=model.rng(seed))
        assert np.abs(model.params_D.theta).max() == np.float32(0.02)


def test_a_critic_measures_the_distance():
    """G stands still at 0, the data lies at distance 1.5: W₁ is 1.5."""
    settings = SMALL | {"n_features": 2, "hidden_D": (32, 32), "lr_D": 3e-3, "batch": 64}
    model = WGAN(**settings, lam=100.0, d_steps=1).build(Rng(0))  # the larger lam, the nearer the slope is to 1
    model.params_G.theta[...] = model.average.average[...] = 0
    rng = model.rng(1)
    for _ in range(400):
        x = 0.1 * rng.normal((64, 2)) + np.float32([0.9, 1.2])
        model.discriminator_loss(x, rng)
        model.optimizer_D.step()
    test = 0.1 * rng.normal((2000, 2)) + np.float32([0.9, 1.2])
    assert float(model.evaluate(test, rng)["wasserstein"]) == pytest.approx(1.5, rel=0.1)


# ---- what is said of a training that goes wrong ----


def pixels(n, width=6):
    return np.random.default_rng(0).random((n, width), dtype=np.float32)


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_a_healthy_D_is_not_named(kind, capsys):
    model = GAN(n_features=6, n_latent=2, hidden_G=(4,), hidden_D=(4,), batch=8, adversarial_loss=kind).build(Rng(0))
    fit(model, pixels(80), epochs=3)
    assert "tells real" not in capsys.readouterr().err


@pytest.mark.parametrize(("name", "loss"), [("gan", "discriminator_loss"), ("wgan", "discriminator_loss")])
def test_a_loss_that_stops_being_finite_is_named(name, loss):
    model, batch = find_model(name).example(Rng(0), lr_D=1e30)
    said = rf"(penalty|wasserstein|{loss}|generator_loss) became .* in epoch 1, step \d+; .*lr_D"
    with pytest.raises(UsageError, match=said):
        fit(model, np.tile(batch["x"], (8, 1)), epochs=1, progress=False)


def test_pixels_are_wanted_for_a_sigmoid():
    model = GAN(n_features=2, batch=4).build(Rng(0))
    with pytest.raises(
        UsageError, match=r"GAN needs pixels in \[0, 1\], .*: use --set output=linear for other numbers"
    ):
        fit(model, 5 * pixels(8, 2), epochs=1, progress=False)


# ---- the quality of samples, beside the losses ----


def test_a_measure_stands_beside_the_losses_and_resumes_with_them(tmp_path):
    def run(folder, epochs, **options):
        model = GAN.example(Rng(0))[0]

        def measure(model, rng, epoch):
            return {"drawn": float(model.sample(3, rng).sum())}

        return fit(model, pixels(12), epochs=epochs, measure=measure, out=tmp_path / folder, progress=False, **options)

    whole = run("whole", 3)
    run("parts", 1)
    parts = run("parts", 3, resume=True)
    assert [row["drawn"] for row in parts] == [row["drawn"] for row in whole]
    assert len({row["drawn"] for row in whole}) == 3
    header, *rows = (tmp_path / "parts" / "history.csv").read_text().splitlines()
    assert "drawn" in header.split(",") and len(rows) == 3


def test_a_measure_that_is_not_always_there():
    calls = []

    def measure(model, rng, epoch):
        calls.append(1)
        return {"seldom": 1.0} if len(calls) == 2 else {}

    history = fit(GAN.example(Rng(0))[0], pixels(8), epochs=3, measure=measure, progress=False)
    assert ["seldom" in row for row in history] == [False, True, False]


FRECHET = ["frechet", "frechet_error", "frechet_floor", "frechet_floor_error", "classifier_accuracy", "rarest_class"]
TRAIN = ["--epochs", "2", "--set", "hidden_G=8", "hidden_D=8", "n_latent=2"]


@pytest.mark.parametrize(
    ("model", "data", "names"),
    [
        ("gan", "digits", FRECHET),
        ("conditional_gan", "digits", FRECHET),
        ("wgan", "ring", ["modes", "high_quality", "reverse_kl"]),
    ],
)
def test_the_command_line_measures_samples_after_every_epoch(model, data, names, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "run"
    linear = [] if data == "digits" else ["output=linear"]
    assert main(["train", model, "--data", data, "--out", str(out), *TRAIN, *linear]) == 0
    header, *rows = (out / "history.csv").read_text().splitlines()
    assert len(rows) == 2 and set(names) <= set(header.split(","))
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in names)
    assert main(["evaluate", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(names) <= found.keys()
    label = ["--label", "7"] if model == "conditional_gan" else []
    assert main(["sample", str(out), "-n", "4", "-o", str(out / "x.npy"), *label]) == 0
    assert np.load(out / "x.npy").shape == (4, 64 if data == "digits" else 2)


def test_labels_of_the_data_decide_the_number_of_classes(tmp_path, monkeypatch, capsys):
    assert (
        main(["train", "conditional_gan", "--data", "ring", "--out", str(tmp_path / "run"), *TRAIN, "output=linear"])
        == 0
    )
    assert read_checkpoint(tmp_path / "run" / "checkpoint.npz")[0]["settings"]["n_classes"] == 8
    assert main(["sample", str(tmp_path / "run"), "-n", "4", "-o", "x.npy", "--label", "8"]) == 2
    assert "label 8: expected 0 ... 7" in capsys.readouterr().err


def test_a_model_tested_on_labels_wants_them():
    model, batch = find_model("classifier").example(Rng(0))
    with pytest.raises(UsageError, match="tested on labels, but the test data has none: give labels_test"):
        fit(model, **batch, x_test=batch["x"], epochs=1, progress=False)


# ---- what they reach ----


def trained(model, data, rounds):
    epochs = math.ceil(rounds / (len(data.x_train) // model.examples_per_step))
    model.decay_steps = epochs * (len(data.x_train) // model.examples_per_step)
    fit(model.build(Rng(0)), data.x_train, labels=data.labels_train, epochs=epochs, progress=False)
    return model


DIGITS = {"n_features": 64, "hidden_G": (128, 256), "hidden_D": (256, 128)}


@pytest.mark.slow
def test_a_gan_makes_digits_nearly_as_near_to_real_ones_as_real_ones_are():
    data = load("digits")
    judge, model = FrechetJudge(data), trained(GAN(**DIGITS, r1=0.3), data, 4_000)
    n = len(data.x_test)  # as many of both
    assert judge.distance(model.sample(n, model.rng(1))) <= 2 * judge.floor(n).mean
    assert judge.classes(model.sample(5_000, model.rng(2))).min() >= 0.05


@pytest.mark.slow
def test_a_conditional_gan_makes_the_digit_asked_for():
    data = load("digits")
    judge, model = FrechetJudge(data), trained(ConditionalGAN(**DIGITS, r1=0.3), data, 3_000)
    asked = np.repeat(np.arange(10), 100)
    assert (judge.classifier.predict(model.generate(asked, model.rng(1))) == asked).mean() >= 0.98


@pytest.mark.slow
def test_a_wasserstein_gan_covers_the_ring():
    data, scale = load("ring"), math.sqrt(2)
    sizes = {"n_features": 2, "n_latent": 2, "output": "linear", "hidden_G": 3 * (128,), "hidden_D": 3 * (128,)}
    model = WGAN(**sizes, batch=128, lam=0.1, d_steps=1, lr_G=1e-3, lr_D=1e-3, averaging=0.995)
    toy, data.x_train, data.labels_train = data.toy, scale * data.toy.sample(20_000, Rng(1)), None
    found = coverage(trained(model, data, 7_000).sample(2_500, Rng(2)) / scale, toy.centres, toy.sigma)
    assert found["modes"] == 8 and found["high_quality"] >= 0.92 and found["reverse_kl"] <= 0.01
