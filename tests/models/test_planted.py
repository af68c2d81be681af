"""Bugs in how a model trains that have a consistent gradient, by kinds: each test was seen to fail with one planted.

Averages, gradient penalties, schedules and labels, in every model that has them: a new model is found by its attributes.
"""

import contextlib
import math
from unittest import mock

import numpy as np
import pytest
from watching import F64, called, cases, example, fields, flat, near, spoil, watched

from scratchgen import Rng
from scratchgen.models import model_names
from scratchgen.nn import losses
from scratchgen.nn.distributions import sample_bernoulli
from scratchgen.nn.optim import EMA, Annealed, Optimizer, observed
from scratchgen.uses.completion import complete

ROUND = {"g_steps": 3, "d_steps": 2}


def parts(model, kind):
    """{name: part} of a model's attributes of a class."""
    return {name: part for name, part in vars(model).items() if isinstance(part, kind)}


def rounds(model, batch, n, seed=0):
    for i in range(n):
        model.train_step(**batch, rng=model.rng((seed, 1 + i)))


# ---- averaged weights ----


@cases(lambda model: parts(model, EMA), ROUND | {"averaging": 0.2})
def test_an_average_moves_once_after_each_step_of_its_weights(name, settings):
    model, batch = example(name, settings)
    found, seen = parts(model, EMA).values(), []
    wanted = {ema: ema.params.theta.copy() for ema in found}
    for ema in found:
        np.testing.assert_array_equal(ema.average, ema.params.theta)  # it starts where the weights do

    def observer(stepper, numbers):
        seen.append((stepper, stepper.params.theta.copy()))
        return numbers

    n = 5
    with observed(observer):
        rounds(model, batch, n)
    for ema in found:
        mine = [(stepper, theta) for stepper, theta in seen if stepper.params is ema.params]
        mine = [(stepper, theta) for stepper, theta in mine if isinstance(stepper, (Optimizer, EMA))]
        steps = [isinstance(stepper, EMA) for stepper, _ in mine]
        assert steps == [False, True] * (len(steps) // 2), "not one step of the average after each of the optimizer"
        per_round = getattr(model, "g_steps", 1) if ema.params is vars(model).get("params_G") else 1
        assert len(steps) == 2 * n * per_round
        average = wanted[ema]
        for t, (stepper, theta) in enumerate(mine[1::2], 1):
            assert stepper is ema
            d = min(0.2, (1 + t) / (10 + t))
            average = d * average + (1 - d) * theta
        np.testing.assert_allclose(ema.average, average, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(mine[-1][1], ema.params.theta)


def uses(model, batch):
    """{name: numbers} of all that a trained model is good for."""
    x = batch["x"]
    n, labels = len(x), batch.get("labels")
    bits = (Rng(3, F64).uniform(x.shape) < 0.5).astype(float)
    diffused = Rng(4, F64).normal((n, getattr(model, "n_diffused", 1)))
    given = {"n": n, "label": None, "labels": labels, "x_t": diffused, "x_T": diffused, "v": bits, "n_steps": 3}
    given |= {"eps": diffused, "t": 3 if hasattr(model, "n_times") else 0.3}
    given["c"] = model.conditions(x) if hasattr(model, "conditions") else None
    found = {}
    for name in ("sample", "generate", "path", "denoise", "velocity", "walk", "log_prob", "ode_log_prob", "evaluate"):
        exact = name == "log_prob" and hasattr(model, "discrete")
        given |= {"x": model.discrete(x, model.rng(2)) if exact else x, "rng": model.rng(5)}
        try:
            found[name] = called(getattr(model, name), given) if hasattr(model, name) else None
        except ValueError as error:  # UsageError: no way to sample, no density
            assert "sample" in name or "density" in str(error), error
            found[name] = None
    way = complete.dispatch(type(model))
    if way is not complete.dispatch(object):
        known = np.arange(model.n_features) < 3
        filling = {"model": model, "x": model.discrete(x, model.rng(2)) if hasattr(model, "discrete") else x}
        filling |= {"known": known, "rng": model.rng(5), "n_steps": 3, "n_starts": 2, "repeats": 2, "labels": labels}
        try:
            found["complete"] = called(way, filling)
        except ValueError as error:
            assert "cannot complete" in str(error)
    return {name: flat(value) for name, value in found.items() if value is not None and len(flat(value))}


@cases(lambda model: parts(model, EMA))
def test_what_a_model_is_good_for_uses_the_average_and_training_the_weights(name, settings):
    model, batch = example(name, settings)
    before = uses(model, batch)
    assert before
    objectives = [flat(getattr(model, loss)(**batch, rng=model.rng(6))) for loss in model.objectives]
    averages = parts(model, EMA).values()
    for ema in averages:
        spoil(ema.params, 1)
    for use, numbers in uses(model, batch).items():
        np.testing.assert_array_equal(numbers, before[use], f"{use} does not go by the averaged weights")
    spoilt = [flat(getattr(model, loss)(**batch, rng=model.rng(6))) for loss in model.objectives]
    assert all((a != b).any() for a, b in zip(objectives, spoilt)), "a loss does not go by the weights"
    for ema in averages:
        ema.average[...] = Rng(7, F64).normal(ema.average.shape)
    for use, numbers in uses(model, batch).items():
        assert numbers.shape != before[use].shape or (numbers != before[use]).any(), use
    again = [flat(getattr(model, loss)(**batch, rng=model.rng(6))) for loss in model.objectives]
    for a, b in zip(spoilt, again):
        np.testing.assert_array_equal(a, b, "training goes by the averaged weights")


# ---- gradient penalties ----

HAS_D = cases(lambda model: getattr(model, "discriminator", None) is not None, {"batch": 40})
WEIGHTS = {"r1": 0.5, "lam": 1.0}  # by what each setting is multiplied: ½ γ E‖∇D‖², λ E(‖∇D‖ - 1)²
GAMMA = 2.7


def slopes(D, points):
    """∇ₓ D(x), (N, n), by central differences of D as it is when it is used."""
    h, found = 1e-6, []
    for e in np.eye(points.shape[1]):
        found.append((D(points + h * e)[:, 0] - D(points - h * e)[:, 0]) / (2 * h))
    return np.stack(found, axis=1)


def shown(model, batch, seed=6):
    """(D's losses, what D was shown as real, what it was shown as not, the points of its penalty)."""
    targets = []

    def noting(f):
        return lambda logits, target: targets.append(logits) or f(logits, target)

    spies = {kind: (noting(of_D), of_G) for kind, (of_D, of_G) in losses.ADVERSARIAL.items()}
    D = model.discriminator
    with mock.patch.dict(losses.ADVERSARIAL, spies), watched(D) as calls, watched(D, "forward_twice") as penalties:
        found = model.discriminator_loss(**batch, rng=model.rng(seed))
    of = {id(y): given[0] for given, (y, _) in calls}
    real, fake = (of[id(logits)] for logits in targets[:2])  # loss_D looks at the real ones first
    return found, real, fake, [given[0] for given, _ in penalties]


def with_weight(name, settings, setting, value):
    model, batch = example(name, settings | {setting: value})
    return model, {key: array[: model.batch] for key, array in batch.items()}  # one step of D


@pytest.mark.parametrize("setting", WEIGHTS)
@HAS_D
def test_a_gradient_penalty_is_that_of_Ds_slope_at_what_D_is_shown(name, settings, setting):
    if setting not in fields(name):
        return
    model, batch = with_weight(name, settings, setting, GAMMA)
    found, real, fake, points = shown(model, batch)
    without, *_ = shown(*with_weight(name, settings, setting, 0.0))
    rise = found["discriminator_loss"] - without["discriminator_loss"]
    assert (rise != 0) == (GAMMA in (model.r1, getattr(model, "lam", None)) and in_use(model, setting))
    if not rise:
        return
    # A condition stands beside the example, the same beside the real one as beside the generated one.
    free = (real != fake[: len(real)]).any(axis=0)
    assert free.sum() == model.n_features * getattr(model, "pack", 1)
    noise = 6 * getattr(model, "noise", 0.0)  # no draw of a few hundred is six deviations away
    np.testing.assert_allclose(real[:, free].reshape(batch["x"].shape), batch["x"], rtol=0, atol=noise)
    if setting == "r1":
        at, centre = real, 0.0
    else:
        (at,), centre = points, 1.0
        toward, along = at - fake, real - fake
        alpha = (toward * along).sum(axis=1) / (along * along).sum(axis=1)
        np.testing.assert_allclose(at, fake + alpha[:, None] * along, atol=1e-12)
        assert (alpha >= 0).all() and (alpha <= 1).all() and len(np.unique(alpha)) == len(alpha)
        near(alpha.mean(), 0.5, math.sqrt(1 / 12 / len(alpha)), "α is not uniform")
        near(alpha.var(), 1 / 12, math.sqrt(1 / 180 / len(alpha)), "α is not uniform")  # E(α - ½)⁴ - 1/144 = 1/180
    excess = np.linalg.norm(slopes(model.discriminator, at)[:, free], axis=1) - centre
    if getattr(model, "one_sided", False):
        excess = np.maximum(excess, 0)
    value = (excess**2).mean()
    assert found["penalty"] == pytest.approx(value, rel=1e-6)
    assert rise == pytest.approx(WEIGHTS[setting] * GAMMA * value, rel=1e-6)


def in_use(model, setting):
    """Whether a penalty's weight has a say: of two penalties that a model has, the loss decides which."""
    if getattr(model, "constraint", "gradient") == "clip":
        return False
    both = {"r1", "lam"} <= model.settings().keys()
    return not both or (setting == "lam") == (model.adversarial_loss == "wasserstein")


def test_every_penalty_was_looked_at_above():
    """Each model with a D has a penalty with one of the weights above."""
    with_D = {param.values[0] for param in HAS_D.args[1]}
    assert with_D >= {"gan", "wgan", "conditional_gan", "pix2pix", "vqgan"}
    assert all(fields(name) & WEIGHTS.keys() for name in with_D)
    assert all("lam" not in fields(name) or name in with_D for name in model_names())


@cases(
    lambda model: getattr(model, "discriminator", None) is not None and hasattr(model, "noise_level"),
    {"batch": 2000, "noise": 0.4},
)
def test_D_is_shown_noisy_examples_in_both_losses(name, settings):
    """Real and generated ones, packed where they are packed, and G is judged by what D would be shown."""
    model, batch = example(name, settings)
    x = batch["x"][: model.batch]
    with watched(model.generator) as made:
        _, real, fake, _ = shown(model, batch | {"x": x})
    with watched(model.generator) as made_by_G, watched(model.discriminator) as judged:
        model.generator_loss(x, model.rng(8))
    pairs = [(real, x), (fake, made[0][1][0]), (judged[0][0][0], made_by_G[0][1][0])]
    kept = 1 - model.spared
    for seen, clean in pairs:
        assert seen.shape == (len(clean) // model.pack, model.pack * model.n_features)
        noise = seen.reshape(clean.shape) - clean
        variance = 0.4**2 * kept  # of ε² m: E ε⁴ m = 3 σ⁴ kept
        error = 0.4**2 * math.sqrt((3 * kept - kept**2) / noise.size)
        near((noise**2).mean(), variance, error, "noise")
        near(noise.mean(), 0, math.sqrt(variance / noise.size), "noise")


# ---- schedules count rounds ----

FADING = {"noise": 0.4, "label_noise": 0.3, "noise_steps": 5}


@cases(lambda model: parts(model, Annealed), ROUND | FADING)
def test_what_fades_falls_by_a_step_a_round_and_stays_within_it(name, settings):
    model, batch = example(name, settings)
    levels, seen = parts(model, Annealed), []
    for objective in model.objectives:
        original = getattr(model, objective)

        def noting(*given, original=original, **named):
            seen.append({key: level.value for key, level in levels.items()})
            return original(*given, **named)

        vars(model)[objective] = noting
    wanted = {"noise_level": 0.4, "label_noise_level": 0.3}
    assert levels.keys() <= wanted.keys(), "say above at what it starts, and in which setting"
    for i in range(7):
        seen.clear()
        model.train_step(**batch, rng=model.rng(i))
        assert len(seen) == model.d_steps + model.g_steps == 5
        for key, level in levels.items():
            assert int(level.t[0]) == 1 + i, f"{key} has fallen {int(level.t[0])} times in {1 + i} rounds"
            np.testing.assert_allclose([values[key] for values in seen], wanted[key] * max(0, 1 - i / 5), atol=1e-12)


@cases(lambda model: getattr(model, "noise_level", None) is not None, ROUND | FADING | {"batch": 2000})
def test_of_the_labels_as_many_are_flipped_as_the_round_says(name, settings):
    model, batch = example(name, settings | {"label_smoothing": 0.0})
    for i in range(3):
        with watched(model, "targets") as calls:
            model.train_step(**batch, rng=model.rng(i))
        p = 0.3 * (1 - i / 5)
        for _, (y_real, y_fake) in calls:
            for flipped in (1 - y_real, y_fake):
                near(flipped.mean(), p, math.sqrt(p * (1 - p) / len(flipped)), f"round {1 + i}")


class Least(Rng):
    """A stream whose uniform numbers are all 0, the least that it can draw."""

    def uniform(self, shape):
        return np.zeros(shape)


def test_what_has_no_chance_does_not_happen_at_the_least_draw_either():
    """In single precision that is one draw in 17 million, and there are more pixels and labels than that."""
    ddpm, batch = example("ddpm", {"conditional": True, "label_dropout": 0.0})
    np.testing.assert_array_equal(ddpm.drop_labels(batch["labels"], Least(0, F64))[0], batch["labels"])
    gan, batch = example("gan", {"label_noise": 0.3, "noise_steps": 1})
    for i in range(2):  # from the second round on the noise has faded
        gan.train_step(**batch, rng=gan.rng(i))
    assert all((y == wanted).all() for y, wanted in zip(gan.targets(3, Least(0, F64)), (1, 0)))
    assert not sample_bernoulli(np.array([-1000.0]), Least(0, F64)).any()


def rates(model, batch, n):
    """{(optimizer, round): the rate of its first step in that round}."""
    found = {}
    for i in range(n):

        def observer(stepper, numbers, i=i):
            for name, part in parts(model, Optimizer).items():
                if part is stepper:
                    found.setdefault((name, i), stepper.rate(int(stepper.t[0])))
            return numbers

        with observed(observer):
            model.train_step(**batch, rng=model.rng(i))
    return found


@cases(lambda model: hasattr(model, "decay_steps") and parts(model, Optimizer), {"decay_steps": 6})
def test_rates_fall_by_rounds_however_many_steps_a_round_has(name, settings):
    """decay_steps is the length of training in rounds: after so many the rate is 0, and in the one before it is not."""
    found = [rates(*example(name, settings), 8)]
    if fields(name) & ROUND.keys():
        more = settings | {key: value for key, value in ROUND.items() if key in fields(name)}
        found.append(rates(*example(name, more), 8))
        assert found[0].keys() == found[1].keys()
        for key, rate in found[0].items():
            assert found[1][key] == pytest.approx(rate, abs=1e-15), key
    for rates_found in found:
        for (optimizer, i), rate in rates_found.items():
            start = rates_found[optimizer, 0]
            assert start in {value for key, value in example(name, settings)[0].settings().items() if key[:2] == "lr"}
            assert (rate == pytest.approx(0, abs=1e-12)) == (i >= 6) and rate <= start


@cases(lambda model: hasattr(model, "warming_up"), {"warmup_steps": 2})
def test_D_comes_in_after_the_warm_up(name, settings):
    model, batch = example(name, settings | {"warmup_steps": 2})
    counts = []
    for i in range(4):
        found = model.train_step(**batch, rng=model.rng(i))
        counts.append((int(model.optimizer_D.t[0]), "adversarial" in found))
    assert counts == [(0, False), (0, False), (1, True), (2, True)]


# ---- labels go with their examples ----

LABELLED = {"d_steps": 2, "conditional": True, "batch": 6, "dropout": 0.0, "label_dropout": 0.0}


def marked(model, batch):
    """A batch in which labels can be read off x: the first number of x of a class, the first numbers of x as a vector."""
    x, k = batch["x"].copy(), model.n_classes
    if model.labels_are_vectors:
        return {"x": x, "labels": x[:, :k].copy()}, lambda x: x[:, :k]
    labels = np.arange(len(x)) * 7 // 3 % k
    x[:, 0] = labels / k
    return {"x": x, "labels": labels}, lambda x: np.rint(x[:, 0] * k).astype(int)


@cases(lambda model: model.needs_labels, LABELLED)
def test_each_step_of_a_round_has_the_labels_of_its_own_examples(name, settings):
    model, batch = example(name, settings)
    batch, label_of = marked(model, batch)
    seen = {objective: [] for objective in model.objectives}
    originals = {objective: getattr(model, objective) for objective in model.objectives}

    def noting(objective):
        def run(x, rng, labels=None):
            seen[objective].append((x.copy(), labels.copy()))
            return originals[objective](x, rng, labels)

        return run

    vars(model).update({objective: noting(objective) for objective in model.objectives})
    model.train_step(**batch, rng=model.rng(1))
    steps = {"discriminator_loss": getattr(model, "d_steps", 1)}
    for objective, calls in seen.items():
        assert len(calls) == steps.get(objective, 1)
        for x, labels in calls:
            np.testing.assert_array_equal(labels, label_of(x), objective)
    first = next(iter(seen.values()))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in first]), batch["x"])  # each example once
    assert len(np.unique(batch["labels"], axis=0)) > 1


