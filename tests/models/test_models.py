"""Every model, started from its own example, keeps the contract of models/base.py: it learns, it is reproducible, it
stays in its precision and it can be saved. Then what is special to each: the VAE's bound is the bound, a linear autoencoder
is PCA.
"""

import dataclasses
import math
from typing import Annotated, Literal, get_origin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen.backend import Rng, UsageError
from scratchgen.check.variants import variants
from scratchgen.commands.settings import parse_settings
from scratchgen.data import load
from scratchgen.models import find_model, model_names
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.settings import Count, Range, Share, check_setting, type_and_range
from scratchgen.models.vae import VAE
from scratchgen.nn.activations import ReLU, Tanh
from scratchgen.nn.losses import kl_standard_normal, squared_error
from scratchgen.train.checkpoint import load_model, save_checkpoint
from scratchgen.train.fit import fit

VARIANTS = [(name, settings) for name in model_names() for settings in variants(name)]
every_model = pytest.mark.parametrize(("name", "settings"), VARIANTS)
every_objective = pytest.mark.parametrize(
    ("name", "settings", "objective"),
    [(n, s, objective) for n, s in VARIANTS for objective in find_model(n).objectives],
)


def example(name, settings, dtype="float32"):
    return find_model(name).example(Rng((0, 1), dtype), **settings)


def bits(arrays):
    return {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}


def sampled(model, n):
    """{"sample": n examples}, or {} where a model has no way to sample."""
    try:
        return {"sample": model.sample(n, model.rng(4))}
    except UsageError:
        return {}


# ---- every model ----


@every_model
def test_every_network_moves_in_a_step(name, settings):
    model, batch = example(name, settings)
    before = {key: params.theta.copy() for key, params in model.parameters().items()}
    model.train_step(rng=model.rng(2), **batch)
    moved = {}
    for key, params in model.parameters().items():
        if key not in model.objectives.values():  # of a model inside, which stands still
            assert (params.theta == before[key]).all()
            continue
        for weight, where in params.slices().items():
            network = (key, weight.partition(".")[0])
            moved[network] = moved.get(network, False) or bool((params.theta[where] != before[key][where]).any())
    assert moved
    assert all(moved.values()), moved


@every_objective
def test_objective_falls_along_its_gradient(name, settings, objective):
    model, batch = example(name, settings, "float64")
    params = getattr(model, model.objectives[objective])

    def value():
        return float(getattr(model, objective)(rng=model.rng(2), **batch)[objective])

    before = value()
    g = params.grad.copy()
    step = 1e-5 / np.linalg.norm(g)
    params.theta -= step * g
    params.changed()
    fall = before - value()
    assert fall > 0
    if not model.uses_stop:  # else the gradient is meant not to be the derivative
        assert fall == pytest.approx(step * (g @ g), rel=1e-2)


@every_objective
def test_objective_is_pure(name, settings, objective):
    model, batch = example(name, settings)
    state = bits(model.state())
    kept = bits(batch)
    params = getattr(model, model.objectives[objective])
    results = []
    for seed in (2, 2, 3):
        losses = getattr(model, objective)(rng=model.rng(seed), **batch)
        assert objective in losses
        results.append((bits(losses), params.grad.tobytes()))
    assert results[0] == results[1]
    after = bits(model.state())
    changed = {key for key in state if state[key] != after[key]}
    assert all(key.endswith(".buffers") for key in changed)  # running statistics, nothing else
    assert bits(batch) == kept


@every_model
def test_float32_stays_float32(name, settings):
    model, batch = example(name, settings)
    losses = model.train_step(rng=model.rng(2), **batch)
    found = losses | model.state() | {f"grad {key}": params.grad for key, params in model.parameters().items()}
    found |= {f"evaluated {key}": value for key, value in model.evaluate(**batch, rng=model.rng(3)).items()}
    found |= sampled(model, 3)
    wrong = {key: value.dtype for key, value in found.items() if value.dtype not in (np.float32, np.int64)}
    assert not wrong
    assert all(losses[key].dtype == np.float32 for key in losses)


