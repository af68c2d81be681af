"""What no gradient check sees in flow matching: the law of x_t, what is learned, the pairs, paths, and log p."""

import dataclasses
import itertools
import math
import statistics
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.models.ddpm import DDPM
from scratchgen.models.flow_matching import FlowMatching, optimal_order
from scratchgen.models.latent_flow import LatentFlow
from scratchgen.models.parts.denoising import standard_normal
from scratchgen.train.fit import fit

F64 = "float64"
PREDICTIONS = ("velocity", "x0", "logits")


def tiny(dtype=F64, **settings):
    return FlowMatching.example(Rng((0, 1), dtype), **settings)


def given_for(predict):
    return {"predict": predict, "scaling": "pixels" if predict == "logits" else "standard"}


def says(model, f):
    """The model with a network that returns f(x_t, t, *labels), in place of its own."""
    forward = model.denoiser.forward

    def instead(inputs, rng):
        x_t, t, *labels = inputs
        return f(x_t, t / 100, *labels), forward(inputs, rng)[1]

    model.denoiser.forward = instead
    return model


def seen_by_the_network(model, x, rng, **given):
    """(x_t, t, labels) of one evaluation of the loss. The network is given 100 t."""
    seen, forward = [], model.denoiser.forward
    model.denoiser.forward = lambda inputs, rng: seen.append(inputs) or forward(inputs, rng)
    model.loss(x, rng, **given)
    model.denoiser.forward = forward
    x_t, t, *labels = seen[0]
    return x_t, t / 100, *labels


# ---- what is learned ----


@pytest.mark.parametrize("settings", [{"time_law": "uniform"}, {}, {"pairing": "optimal", "batch": 100}])
def test_x_t_lies_between_noise_and_data(settings):
    model, _ = tiny(**settings)
    n, x = 8_000, Rng(1, F64).uniform((8_000, 6))
    x_t, t = seen_by_the_network(model, x, Rng(3, F64))
    t = t[:, None]
    eps = (x_t - t * (2 * x - 1)) / (1 - t)
    assert (np.abs(eps.mean(axis=0)) < 5 / math.sqrt(n)).all()
    np.testing.assert_allclose(np.cov(eps.T), np.eye(6), atol=6 * math.sqrt(2 / n))
    assert (eps**4).mean() == pytest.approx(3, abs=0.2)
    assert abs(np.corrcoef(t[:, 0], eps[:, 0])[0, 1]) < 5 / math.sqrt(n)
    near = np.einsum("ij,ij->i", eps, 2 * x - 1).mean()  # optimal pairs are closer than others
    assert near > 0.5 if settings.get("pairing") else abs(near) < 0.1


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_loss_is_least_for_the_true_prediction(predict):
    """A network that knows x: no error is left, or of pixels their entropy. The velocity is x - ε."""
    model, batch = tiny(**given_for(predict))
    x = batch["x"]
    x_1 = model.scaler(x)

    def true(x_t, t):
        eps = (x_t - t[:, None] * x_1) / (1 - t[:, None])
        return {"velocity": x_1 - eps, "x0": x_1, "logits": np.log(x / (1 - x))}[predict]

    says(model, true)
    entropy = -(x * np.log(x) + (1 - x) * np.log(1 - x)).sum(axis=1).mean()
    for seed in range(3):
        found = float(model.loss(x, Rng(seed, F64))["loss"])
        assert found == pytest.approx(entropy if predict == "logits" else 0, abs=1e-12)


def test_the_loss_of_the_exact_mean_is_the_spread_of_the_lines_and_any_other_is_worse():
    """Data N(m, s²): u and x_t are Gaussian together, so E[u | x_t] and Var(u | x_t) are known."""
    model, n, m, s = tiny(predict="velocity", time_law="uniform", n_features=1)[0], 40_000, 0.4, 0.7
    model.scaler.mean[...], model.scaler.std[...] = 0, 1
    x = m + s * Rng(1, F64).normal((n, 1))

    def mean(x_t, t, off=0.0):
        t = t[:, None]
        return m + (t * s**2 - (1 - t)) / ((t * s) ** 2 + (1 - t) ** 2) * (x_t - t * m) + off

    t = (np.arange(1000) + 0.5) / 1000
    spread = (s**2 + 1 - (t * s**2 - (1 - t)) ** 2 / ((t * s) ** 2 + (1 - t) ** 2)).mean()
    best = float(says(model, mean).loss(x, Rng(2, F64))["loss"])
    assert best == pytest.approx(spread, rel=0.03)
    worse = float(says(model, lambda x_t, t: mean(x_t, t, 0.3)).loss(x, Rng(2, F64))["loss"])
    assert worse == pytest.approx(best + 0.09, abs=0.02)


