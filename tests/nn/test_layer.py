"""The contract every layer keeps: weights are views into flat vectors, each call owns its closure, precision stays what
it was, and what does not fit is refused in words."""

import copy
import inspect

import numpy as np
import pytest

import scratchgen.nn.activations
import scratchgen.nn.layers
import scratchgen.nn.norms
from scratchgen import Layer, Parameters, Rng, Sequential, UsageError, Weight
from scratchgen.nn import losses
from scratchgen.nn.activations import Activation, ReLU, SiLU, Tanh
from scratchgen.nn.distributions import gaussian_head, reparameterize
from scratchgen.nn.embeddings import Concat, Embedding, TimeEmbedding
from scratchgen.nn.initialisers import ones
from scratchgen.nn.layers import Dropout, Linear, Maxout, Residual, mlp, one_hot
from scratchgen.nn.norms import BatchNorm, LayerNorm, RunningMoments
from scratchgen.nn.optim import SGD


def laid_out(layer, dtype="float64", seed=0):
    return Parameters(Rng(seed, dtype), net=layer)


def arrays_of(x):
    return x if isinstance(x, tuple) else (x,)


def every_layer():
    """The layers of the library on their own examples, and one network of many."""
    for module in (scratchgen.nn.layers, scratchgen.nn.activations, scratchgen.nn.norms):
        for name, found in vars(module).items():
            own = inspect.isclass(found) and issubclass(found, Layer) and found.__module__ == module.__name__
            if own and found is not Activation:
                yield pytest.param(found.example, id=name)
    yield pytest.param(lambda rng: (mlp([3, 4, 4, 2], SiLU, norm=BatchNorm, dropout=0.2), rng.normal((5, 3))), id="mlp")


EVERY_LAYER = pytest.mark.parametrize("example", list(every_layer()))


# Weights are views.


def test_weights_and_gradients_are_views_of_two_vectors():
    network = mlp([3, 4, 2])
    params = laid_out(network)
    first, _, last = network.layers
    assert params.theta.shape == params.grad.shape == (3 * 4 + 4 + 4 * 2 + 2,)
    last.b[1] = 7
    last.db[0] = 5
    assert params.theta[-1] == 7 and params.grad[-2] == 5
    params.theta[0], params.grad[1] = 3, 4
    assert first.W[0, 0] == 3 and first.dW[0, 1] == 4


def test_gradients_have_the_names_of_their_weights():
    params = laid_out(Sequential(Linear(3, 4), BatchNorm(4)))
    grads = params.named_grads()
    assert list(grads) == list(params.named())
    grads["net.0.W"][...] = 2.0
    np.testing.assert_array_equal(params.grad, [2.0] * 12 + [0.0] * 12)


def test_named_and_slices_describe_theta():
    params = laid_out(Sequential(Linear(3, 4), BatchNorm(4), Maxout(4, 2, n_pieces=3)))
    named, slices = params.named(), params.slices()
    assert list(named) == ["net.0.W", "net.0.b", "net.1.gamma", "net.1.beta", "net.2.pieces.W", "net.2.pieces.b"]
    assert list(slices) == list(named)
    for name, view in named.items():
        np.testing.assert_array_equal(params.theta[slices[name]], view.ravel())
        assert np.shares_memory(params.theta, view)
    np.testing.assert_array_equal(np.concatenate([view.ravel() for view in named.values()]), params.theta)
    assert params.buffers.shape == (8,) and not any("running" in name for name in named)
    for word in ("net.0.W", "(3, 4)", "float64", f"{params.theta.size}"):
        assert word in repr(params)


def test_several_networks_lie_side_by_side_under_their_names():
    params = Parameters(Rng(0, "float64"), encoder=Linear(3, 2), decoder=Linear(2, 3))
    assert list(params.named()) == ["encoder.W", "encoder.b", "decoder.W", "decoder.b"]