@pytest.mark.parametrize(("name", "settings"), [v for v in VARIANTS if sampled(example(*v)[0], 1)])
def test_samples_repeat_with_the_seed_and_look_like_data(name, settings):
    model, batch = example(name, settings)
    for seed in range(3):
        model.train_step(rng=model.rng(seed), **batch)
    a, b, c = (model.sample(5, model.rng(seed)) for seed in (1, 1, 2))
    assert a.shape == (5, *batch["x"].shape[1:])
    assert np.isfinite(a).all()
    assert a.tobytes() == b.tobytes()
    assert not np.array_equal(a, c)
    assert len(np.unique(a, axis=0)) > 1


@every_model
def test_a_saved_model_comes_back_bit_for_bit_and_trains_on_alike(name, settings, tmp_path):
    model, batch = example(name, settings)
    for seed in range(3):
        model.train_step(rng=model.rng(seed), **batch)
    save_checkpoint(tmp_path / "checkpoint.npz", model, epoch=3)
    again, notes = load_model(tmp_path / "checkpoint.npz")
    assert (notes["model"], notes["epoch"]) == (name, 3)
    assert again.settings() == model.settings()
    assert len(model.state()) >= 3  # weights, buffers, and an optimizer's
    assert bits(again.state()) == bits(model.state())
    assert bits(sampled(model, 3)) == bits(sampled(again, 3))
    for trained in (model, again):
        trained.train_step(rng=trained.rng(6), **batch)
    assert bits(again.state()) == bits(model.state())


@every_model
def test_another_models_arrays_are_refused_before_anything_is_written(name, settings):
    model, _ = example(name, settings)
    arrays = {key: array + 1 for key, array in model.state().items()}
    before = bits(model.state())
    *_, last = arrays
    for wrong in ({k: v for k, v in arrays.items() if k != last}, arrays | {last: np.zeros((7, 7, 7))}):
        with pytest.raises(UsageError, match=last):
            model.load_state(wrong)
        assert bits(model.state()) == before


@pytest.mark.parametrize("name", model_names())
def test_settings_are_checked(name):
    bad = {int: [-1, 2.0, "3", None, True], float: [-0.1, math.nan, math.inf, "1", None], bool: [1, "true"]}
    model = find_model(name)
    for field in dataclasses.fields(model):
        kind, allowed = type_and_range(field.type)
        if get_origin(kind) is Literal:
            values = ["nonsense", None]
        elif get_origin(kind) is tuple:
            values = [5, "400", (3, 0), (3, -1), (2.5,), (True,), None]
        else:
            values = bad.get(kind, [])
        if kind in (int, float):
            assert allowed.low >= 0, f"{field.name} has no range"
            ends = (allowed.low, allowed.open_low, -1), (allowed.high, allowed.open_high, 1)
            values = [*values, *(kind(end if out else end + step) for end, out, step in ends if math.isfinite(end))]
        if field.name.startswith("n_") or field.name in ("batch", "lr"):
            values = [*values, kind(0)]
        for value in values:
            with pytest.raises(UsageError, match=f"^{model.__name__} setting {field.name}: ") as caught:
                model(**{field.name: value})
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", model_names())
def test_settings_survive_being_written_out(name):
    """What `list` prints can be given to --set."""
    model = find_model(name)
    for settings in variants(name):
        expected = example(name, settings)[0].settings()
        for key, value in expected.items():
            if isinstance(value, dict):  # a model inside: --set takes its folder
                continue
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert parse_settings(model, [f"{key}={text}"]) == {key: value}


