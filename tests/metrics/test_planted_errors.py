"""Every error bar against what it claims to be: the spread of the same number over repetitions.

From R repetitions a standard deviation is known to 1 / √(2 R) of itself, which makes the tolerances.
"""

import inspect
import math

import numpy as np
import pytest
from watching import F64, cases, near

from scratchgen import Rng
from scratchgen.check.variants import variants
from scratchgen.metrics import likelihood
from scratchgen.metrics.annealed import annealed_log_z
from scratchgen.metrics.likelihood import Likelihood, annealed, exact, likelihood_metrics, parzen
from scratchgen.models import find_model, model_names

R = 250
K = {
    "negative_elbo": 25,
    "importance": 400,
    "with_noise": 25,
    "by_masks": 25,
}  # draws; the error of a logarithm holds where they are many
LONG = ("flow-1", "flow-3", "masked_diffusion-1", "masked_diffusion-2", "vae-4", "vae-5", "vae-6")  # with many draws


def built(name, settings, scale=0.7, keep=1.0):
    """A float64 model with weights so large that its estimates differ from draw to draw."""
    model = find_model(name).example(Rng((0, 1), F64), **settings)[0]
    for i, params in enumerate(model.parameters().values()):
        params.theta[...] = keep * params.theta + scale * Rng((i, 50), F64).normal(params.theta.shape)
        params.changed()
    if hasattr(model, "average"):
        model.average.average[...] = model.params.theta
    return model


def examples(model, n, rng):
    """n fresh ones: whole numbers, black and white pixels, or any."""
    if model.tokens:
        return rng.integers(model.n_values, (n, model.n_features))
    bits = model.data_range == (0, 1)
    return (rng.uniform((n, model.n_features)) < 0.6).astype(float) if bits else rng.uniform((n, model.n_features))


def given_to(model, n):
    """{"labels": (n,)} for a VAE that is told labels. Any other model has a p(x) without them."""
    told = hasattr(model, "log_weights") and model.conditional
    return {"labels": model.rng(73).integers(model.n_classes, n)} if told else {}


def as_claimed(claims, values, what):
    """Asserts that the errors claimed are, in the root mean square, the spread of the values, both (R, ...)."""
    claimed, spread = np.sqrt(np.mean(np.square(claims), axis=0)), np.std(values, axis=0, ddof=1)
    near(claimed / spread, 1, 1 / math.sqrt(2 * len(values)), what, sigmas=4)


def few_temperatures(model, rng, n_betas=None, n_chains=15, few=2):
    """So few, however many are asked for, that the chance of log Z is no smaller than that of the examples."""
    return annealed_log_z(model, rng, n_chains, few)


def has_likelihood(model):
    return any(hasattr(model, name) for name in ("log_weights", "log_prob", "log_p", "log_bound"))


@cases(has_likelihood, slow=LONG)
def test_the_error_beside_log_p_is_its_spread_over_other_examples_and_draws(name, settings, monkeypatch):
    """That of log Z included: it is the larger part here, for the models that need one."""
    monkeypatch.setattr(likelihood, "annealed_log_z", few_temperatures)
    model = built(name, settings)
    n = 150 if hasattr(model, "gibbs") else 25
    found = []
    for i in range(R):
        rng = model.rng((60, 1 + i))
        found.append(likelihood_metrics(model, examples(model, n, rng), rng, draws=20, **given_to(model, n)))
    as_claimed([f["log_p_error"] for f in found], [f["log_p"] for f in found], name)


def spread_over_draws(model, estimate, n, repetitions=R):
    """(log_p, error, nll, chance), (R, n) and (R,), of the same n examples by other draws."""
    x = examples(model, n, model.rng(70))
    found = [estimate(model, x, model.rng((71, 1 + i))) for i in range(repetitions)]
    return tuple(np.array([getattr(f, key) for f in found]) for key in ("log_p", "error", "nll", "chance"))


def ways(model):
    """{name: estimate(model, x, rng)} of all functions of the file that suit a model."""
    found = {}
    for name, function in inspect.getmembers(likelihood, inspect.isfunction):
        parameters = inspect.signature(function).parameters
        if hasattr(model, "log_weights") and {"k", "rng", "pixels", "labels"} <= parameters.keys():
            found[name] = lambda model, x, rng, function=function, name=name: function(
                model, x, rng, k=K[name], **given_to(model, len(x))
            )
    if hasattr(model, "log_bound"):
        found["by_masks"] = lambda model, x, rng: likelihood.by_masks(model, x, rng, K["by_masks"])
    if hasattr(model, "log_prob") and getattr(model, "levels", 0):
        found["with_noise"] = lambda model, x, rng: likelihood.with_noise(model, x, rng, K["with_noise"])
    elif hasattr(model, "log_prob"):
        found["exact"] = exact
    if hasattr(model, "gibbs"):
        found["annealed"] = lambda model, x, rng: annealed(
            model, x, few_temperatures(model, rng, n_chains=60, few=4), rng
        )
    return found