def test_assigning_a_weight_is_refused_with_the_remedy():
    layer = Linear(3, 2)
    params = laid_out(layer)
    for name in ("W", "dW", "b", "db"):
        remedy = rf"layer\.{name} \+= value" if name.startswith("d") else rf"layer\.{name}\[\.\.\.\] = value"
        with pytest.raises(AttributeError, match=rf"Linear\.{name} is a view.*{remedy}"):
            setattr(layer, name, np.zeros((3, 2)))
    layer.W[...] = 2
    assert (params.theta[:6] == 2).all()
    layer.dW += np.ones((3, 2))
    layer.dW *= 3
    assert (params.grad[:6] == 3).all() and np.shares_memory(layer.dW, params.grad)


def test_other_attributes_are_free():
    layer = Linear(3, 2)
    laid_out(layer)
    layer.note = "mine"
    layer.note = "still mine"
    assert layer.note == "still mine"
    with pytest.raises(AttributeError, match="Linear has no attribute 'V'"):
        _ = layer.V


def test_reading_a_weight_too_early_is_refused_with_the_remedy():
    with pytest.raises(AttributeError, match=r"Linear\.W has no values yet: make Parameters\(rng, name=layer\) first"):
        _ = Linear(3, 2).W
    with pytest.raises(AttributeError, match="make Parameters"):
        Linear(3, 2)(np.ones((1, 3)))


def test_a_layer_without_forward_says_so():
    class Empty(Layer):
        pass

    with pytest.raises(TypeError, match=r"Empty must define forward\(self, x, rng\)"):
        Empty()(np.ones((1, 3)))


def test_a_layer_belongs_to_one_parameters():
    layer = Linear(3, 2)
    laid_out(layer)
    with pytest.raises(ValueError, match=r"Linear.*already belongs to another Parameters"):
        laid_out(Sequential(layer))
    with pytest.raises(ValueError, match="decoder"):
        Parameters(Rng(0), encoder=Linear(2, 2), decoder=layer)


def test_a_refused_parameters_leaves_the_other_layers_free():
    taken, free = Linear(3, 2), Linear(3, 2)
    laid_out(taken)
    with pytest.raises(ValueError, match="already belongs"):
        Parameters(Rng(0), free=free, taken=taken)
    laid_out(free)
    assert free.W.shape == (3, 2)


def test_a_layer_used_twice_is_laid_out_once_and_gets_both_gradients():
    shared = Linear(3, 3)
    params = laid_out(Sequential(shared, Tanh(), shared))
    assert list(params.named()) == ["net.0.W", "net.0.b"] and params.theta.size == 12

    rng = Rng(1, "float64")
    x, dy1, dy2 = (rng.normal((5, 3)) for _ in range(3))
    _, back1 = shared.forward(x, None)
    _, back2 = shared.forward(2 * x, None)
    back1(dy1)
    back2(dy2)
    np.testing.assert_allclose(shared.dW, x.T @ dy1 + 2 * x.T @ dy2, rtol=1e-12)
    np.testing.assert_allclose(shared.db, dy1.sum(axis=0) + dy2.sum(axis=0), rtol=1e-12)


def test_initial_weights_come_from_the_rng():
    def theta(seed):
        return laid_out(mlp([3, 4, 2]), seed=seed).theta

    np.testing.assert_array_equal(theta(1), theta(1))
    assert (theta(1) != theta(2)).any()


def test_zero_grad():
    layer = Linear(3, 2)
    params = laid_out(layer)
    layer.dW += 1
    params.zero_grad()
    assert not params.grad.any() and not layer.dW.any() and layer.W.any()


def test_state_lists_live_arrays():
    params = laid_out(BatchNorm(3))
    state = params.state()
    assert set(state) == {"theta", "buffers"}
    assert state["theta"] is params.theta and state["buffers"] is params.buffers