def test_the_range_of_a_number_belongs_to_its_type():
    """A model of one's own writes it at the field; a plain number may be any finite one."""
    own = dataclasses.make_dataclass(
        "Own", [("n", Count), ("share", Share), ("even", Annotated[int, Range(2, even=True)]), ("any", float)]
    )
    n, share, even, any_number = dataclasses.fields(own)
    assert [check_setting(own, share, value) for value in (0, 1, 0.25)] == [0.0, 1.0, 0.25]
    assert check_setting(own, even, 4) == 4 and check_setting(own, any_number, -2.5) == -2.5
    for field, value, said in (
        (n, 0, "n: expected a number >= 1, got 0"),
        (share, 1.5, "share: expected a number >= 0 and <= 1, got 1.5"),
        (even, 5, "even: expected a number >= 2 and even, got 5"),
        (any_number, math.inf, "any: expected a number that is finite, got inf"),
    ):
        with pytest.raises(UsageError, match=f"^Own setting {said}$"):
            check_setting(own, field, value)
    assert parse_settings(own, ["share=0.5", "n=3"]) == {"share": 0.5, "n": 3}
    with pytest.raises(UsageError, match="--set n=many: expected a whole number"):
        parse_settings(own, ["n=many"])


def test_forgiving_settings():
    assert parse_settings(VAE, ["hidden="]) == {"hidden": ()}
    assert parse_settings(VAE, ["hidden=3,", "lr=1", "lr=2"]) == {"hidden": (3,), "lr": 2.0}
    assert VAE(beta=2).beta == 2.0
    assert type(VAE(beta=2).beta) is float
    assert VAE(hidden=[3, 4]).hidden == (3, 4)
    flag = dataclasses.make_dataclass("Flag", [("on", bool)])
    assert parse_settings(flag, ["on=False"]) == {"on": False}
    assert check_setting(flag, dataclasses.fields(flag)[0], True) is True
    with pytest.raises(UsageError, match="true or false"):
        parse_settings(flag, ["on=maybe"])


@pytest.mark.parametrize("name", model_names())
def test_every_model_says_what_it_is(name):
    model = find_model(name)
    assert model.__module__ == f"scratchgen.models.{name}"
    assert model.objectives
    with pytest.raises(UsageError, match=f"'{name}x' is unknown: use one of .*{name}"):
        find_model(name + "x")


# ---- the VAE: log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)), each side computed in its own way ----

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(160)  # for E[f(ε)], ε ~ N(0, 1)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
GRID = np.linspace(-30, 30, 60_001)[:, None]  # of z; a sum over it is exact to rounding for such smooth integrands


class Node(Rng):
    """An Rng whose noise is one number: with the nodes in turn, averages over the noise become exact sums."""

    def __init__(self, node):
        super().__init__(0, "float64")
        self.node = node

    def normal(self, shape):
        return np.full(shape, self.node)


def one_dimensional(likelihood, seed, beta=1.0):
    """A VAE with one code, smooth in z so that Gauss–Hermite quadrature converges, and an x it could have produced."""
    rng = Rng((seed, 5), "float64")
    model = VAE(
        n_features=4, hidden=(5,), n_latent=1, likelihood=likelihood, variance=0.3, beta=beta, init="glorot"
    ).build(rng)
    for network in (model.encoder, model.decoder):
        network.layers = tuple(Tanh() if isinstance(layer, ReLU) else layer for layer in network.layers)
    model.params.theta += 0.1 * rng.normal(model.params.theta.shape)
    model.params.theta *= 0.7  # no posterior so wide or far out that the grid ends before it
    x = rng.normal((1, 4)) if likelihood == "gaussian" else (rng.uniform((1, 4)) < 0.5).astype(float)
    return model, x


def gaussian(z, mu, variance):
    """log N(z; mu, variance)."""
    return -0.5 * np.log(2 * np.pi * variance) - (z - mu) ** 2 / (2 * variance)


