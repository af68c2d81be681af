"""The Gaussian mixture: EM never loses likelihood, agrees with scikit-learn's, and finds what is there."""

import dataclasses
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import load
from scratchgen.metrics.divergences import grid, kl
from scratchgen.models import gmm
from scratchgen.models.gmm import GMM
from scratchgen.nn.distributions import gaussian_log_prob
from scratchgen.train.checkpoint import load_model
from scratchgen.train.fit import fit

KINDS = ["full", "diagonal", "spherical"]
every_kind = pytest.mark.parametrize("covariance", KINDS)

MEANS, SPREADS, WEIGHTS = np.array([[0.0, 0.0], [4.0, 1.0], [-1.0, 4.0]]), np.array([0.5, 1.0, 0.3]), [0.5, 0.3, 0.2]


def three_gaussians(n, seed=0):
    """n points (n, 2) of three round Gaussians, and from which each comes."""
    rng = np.random.default_rng(seed)
    k = rng.choice(3, n, p=WEIGHTS)
    return MEANS[k] + SPREADS[k, None] * rng.normal(size=(n, 2)), k


def started(x, seed=0, dtype="float64", **settings):
    """A model that has seen x (N, D) and made no step yet."""
    model = GMM(n_features=x.shape[1], **settings).build(Rng(seed, dtype))
    model.prepare(x.astype(dtype), Rng((seed, 1), dtype))
    return model


def trained(x, steps, **settings):
    """The model after so many steps, and its losses before each and after the last."""
    model = started(x, **settings)
    x = x.astype(model.params.theta.dtype)
    losses = [float(model.train_step(x, None)["loss"]) for _ in range(steps)]
    return model, np.array([*losses, -float(model.log_prob(x).mean())])


def precisions(model):
    """Σ_k⁻¹ (K, D, D), whatever the kind."""
    P, n = model.gaussians.P, model.n_features
    if model.gaussians.full:
        return np.stack([np.tril(part) @ np.tril(part).T for part in P])
    return np.stack([np.diag(np.broadcast_to(part, n) ** 2) for part in P])


def covariances(model):
    return np.linalg.inv(precisions(model))


def weights(model):
    return np.exp(model.gaussians.log_pi())


def random_model(covariance, seed=0, n_features=2, n_components=3):
    """A model of any weights, means and covariances, the latter between about 0.3 and 3."""
    rng = Rng((seed, 3), "float64")
    settings = {"n_features": n_features, "n_components": n_components, "covariance": covariance}
    model = GMM(**settings).build(Rng(seed, "float64"))
    model.gaussians.logits[...] = rng.normal(n_components)
    model.gaussians.mu[...] = 2 * rng.normal(model.gaussians.mu.shape)
    model.gaussians.P[...] = 0.5 * rng.normal(model.gaussians.P.shape)
    model.gaussians.diagonal(model.gaussians.P)[...] = np.exp(0.3 * rng.normal((n_components, 1)))
    return model


# ---- the density ----


