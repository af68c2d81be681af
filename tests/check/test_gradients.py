"""Every gradient this library writes by hand is the derivative of its own forward pass, at any shape and option.

Three judges that share no code: the complex step, central differences, and a difference quotient written in this file.
"""

import importlib
import inspect
import json
import pkgutil
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scratchgen
from scratchgen import Layer, Parameters, Rng, Sequential, check_flow, check_layer, check_loss
from scratchgen.check import selfcheck
from scratchgen.models import find_model, model_names
from scratchgen.models.parts.codebook import Codebook
from scratchgen.models.parts.coupling import Affine, Autoregressive, Coupling
from scratchgen.models.parts.denoiser import Block, Denoiser, Scaling
from scratchgen.models.parts.energy import FreeEnergy
from scratchgen.models.parts.gaussians import Gaussians
from scratchgen.models.parts.invertible import ActNorm, Chain, Logit, Permute
from scratchgen.models.parts.masked import MaskedLinear, MaskedMLP
from scratchgen.models.parts.spline import Spline
from scratchgen.models.vae import VAE
from scratchgen.nn import initialisers, losses
from scratchgen.nn.activations import ELU, GELU, Activation, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from scratchgen.nn.distributions import gaussian_head, reparameterize
from scratchgen.nn.double_backward import Gradient
from scratchgen.nn.embeddings import Concat, Embedding, TimeEmbedding
from scratchgen.nn.layers import Dropout, Linear, Maxout, Residual, mlp
from scratchgen.nn.norms import BatchNorm, LayerNorm, RunningMoments
from scratchgen.uses.completion import CompletionLoss

EXACT = 1e-12  # what the complex step must reach; its own tolerance is a hundred times wider
TARGETS = list(selfcheck.targets())
SEEDS = st.integers(0, 2**32 - 1)
BATCH, WIDTH = st.integers(1, 5), st.integers(1, 5)


def assert_exact(report, limit=EXACT):
    assert report, str(report)
    assert report.method == "complex-step"
    assert report.error <= limit, str(report)


# What the library brings itself: one example for each layer, loss and objective.


@pytest.mark.parametrize("check", [pytest.param(check, id=f"{kind}-{name}") for kind, name, check in TARGETS])
def test_what_the_library_brings_is_exact(check):
    assert_exact(check(seed=0))


