"""Grey levels with noise: there and back is the identity, the noise is uniform, and log p of it is a bound."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.data import load
from scratchgen.models.ddpm import DDPM
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.models.latent_flow import LatentFlow
from scratchgen.models.parts.levels import dequantise, quantise
from scratchgen.train.fit import fit

F64 = "float64"
both = pytest.mark.parametrize(("kind", "predict"), [(DDPM, "v"), (FlowMatching, "velocity")])


def pixels(levels, shape, seed=1, dtype=F64):
    return (Rng((seed, 3)).integers(levels, shape) / (levels - 1)).astype(dtype)


@given(seed=st.integers(0, 10_000), levels=st.integers(2, 300))
def test_there_and_back_is_the_identity(seed, levels):
    x = pixels(levels, (20, 5), seed)
    x_prime = dequantise(x, levels, Rng((seed, 1), F64))
    assert x_prime.min() >= 0 and x_prime.max() <= 1
    np.testing.assert_array_equal(quantise(x_prime, levels), x)


@given(levels=st.integers(2, 300))
def test_numbers_outside_become_black_or_white(levels):
    x = np.array([-3.0, -1e-9, 0.0, 1.0, 1.2, 50.0])
    np.testing.assert_array_equal(quantise(x, levels), [0, 0, 0, 1, 1, 1])
    grey = quantise(np.linspace(-0.5, 1.5, 10_001), levels)
    assert len(np.unique(grey)) == levels  # each of them, and nothing else


def test_within_a_level_it_is_uniform_and_in_float32_float32():
    levels, n = 17, 100_000
    for k in (0, 5, 16):
        x = np.full(n, k / (levels - 1), np.float32)
        x_prime = dequantise(x, levels, Rng(1))
        u = levels * x_prime - k
        assert x_prime.dtype == quantise(x_prime, levels).dtype == np.float32
        assert u.mean() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / n))
        assert u.var() == pytest.approx(1 / 12, abs=0.002)
        assert u.min() > -1e-5 and u.max() < 1 + 1e-5


# ---- in the models ----


@both
def test_a_network_learns_from_pixels_with_noise(kind, predict):
    """And without levels from the pixels themselves."""
    x = pixels(4, (500, 6))
    for levels in (0, 4):
        model, _ = kind.example(Rng(0, F64), predict=predict, levels=levels)
        seen = model.scaled(x, Rng(1, F64)) / 2 + 0.5
        wanted = dequantise(x, 4, Rng(1, F64)) if levels else x
        np.testing.assert_allclose(seen, wanted, atol=1e-14)
        np.testing.assert_allclose(model.unscaled(2 * wanted - 1), x, atol=1e-14)


@both
def test_samples_have_grey_levels(kind, predict):
    model, _ = kind.example(Rng(0, F64), predict=predict, levels=4)
    x = 3 * model.sample(50, Rng(1, F64))
    np.testing.assert_allclose(x, np.rint(x), atol=1e-12)
    assert x.min() >= 0 and x.max() <= 3 and len(np.unique(x.round())) > 1


@both
def test_the_scale_is_that_of_pixels_with_noise(kind, predict):
    model, _ = kind.example(Rng(0, F64), predict=predict, levels=4, scaling="standard")
    x = pixels(4, (4000, 6))
    x[:, 0] = 0  # a column that never changes: its noise does
    model.prepare(x, Rng(1, F64))
    assert model.scaler.std[0] == pytest.approx(0.25 / math.sqrt(12), rel=0.05)
    x_0 = model.scaled(x, Rng(2, F64))
    np.testing.assert_allclose(x_0.std(axis=0), 1, atol=0.05)


@both
def test_log_p_of_noise_is_a_bound_on_that_of_pixels(kind, predict):
    """A density on [0, 1] integrates over the cell of a pixel to its probability, whose log is at least the mean log p."""
    model = kind(n_features=1, predict=predict, levels=3, width=6, n_blocks=1, n_waves=4).build(Rng(1, F64))
    model.params.theta += 0.3 * Rng(2, F64).normal(model.params.theta.shape)
    model.average.average[...] = model.params.theta
    for k in range(3):
        u = (np.arange(200) + 0.5) / 200
        log_p = model.ode_log_prob((k + u[:, None]) / 3, n_steps=20)
        P = np.exp(log_p).mean() / 3  # the integral over the cell, of width 1/3
        assert log_p.mean() - math.log(3) <= math.log(P) <= log_p.max() - math.log(3)


# ---- refused ----


@both
def test_other_data_is_refused(kind, predict):
    model = kind(n_features=6, predict=predict, levels=17, n_classes=3, width=4, n_waves=4, batch=4)
    model.build(Rng(0))
    good = pixels(17, (20, 6), dtype="float32")
    model.check_data(good)
    for bad in (Rng(1).uniform((20, 6)), pixels(18, (20, 6), dtype="float32")):
        with pytest.raises(UsageError, match=r"^levels=17 needs pixels 0, 1/16, \.\.\. 1; use as many levels as"):
            fit(model, bad, epochs=1, progress=False)
    points = kind(n_features=6, predict=predict, levels=17, scaling="standard")
    for bad in (good - 1, good + 1):
        with pytest.raises(UsageError, match=r"^levels=17 needs pixels"):
            points.check_data(bad)


def test_the_digits_have_17_levels():
    data = load("digits")
    FlowMatching(n_features=64, predict="velocity", levels=17).check_data(data.x_train)
    FlowMatching(n_features=64, predict="velocity", levels=17).check_data(data.x_test)


def test_features_have_no_levels():
    with pytest.raises(UsageError, match=r"^LatentFlow setting levels: features have no grey levels; use levels=0$"):
        LatentFlow(levels=17)
    with pytest.raises(UsageError, match=r"^DDPM setting levels: logits predict pixels without .*; use predict=v, or"):
        DDPM(levels=17)
