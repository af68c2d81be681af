"""MADE: its output d sees earlier features alone, its probabilities sum to 1, it learns, draws and completes by them."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import simcupy
from hypothesis import given
from hypothesis import strategies as st
from simcupy.runner import Runner

from scratchgen import Rng, UsageError, kernels
from scratchgen.__main__ import main
from scratchgen.backend import to_host
from scratchgen.check.gradcheck import check_layer
from scratchgen.commands.settings import parse_settings
from scratchgen.data import load
from scratchgen.models import made
from scratchgen.models.made import MADE
from scratchgen.models.parts.masked import MaskedLinear, MaskedMLP
from scratchgen.nn.layers import matmul
from scratchgen.train.fit import fit
from scratchgen.uses import completion

# Small models of every kind: bits and tokens, one order and several, with and without each kind of layer.
KINDS = [
    {"n_features": 8},
    {"n_features": 7, "hidden": (9, 6)},
    {"n_features": 7, "direct": False},
    {"n_features": 7, "hidden": ()},
    {"n_features": 6, "order": "agnostic", "n_orders": 3, "hidden": (8, 8)},
    {"n_features": 5, "n_values": 3},
    {"n_features": 4, "n_values": 4, "order": "agnostic", "n_orders": 3, "hidden": (6, 5), "direct": False},
    {"n_features": 1},
    {"n_features": 1, "n_values": 5, "order": "agnostic"},
]
every_kind = pytest.mark.parametrize("settings", KINDS)


def random_model(seed=0, scale=1.0, **settings):
    """A float64 model whose weights, all of them and the averaged ones too, are drawn at random."""
    rng = Rng((seed, 8), "float64")
    model = MADE(**{"n_embed": 3, "hidden": (9,)} | settings).build(rng)
    model.params.theta[...] = scale * rng.normal(model.params.theta.shape)
    model.average.average[...] = model.params.theta
    return model


def all_x(model):
    """Every x there is, (n_values ** n_features, n_features)."""
    x = list(itertools.product(range(model.n_values), repeat=model.n_features))
    return np.array(x, dtype=int if model.n_values > 2 else float)


def places(model, k):
    """At which place of the k-th order each feature stands, 1 ... n_features."""
    return model.network.degree[k][: model.n_features].astype(int)


def n_orders(model):
    return len(model.network.degree)


def log_softmax(l):
    return l - np.log(np.exp(l).sum(axis=-1, keepdims=True))


def logits(model, x, k):
    """(N, n_features, 1), or of tokens (N, n_features, n_values)."""
    return model.conditionals(x, k, None)[0].reshape(*x.shape, -1)


def log_choices(model, x, k):
    """log p(x_d = v | x_<d) of every feature and value, (N, n_features, n_values), from the logits."""
    l = logits(model, x, k)
    return log_softmax(np.concatenate([0 * l, l], axis=2) if model.n_values == 2 else l)


def log_sum(log_p, axis=0):
    return np.log(np.exp(log_p).sum(axis=axis))


# ---- what sees what ----


@given(
    seed=st.integers(0, 2**32 - 1),
    n_features=st.integers(1, 9),
    n_values=st.sampled_from([2, 2, 3, 4]),
    hidden=st.lists(st.integers(1, 12), max_size=3),
    direct=st.booleans(),
    orders=st.integers(0, 3),
)
def test_an_output_sees_earlier_features_alone_and_with_direct_connections_all_of_them(
    seed, n_features, n_values, hidden, direct, orders
):
    order = {"order": "agnostic", "n_orders": orders} if orders else {}
    model = random_model(seed, n_features=n_features, n_values=n_values, hidden=tuple(hidden), direct=direct, **order)
    rng = Rng(seed, "float64")
    x = rng.integers(n_values, (1, n_features))
    for k in range(n_orders(model)):
        place = places(model, k)
        before = logits(model, x, k)
        for i in range(n_features):
            other = x.copy()
            other[0, i] = (x[0, i] + 1) % n_values
            changed = (logits(model, other, k) != before).any(axis=2)[0]
            later = place > place[i]
            assert not (changed & ~later).any()
            if direct or not hidden:
                assert (changed == later).all()


@pytest.mark.parametrize("hidden", [(8,), (11,), (8, 8), (20, 9)])
@pytest.mark.parametrize("order", ["natural", "agnostic"])
def test_hidden_layers_alone_show_every_earlier_feature(hidden, order):
    model = random_model(n_features=9, hidden=hidden, direct=False, order=order)
    for layer in model.network.hidden:
        layer.W[...], layer.b[...] = np.abs(layer.W), 1  # no unit is silent: all that is connected moves
    for k in range(n_orders(model)):
        place, x = places(model, k), np.zeros((1, 9))
        before = logits(model, x, k)
        for i in range(9):
            changed = logits(model, np.eye(9)[i : i + 1], k) != before
            np.testing.assert_array_equal(changed[0, :, 0], place > place[i])


def test_orders_are_permutations_and_degrees_are_spread_evenly():
    natural = MaskedMLP(6, 1, (10, 5), 1)
    model = MADE(n_features=6, hidden=(10, 5), order="agnostic", n_orders=4).build(Rng(0))
    made.Parameters(Rng(0), network=natural)
    np.testing.assert_array_equal(natural.degree[0, :6], [1, 2, 3, 4, 5, 6])
    for row in (*natural.degree, *model.network.degree):
        assert sorted(row[:6]) == [1, 2, 3, 4, 5, 6]
        assert np.bincount(row[6:16].astype(int)).tolist() == [0, 2, 2, 2, 2, 2]
        assert np.bincount(row[16:].astype(int)).tolist() == [0, 1, 1, 1, 1, 1]
    assert len(np.unique(model.network.degree, axis=0)) == 4


# ---- its probabilities ----


@every_kind
def test_the_probabilities_of_all_x_sum_to_one(settings):
    model = random_model(**settings)
    assert abs(log_sum(model.log_prob(all_x(model)))) <= 1e-12


@every_kind
def test_log_prob_is_the_product_of_the_conditionals(settings):
    """Each conditional computed with everything but the earlier features wiped out."""
    model = random_model(**settings)
    x = Rng(5).integers(model.n_values, (20, model.n_features))
    log_p = np.zeros((n_orders(model), 20))
    for k in range(n_orders(model)):
        place = places(model, k)
        for d in range(model.n_features):
            seen = np.where(place < place[d], x, 0)
            log_p[k] += log_choices(model, seen, k)[np.arange(20), d, x[:, d]]
    expected = log_sum(log_p) - math.log(len(log_p))
    np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-12, atol=1e-12)


@every_kind
def test_the_loss_is_minus_log_prob(settings):
    model = random_model(**settings | {"n_orders": 1})
    x = Rng(5).integers(model.n_values, (20, model.n_features)).astype(float)
    loss = model.loss(x, Rng(1, "float64"))["loss"]
    assert loss == pytest.approx(-model.log_prob(x).mean(), rel=1e-12)
    (found,) = model.evaluate(x, Rng(1, "float64")).values()
    assert found == pytest.approx(loss, rel=1e-12)


def test_every_order_is_trained_and_as_often():
    model = random_model(n_features=6, order="agnostic", n_orders=4)
    x = np.eye(6)
    losses = [float(model.loss(x, Rng(seed, "float64"))["loss"]) for seed in range(800)]
    values, counts = np.unique(np.round(losses, 9), return_counts=True)
    expected = sorted(-model.log_prob_in(x, k).mean() for k in range(4))
    np.testing.assert_allclose(values, expected, atol=1e-8)
    np.testing.assert_allclose(counts / 800, 0.25, atol=0.07)


def test_many_examples_are_as_good_as_few():
    """log_prob goes through them in parts."""
    model = random_model(n_features=5)
    x = Rng(0).integers(2, (2500, 5))
    np.testing.assert_allclose(model.log_prob(x)[1990:2010], model.log_prob(x[1990:2010]), rtol=1e-12)


@pytest.mark.parametrize("settings", KINDS[:7])
def test_an_output_that_sees_its_own_feature_is_caught(settings, monkeypatch):
    """The classic mistake: >= at the output too. What it gives are no probabilities any more."""

    class Leaky(MaskedMLP):
        def masks(self, k):
            *hidden, _ = super().masks(k)
            features = self.degree[k].reshape(-1)[: len(self.output.b) // self.n_out]
            below = self.degree[k].reshape(-1)[self.cuts[-1] :] if self.hidden else np.repeat(features, self.n_in)
            if self.direct:
                below = np.concatenate([below, np.repeat(features, self.n_in)])
            yield from [*hidden, below[:, None] <= np.repeat(features, self.n_out)]

    monkeypatch.setattr(made, "MaskedMLP", Leaky)
    model = random_model(**settings)
    assert abs(log_sum(model.log_prob(all_x(model)))) > 1e-3


class UnmaskedGradient(MaskedLinear):
    def forward(self, pair, rng):
        x, M = pair
        W = self.W * M

        def backward(dy, learn=True, inputs=True):
            if learn:
                self.dW += matmul(x.T, dy)
                self.db += dy.sum(axis=0)
            return matmul(dy, W.T) if inputs else None, None

        return matmul(x, W) + self.b, backward


class UnmaskedBackward(MaskedLinear):
    def forward(self, pair, rng):
        y, back = super().forward(pair, rng)
        return y, lambda dy, learn=True, inputs=True: (back(dy, learn, inputs) and matmul(dy, self.W.T), None)


@pytest.mark.parametrize("wrong", [UnmaskedGradient, UnmaskedBackward])
def test_a_backward_without_the_mask_is_caught(wrong):
    assert check_layer(*MaskedLinear.example(Rng(1, "float64")))
    assert not check_layer(*wrong.example(Rng(1, "float64")))


# ---- drawing from it ----


@pytest.mark.parametrize("settings", [settings for settings in KINDS if settings["n_features"] < 7])
def test_samples_come_as_often_as_log_prob_says(settings):
    model = random_model(scale=0.7, **settings)
    x = all_x(model)
    p = np.exp(model.log_prob(x))
    drawn = model.sample(40_000, Rng(3, "float64"))
    code = model.n_values ** np.arange(model.n_features)[::-1]  # all_x counts in this order
    for part in (drawn, drawn[:10_000]):  # a part is as good as the whole, though it was drawn order by order
        n, counts = len(part), np.bincount((part @ code).astype(int), minlength=len(x))
        common = n * p > 10
        chi_squared = ((counts - n * p)[common] ** 2 / (n * p)[common]).sum()
        assert common.sum() >= min(4, len(x))
        assert chi_squared < common.sum() + 4 * math.sqrt(2 * common.sum()) + 4
        assert abs(counts[~common].sum() / n - p[~common].sum()) < 0.01


@every_kind
def test_drawing_all_at_once_until_nothing_changes_is_drawing_one_after_the_other(settings):
    model, n = random_model(scale=3.0, **settings), 30
    for k in range(n_orders(model)):
        drawn = model.sample_in(n, k, Rng(4, "float64"))
        one_by_one, rng = np.zeros((n, model.n_features), dtype=int), Rng(4, "float64")
        u = rng.uniform((n, model.n_features, *([model.n_values] if model.n_values > 2 else [])))
        for d in np.argsort(places(model, k)):
            log_p = log_choices(model, one_by_one, k)[:, d]
            if model.n_values == 2:
                one_by_one[:, d] = u[:, d] < np.exp(log_p[:, 1])
            else:
                one_by_one[:, d] = (log_p - np.log(-np.log(1 - u[:, d]))).argmax(axis=1)
        np.testing.assert_array_equal(drawn, one_by_one)


def test_samples_are_bits_or_whole_numbers():
    bits, tokens = (MADE.example(Rng(0), n_values=n)[0].sample(200, Rng(1)) for n in (2, 5))
    assert bits.dtype == np.float32 and set(np.unique(bits)) == {0.0, 1.0}
    assert tokens.dtype == np.int64 and set(np.unique(tokens)) == {0, 1, 2, 3, 4}


# ---- ending what was begun ----

NATURAL = [settings for settings in KINDS if settings.get("order") != "agnostic"]


@pytest.mark.parametrize("settings", NATURAL[1:])
def test_what_is_drawn_after_a_beginning_comes_as_often_as_its_conditional_probability(settings):
    model = random_model(scale=0.7, **settings)
    everything, n = all_x(model), 10_000
    log_p, begun = model.log_prob(everything), everything[len(everything) // 3]
    code = model.n_values ** np.arange(model.n_features)[::-1]
    for m in range(model.n_features + 1):
        known = np.arange(model.n_features) < m
        filled = completion.complete(model, np.tile(begun, (n, 1)), known, Rng((m, 3), "float64"))
        fits = (everything[:, :m] == begun[:m]).all(axis=1)
        p = np.where(fits, np.exp(log_p - log_sum(log_p[fits])), 0)  # p(x) over all x that begin so
        counts = np.bincount((filled @ code).astype(int), minlength=len(everything))
        assert not counts[~fits].any()
        likely = n * p > 10
        chi_squared = ((counts - n * p)[likely] ** 2 / (n * p)[likely]).sum()
        assert chi_squared < likely.sum() + 4 * math.sqrt(2 * likely.sum()) + 4
        assert abs(counts[~likely].sum() / n - p[~likely].sum()) < 0.01


@pytest.mark.parametrize("settings", NATURAL)
def test_what_is_known_stays_and_what_stood_in_the_hole_has_no_say(settings):
    model = random_model(scale=0.7, **settings)
    x = Rng(5).integers(model.n_values, (60, model.n_features))
    known = np.arange(model.n_features) < Rng(6).integers(model.n_features + 1, (60, 1))  # each row another beginning
    filled = completion.complete(model, x, known, Rng(1, "float64"))
    np.testing.assert_array_equal(filled[known], x[known])
    assert model.n_features == 1 or (filled != x).any()
    other = np.where(known, x, -7.5 if model.n_values == 2 else 0)
    np.testing.assert_array_equal(completion.complete(model, other, known.astype(float), Rng(1, "float64")), filled)
    with model.average.swapped():
        alone = [model.fill(x[:0], known[:0], 0, Rng(1, "float64")), model.sample_in(60, 0, Rng(1, "float64"))]
    np.testing.assert_array_equal(completion.complete(model, x, 0 * x, Rng(1, "float64")), alone[1])
    np.testing.assert_array_equal(completion.complete(model, x[:0], known[:0], Rng(1, "float64")), alone[0])
    np.testing.assert_array_equal(completion.complete(model, x, 0 * x[0] + 1, Rng(1)), x)


@pytest.mark.parametrize("n_values", [2, 4])
def test_temperature_divides_the_logits(n_values):
    model, n = random_model(n_features=3, n_values=n_values), 20_000
    x, known = np.ones((n, 3), dtype=int), np.array([1, 1, 0])
    log_p = log_choices(model, x[:1], 0)[0, 2]
    for temperature in (0.5, 2.0):
        filled = completion.complete(model, x, known, Rng(3, "float64"), temperature)[:, 2].astype(int)
        share = np.bincount(filled, minlength=n_values) / n
        np.testing.assert_allclose(share, np.exp(log_softmax(log_p / temperature)), atol=0.02)
    assert (completion.complete(model, x, known, Rng(3, "float64"), 1e-3)[:, 2] == log_p.argmax()).all()


def test_only_a_beginning_can_be_ended():
    model, x = random_model(n_features=4), np.zeros((2, 4))
    for known in ([0, 1, 1, 1], [[1, 1, 0, 0], [1, 0, 1, 0]]):
        with pytest.raises(ValueError, match="the known features must come first in every row"):
            completion.complete(model, x, np.array(known), Rng(0))
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\) and known \(3,\)"):
        completion.complete(model, x, np.ones(3), Rng(0))
    with pytest.raises(ValueError, match="complete: x must be 0 or 1 everywhere"):
        completion.complete(model, x + 0.5, np.array([1, 0, 0, 0]), Rng(0))
    with pytest.raises(ValueError, match="complete: temperature must be > 0, got 0"):
        completion.complete(model, x, np.array([1, 0, 0, 0]), Rng(0), 0)
    with pytest.raises(UsageError, match="order=agnostic cannot complete: use order=natural"):
        completion.complete(random_model(n_features=4, order="agnostic"), x, np.ones(4), Rng(0))


def test_completion_is_by_the_averaged_weights():
    model = MADE.example(Rng(0))[0]
    model.average.average[...] = 0
    filled = completion.complete(model, np.ones((4000, 6), np.float32), np.arange(6) < 3, Rng(1))
    assert filled.dtype == np.float32
    np.testing.assert_allclose(filled.mean(axis=0), [1, 1, 1, 0.5, 0.5, 0.5], atol=0.03)


@pytest.mark.parametrize("n_values", [2, 3])
def test_a_device_completes_as_the_cpu_does_where_the_noise_is_the_same(n_values, monkeypatch):
    monkeypatch.setitem(kernels.DEVICES, "simcupy", Runner())
    found = []
    for device in ("cpu", simcupy):
        rng = Rng(3, device=device)
        rng.generator = Rng(3).host  # the same numbers everywhere
        model, x = MADE.example(rng, n_values=n_values)[0], np.ones((5, 6), np.float32 if n_values == 2 else int)
        known = np.arange(6) < np.arange(5)[:, None]
        found.append(completion.complete(model, rng.array(x), rng.array(known), rng))
    assert type(found[1]).__module__.startswith("simcupy") and found[0].dtype == found[1].dtype
    np.testing.assert_array_equal(found[0], to_host(found[1]))


def test_the_lower_half_of_a_digit_is_ended_to_suit_the_upper_one():
    data = load("digits")
    x, known = (data.x_train > 0.5).astype(np.float32), np.arange(64) < 32
    model = MADE(n_features=64, hidden=(64,), batch=50, lr=3e-3, averaging=0.98).build(Rng(0))
    fit(model, x, epochs=6, progress=False)
    filled = completion.complete(model, x[:400], known, Rng(1))
    swapped = np.concatenate([filled[:, :32], np.roll(filled, 1, axis=0)[:, 32:]], axis=1)
    assert model.log_prob(filled).mean() > model.log_prob(swapped).mean() + 2  # 3.5


# ---- learning ----


def tables(n_values, n_features, seed=0):
    """Every x and a probability for each, far from independent."""
    x = np.array(list(itertools.product(range(n_values), repeat=n_features)))
    return x, np.exp(log_softmax(1.5 * Rng((seed, 2), "float64").normal(len(x))))


@pytest.mark.parametrize(
    "settings",
    [{"n_features": 5}, {"n_features": 3, "n_values": 4}, {"n_features": 4, "order": "agnostic", "n_orders": 2}],
)
def test_it_learns_a_known_distribution_to_its_entropy(settings):
    x, p = tables(settings.get("n_values", 2), settings["n_features"])
    model = MADE(**settings, hidden=(64,), n_embed=4, lr=1e-2, decay_steps=1200).build(Rng(0))
    rows = np.random.default_rng(0).choice(len(x), (1200, 100), p=p)
    x = x.astype(np.float32)
    model.prepare(x[rows.ravel()], Rng(1))
    for step in range(1200):
        model.train_step(x[rows[step]], Rng((1, step)))
    entropy, cross_entropy = -(p * np.log(p)).sum(), -(p * model.log_prob(x)).sum()
    marginals = [np.bincount(x[:, d].astype(int), weights=p) for d in range(x.shape[1])]
    independent = -sum((m * np.log(m)).sum() for m in marginals)
    assert independent > entropy + 0.2  # there is something to learn
    assert 0 <= cross_entropy - entropy < 0.02


@pytest.mark.parametrize("n_values", [2, 4])
def test_before_training_it_knows_how_often_each_value_comes(n_values):
    x = np.minimum(Rng(0).integers(n_values, (50, 6)), Rng(1).integers(n_values, (50, 6))).astype(np.float32)
    x[:, 2] = 0  # a feature that never changes
    model = MADE.example(Rng(0), n_values=n_values, lr=1e-12, batch=50)[0]
    fit(model, x, epochs=1, progress=False)
    model.average.average[model.params.slices()["network.output.W"]] = 0
    with model.average.swapped():
        log_p = log_choices(model, x.astype(int), 0)[0]
    counts = np.stack([np.bincount(column.astype(int), minlength=n_values) for column in x.T])
    np.testing.assert_allclose(np.exp(log_p), (counts + 0.5) / (50 + 0.5 * n_values), rtol=1e-5)
    if n_values > 2:  # the bias itself holds log p: softmax would forgive any constant beside it
        bias = model.network.output.b.reshape(6, n_values)
        np.testing.assert_allclose(np.exp(bias).sum(axis=1), 1, rtol=1e-5)


def test_grey_pixels_are_binarized_afresh_and_whole_ones_stay():
    model = MADE.example(Rng(0))[0]
    grey = np.tile(np.array([0.0, 0.25, 0.9, 1.0], np.float32), (20_000, 1))
    a, b = (model.discrete(grey, Rng(seed)) for seed in (1, 2))
    assert set(np.unique(a)) == {0.0, 1.0} and not np.array_equal(a, b)
    np.testing.assert_allclose(a.mean(axis=0), [0, 0.25, 0.9, 1], atol=0.015)
    np.testing.assert_array_equal(model.discrete(a, Rng(3)), a)
    x = np.full((4, 6), 0.5, np.float32)
    losses = {float(model.loss(x, Rng(seed))["loss"]) for seed in range(5)}
    assert len(losses) == 5
    assert model.evaluate(x, Rng(0)).keys() == {"binarized_nll"}
    tokens, batch = MADE.example(Rng(0), n_values=3)
    assert tokens.evaluate(batch["x"], Rng(0)).keys() == {"nll"}


def test_all_but_training_goes_by_the_averaged_weights():
    model = MADE.example(Rng(0))[0]
    model.average.average[...] = 0
    x = np.zeros((4, 6), np.float32)
    np.testing.assert_allclose(model.log_prob(x), -6 * math.log(2), rtol=1e-6)
    assert model.evaluate(x, Rng(0))["binarized_nll"] == pytest.approx(6 * math.log(2))
    assert abs(model.sample(4000, Rng(1)).mean() - 0.5) < 0.02
    assert model.loss(x, Rng(1))["loss"] != pytest.approx(6 * math.log(2), rel=0.01)


def test_the_rate_falls_linearly_to_nothing():
    model, batch = MADE.example(Rng(0), decay_steps=4, lr=1e-2)
    rates = []
    for step in range(6):
        model.train_step(**batch, rng=model.rng(step))
        rates.append(model.adam.rate(int(model.adam.t[0])))
    np.testing.assert_allclose(rates, [1e-2, 7.5e-3, 5e-3, 2.5e-3, 0, 0], atol=1e-12)


OTHER = {
    "n_embed": 3, "direct": False, "order": "agnostic", "n_orders": 5, "batch": 8, "lr": 2e-3, "decay_steps": 3,
    "averaging": 0.3,
}  # fmt: skip
BESIDE = {"n_embed": {"n_values": 3}, "n_orders": {"order": "agnostic"}}
NETWORKS = {"n_features", "n_values", "hidden"}


def after_four_steps(settings):
    model, batch = MADE.example(Rng(0, "float64"), **settings)
    for step in range(4):
        model.train_step(**batch, rng=model.rng(step))
    return model.params.theta, model.log_prob(np.ones((2, 6)))


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    beside = BESIDE.get(setting, {})
    (theta, log_p), (other, other_log_p) = (after_four_steps(beside | s) for s in ({}, {setting: OTHER[setting]}))
    assert not np.array_equal(log_p, other_log_p)
    assert setting == "averaging" or not np.array_equal(theta, other)


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(MADE)} - NETWORKS == OTHER.keys()


# ---- mistakes ----


@pytest.mark.parametrize(
    ("n_values", "x", "remedy"),
    [
        (2, [[0, 1], [4, 2]], "n_values=5"),
        (2, [[0, 2], [1, 2]], "n_values=3"),
        (2, [[0, 1.5], [1, 2]], "n_values=K"),
        (2, [[-1, 0], [1, 0]], "n_values=K"),
        (3, [[0, 1], [2, 3]], "n_values=4"),
        (3, [[0, 0.5], [1, 0]], "n_values=2"),
        (3, [[0, 0.5], [2, 0]], "n_values=K"),
        (3, [[0, -1], [2, 0]], "n_values=K"),
    ],
)
def test_data_it_cannot_take_is_refused_with_a_remedy_that_works(n_values, x, remedy):
    model, x = MADE(n_features=2, batch=2, n_values=n_values, hidden=(4,)).build(Rng(0)), np.array(x, np.float32)
    with pytest.raises(UsageError, match=rf"^n_values={n_values} needs .*--set {remedy}$") as caught:
        fit(model, x, epochs=1, progress=False)
    assert "\n" not in str(caught.value)
    if "K" not in remedy:
        MADE(n_features=2, batch=2, **parse_settings(MADE, [remedy])).check_data(x)


def test_tokens_may_be_integers_or_whole_floats():
    x = Rng(0).integers(3, (40, 4))
    found = []
    for tokens in (x, x.astype(np.float32)):
        model = MADE(n_features=4, n_values=3, hidden=(5,), batch=10).build(Rng(0))
        fit(model, tokens, x_test=tokens, epochs=2, progress=False)
        found.append(model.log_prob(tokens))
    np.testing.assert_array_equal(*found)


def test_what_has_no_probability_is_refused():
    with pytest.raises(ValueError, match="log_prob: x must be 0 or 1 everywhere"):
        random_model(n_features=3).log_prob(np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match=r"0 \.\.\. 2"):
        random_model(n_features=3, n_values=3).log_prob(np.full((2, 3), 3))
    with pytest.raises(UsageError, match="n_values: expected a number >= 2, got 1"):
        MADE(n_values=1)


def test_from_the_command_line(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "made", "--data", "digits", "--epochs", "1", "--out", out, "--set", "hidden=8"]) == 0
    assert "test_binarized_nll" in capsys.readouterr().out
    assert main(["evaluate", out]) == main(["sample", out, "-n", "4", "-o", str(tmp_path / "x.png")]) == 0
    assert main(["train", "made", "--data", "ring", "--epochs", "1", "--out", str(tmp_path / "ring")]) == 2
    assert "n_values=2 needs pixels in [0, 1]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.needs("mnist")
def test_a_third_of_a_pass_over_mnist_saves_a_third_of_what_independent_pixels_cost():
    data = load("mnist")
    x, test = ((Rng(seed).uniform(x.shape) < x).astype("f") for seed, x in enumerate((data.x_train, data.x_test)))
    p = (x.sum(axis=0) + 0.5) / (len(x) + 1)
    independent = -(test * np.log(p) + (1 - test) * np.log(1 - p)).sum(axis=1).mean()
    (row,) = fit(MADE().build(Rng(0)), x[:20_000], x_test=test, epochs=1, progress=False)
    assert independent > 200
    assert row["test_binarized_nll"] < 138  # 132; after one whole pass 108