def every_layer():
    """{name: class} of every layer found in the package's modules, not by the checker's own list."""
    for module in pkgutil.walk_packages(scratchgen.__path__, "scratchgen."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    below = [Layer]
    for layer in below:
        below += layer.__subclasses__()
    below = [c for c in below if c.__module__.startswith("scratchgen.") and not c.__name__.startswith("_")]
    return {c.__name__: c for c in below if c not in (Layer, Activation, Gradient)}


def everything_defined():
    """Every layer, loss and objective."""
    for layer in every_layer().values():
        yield "layer", layer.__name__
        if layer.forward_twice is not Layer.forward_twice and layer is not BatchNorm:
            yield "second_order", f"{layer.__name__}.forward_twice"
    for name, found in inspect.getmembers(losses, inspect.isfunction):
        if found.__module__ == losses.__name__ and not name.startswith("_") and name not in ("square", "bernoulli"):
            yield "loss", name  # these two give each number's term of a loss that is checked
    for model in map(find_model, model_names()):
        yield from (("objective", f"{model.__name__}.{objective}") for objective in model.objectives)


def test_nothing_is_left_out():
    checked = {(kind, name.partition(" [")[0]) for kind, name, _ in TARGETS}
    missing = sorted(set(everything_defined()) - checked)
    assert not missing, f"not in selfcheck.targets(): {missing}"


FLAGS = {"learn": True, "inputs": True}


def flags(backward):
    """{flag: what it is where it is not given} of a backward."""
    return {p.name: p.default for p in [*inspect.signature(backward).parameters.values()][1:]}


@pytest.mark.parametrize("name", sorted(every_layer()))
def test_a_backward_without_flags_learns_and_gives_the_inputs_gradient(name):
    layer_class, rng = every_layer()[name], Rng(0, "float64")
    layer, x = (mlp([3, 4, 2]), rng.normal((5, 3))) if layer_class is Sequential else layer_class.example(rng)
    Parameters(rng, layer=layer)
    for mode in (rng, None):
        assert flags(layer.forward(x, mode)[1]) == FLAGS
    if layer_class.forward_twice not in (Layer.forward_twice, BatchNorm.forward_twice):
        y, backward, gradient = layer.forward_twice(x)
        assert flags(backward) == flags(gradient(y)[1]) == FLAGS


def test_json_stays_json_when_an_error_is_not_a_number(monkeypatch, capsys):
    from scratchgen.__main__ import main
    from scratchgen.check.report import GradReport

    broken = GradReport("broken", "central", float("nan"), 1e-6, False, 0)
    monkeypatch.setattr("scratchgen.commands.gradcheck.selfcheck", lambda pattern: [("layer", broken)])
    assert main(["gradcheck", "--json"]) == 1

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    (entry,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert entry["passed"] is False and entry["error"] > entry["tolerance"]


# Losses at random shapes. Each maker returns the loss and the arrays to try it on.


def kl_standard_normal(draw, rng):
    shape = draw(BATCH), draw(WIDTH)
    return losses.kl_standard_normal, rng.normal(shape), rng.normal(shape)


def kl_gaussians(draw, rng):
    shape = draw(BATCH), draw(WIDTH)
    return losses.kl_gaussians, *(rng.normal(shape) for _ in range(4))


def bernoulli_nll(draw, rng):
    shape = draw(BATCH), draw(WIDTH) + 1
    soft = rng.uniform(shape)
    return losses.bernoulli_nll, 2 * rng.normal(shape), soft if draw(st.booleans()) else (soft < 0.5).astype(float)


def binary_cross_entropy(draw, rng):
    shape = draw(st.sampled_from([(4,), (4, 1), (2, 1)]))
    target = draw(st.sampled_from([0, 1, 0.0, 1.0, 0.9, 0.1, "array"]))
    return losses.binary_cross_entropy, rng.normal(shape), rng.uniform(shape) if target == "array" else target


def softmax_cross_entropy(draw, rng):
    batch, classes = draw(BATCH), draw(st.integers(2, 5))
    labels = rng.integers(classes, batch)
    if draw(st.booleans()):  # rows of probabilities instead of labels
        labels = rng.uniform((batch, classes)) + 0.1
        labels /= labels.sum(axis=1, keepdims=True)
    weights = [0.5 + rng.uniform(batch)] if draw(st.booleans()) else []
    return losses.softmax_cross_entropy, rng.normal((batch, classes)), labels, *weights


def squared_error(draw, rng):
    shape = draw(BATCH), draw(WIDTH)
    return losses.squared_error, rng.normal(shape), rng.normal(shape)


def absolute_error(draw, rng):
    shape = draw(BATCH), draw(WIDTH)
    return losses.absolute_error, rng.normal(shape), rng.normal(shape)


def gaussian_nll(draw, rng):
    shape = draw(BATCH), draw(WIDTH)
    return losses.gaussian_nll, rng.normal(shape), rng.normal(shape), draw(st.floats(0.05, 5))


def with_a_slope(logits):
    """One logit at least lies between -1 and 1: where all lie beyond, the hinge is flat, and there is nothing to compare."""
    logits.flat[0] = 0.3
    return logits


def adversarial(f):
    def make(draw, rng):
        shape = draw(st.sampled_from([(4,), (4, 1), (2, 1)]))
        target = draw(st.sampled_from([0, 1, 0.0, 1.0, 0.9, "array"]))
        return f, with_a_slope(rng.normal(shape)), rng.uniform(shape) if target == "array" else target

    make.__name__ = f.__name__
    return make


def minimax(draw, rng):
    return losses.minimax, 2 * rng.normal((draw(BATCH), 1))


def loss_D(draw, rng):
    kind, real = draw(st.sampled_from([*losses.ADVERSARIAL])), with_a_slope(rng.normal((draw(BATCH), 1)))
    targets = draw(st.sampled_from([{}, {"y_real": 0.9}, {"y_real": 0.8, "y_fake": 0.1}]))
    return partial(losses.loss_D, kind=kind, **targets), real, 2 * rng.normal((draw(BATCH), 1))


def loss_G(draw, rng):
    kind = draw(st.sampled_from([*losses.ADVERSARIAL]))
    return partial(losses.loss_G, kind=kind), 2 * rng.normal((draw(BATCH), 1))


LOSSES = [kl_standard_normal, kl_gaussians, bernoulli_nll, binary_cross_entropy, softmax_cross_entropy]
LOSSES += [squared_error, absolute_error, gaussian_nll, minimax, loss_D, loss_G]
LOSSES += [adversarial(f) for f in (losses.least_squares, losses.hinge, losses.wasserstein)]
KINKED = {"absolute_error", "hinge", "loss_D"}


def assert_central(check, seed, kinked):
    """By central differences, smooth functions at once. A difference across a kink is no derivative, so what has kinks
    gets three random places, of which one must do: a wrong gradient is wrong at all of them."""
    reports = []
    for i in range(3 if kinked else 1):
        reports.append(check(seed=seed + i, method="central"))
        if reports[-1]:
            return
    raise AssertionError("\n".join(map(str, reports)))


def test_every_loss_is_drawn_below():
    assert {make.__name__ for make in LOSSES} == {
        name.partition(" [")[0] for kind, name, _ in TARGETS if kind == "loss"
    }


@pytest.mark.parametrize("make", LOSSES)
@given(data=st.data(), seed=SEEDS)
def test_loss_at_random(make, data, seed):
    f, *arrays = make(data.draw, Rng(seed, "float64"))
    assert_exact(check_loss(f, *arrays, seed=seed))
    assert_central(lambda **options: check_loss(f, *arrays, **options), seed, make.__name__ in KINKED)


# The same with a difference quotient that shares nothing with the checker.


def difference_quotient(f, arrays, which, h=1e-4):
    """∂f/∂arrays[which] by the five-point formula, one number at a time; its error is about h⁴ f⁽⁵⁾/30."""
    gradient = np.zeros_like(arrays[which])
    for place in np.ndindex(gradient.shape):
        values = {}
        for k in (-2, -1, 1, 2):
            moved = [array.copy() if isinstance(array, np.ndarray) else array for array in arrays]
            moved[which][place] += k * h
            values[k] = f(*moved)[0]
        gradient[place] = (values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * h)
    return gradient


@pytest.mark.parametrize("make", LOSSES[:5])
@given(data=st.data(), seed=SEEDS)
def test_loss_against_a_difference_quotient(make, data, seed):
    f, *arrays = make(data.draw, Rng(seed, "float64"))
    _, *gradients = f(*arrays)
    for which, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, difference_quotient(f, arrays, which), rtol=1e-8, atol=1e-10)


# Layers of random sizes and options. Each maker returns (layer, input).

INITS = st.sampled_from([initialisers.he, initialisers.glorot, initialisers.pytorch, initialisers.orthogonal])


def linear(draw, rng):
    n_in = draw(WIDTH)
    return Linear(n_in, draw(WIDTH), draw(INITS)), rng.normal((draw(BATCH), n_in))


def activation(make):
    def with_input(draw, rng):
        x = 6 * rng.uniform((draw(BATCH), draw(WIDTH))) - 3
        x[0, 0] = 1  # one place at least where ReLU lives
        return make(draw), x

    return with_input


def dropout(draw, rng):
    return Dropout(draw(st.floats(0, 0.5))), rng.normal((draw(BATCH) + 3, 8))  # so many that never all are dropped


def batch_norm(draw, rng):
    n = draw(WIDTH)
    options = {"momentum": draw(st.floats(0.01, 1)), "eps": draw(st.sampled_from([1e-5, 1e-3, 0.1]))}
    return BatchNorm(n, **options), rng.normal((draw(st.integers(4, 8)), n))


def layer_norm(draw, rng):
    n = draw(st.integers(4, 7))
    return LayerNorm(n, eps=draw(st.sampled_from([1e-5, 1e-3, 0.1]))), rng.normal((draw(BATCH), n))


def running_moments(draw, rng):
    n = draw(WIDTH)
    return RunningMoments(n, draw(st.floats(0.01, 1))), rng.normal((draw(BATCH), n))


def embedding(draw, rng):
    n_classes = draw(WIDTH)
    return Embedding(n_classes, draw(WIDTH), draw(INITS)), rng.integers(n_classes, draw(BATCH))


def time_embedding(draw, rng):
    layer = TimeEmbedding(2 * draw(WIDTH), draw(st.sampled_from([10, 1000, 10_000])))
    return layer, 20 * rng.uniform(draw(BATCH))


def maxout(draw, rng):
    n_in = draw(WIDTH)
    return Maxout(n_in, draw(WIDTH), draw(st.integers(1, 4)), draw(INITS)), rng.normal((draw(BATCH), n_in))


def residual(draw, rng):
    n = draw(WIDTH)
    return Residual(mlp([n, draw(WIDTH), n], Tanh)), rng.normal((draw(BATCH), n))


def concat(draw, rng):
    batch = draw(BATCH)
    return Concat(), (rng.normal((batch, draw(WIDTH))), rng.normal((batch, draw(WIDTH))))


def conditional(draw, rng):
    """A condition beside the input, as the conditional models have it."""
    batch, n, m = draw(BATCH), draw(WIDTH), draw(WIDTH)
    return Sequential(Concat(), mlp([n + m, 4, 2], SiLU)), (rng.normal((batch, n)), rng.normal((batch, m)))


def scaling(draw, rng):
    n = draw(WIDTH)
    return Scaling(n), rng.normal((draw(BATCH), n))


def block(draw, rng):
    width, n_time, batch = draw(st.integers(4, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Block(width, n_time), (rng.normal((batch, width)), rng.normal((batch, n_time)))


def denoiser(draw, rng):
    n, n_classes, batch = draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 3))
    layer = Denoiser(n, 4, draw(st.integers(1, 2)), 2, n_classes)
    labels = [rng.integers(n_classes + 1, batch)] if n_classes else []
    return layer, (rng.normal((batch, n)), 1 + rng.integers(100, batch), *labels)


def codebook(draw, rng):
    n_dim = draw(WIDTH)
    return Codebook(draw(st.integers(2, 6)), n_dim), rng.normal((draw(BATCH) + 3, n_dim))


def masked_linear(draw, rng):
    shape = draw(WIDTH), draw(WIDTH)
    mask = rng.uniform(shape) < draw(st.floats(0.2, 0.9))
    mask[0, 0] = True  # else the gradient could be 0 everywhere
    return MaskedLinear(*shape, draw(INITS)), (rng.normal((draw(BATCH), shape[0])), mask)


def masked_mlp(draw, rng):
    D, n_in, n_out, n_orders = (
        draw(st.integers(2, 4)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(0, 3)),
    )
    hidden = tuple(draw(st.lists(st.integers(3, 4), max_size=2)))
    layer = MaskedMLP(D, n_in, hidden, n_out, draw(st.booleans()), n_orders)
    return layer, (rng.normal((draw(BATCH), D * n_in)), rng.integers(max(1, n_orders), 1))


def gaussians(draw, rng):
    n, covariance = draw(WIDTH), draw(st.sampled_from(["full", "diagonal", "spherical"]))
    return Gaussians(draw(st.integers(1, 4)), n, covariance), rng.normal((draw(BATCH), n))


def completion_loss(draw, rng):
    n_latent, n, batch = draw(WIDTH), draw(WIDTH), draw(BATCH)
    known = (rng.uniform((batch, n)) < 0.5).astype(rng.real)
    networks = mlp([n_latent, 4, n], Tanh), mlp([n, 4, 1], Tanh)
    weights = draw(st.floats(0.1, 1)), draw(st.floats(0.1, 2))
    return CompletionLoss(*networks, rng.uniform((batch, n)), known, *weights), rng.normal((batch, n_latent))


def free_energy(draw, rng):
    n = draw(WIDTH)
    return FreeEnergy(n, draw(WIDTH), 2), rng.uniform((draw(BATCH), n))


def changed(g, draw, rng):
    """An Affine or a Spline with numbers to change and their parameters."""
    shape = draw(BATCH), draw(WIDTH)
    return g, (2 * rng.normal(shape), rng.normal((*shape, g.n_params)))


def affine(draw, rng):
    return changed(Affine(draw(st.floats(0.5, 4))), draw, rng)


def spline(draw, rng):
    return changed(drawn_spline(draw), draw, rng)


def drawn_spline(draw):
    return Spline(draw(st.integers(2, 6)), draw(st.floats(1, 5)))


def act_norm(draw, rng):
    n = draw(WIDTH)
    return ActNorm(n), rng.normal((draw(BATCH), n))


def permute(draw, rng):
    n = draw(WIDTH)
    return Permute(n, draw(st.sampled_from(["reverse", "random"]))), rng.normal((draw(BATCH), n))


def logit(draw, rng):
    return Logit(draw(st.floats(0.01, 0.4))), rng.uniform((draw(BATCH), draw(WIDTH)))


def conditioned(draw, rng):
    n, g = draw(st.integers(2, 4)), draw(st.booleans())
    hidden = tuple(draw(st.lists(st.integers(3, 4), min_size=1, max_size=2)))
    return n, drawn_spline(draw) if g else Affine(), hidden, 2 * rng.normal((draw(BATCH), n))


def coupling(draw, rng):
    n, g, hidden, x = conditioned(draw, rng)
    return Coupling(n, g, hidden, n_a=draw(st.integers(1, n - 1))), x


def autoregressive(draw, rng):
    n, g, hidden, x = conditioned(draw, rng)
    return Autoregressive(n, g, hidden), x


def chain(draw, rng):
    n, g, hidden, x = conditioned(draw, rng)
    return Chain(ActNorm(n), Coupling(n, g, hidden), Permute(n), Autoregressive(n, Affine(), hidden), ActNorm(n)), x


ACTIVATIONS = [ReLU, ELU, Tanh, Sigmoid, Softplus, SiLU, GELU]


def whole_mlp(draw, rng):
    sizes = [draw(WIDTH), *(draw(st.integers(4, 6)) for _ in range(draw(st.integers(0, 2)))), draw(WIDTH)]
    network = mlp(
        sizes,
        draw(st.sampled_from(ACTIVATIONS)),
        draw(INITS),
        norm=draw(st.sampled_from([None, BatchNorm, LayerNorm])),
        dropout=draw(st.sampled_from([0.0, 0.2])),
    )
    return network, rng.normal((draw(st.integers(4, 6)), sizes[0]))


LAYERS = {
    "Linear": (linear, False),
    "Dropout": (dropout, False),
    "BatchNorm": (batch_norm, False),
    "LayerNorm": (layer_norm, False),
    "RunningMoments": (running_moments, False),
    "Embedding": (embedding, False),
    "TimeEmbedding": (time_embedding, False),
    "Maxout": (maxout, True),
    "Residual": (residual, False),
    "Concat": (concat, False),
    "Scaling": (scaling, False),
    "Block": (block, False),
    "Denoiser": (denoiser, False),
    "Codebook": (codebook, True),
    "Gaussians": (gaussians, False),
    "CompletionLoss": (completion_loss, False),
    "FreeEnergy": (free_energy, False),
    "MaskedLinear": (masked_linear, False),
    "MaskedMLP": (masked_mlp, True),
    "Affine": (affine, False),
    "Spline": (spline, True),
    "ActNorm": (act_norm, False),
    "Permute": (permute, False),
    "Logit": (logit, False),
    "Coupling": (coupling, True),
    "Autoregressive": (autoregressive, True),
    "Chain": (chain, True),
    "Sequential": (conditional, False),
    "mlp": (whole_mlp, True),
    "ReLU": (activation(lambda draw: ReLU()), True),
    "LeakyReLU": (activation(lambda draw: LeakyReLU(draw(st.floats(0, 1)))), True),
    "ELU": (activation(lambda draw: ELU(draw(st.floats(0.1, 2)))), True),
    "Tanh": (activation(lambda draw: Tanh()), False),
    "Sigmoid": (activation(lambda draw: Sigmoid()), False),
    "Softplus": (activation(lambda draw: Softplus()), False),
    "SiLU": (activation(lambda draw: SiLU()), False),
    "GELU": (activation(lambda draw: GELU()), False),
}


def test_every_layer_is_drawn_below():
    functions = {"reparameterize", "gaussian_head", "gaussian_posterior"}
    assert set(LAYERS) - {"mlp"} == {name for kind, name, _ in TARGETS if kind == "layer"} - functions


def check_one_drawn(name, data, seed):
    make, kinked = LAYERS[name]
    layer, x = make(data.draw, Rng(seed, "float64"))
    check = check_flow if hasattr(layer, "inverse") else check_layer
    # A bias before BatchNorm has gradient 0; the checker compares its rounding with a thousandth of the largest gradient.
    # The two parts of a Residual's gradient can cancel, to a small number with few digits left.
    assert_exact(check(layer, x, seed=seed), limit=1e-10 if name in ("mlp", "Residual") else EXACT)
    mode = "directions" if name in NETWORKS else "auto"  # each entry has been checked above
    assert_central(lambda **options: check_layer(layer, x, mode=mode, **options), seed, kinked)


NETWORKS = [
    "Autoregressive",
    "Block",
    "Chain",
    "CompletionLoss",
    "Coupling",
    "Denoiser",
    "MaskedMLP",
    "Sequential",
    "Spline",
    "mlp",
]  # many evaluations, so fewer draws


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in NETWORKS])
@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data(), seed=SEEDS)
def test_layer_at_random(name, data, seed):
    check_one_drawn(name, data, seed)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=settings.default.max_examples // 3)
