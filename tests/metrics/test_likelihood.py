"""Estimates of log p(x) against quadrature and closed forms; the bounds that a VAE can be trained by; Parzen windows."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.data import fixed_order
from scratchgen.metrics import likelihood
from scratchgen.metrics.likelihood import (
    best_sigma,
    black_and_white,
    by_ode,
    exact,
    importance,
    likelihood_metrics,
    log_likelihood,
    negative_elbo,
    parzen,
    passes,
)
from scratchgen.models import find_model
from scratchgen.models.ddpm import DDPM
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.models.made import MADE
from scratchgen.models.parts.levels import dequantise
from scratchgen.models.vae import VAE
from scratchgen.train.fit import fit

F64 = "float64"


def grid(n_latent):
    """Points z (M, n_latent) of a grid, with log of p(z) times a cell's volume (M,)."""
    axis = np.linspace(-7, 7, 2001 if n_latent == 1 else 281)
    z = np.stack([a.ravel() for a in np.meshgrid(*n_latent * [axis], indexing="ij")], axis=1)
    cell = (axis[1] - axis[0]) ** n_latent
    return z, -0.5 * (z * z).sum(axis=1) + math.log(cell) - 0.5 * n_latent * math.log(2 * math.pi)


def by_quadrature(model, x):
    """log p(x) (N,) as an integral over z, from the decoder and the densities alone."""
    z, log_prior = grid(model.n_latent)
    mean, found = model.decode(z), []
    for row in x:
        if model.likelihood == "bernoulli":
            log_p = np.log(np.where(row == 1, mean, 1 - mean)).sum(axis=1)
        else:
            log_p = -0.5 * (
                ((row - mean) ** 2).sum(axis=1) / model.variance + len(row) * math.log(2 * math.pi * model.variance)
            )
        terms = log_prior + log_p
        found.append(terms.max() + np.log(np.exp(terms - terms.max()).sum()))
    return np.array(found)


def trained(n_latent, kind):
    """A VAE that has learned four patterns of 12 pixels with noise, and 100 examples, in float64."""
    rng = Rng(n_latent)
    patterns = (rng.uniform((4, 12)) < 0.5).astype(np.float32)
    x = patterns[rng.integers(4, 1100)]
    flipped = rng.uniform(x.shape) < 0.1
    x = np.where(flipped, 1 - x, x)
    settings = {
        "n_features": 12,
        "hidden": (16,),
        "n_latent": n_latent,
        "likelihood": kind,
        "variance": 0.2,
        "batch": 50,
    }
    model = VAE(**settings, lr=3e-3, activation="tanh", bound="iwae", n_samples=10).build(Rng(0))
    fit(model, x[:1000], epochs=15, progress=False)
    model.params.cast(F64)
    return model, x[1000:].astype(np.float64)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("n_latent", [1, 2])
def test_the_importance_estimate_is_the_integral_over_z(n_latent, kind):
    model, x = trained(n_latent, kind)
    found, wanted = importance(model, x, Rng(1, F64), k=5_000), by_quadrature(model, x)
    difference = found.nll + wanted.mean()
    assert abs(difference) < 0.01
    assert abs(difference) < 3 * found.chance, (difference, found.chance)
    assert 1e-5 < found.chance < 0.005
    assert (np.abs(found.log_p - wanted) < 6 * found.error + 1e-9).all()
    assert np.ptp(wanted) > 1  # the examples are not all alike


def test_the_errors_it_gives_are_those_it_makes():
    model, x = trained(1, "bernoulli")
    runs = [importance(model, x[:10], Rng((1, seed), F64), k=500) for seed in range(60)]
    spread = np.std([run.log_p for run in runs], axis=0)
    given = np.mean([run.error for run in runs], axis=0)
    np.testing.assert_allclose(given, spread, rtol=0.4)
    assert np.mean([run.chance for run in runs]) == pytest.approx(np.std([run.nll for run in runs]), rel=0.35)


@pytest.mark.slow
def test_the_bound_rises_with_k_and_stays_below():
    model, x = trained(2, "bernoulli")
    wanted = by_quadrature(model, x).mean()
    found = [
        -np.mean([importance(model, x, Rng((2, seed), F64), k).nll for seed in range(4)]) for k in (1, 5, 50, 1000)
    ]
    elbo = negative_elbo(model, x, Rng(3, F64), k=400)
    assert found[0] == pytest.approx(-elbo.nll, abs=5 * elbo.chance + 0.05)
    assert found[0] < found[1] - 0.01 < found[2] and found[2] < found[3] + 0.005
    assert found[3] <= wanted + 0.005
    assert elbo.nll == pytest.approx(-wanted + gap(model, x), abs=0.02)