@every_kind
def test_log_prob_is_that_of_the_mixture(covariance):
    model, x = random_model(covariance, n_features=3), 3 * Rng(5, "float64").normal((40, 3))
    densities = [
        pi * np.exp(gaussian_log_prob(x, mu, cov))
        for pi, mu, cov in zip(weights(model), model.gaussians.mu, covariances(model))
    ]
    np.testing.assert_allclose(model.log_prob(x), np.log(np.sum(densities, axis=0)), rtol=1e-12)
    r = model.responsibilities(x)
    np.testing.assert_allclose(r, (densities / np.sum(densities, axis=0)).T, atol=1e-12)
    np.testing.assert_allclose(r.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(model.predict(x), np.argmax(densities, axis=0))
    assert model.evaluate(x, None)["nll"] == -model.log_prob(x).mean()
    assert weights(model).sum() == pytest.approx(1)


@every_kind
def test_the_density_integrates_to_one(covariance):
    model = random_model(covariance)
    points, cell = grid(-25, 25, 400, 2)
    assert cell * np.exp(model.log_prob(points)).sum() == pytest.approx(1, abs=1e-9)


@every_kind
def test_far_from_everything_the_density_is_finite_and_somebody_answers(covariance):
    model = random_model(covariance)
    x = np.full((1, 2), 1e4)
    assert np.isfinite(model.log_prob(x)).all() and model.log_prob(x)[0] < -1e6
    assert model.responsibilities(x).sum() == pytest.approx(1)


@every_kind
def test_samples_have_the_moments_of_the_mixture(covariance):
    model, n = random_model(covariance), 100_000
    pi, mu, cov = weights(model), model.gaussians.mu, covariances(model)
    x = model.sample(n, Rng(7, "float64"))
    mean = pi @ mu
    total = np.einsum("k,kij->ij", pi, cov + np.einsum("ki,kj->kij", mu - mean, mu - mean))
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.04)
    np.testing.assert_allclose(np.cov(x.T), total, atol=0.02 * np.trace(total))
    model.gaussians.logits[...] = [100, 0, 0]  # one component alone
    x = model.sample(n, Rng(8, "float64"))
    np.testing.assert_allclose(x.mean(axis=0), mu[0], atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), cov[0], atol=0.03 * np.trace(cov[0]))


@every_kind
def test_the_likelihood_of_its_own_samples_is_minus_its_entropy(covariance):
    model = random_model(covariance)
    points, cell = grid(-25, 25, 400, 2)
    log_p = model.log_prob(points)
    entropy = -cell * (np.exp(log_p) * log_p).sum()
    assert model.log_prob(model.sample(50_000, Rng(3, "float64"))).mean() == pytest.approx(-entropy, abs=0.03)


def test_likelihood_on_data_is_minus_their_entropy_minus_the_kl():
    data, model = random_model("full", 1), random_model("diagonal", 2)
    points, cell = grid(-30, 30, 500, 2)
    log_p, log_q = data.log_prob(points), model.log_prob(points)
    entropy = -cell * (np.exp(log_p) * log_p).sum()
    assert cell * (np.exp(log_p) * log_q).sum() == pytest.approx(-entropy - kl(log_p, log_q, cell), abs=1e-9)


# ---- EM ----


@every_kind
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    n_features=st.integers(1, 4),
    n_components=st.integers(1, 5),
    floor=st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 10.0]),
    doubled=st.booleans(),
)
def test_no_iteration_loses_likelihood(covariance, seed, n, n_features, n_components, floor, doubled):
    x = np.random.default_rng(seed).normal(size=(n, n_features))
    x = np.round(x) if doubled else x  # many points alike: components on a line, on a point, on nothing
    model, losses = trained(x, 12, seed=seed, covariance=covariance, n_components=n_components, floor=floor)
    assert np.isfinite(losses).all()
    assert np.diff(losses).max() <= 1e-9 * np.abs(losses).max()
    assert np.linalg.eigvalsh(precisions(model)).max() <= (1 + 1e-9) / floor


@every_kind
def test_in_float32_it_is_monotone_up_to_rounding(covariance):
    x = load("digits").x_train
    _, losses = trained(x, 25, covariance=covariance, n_components=6, floor=1e-3, dtype="float32")
    assert losses[0] - losses[-1] > 1
    assert np.diff(losses).max() <= 1e-5 * np.abs(losses).max()