def test_cast_changes_everything_and_keeps_the_views():
    network = Sequential(Linear(3, 4), BatchNorm(4), Tanh(), Linear(4, 2))
    params = laid_out(network, "float32")
    params.grad[...] = Rng(1).normal(params.grad.shape)
    original = {name: getattr(params, name).copy() for name in ("theta", "grad", "buffers")}
    x = Rng(2).normal((5, 3))
    y = network(x)
    for dtype in ("float64", "complex128", "float32"):
        assert params.cast(dtype) is params
        for name, before in original.items():
            assert getattr(params, name).dtype == dtype
            np.testing.assert_array_equal(getattr(params, name), before)
        linear, norm = network.layers[0], network.layers[1]
        assert linear.W.dtype == linear.dW.dtype == norm.running_mean.dtype == dtype
        params.theta[1] += 1
        assert linear.W[0, 1] == params.theta[1]
        params.theta[1] = original["theta"][1]
        np.testing.assert_allclose(network(x.astype(dtype)), y, rtol=1e-4, atol=1e-5)
    assert np.shares_memory(norm.running_mean, params.buffers)


def test_buffers_are_not_trained():
    norm = BatchNorm(3)
    params = laid_out(norm)
    assert not hasattr(norm, "drunning_mean")
    assert params.theta.size == 6 and params.buffers.size == 6
    params.grad[...] = 1
    before = params.buffers.copy()
    SGD(params, lr=0.1).step()
    np.testing.assert_array_equal(params.buffers, before)


def test_layers_in_lists_and_tuples_are_found_under_different_names():
    class Two(Layer):
        def __init__(self):
            self.left, self.right = [Linear(2, 3)], (Linear(4, 5), "no layer")

    params = laid_out(Two())
    assert params.theta.size == 2 * 3 + 3 + 4 * 5 + 5
    assert sorted(view.shape for view in params.named().values()) == [(2, 3), (3,), (4, 5), (5,)]


def test_a_copy_of_a_layer_has_weights_of_its_own():
    layer = Linear(3, 2)
    twin = copy.deepcopy(layer)
    laid_out(layer, seed=0)
    laid_out(twin, seed=1)
    assert (layer.W != twin.W).any()


# Closures.


def test_stale_backward_is_refused_whatever_changed_the_weights():
    network = mlp([3, 4, 2])
    params = laid_out(network)
    x, dy = np.ones((5, 3)), np.ones((5, 2))

    def cast():
        params.cast("float64")

    for change in (SGD(params, lr=0.1).step, params.changed, cast):
        _, back = network.forward(x, None)
        back(dy)
        change()
        with pytest.raises(RuntimeError, match="weights have changed since forward: call forward again"):
            back(dy)


def test_backward_refuses_a_gradient_of_another_shape():
    network = mlp([3, 4, 2])
    laid_out(network)
    _, back = network.forward(np.ones((5, 3)), None)
    with pytest.raises(ValueError, match=r"dy of shape \(5, 1\) for an output of shape \(5, 2\)"):
        back(np.ones((5, 1)))


@EVERY_LAYER
@pytest.mark.parametrize("learning", [True, False])
def test_two_forwards_before_either_backward(example, learning):
    """Each closure keeps its own activations, mask and statistics: real and fake batch may both wait."""
    layer, x = example(Rng(0, "float64"))
    params = laid_out(layer)
    other = tuple(part[::-1] * 2 if part.dtype.kind == "f" else part[::-1].copy() for part in arrays_of(x))
    other = other if isinstance(x, tuple) else other[0]

    def noise():
        return Rng(3, "float64") if learning else None

    def gradients(after):
        params.zero_grad()
        y, back = layer.forward(x, noise())
        if after:
            layer.forward(other, Rng(4, "float64") if learning else None)
        dx = back(Rng(5, "float64").normal(y.shape))
        return params.grad.copy(), dx

    buffers = params.buffers.copy()
    grad, dx = gradients(after=False)
    params.buffers[...] = buffers
    grad_after, dx_after = gradients(after=True)
    np.testing.assert_array_equal(grad, grad_after)
    for a, b in zip(arrays_of(dx), arrays_of(dx_after)):
        np.testing.assert_array_equal(a, b)