def gap(model, x):
    """The mean KL(q(z|x) ‖ p(z|x)) by quadrature."""
    z, log_prior = grid(model.n_latent)
    mu, log_var = model.encode(x)
    mean, log_p, found = model.decode(z), by_quadrature(model, x), []
    log_cell = log_prior + 0.5 * (z * z).sum(axis=1) + 0.5 * model.n_latent * math.log(2 * math.pi)
    for i, row in enumerate(x):
        log_q = -0.5 * ((z - mu[i]) ** 2 / np.exp(log_var[i]) + log_var[i] + math.log(2 * math.pi)).sum(axis=1)
        log_posterior = log_prior + np.log(np.where(row == 1, mean, 1 - mean)).sum(axis=1) - log_p[i] - log_cell
        found.append((np.exp(log_q + log_cell) * (log_q - log_posterior)).sum())
    return np.mean(found)


@pytest.mark.parametrize("k", [1, 7, 250])
def test_memory_does_not_grow_with_k_or_with_the_examples(k, monkeypatch):
    model, x = VAE.example(Rng(0))[0], (Rng(1).uniform((90, 6)) < 0.5).astype(np.float32)
    seen, decoder = [], model.decoder
    monkeypatch.setattr(likelihood, "ROWS", 60)
    monkeypatch.setattr(model, "decoder", lambda z: seen.append(len(z)) or decoder(z))
    found = importance(model, x, Rng(2), k)
    assert max(seen) <= 60 and sum(seen) == 90 * k
    assert found.log_p.shape == found.error.shape == (90,) and found.log_p.dtype == np.float64


def test_what_many_draws_in_parts_give_is_what_they_give_at_once(monkeypatch):
    model, x = trained(1, "gaussian")
    log_w = model.log_weights(x[:1], 40, Rng(5, F64))[:, 0]
    parts = iter([log_w[:15], log_w[15:30], log_w[30:]])
    monkeypatch.setattr(likelihood, "ROWS", 15)
    monkeypatch.setattr(model, "log_weights", lambda x, k, rng, labels: next(parts)[:, None])
    found, w = importance(model, x[:1], Rng(0), 40), np.exp(log_w)
    assert found.log_p[0] == pytest.approx(np.log(w.mean()), rel=1e-12)
    assert found.error[0] == pytest.approx(w.std() / math.sqrt(40) / w.mean(), rel=1e-9)


# ---- training by the bound of importance weights ----


@given(seed=st.integers(0, 1000), k=st.integers(1, 6), kind=st.sampled_from(["bernoulli", "gaussian"]))
def test_the_iwae_loss_by_formula(seed, k, kind):
    model, batch = VAE.example(Rng((seed, 1), F64), bound="iwae", n_samples=k, likelihood=kind)
    found = model.loss(**batch, rng=Rng((seed, 2), F64))
    log_w = model.log_weights(batch["x"], k, Rng((seed, 2), F64))  # (k, 4)
    assert found["loss"] == pytest.approx(-np.log(np.exp(log_w).mean(axis=0)).mean(), rel=1e-10)
    assert found["negative_elbo"] == pytest.approx(-log_w.mean(), rel=1e-10)
    assert found["loss"] <= found["negative_elbo"] + 1e-12


def test_log_weights_by_the_densities():
    model, x = trained(2, "gaussian")
    rng = Rng(7, F64)
    log_w = model.log_weights(x[:3], 5, rng)
    mu, log_var = model.encode(x[:3])
    eps = Rng(7, F64).normal((15, 2)).reshape(5, 3, 2)
    z = mu + np.exp(0.5 * log_var) * eps
    mean = model.decode(z.reshape(15, 2)).reshape(5, 3, 12)

    def log_gaussian(a, m, variance):
        return -0.5 * ((a - m) ** 2 / variance + np.log(2 * np.pi * variance)).sum(axis=-1)

    wanted = log_gaussian(x[:3], mean, 0.2 + 0 * mean) + log_gaussian(z, 0 * z, 1 + 0 * z)
    wanted = wanted - log_gaussian(z, mu, np.exp(log_var))
    np.testing.assert_allclose(log_w, wanted, rtol=1e-9)