@pytest.mark.parametrize("settings", [{"time_law": "uniform"}, {"time_std": 1.0}, {"time_std": 0.5}])
def test_times_have_their_law(settings):
    model, n = tiny(**settings)[0], 40_000
    t = model.draw_times(n, Rng(1, F64))
    assert t.shape == (n,) and t.min() >= 0 and t.max() <= 1
    for q in (0.05, 0.25, 0.5, 0.8, 0.95):
        z = statistics.NormalDist().inv_cdf(q)
        wanted = q if "time_law" in settings else 1 / (1 + math.exp(-settings["time_std"] * z))
        assert (t < wanted).mean() == pytest.approx(q, abs=5 * math.sqrt(q * (1 - q) / n))


def test_labels_are_withheld_now_and_then():
    model, _ = tiny(conditional=True, label_dropout=0.2)
    labels = Rng(1).integers(3, 10_000)
    _, _, shown = seen_by_the_network(model, np.zeros((10_000, 6)), Rng(2, F64), labels=labels)
    withheld = shown == 3  # the row of the table that means "any"
    assert withheld.mean() == pytest.approx(0.2, abs=0.02)
    assert (shown[~withheld] == labels[~withheld]).all()


# ---- pairs ----


@given(seed=st.integers(0, 10_000), B=st.integers(1, 6), dtype=st.sampled_from(["float32", F64, "complex128"]))
def test_no_order_of_the_noise_is_nearer_to_the_data(seed, B, dtype):
    x, eps = (Rng((seed, i), F64).normal((B, 2)).astype(dtype) for i in (1, 2))
    found = optimal_order(x, eps)

    def cost(order):
        return ((x - eps[list(order)]).real ** 2).sum()

    assert sorted(found) == list(range(B))
    assert cost(found) <= min(map(cost, itertools.permutations(range(B)))) + 1e-5


def test_noise_stays_in_its_batch():
    """Also where evaluate gives all test data at once: of 10,000 examples the best order would take minutes."""
    model, x = tiny(pairing="optimal")[0], Rng(1, F64).uniform((10, 6))  # batch 4
    x_1, eps, _ = model.ends(x, None, Rng(2, F64))
    drawn = Rng(2, F64).normal((10, 6))
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
        assert (eps[part] == drawn[part][optimal_order(x_1[part], drawn[part])]).all()


def test_without_scipy_optimal_pairs_are_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    model, batch = tiny(pairing="optimal")
    with pytest.raises(UsageError, match=r"^pairing=optimal needs SciPy: pip install scipy, or use .*independent$"):
        model.train_step(**batch, rng=Rng(1, F64))
    tiny()[0].train_step(**batch, rng=Rng(1, F64))


# ---- velocities and paths ----


@pytest.mark.parametrize("predict", ["x0", "logits"])
def test_the_velocity_of_predicted_data_points_at_it(predict):
    model, x_t = tiny(**given_for(predict))[0], Rng(1, F64).normal((5, 6))
    for t in (0.0, 0.4, 0.95):
        f = model.denoiser((x_t, np.full(5, 100 * t)))
        x_hat = f if predict == "x0" else 2 / (1 + np.exp(-f)) - 1
        np.testing.assert_allclose(model.velocity(x_t, t), (x_hat - x_t) / (1 - t), rtol=1e-12)
    assert np.isfinite(model.velocity(x_t, 1.0)).all()


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_velocity_keeps_the_complex_step(predict):
    model, x, h = tiny(**given_for(predict))[0], Rng(1, F64).normal((5, 6)), 1e-20
    along = Rng(2, F64).normal((5, 6))
    found = model.velocity(x + 1j * h * along, 0.4).imag / h
    wanted = (model.velocity(x + 1e-6 * along, 0.4) - model.velocity(x - 1e-6 * along, 0.4)) / 2e-6
    np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_one_step_of_euler_goes_all_the_way():
    model, eps = tiny(predict="velocity")[0], Rng(1, F64).normal((5, 6))
    (start, first), (end, last) = model.path(eps, Rng(2, F64), n_steps=1, solver="euler")
    assert (start, end) == (0.0, 1.0) and (first == eps).all()
    np.testing.assert_allclose(last, eps + model.velocity(eps, 0.0), atol=1e-14)


