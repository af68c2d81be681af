"""The deep belief network against sums over all its states: its bound, its samples; and the machine below stands still."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from test_rbm import all_states, entropy, known_distribution, random_rbm

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import binarized, load
from scratchgen.metrics.annealed import annealed_log_z
from scratchgen.models.dbn import DBN
from scratchgen.models.rbm import RBM
from scratchgen.train.checkpoint import load_model, read_checkpoint, save_checkpoint
from scratchgen.train.fit import fit


def random_dbn(seed=0, scale=1.0, n_features=4, n_hidden=3, n_top=5, **settings):
    """A float64 DBN of n_features pixels, n_hidden units and n_top units, all weights drawn at random."""
    lower = random_rbm(seed, scale, n_features=n_features, n_hidden=n_hidden)
    model = DBN(n_features=n_features, n_hidden=n_top, rbm=lower, **settings).build(Rng((seed, 1), "float64"))
    model.params.theta[...] = scale * Rng((seed, 9), "float64").normal(model.params.theta.shape)
    return model


def exact(model):
    """Every x, and log p(x) = log Σ_h p(x|h) p_top(h), p(x|h) pixel by pixel."""
    x, h = all_states(model.n_features), all_states(model.n_visible)
    p_top = np.exp(-model.free_energy(h))
    p_top /= p_top.sum()
    black = 1 / (1 + np.exp(-(h @ model.rbm.energy.W.T + model.rbm.energy.b)))  # (all h, n_features)
    p_x = np.where(x[:, None] == 1, black, 1 - black).prod(axis=2)  # (all x, all h)
    return x, np.log(p_x @ p_top)


def exact_bound(model, log_z):
    """The bound on log p(x) of every x, by a sum over all h in place of draws."""
    x, h = all_states(model.n_features), all_states(model.n_visible)
    q_on, black = (1 / (1 + np.exp(-logits)) for logits in (model.rbm.energy.up(x), model.rbm.energy.down(h)))
    q = np.where(h == 1, q_on[:, None], 1 - q_on[:, None]).prod(axis=2)  # (all x, all h)
    log_p_x = np.log(np.where(x[:, None] == 1, black, 1 - black)).sum(axis=2)
    return (q * (log_p_x - model.free_energy(h) - log_z - np.log(q))).sum(axis=1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_the_bound_is_a_bound_and_what_it_is_said_to_be(scale):
    for seed in range(3):
        model = random_dbn(seed, scale)
        x, log_p = exact(model)
        assert np.exp(log_p).sum() == pytest.approx(1)
        found = model.bound(x, model.log_z(), Rng(1, "float64"), n_draws=4000)
        np.testing.assert_allclose(found, exact_bound(model, model.log_z()), atol=0.05 * (1 + scale**2))
        assert (exact_bound(model, model.log_z()) < log_p).all()
        assert (found < log_p + 0.05 * scale).all()


def test_with_the_lower_machine_on_top_the_bound_is_exact_and_both_models_are_one():
    """As Hinton, Osindero & Teh have it: q(h|x) is then the true posterior."""
    lower = random_rbm(n_features=4, n_hidden=3)
    model = DBN(n_features=4, n_hidden=4, rbm=lower).build(Rng(0, "float64"))
    model.trained = True
    model.prepare((Rng(1, "float64").uniform((50, 4)) < 0.5).astype(float), Rng(2, "float64"))
    x, log_p = exact(model)
    np.testing.assert_allclose(log_p, lower.log_p(x), atol=1e-12)
    np.testing.assert_allclose(exact_bound(model, model.log_z()), log_p, atol=1e-12)
    assert model.log_z() == pytest.approx(lower.log_z())
    np.testing.assert_allclose(model.bound(x, model.log_z(), Rng(3, "float64"), n_draws=1), log_p, atol=1e-12)


def test_the_bound_and_log_p_rise_as_the_top_learns():
    v, p = known_distribution(4)
    rows = np.random.default_rng(0).choice(len(v), 40_000, p=p)
    lower = RBM(n_features=4, n_hidden=4, lr=0.5).build(Rng(0, "float64"))
    fit(lower, v[rows][:4000], epochs=10, progress=False)  # stopped early: something is left to learn
    model = DBN(n_features=4, n_hidden=16, rbm=lower, lr=1.0, decay_steps=1200).build(Rng(1, "float64"))
    start = DBN(n_features=4, n_hidden=4, rbm=lower).build(Rng(1, "float64"))
    start.prepare(v[rows], Rng(2, "float64"))
    fit(model, v[rows], epochs=3, progress=False)
    bounds = [(p * exact_bound(m, m.log_z())).sum() for m in (start, model)]
    log_p = [(p * exact(m)[1]).sum() for m in (start, model)]
    assert bounds[0] == pytest.approx((p * lower.log_p(v)).sum())
    assert bounds[0] + 0.02 < bounds[1] <= log_p[1] <= -entropy(p)


def test_samples_come_as_often_as_p_says():
    model, n = random_dbn(n_steps=50), 40_000
    x, log_p = exact(model)
    drawn = model.sample(n, Rng(3, "float64"))
    found = np.bincount((drawn @ 2.0 ** np.arange(4)[::-1]).astype(int), minlength=len(x)) / n
    assert np.abs(found - np.exp(log_p)).sum() < 0.03
    assert set(np.unique(drawn)) == {0.0, 1.0}


def test_what_the_top_learns_from_are_draws_of_h():
    model = random_dbn()
    x = np.tile([[1.0, 0, 1, 0]], (40_000, 1))
    h = model.visible(x, Rng(1, "float64"))
    assert h.shape == (40_000, 3) and set(np.unique(h)) == {0.0, 1.0}
    np.testing.assert_allclose(h.mean(axis=0), model.rbm.hidden(x[:1])[0], atol=0.01)
    np.testing.assert_allclose(np.cov(h.T)[0, 1:], 0, atol=0.005)  # independent, given x


def test_annealing_finds_log_z_of_the_top():
    model = random_dbn(n_features=6, n_hidden=10, n_top=8)
    estimate = annealed_log_z(model, Rng(1, "float64"), 300, 600)
    assert estimate.log_z == pytest.approx(model.log_z(), abs=0.05)


# ---- the machine below ----


def trained(epochs=1, **settings):
    x = load("digits").x_train
    rbm = RBM(n_features=64, n_hidden=12).build(Rng(0))
    fit(rbm, x, epochs=2, progress=False)
    model = DBN(n_features=64, n_hidden=20, rbm=rbm, n_steps=20, **settings).build(Rng(1))
    fit(model, x, epochs=epochs, progress=False)
    return rbm, model


def test_the_rbm_below_is_the_one_given_and_stands_still():
    rbm, model = trained(epochs=2)
    assert model.rbm is not rbm
    assert {key: array.tobytes() for key, array in model.rbm.params.state().items()} == {
        key: array.tobytes() for key, array in rbm.params.state().items()
    }
    assert {name.partition(".")[0] for name in model.state()} == {"params", "sgd", "rbm"}


def test_the_rbm_travels_with_the_checkpoint(tmp_path):
    _, model = trained()
    save_checkpoint(tmp_path / "checkpoint.npz", model)
    again, notes = load_model(tmp_path / "checkpoint.npz")
    assert notes["settings"]["rbm"] == model.rbm.settings()
    assert (again.sample(5, Rng(1)) == model.sample(5, Rng(1))).all()


def test_the_top_starts_at_the_means_of_h_or_as_the_machine_below():
    rbm, model = trained(lr=1e-12)
    mean = rbm.hidden(rbm.visible(load("digits").x_train, Rng(3))).mean(axis=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-model.energy.b)), mean, atol=0.03)
    np.testing.assert_array_equal(model.energy.base, model.energy.b)
    assert np.abs(model.energy.W).max() < 0.1
    x = load("digits").x_train
    same = DBN(n_features=64, n_hidden=64, rbm=rbm, lr=1e-12).build(Rng(1))
    fit(same, x, epochs=1, progress=False)
    np.testing.assert_allclose(same.energy.W, rbm.energy.W.T, atol=1e-6)
    np.testing.assert_allclose(same.energy.c, rbm.energy.b, atol=1e-6)


# ---- no setting is dead ----

OTHER = {
    "gibbs_steps": 3, "persistent": False, "n_chains": 5, "n_steps": 9, "batch": 8, "lr": 0.02, "weight_decay": 0.2,
    "decay_steps": 3,
}  # fmt: skip
NETWORKS = {"n_features", "n_hidden", "rbm"}


def after_four_steps(settings):
    model, batch = DBN.example(Rng(0, "float64"), **settings)
    for step in range(4):
        model.train_step(**batch, rng=model.rng(step))
    return model.params.theta.copy(), model.sample(20, model.rng(9))


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    (theta, x), (other, other_x) = (after_four_steps(settings) for settings in ({}, {setting: OTHER[setting]}))
    assert np.array_equal(theta, other) == (setting in DBN.sampler_settings)
    assert setting not in DBN.sampler_settings or not np.array_equal(x, other_x)


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(DBN)} - NETWORKS == OTHER.keys()


# ---- mistakes, and the command line ----


def test_a_machine_that_does_not_fit_is_refused_in_one_line():
    _, model = trained()
    with pytest.raises(UsageError, match=r"DBN setting rbm: .*784.*64"):
        DBN(n_features=64)
    with pytest.raises(UsageError, match="expected an RBM, got a DBN; a DBN stacks exactly two"):
        DBN(n_features=64, rbm=model)
    with pytest.raises(UsageError, match="DBN setting rbm: expected a RBM or its settings, got 'runs'"):
        DBN(rbm="runs")
    with pytest.raises(UsageError, match="train an RBM first"):
        untrained = RBM(n_features=64, n_hidden=5).build(Rng(0))
        fit(DBN(n_features=64, rbm=untrained).build(Rng(0)), load("digits").x_train, epochs=1, progress=False)
    with pytest.raises(ValueError, match="bound: x must be 0 or 1 everywhere"):
        model.bound(np.full((2, 64), 0.5), 0.0, Rng(0))
    with pytest.raises(ValueError, match=r"\(2, 63\), expected \(B, 64\)"):
        model.bound(np.zeros((2, 63)), 0.0, Rng(0))
    with pytest.raises(ValueError, match=r"\(2, 64\), expected \(B, 12\)"):  # of h, not of pictures
        model.log_p(np.zeros((2, 64)), 0.0)


def test_from_the_command_line(tmp_path, capsys):
    rbm, out = str(tmp_path / "rbm"), str(tmp_path / "run")
    assert main(["train", "rbm", "--epochs", "1", "--out", rbm, "--set", "n_hidden=10"]) == 0
    assert main(["train", "dbn", "--epochs", "1", "--out", out, "--set", "n_hidden=8", "n_steps=20", f"rbm={rbm}"]) == 0
    (_, inside), (_, arrays) = (read_checkpoint(Path(folder) / "checkpoint.npz") for folder in (rbm, out))
    assert (arrays["rbm.params.theta"] == inside["params.theta"]).all()
    assert main(["evaluate", out]) == main(["sample", out, "-n", "4", "-o", str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (4, 64)
    capsys.readouterr()
    assert main(["train", "dbn", "--epochs", "1", "--out", str(tmp_path / "other"), "--set", "n_hidden=8"]) == 0
    assert "a dbn is built on a rbm: training one first" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.needs("mnist")
def test_a_second_layer_raises_the_bound_on_mnist():
    """The lower machine is small, so that its log p is exact: 16 hidden units, and the top has an exact log Z, too."""
    data = binarized(load("mnist"))
    rbm = RBM(n_hidden=16, lr=0.2, decay_steps=400).build(Rng(0))
    fit(rbm, data.x_train[:40_000], epochs=1, progress=False)
    model = DBN(rbm=rbm, n_hidden=40, lr=0.5, decay_steps=1200).build(Rng(1))
    fit(model, data.x_train, epochs=2, progress=False)
    alone = rbm.log_p(data.x_test).mean()
    assert model.bound(data.x_test, model.log_z(), Rng(2)).mean() > alone + 0.8  # 1.8


def test_what_it_finds_of_h_is_called_so():
    model, batch = DBN.example(Rng(0))
    assert model.evaluate(batch["x"], Rng(1)).keys() == {"top_reconstruction", "top_pseudo_nll"}