def test_with_one_draw_it_is_the_elbo_on_average():
    settings = {"n_features": 6, "hidden": (5,), "n_latent": 2, "batch": 4}
    elbo, iwae = (VAE(**settings, bound=bound).build(Rng((0, 1), F64)) for bound in ("elbo", "iwae"))
    x = np.repeat(Rng(3, F64).uniform((4, 6)), 20_000, axis=0)
    a, b = (float(model.loss(x, Rng(4, F64))["loss"]) for model in (elbo, iwae))
    assert a == pytest.approx(b, abs=0.02)
    np.testing.assert_allclose(elbo.params.grad, iwae.params.grad, atol=0.02)


def test_more_draws_make_the_elbos_gradient_quieter_and_leave_its_mean():
    def gradients(k, n=400):
        model, batch = VAE.example(Rng((0, 1), F64), n_samples=k)
        found = []
        for seed in range(n):
            model.loss(**batch, rng=Rng((seed, 5), F64))
            found.append(model.params.grad.copy())
        return np.mean(found, axis=0), np.var(found, axis=0).sum()

    (mean, noise), (mean_of_ten, noise_of_ten) = gradients(1), gradients(10)
    np.testing.assert_allclose(mean, mean_of_ten, atol=6 * math.sqrt(noise / 400))
    assert noise_of_ten == pytest.approx(noise / 10, rel=0.3)


def test_pixels_are_binarized_anew_at_every_look():
    model = VAE.example(Rng(0), binarize=True)[0]
    grey = np.tile(np.array([0.0, 0.25, 0.9, 1.0, 0.5, 0.5], np.float32), (20_000, 1))
    a, b = (model.binarized(grey, Rng(seed)) for seed in (1, 2))
    assert set(np.unique(a)) == {0.0, 1.0} and not np.array_equal(a, b)
    np.testing.assert_allclose(a.mean(axis=0), grey[0], atol=0.015)
    x = grey[:4]
    assert len({float(model.loss(x, Rng(seed))["nll"]) for seed in range(5)}) == 5
    found = model.evaluate(x, Rng(0))
    assert all(name.startswith("binarized_") for name in found)
    black = np.ones((4, 6), np.float32)
    np.testing.assert_array_equal(model.binarized(black, Rng(0)), black)


OTHER = {
    "likelihood": "gaussian", "variance": 0.5, "beta": 2.0, "bound": "iwae", "n_samples": 3, "binarize": True,
    "activation": "tanh", "conditional": True,
    "init": "he", "batch": 8, "lr": 1e-2, "decay_steps": 4,
}  # fmt: skip
BESIDE = {"variance": {"likelihood": "gaussian"}}


def after_four_steps(settings):
    model, batch = VAE.example(Rng(0, F64), **settings)
    batch = {"x": Rng(9, F64).uniform((model.batch, 6)), "labels": Rng(8).integers(3, model.batch)}
    for step in range(4):
        model.train_step(**batch, rng=model.rng(step))
    return model.params.theta


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    beside = BESIDE.get(setting, {})
    assert not np.array_equal(after_four_steps(beside), after_four_steps(beside | {setting: OTHER[setting]}))