@pytest.mark.parametrize("solver", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("predict", ["x0", "logits"])
def test_a_path_to_predicted_data_ends_at_the_prediction(predict, noise, solver):
    """A network is never quite sure of itself at t = 1, and a velocity there magnifies that: it ruined samples of digits."""
    model, eps = tiny(**given_for(predict))[0], Rng(1, F64).normal((5, 6))
    *_, (t, x_t), (_, x) = model.path(eps, Rng(2, F64), solver=solver, noise=noise, n_steps=5)
    f = model.denoiser((x_t, np.full(5, 100 * t)))
    np.testing.assert_allclose(x, f if predict == "x0" else 2 / (1 + np.exp(-f)) - 1, atol=1e-12)


def test_noise_on_the_way_but_none_at_its_end():
    model, eps = tiny(predict="velocity")[0], Rng(1, F64).normal((5, 6))
    a, b, c = (list(model.path(eps, Rng(s, F64), noise=1.0, n_steps=4)) for s in (2, 2, 3))
    assert all((x == y).all() for (_, x), (_, y) in zip(a, b))
    assert not np.allclose(a[1][1], c[1][1])
    (t, x), (_, last) = a[-2:]
    np.testing.assert_allclose(last, x + 0.25 * model.velocity(x, t), atol=1e-14)
    plain = list(model.path(eps, Rng(2, F64), noise=0.0, solver="euler", n_steps=4))
    assert not np.allclose(plain[1][1], a[1][1])


def test_a_path_takes_other_options_than_the_settings():
    model, eps = tiny(n_steps=4)[0], Rng(1, F64).normal((2, 6))
    assert [t for t, _ in model.path(eps, Rng(2, F64))] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [t for t, _ in model.path(eps, Rng(2, F64), n_steps=2)] == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="step; use one of guidance, guidance_start, n_steps, noise, solver"):
        model.path(eps, Rng(2), step=3)
    for options in ({"solver": "midpoint"}, {"n_steps": 0}, {"noise": -1.0}, {"guidance": 1.0}):
        with pytest.raises(UsageError, match=f"^FlowMatching setting {next(iter(options))}: "):
            model.path(eps, Rng(2), **options)


def test_labels_must_be_as_many_as_samples_and_known_to_the_model():
    told, plain = tiny(conditional=True)[0], tiny()[0]
    with pytest.raises(ValueError, match=r"eps has shape \(4, 6\) and labels \(1,\)"):
        told.generate(4, Rng(1, F64), labels=np.array([1]))
    with pytest.raises(UsageError, match=r"label 3: expected 0 \.\.\. 2"):
        told.sample(2, Rng(0, F64), label=3)
    with pytest.raises(ValueError, match="trained without"):
        plain.generate(2, Rng(1, F64), labels=np.array([1, 2]))
    one, two, again = (told.sample(4, Rng(1, F64), label=k) for k in (1, 2, 1))
    assert (one == again).all() and not np.allclose(one, two)


# ---- log p ----


def made_simple(model, f, mean=0.0, std=1.0, **settings):
    """A model in three dimensions whose network is f, and whose data has this mean and deviation."""
    made = says(model(n_features=3, width=4, n_waves=4, n_classes=3, **settings).build(Rng(0, F64)), f)
    made.scaler.mean[...], made.scaler.std[...] = mean, std
    return made


def test_log_p_of_a_linear_field_is_a_change_of_variables():
    """dx/dt = x A + c: x at t = 1 is a linear map of the noise, and its determinant is exp tr A."""
    rng = Rng(1, F64)
    A, c, x = 0.5 * rng.normal((3, 3)), rng.normal(3), rng.normal((9, 3))
    model = made_simple(FlowMatching, lambda x, t: x @ A + c, predict="velocity")
    whole = np.zeros((4, 4))  # of (x, 1): its exponential maps back from t = 1 to 0
    whole[:3, :3], whole[3, :3] = -A, -c
    back = sum(np.linalg.matrix_power(whole, k) / math.factorial(k) for k in range(30))
    noise = np.hstack([x, np.ones((9, 1))]) @ back[:, :3]
    wanted = standard_normal(noise) - np.trace(A)
    np.testing.assert_allclose(model.ode_log_prob(x, n_steps=50), wanted, atol=1e-6)
    np.testing.assert_allclose(model.ode_log_prob(x, n_steps=50, method="heun"), wanted, atol=1e-2)