@EVERY_LAYER
@pytest.mark.parametrize("learning", [True, False])
def test_flags_and_inputs_that_nobody_may_change(example, learning):
    layer, x = example(Rng(0, "float64"))
    params = laid_out(layer)

    def backward(**flags):
        params.zero_grad()
        kept = [part.copy() for part in arrays_of(x)]
        y, back = layer.forward(x, Rng(3, "float64") if learning else None)
        dy = Rng(5, "float64").normal(y.shape)
        y_before, dy_before = y.copy(), dy.copy()
        dx = back(dy, **flags)
        np.testing.assert_array_equal(dy, dy_before)
        np.testing.assert_array_equal(y, y_before)
        for before, part in zip(kept, arrays_of(x)):
            np.testing.assert_array_equal(part, before)
        return params.grad.copy(), dx

    theta, buffers = params.theta.copy(), params.buffers.copy()
    frozen, dx_frozen = backward(learn=False)
    assert not frozen.any()
    np.testing.assert_array_equal(params.buffers, buffers)
    grad, dx = backward()
    for a, b in zip(arrays_of(dx), arrays_of(dx_frozen)):
        np.testing.assert_array_equal(a, b)
    grad_alone, _ = backward(inputs=False)
    np.testing.assert_array_equal(grad_alone, grad)
    if params.theta.size:
        assert grad.any()
    np.testing.assert_array_equal(params.theta, theta)


@EVERY_LAYER
def test_using_is_a_plain_function(example):
    """Without an rng nothing is drawn and nothing remembered; calling the layer is forward without the closure."""
    layer, x = example(Rng(0, "float64"))
    params = laid_out(layer)
    before = params.theta.tobytes(), params.buffers.tobytes()
    y = layer.forward(x, None)[0]
    np.testing.assert_array_equal(layer(x), y)
    assert (params.theta.tobytes(), params.buffers.tobytes()) == before
    learning = layer.forward(x, Rng(1, "float64"))[0]
    np.testing.assert_array_equal(layer(x, Rng(1, "float64")), learning)
    assert params.buffers.tobytes() == before[1], "statistics move in backward, not in forward"


def test_forward_has_no_default_for_the_rng():
    """Forgetting whether to learn is an error, not a silent choice."""
    layer = Dropout(0.5)
    with pytest.raises(TypeError, match="rng"):
        layer.forward(np.ones((2, 3)))


def test_sequential_asks_every_layer_but_the_first_for_its_input_gradient():
    asked = []

    class Spy(Layer):
        def forward(self, x, rng):
            def backward(dy, learn=True, inputs=True):
                asked.append((learn, inputs))
                return dy

            return x, backward

    _, back = Sequential(Spy(), Sequential(Spy(), Spy())).forward(np.ones((2, 3)), None)
    back(np.ones((2, 3)), inputs=False)
    back(np.ones((2, 3)), learn=False)
    assert asked == [(True, True), (True, True), (True, False), (False, True), (False, True), (False, True)]


def test_and_so_in_the_double_backward():
    """Forwards with v, then backwards with what curved layers gave."""
    asked = []

    class Spy(Layer):
        def forward_twice(self, x):
            def backward(dy, learn=True, inputs=True):
                asked.append(("backward", learn, inputs))
                return dy

            def double_backward(v, learn=True, inputs=True):
                asked.append(("double", learn, inputs))
                return v, v

            return x, backward, lambda u: (u, double_backward)

    x = np.ones((2, 3))
    _, double_backward = Sequential(Spy(), Spy()).forward_twice(x)[2](x)
    double_backward(x, inputs=False)
    double_backward(x, learn=False)
    first = [("double", True, False), ("double", True, True), ("backward", True, False)]
    assert asked == [*first, ("double", False, True), ("double", False, True), ("backward", False, True)]


