"""Bugs in how a model draws, by kinds: guidance, where a sampler starts, how long a chain is, draws in place of means.

Each test was seen to fail with one planted. A new model is found by its attributes, and one whose noise enters in no known
way is named.
"""

import contextlib
import inspect
import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
from watching import F64, Heard, called, cases, example, machine, near, spoil, watched, with_settings

from scratchgen import Layer, Rng, UsageError
from scratchgen.metrics.annealed import annealed_log_z
from scratchgen.models import find_model, model_names
from scratchgen.models.parts import diffusion
from scratchgen.models.rbm import RBM
from scratchgen.nn.optim import Adam, observed
from scratchgen.uses.completion import complete


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---- guidance ----

SET = {"conditional": True, "pairing": "independent", "label_dropout": 0.4, "guidance": 1.5, "averaging": 0.5}
SET |= {"clip_x0": False, "noise": 0.0}
GUIDED = cases(lambda model: hasattr(model, "denoiser") and model.needs_labels, SET)


def other_average(model):
    """Averaged weights that are not the weights."""
    model.average.average[...] = Rng(21, F64).normal(model.average.average.shape)
    return model


def asked(model, x_t, t, labels, guess=None):
    """What the network says of x_t, asked directly and by its averaged weights. A flow tells it 100 t."""
    kept = model.params.theta.copy()
    model.params.theta[...] = model.average.average
    if getattr(model, "self_conditioning", False):
        x_t = np.concatenate([x_t, 0 * x_t if guess is None else guess], axis=1)
    f = model.denoiser((x_t, np.full(len(x_t), 100 * t if is_flow(model) else t), labels))
    model.params.theta[...] = kept
    model.params.changed()
    return f


def is_flow(model):
    return hasattr(model, "velocity")


def predicted(model, x_t, t, labels, guess=None):
    """x̂_0 of a diffusion model, or û of a flow, by the head of its file."""
    f = asked(model, x_t, t, labels, guess)
    if is_flow(model):
        x_hat = 2 * sigmoid(f) - 1 if model.predict == "logits" else f
        return f if model.predict == "velocity" else (x_hat - x_t) / (1 - t)
    a = model.alpha_bar[t]
    return {
        "eps": lambda: (x_t - math.sqrt(1 - a) * f) / math.sqrt(a),
        "v": lambda: math.sqrt(a) * x_t - math.sqrt(1 - a) * f,
        "x0": lambda: f,
        "logits": lambda: 2 * sigmoid(f) - 1,
    }[model.predict]()


def guided(model, x_t, t, labels, w, guess=None):
    """(1 + w) x̂_0(label) - w x̂_0(any), or the same of û: Ho & Salimans 2022, eq 6. "Any" is the class after the last one."""
    any_label = np.full(len(x_t), model.n_classes)
    if labels is None:
        return predicted(model, x_t, t, any_label, guess)
    return (1 + w) * predicted(model, x_t, t, labels, guess) - w * predicted(model, x_t, t, any_label, guess)


def given_to(model, n=6):
    return Rng(22, F64).normal((n, model.n_diffused)), np.arange(n) % model.n_classes