@pytest.mark.needs("sklearn")
@every_kind
def test_scikit_learn_agrees(covariance):
    from sklearn import mixture

    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) + rng.integers(-2, 3, size=(300, 1))
    model = started(x, covariance=covariance, n_components=3, floor=1e-12)
    kind = {"full": "full", "diagonal": "diag", "spherical": "spherical"}[covariance]
    start = {"full": precisions(model), "diagonal": model.gaussians.P**2, "spherical": model.gaussians.P[:, 0] ** 2}
    theirs = mixture.GaussianMixture(
        3, covariance_type=kind, reg_covar=0, tol=0, max_iter=15, weights_init=weights(model),
        means_init=model.gaussians.mu, precisions_init=start[covariance],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        theirs.fit(x)
    before = model.log_prob(x).mean()
    for _ in range(15):
        model.train_step(x, None)
    np.testing.assert_allclose(model.log_prob(x), theirs.score_samples(x), atol=1e-6)
    np.testing.assert_allclose(model.responsibilities(x), theirs.predict_proba(x), atol=1e-6)
    assert model.log_prob(x).mean() > before + 0.01  # 15 iterations mattered


@every_kind
def test_three_gaussians_are_recovered(covariance):
    x, came_from = three_gaussians(6000)
    model, _ = trained(x, 60, covariance=covariance, n_components=3)
    order = [np.linalg.norm(model.gaussians.mu - mean, axis=1).argmin() for mean in MEANS]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(model.gaussians.mu[order], MEANS, atol=0.08)
    np.testing.assert_allclose(weights(model)[order], WEIGHTS, atol=0.02)
    expected = [s**2 * np.eye(2) for s in SPREADS]  # a standard deviation, not a variance, is the radius
    np.testing.assert_allclose(covariances(model)[order], expected, atol=0.08)
    assert (np.array(order)[came_from] == model.predict(x)).mean() > 0.98


def test_a_slanted_gaussian_needs_the_full_covariance():
    x = Rng(0, "float64").normal((2000, 2)) @ np.array([[2.0, 1.9], [0.0, 0.3]])
    losses = [trained(x, 3, covariance=kind, n_components=1)[1][-1] for kind in KINDS]
    assert losses[0] < losses[1] - 1 < losses[2] - 1
    model, _ = trained(x, 3, covariance="full", n_components=1)
    np.testing.assert_allclose(covariances(model)[0], np.cov(x.T, bias=True), rtol=1e-10)  # one step is all


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_from_the_origin_the_covariance_keeps_its_digits(covariance, dtype):
    """By E[x²] - μ² float32 would have lost all digits of a variance of 1 beside a mean of 10,000."""
    x = 10_000 + Rng(0, dtype).normal((500, 2))
    model, _ = trained(x, 3, covariance=covariance, n_components=1, dtype=dtype)
    np.testing.assert_allclose(np.diagonal(covariances(model)[0]), x.var(axis=0, dtype="float64"), rtol=0.1)
    np.testing.assert_allclose(model.gaussians.mu[0], x.mean(axis=0, dtype="float64"), rtol=1e-6)


@every_kind
def test_the_floor_holds_and_is_reached(covariance):
    x = np.random.default_rng(0).normal(size=(200, 3)) * [1, 1, 1e-4]
    if covariance == "spherical":
        x[:, :2] *= 1e-4
    model, _ = trained(x, 10, covariance=covariance, n_components=2, floor=0.01)
    found = np.linalg.eigvalsh(covariances(model))
    np.testing.assert_allclose(found[:, 0], 0.01, rtol=1e-9)
    assert covariance == "spherical" or found[:, 1:].min() > 0.1


class Adding(GMM):
    """What many programs do: S + floor in the place of the likeliest covariance >= floor."""

    def maximise(self, x, r):
        floor, self.floor = self.floor, 1e-12
        super().maximise(x, r)
        self.floor = floor
        self.gaussians.P[...] = 1 / np.sqrt(1 / self.gaussians.P**2 + floor)


def test_adding_the_floor_loses_likelihood_and_raising_to_it_does_not():
    x = np.random.default_rng(0).normal(size=(60, 1)) + np.repeat([-1.0, 1.0], 30)[:, None]
    settings = {"n_features": 1, "n_components": 2, "covariance": "diagonal", "floor": 0.3}
    rises = []
    for model in (GMM(**settings), Adding(**settings)):
        model.build(Rng(0, "float64")).prepare(x, Rng(1, "float64"))
        rises.append(np.diff([model.train_step(x, None)["loss"] for _ in range(60)]).max())
    assert rises[0] <= 1e-13
    assert rises[1] > 1e-4


def test_a_component_that_answers_for_nothing_stays_and_nothing_becomes_nan():
    x, _ = three_gaussians(200)
    for covariance in KINDS:
        model = started(x, covariance=covariance, n_components=3)
        model.gaussians.mu[2] = 1e6
        P = model.gaussians.P[2].copy()
        losses = [model.train_step(x, None)["loss"] for _ in range(5)]
        assert np.isfinite(losses).all() and np.diff(losses).max() <= 1e-12
        assert (model.gaussians.mu[2] == 1e6).all() and (model.gaussians.P[2] == P).all()
        assert weights(model)[2] < 1e-20
        assert np.isfinite(model.sample(100, Rng(0, "float64"))).all()


def test_chunks_change_nothing(monkeypatch):
    x, _ = three_gaussians(300)
    found = []
    for chunk in (gmm.CHUNK, 240, 1):
        monkeypatch.setattr(gmm, "CHUNK", chunk)
        model, losses = trained(x, 5, n_components=3)
        loss = model.loss(x, None)["loss"]
        found.append([losses, model.params.theta.copy(), model.params.grad.copy(), model.predict(x), loss])
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_allclose(a, b, atol=1e-12)


# ---- by gradient ----


@every_kind
def test_the_gradient_is_zero_where_em_stands_still(covariance):
    x, _ = three_gaussians(400)
    model, losses = trained(x, 400, covariance=covariance, n_components=3)
    assert losses[-2] - losses[-1] < 1e-13
    model.loss(x, None)
    assert np.abs(model.params.grad).max() < 1e-6
    start = started(x, covariance=covariance, n_components=3)
    start.loss(x, None)
    assert np.abs(start.params.grad).max() > 1e-3


@every_kind
def test_the_gradient_leads_where_em_does(covariance):
    x, _ = three_gaussians(300)
    settings = {"covariance": covariance, "n_components": 3}
    em, losses = trained(x, 200, **settings)
    by_gradient, others = trained(x, 600, by="gradient", lr=0.02, **settings)
    assert losses[0] == pytest.approx(others[0], rel=1e-12)
    assert others[0] - losses[-1] > 0.005
    assert others[-1] == pytest.approx(losses[-1], abs=1e-4)
    np.testing.assert_allclose(by_gradient.gaussians.mu, em.gaussians.mu, atol=0.05)


# ---- the start ----


def test_before_any_data_the_means_are_standard_normal():
    mu = GMM(n_features=50, n_components=40).build(Rng(0, "float64")).gaussians.mu
    assert abs(mu.mean()) < 5 / math.sqrt(mu.size)
    assert mu.var() == pytest.approx(1, abs=5 * math.sqrt(2 / mu.size))


def centres(x, n_components, seed):
    """The means after the start, sorted by their first coordinate."""
    model = started(x, seed=seed, n_components=n_components, covariance="spherical")
    return model.gaussians.mu[np.argsort(model.gaussians.mu[:, 0])]


def test_no_example_is_picked_twice():
    x = np.sort(np.random.default_rng(0).normal(size=(12, 1)), axis=0)
    for seed in range(20):
        np.testing.assert_allclose(centres(x, 12, seed), x, atol=1e-12)  # a component on each


def test_the_next_centre_goes_as_the_squared_distance():
    """Of 0, 1 and 3 the pair 0, 1 is picked with probability ⅓ · 1/10 + ⅓ · 1/5 = 1/10; then 3 belongs to 1."""
    x = np.array([[0.0], [1.0], [3.0]])
    picked = np.array([centres(x, 2, seed)[1, 0] == 2 for seed in range(800)])
    assert picked.mean() == pytest.approx(0.1, abs=0.04)


def test_fewer_different_examples_than_components():
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 5, axis=0)
    for dtype in ("float32", "float64"):
        _, losses = trained(x, 5, n_components=4, dtype=dtype)
        assert np.isfinite(losses).all()