def log_likelihood(model, x):
    """log p(x|z) for every z of the grid, written from the densities."""
    mean = model.decode(GRID)
    if model.likelihood == "bernoulli":
        return np.log(np.where(x == 1, mean, 1 - mean)).sum(axis=1)
    return gaussian(x, mean, model.variance).sum(axis=1)


def integral(values):
    return values.sum() * (GRID[1, 0] - GRID[0, 0])


def by_quadrature(model, x):
    """log p(x), KL(q(z|x) ‖ p(z|x)) and the ELBO, each an integral over z."""
    mu, log_var = model.encode(x)
    log_q = gaussian(GRID[:, 0], mu[0, 0], np.exp(log_var[0, 0]))
    log_joint = gaussian(GRID[:, 0], 0, 1) + log_likelihood(model, x)
    log_p = np.log(integral(np.exp(log_joint)))
    q = np.exp(log_q)
    return log_p, integral(q * (log_q - (log_joint - log_p))), integral(q * (log_joint - log_q))


def average_over_noise(f):
    """E[f(rng)], over the noise that f takes from it."""
    return sum(weight * f(Node(node)) for node, weight in zip(NODES, WEIGHTS))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@given(seed=st.integers(0, 10_000))
def test_log_p_is_the_elbo_plus_the_gap(likelihood, seed):
    model, x = one_dimensional(likelihood, seed)
    elbo = -average_over_noise(lambda rng: model.loss(x, rng)["loss"])
    log_p, gap, _ = by_quadrature(model, x)
    assert abs(log_p - (elbo + gap)) <= 1e-6
    assert gap > 0
    evaluated = average_over_noise(lambda rng: model.evaluate(x, rng)["negative_elbo"])
    assert abs(elbo + evaluated) <= 1e-9


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_one_sample_gradient_is_right_on_average(likelihood):
    """Averaged over the noise it is the derivative of the ELBO as an integral, which knows of no noise."""
    model, x = one_dimensional(likelihood, 1)
    theta = model.params.theta.copy()

    def gradient(rng):
        model.loss(x, rng)
        return model.params.grad.copy()

    def loss(direction):
        model.params.theta[...] = theta + direction
        return -by_quadrature(model, x)[2]

    analytic, h = average_over_noise(gradient), 1e-4
    numeric = [(loss(h * unit) - loss(-h * unit)) / (2 * h) for unit in np.eye(len(theta))]
    np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-6)
    assert np.abs(analytic).max() > 0.1


def loss_and_gradient(**settings):
    """What a float64 VAE of fixed weights, batch and noise gives for some settings."""
    rng = Rng(0, "float64")
    model = VAE(**{"n_features": 6, "hidden": (5,), "n_latent": 2, "batch": 4} | settings).build(rng)
    x = rng.uniform((4, 6))
    return model.loss(x, Rng(1, "float64")), model.params.grad.copy(), model, x


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_beta_weighs_the_kl_and_nothing_else(likelihood):
    losses, gradients = {}, {}
    for beta in (0.0, 1.0, 3.0):
        losses[beta], gradients[beta], model, x = loss_and_gradient(likelihood=likelihood, beta=beta)
        assert losses[beta]["loss"] == pytest.approx(losses[beta]["nll"] + beta * losses[beta]["kl"], rel=1e-14)
        assert losses[beta]["nll"] == losses[0.0]["nll"]
        assert losses[beta]["kl"] == kl_standard_normal(*model.encode(x))[0]
    of_kl = gradients[1.0] - gradients[0.0]
    np.testing.assert_allclose(gradients[3.0] - gradients[0.0], 3 * of_kl, rtol=1e-12, atol=1e-13)
    decoder = np.concatenate([of_kl[where] for name, where in model.params.slices().items() if "decoder" in name])
    assert not decoder.any()
    assert np.abs(of_kl).max() > 0.01