@pytest.mark.parametrize("w", [0.0, 1.0, 1.5])
@GUIDED
def test_guidance_goes_from_the_prediction_for_any_class_through_that_for_the_label_and_beyond(name, settings, w):
    model = other_average(example(name, settings)[0])
    x_t, labels = given_to(model)
    if is_flow(model):
        ask, times, options = model.velocity, (0.0, 0.3, 0.9), {}
    else:
        ask, times, options = model.denoise, (1, model.n_times // 2, model.n_times), {"clip_x0": False}
    for t in times:
        for told in (labels, None):
            found = ask(x_t, t, told, guidance=w, **options)
            np.testing.assert_allclose(found, guided(model, x_t, t, told, w), rtol=1e-9, atol=1e-9)


def own_path(model, x, labels, w, n_steps):
    """[x_t] of DDIM with η = 0, Song et al. 2020, eq 12; for a flow of Euler's method. Both are written out."""
    path = [x]
    if is_flow(model):
        for i in range(n_steps):
            path.append(path[-1] + guided(model, path[-1], i / n_steps, labels, w) / n_steps)
        return path
    times, x_0 = [round(model.n_times * (n_steps - i) / n_steps) for i in range(n_steps + 1)], None
    for t, s in pairwise(times):
        a, b = model.alpha_bar[t], model.alpha_bar[s]
        x_0 = guided(model, x, t, labels, w, x_0)
        x = math.sqrt(b) * x_0 + math.sqrt(1 - b) * (x - math.sqrt(a) * x_0) / math.sqrt(1 - a)
        path.append(x)
    return path


def as_example(model, x_0):
    """The examples for what a path ends with; of pixels with grey levels the nearest below."""
    x = model.decode(model.scaler.undo(x_0))
    return np.clip(np.floor(model.levels * x), 0, model.levels - 1) / (model.levels - 1) if model.levels else x


@GUIDED
def test_samplers_are_guided_by_the_settings_weight_and_by_the_label_asked_for(name, settings):
    plain = {"sampler": "ddim", "eta": 0.0, "solver": "euler", "n_steps": 4}
    model = other_average(example(name, with_settings(name, settings, plain))[0])
    x_T, labels = given_to(model)
    wanted = own_path(model, x_T, labels, 1.5, 4)
    path = [x for _, x in model.path(x_T, model.rng(1), labels)]
    np.testing.assert_allclose(path, wanted, rtol=1e-8, atol=1e-8)
    path = [x for _, x in model.path(x_T, model.rng(1), labels, guidance=0.5, n_steps=3)]
    np.testing.assert_allclose(path, own_path(model, x_T, labels, 0.5, 3), rtol=1e-8, atol=1e-8)
    path = [x for _, x in model.path(x_T, model.rng(1))]
    np.testing.assert_allclose(path, own_path(model, x_T, None, 1.5, 4), rtol=1e-8, atol=1e-8)
    for label in range(model.n_classes):
        with watched(model, "path") as paths:
            found = model.sample(3, model.rng(30), label=label)
        x_T = paths[0][0][0]
        wanted = own_path(model, x_T, np.full(3, label), 1.5, 4)[-1]
        np.testing.assert_allclose(found, as_example(model, wanted), rtol=1e-7, atol=1e-7)


@GUIDED
def test_a_hole_is_filled_with_the_settings_guidance(name, settings):
    model, batch = example(name, settings)
    labels = batch["labels"]
    if complete.dispatch(type(model)) is complete.dispatch(object):
        return  # it has no way to fill a hole
    with watched(model, "denoise") as calls:
        try:
            complete(model, batch["x"], np.arange(model.n_features) < 3, model.rng(1), labels=labels, n_steps=3)
        except UsageError as error:
            assert "cannot complete" in str(error)  # features, not pixels, are diffused
            return
    assert calls
    for (_, _, told, w, clip, _), _ in calls:
        assert (told == labels).all() and (w, clip) == (1.5, False)


# ---- where a sampler starts ----

N = 30_000  # rows, so that a scale that is wrong by a hundredth is seen
ENTRANCES = {
    "generator": "forward",
    "denoiser": "forward",
    "decoder": "forward",
}  # networks that noise enters, and by what
ENTRANCES |= {"flow": "inverse"}


def standard_normal(z):
    """Asserts that the columns of z (N, D) are N(0, 1), and independent of each other and of the next row's."""
    n, d = z.shape
    near(z.mean(axis=0), 0, 1 / math.sqrt(n), "mean")
    near(z.mean(), 0, 1 / math.sqrt(n * d), "mean")
    near(z.var(axis=0), 1, math.sqrt(2 / n), "variance")
    near((z * z).mean(), 1, math.sqrt(2 / (n * d)), "variance")  # of z²: 2
    near((z**4).mean(), 3, math.sqrt(96 / (n * d)), "fourth moment")  # of z⁴: 105 - 9
    near(np.corrcoef(z.T)[np.triu_indices(d, 1)] if d > 1 else 0, 0, 1 / math.sqrt(n), "correlation of columns")
    near((z[1:] * z[:-1]).mean(), 0, 1 / math.sqrt(n * d), "correlation of rows")


class Entered(Exception):
    """A network was run: what it was given."""


def entering(model, run):
    """What the first network that was run was given, of those that noise enters; None if none was run."""

    def forward(x, rng):
        raise Entered(x)  # what comes after is of no interest, and takes long

    def inverse(z, labels):
        raise Entered(z if labels is None else (z, labels))

    networks = {name: getattr(model, name) for name in entrances(model)}
    for name, network in networks.items():
        vars(network)[ENTRANCES[name]] = {"forward": forward, "inverse": inverse}[ENTRANCES[name]]
    try:
        run()
    except Entered as entered:
        return entered.args[0]
    finally:
        for name, network in networks.items():
            del vars(network)[ENTRANCES[name]]


def entrances(model):
    """Names of the networks that noise enters. A flow inside a Reflow is a model, not a network."""
    return [name for name in ENTRANCES if isinstance(getattr(model, name, None), Layer)]


def ways(model, n=N):
    """{name: a function that draws} of the ways to draw n examples that a model has."""
    k, found = model.n_classes, {"sample": lambda rng: model.sample(n, rng)}
    if model.needs_labels:
        found["sample of one class"] = lambda rng: model.sample(n, rng, label=1)
    labels = (
        Rng(3, F64).normal((n, k)) if model.labels_are_vectors else np.arange(n) % k if model.needs_labels else None
    )
    if hasattr(model, "generate") and not hasattr(model, "conditions"):
        found["generate"] = lambda rng: called(model.generate, {"n": n, "rng": rng, "labels": labels})
    if labels is not None and model.labels_are_vectors:  # sample has no vectors to ask for
        return {"generate": found["generate"]}
    return found


def can_sample(model):
    try:
        next(iter(ways(model, 2).values()))(model.rng(0))
    except UsageError:
        return False
    return True


def start_of(model):
    """By what kind of noise a model starts to draw."""
    if entrances(model):
        return "normal"
    kinds = {"gibbs": "pixels", "walk": "coins", "fill": "orders", "gaussians": "mixture", "buffer": "chains"}
    kinds |= {"unmask": "masks"}
    if hasattr(model, "over_codes"):
        return start_of(model.over_codes)
    return next((kind for attribute, kind in kinds.items() if hasattr(model, attribute)), None)


def test_it_is_known_how_every_model_starts_to_draw():
    for name in model_names():
        model, _ = example(name, {})
        assert start_of(model) or not can_sample(model), f"{name}: say here where its noise enters, and test its law"


QUICK = {"n_times": 20, "n_steps": 2, "n_burn": 1, "samples_per_chain": 1}
NORMAL = cases(lambda model: start_of(model) == "normal" and can_sample(model), QUICK)


def as_standard(model, x):
    """The noise in what a network was given: without a condition, and of codes with other moments made standard."""
    noise = x[0] if isinstance(x, tuple) else x
    noise = noise[:, : getattr(model, "n_latent", None) or getattr(model, "n_diffused", None) or model.n_features]
    if hasattr(model, "moments"):
        noise = (noise - model.moments.mean) / np.sqrt(model.moments.variance)
    return noise


@NORMAL
def test_what_enters_the_network_is_standard_normal(name, settings):
    model, _ = example(name, settings)
    if hasattr(model, "moments"):
        model.moments.mean[...] = np.linspace(-1, 2, model.n_latent)
        model.moments.variance[...] = np.linspace(0.2, 3, model.n_latent)
    for i, (way, draw) in enumerate(ways(model).items()):
        entered = entering(model, lambda: draw(model.rng((11, 1 + i))))
        assert entered is not None, f"{way} runs none of {ENTRANCES}: say in start_of where its noise enters"
        standard_normal(as_standard(model, entered))


@cases(lambda model: complete.dispatch(type(model)) is not complete.dispatch(object), {"n_times": 20})
def test_a_hole_is_filled_from_standard_normal_noise(name, settings):
    model, batch = example(name, settings)
    if start_of(model) != "normal" or getattr(model, "pack", 1) > 1 or type(model).__name__ == "LatentDiffusion":
        return  # a MADE draws from its law; the others refuse
    n = 4000
    x, known = np.resize(batch["x"], (n, model.n_features)), np.arange(model.n_features) < 3
    given = {"model": model, "x": x, "known": known, "rng": model.rng(12), "n_steps": 1, "n_starts": 2, "repeats": 1}
    given |= {"labels": np.resize(batch["labels"], n)} if model.needs_labels else {}
    way = complete.dispatch(type(model))
    noise = as_standard(model, entering(model, lambda: called(way, given)))
    standard_normal(noise)
    assert len(noise) == n * (2 if "n_starts" in inspect.signature(way).parameters else 1)


CHAINS = cases(lambda model: start_of(model) == "pixels", {"n_steps": 1, "n_chains": N, "rbm": machine(5)})


def independent_units(v, p):
    """Asserts that v (N, D) are zeros and ones, 1 with probabilities p (D,), and independent of each other."""
    assert set(np.unique(v)) == {0.0, 1.0}
    near(v.mean(axis=0), p, np.sqrt(p * (1 - p) / len(v)), "frequencies")
    near(np.corrcoef(v.T)[np.triu_indices(len(p), 1)], 0, 1 / math.sqrt(len(v)), "correlation of units")


@CHAINS
def test_chains_start_at_independent_units_as_frequent_as_in_the_data(name, settings):
    model, _ = example(name, settings)
    spoil(model.params, 3)
    shades = np.linspace(0.1, 0.9, model.n_features)
    x = (Rng(4, F64).uniform((400, model.n_features)) < shades).astype(float)
    model.prepare(x, Heard(5))
    below = getattr(model, "rbm", None)
    seen = (
        x if below is None else sigmoid(x @ below.energy.W + below.energy.c)
    )  # what the chains' units are in the data
    p = (seen.sum(axis=0) + 0.5) / (len(x) + 1)
    assert np.ptp(p) > 0.05 or below is not None
    independent_units(model.energy.chains, p)
    for run in (lambda: model.sample(N, model.rng(6)), lambda: annealed_log_z(model, model.rng(7), 1000, 1)):
        with watched(model.energy, "up") as calls:
            run()
        first = calls[0][0][0]
        independent_units(first, p)
    with watched(model, "gibbs") as calls:
        model.sample(N, model.rng(6))
    independent_units(calls[0][0][0], p)


@cases(lambda model: start_of(model) == "coins", QUICK)
def test_walks_start_at_coin_flips(name, settings):
    model, _ = example(name, settings)
    with watched(model, "walk") as walks, watched(model, "damaged") as damages:
        model.sample(N, model.rng(8))
    for v in (walks[0][0][0], damages[0][0][0]):
        independent_units(v, np.full(model.n_features, 0.5))


@cases(lambda model: hasattr(model, "classes") and (model.needs_labels) and not model.labels_are_vectors, QUICK)
def test_classes_are_drawn_alike_and_only_those_that_were_seen(name, settings):
    settings = with_settings(name, settings, {"n_classes": 7})
    for seen in (np.arange(7), np.array([0, 2, 3, 6])):
        model, batch = example(name, settings)
        labels = np.resize(np.repeat(seen, np.arange(1, 1 + len(seen))), 100)  # some more often than others
        model.prepare(np.resize(batch["x"], (100, model.n_features)), model.rng(9), labels)
        entered = entering(model, lambda: model.sample(N, model.rng(10)))
        if isinstance(entered, tuple):  # a denoiser is told the label after x_t and t, a flow after z
            drawn = entered[-1]
        else:
            rows = entered[:, model.n_latent :]
            assert (rows.sum(axis=1) == 1).all()
            drawn = rows.argmax(axis=1)
        shares = np.bincount(drawn, minlength=7) / N
        p = np.isin(np.arange(7), seen) / len(seen)
        assert (shares[p == 0] == 0).all()
        near(shares[seen], p[seen], math.sqrt(p.max() * (1 - p.max()) / N), "classes")


@cases(lambda model: start_of(model) == "masks" and hasattr(model, "unmask"), {"n_steps": 4})
def test_unmasking_starts_with_all_tokens_hidden_and_shows_a_share_of_them_in_each_step(name, settings):
    model, _ = example(name, settings)
    with watched(model, "conditionals") as calls:
        model.sample(50, model.rng(15))
    counts = [hidden.sum(axis=1) for (_, hidden, _), _ in calls]
    np.testing.assert_array_equal(counts, np.tile([[6], [4], [2], [1]], 50))  # of 6 tokens 2, 2, 1 and 1 are drawn


@cases(lambda model: hasattr(model, "over_codes"))
def test_pictures_are_decoded_from_what_the_prior_over_the_codes_draws(name, settings):
    model, _ = example(name, settings)
    with watched(model.over_codes, "sample") as calls:
        drawn = model.sample(50, model.rng(16))
    ((_, codes),) = calls
    assert len(np.unique(codes)) > 1
    np.testing.assert_array_equal(drawn, model.vqvae.decode_codes(codes))


@cases(lambda model: start_of(model) == "orders" and hasattr(model, "fill"))
def test_orders_are_drawn_alike_and_rows_do_not_tell_theirs(name, settings):
    model, batch = example(name, settings)
    n_orders = len(model.network.degree)
    with watched(model, "sample_in") as calls:
        drawn = model.sample(N, model.rng(11))
    counts = np.zeros(n_orders)
    for (n, k, *_), _ in calls:
        counts[int(k)] += n
    p = 1 / n_orders
    assert counts.sum() == N
    near(counts / N, p, math.sqrt(max(p * (1 - p), 1e-30) / N), "orders")
    if n_orders > 1:
        in_turn = np.concatenate([found for _, found in calls])
        assert (drawn != in_turn).any(axis=1).mean() > 0.2  # shuffled
    trained = []
    for seed in range(40 * n_orders):
        with watched(model.network) as passes:
            model.loss(batch["x"][:1], model.rng((12, 1 + seed)))
        trained.append(int(np.asarray(passes[0][0][0][1]).reshape(-1)[0]))
    shares = np.bincount(trained, minlength=n_orders) / len(trained)
    near(shares, p, math.sqrt(max(p * (1 - p), 1e-30) / len(trained)), "orders in training")


@cases(lambda model: start_of(model) == "mixture")
def test_a_mixture_draws_each_component_as_often_and_as_wide_as_it_is(name, settings):
    model, _ = example(name, settings)
    g, d = model.gaussians, model.n_features
    g.logits[...] = np.log([0.3, 0.7])
    g.mu[...] = [[-20.0, 0, 1], [20.0, 2, 0]]  # far apart: the sign of the first number tells the component
    P = g.P + 0.3 * np.tril(Rng(13, F64).normal(g.P.shape)) if g.full else g.P * np.linspace(0.6, 1.5, g.P[0].size)
    g.P[...] = P
    x = model.sample(N, model.rng(14))
    for k, rows in enumerate((x[x[:, 0] < 0], x[x[:, 0] > 0])):
        near(len(rows) / N, (0.3, 0.7)[k], math.sqrt(0.21 / N), "weights")
        full = P[k] if g.full else np.diag(np.broadcast_to(P[k], d))
        cov = np.linalg.inv(full @ full.T)
        deviation = np.sqrt(np.diag(cov))
        near(rows.mean(axis=0), g.mu[k], deviation / math.sqrt(len(rows)), "means")
        error = np.sqrt((cov**2 + np.outer(deviation, deviation) ** 2) / len(rows))  # of a Gaussian's covariances
        near(np.cov(rows.T), cov, error, "covariances")


# ---- how long a chain is ----


def binary_gibbs(energy, v, rng, n_steps):
    """n_steps of h ~ p(h|v), v ~ p(v|h), written out."""
    for _ in range(n_steps):
        h = (rng.uniform((len(v), len(energy.c))) < sigmoid(v @ energy.W + energy.c)).astype(float)
        v = (rng.uniform((len(v), len(energy.b))) < sigmoid(h @ energy.W.T + energy.b)).astype(float)
    return v


LONG = {"n_hidden": 4, "n_chains": 9, "batch": 8, "n_steps": 7, "rbm": machine(5)}  # sizes that are all different


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("k", [1, 3])
@cases(lambda model: hasattr(model, "gibbs"), LONG)
def test_an_update_takes_as_many_gibbs_steps_as_asked_for_from_the_right_start(name, settings, k, persistent):
    model, batch = example(name, settings | {"gibbs_steps": k, "persistent": persistent})
    spoil(model.params, 4)
    for seed in (1, 2):
        start, rng, theirs = model.energy.chains.copy(), model.rng(seed), Heard(seed)
        x = model.visible(batch["x"], rng)
        wanted = binary_gibbs(model.energy, start if persistent else x, rng, k)
        with watched(model, "loss") as calls, watched(model.energy, "down") as downs:
            model.train_step(batch["x"], theirs)
        ((seen_x, _, v), _), *_ = calls
        np.testing.assert_array_equal(seen_x, x)
        np.testing.assert_array_equal(v, wanted)
        np.testing.assert_array_equal(model.energy.chains, wanted if persistent else start)  # where the next goes on
        assert len(downs) == k + 1  # and one to reconstruct
        rows = len(start if persistent else x)
        assert theirs.drawn["uniform"].count((rows, model.n_hidden)) == k
        assert rows != len(x) or not persistent


@pytest.mark.parametrize("n_steps", [1, 7])
@cases(lambda model: hasattr(model, "gibbs"), LONG)
def test_a_sample_is_the_end_of_a_chain_of_n_steps(name, settings, n_steps):
    model, _ = example(name, settings | {"n_steps": n_steps})
    rng = Heard(3)
    with watched(model, "gibbs") as chains, watched(model.energy, "up") as ups, watched(model.energy, "down") as downs:
        drawn = model.sample(11, rng)
    assert (len(ups), len(downs)) == (n_steps, n_steps)
    assert rng.drawn["uniform"].count((11, model.n_hidden)) == n_steps
    end = chains[-1][1]
    if hasattr(model, "rbm"):  # one pass down, and no chain below
        assert drawn.shape == (11, model.n_features)
        assert rng.drawn["uniform"] == [*rng.drawn["uniform"][:-1], (11, model.n_features)]
    else:
        np.testing.assert_array_equal(drawn, end)


@pytest.mark.parametrize("n_betas", [1, 6])
@cases(lambda model: hasattr(model, "gibbs"), LONG)
def test_annealing_takes_a_step_at_each_temperature(name, settings, n_betas):
    model, _ = example(name, settings)
    with watched(model.energy, "up") as ups, watched(model.energy, "down") as downs:
        annealed_log_z(model, model.rng(1), 5, n_betas)
    assert (len(ups), len(downs)) == (n_betas, n_betas)


@cases(lambda model: hasattr(model, "walk"), {"averaging": 0.0})
def test_a_walk_takes_as_many_steps_as_asked_for(name, settings):
    for walk_steps, n_burn, in_a_row in ((1, 1, 1), (4, 5, 3)):
        more = {"walk_steps": walk_steps, "n_burn": n_burn, "samples_per_chain": in_a_row}
        model, batch = example(name, settings | more)
        with watched(model.network) as passes, watched(model, "damaged") as damages:
            model.loss(batch["x"], model.rng(1))
        assert len(passes) == len(damages) == walk_steps
        with watched(model.network) as passes, watched(model, "damaged") as damages:
            drawn = model.sample(4 * in_a_row, model.rng(2))
        assert len(passes) == len(damages) == n_burn + in_a_row - 1
        means = [sigmoid(y) for _, (y, _) in passes]
        np.testing.assert_allclose(
            drawn, np.concatenate(means[n_burn - 1 :]), rtol=1e-12
        )  # the first after n_burn steps
        with watched(model.network) as passes:
            assert len(model.walk(batch["x"], model.rng(3), 6)) == len(passes) == 6


@cases(lambda model: hasattr(model, "velocity"), {"n_steps": 4, "label_dropout": 0.2})
def test_a_path_has_as_many_velocities_as_its_solver_takes_from_0_to_1(name, settings):
    """Within a step they are at its start, its middle twice and its end. A network that says x̂ is never asked at the end."""
    model, _ = example(name, settings)
    each = 2 if model.needs_labels and model.guidance else 1  # with guidance the network is asked twice
    labels = np.arange(6) % model.n_classes if model.needs_labels else None
    within = {"euler": (0,), "heun": (0, 1), "rk4": (0, 0.5, 0.5, 1)}
    own = {"solver": model.solver, "n_steps": model.n_steps, "noise": model.noise}
    for options in (
        {},
        {"solver": "heun", "noise": 0.0},
        {"solver": "rk4", "noise": 0.0, "n_steps": 3},
        {"noise": 0.3},
    ):
        with watched(model.denoiser) as calls:
            model.generate(6, model.rng(1), labels, **options)
        chosen = own | options
        n, solver = chosen["n_steps"], "euler" if chosen["noise"] else chosen["solver"]
        wanted = [(i + part) / n for i in range(n) for part in within[solver]]
        if model.predict != "velocity":
            wanted = [t for t in wanted if t <= 1 - 1 / n]  # of the last step its start alone
            wanted = wanted[: (n - 1) * len(within[solver]) + 1]
        assert all((inputs[1] == inputs[1][0]).all() for (inputs, _), _ in calls)
        times = [inputs[1][0] / 100 for (inputs, _), _ in calls]
        np.testing.assert_allclose(times, [t for t in wanted for _ in range(each)], atol=1e-12, err_msg=str(options))


@cases(lambda model: hasattr(model, "n_times"), {"n_times": 20, "n_steps": 4, "label_dropout": 0.2})
def test_a_path_has_as_many_steps_as_asked_for_from_T_to_0(name, settings):
    model, _ = example(name, settings)
    each = 2 if model.needs_labels and model.guidance else 1  # with guidance the network is asked twice
    labels = np.arange(6) % model.n_classes if model.needs_labels else None
    for options, n_steps in (
        ({}, {"ddim": model.n_steps, "ancestral": 20}[model.sampler]),
        ({"sampler": "ddim", "n_steps": 5}, 5),
        ({"sampler": "ddim", "n_steps": 1, "eta": 1.0}, 1),
        ({"sampler": "ddim", "n_steps": 20, "eta": 0.3}, 20),
        ({"sampler": "ancestral", "n_steps": 3}, 20),
    ):
        with watched(model.denoiser) as calls:
            model.generate(6, model.rng(1), labels, **options)
        times = [int(inputs[1][0]) for (inputs, _), _ in calls]
        assert all((inputs[1] == inputs[1][0]).all() for (inputs, _), _ in calls)
        wanted = [round(20 * (n_steps - i) / n_steps) for i in range(n_steps)]
        assert times == [t for t in wanted for _ in range(each)], options


HOLES = {"n_steps": 5, "n_starts": 3, "repeats": 4}
SEEN = {  # how often the network of a model runs, by what its way of completion may be told
    ("n_steps",): lambda n: {"encoder": n, "decoder": n + 1},  # the first picture is of a random code
    ("n_steps", "repeats"): lambda n, repeats: {"denoiser": n * repeats},
    ("n_steps", "n_starts"): lambda n, starts: {"generator": n + 2, "discriminator": n + 1},  # to choose, and to show
}


@cases(lambda model: complete.dispatch(type(model)) is not complete.dispatch(object), {"n_times": 20, "guidance": 0.0})
def test_a_hole_is_filled_by_a_chain_of_as_many_steps_as_asked_for(name, settings):
    model, batch = example(name, settings)
    way = complete.dispatch(type(model))
    options = tuple(option for option in HOLES if option in inspect.signature(way).parameters)
    x = model.discrete(batch["x"], model.rng(1)) if hasattr(model, "discrete") else batch["x"]
    given = {"model": model, "x": x, "known": np.arange(model.n_features) < 3, "rng": model.rng(2)} | HOLES
    given |= {"labels": batch.get("labels")}
    networks = [key for key in ("encoder", "decoder", "denoiser", "generator", "discriminator") if hasattr(model, key)]
    steps = []
    with observed(lambda stepper, numbers: steps.append(stepper) or numbers), watched_all(model, networks) as counts:
        try:
            called(way, given)
        except UsageError as error:
            assert "cannot complete" in str(error)
            return
    if not options:  # drawn from the exact law, or by the model's own steps
        assert hasattr(model, "fill") or hasattr(model, "unmask")
        return
    wanted = SEEN[options](*(HOLES[option] for option in options))
    assert {key: len(calls) for key, calls in counts.items() if calls} == wanted
    assert len([stepper for stepper in steps if isinstance(stepper, Adam)]) == (5 if "n_starts" in options else 0)


@contextlib.contextmanager
def watched_all(model, networks):
    """{name: calls} of several networks at once."""
    with contextlib.ExitStack() as stack:
        yield {key: stack.enter_context(watched(getattr(model, key))) for key in networks}


def test_each_way_of_completion_was_counted_above():
    ways_there = [way for kind, way in complete.registry.items() if kind is not object]
    found = {tuple(o for o in HOLES if o in inspect.signature(way).parameters) for way in ways_there}
    assert found == {(), *SEEN}


@pytest.mark.parametrize(("n_steps", "repeats"), [(1, 1), (3, 2)])
def test_inpainting_draws_each_jump_as_often_as_asked_for(n_steps, repeats):
    """And goes back up before each further draw: the denoiser sees the times in this order."""
    times = []
    alpha_bar = diffusion.alpha_bars("cosine", 20)
    x = Rng(1, F64).normal((4, 2))

    def denoise(x, t):
        times.append(t)
        return 0.5 * x

    path = list(diffusion.inpaint(denoise, x, 0 * x, np.array([1, 0]), alpha_bar, Rng(2, F64), n_steps, repeats))
    assert times == [t for t in diffusion.times(20, n_steps)[:-1] for _ in range(repeats)]
    assert [t for t, _ in path] == diffusion.times(20, n_steps)


@cases(lambda model: hasattr(model, "n_init"), {"n_init": 3})
def test_each_start_of_a_mixture_gets_the_same_short_run(name, settings):
    model, batch = example(name, settings)
    short = inspect.getmodule(type(model)).SHORT
    with watched(model, "start") as starts, watched(model, "expect") as e_steps:
        model.prepare(batch["x"], model.rng(1))
    assert len(starts) == 3 and len(e_steps) == 3 * (short + 1)  # and one to judge it


# ---- the bound of a stack ----


def stacked(seed, scale):
    """A stack so small that all its hidden states can be listed, with large random weights, in float64."""
    lower = RBM(n_features=4, n_hidden=3).build(Rng((seed, 2), F64))
    lower.params.theta[...] = scale * Rng((seed, 8), F64).normal(lower.params.theta.shape)
    return lower


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("name", [n for n in model_names() if callable(getattr(find_model(n), "bound", None))])
def test_a_bound_is_an_average_over_draws_of_h_and_not_taken_at_their_mean(name, scale):
    model = find_model(name)(n_features=4, n_hidden=5, rbm=stacked(0, scale)).build(Rng((1, 1), F64))
    model.params.theta[...] = scale * Rng((1, 9), F64).normal(model.params.theta.shape)
    x, h = (np.array(list(itertools.product([0.0, 1.0], repeat=n))) for n in (4, 3))
    low, log_z = model.rbm.energy, model.log_z()

    def log_bernoulli(bits, logits):
        return (bits * logits - np.logaddexp(0, logits)).sum(axis=-1)

    a = x @ low.W + low.c  # (16, 3): logits of q(h|x)
    log_q = log_bernoulli(h, a[:, None])  # (16, 8)
    log_p_x = log_bernoulli(x[:, None], (h @ low.W.T + low.b)[None])
    minus_F = h @ model.energy.b + np.logaddexp(0, h @ model.energy.W + model.energy.c).sum(axis=1)
    term = log_p_x + minus_F - log_q - log_z  # what each h contributes
    wanted = (np.exp(log_q) * term).sum(axis=1)

    one = np.stack([model.bound(x, log_z, model.rng((2, 1 + i)), n_draws=1) for i in range(400)])  # (400, 16)
    gaps = np.abs(one[:, :, None] - term)
    assert gaps.min(axis=2).max() < 1e-9, "with one draw it must be the term of one h, a row of zeros and ones"
    states = gaps.argmin(axis=2)
    p = np.exp(log_q)
    for i in range(len(x)):
        shares = np.bincount(states[:, i], minlength=8) / 400
        near(shares, p[i], np.sqrt(p[i] * (1 - p[i]) / 400) + 2 / 400, "h is not drawn from q(h|x)")

    spread = np.sqrt((p * (term - wanted[:, None]) ** 2).sum(axis=1))
    n, k = 200, 40
    many = np.stack([model.bound(x, log_z, model.rng((3, 1 + i)), n_draws=k) for i in range(n)])
    near(many.mean(axis=0), wanted, spread / math.sqrt(n * k), "the bound's mean")
    np.testing.assert_allclose(many.std(axis=0), spread / math.sqrt(k), rtol=5 / math.sqrt(2 * n) + 0.1)

    h = sigmoid(a)  # what the test can tell: q's mean in place of draws lies elsewhere
    F = h @ model.energy.b + np.logaddexp(0, h @ model.energy.W + model.energy.c).sum(axis=1)
    at_mean = log_bernoulli(x, h @ low.W.T + low.b) + F - log_bernoulli(h, a) - log_z
    assert (np.abs(at_mean - wanted) / (spread / math.sqrt(n * k))).max() > 10