@every_kind
def test_of_two_equal_centres_the_second_is_as_wide_as_the_data_around_it(covariance):
    x = np.repeat([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]], [3, 5], axis=0)
    model = started(x, covariance=covariance, n_components=3)
    assert weights(model)[2] < 1e-20
    distance = ((x - model.gaussians.mu[2]) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(covariances(model)[2], distance / 3 * np.eye(3), rtol=1e-12)


def test_several_starts_find_a_better_one():
    x = load("swiss_roll").x_train[:300].astype(np.float64)
    one, best = (
        [trained(x, 20, seed=seed, n_init=n_init, n_components=8)[1][-1] for seed in range(4)] for n_init in (1, 5)
    )
    assert np.mean(best) < np.mean(one) - 0.05
    assert max(best) < max(one)


# ---- settings, the command line, MNIST ----

OTHER = {"n_components": 3, "covariance": "diagonal", "floor": 0.3, "n_init": 3, "by": "gradient", "lr": 0.1}


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    beside = {"by": "gradient"} if setting == "lr" else {}
    found = []
    for settings in (beside, beside | {setting: OTHER[setting]}):
        model, batch = GMM.example(Rng(1, "float64"), **settings)
        for step in range(4):
            model.train_step(**batch, rng=model.rng(step))
        found.append(model.sample(3, model.rng(9)))
    assert not np.array_equal(*found)


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(GMM)} - {"n_features"} == OTHER.keys()


