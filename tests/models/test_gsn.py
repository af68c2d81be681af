"""The generative stochastic network: its damage, that its chain finds the data's distribution, and what walk-back does."""

import dataclasses
import json

import numpy as np
import pytest

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import load
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.gsn import GSN
from scratchgen.nn.losses import bernoulli_nll
from scratchgen.train.fit import fit

# ---- the damage and the loss ----


@pytest.mark.parametrize(("corruption", "black", "white"), [("salt_and_pepper", 0.85, 0.15), ("mask", 0.7, 0.0)])
def test_struck_pixels_are_salt_and_pepper_or_nothing(corruption, black, white):
    model = GSN.example(Rng(0), corruption=corruption, corruption_rate=0.3)[0]
    for x, wanted in ((1, black), (0, white)):
        damaged = model.damaged(np.full((20_000, 6), x, np.float32), Rng(1))
        assert set(np.unique(damaged)) <= {0.0, 1.0} and damaged.dtype == np.float32
        assert damaged.mean() == pytest.approx(wanted, abs=0.01)
        assert damaged.mean(axis=0).std() < 0.01  # pixels are struck one by one, not whole columns or rows
        assert damaged.mean(axis=1).std() == pytest.approx((wanted * (1 - wanted) / 6) ** 0.5, abs=0.01)


def test_the_target_is_the_clean_picture_all_along_the_walk():
    """The loss of k steps, by the definition: each from where a draw of the last one's means led."""
    model, batch = GSN.example(Rng(0, "float64"), walk_steps=3)
    rng, replay = Rng(5, "float64"), Rng(5, "float64")
    found = model.loss(batch["x"], rng)["loss"]
    v, costs = (replay.uniform((4, 6)) < batch["x"]).astype(float), []
    for _ in range(3):
        logits = model.network(model.damaged(v, replay))
        costs.append(bernoulli_nll(logits, batch["x"])[0])
        v = (replay.uniform((4, 6)) < 1 / (1 + np.exp(-logits))).astype(float)
    assert found == pytest.approx(np.mean(costs), rel=1e-13)
    assert len({*map(float, costs)}) == 3


def test_one_step_is_a_denoising_autoencoder():
    model, batch = GSN.example(Rng(0, "float64"), walk_steps=1, averaging=0.0)
    model.average.step()
    assert model.loss(**batch, rng=Rng(1, "float64"))["loss"] == pytest.approx(
        model.evaluate(**batch, rng=Rng(1, "float64"))["denoising_nll"]
    )


# ---- the chain ----


def patterns():
    """Four pictures of 8 pixels, at least 4 pixels apart, and how often each comes."""
    x = np.array(
        [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0, 1, 0]]
    )
    return x.astype(np.float32), np.array([0.4, 0.3, 0.2, 0.1])


def learned(x, p, seed=0, steps=1200, **settings):
    """A GSN of one small hidden layer, trained on pictures x that come with probabilities p."""
    settings = {"hidden": (64,), "lr": 5e-3, "averaging": 0.99} | settings
    model = GSN(n_features=x.shape[1], decay_steps=steps, **settings).build(Rng(seed))
    rows = np.random.default_rng(seed).choice(len(x), (steps, model.batch), p=p)
    for step in range(steps):
        model.train_step(x[rows[step]], Rng((seed, step)))
    return model


def shares(model, x, n=4000):
    """How often each picture of x is among the black and white pictures that chains end at, (len(x),)."""
    v = (model.sample(n, Rng(7)) > 0.5).astype(np.float32)
    return (v[:, None] == x).all(axis=2).mean(axis=0)


def test_the_chain_finds_each_pattern_as_often_as_it_comes():
    x, p = patterns()
    found = shares(learned(x, p, corruption_rate=0.05, walk_steps=4, n_burn=100), x)
    np.testing.assert_allclose(found, p, atol=0.06)
    assert found.sum() > 0.97


def test_the_chain_forgets_where_it_started():
    x, p = patterns()
    model = learned(x, p, corruption_rate=0.5, walk_steps=1)
    ends = [model.walk(np.tile(start, (3000, 1)), Rng(3), 60)[-1].mean(axis=0) for start in (x[0], x[3])]
    np.testing.assert_allclose(*ends, atol=0.05)