def test_sequential_without_layers_is_the_identity():
    y, back = Sequential().forward(np.ones((2, 3)), None)
    np.testing.assert_array_equal(y, np.ones((2, 3)))
    np.testing.assert_array_equal(back(np.full((2, 3), 2.0)), np.full((2, 3), 2.0))


# Precision.


@EVERY_LAYER
@pytest.mark.parametrize("learning", [True, False])
def test_layers_stay_in_float32(example, learning):
    rng = Rng(0, "float32")
    layer, x = example(rng)
    params = laid_out(layer, "float32")
    y, back = layer.forward(x, rng if learning else None)
    dx = back(rng.normal(y.shape))
    assert y.dtype == np.float32
    for part in arrays_of(dx):
        assert part is None or part.dtype == np.float32
    assert params.theta.dtype == params.grad.dtype == params.buffers.dtype == np.float32


EVERY_LOSS = [f for _, f in inspect.getmembers(losses, inspect.isfunction) if hasattr(f, "example")]


@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_losses_stay_in_float32(loss):
    value, *gradients = loss(*loss.example(Rng(0, "float32")))
    assert value.dtype == np.float32 and value.shape == ()
    assert [gradient.dtype for gradient in gradients] == [np.float32] * len(gradients)


def test_integer_inputs_do_not_raise_the_precision():
    labels, logits = np.array([0, 2]), Rng(0).normal((2, 3))
    value, gradient = losses.softmax_cross_entropy(logits, labels)
    assert value.dtype == gradient.dtype == np.float32
    assert losses.bernoulli_nll(logits, np.ones((2, 3), np.int64))[1].dtype == np.float32
    times = TimeEmbedding(4)
    laid_out(times, "float32")
    assert times(np.array([1, 2, 3])).dtype == np.float32
    assert one_hot(labels, 3, logits.dtype).dtype == np.float32


def test_samples_stay_in_float32():
    rng = Rng(0, "float32")
    z, back = reparameterize(rng.normal((3, 4)), rng.normal((3, 4)), rng)
    assert [part.dtype for part in (z, *back(z))] == [np.float32] * 3
    (mu, log_var), back = gaussian_head(20 * rng.normal((3, 8)))
    assert [part.dtype for part in (mu, log_var, back((mu, log_var)))] == [np.float32] * 3


class Rounded(Rng):
    """The noise of the float64 stream rounded to float32, so that both precisions see the same."""

    def __init__(self, seed):
        super().__init__(seed, "float32")
        self.double = Rng(seed, "float64")

    def normal(self, shape):
        return self.double.normal(shape).astype("float32")

    def uniform(self, shape):
        return self.double.uniform(shape).astype("float32")


@EVERY_LAYER
@pytest.mark.parametrize("learning", [True, False])
def test_float32_gradients_agree_with_float64(example, learning):
    layer, x = example(Rng(0, "float64"))
    params = laid_out(layer)
    buffers = params.buffers.copy()

    def gradients(dtype, noise):
        params.cast(dtype)
        params.buffers[...] = buffers
        params.zero_grad()
        parts = [part.astype(dtype) if part.dtype.kind == "f" else part for part in arrays_of(x)]
        y, back = layer.forward(tuple(parts) if isinstance(x, tuple) else parts[0], noise if learning else None)
        dx = back(Rng(5, "float64").normal(y.shape).astype(dtype))
        return [y, *arrays_of(dx), *(params.grad[where].copy() for where in params.slices().values())]

    exact, single = gradients("float64", Rng(3, "float64")), gradients("float32", Rounded(3))
    largest = max(np.abs(a).max() for a in exact if a is not None)
    for a, b in zip(exact, single):
        if a is not None:
            assert b.dtype == np.float32
            assert np.abs(a - b).max() <= 1e-5 * max(np.abs(a).max(), 0.01 * largest)  # a bias before BatchNorm has 0