def test_log_p_of_a_constant_velocity_is_that_of_moved_noise():
    c, x = np.array([0.3, -1.0, 2.0]), Rng(1, F64).normal((9, 3))
    model = made_simple(FlowMatching, lambda x, t: c + 0 * x, predict="velocity")
    np.testing.assert_allclose(model.ode_log_prob(x, n_steps=3), standard_normal(x - c), atol=1e-12)


@pytest.mark.parametrize("model", [FlowMatching, DDPM])
def test_log_p_of_a_network_of_zeros(model):
    """v = 0 turns x_0 into x_T without a change; ε̂ = 0 leaves x̄, so x_T = √ᾱ_T x_0; a velocity of 0 moves nothing."""
    x, std = Rng(1, F64).normal((9, 3)), np.array([0.5, 1.0, 3.0])
    for predict in ("velocity",) if model is FlowMatching else ("v", "eps"):
        made = made_simple(model, lambda x, t, *labels: 0 * x, mean=0.7, std=std, predict=predict)
        shrink = math.sqrt(made.alpha_bar[-1]) if predict == "eps" else 1.0
        wanted = standard_normal(shrink * (x - 0.7) / std) + 3 * math.log(shrink) - np.log(std).sum()
        np.testing.assert_allclose(made.ode_log_prob(x), wanted, atol=1e-3)


def test_log_p_given_a_label_is_by_what_the_network_says_of_it():
    shift = np.array([-1.0, 0.5, 2.0, 0.0])  # of the classes, and of "any"
    model = made_simple(FlowMatching, lambda x, t, k: shift[k][:, None] + 0 * x, predict="velocity", conditional=True)
    x, labels = Rng(1, F64).normal((9, 3)), np.arange(9) % 3
    wanted = standard_normal(x - shift[labels][:, None])
    np.testing.assert_allclose(model.ode_log_prob(x, 5, labels), wanted, atol=1e-12)
    np.testing.assert_allclose(model.ode_log_prob(x, 5), standard_normal(x), atol=1e-12)
    with pytest.raises(ValueError, match=r"x has shape \(9, 3\) and labels \(2,\)"):
        model.ode_log_prob(x, 5, labels[:2])


@pytest.mark.parametrize("dtype", ["float32", F64])
def test_log_p_stays_in_its_precision(dtype):
    model, batch = tiny(dtype, predict="velocity", scaling="standard")
    found = model.ode_log_prob(batch["x"], n_steps=5)
    assert found.dtype == dtype and found.shape == (4,)
    if dtype == "float32":
        model.params.cast(F64)
        model.average.average = model.average.average.astype(F64)
        wanted = model.ode_log_prob(batch["x"].astype(F64), n_steps=5)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (FlowMatching, {"predict": "x0"}, "predict=x0 gives no density of x: train with predict=velocity"),
        (FlowMatching, {}, "predict=logits gives no density of x: train with predict=velocity"),
        (DDPM, {"predict": "x0"}, "predict=x0 gives no density of x: train with predict=v"),
        (DDPM, {}, "predict=logits gives no density of x: train with predict=v"),
        (LatentFlow, {}, "a LatentFlow has a density of features, not of x: use a DDPM or a FlowMatching"),
    ],
)
def test_where_there_is_no_log_p_it_says_so_in_one_line(model, settings, said):
    made, batch = model.example(Rng(0, F64), **settings)
    with pytest.raises(UsageError, match=f"^{said}$"):
        made.ode_log_prob(batch["x"])


def test_guidance_begins_after_a_part_of_the_way():
    model, _ = tiny(conditional=True)
    eps, labels = Rng(1, F64).normal((3, 6)), np.array([0, 1, 2])
    options = {}, {"guidance": 2.0}, {"guidance": 2.0, "guidance_start": 0.5}
    ways = (list(model.path(eps, Rng(2, F64), labels, n_steps=8, solver="euler", **given)) for given in options)
    plain, guided, later = ways
    for (t, x), (_, y) in zip(plain, later):
        assert (x == y).all() == (t <= 0.5)  # the step that begins at 0.5 is the first with guidance
    assert not np.allclose(plain[1][1], guided[1][1])


