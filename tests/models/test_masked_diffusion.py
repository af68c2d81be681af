"""Masked diffusion by enumeration: its bound is the mean over all orders, and -log p if the conditionals are exact."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watching import F64, near, spoil

from scratchgen import Rng, UsageError
from scratchgen.data import load
from scratchgen.metrics.likelihood import likelihood_metrics
from scratchgen.models.masked_diffusion import MaskedDiffusion
from scratchgen.train.fit import fit
from scratchgen.uses.completion import complete


def all_x(D, K):
    """Every x there is, (K^D, D)."""
    return np.array(list(itertools.product(range(K), repeat=D)))


def masks(D):
    """Every mask, (2^D, D), and its probability if t is uniform: every k is equally likely, and so is every choice of k."""
    hidden = all_x(D, 2) == 1
    return hidden, np.array([1 / ((D + 1) * math.comb(D, k)) for k in hidden.sum(axis=1)])


def random_law(D, K, seed=0):
    """p (K^D,) of every x, far from independent."""
    p = np.exp(1.5 * Rng((seed, 2), F64).normal(K**D))
    return p / p.sum()


class Exact(MaskedDiffusion):
    """Its conditionals are those of the law p (K^D,)."""

    def conditionals(self, x, hidden, rng):
        every = all_x(self.n_features, self.n_values)
        fits = (hidden[:, None] | (every == x[:, None])).all(axis=2)  # (B, K^D): which x have the tokens that are seen
        one_hot = every[:, :, None] == np.arange(self.n_values)  # (K^D, D, K)
        mass = (fits * self.p) @ one_hot.reshape(len(every), -1)  # (B, D K)
        mass /= (fits * self.p).sum(axis=1, keepdims=True)
        return np.log(np.maximum(mass, 1e-300)).reshape(-1, self.n_values), None


def exact(D, K, seed=0, **settings):
    model = Exact(n_features=D, n_values=K, n_embed=2, hidden=(3,), **settings).build(Rng(0, F64))
    model.p = random_law(D, K, seed)
    return model


def untrained(D, K, seed=0, **settings):
    """A network with large random weights: its orders disagree."""
    settings = {"n_embed": 3, "hidden": (8,)} | settings
    model = MaskedDiffusion(n_features=D, n_values=K, **settings).build(Rng((seed, 1), F64))
    spoil(model.params, seed)
    model.average.average[...] = model.params.theta
    return model


def log_choices(model, x, hidden):
    """log p(x_i | the tokens that are seen) of every token (N, D), by a softmax of its own."""
    logits, _ = model.conditionals(x, np.broadcast_to(hidden, x.shape), None)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.take_along_axis(log_p, x.reshape(-1, 1), axis=1).reshape(x.shape)


def by_order(model, x, order):
    """log p(x) (N,) if the tokens are drawn one at a time in this order."""
    hidden, log_p = np.ones(x.shape[1], bool), 0
    for i in order:
        log_p = log_p + log_choices(model, x, hidden)[:, i]
        hidden[i] = False
    return log_p


def bound(model, x):
    """The expectation of log_bound (N,), over every mask."""
    found = 0
    for hidden, p in zip(*masks(x.shape[1]), strict=True):
        k = hidden.sum()
        found = found + p * (x.shape[1] + 1) / max(k, 1) * (hidden * log_choices(model, x, hidden)).sum(axis=1)
    return found


SIZES = pytest.mark.parametrize(("D", "K"), [(1, 3), (4, 2), (3, 3), (8, 2)])


# ---- the bound ----


@SIZES
def test_with_exact_conditionals_the_bound_is_log_p(D, K):
    model, some = exact(D, K), np.unique(Rng(3).integers(K**D, 25))
    np.testing.assert_allclose(bound(model, all_x(D, K)[some]), np.log(model.p)[some], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("D", "K"), [(1, 3), (4, 2), (3, 3)])
def test_the_bound_is_the_mean_over_all_orders_and_below_log_p(D, K):
    model, x = untrained(D, K), all_x(D, K)
    each = np.array([by_order(model, x, order) for order in itertools.permutations(range(D))])  # (D!, N)
    np.testing.assert_allclose(bound(model, x), each.mean(axis=0), rtol=1e-10)
    log_p = np.log(np.exp(each).mean(axis=0))
    assert abs(np.exp(log_p).sum() - 1) < 1e-12  # what is drawn in random orders is a law
    assert (log_p >= bound(model, x) - 1e-12).all()
    assert D == 1 or (log_p - bound(model, x)).max() > 0.1


@SIZES
def test_log_bound_and_the_loss_are_draws_of_the_bound(D, K):
    model, x, R = untrained(D, K), all_x(D, K)[:20], 300
    wanted = bound(model, x)
    drawn = np.array([model.log_bound(x, model.rng((1, i))) for i in range(R)])
    near(drawn.mean(axis=0), wanted, drawn.std(axis=0, ddof=1) / math.sqrt(R), "log_bound")
    losses = np.array([float(model.loss(x.astype(float), model.rng((2, i)))["loss"]) for i in range(R)])
    near(-losses.mean(), wanted.mean(), losses.std(ddof=1) / math.sqrt(R), "loss")


@given(D=st.integers(1, 12), k=st.integers(1, 12))
def test_the_weight_is_the_mean_of_one_over_t_given_the_mask(D, k):
    k, t = min(k, D), (np.arange(200_000) + 0.5) / 200_000
    density = t**k * (1 - t) ** (D - k)  # of a mask that hides k given tokens
    hidden = np.arange(D)[None] < k
    weights = untrained(D, 2).weights(hidden, float)[0]
    assert weights[:k] == pytest.approx((density / t).sum() / density.sum(), rel=1e-4)
    assert not weights[k:].any()


def test_tokens_that_are_seen_and_rows_without_a_hidden_one_cost_nothing():
    model = untrained(4, 3)
    assert not model.weights(np.zeros((2, 4), bool), float).any()
    x, hidden = np.array([[0, 1, 2, 0]]), np.array([[True, False, True, False]])
    before, _ = model.conditionals(x, hidden, None)
    other, _ = model.conditionals((x + hidden) % 3, hidden, None)  # what is hidden has no say
    np.testing.assert_array_equal(before, other)
    seen, _ = model.conditionals((x + ~hidden) % 3, hidden, None)
    assert (seen != before).all()


def test_every_t_is_drawn_and_they_lie_evenly():
    """The shares of hidden tokens of the rows of a batch, from few to many."""
    model, shares = untrained(400, 2, hidden=(2,), batch=10), []
    for seed in range(40):
        hidden = np.zeros(0)
        original = model.conditionals

        def spy(x, mask, rng, original=original):
            nonlocal hidden
            hidden = mask
            return original(x, mask, rng)

        model.conditionals = spy
        model.loss(np.zeros((10, 400)), model.rng((3, seed)))
        del model.conditionals
        shares.append(np.sort(hidden.mean(axis=1)))
    shares = np.array(shares)
    assert np.diff(shares, axis=1).mean() == pytest.approx(0.1, abs=0.01)
    near(shares.mean(), 0.5, math.sqrt(1 / 12 / 40) / 10)
    assert shares.min() < 0.03 and shares.max() > 0.97


# ---- drawing ----


def assert_drawn_from(p, drawn, K):
    """Pearson's test that the rows of drawn (n, D) come as often as p (K^D,) says."""
    n, D = drawn.shape
    counts = np.bincount((drawn.astype(int) @ K ** np.arange(D)[::-1]), minlength=K**D)
    common = n * p > 5
    chi_squared = ((counts - n * p)[common] ** 2 / (n * p)[common]).sum()
    assert common.sum() >= 4 and chi_squared < common.sum() + 4 * math.sqrt(2 * common.sum()) + 4, chi_squared
    assert abs(counts[~common].sum() / n - p[~common].sum()) < 0.01


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize(("D", "K"), [(4, 2), (3, 3)])
def test_one_at_a_time_in_either_order_is_an_exact_draw(D, K, order):
    model = exact(D, K, order=order)
    assert_drawn_from(model.p, model.sample(10_000, model.rng(4)), K)