@cases(lambda model: model.needs_labels and hasattr(model, "discriminator"), LABELLED)
def test_G_and_D_are_given_the_condition_that_belongs_to_each_row(name, settings):
    """Real rows with their own condition, or with a wrong one; generated rows with the one that they were made for."""
    model, batch = example(name, settings)
    batch, _ = marked(model, batch)
    n, x = model.n_features, batch["x"]
    c = batch["labels"] if model.labels_are_vectors else np.eye(model.n_classes)[batch["labels"]]
    own = {row.tobytes(): condition for row, condition in zip(x, c)}
    with watched(model.generator) as made, watched(model.discriminator) as judged:
        model.train_step(**batch, rng=model.rng(1))
    asked = {}
    for (z, *_), (x_hat, _) in made:
        asked |= {row.tobytes(): condition for row, condition in zip(x_hat, z[:, model.n_latent :])}
    last = c[-model.batch :]
    np.testing.assert_array_equal(made[-1][0][0][:, model.n_latent :], last)  # G's own step
    counts = {"own": 0, "wrong": 0, "asked": 0}
    for (rows, *_), _ in judged:
        for row in rows:
            x_row, condition = row[:n].tobytes(), row[n:]
            if x_row in own:
                counts["own" if (condition == own[x_row]).all() else "wrong"] += 1
            else:
                assert (condition == asked[x_row]).all()
                counts["asked"] += 1
    total = model.d_steps * model.batch
    assert counts == {"own": total, "wrong": total, "asked": total + model.batch}


@cases(
    lambda model: model.needs_labels and hasattr(model, "denoiser"), LABELLED | {"batch": 4000, "label_dropout": 0.3}
)
def test_a_denoiser_is_told_labels_in_order_and_now_and_then_that_any_will_do(name, settings):
    model, batch = example(name, settings)
    own = hasattr(model, "pairs")  # then it learns from pairs that another model has made, with their labels
    with watched(model.denoiser) as calls, watched(model, "ends") if own else contextlib.nullcontext() as drawn:
        model.train_step(**batch, rng=model.rng(1))
    *_, ((inputs, _), _) = calls  # the last pass is the one that learns
    labels = inputs[2]
    withheld, wanted = labels == model.n_classes, drawn[0][1][2] if own else batch["labels"]
    assert len(np.unique(wanted)) == model.n_classes
    np.testing.assert_array_equal(labels[~withheld], wanted[~withheld])
    p = model.label_dropout
    near(withheld.mean(), p, math.sqrt(p * (1 - p) / len(labels)), "labels withheld")