@cases(has_likelihood, slow=LONG)
def test_the_error_by_the_estimate_is_its_spread_over_other_draws(name, settings):
    if name == "dbn":
        return  # has a test of its own below
    model = built(name, settings, 0.2, keep=0.5)  # weights so small that no few draws weigh nearly all
    assert ways(model)
    for way, estimate in ways(model).items():
        log_p, error, nll, chance = spread_over_draws(model, estimate, 5)
        if way == "exact":
            assert (error == 0).all() and (chance == 0).all() and np.ptp(nll) == 0
        elif way == "annealed":
            as_claimed(chance, nll, f"{name}, {way}: chance")
            assert (error == 0).all() and np.ptp(log_p - log_p.mean(axis=1, keepdims=True), axis=0).max() < 1e-9
        else:
            as_claimed(error, log_p, f"{name}, {way}: error of each example")
            as_claimed(chance, nll, f"{name}, {way}: chance")


def test_both_estimates_of_a_vae_are_looked_at_above():
    assert ways(built("vae", {})).keys() == {"importance", "negative_elbo"}


@pytest.mark.parametrize("k", [2, 10, 40])
@cases(lambda model: hasattr(model, "log_weights"))
def test_more_draws_make_the_error_of_a_bound_smaller_as_their_root(name, settings, k):
    """By formula, from the very draws: sd(log w) / √k."""
    model = built(name, settings)
    x = examples(model, 4, model.rng(70))
    labels = given_to(model, 4)
    found = likelihood.negative_elbo(model, x, model.rng(72), k, pixels="as given", **labels)
    log_w = model.log_weights(x, k, model.rng(72), **labels)
    np.testing.assert_allclose(found.log_p, log_w.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.error, np.sqrt(((log_w - log_w.mean(axis=0)) ** 2).sum(axis=0) / (k - 1) / k))


def test_the_error_of_parzen_windows_is_their_spread_over_other_examples():
    samples = Rng(1, F64).normal((30, 2))
    found = [parzen(samples, Rng((2, 1 + i), F64).normal((40, 2)), 0.5) for i in range(R)]
    as_claimed([f.standard_error for f in found], [f.nll for f in found], "parzen")
    assert all(f.chance == 0 for f in found)


def test_what_an_error_is_made_of():
    """Of the mean of four numbers with errors of their own and one in common."""
    found = Likelihood(np.array([-1.0, -2, -4, -5]), np.array([0.1, 0.2, 0.3, 0.4]), "", "", shared=0.7)
    assert found.nll == 3
    assert found.standard_error == pytest.approx(math.sqrt(10 / 3 / 4 + 0.49))
    assert found.chance == pytest.approx(math.sqrt(0.30 / 16 + 0.49))


# ---- annealing ----

MACHINES = cases(lambda model: hasattr(model, "gibbs"))


@MACHINES
def test_the_error_of_log_z_is_its_spread_over_other_chains(name, settings):
    model = built(name, settings, 0.4)
    found = [annealed_log_z(model, model.rng((80, 1 + i)), 60, 4) for i in range(R)]
    as_claimed([z.standard_error for z in found], [z.log_z for z in found], name)


@MACHINES
def test_an_estimate_of_log_z_by_the_formulas_from_its_own_weights(name, settings):
    model = built(name, settings)
    z = annealed_log_z(model, model.rng(81), 50, 3)
    w = np.exp(z.log_weights)
    assert len(w) == 50
    assert z.log_z == pytest.approx(math.log(w.mean()))
    assert z.standard_error == pytest.approx(math.sqrt(((w - w.mean()) ** 2).sum() / 49 / 50) / w.mean())
    assert z.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum())


@MACHINES
def test_what_all_examples_have_in_common_is_the_error_of_log_z(name, settings):
    model = built(name, settings)
    z = annealed_log_z(model, model.rng(82), 20, 2)
    assert z.standard_error > 0.01
    found = annealed(model, examples(model, 9, model.rng(83)), z, model.rng(84))
    assert found.shared == z.standard_error
    wanted = math.sqrt(found.log_p.var(ddof=1) / 9 + z.standard_error**2)
    assert found.standard_error == pytest.approx(wanted)


@pytest.mark.parametrize("settings", variants("dbn"), ids=["0", "1"])
def test_the_chance_of_a_stacks_bound_has_that_of_its_draws_of_h(settings):
    """The same examples and the same log Z, other draws of h."""
    model = built("dbn", settings)
    z = annealed_log_z(model, model.rng(85), 500, 50)
    _, _, nll, chance = spread_over_draws(model, lambda model, x, rng: annealed(model, x, z, rng), 5)
    spread = np.std(nll, ddof=1)
    assert np.sqrt(max(0, np.mean(chance**2) - z.standard_error**2)) == pytest.approx(spread, rel=0.25)


def test_models_with_a_likelihood_are_those_that_evaluate_says_it_of():
    for name in model_names():
        model = find_model(name).example(Rng((0, 1), F64))[0]
        rng = model.rng(1)
        x = examples(model, 3, rng)
        if not hasattr(model, "gibbs"):
            assert bool(likelihood_metrics(model, x, rng, 2)) == has_likelihood(model), name