def test_one_at_a_time_in_random_order_draws_from_the_mean_over_the_orders():
    model, x = untrained(3, 3), all_x(3, 3)
    p = np.mean([np.exp(by_order(model, x, order)) for order in itertools.permutations(range(3))], axis=0)
    assert_drawn_from(p, model.sample(20_000, model.rng(4)), 3)


def law_in_two_steps(model, D, K):
    """The law of what is drawn in two steps of half of the tokens each, over all choices of the first half."""
    x, p = all_x(D, K), 0
    halves = list(itertools.combinations(range(D), D // 2))
    for first in halves:
        hidden = np.ones(D, bool)
        first = np.isin(np.arange(D), first)
        log_p = log_choices(model, x, hidden)[:, first].sum(axis=1) + log_choices(model, x, ~first)[:, ~first].sum(
            axis=1
        )
        p = p + np.exp(log_p) / len(halves)
    return p


def test_several_at_once_are_drawn_as_if_independent_and_the_fewer_steps_the_farther_from_p():
    D, K = 4, 2
    model, x = exact(D, K, seed=1), all_x(4, 2)
    marginals = np.exp(log_choices(model, x, np.ones(D, bool)))
    laws = {1: marginals.prod(axis=1), 2: law_in_two_steps(model, D, K)}
    for n_steps, law in laws.items():
        assert law.sum() == pytest.approx(1)
        model.n_steps = n_steps
        assert_drawn_from(law, model.sample(10_000, model.rng(5)), K)
    away = [0.5 * np.abs(law - model.p).sum() for law in laws.values()]  # in total variation
    assert away[0] > away[1] + 0.1 > 0.15, away


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_log_p_in_one_order_is_log_p_if_the_conditionals_are_exact(order):
    model, x = exact(3, 3, order=order), all_x(3, 3)
    np.testing.assert_allclose(model.log_prob_in(x, model.rng(5)), np.log(model.p), rtol=1e-12)


def test_log_p_in_one_order_is_that_of_the_tokens_as_they_are_shown():
    model, x = untrained(4, 2), all_x(4, 2)
    orders = np.array([by_order(model, x, order) for order in itertools.permutations(range(4))])
    found = model.log_prob_in(x, model.rng(5))
    assert np.abs(orders - found).min(axis=0).max() < 1e-12
    halves = [np.isin(np.arange(4), first) for first in itertools.combinations(range(4), 2)]
    everything = np.ones(4, bool)
    at_once = [log_choices(model, x, everything)[:, a].sum(axis=1) for a in halves]
    later = [log_choices(model, x, ~a)[:, ~a].sum(axis=1) for a in halves]
    found = model.log_prob_in(x, model.rng(5), n_steps=2)
    assert np.abs(np.add(at_once, later) - found).min(axis=0).max() < 1e-12
    found = model.log_prob_in(x, model.rng(5), n_steps=1)
    np.testing.assert_allclose(found, log_choices(model, x, everything).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_by_confidence_log_p_is_the_law_of_what_is_drawn(n_steps):
    """It sums to 1, as it would not if the choice of the next tokens looked at x."""
    model = untrained(3, 3, order="confidence", n_steps=n_steps)
    p = np.exp(model.log_prob_in(all_x(3, 3), model.rng(5)))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert_drawn_from(p, model.sample(5_000, model.rng(6)), 3)


def test_confidence_shows_the_most_predictable_token_first():
    model = exact(3, 3, order="confidence")
    x = all_x(3, 3)
    best = [np.bincount(x[:, i], weights=model.p).max() for i in range(3)]
    *_, last, _ = model.unmask(np.zeros((5, 3), int), np.zeros((5, 3), bool), model.rng(6), n_steps=3)
    path = list(model.unmask(np.zeros((5, 3), int), np.zeros((5, 3), bool), model.rng(6)))
    assert (path[1][1].sum(axis=1) == 2).all() and not path[1][1][:, np.argmax(best)].any()
    np.testing.assert_array_equal(path[-2][0], last[0])


@given(
    seed=st.integers(0, 999),
    D=st.integers(1, 9),
    n_steps=st.integers(1, 12),
    order=st.sampled_from(["random", "confidence"]),
)
def test_every_row_gets_its_share_in_each_step_and_keeps_what_it_has(seed, D, n_steps, order):
    model, rng = untrained(D, 3, n_steps=n_steps, order=order), Rng((seed, 7), F64)
    x, known = rng.integers(3, (6, D)), rng.uniform((6, D)) < rng.uniform((6, 1))
    path = list(model.unmask(np.where(known, x, 0), known, rng))
    assert len(path) == min(n_steps, D) + 1 and not path[-1][1].any()
    np.testing.assert_array_equal(path[0][1], ~known)
    np.testing.assert_array_equal(path[-1][0][known], x[known])
    for (before, hidden), (after, still) in itertools.pairwise(path):
        assert not (still & ~hidden).any()
        np.testing.assert_array_equal(before[~hidden], after[~hidden])
        shown = (hidden & ~still).sum(axis=1)
        assert (shown <= -(-(~known).sum(axis=1) // min(n_steps, D))).all()


# ---- holes ----


@pytest.mark.parametrize("known", [[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 1, 0]])
def test_any_hole_is_filled_by_its_conditional_law(known):
    model, every, known = exact(4, 2), all_x(4, 2), np.array(known)
    x = np.tile([1, 0, 1, 1], (8_000, 1))
    filled = complete(model, x, known, model.rng(8))
    assert (filled[:, known == 1] == x[:, known == 1]).all() and filled.dtype == np.float64
    p = model.p * (every == x[0])[:, known == 1].all(axis=1)
    assert_drawn_from(p / p.sum(), filled, 2)


def test_a_hole_does_not_know_what_was_there_and_temperature_divides_the_logits():
    model, x, known = untrained(3, 4), np.array([[3, 2, 1]] * 20_000), np.array([1, 0, 1])
    other = np.where(known, x, 0)
    filled = [complete(model, given, known, model.rng(9)) for given in (x, other)]
    np.testing.assert_array_equal(*filled)
    logits, _ = model.conditionals(x[:1], known[None] == 0, None)
    for temperature in (0.5, 2.0):
        drawn = complete(model, x, known, model.rng(9), temperature)[:, 1]
        wanted = np.exp(logits[1] / temperature)
        np.testing.assert_allclose(np.bincount(drawn, minlength=4) / len(x), wanted / wanted.sum(), atol=0.02)


def test_what_is_refused():
    model = untrained(4, 2)
    x = np.zeros((2, 4))
    with pytest.raises(ValueError, match="complete: temperature must be > 0, got 0"):
        complete(model, x, x[0], Rng(0), 0)
    with pytest.raises(ValueError, match=r"complete: x must hold whole numbers 0 \.\.\. 1; binarize"):
        complete(model, x + 0.5, x[0] + 1, Rng(0))
    with pytest.raises(ValueError, match=r"log_bound: x must hold whole numbers 0 \.\.\. 1"):
        model.log_bound(x + 2, Rng(0))
    with pytest.raises(UsageError, match=r"n_values=2 needs pixels.* --set n_values=5"):
        model.check_data(x + 4)


# ---- learning ----


def test_it_learns_a_known_law_to_its_entropy():
    D, K, steps = 4, 3, 400
    p, every = random_law(D, K), all_x(D, K)
    settings = {"n_embed": 3, "hidden": (48, 48), "lr": 1e-2, "decay_steps": steps, "batch": 200}
    model = MaskedDiffusion(n_features=D, n_values=K, averaging=0.98, **settings).build(Rng(0))
    rows = every[np.random.default_rng(0).choice(len(every), (steps, 200), p=p)]
    model.prepare(rows[:50].reshape(-1, D), Rng(1))
    for step in range(steps):
        model.train_step(rows[step], Rng((1, step)))
    entropy, marginals = -(p * np.log(p)).sum(), [np.bincount(column, weights=p) for column in every.T]
    with model.average.swapped():
        found = -(p * bound(model, every)).sum()
    assert -sum((m * np.log(m)).sum() for m in marginals) > entropy + 0.5  # what independent tokens would cost
    assert 0 <= found - entropy < 0.08, (found, entropy)


def test_before_training_it_knows_how_often_each_value_comes():
    x = np.minimum(Rng(0).integers(3, (90, 5)), Rng(1).integers(3, (90, 5)))
    model = MaskedDiffusion.example(Rng(0), n_features=5, n_values=3)[0]
    model.prepare(x, Rng(2))
    counts = np.stack([np.bincount(column, minlength=3) for column in x.T])
    np.testing.assert_allclose(np.exp(model.network.layers[-1].b.reshape(5, 3)), (counts + 0.5) / 91.5, rtol=1e-5)
    assert (model.average.average == model.params.theta).all()


def test_grey_pixels_are_binarized_afresh_and_tokens_stay():
    model = untrained(4, 2)
    grey = np.tile([0.0, 0.25, 0.9, 1.0], (20_000, 1))
    a, b = (model.discrete(grey, model.rng(seed)) for seed in (1, 2))
    assert a.dtype == int and not np.array_equal(a, b)
    np.testing.assert_allclose(a.mean(axis=0), [0, 0.25, 0.9, 1], atol=0.015)
    assert model.evaluate(grey[:5], model.rng(3)).keys() == {"binarized_negative_elbo"}
    tokens, batch = MaskedDiffusion.example(Rng(0), n_values=4)
    assert tokens.evaluate(batch["x"], Rng(3)).keys() == {"negative_elbo"}
    assert tokens.sample(3, Rng(1)).dtype == np.int64 and model.sample(3, Rng(1, F64)).dtype == np.float64


def test_all_but_training_goes_by_the_averaged_weights():
    model = MaskedDiffusion.example(Rng(0))[0]
    spoil(model.params, 1)
    model.average.average[...] = 0
    x = np.zeros((4000, 6), np.float32)
    found = likelihood_metrics(model, x, model.rng(1), draws=30)
    assert abs(found["log_p"] + 6 * math.log(2)) < 0.05 and "bound, 30 random masks" in found["log_p_method"]
    for drawn in (model.sample(4000, Rng(1)), complete(model, x, x[0], model.rng(2))):
        assert abs(drawn.mean() - 0.5) < 0.02


def test_the_middle_of_a_digit_is_filled_to_suit_the_rest():
    data = load("digits")
    x, known = (data.x_train > 0.5).astype(np.float32), ~((np.arange(64) % 8 >= 2) & (np.arange(64) % 8 < 6))
    model = MaskedDiffusion(n_features=64, hidden=(64, 64), batch=100, lr=5e-3, averaging=0.95).build(Rng(0))
    fit(model, x, epochs=12, progress=False)
    filled = complete(model, x[:400], known, Rng(1))
    swapped = np.where(known, filled, np.roll(filled, 1, axis=0))
    cost = [np.mean([model.log_bound(part, Rng((2, i))).mean() for i in range(5)]) for part in (filled, swapped)]
    assert cost[0] > cost[1] + 1, cost