def test_what_it_refuses():
    with pytest.raises(UsageError, match="GMM setting floor"):
        GMM(floor=0.0)
    for large in (1e18, -1e18, 1.001e15):
        with pytest.raises(UsageError, match="1e15"):
            GMM(n_features=1).check_data(np.full((5, 1), large, np.float32))
    for large in (1e15, -1e15):
        GMM(n_features=1).check_data(np.full((5, 1), large))
    with pytest.raises(ValueError, match=r"\(4, 3\), expected \(B, 2\)"):
        random_model("full").log_prob(np.zeros((4, 3)))


def test_a_second_fit_goes_on_and_does_not_start_again():
    x, _ = three_gaussians(300)
    model = GMM(n_features=2, n_components=3).build(Rng(0))
    first = fit(model, x, epochs=5, progress=False)
    again = fit(model, x, epochs=1, progress=False)
    assert again[0]["loss"] < first[-1]["loss"]
    assert int(model.state()["steps.t"][0]) == 6


@pytest.mark.parametrize(
    ("data", "settings", "least"),
    [
        ("two_modes", ["n_components=2"], -1.5),
        ("moons", ["n_components=20", "covariance=diagonal"], -1.0),
        ("digits", ["covariance=full", "floor=0.001", "n_init=2"], 30),
    ],
)
def test_the_command_line(data, settings, least, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "gmm", "--data", data, "--epochs", "12", "--out", out, "--set", *settings]) == 0
    assert main(["sample", out, "-n", "9", "-o", str(tmp_path / "x.npy")]) == 0
    x = np.load(tmp_path / "x.npy")
    assert len(x) == 9 and np.isfinite(x).all()
    capsys.readouterr()
    assert main(["evaluate", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert -found["nll"] > least and found["epoch"] == 12
    model, _ = load_model(Path(out) / "checkpoint.npz")
    assert found["log_p"] == pytest.approx(-found["nll"], rel=1e-5) and "as they are" in found["log_p_method"]
    assert model.log_prob(load(data).x_test).mean() == pytest.approx(-found["nll"], rel=1e-5)


def test_two_modes_cost_what_their_true_density_does():
    data = load("two_modes")
    model, _ = trained(data.x_train, 20, n_components=2)
    true = data.toy.log_density(data.x_test).mean()
    assert model.log_prob(data.x_test.astype(float)).mean() == pytest.approx(true, abs=0.01)


@pytest.mark.slow
@pytest.mark.needs("mnist")
def test_mnist_in_784_dimensions():
    data = load("mnist")
    x, nll = data.x_train[:6000], {}
    for n_components in (1, 10):
        model = GMM(covariance="diagonal", floor=0.01, n_components=n_components).build(Rng(0))
        history = fit(model, x, x_test=data.x_test[:2000], epochs=8, progress=False)
        losses = [row["loss"] for row in history]
        assert np.diff(losses).max() <= 1e-5 * abs(losses[-1])
        nll[n_components] = history[-1]["test_nll"]
    assert math.isfinite(nll[10]) and nll[10] < nll[1] - 100