def test_every_setting_is_tried_above():
    sizes = {"n_features", "n_classes", "hidden", "n_latent"}
    assert {field.name for field in dataclasses.fields(VAE)} - sizes - VAE.sampler_settings == OTHER.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bound": "iwae", "beta": 2.0}, "beta: 2 .*bound=iwae needs beta=1"),
        ({"binarize": True, "likelihood": "gaussian"}, "binarize: .*likelihood=bernoulli"),
        ({"n_samples": 0}, "n_samples: expected a number >= 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(UsageError, match=f"^VAE setting {message}"):
        VAE(**settings)


# ---- by the ODE ----


def by_hand(kind, f, **settings):
    """A model whose network is the function f of x_t, on data of mean 0 and deviation 1."""
    model = kind(width=4, n_blocks=1, n_waves=4, n_classes=3, scaling="standard", **settings).build(Rng(0, F64))
    model.denoiser.forward = lambda inputs, rng: (f(*inputs), None)
    model.scaler.mean[...], model.scaler.std[...] = 0, 1
    return model


def decaying(x_t, t, *labels):
    return -3 * x_t


def test_the_ode_says_log_p_how_and_how_well():
    """dx/dt = -3x: noise shrinks to N(0, e⁻⁶). The error is what halving the steps changes."""
    model = by_hand(FlowMatching, decaying, n_features=2, predict="velocity")
    x = math.exp(-3) * Rng(1, F64).normal((50, 2))
    found = by_ode(model, x, Rng(2, F64), n_steps=20)
    log_p = -0.5 * math.exp(6) * (x * x).sum(axis=1) + 6 - math.log(2 * math.pi)
    np.testing.assert_allclose(found.log_p, log_p, atol=1e-3)
    halves = (model.ode_log_prob(x, n) for n in (20, 10))
    np.testing.assert_allclose(found.error, abs(np.subtract(*halves)), atol=1e-12)
    assert (np.abs(found.log_p - log_p) < found.error + 1e-12).all() and found.error.max() > 1e-6
    assert found.method.startswith("ODE, rk4, 20 steps; with 10 it differs by ") and found.pixels == "as they are"
    assert "given the labels" not in found.method


def test_in_the_plane_evaluate_is_always_told_and_elsewhere_if_it_asks():
    x = Rng(1, F64).normal((300, 2))
    flow = by_hand(FlowMatching, decaying, n_features=2, predict="velocity")
    found = likelihood_metrics(flow, x, Rng(2, F64))
    rows = fixed_order(300)[:100]
    assert found["log_p"] == pytest.approx(by_ode(flow, x[rows], Rng(2, F64)).log_p.mean())
    assert found["log_p_error"] > 0 and "100 steps" in found["log_p_method"]
    data = by_hand(FlowMatching, decaying, n_features=2, predict="x0")
    assert likelihood_metrics(data, x, Rng(2, F64)) == {}
    with pytest.raises(UsageError, match=r"^predict=x0 gives no density of x: train with predict=velocity$"):
        likelihood_metrics(data, x, Rng(2, F64), asked=True)
    wide = by_hand(FlowMatching, decaying, n_features=5, predict="velocity")
    x = Rng(1, F64).normal((6, 5))
    assert likelihood_metrics(wide, x, Rng(2, F64)) == {}
    assert "log_p" in likelihood_metrics(wide, x, Rng(2, F64), asked=True)


def test_labels_are_used_where_there_are_some_and_it_says_so():
    shift = np.array([0.0, 1, 2, 50])
    model = by_hand(
        FlowMatching,
        lambda x, t, k: shift[k][:, None] + 0 * x,
        n_features=2,
        predict="velocity",
        conditional=True,
    )
    x, labels = Rng(1, F64).normal((5, 2)), np.array([0, 1, 2, 0, 1])
    found = log_likelihood(model, x, Rng(2, F64), labels=labels)
    wanted = -0.5 * ((x - shift[labels][:, None]) ** 2).sum(axis=1) - math.log(2 * math.pi)
    np.testing.assert_allclose(sorted(found.log_p), sorted(wanted), atol=1e-9)
    assert "given the labels" in found.method


@pytest.mark.parametrize(("kind", "predict"), [(FlowMatching, "velocity"), (DDPM, "v")])
def test_pictures_are_bounded_by_their_pixels_with_noise(kind, predict):
    """v or û of 0: p(x′) is N(0, 1) in each pixel, so the bound is E log N(x′) - D log L."""
    model = by_hand(kind, lambda x, t: 0 * x, n_features=6, predict=predict, levels=4)
    x = (Rng(3).integers(4, (50, 6)) / 3).astype(float)
    found = by_ode(model, x, Rng(2, F64), n_steps=100)
    x_prime = dequantise(x, 4, Rng(2, F64))
    wanted = -0.5 * (x_prime**2 + math.log(2 * math.pi)).sum(axis=1) - 6 * math.log(4)
    np.testing.assert_allclose(found.log_p, wanted, atol=1e-3)
    bits = -wanted.mean() / 6 / math.log(2)
    assert f"a bound, {bits:.3g} bits per pixel of 4 levels" in found.method
    assert found.pixels == "with noise as wide as a level"


def test_what_takes_too_long_or_means_nothing_is_refused_in_one_line():
    mnist = by_hand(FlowMatching, decaying, n_features=784, predict="velocity", levels=256)
    x = np.zeros((2, 784))
    with pytest.raises(
        UsageError, match=r"^log p by the ODE is for at most 100 numbers per example; .* 470,400 passes"
    ):
        log_likelihood(mnist, x, Rng(0, F64), asked=True)
    assert log_likelihood(mnist, x, Rng(0, F64)) is None
    model, batch = FlowMatching.example(Rng(0, F64), predict="velocity")  # pixels, without levels
    with pytest.raises(UsageError, match=r"^log p of pictures needs noise in their grey levels: train with levels=17"):
        log_likelihood(model, batch["x"], Rng(0, F64), asked=True)


def test_passes_are_counted():
    model, count = by_hand(FlowMatching, decaying, n_features=5, predict="velocity"), []
    model.denoiser.forward = lambda inputs, rng: (count.append(1) or 0 * inputs[0], None)
    by_ode(model, np.zeros((2, 5)), Rng(0, F64), n_steps=10)
    assert len(count) == passes(5, 10) == 4 * 5 * 15


# ---- exact, Parzen, and what is said of the pixels ----


def test_exact_is_the_models_own():
    model = MADE.example(Rng(0))[0]
    x = (Rng(1).uniform((50, 6)) < 0.5).astype(np.float32)
    found, log_p = exact(model, x, Rng(2)), model.log_prob(x).astype(np.float64)
    assert found.nll == pytest.approx(-log_p.mean())
    assert found.standard_error == pytest.approx(log_p.std(ddof=1) / math.sqrt(50))
    assert found.chance == 0 and "exact" in str(found) and "as given" in str(found)


def test_grey_pixels_are_made_black_and_white_and_it_says_so():
    grey = np.full((30, 6), 0.5, np.float32)
    for model, estimate in ((MADE.example(Rng(0))[0], exact), (VAE.example(Rng(0))[0], importance)):
        found = estimate(model, grey, Rng(3))
        assert "binarized by chance" in found.pixels and found.pixels in str(found)
        assert len(np.unique(found.log_p.round(6))) > 3  # not all became the same
        again = estimate(model, grey, Rng(3))
        np.testing.assert_array_equal(found.log_p, again.log_p)
    gaussian = VAE.example(Rng(0), likelihood="gaussian")[0]
    assert importance(gaussian, grey, Rng(3), k=10).pixels == "as they are"


@given(seed=st.integers(0, 1000), sigma=st.floats(0.05, 2), D=st.integers(1, 3))
def test_parzen_by_formula(seed, sigma, D):
    samples, x = Rng((seed, 1), F64).normal((20, D)), Rng((seed, 2), F64).normal((7, D))
    squares = ((x[:, None] - samples) ** 2).sum(axis=2)
    p = np.exp(-0.5 * squares / sigma**2) / (2 * math.pi * sigma**2) ** (D / 2)
    with np.errstate(divide="ignore"):
        wanted = np.log(p.mean(axis=1))
    far = np.isinf(wanted)
    np.testing.assert_allclose(parzen(samples, x, sigma).log_p[~far], wanted[~far], rtol=1e-8, atol=1e-8)


def test_parzen_in_parts_is_parzen_at_once(monkeypatch):
    samples, x = Rng(1, F64).normal((20, 3)), Rng(2, F64).normal((50, 3))
    whole = parzen(samples, x, 0.3).log_p
    monkeypatch.setattr(likelihood, "ROWS", 7)
    np.testing.assert_allclose(parzen(samples, x, 0.3).log_p, whole, rtol=1e-12)


def test_the_best_sigma_neither_jumps_nor_smears():
    samples, valid = Rng(1, F64).normal((400, 2)), Rng(2, F64).normal((400, 2))
    sigma = best_sigma(samples, valid)
    assert 0.2 < sigma < 0.6  # of 400 points in the plane; Silverman's rule says 0.37
    assert sigma == max(np.logspace(-1, 0, 10), key=lambda s: parzen(samples, valid, s).log_p.mean())
    assert f"σ = {sigma:.3g}" in str(parzen(samples, valid, sigma))


def test_mistakes_name_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(4, 5\)"):
        parzen(np.zeros((3, 2)), np.zeros((4, 5)), 0.1)
    with pytest.raises(ValueError, match="sigma"):
        parzen(np.zeros((3, 2)), np.zeros((4, 2)), 0.0)
    model, x = VAE.example(Rng(0))[0], np.zeros((2, 6), np.float32)
    with pytest.raises(ValueError, match="k must be 1 or more"):
        importance(model, x, Rng(0), k=0)


def test_one_draw_says_nothing_of_its_own_error():
    model, x = VAE.example(Rng(0))[0], np.ones((5, 6), np.float32)
    found = importance(model, x, Rng(1), k=1)
    assert np.isnan(found.error).all() and "from the estimate" not in str(found)
    assert "from the estimate" in str(importance(model, x, Rng(1), k=50))


def test_only_models_of_black_and_white_pixels_get_them():
    grey, points = np.full((30, 6), 0.5, np.float32), Rng(0).normal((30, 6))
    rbm, mixture = (find_model(name).example(Rng(0))[0] for name in ("rbm", "gmm"))
    assert set(np.unique(black_and_white(rbm, grey, Rng(1))[0])) == {0, 1}
    for x in (grey, points):
        assert black_and_white(mixture, x, Rng(1)) == (x, "as they are")


def test_evaluate_is_told_how_sure_log_z_is():
    model, batch = find_model("rbm").example(Rng(0))
    found = likelihood_metrics(model, batch["x"], Rng(1))
    assert "effective sample size" in found["log_p_method"] and "10,000 temperatures" in found["log_p_method"]
    one = likelihood_metrics(VAE.example(Rng(0))[0], np.ones((1, 6), np.float32), Rng(1))
    assert one.keys() == {"log_p", "log_p_method"}  # no error is known of one example, and nan would be no JSON
    assert likelihood_metrics(find_model("gan").example(Rng(0))[0], batch["x"], Rng(1)) == {}


# With labels.


def test_a_conditional_model_is_one_that_sees_the_label_beside_x_and_z():
    """Its loss is that of a plain VAE whose data have the label beside them, and whose decoder has it beside z."""
    model, batch = VAE.example(Rng(3, F64), conditional=True)
    x, labels = batch["x"], batch["labels"]
    found = model.loss(x, Rng(5, F64), labels)
    told = np.eye(3)[labels]
    h = model.encoder(np.hstack([x, told]))
    z = h[:, :2] + np.exp(0.5 * h[:, 2:]) * Rng(5, F64).normal((len(x), 2))
    out = model.decoder(np.hstack([z, told]))
    nll = (np.logaddexp(0, out) - x * out).sum(axis=1).mean()
    assert found["nll"] == pytest.approx(nll, rel=1e-12)


def test_a_conditional_model_learns_p_of_x_given_the_label():
    """Each class has black pixels of its own: its samples have them, and log p(x | label) is right."""
    rng = Rng(4, F64)
    labels = rng.integers(3, 600)
    p = np.full((3, 6), 0.1)
    p[np.arange(3), [0, 2, 4]] = p[np.arange(3), [1, 3, 5]] = 0.9
    x = (rng.uniform((600, 6)) < p[labels]).astype(float)
    model = VAE(6, 3, conditional=True, hidden=(16,), n_latent=2, batch=50, lr=5e-3).build(Rng(0, F64))
    for step in range(600):
        rows = Rng(step).integers(600, 50)
        model.train_step(x[rows], model.rng((1, step)), labels[rows])
    for k in range(3):
        np.testing.assert_allclose(model.sample(400, model.rng(2), label=k).mean(axis=0), p[k], atol=0.1)
    entropy = -6 * (0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    right = importance(model, x, Rng(6, F64), 20, "as given", labels)
    assert right.nll == pytest.approx(entropy, abs=0.15) and right.method.endswith("given the labels")
    assert importance(model, x, Rng(6, F64), 20, "as given", (labels + 1) % 3).nll > entropy + 2
    z = model.rng(7).normal((5, 2))
    assert not np.allclose(model.decode(z, np.zeros(5, int)), model.decode(z, np.ones(5, int)), atol=0.3)


def test_labels_where_none_are_wanted_or_none_where_they_are():
    told, batch = VAE.example(Rng(0), conditional=True)
    plain = VAE.example(Rng(0))[0]
    with pytest.raises(UsageError, match="conditional=true needs labels"):
        told.loss(batch["x"], Rng(0))
    with pytest.raises(UsageError, match="trained without labels"):
        plain.sample(2, Rng(0), label=1)
    with pytest.raises(UsageError, match=r"label 7: expected 0 \.\.\. 2"):
        told.sample(2, Rng(0), label=7)
    with pytest.raises(UsageError, match="this data has none"):
        told.check_data(batch["x"])