@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_float32_losses_agree_with_float64(loss):
    arrays = loss.example(Rng(0, "float64"))
    single = [a.astype("float32") if getattr(a, "dtype", None) == "float64" else a for a in arrays]
    for a, b in zip(loss(*arrays), loss(*single)):
        assert b.dtype == np.float32
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


# What does not fit is refused, naming both shapes.


@pytest.mark.parametrize("layer", [Linear(3, 2), BatchNorm(3), LayerNorm(3), RunningMoments(3), Maxout(3, 2)])
@pytest.mark.parametrize("shape", [(5, 4), (3,), (2, 5, 3)])
def test_inputs_of_another_width_are_refused(layer, shape):
    layer = copy.deepcopy(layer)
    laid_out(layer)
    with pytest.raises(ValueError) as error:
        layer(np.ones(shape))
    assert str(shape) in str(error.value) and "(B, 3)" in str(error.value)


def test_other_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 2\), expected \(B, n\) and \(B, m\)"):
        Concat()((np.ones((4, 3)), np.ones((5, 2))))
    for pair in ((np.ones(4), np.ones((4, 2))), (np.ones((4, 3)), np.ones(4))):
        with pytest.raises(ValueError, match=r"expected \(B, n\) and \(B, m\)"):
            Concat()(pair)
    body = Residual(Linear(3, 2))
    laid_out(body)
    with pytest.raises(ValueError, match=r"\(4, 3\) into \(4, 2\)"):
        body(np.ones((4, 3)))
    times = TimeEmbedding(4)
    laid_out(times)
    with pytest.raises(ValueError, match=r"\(4, 1\), expected \(B,\)"):
        times(np.ones((4, 1)))
    norm = BatchNorm(3)
    laid_out(norm)
    with pytest.raises(ValueError, match=r"batch of one: input of shape \(1, 3\)"):
        norm(np.ones((1, 3)), Rng(0))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 4], r"0 \.\.\. 3, got 0 \.\.\. 4"),
        ([-1, 2], r"got -1 \.\.\. 2"),
        ([[1], [2]], r"\(2, 1\), expected \(B,\)"),
    ],
)
def test_labels_that_do_not_fit(labels, said):
    layer = Embedding(4, 2)
    laid_out(layer)
    with pytest.raises(ValueError, match=said):
        layer(np.array(labels))


@pytest.mark.parametrize("make", [lambda: mlp([3]), lambda: mlp([3, 0, 2]), lambda: mlp([])])
def test_sizes_of_an_mlp_that_make_no_sense(make):
    with pytest.raises(ValueError, match="two or more positive sizes"):
        make()


def test_mlp_puts_its_parts_in_order():
    network = mlp([3, 5, 4, 2], ReLU, norm=LayerNorm, dropout=0.1)
    names = [type(layer).__name__ for layer in network.layers]
    assert names == ["Linear", "LayerNorm", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in mlp([3, 2]).layers] == ["Linear"]


def test_weights_of_any_shape():
    class Odd(Layer):
        def __init__(self):
            self.scalar, self.cube, self.none = Weight((), ones), Weight((2, 3, 4), ones), Weight((0, 3))

    layer = Odd()
    params = laid_out(layer)
    assert params.theta.shape == (25,)
    assert layer.scalar.shape == () and layer.cube.shape == (2, 3, 4) and layer.none.shape == (0, 3)
    layer.dscalar += 2
    assert params.grad[0] == 2


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_sizes_may_be_numpys_integers(kind):
    layer = Linear(kind(200), kind(200))
    params = Parameters(Rng(kind(3)), layer=layer)
    assert layer.W.shape == (200, 200) and params.theta.size == 200 * 200 + 200


@pytest.mark.parametrize("seed", [-1, 1.0, None, "1", (1, -2), (1, None), np.array([1.5])])
def test_a_seed_that_is_none_is_one_line(seed):
    with pytest.raises(UsageError, match=r"^seed .* expected a whole number >= 0, or a tuple of them$"):
        Rng(seed)