def test_the_variance_c_acts_as_beta():
    """2c (‖x - x̂‖² / 2c + KL) = ‖x - x̂‖² + 2c KL: as if c were ½ and beta 2c. gan-vae-notes eq 2.1 is c = ½, beta = 1."""
    for c in (0.05, 0.5, 2.0):
        _, by_c, _, _ = loss_and_gradient(likelihood="gaussian", variance=c)
        _, by_beta, _, _ = loss_and_gradient(likelihood="gaussian", variance=0.5, beta=2 * c)
        np.testing.assert_allclose(2 * c * by_c, by_beta, rtol=1e-12, atol=1e-13)
    losses, _, model, x = loss_and_gradient(likelihood="gaussian", variance=0.5)
    x_hat = model.reconstruct(x, Rng(1, "float64"))  # with the noise of the loss
    eq_2_1 = squared_error(x_hat, x)[0] + kl_standard_normal(*model.encode(x))[0]
    assert losses["loss"] == pytest.approx(eq_2_1 + 6 / 2 * math.log(math.pi), rel=1e-13)


@pytest.mark.parametrize(("likelihood", "binarize"), [("gaussian", False), ("bernoulli", True), ("bernoulli", False)])
def test_with_draw_x_a_sample_is_drawn_from_p_of_x_given_z(likelihood, binarize):
    settings = {"n_features": 3, "hidden": (4,), "n_latent": 2, "likelihood": likelihood, "binarize": binarize}
    means, drawn = (
        VAE(**settings, variance=0.3, draw_x=draw).build(Rng(0)).sample(20_000, Rng(1)) for draw in (False, True)
    )
    noise = drawn - means  # equal rngs give equal codes
    if likelihood == "gaussian":
        np.testing.assert_allclose(noise.var(axis=0), 0.3, rtol=0.04)
    elif binarize:
        assert set(np.unique(drawn)) == {0, 1}
        np.testing.assert_allclose((noise**2).mean(axis=0), (means * (1 - means)).mean(axis=0), rtol=0.04)
    else:  # a Bernoulli distribution cannot draw grey pixels
        assert not noise.any()
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.02)


def test_one_picture_has_many_reconstructions_and_one_mean():
    model, batch = VAE.example(Rng(0), hidden=())  # a linear decoder gives every code its own picture
    x = np.repeat(batch["x"][:1], 50, axis=0)
    drawn = model.reconstruct(x, Rng(1))
    assert len(np.unique(drawn, axis=0)) == 50
    assert len(np.unique(model.reconstruct(x), axis=0)) == 1
    assert not np.array_equal(drawn, model.reconstruct(x, Rng(2)))
    mu, log_var = model.encode(x[:1])
    codes = mu + np.exp(0.5 * log_var) * Rng(1).normal((50, 2))
    np.testing.assert_allclose(drawn, model.decode(codes), rtol=1e-5)


