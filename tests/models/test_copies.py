"""copy.deepcopy and pickle: the copy trains exactly as the original would, its views lie in its own vectors, and neither
changes the other."""

import copy
import pickle

import numpy as np
import pytest

from scratchgen import Layer, Parameters, Rng, Sequential, Weight
from scratchgen.check.variants import variants
from scratchgen.models import find_model, model_names
from scratchgen.nn.activations import ACTIVATIONS
from scratchgen.nn.layers import Linear, mlp
from scratchgen.nn.losses import squared_error
from scratchgen.nn.norms import BatchNorm
from scratchgen.nn.optim import EMA, SGD, AdamW
from scratchgen.nn.schedules import constant, cosine, falling, iwae, linear, steps

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda found: pickle.loads(pickle.dumps(found))}
every_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
MODELS = [(name, i) for name in model_names() for i in range(len(variants(name)))]


def bits(model):
    return {name: array.tobytes() for name, array in model.state().items()}


@every_copy
@pytest.mark.parametrize(("name", "variant"), MODELS)
def test_a_copied_model_trains_on_as_the_original(name, variant, copied):
    model, batch = find_model(name).example(Rng(0), **variants(name)[variant])
    model.train_step(rng=Rng(1), **batch)
    before, twin = bits(model), copied(model)
    assert bits(twin) == before
    assert twin.settings() == model.settings()
    for params in twin.parameters().values():
        assert all(np.shares_memory(view, params.theta) for view in params.named().values())
    twin.train_step(rng=Rng(2), **batch)
    assert bits(model) == before
    model.train_step(rng=Rng(2), **batch)
    assert bits(twin) == bits(model)


class Own(Layer):
    """A learner's layer: a list of layers, a buffer, and a way to start that is a function inside another."""

    def __init__(self, n):
        self.inner = [Linear(n, n), BatchNorm(n)]
        self.shift = Weight((n,), lambda rng, shape, fan_in: rng.normal(shape))

    def forward(self, x, rng):
        h, back_linear = self.inner[0].forward(x, rng)
        h, back_norm = self.inner[1].forward(h, rng)

        def backward(dy, learn=True, inputs=True):
            if learn:
                self.dshift += dy.sum(axis=0)
            return back_linear(back_norm(dy, learn), learn, inputs)

        return h + self.shift, backward


@every_copy
def test_networks_optimizers_and_averages_of_ones_own(copied):
    net = Sequential(mlp([3, 4, 4]), Own(4), *(kind() for kind in ACTIVATIONS.values()), Linear(4, 2))
    params = Parameters(Rng(0), net=net)
    kept = {"net": net, "params": params, "adam": AdamW(params, cosine(1e-2, 9)), "average": EMA(params)}
    x, target = Rng(1).normal((6, 3)), Rng(2).normal((6, 2))

    def step(net, params, adam, average):
        params.zero_grad()
        y, back = net.forward(x, Rng(3))
        _, dy = squared_error(y, target)
        back(dy, inputs=False)
        adam.step()
        average.step()

    step(**kept)
    twin = copied(kept)
    assert twin["adam"].params is twin["params"] is twin["net"].params
    assert not np.shares_memory(twin["params"].theta, params.theta)
    theta = params.theta.copy()
    step(**twin)
    np.testing.assert_array_equal(params.theta, theta)
    step(**kept)
    np.testing.assert_array_equal(twin["params"].theta, params.theta)
    np.testing.assert_array_equal(twin["params"].buffers, params.buffers)
    twin["params"].cast("float64")
    assert twin["net"].layers[1].shift.dtype == np.float64


@every_copy
def test_a_layer_before_it_has_weights(copied):
    layer = copied(Linear(3, 2))
    Parameters(Rng(0), layer=layer)
    assert layer.W.shape == (3, 2) and layer.W.any()


@every_copy
def test_a_stream_goes_on_where_it_was(copied):
    rng = Rng((1, 2), "float64")
    rng.normal(3)
    twin = copied(rng)
    np.testing.assert_array_equal(twin.normal(4), rng.normal(4))
    assert twin.like(5).dtype == rng.dtype and twin.xp is np


@every_copy
@pytest.mark.parametrize(
    "schedule", [constant(0.1), cosine(0.1, 50, 0.01), linear(0.1, 5, 50), falling(0.1, 40), steps(0.1, 7), iwae(3)]
)
def test_schedules(schedule, copied):
    assert [copied(schedule)(step) for step in range(60)] == [schedule(step) for step in range(60)]
    params = Parameters(Rng(0), layer=Linear(2, 2))
    copied(SGD(params, schedule)).step()


@every_copy
def test_a_conditional_model_that_has_seen_some_classes_only(copied):
    model, batch = find_model("conditional_gan").example(Rng(0), n_classes=5)
    model.prepare(batch["x"], Rng(0), np.array([0, 1, 4, 4]))
    model.train_step(rng=Rng(1), **batch | {"labels": np.array([0, 1, 4, 4])})
    twin = copied(model)
    assert set(twin.classes.draw(99, Rng(0))) == {0, 1, 4}