def test_walk_back_leads_home_from_where_no_picture_is():
    """Of chains from random pixels fewer are still at none of eight patterns of 64 pixels after a few steps."""
    x = (np.random.default_rng(5).random((8, 64)) < 0.5).astype(np.float32)
    lost = {1: [], 5: []}
    for k, found in lost.items():
        model = learned(x, np.full(8, 1 / 8), steps=600, walk_steps=k, corruption_rate=0.2, lr=2e-3)
        for model.n_burn in (3, 10):
            found.append(1 - shares(model, x).sum())
    assert lost[1][0] > 0.4 and lost[5][0] < 0.85 * lost[1][0], lost
    assert lost[5][1] < 0.5 * lost[1][1], lost


def test_n_steps_in_a_row_come_from_each_chain():
    model = GSN.example(Rng(0), n_burn=4, samples_per_chain=3)[0]
    x = model.sample(7, Rng(1))  # three chains
    rng = Rng(1)
    means = model.walk((rng.uniform((3, 6)) < 0.5).astype(np.float32), rng, 6)
    np.testing.assert_array_equal(x, np.concatenate(means[3:])[:7])


def test_samples_are_means_by_the_averaged_weights():
    model = GSN.example(Rng(0))[0]
    model.average.average[...] = 0
    assert (model.sample(4, Rng(1)) == 0.5).all()  # the sigmoid of 0
    assert model.params.theta.any()


# ---- no setting is dead ----

OTHER = {
    "corruption": "mask", "corruption_rate": 0.7, "walk_steps": 5, "n_burn": 7, "samples_per_chain": 3,
    "activation": "tanh", "batch": 8, "lr": 2e-3,
    "decay_steps": 3, "averaging": 0.3,
}  # fmt: skip
NETWORKS = {"n_features", "hidden"}


def after_four_steps(settings):
    model, batch = GSN.example(Rng(0, "float64"), **settings)
    for step in range(4):
        model.train_step(**batch, rng=model.rng(step))
    return model.params.theta.copy(), model.sample(4, model.rng(9))


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    (theta, x), (other, other_x) = (after_four_steps(settings) for settings in ({}, {setting: OTHER[setting]}))
    assert not np.array_equal(x, other_x)
    assert np.array_equal(theta, other) == (setting in GSN.sampler_settings or setting == "averaging")


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(GSN)} - NETWORKS == OTHER.keys()


# ---- mistakes, and the command line ----


def test_what_it_cannot_take_is_refused_in_one_line():
    for noise in (0.0, 1.5):
        with pytest.raises(
            UsageError, match=rf"GSN setting corruption_rate: expected a number > 0 and <= 1, got {noise}"
        ):
            GSN(corruption_rate=noise)
    with pytest.raises(UsageError, match=r"GSN needs pixels in \[0, 1\], but this data ranges from -1 to 2"):
        fit(GSN(n_features=2, batch=2).build(Rng(0)), np.array([[-1.0, 2], [0, 1]]), epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"\(3, 5\), expected \(B, 6\)"):
        GSN.example(Rng(0))[0].walk(np.zeros((3, 5), np.float32), Rng(0), 1)


def test_from_the_command_line(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "gsn", "--epochs", "1", "--out", out, "--set", "hidden=16", "n_burn=5"]) == 0
    assert main(["sample", out, "-n", "4", "-o", str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (4, 64)
    capsys.readouterr()
    assert main(["evaluate", out, "--json"]) == 0
    assert {"denoising_nll", "frechet", "frechet_floor"} <= json.loads(capsys.readouterr().out).keys()


@pytest.mark.slow
def test_the_chain_writes_digits():
    """Fréchet distances of 5 to 9.5 were found, after 10 to 400 steps from random pixels; real ones have 1.1."""
    data = load("digits")
    model = GSN(n_features=64, hidden=(256, 256), corruption_rate=0.1, walk_steps=1, batch=50, decay_steps=2800).build(
        Rng(0)
    )
    fit(model, data.x_train, epochs=100, progress=False)
    judge, n = FrechetJudge(data), len(data.x_test)
    assert judge.distance(model.sample(n, Rng(1))) <= 12 * judge.floor(n).mean
    assert judge.classes(model.sample(2_000, Rng(2))).min() >= 0.02


def test_a_long_burn_in_is_not_kept():
    model, batch = GSN.example(Rng(0))
    v = (batch["x"] > 0.5).astype(np.float32)
    whole, last = model.walk(v, Rng(1), 9), model.walk(v, Rng(1), 9, keep=2)
    assert len(whole) == 9 and len(last) == 2
    np.testing.assert_array_equal(whole[-2:], last)