# ---- settings ----

OTHER = {
    "predict": "x0", "n_waves": 6, "lr": 1e-2, "decay_steps": 3, "averaging": 0.3, "n_steps": 2, "solver": "euler",
    "noise": 0.5, "guidance": 1.0, "time_law": "uniform", "time_std": 0.3, "pairing": "optimal", "levels": 3,
    "label_dropout": 0.6, "conditional": True, "scaling": "standard", "guidance_start": 0.5,
}  # fmt: skip
BESIDE = {"guidance": {"conditional": True}, "label_dropout": {"conditional": True}, "levels": {"predict": "velocity"}}
BESIDE |= {"scaling": {"predict": "velocity"}, "guidance_start": {"conditional": True, "guidance": 2.0}}
ELSEWHERE = {"n_features", "n_classes", "width", "n_blocks", "batch"}  # the sizes of the network, and what fit minds


def after_four_steps(settings):
    model, batch = tiny(**settings)
    batch["x"] = (batch["x"] > 0.5).astype(float)
    for step in range(4):
        model.train_step(rng=model.rng(step), **batch)
    return model.sample(3, model.rng(9))


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    beside = BESIDE.get(setting, {})
    assert not np.array_equal(after_four_steps(beside), after_four_steps(beside | {setting: OTHER[setting]}))


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(FlowMatching)} - ELSEWHERE == OTHER.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": 1.0, "conditional": True, "label_dropout": 0.0}, "guidance: .*label_dropout > 0"),
        ({"guidance": 1.0}, "guidance: .*conditional=true"),
        ({"scaling": "standard"}, "predict: .*predict=velocity"),
        ({"pairing": "optimal", "conditional": True}, "pairing: .*depend on the label; .*pairing=independent"),
        ({"levels": 17}, "levels: .*use predict=velocity, or levels=0"),
        ({"levels": 1, "predict": "velocity"}, "levels: pixels need 2 levels or more"),
        ({"n_waves": 5}, "n_waves.*even.*5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(UsageError, match=f"^FlowMatching setting {message}"):
        FlowMatching(**settings)


def test_data_that_does_not_fit_is_refused():
    model, batch = tiny("float32", conditional=True)
    with pytest.raises(UsageError, match="conditional=true needs labels"):
        fit(model, batch["x"], epochs=1, progress=False)
    plain, batch = tiny("float32")
    with pytest.raises(UsageError, match="use --set scaling=standard predict=velocity for other numbers"):
        fit(plain, batch["x"] - 3, epochs=1, progress=False)


# ---- it learns ----


def test_it_learns_two_modes_of_uneven_weight_on_any_scale():
    rng = Rng(1)
    modes = (rng.uniform((4000, 1)) < 0.3).astype(np.float32)
    x = 50 + 20 * modes + rng.normal((4000, 1))
    settings = {"width": 32, "n_blocks": 2, "n_waves": 16, "batch": 128, "lr": 4e-3, "averaging": 0.99}
    model = FlowMatching(n_features=1, scaling="standard", predict="velocity", decay_steps=620, **settings)
    fit(model.build(Rng(0)), x, epochs=20, progress=False)
    found = model.sample(4000, Rng(3))[:, 0]
    high = found > 60
    assert high.mean() == pytest.approx(0.3, abs=0.06)
    assert found[high].mean() == pytest.approx(70, abs=1) and found[~high].mean() == pytest.approx(50, abs=1)
    assert 0.5 < found[~high].std() < 2.2


def test_through_the_command_line(tmp_path):
    out = str(tmp_path / "run")
    small = ["width=16", "n_blocks=1", "n_waves=8", "n_steps=5"]
    assert main(["train", "flow_matching", "--epochs", "1", "--out", out, "--set", "conditional=true", *small]) == 0
    assert main(["sample", out, "-n", "3", "--label", "7", "-o", str(tmp_path / "x.npy")]) == 0
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (3, 64) and x.min() >= 0 and x.max() <= 1
    command = ["train", "flow_matching", "--epochs", "1", "--out", out, "--resume", "--set"]
    assert main([*command, "solver=rk4", "n_steps=3", "noise=0.1", "guidance=2"]) == 0
    assert main([*command, "width=8"]) == 2
