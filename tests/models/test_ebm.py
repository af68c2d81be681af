"""Energy-based models: energy, score and denoiser are one function; both objectives; log Z; chains and what they keep."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watching import F64, near, spoil, watched

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.check.gradcheck import gradcheck
from scratchgen.data import Data
from scratchgen.data.toys import Mixture
from scratchgen.metrics.likelihood import likelihood_metrics
from scratchgen.models import ebm
from scratchgen.models.ebm import EBM
from scratchgen.models.parts.predictions import converted
from scratchgen.nn.activations import ACTIVATIONS
from scratchgen.train.fit import fit

H = 1e-30
both_objectives = pytest.mark.parametrize("objective", ["score", "contrastive"])


def random_ebm(seed=0, scale=1.0, **settings):
    """A float64 model with weights of this size, whose averaged weights are its weights."""
    model = EBM(**{"n_features": 2, "hidden": (5, 4), "batch": 4, "n_chains": 6} | settings).build(Rng((seed, 1), F64))
    spoil(model.params, seed)
    model.params.theta *= scale
    return settled(model)


def settled(model):
    model.average.average[...] = model.params.theta
    return model


# ---- energy, score, noise, denoiser ----


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), sigma=st.floats(0.05, 3.0))
def test_energy_score_and_denoiser_say_the_same(seed, n, sigma):
    model, x = random_ebm(seed, n_features=n), Rng((seed, 2), F64).normal((3, n))
    score = model.score(x, sigma)
    slopes = [model.energy(x + 1j * H * e, sigma).imag / H for e in np.eye(n)]
    np.testing.assert_allclose(score, -np.stack(slopes, axis=1), rtol=1e-10, atol=1e-12)
    wanted = converted("score", score, "x0", x, 1.0, sigma)
    np.testing.assert_allclose(model.denoise(x, sigma), wanted, rtol=1e-10, atol=1e-12)
    each = np.full((3, 1), sigma)
    np.testing.assert_allclose(model.score(x, each), score, rtol=1e-12)
    np.testing.assert_array_equal(model.energy(x), model.energy(x, model.sigma_min))


@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0])
def test_without_weights_the_density_is_that_of_gaussian_data_with_noise(sigma):
    model, x = random_ebm(scale=0.0, n_features=3), Rng(1, F64).normal((5, 3))
    v = 1 + sigma**2
    wanted = 0.5 * (x**2).sum(axis=1) / v + 1.5 * math.log(2 * math.pi * v)
    np.testing.assert_allclose(model.energy(x, sigma), wanted, rtol=1e-12)
    np.testing.assert_allclose(model.denoise(x, sigma), x / v, rtol=1e-12)


def test_the_network_is_told_the_noise_between_minus_one_and_one():
    model = random_ebm(sigma_min=0.1, sigma_max=10.0, n_features=1)
    with watched(model.network) as calls:
        for sigma in (0.1, 1.0, 10.0):
            model.energy(np.array([[3.0]]), sigma)
    rows = [given[0][0] for given, _ in calls]
    np.testing.assert_allclose([c for _, c in rows], [-1, 0, 1], atol=1e-12)
    np.testing.assert_allclose([x for x, _ in rows], 3 / np.sqrt([1.01, 2, 101]))


# ---- denoising score matching ----


@pytest.mark.parametrize("dual", [0.0, 0.7])
def test_the_score_objective_by_formula(dual):
    """The gradients in x and in σ by the complex step, the noise from the same stream."""
    model, D = random_ebm(3, n_features=3, dual=dual, sigma_min=0.2, sigma_max=2.0), 3
    x = Rng(1, F64).uniform((6, D))
    found = model.loss(x, Rng(2, F64))["loss"]
    rng = Rng(2, F64)
    sigma = 0.2 * 10 ** rng.uniform((6, 1))
    eps = rng.normal((6, D))
    noisy = 2 * x - 1 + sigma * eps
    dx = np.stack([model.energy(noisy + 1j * H * e, sigma).imag / H for e in np.eye(D)], axis=1)
    d_sigma = model.energy(noisy + 0j, sigma + 1j * H).imag[:, None] / H
    towards = (2 * x - 1 - noisy) / sigma**2  # the score of x̃ given x: from x̃ to x
    wanted = (sigma**2 * (-dx - towards) ** 2).sum(axis=1).mean()
    log_q = -0.5 * (eps**2).sum(axis=1, keepdims=True)  # σ ∂/∂σ of -log N(x̃; x, σ² I) is D - ‖ε‖²
    wanted += dual / D * ((sigma * d_sigma - (D + 2 * log_q)) ** 2).mean()
    assert found == pytest.approx(wanted, rel=1e-10)


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 4),
    batch=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 5), max_size=3),
    activation=st.sampled_from([name for name in ACTIVATIONS if "relu" not in name]),
    settings=st.sampled_from([{"dual": 0.0}, {"dual": 2.0}, {"objective": "contrastive", "r1": 0.6}]),
)
def test_both_objectives_have_exact_gradients_at_any_shape(seed, n, batch, hidden, activation, settings):
    sizes = {"n_features": n, "batch": batch, "n_chains": batch + 2, "hidden": tuple(hidden), "activation": activation}
    model, x = random_ebm(seed, **sizes, **settings), Rng((seed, 2), F64).uniform((batch, n))
    report = gradcheck(lambda: model.loss(x, Rng((seed, 3), F64))["loss"], model.params, seed=seed)
    assert report and report.error <= 1e-12, str(report)


def mean_gradient(model, draw, n_batches=60):
    """The mean gradient of the loss over fresh batches, and its standard error."""
    found = []
    for i in range(n_batches):
        model.loss(draw(Rng((i, 1), F64)), Rng((i, 2), F64))
        found.append(model.params.grad.copy())
    return np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(n_batches)


@pytest.mark.parametrize("dual", [0.0, 0.5])
def test_the_true_energy_is_where_the_gradient_of_score_matching_is_nothing(dual):
    """For data from N(0, I), √D f = 0 is true; Vincent 2011: the noisy targets have the score for their mean."""
    model = random_ebm(dual=dual, hidden=(6,), scaling="standard")
    model.network.layers[-1].W[...] = model.network.layers[-1].b[...] = 0
    model.scaler.mean[...], model.scaler.std[...] = 0, 1
    right, error = mean_gradient(model, lambda rng: rng.normal((400, 2)))
    moved = error > 0
    assert moved.sum() == 6  # of the last layer's weights; nothing else has a say while they are 0
    near(right[moved], 0, error[moved])
    wrong, error = mean_gradient(model, lambda rng: 1.3 * rng.normal((400, 2)))
    assert np.max(np.abs(wrong[moved]) / error[moved]) > 10


# ---- the contrastive objective ----


def true_gradient(model, x_0):
    """∂/∂θ of mean E(x) + log Z at the least noise, by differences of log Z over a grid."""
    theta, h, found = model.params.theta.copy(), 1e-5, []
    for unit in np.eye(len(theta)):
        values = []
        for sign in (1, -1):
            model.params.theta[...] = theta + sign * h * unit
            settled(model)
            values.append(model.energy(x_0).mean() + model.log_z(200))
        found.append((values[0] - values[1]) / (2 * h))
    model.params.theta[...] = theta
    settled(model)
    return np.array(found)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_by_chains_tends_to_the_exact_one_as_they_grow_longer(seed):
    settings = {"n_features": 1, "hidden": (4,), "sigma_min": 0.8, "step": 0.2, "objective": "contrastive"}
    model = random_ebm(seed, 0.7, **settings)
    model.scaler.mean[...], model.scaler.std[...], model.scaler.low[...], model.scaler.high[...] = 0, 1, -7, 7
    x = np.array([[1.5], [2.0]])
    noisy = x + 0.8 * Rng(5, F64).normal(x.shape)
    truth, errors = true_gradient(model, noisy), []
    for k in (0, 5, 25, 150):
        v = model.chain(np.resize(x, (8000, 1)), Rng((k, 1), F64), k)
        model.loss(x, Rng(5, F64), v=v)
        errors.append(np.abs(model.params.grad - truth).max())
    assert np.abs(truth).max() > errors[0] > 0.5
    assert errors[0] > 1.2 * errors[1] > 2 * errors[2] > 8 * errors[3], errors
    assert errors[3] < 0.03, errors  # of 8,000 chains, and of steps that are not small


def test_a_penalty_adds_half_gamma_times_the_squared_slope_of_f_at_the_data():
    settings = {"objective": "contrastive", "n_features": 3}
    plain, penalised = random_ebm(**settings), random_ebm(**settings, r1=0.6)
    x, rng = Rng(1, F64).uniform((4, 3)), Rng(2, F64)
    noisy = 2 * x - 1 + 0.05 * rng.normal(x.shape)
    rows = np.concatenate([noisy / math.sqrt(1 + 0.05**2), np.full((4, 1), -1.0)], axis=1)
    slopes = [plain.network(rows + 1j * H * e)[:, 0].imag / H for e in np.eye(4)[:3]]
    rise = penalised.loss(x, Rng(2, F64))["loss"] - plain.loss(x, Rng(2, F64))["loss"]
    assert rise == pytest.approx(0.3 * (np.stack(slopes) ** 2).sum(axis=0).mean(), rel=1e-10)


@pytest.mark.parametrize("restart", [0.0, 1.0])
def test_an_update_continues_a_stretch_of_the_chains_or_starts_them_from_noise(restart):
    model = random_ebm(objective="contrastive", restart=restart, n_chains=9, chain_steps=3)
    x, before = Rng(1, F64).uniform((4, 2)), model.buffer.states.copy()
    places = model.buffer.stretch(4, Rng(3, F64))
    with watched(model, "chain") as chains, watched(model, "score") as scores, watched(model, "loss") as losses:
        model.train_step(x, Rng(3, F64))
    ((start, _, n_steps), end), *others = chains
    assert n_steps == len(scores) == 3 and not others
    assert (start == before[places]).all() if restart == 0 else (start != before[places]).all()
    np.testing.assert_array_equal(model.buffer.states[places], end)
    np.testing.assert_array_equal(losses[0][0][-1], end)  # what the loss takes for draws from the model
    rest = np.setdiff1d(np.arange(9), places)
    np.testing.assert_array_equal(model.buffer.states[rest], before[rest])


def test_as_many_chains_start_again_as_the_setting_says():
    model = random_ebm(objective="contrastive", restart=0.3, n_chains=4000, batch=4000, chain_steps=1, step=1e-9)
    model.buffer.states[...] = 7.0
    model.train_step(Rng(1, F64).uniform((4000, 2)), Rng(3, F64))
    fresh = np.abs(model.buffer.states - 7).min(axis=1) > 0.1
    near(fresh.mean(), 0.3, math.sqrt(0.21 / 4000))
    near(model.buffer.states[fresh].var(), 1, math.sqrt(2 / (2 * fresh.sum())))


def test_the_states_of_the_chains_are_saved():
    model, batch = EBM.example(Rng(0), objective="contrastive")
    before = model.state()["buffer.states"].copy()
    model.train_step(**batch, rng=Rng(1))
    assert (model.state()["buffer.states"] != before).any()
    other, _ = EBM.example(Rng(5), objective="contrastive")
    other.load_state(model.state())
    np.testing.assert_array_equal(other.buffer.states, model.buffer.states)


# ---- samples ----


def as_pixels(x_0):
    return np.clip(0.5 + 0.5 * x_0, 0, 1)


def test_score_samples_start_as_the_noisiest_data_and_go_down_the_ladder():
    model = random_ebm(n_sigmas=3, n_steps=2, sigma_min=0.1, sigma_max=4.0)
    with watched(model, "score") as calls:
        found = model.sample(30_000, Rng(1, F64))
    sigmas = [sigma for (_, sigma), _ in calls]
    np.testing.assert_allclose(sigmas, [4, 4, 0.4**0.5, 0.4**0.5, 0.1, 0.1, 0.1])  # and once to remove the noise
    near(calls[0][0][0].var(), 17, 17 * math.sqrt(2 / 60_000))
    (last, _), score = calls[-1]
    np.testing.assert_allclose(found, as_pixels(last + 0.01 * score), rtol=1e-12)


def test_contrastive_samples_continue_the_chains():
    model = random_ebm(objective="contrastive", n_chains=50, n_steps=7)
    with watched(model, "chain") as chains:
        found = model.sample(20, Rng(1, F64))
    ((start, _, n_steps), end), *_ = chains
    assert n_steps == 7
    assert {tuple(row) for row in start} <= {tuple(row) for row in model.buffer.states} and len(np.unique(start)) == 40
    np.testing.assert_array_equal(found, as_pixels(end))
    assert model.sample(60, Rng(1, F64)).shape == (60, 2)  # more than there are chains


# ---- log Z ----


@pytest.mark.parametrize("n", [1, 2])
def test_log_z_of_a_gaussian_is_nothing(n):
    model = random_ebm(scale=0.0, n_features=n, sigma_min=0.3)
    model.scaler.low[...], model.scaler.high[...] = -8, 8
    assert abs(model.log_z(120)) < 1e-10


@pytest.mark.parametrize("seed", range(4))
def test_a_density_integrates_to_one_in_the_units_of_the_data(seed):
    model = random_ebm(seed, 0.7, sigma_min=0.4)
    scaler = model.scaler
    scaler.mean[...], scaler.std[...], scaler.low[...], scaler.high[...] = [3, -1], [2.0, 0.1], -8, 8
    axes = [m + s * np.linspace(-9, 9, 121) for m, s in zip(scaler.mean, scaler.std)]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(model.grid_log_prob(points, 150)).sum() * cell == pytest.approx(1, abs=1e-3)


def test_evaluate_has_log_p_in_the_plane_by_a_grid_and_its_error(monkeypatch):
    model, x = random_ebm(0, 0.7, sigma_min=0.4), Rng(1, F64).uniform((20, 2))
    monkeypatch.setattr(ebm, "ROWS", 1000)  # the grid in parts
    found = likelihood_metrics(model, x, Rng(2, F64))
    assert found["log_p"] == pytest.approx(model.grid_log_prob(x).mean())
    assert found["log_p_error"] == pytest.approx(model.grid_log_prob(x).std(ddof=1) / math.sqrt(20), rel=1e-6)
    assert "log Z by a grid of 400 cells" in found["log_p_method"]
    assert likelihood_metrics(random_ebm(n_features=3), Rng(1, F64).uniform((5, 3)), Rng(2, F64)) == {}
    with pytest.raises(UsageError, match=r"log_z by a grid is for 1 or 2 numbers per example; these have 3"):
        random_ebm(n_features=3).log_z()


# ---- learning ----

UNEVEN = Mixture("uneven", 0.3, [[-1.5], [1.5]], [0.7, 0.3])


def learned(seed=0, epochs=12, **settings):
    """How many nats a model's -log p is above the truth's, after a short training on two uneven modes."""
    x, new = UNEVEN.sample(6000, Rng((seed, 1))), UNEVEN.sample(4000, Rng((seed, 2)))
    sizes = {"n_features": 1, "hidden": (32, 32), "batch": 128, "lr": 1e-2, "averaging": 0.98, "scaling": "standard"}
    model = EBM(**sizes | settings, sigma_min=0.1, sigma_max=2.0, decay_steps=46 * epochs).build(Rng((seed, 3)))
    fit(model, x, epochs=epochs, progress=False)
    return float((UNEVEN.log_density(new) - model.grid_log_prob(new)).mean())


def test_score_matching_learns_the_density_of_two_uneven_modes():
    assert abs(learned()) < 0.08


@pytest.mark.slow
def test_without_the_score_in_sigma_the_weights_of_modes_are_a_matter_of_luck():
    assert max(learned(seed, 40) for seed in range(3)) < 0.05
    assert max(learned(seed, 40, dual=0.0) for seed in range(3)) > 0.1


@pytest.mark.slow
def test_contrastive_training_learns_the_density_too():
    assert abs(learned(epochs=40, objective="contrastive", n_chains=128, step=2.0, chain_steps=20)) < 0.06


# ---- the command line, and what is refused ----


@both_objectives
def test_points_are_learned_and_evaluated_on_the_command_line(objective, tmp_path, capsys):
    np.save(tmp_path / "points.npy", Rng(1).normal((60, 2)))
    settings = [f"objective={objective}", "scaling=standard", "hidden=8", "batch=20", "n_chains=20", "n_sigmas=3"]
    run = ["--data", str(tmp_path / "points.npy"), "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", "ebm", *run, "--set", *settings]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "denoising_error" in out and "log Z by a grid" in out and "sliced_wasserstein" in out
    assert main(["train", "ebm", *run[:-1], str(tmp_path / "other")]) == 2
    assert "--set scaling=standard for other numbers" in capsys.readouterr().err


def test_settings_that_do_not_go_together():
    with pytest.raises(UsageError, match=r"^EBM setting sigma_max: expected more than sigma_min=2, got 1$"):
        EBM(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(UsageError, match=r"^EBM setting n_chains: an update continues batch=128 chains"):
        EBM(objective="contrastive", n_chains=100)
    with pytest.raises(UsageError, match=r"^EBM setting step: "):
        EBM(step=4.0)


def test_data_is_a_picture_unless_it_is_standardised():
    points = Data("points", 3 * Rng(1).normal((50, 2)), Rng(2).normal((5, 2)))
    with pytest.raises(UsageError, match=r"^EBM needs pixels in \[0, 1\]"):
        EBM(n_features=2).check_data(points.x_train)
    model = dataclasses.replace(EBM(n_features=2), scaling="standard").build(Rng(0))
    model.prepare(points.x_train, Rng(1))
    x_0 = model.scaler(points.x_train)
    np.testing.assert_allclose([x_0.mean(), x_0.std()], [0, 1], atol=1e-5)