@pytest.mark.parametrize("model", [VAE, AutoEncoder])
def test_bernoulli_refuses_points(model):
    points, pixels = np.array([[-0.5, 2.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    bernoulli = model(n_features=2, likelihood="bernoulli")
    other = {VAE: "gaussian", AutoEncoder: "squares"}[model]
    for x in (points, np.minimum(points, 1), np.maximum(points, 0)):
        with pytest.raises(UsageError, match=rf"pixels in \[0, 1\], .*: use --set likelihood={other}"):
            bernoulli.check_data(x)
    bernoulli.check_data(pixels)
    model(n_features=2, likelihood=other).check_data(points)


@pytest.mark.slow
@pytest.mark.needs("mnist")
def test_mnist_reaches_pytorchs_bound():
    """784-400-20 as in PyTorch's example, which reaches 105.2 to 106.0 nats after 10 epochs, depending on the seed."""
    data = load("mnist")
    history = fit(VAE().build(Rng(0)), data.x_train, x_test=data.x_test, epochs=10, progress=False)
    assert history[-1]["test_negative_elbo"] <= 106.0  # seeds 0, 1, 2: 105.58, 105.55, 105.51


# ---- the autoencoder ----


def test_a_linear_autoencoder_is_pca():
    rng = Rng(0, "float64")
    x = rng.normal((64, 6)) * np.array([3, 2, 1, 0.7, 0.5, 0.3]) @ np.linalg.qr(rng.normal((6, 6)))[0] + 1
    _, s, Vt = np.linalg.svd(x - x.mean(axis=0))
    pca = (s[2:] ** 2).sum() / len(x)
    model = AutoEncoder(n_features=6, hidden=(), n_latent=2, batch=64, lr=0.01).build(rng)
    before = model.evaluate(x, rng)["squared_error"]
    for _ in range(3000):
        model.train_step(x, rng)
    after = model.evaluate(x, rng)["squared_error"]
    assert before > 5 * pca
    assert pca * (1 - 1e-9) <= after <= 1.01 * pca
    plane = np.linalg.qr(model.decoder.layers[0].W.T)[0]  # (6, 2): what the decoder can reach
    assert np.linalg.svd(Vt[:2] @ plane)[1].min() > 0.999  # cosine of the angle to PCA's plane


def test_damage_has_the_moments_of_its_settings():
    x = np.ones((400, 500), np.float32)
    model = AutoEncoder(noise=0.3)
    damaged = model.damage(x, Rng(0))
    assert damaged.mean() == pytest.approx(1, abs=0.005)
    assert damaged.std() == pytest.approx(0.3, abs=0.005)  # a standard deviation, not a variance
    masked = AutoEncoder(mask=0.2).damage(x, Rng(0))
    assert set(np.unique(masked)) == {0, 1}
    assert masked.mean() == pytest.approx(0.8, abs=0.005)
    assert masked.mean(axis=0).std() < 0.03  # pixels are struck one by one, not whole columns
    assert masked.mean(axis=1).std() < 0.03
    both = AutoEncoder(noise=0.3, mask=0.2).damage(x, Rng(0))
    assert (both == 0).mean() == pytest.approx(0.2, abs=0.005)  # masked pixels are exactly zero
    assert {damaged.dtype, masked.dtype, both.dtype} == {np.dtype(np.float32)}
    assert AutoEncoder().damage(x, Rng(0)) is x
    assert (x == 1).all()


def test_the_denoising_autoencoder_is_to_restore_the_clean_picture():
    """Its loss is measured against x, not against the damaged input, and the damage is gone when it is used."""
    model, batch = AutoEncoder.example(Rng(0, "float64"), mask=0.5)
    x = batch["x"]
    loss = model.loss(x, Rng(1, "float64"))["loss"]
    restored = model.reconstruct(model.damage(x, Rng(1, "float64")))
    assert loss == pytest.approx(squared_error(restored, x)[0], rel=1e-13)
    np.testing.assert_array_equal(model.reconstruct(x), model.decode(model.encode(x)))
    assert model.evaluate(x, Rng(1))["squared_error"] == squared_error(model.reconstruct(x), x)[0]


def test_samples_of_an_autoencoder_have_codes_like_the_training_codes():
    model = AutoEncoder(n_features=6, hidden=(), n_latent=2, batch=64, lr=1e-9).build(Rng(0, "float64"))
    x = Rng(1, "float64").normal((640, 6)) + 3
    fit(model, x, epochs=100)
    codes = model.encode(x)
    np.testing.assert_allclose(model.moments.mean, codes.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(model.moments.variance, codes.var(axis=0), rtol=0.15)
    drawn = model.sample(50_000, Rng(2, "float64"))
    np.testing.assert_allclose(drawn.mean(axis=0), model.decode(model.moments.mean[None])[0], atol=0.05)
    W = model.decoder.layers[0].W
    expected = (W**2 * model.moments.variance[:, None]).sum(axis=0)
    np.testing.assert_allclose(drawn.var(axis=0), expected, rtol=0.05)
