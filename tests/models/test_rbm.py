"""The restricted Boltzmann machine against sums over all its states: F, Z, the gradient, Gibbs sampling, learning.

And annealed importance sampling, which must find the same Z without the sum.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.check.gradcheck import check_layer
from scratchgen.data import binarized, load
from scratchgen.metrics.annealed import annealed_log_z, log_weights
from scratchgen.metrics.likelihood import annealed
from scratchgen.models.parts.energy import FreeEnergy
from scratchgen.models.rbm import RBM
from scratchgen.train.fit import fit

SIZES = st.integers(1, 6)


def random_rbm(seed=0, scale=1.0, **settings):
    """A float64 machine whose weights are drawn at random, its base too."""
    rng = Rng((seed, 8), "float64")
    model = RBM(**{"n_features": 5, "n_hidden": 4, "n_chains": 50} | settings).build(rng)
    model.params.theta[...] = scale * rng.normal(model.params.theta.shape)
    model.energy.base[...] = 0.5 * rng.normal(model.n_features)
    return model


def all_states(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def energies(model):
    """E(v, h) of all states as it is written, (2^n_features, 2^n_hidden)."""
    W, b, c = model.energy.W, model.energy.b, model.energy.c
    states_v, states_h = all_states(len(b)), all_states(len(c))
    return np.array([[-b @ v - c @ h - v @ W @ h for h in states_h] for v in states_v])


def exact(model):
    """Every v, and p(v) of each by summing e^-E over h and dividing by the sum of all."""
    p = np.exp(-energies(model)).sum(axis=1)
    return all_states(model.n_features), p / p.sum()


def known_distribution(n, seed=0, spread=1.5):
    """Every v of n pixels and a probability for each, far from independent."""
    v = all_states(n)
    p = np.exp(spread * Rng((seed, 2), "float64").normal(len(v)))
    return v, p / p.sum()


def entropy(p):
    return -(p * np.log(p)).sum()


# ---- the energy, and Z ----


@given(seed=st.integers(0, 2**32 - 1), n_features=SIZES, n_hidden=SIZES, scale=st.sampled_from([0.1, 1.0, 4.0]))
def test_free_energy_and_z_are_sums_over_all_states(seed, n_features, n_hidden, scale):
    model = random_rbm(seed, scale, n_features=n_features, n_hidden=n_hidden)
    E = energies(model)
    F = -np.log(np.exp(-E).sum(axis=1))
    v = all_states(n_features)
    np.testing.assert_allclose(model.free_energy(v), F, rtol=1e-10, atol=1e-10)
    assert model.log_z() == pytest.approx(np.log(np.exp(-E).sum()), rel=1e-12, abs=1e-12)  # over the smaller side
    np.testing.assert_allclose(model.log_p(v), -F - np.log(np.exp(-E).sum()), atol=1e-10)
    assert np.exp(model.log_p(v)).sum() == pytest.approx(1)


def test_log_z_goes_through_its_states_in_parts():
    model = random_rbm(n_features=14, n_hidden=13, scale=0.5)  # 8,192 states, from the side of h
    v = all_states(14)
    assert model.log_z() == pytest.approx(np.log(np.exp(-model.free_energy(v)).sum()), rel=1e-12)


def test_energies_too_large_for_exp_have_a_log_z():
    model = random_rbm(scale=600.0)
    assert model.log_z() == pytest.approx(-energies(model).min(), rel=1e-6)


@given(seed=st.integers(0, 2**32 - 1), sizes=st.tuples(SIZES, SIZES), batch=SIZES)
def test_the_gradient_of_the_free_energy_at_any_shape(seed, sizes, batch):
    report = check_layer(FreeEnergy(*sizes, 2), 2 * Rng(seed, "float64").normal((batch, sizes[0])), seed=seed)
    assert report and report.error <= 1e-12, str(report)


# ---- the gradient of log p ----


def exact_gradient(model, x):
    """The gradient of mean -log p(x) by differences of log p itself, which knows of no chains."""
    theta, h, found = model.params.theta.copy(), 1e-5, []
    for unit in np.eye(len(theta)):
        values = []
        for sign in (1, -1):
            model.params.theta[...] = theta + sign * h * unit
            values.append(-model.log_p(x).mean())
        found.append((values[0] - values[1]) / (2 * h))
    model.params.theta[...] = theta
    return np.array(found)


def gradient(model, x, v):
    model.loss(x, None, v=v)
    return model.params.grad.copy()


def test_the_gradient_of_log_p_is_that_of_the_loss_with_v_from_the_model():
    """E_p over v exactly: each state as often as p says, the gradient being a mean over v."""
    model = random_rbm()
    x = (Rng(3, "float64").uniform((7, 5)) < 0.4).astype(float)
    states, p = exact(model)
    one_by_one = sum(weight * gradient(model, x, v[None]) for v, weight in zip(states, p))
    np.testing.assert_allclose(one_by_one, exact_gradient(model, x), atol=1e-8)
    assert np.abs(one_by_one).max() > 0.1


def test_the_gradient_is_nothing_where_data_and_model_agree():
    model = random_rbm()
    states, p = exact(model)
    assert sum(weight * gradient(model, states, v[None]) for v, weight in zip(states, p)).any()
    found = sum(w * u * gradient(model, a[None], b[None]) for a, w in zip(states, p) for b, u in zip(states, p))
    np.testing.assert_allclose(found, 0, atol=1e-12)


def test_cd_tends_to_the_exact_gradient_as_k_grows():
    model = random_rbm(scale=1.5)
    x = np.tile([[1.0, 0, 0, 1, 0], [0, 1, 1, 0, 1]], (20_000, 1))
    truth = exact_gradient(model, x[:2])
    errors = {}
    for k in (1, 5, 60):
        found = gradient(model, x, model.gibbs(x, Rng((k, 1), "float64"), k))
        errors[k] = np.abs(found - truth).max()
    assert errors[1] > 0.15  # biased
    assert errors[1] > 2 * errors[5] > 0
    assert errors[60] < 0.015  # the noise of 40,000 chains


def test_weight_decay_adds_lambda_w_and_nothing_else():
    x, v = (Rng(i, "float64").uniform((4, 5)) for i in (1, 2))
    plain, decayed = random_rbm(), random_rbm(weight_decay=0.3)
    difference = gradient(decayed, x, v) - gradient(plain, x, v)
    W = plain.energy.W
    np.testing.assert_allclose(difference[: W.size], 0.3 * W.ravel(), atol=1e-14)
    assert not difference[W.size :].any()


# ---- Gibbs sampling ----


def test_a_gibbs_step_leaves_the_exact_distribution_as_it_is():
    model, n = random_rbm(n_features=3, n_hidden=2), 60_000
    states, p = exact(model)
    rng = np.random.default_rng(1)
    v = states[rng.choice(8, n, p=p)]
    other = states[rng.choice(8, n)]  # each state as often: not the model's
    for start, stays in ((v, True), (other, False)):
        after = model.gibbs(start, Rng(5, "float64"), 1)
        counts = np.bincount((after @ [4, 2, 1]).astype(int), minlength=8)
        chi_squared = ((counts - n * p) ** 2 / (n * p)).sum()
        assert (chi_squared < 7 + 4 * math.sqrt(14)) == stays, chi_squared


def test_one_gibbs_step_is_h_given_v_then_v_given_h():
    """Its transition probabilities, from the joint distribution of all (v, h)."""
    model, n = random_rbm(n_features=3, n_hidden=2), 60_000
    joint = np.exp(-energies(model))
    h_given_v, v_given_h = joint / joint.sum(axis=1, keepdims=True), joint / joint.sum(axis=0)
    for i, start in enumerate(all_states(3)[[1, 6]]):
        after = model.gibbs(np.tile(start, (n, 1)), Rng(i, "float64"), 1)
        found = np.bincount((after @ [4, 2, 1]).astype(int), minlength=8) / n
        np.testing.assert_allclose(found, h_given_v[[1, 6][i]] @ v_given_h.T, atol=0.01)


def test_hidden_means_are_conditional_expectations():
    model = random_rbm(n_features=3, n_hidden=4)
    joint = np.exp(-energies(model))
    expected = joint @ all_states(4) / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.hidden(all_states(3)), expected, atol=1e-12)


def test_long_chains_sample_the_model():
    model, n = random_rbm(n_steps=60), 40_000
    _, p = exact(model)
    drawn = model.sample(n, Rng(2, "float64"))
    found = np.bincount((drawn @ 2.0 ** np.arange(5)[::-1]).astype(int), minlength=32) / n
    assert np.abs(found - p).sum() < 0.04
    started = model.independent(n, Rng(3, "float64"))
    np.testing.assert_allclose(started.mean(axis=0), 1 / (1 + np.exp(-model.energy.base)), atol=0.01)


# ---- learning ----


def learn(model, v, p, steps, seed=0):
    """Train on fresh draws from a known distribution; the cross-entropy with it, exact."""
    rows = np.random.default_rng(seed).choice(len(v), (steps, model.batch), p=p)
    model.decay_steps = steps
    model.build(Rng(seed, "float64"))
    model.prepare(v[rows.ravel()], Rng((seed, 1), "float64"))
    for step in range(steps):
        model.train_step(v[rows[step]], Rng((seed, 2, step), "float64"))
    return -(p * model.log_p(v)).sum()


@pytest.mark.parametrize("settings", [{}, {"persistent": False, "gibbs_steps": 5}])
def test_it_learns_a_known_distribution_nearly_to_its_entropy(settings):
    v, p = known_distribution(4)
    marginals = p @ v
    independent = -(marginals * np.log(marginals) + (1 - marginals) * np.log(1 - marginals)).sum()
    assert independent > entropy(p) + 0.25  # there is something to learn
    model = RBM(n_features=4, n_hidden=12, lr=1.0, **settings)
    assert entropy(p) <= learn(model, v, p, 2000) < entropy(p) + 0.03


def test_before_training_the_machine_is_independent_pixels():
    x = (Rng(0).uniform((50, 6)) < 0.3).astype(np.float32)
    x[:, 2] = 0  # a pixel that is never black
    model = RBM(n_features=6, n_hidden=3, n_chains=4000).build(Rng(0))
    model.prepare(x, Rng(1))
    p = (x.sum(axis=0) + 0.5) / 51
    np.testing.assert_allclose(1 / (1 + np.exp(-model.energy.b)), p, rtol=1e-5)
    np.testing.assert_array_equal(model.energy.b, model.energy.base)
    np.testing.assert_allclose(model.energy.chains.mean(axis=0), p, atol=0.03)


def test_persistent_chains_go_on_where_they_were_and_others_start_at_the_data(monkeypatch):
    starts = []
    gibbs = RBM.gibbs
    monkeypatch.setattr(RBM, "gibbs", lambda self, v, rng, k: starts.append((v.copy(), k)) or gibbs(self, v, rng, k))
    for persistent in (True, False):
        starts.clear()
        model, batch = RBM.example(Rng(0), persistent=persistent, gibbs_steps=3)
        ends = [model.energy.chains.copy()]
        for step in range(3):
            model.train_step(**batch, rng=Rng(step))
            ends.append(model.energy.chains.copy())
        assert all(k == 3 for _, k in starts)
        if persistent:
            assert all(np.array_equal(start, end) for (start, _), end in zip(starts, ends))
            assert not np.array_equal(ends[0], ends[1])
        else:
            assert all(np.array_equal(start, model.visible(batch["x"], Rng(i))) for i, (start, _) in enumerate(starts))
            assert all(np.array_equal(end, ends[0]) for end in ends)


def test_the_loss_takes_the_persistent_chains_if_nothing_else_is_given():
    model, batch = RBM.example(Rng(0, "float64"))
    assert model.loss(batch["x"], None)["loss"] == model.loss(batch["x"], None, v=model.energy.chains.copy())["loss"]


def test_grey_pixels_are_binarized_afresh_and_whole_ones_stay():
    model = RBM.example(Rng(0))[0]
    grey = np.tile(np.array([0.0, 0.25, 0.9, 1.0], np.float32), (20_000, 1))
    a, b = (model.visible(grey, Rng(seed)) for seed in (1, 2))
    assert set(np.unique(a)) == {0.0, 1.0} and not np.array_equal(a, b)
    np.testing.assert_allclose(a.mean(axis=0), [0, 0.25, 0.9, 1], atol=0.015)
    np.testing.assert_array_equal(model.visible(a, Rng(3)), a)


def test_pseudo_likelihood_is_the_mean_over_pixels_of_p_of_each_given_the_others():
    model = random_rbm()
    states, p = exact(model)
    x = np.tile(states[11], (40_000, 1))
    flipped = np.abs(states[11] - np.eye(5))
    p_flipped = p[(flipped @ 2.0 ** np.arange(5)[::-1]).astype(int)]
    expected = -np.log(p[11] / (p[11] + p_flipped)).sum()
    assert model.evaluate(x, Rng(1, "float64"))["pseudo_nll"] == pytest.approx(expected, rel=0.02)


# ---- annealed importance sampling ----


def trained_rbm(seed):
    v, p = known_distribution(12, seed, spread=2.5)
    model = RBM(n_features=12, n_hidden=8, lr=0.3)
    learn(model, v, p, 600, seed)
    return model


@pytest.mark.parametrize("kind", ["small weights", "random weights", "large weights", "trained"])
def test_annealing_agrees_with_the_sum_over_all_states_within_a_twentieth_of_a_nat(kind):
    """12 visible and 8 hidden units, 300 chains over 600 temperatures."""
    scale = {"small weights": 0.1, "random weights": 1.0, "large weights": 3.0}.get(kind)
    for seed in range(4):
        model = random_rbm(seed, scale, n_features=12, n_hidden=8) if scale else trained_rbm(seed)
        found = annealed_log_z(model, Rng((seed, 1), "float64"), n_chains=300, n_betas=600)
        error = found.log_z - model.log_z()
        assert abs(error) < 0.05, (seed, error)
        assert abs(error) < 5 * found.standard_error + 1e-3 and found.standard_error < 0.03
        assert 200 < found.effective_sample_size <= 300


def test_the_estimate_of_z_is_right_on_average_at_any_number_of_temperatures():
    """That of log Z is not: it is too low. Few temperatures, so that the weights vary much."""
    model, n = random_rbm(4, 1.5, n_features=6, n_hidden=4), 20_000
    for n_betas in (1, 3, 10):
        log_w = log_weights(model, n, n_betas, Rng(n_betas, "float64")) - model.log_z()
        w = np.exp(log_w)
        assert abs(w.mean() - 1) < 4 * w.std() / math.sqrt(n)
        assert log_w.mean() < -0.02


def test_annealing_with_large_energies_stays_finite_in_single_precision():
    """e^(Δβ a) overflows float32 at 88; with one hidden unit of weight w, v = 1 or 0, Z = 2 + 1 + e^w."""
    for w in (300.0, -300.0):
        model = RBM(n_features=1, n_hidden=1, n_chains=2).build(Rng(0))
        model.energy.W[...] = w
        model.params.changed()
        found = annealed_log_z(model, Rng(1), n_chains=2000, n_betas=2)
        assert np.isfinite(found.log_weights).all()
        assert found.log_z == pytest.approx(np.logaddexp(np.log(3), w), abs=0.2)


def test_more_temperatures_make_weights_more_alike():
    model = random_rbm(1, 2.0, n_features=8, n_hidden=6)
    estimates = [annealed_log_z(model, Rng(1, "float64"), 200, n) for n in (3, 30, 300)]
    assert np.all(np.diff([e.effective_sample_size for e in estimates]) > 0)
    assert np.all(np.diff([e.standard_error for e in estimates]) < 0)


def test_the_standard_error_is_how_far_estimates_lie_apart():
    model = random_rbm(2, 1.5, n_features=6, n_hidden=4)
    found = [annealed_log_z(model, Rng((seed, 3), "float64"), 100, 20) for seed in range(60)]
    apart = np.std([e.log_z for e in found])
    assert np.mean([e.standard_error for e in found]) == pytest.approx(apart, rel=0.35)


def test_independent_pixels_are_known_at_once():
    """W = 0 and b = b_A: nothing changes with the temperature, so every weight is Z itself."""
    model = random_rbm(n_features=12, n_hidden=8)
    model.energy.W[...], model.energy.c[...] = 0, 0
    model.energy.b[...] = model.energy.base
    found = annealed_log_z(model, Rng(0, "float64"), 10, 1)
    assert found.log_z == pytest.approx(model.log_z(), rel=1e-14) and found.standard_error < 1e-12
    assert found.effective_sample_size == pytest.approx(10)


def test_many_chains_run_in_parts():
    model = random_rbm(n_features=4, n_hidden=3)
    found = annealed_log_z(model, Rng(0, "float64"), 2500, 5)
    assert found.log_weights.shape == (2500,) and found.log_weights.dtype == np.float64
    assert found.log_z == pytest.approx(model.log_z(), abs=0.05)


def test_single_precision_is_enough():
    model = random_rbm(n_features=12, n_hidden=8)
    again = RBM(n_features=12, n_hidden=8, n_chains=50).build(Rng(0))
    again.load_state(model.state())
    found = annealed_log_z(again, Rng(1), 300, 600)
    assert found.log_z == pytest.approx(model.log_z(), abs=0.05) and found.log_weights.dtype == np.float64


def test_the_nll_and_its_error():
    model = random_rbm(n_features=12, n_hidden=8)
    x = (Rng(1, "float64").uniform((300, 12)) < 0.5).astype(float)
    estimate = annealed_log_z(model, Rng(0, "float64"), 300, 600)
    found, costs = annealed(model, x, estimate, Rng(2)), -model.log_p(x)
    assert found.nll == pytest.approx(costs.mean(), abs=0.05)
    by_examples = costs.std(ddof=1) / math.sqrt(300)
    assert found.standard_error == pytest.approx(math.hypot(by_examples, estimate.standard_error), rel=1e-6)
    assert found.chance == estimate.standard_error
    assert "300 chains, 600 temperatures" in str(found)


# ---- no setting is dead ----

OTHER = {
    "gibbs_steps": 3, "persistent": False, "n_chains": 5, "n_steps": 9, "batch": 8, "lr": 0.02,
    "weight_decay": 0.2, "decay_steps": 3,
}  # fmt: skip
NETWORKS = {"n_features", "n_hidden"}


def after_four_steps(settings):
    model, batch = RBM.example(Rng(0, "float64"), **settings)
    for step in range(4):
        model.train_step(**batch, rng=model.rng(step))
    return model.params.theta.copy(), model.sample(20, model.rng(9))


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    (theta, x), (other, other_x) = (after_four_steps(settings) for settings in ({}, {setting: OTHER[setting]}))
    assert np.array_equal(theta, other) == (setting in RBM.sampler_settings)
    assert setting not in RBM.sampler_settings or not np.array_equal(x, other_x)


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(RBM)} - NETWORKS == OTHER.keys()


def test_the_rate_stays_for_half_of_the_rounds_and_then_falls_to_nothing():
    model, batch = RBM.example(Rng(0), decay_steps=10, lr=0.1)
    rates = []
    for step in range(12):
        model.train_step(**batch, rng=model.rng(step))
        rates.append(model.sgd.rate(int(model.sgd.t[0])))
    np.testing.assert_allclose(rates[:5], 0.1)
    assert 0 < rates[8] < 0.05
    np.testing.assert_allclose(rates[10:], 0, atol=1e-12)


# ---- mistakes ----


def test_what_it_cannot_take_is_refused_in_one_line():
    model = random_rbm()
    with pytest.raises(ValueError, match=r"FreeEnergy.* got an input of shape \(3, 4\), expected \(B, 5\)"):
        model.free_energy(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="log_p: v must be 0 or 1 everywhere"):
        model.log_p(np.full((2, 5), 0.5))
    with pytest.raises(UsageError, match=r"at most 20 units, but the smaller side has 21: use metrics/annealed\.py"):
        RBM(n_features=30, n_hidden=21).build(Rng(0)).log_z()
    with pytest.raises(UsageError, match=r"RBM needs pixels in \[0, 1\], but this data ranges from -1 to 2"):
        fit(RBM(n_features=2, batch=2).build(Rng(0)), np.array([[-1.0, 2], [0, 1]]), epochs=1, progress=False)
    with pytest.raises(ValueError, match="n_chains=1 and n_betas=10; expected at least 2 and 1"):
        annealed_log_z(model, Rng(0), 1, 10)


def test_from_the_command_line(tmp_path, capsys):
    out = str(tmp_path / "run")
    train = ["train", "rbm", "--data", "digits", "--epochs", "2", "--out", out]
    assert main([*train, "--set", "n_hidden=16", "n_steps=20"]) == 0
    assert "test_pseudo_nll" in capsys.readouterr().out
    assert main(["evaluate", out]) == main(["sample", out, "-n", "4", "-o", str(tmp_path / "x.npy")]) == 0
    assert set(np.unique(np.load(tmp_path / "x.npy"))) == {0.0, 1.0}
    assert main(["train", "rbm", "--data", "ring", "--epochs", "1", "--out", str(tmp_path / "ring")]) == 2
    assert "needs pixels in [0, 1]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.needs("mnist")
def test_two_thirds_of_a_pass_over_mnist_with_16_hidden_units():
    """So few that log Z is exact; annealing is held against it on 784 pixels."""
    data = binarized(load("mnist"))
    model = RBM(n_hidden=16, lr=0.2, decay_steps=400).build(Rng(0))
    fit(model, data.x_train[:40_000], epochs=1, progress=False)
    x, log_z = data.x_test, model.log_z()
    p = (data.x_train.sum(axis=0) + 0.5) / (len(data.x_train) + 1)
    independent = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1).mean()
    found = -model.log_p(x, log_z).mean()
    assert independent > 200 and found < 175, found  # 164
    assert annealed_log_z(model, Rng(1), 100, 500).log_z == pytest.approx(log_z, abs=0.5)
