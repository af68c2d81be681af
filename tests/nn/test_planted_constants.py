"""Constants of papers and of other programs, each by its number: a gradient is right whatever they are."""

import inspect
import math

import numpy as np
import pytest
from watching import F64, example

from scratchgen import Parameters, Rng
from scratchgen.check.variants import variants
from scratchgen.models import ddpm, gmm, model_names, vqgan, vqvae
from scratchgen.models.parts import energy
from scratchgen.models.parts.diffusion import alpha_bars
from scratchgen.nn import distributions
from scratchgen.nn.activations import ELU, GELU, LeakyReLU
from scratchgen.nn.double_backward import gradient_penalty
from scratchgen.nn.embeddings import TimeEmbedding
from scratchgen.nn.initialisers import INITIALISERS
from scratchgen.nn.layer import Layer, layers_in
from scratchgen.nn.layers import Dropout, Linear, Maxout
from scratchgen.nn.norms import BatchNorm, LayerNorm, RunningMoments
from scratchgen.nn.optim import EMA, SGD, Adam, AdamW, RMSProp

DEFAULTS = {  # {what is called: its parameters that have defaults}
    Adam: {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    AdamW: {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    RMSProp: {"alpha": 0.99, "eps": 1e-8},
    SGD: {"momentum": 0.0, "nesterov": False},
    EMA: {"decay": 0.999},
    LeakyReLU: {"a": 0.2},
    ELU: {"a": 1.0},
    BatchNorm: {"momentum": 0.1, "eps": 1e-5},
    LayerNorm: {"eps": 1e-5},
    RunningMoments: {"momentum": 0.01},
    TimeEmbedding: {"max_period": 10_000},
    Dropout: {"p": 0.5},
    Maxout: {"n_pieces": 2, "init": INITIALISERS["he"]},
    Linear: {"init": INITIALISERS["he"]},
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_defaults_are_the_usual_ones(kind):
    parameters = inspect.signature(kind).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == DEFAULTS[kind]


# ---- the bound of log σ² ----


def test_log_var_is_cut_at_minus_30_and_10():
    assert distributions.LOG_VAR_RANGE == (-30, 10)


RAW = np.array([-61.0, -31, -30 - 1e-9, -30 + 1e-9, -15, 0, 5, 9, 10 - 1e-9, 10 + 1e-9, 11, 19, 21, 700])
KEPT = (RAW > -30) & (RAW < 10)


def test_a_head_cuts_there_and_passes_no_gradient_beyond():
    mu, d_mu, d = (Rng(seed, F64).normal((1, len(RAW))) for seed in (1, 2, 3))
    (found_mu, log_var), backward = distributions.gaussian_head(np.hstack([mu, RAW[None]]))
    np.testing.assert_array_equal(found_mu, mu)
    np.testing.assert_array_equal(log_var[0], np.clip(RAW, -30, 10))
    dh = backward((d_mu, d))
    np.testing.assert_array_equal(dh[0, : len(RAW)], d_mu[0])
    np.testing.assert_array_equal(dh[0, len(RAW) :], np.where(KEPT, d[0], 0))


def test_a_posterior_cuts_there_and_passes_no_gradient_beyond():
    mu, dz = (Rng(seed, F64).normal((1, len(RAW))) for seed in (1, 2))
    (z, kl), backward = distributions.gaussian_posterior(np.hstack([mu, RAW[None]]), Rng(4, F64))
    log_var, eps = np.clip(RAW, -30, 10), Rng(4, F64).normal((1, len(RAW)))
    sigma_eps = np.exp(0.5 * log_var) * eps
    np.testing.assert_allclose(z, mu + sigma_eps, rtol=1e-12)
    assert kl == pytest.approx(0.5 * (mu**2 + np.exp(log_var) - 1 - log_var).sum(), rel=1e-12)
    dh = backward((dz, 0.7))[0]
    np.testing.assert_allclose(dh[: len(RAW)], (dz + 0.7 * mu)[0], rtol=1e-12)
    inside = 0.5 * sigma_eps * dz + 0.7 * 0.5 * (np.exp(log_var) - 1)
    np.testing.assert_allclose(dh[len(RAW) :], np.where(KEPT, inside[0], 0), rtol=1e-12)


# ---- optimizers and averages ----


def fresh(n=3):
    params = Parameters(Rng(0, F64), layer=Linear(n, 1))
    params.grad[...] = [2.0, -3.0, 0.5, 1e-7][: n + 1]
    return params


def test_adams_steps_with_nothing_given():
    params = fresh()
    adam, m, v, theta = Adam(params), 0, 0, params.theta.copy()
    for t in range(1, 6):
        params.grad *= -0.9
        g = params.grad
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        adam.step()
        np.testing.assert_allclose(params.theta, theta, rtol=1e-12)


def test_rmsprops_steps_with_nothing_given():
    params = fresh()
    rmsprop, v, theta = RMSProp(params, 1e-2), 0, params.theta.copy()
    for _ in range(4):
        params.grad *= -0.9
        v = 0.99 * v + 0.01 * params.grad**2
        theta = theta - 1e-2 * params.grad / (np.sqrt(v) + 1e-8)
        rmsprop.step()
        np.testing.assert_allclose(params.theta, theta, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.999, 0.5, 0.0])
def test_an_averages_decay_rises_as_1_plus_t_by_10_plus_t(decay):
    params = fresh()
    ema = EMA(params, decay) if decay != 0.999 else EMA(params)
    average = params.theta.copy()
    for t in [1, 2, 3, 4, 30, 8_990, 8_991, 20_000]:  # (1 + t) / (10 + t) passes 0.999 at t = 8,990
        params.theta += 1
        ema.t[...] = t - 1
        ema.step()
        d = min(decay, (1 + t) / (10 + t))
        average = d * average + (1 - d) * params.theta
        np.testing.assert_allclose(ema.average, average, rtol=1e-12)


# ---- layers ----


def all_layers(model):
    found, todo = [], [layer for key, value in vars(model).items() for _, layer in layers_in(key, value)]
    while todo:
        layer = todo.pop()
        found.append(layer)
        todo += [child for _, child in layer.children()]
    return found


def test_leaky_relu_has_a_slope_of_a_fifth():
    y, backward = LeakyReLU().forward(np.array([[-3.0, -1e-9, 2.0]]), None)
    np.testing.assert_allclose(y, [[-0.6, -0.2e-9, 2.0]], rtol=1e-12)
    np.testing.assert_allclose(backward(np.ones((1, 3))), [[0.2, 0.2, 1.0]], rtol=1e-12)


CONSTANTS = {"LeakyReLU": {"a": 0.2}, "ELU": {"a": 1.0}, "LayerNorm": {"eps": 1e-5}}
CONSTANTS |= {"BatchNorm": {"momentum": 0.1, "eps": 1e-5}, "RunningMoments": {"momentum": 0.01}}


@pytest.mark.parametrize("name", model_names())
def test_layers_within_models_have_the_usual_constants(name):
    for settings in variants(name):
        for layer in all_layers(example(name, settings)[0]):
            for key, value in CONSTANTS.get(type(layer).__name__, {}).items():
                assert getattr(layer, key) == value, layer


def test_every_layer_with_a_number_of_its_own_is_listed_above():
    """A layer of nn/ whose maker has a number for a default."""
    numbers = {
        kind.__name__
        for kind in every_subclass(Layer)
        if kind.__module__.startswith("scratchgen.nn")
        and any(type(p.default) in (int, float) for p in inspect.signature(kind.__init__).parameters.values())
    }
    assert numbers <= {kind.__name__ for kind in DEFAULTS}


def every_subclass(kind):
    return {kind} | set().union(*(every_subclass(below) for below in kind.__subclasses__()))


def test_batch_norm_remembers_a_tenth_of_each_batch():
    layer = BatchNorm(2)
    Parameters(Rng(0, F64), layer=layer)
    x = np.array([[1.0, 4e-3], [3.0, -4e-3], [5.0, 0]])
    y, backward = layer.forward(x, Rng(1, F64))
    backward(np.ones_like(x))
    np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(layer.running_variance, 0.9 + 0.1 * x.var(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(y, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5), rtol=1e-10)


def test_where_a_critic_is_flat_its_slope_counts_as_1e_12():
    D = Linear(3, 1)
    Parameters(Rng(0, F64), D=D)
    D.W[...] = 0
    value, backward = gradient_penalty(D, np.ones((4, 3)), centre=0.0)
    backward()
    assert value * 1e24 == pytest.approx(1, rel=1e-12) and not D.dW.any()


def test_layer_norm_adds_1e_5_to_the_variance():
    layer = LayerNorm(3)
    Parameters(Rng(0, F64), layer=layer)
    x = 1e-3 * np.array([[1.0, 2.0, 6.0]])
    np.testing.assert_allclose(layer(x), (x - x.mean()) / np.sqrt(x.var() + 1e-5), rtol=1e-10)


def test_running_moments_remember_a_hundredth_of_each_batch():
    layer = RunningMoments(1)
    Parameters(Rng(0, F64), layer=layer)
    x = np.array([[1.0], [3.0]])
    layer.forward(x, Rng(1, F64))[1](x)
    np.testing.assert_allclose([layer.mean[0], layer.variance[0]], [0.02, 0.99 + 0.01 * 5], rtol=1e-12)


def test_gelu_is_the_tanh_form_of_hendrycks_and_gimpel():
    x = np.linspace(-5, 5, 101)[None]
    wanted = 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(GELU()(x), wanted, rtol=1e-12, atol=1e-15)
    phi = np.array([[0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x[0]]])
    assert np.abs(GELU()(x) - x * phi).max() < 5e-4  # what it stands for


def test_waves_go_from_1_towards_a_ten_thousandth():
    layer = TimeEmbedding(8)
    Parameters(Rng(0, F64), layer=layer)
    np.testing.assert_allclose(layer.omega, [1, 0.1, 0.01, 0.001], rtol=1e-12)
    np.testing.assert_allclose(layer(np.array([3.0]))[0, :4], np.cos([3, 0.3, 0.03, 0.003]), rtol=1e-12)


@pytest.mark.parametrize(("name", "variance"), [("he", 2 / 50), ("glorot", 2 / 80), ("pytorch", 1 / 150)])
def test_weights_start_with_the_variance_of_their_paper(name, variance):
    W = INITIALISERS[name](Rng(5, F64), (50, 30), 50)
    assert W.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / W.size))
    bounds = {"glorot": math.sqrt(6 / 80), "pytorch": 1 / math.sqrt(50)}
    if name in bounds:  # uniform, up to there
        assert 0.99 * bounds[name] < np.abs(W).max() <= bounds[name]


# ---- schedules of noise ----


@pytest.mark.parametrize("T", [20, 50, 200, 1000])
def test_the_linear_schedule_is_ho_et_als(T):
    betas = np.minimum([(1e-4 + (0.02 - 1e-4) * i / (T - 1)) * 1000 / T for i in range(T)], 0.999)
    np.testing.assert_allclose(alpha_bars("linear", T), [1, *np.cumprod(1 - betas)], rtol=1e-12)


@pytest.mark.parametrize("T", [1, 5, 200, 1000])
def test_the_cosine_schedule_is_nichol_and_dhariwals(T):
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    alpha_bar, found = 1.0, alpha_bars("cosine", T)
    assert found[0] == 1
    for t in range(1, T + 1):
        alpha_bar *= 1 - min(1 - f[t] / f[t - 1], 0.999)
        assert found[t] == pytest.approx(alpha_bar, rel=1e-10)
    assert found[-1] / found[-2] == pytest.approx(0.001, rel=1e-12)  # the cap: f(T) = 0
    if T == 1000:
        assert found[1] == pytest.approx(1 - 4.128e-5, abs=2e-8)  # s keeps the first β from being next to 0


# ---- models ----


def test_constants_that_models_name():
    assert (vqvae.LEAST, vqvae.SETTLING) == (0.03, 0.3)
    assert (vqgan.DELTA, vqgan.LARGEST) == (1e-6, 1e4)
    assert (gmm.LEAST, gmm.SHORT, energy.MOST) == (1e-30, 10, 20)
    assert energy.small(Rng(6, F64), (100, 100), 1).std() == pytest.approx(0.01, rel=5 / math.sqrt(2e4))


def test_optimizers_of_models_have_the_constants_of_their_settings():
    """Adam's where a model has no setting for them, and of a D that of its file."""
    for name in model_names():
        for settings in variants(name):
            model = example(name, settings)[0]
            for key, part in vars(model).items():
                if isinstance(part, Adam):
                    betas = (getattr(model, "beta1", None), getattr(model, "beta2", None))
                    betas = (0.0, 0.99) if name == "vqgan" and key == "optimizer_D" else betas
                    betas = (0.9, 0.999) if betas[0] is None else betas
                    assert (part.beta1, part.beta2, part.eps, part.weight_decay) == (*betas, 1e-8, 0.0), (name, key)
                elif isinstance(part, RMSProp):
                    assert (part.alpha, part.eps) == (0.99, 1e-8)
                elif isinstance(part, SGD):
                    assert (part.momentum, part.nesterov) == (getattr(model, "momentum", 0.0), False)
                elif isinstance(part, EMA):
                    assert part.decay == model.averaging


def test_a_diffusion_models_tables_are_those_of_its_schedule():
    for schedule in ("cosine", "linear"):
        model = ddpm.DDPM.example(Rng(0, F64), schedule=schedule, n_times=40)[0]
        np.testing.assert_array_equal(model.alpha_bar, alpha_bars(schedule, 40))
        np.testing.assert_allclose(model.signal**2, model.alpha_bar, rtol=1e-12)
        np.testing.assert_allclose(model.noise**2, 1 - model.alpha_bar, rtol=1e-12, atol=1e-15)