@given(data=st.data(), seed=SEEDS)
def test_network_at_random(name, data, seed):
    check_one_drawn(name, data, seed)


class Head(Layer):
    """gaussian_head and reparameterize as one layer: h (B, 2 D) -> z (B, D)."""

    def forward(self, h, rng):
        (mu, log_var), back_head = gaussian_head(h)
        z, back_z = reparameterize(mu, log_var, rng or Rng(0, "float64"))
        return z, lambda dz, learn=True, inputs=True: back_head(back_z(dz))


@given(batch=BATCH, width=WIDTH, seed=SEEDS)
def test_reparameterised_sample_at_random(batch, width, seed):
    h = Rng(seed, "float64").normal((batch, 2 * width))
    assert_exact(check_layer(Head(), h, seed=seed))
    assert_central(lambda **options: check_layer(Head(), h, **options), seed, kinked=False)


def forgets_to_zero(loss, model, x, rng):
    left = model.params.grad.copy()
    found = loss(model, x, rng)
    model.params.grad += left
    return found


def teaches_a_stranger(loss, model, x, rng):
    model.stranger.grad += 1
    return loss(model, x, rng)


@pytest.mark.parametrize("mistake", [forgets_to_zero, teaches_a_stranger])
def test_an_objective_clears_its_own_gradient_and_leaves_others_alone(mistake, monkeypatch):
    build, loss = VAE.build, VAE.loss

    def build_with_a_stranger(model, rng):
        model.stranger = Parameters(rng, net=Linear(2, 3))
        return build(model, rng)

    monkeypatch.setattr(VAE, "build", build_with_a_stranger)

    def reports():  # of the VAE, not of the VQ-VAE
        return [report for _, report in selfcheck.selfcheck("VAE.loss") if report.name.startswith("VAE")]

    assert reports() and all(reports())
    monkeypatch.setattr(VAE, "loss", lambda model, x, rng: mistake(loss, model, x, rng))
    assert not any(reports())
