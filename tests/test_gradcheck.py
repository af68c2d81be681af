"""The public checker on a learner's own code: it passes what is right, catches what is wrong with a line that helps, and
leaves the weights as it found them."""

import numpy as np
import pytest

from scratchgen import Layer, Parameters, Rng, Sequential, Weight, check_layer, check_loss, gradcheck, stop
from scratchgen.activations import ReLU, Tanh
from scratchgen.embeddings import Concat
from scratchgen.initialisers import he, ones
from scratchgen.layers import Dropout, Linear, mlp
from scratchgen.losses import bernoulli_nll, squared_error
from scratchgen.norms import BatchNorm
from scratchgen.optim import SGD

F64 = "float64"


class Swish(Layer):
    """What a learner might write: y = x s, s = sigmoid(β x), β trained, one for each feature."""

    def __init__(self, n):
        self.beta = Weight((n,), ones)

    def forward(self, x, rng):
        s = 1 / (1 + np.exp(-self.beta * x))
        y = x * s

        def backward(dy, learn=True, inputs=True):
            if learn:
                self.dbeta += (dy * x * y * (1 - s)).sum(axis=0)
            if inputs:
                return dy * (s + self.beta * y * (1 - s))

        return y, backward


def regression(params, network, dropout_seed=0, dtype=F64):
    """An objective: squared error of a network on fixed data."""
    rng = Rng(5, dtype)
    x, target = rng.normal((6, 3)), rng.normal((6, 2))

    def objective():
        params.zero_grad()
        y, back = network.forward(x, Rng(dropout_seed, dtype))
        value, dy = squared_error(y, target)
        back(dy)
        return value

    return objective


def small_network(dtype=F64):
    network = mlp([3, 4, 2], Tanh, norm=BatchNorm, dropout=0.3)
    return Parameters(Rng(0, dtype), network=network), network


# What is right passes.


def test_three_lines_check_a_learners_layer():
    report = check_layer(Swish(5), (4, 5))
    assert report, report
    assert report.method == "complex-step" and report.error <= 1e-12


def test_a_learners_layer_by_central_differences():
    report = check_layer(Swish(5), (4, 5), method="central")
    assert report and report.method == "central" and 1e-15 < report.error <= 1e-6


def test_a_learners_layer_inside_a_network():
    assert check_layer(Sequential(Linear(3, 4), Swish(4), Linear(4, 2)), (5, 3)).error <= 1e-12


def test_a_whole_objective():
    params, network = small_network()
    report = gradcheck(regression(params, network), params)
    assert report and report.error <= 1e-12


@pytest.mark.parametrize("method", ["auto", "complex-step", "central"])
@pytest.mark.parametrize("mode", ["auto", "entries", "directions"])
def test_every_method_and_mode_passes_the_right_and_fails_the_wrong(method, mode):
    params, network = small_network()
    objective = regression(params, network)

    def wrong():
        value = objective()
        network.layers[0].dW[1, 2] *= 1.01
        return value

    assert gradcheck(objective, params, method=method, mode=mode)
    report = gradcheck(wrong, params, method=method, mode=mode)
    assert not report
    assert report.parameter == "network.0.W"
    assert report.index == ((1, 2) if mode != "directions" else ())
    assert report.method == ("central" if method == "central" else "complex-step")


def test_several_inputs_and_integer_inputs():
    rng = Rng(0, F64)
    assert check_layer(Concat(), (rng.normal((4, 3)), rng.normal((4, 2))))


def test_float32_arrays_are_checked_in_double_precision():
    rng = Rng(0, "float32")
    assert check_layer(Linear(3, 2), rng.normal((4, 3))).error <= 1e-12
    assert check_loss(squared_error, rng.normal((4, 3)), rng.normal((4, 3))).error <= 1e-12
    params, network = small_network("float32")
    assert gradcheck(regression(params, network, dtype="float32"), params).error <= 1e-12


def test_other_parameters_take_part_when_named():
    rng = Rng(0, F64)
    G, D = Linear(2, 3), Sequential(Linear(3, 4), Tanh(), Linear(4, 1))
    params_G, params_D = Parameters(rng, G=G), Parameters(rng, D=D)
    noise = rng.normal((5, 2))

    def generator_loss():
        fake, back_G = G.forward(noise, None)
        score, back_D = D.forward(fake, None)
        back_G(back_D(np.full_like(score, -1 / len(score)), learn=False))
        return -score.sum() / len(score)

    report = gradcheck(generator_loss, params_G, together=[params_D])
    assert report and report.error <= 1e-12


# Preconditions: what makes a comparison worthless is said, in words.


def checked(objective, **options):
    """gradcheck of objective(layer) for one small Linear, whose gradient is zeroed first."""
    layer = Linear(3, 2)
    params = Parameters(Rng(0, F64), layer=layer)
    return gradcheck(lambda: objective(layer, params), params, **options)


def run(layer, x, w=1.0):
    y, back = layer.forward(x, None)
    back(np.full_like(y, w))
    return w * y.sum()


def test_fresh_noise_between_two_calls():
    stream = Rng(0, F64)
    report = checked(lambda layer, params: run(layer, stream.normal((4, 3))))
    assert not report
    assert report.problem == "two calls differ: make the Rng inside the objective, so that both draw the same noise"
    assert "two calls differ" in str(report)


def test_fresh_noise_that_the_gradient_does_not_show():
    stream = Rng(0, F64)
    report = checked(lambda layer, params: run(layer, np.ones((4, 3))) + stream.normal(()))
    assert not report and "two calls differ" in report.problem


def test_running_statistics_that_move_are_no_fresh_noise():
    """Each evaluation starts from the same buffers, although backward moves them."""
    norm = BatchNorm(3)
    params = Parameters(Rng(0, F64), norm=norm)
    x = 2 + Rng(1, F64).normal((5, 3))

    def objective():
        value = 0
        for rng in (None, Rng(2, F64)):  # first by the running statistics, then learning, which moves them
            y, back = norm.forward(x, rng)
            part, dy = squared_error(y, x)
            back(dy)
            value += part
        return value

    report = gradcheck(objective, params)
    assert report and report.error <= 1e-12


def test_an_objective_that_steps_an_optimizer():
    def objective(layer, params):
        value = run(layer, Rng(0, F64).normal((4, 3)))
        SGD(params, lr=0.1).step()
        return value

    report = checked(objective)
    assert not report and report.problem == "the objective changed the weights: it must not step an optimizer"


def test_zero_gradient():
    report = checked(lambda layer, params: layer(np.ones((4, 3))).sum())  # backward forgotten
    assert not report and "zero everywhere" in report.problem


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_value_or_gradient_that_is_not_finite(bad):
    def bad_gradient(layer, params):
        value = run(layer, np.ones((4, 3)))
        params.grad[1] = bad
        return value

    report = checked(lambda layer, params: run(layer, np.ones((4, 3))) + bad)
    assert not report and report.problem == f"the value is {bad}"
    report = checked(bad_gradient)
    assert not report and report.problem == "the analytic gradient is not finite"


@pytest.mark.parametrize("wrong", ["a", "b"])
@pytest.mark.parametrize("mode", ["entries", "directions"])
def test_a_numeric_derivative_that_is_not_a_number_never_passes(wrong, mode):
    """A value that exists at the weights but not beside them, in one tensor of two: nan, whichever comes first."""

    class Pair(Layer):
        def __init__(self):
            self.a, self.b = Weight((2,), ones), Weight((2,), ones)

    layer, start = Pair(), []
    params = Parameters(Rng(0, F64), layer=layer)

    def objective():
        start.append(getattr(layer, wrong).copy())
        layer.da[...] = 2 * layer.a
        layer.db[...] = 2 * layer.b
        beside = np.any(getattr(layer, wrong) != start[0])
        return (layer.a**2).sum() + (layer.b**2).sum() + (np.nan if beside else 0)

    report = gradcheck(objective, params, method="central", mode=mode)
    assert not report
    assert np.isnan(report.numeric)


def test_an_objective_that_returns_an_array_is_an_error_that_names_the_shape():
    with pytest.raises(ValueError, match=r"must return one number.*\(4,\)"):
        checked(lambda layer, params: layer(np.ones((4, 3))).sum(axis=1))
    with pytest.raises(ValueError, match=r"must return one number.*\(5, 3\)"):
        check_loss(lambda x: (x * x, 2 * x), np.ones((5, 3)))


@pytest.mark.parametrize("option", [{"method": "autograd"}, {"mode": "some"}])
def test_unknown_options(option):
    with pytest.raises(ValueError, match=next(iter(option.values()))):
        check_layer(Linear(2, 2), (3, 2), **option)


def test_a_loss_that_returns_no_tuple_or_too_much():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match="value, gradients"):
        check_loss(lambda x: (x * x).sum(), x)
    with pytest.raises(ValueError, match="value, gradients"):
        check_loss(lambda x: ((x * x).sum(), 2 * x, x), x)
    report = check_loss(lambda x: ((x * x).sum(), (2 * x).sum(axis=0)), x)
    assert not report and report.problem == "gradient 0 has shape (3,), its array (2, 3)"


# Forward passes that complex numbers do not survive.


class AbsLayer(Layer):
    """y = |x| by a function that drops the imaginary part, or refuses complex numbers."""

    def __init__(self, absolute, wrong=1.0):
        self.absolute, self.wrong = absolute, wrong

    def forward(self, x, rng):
        return self.absolute(x), lambda dy, learn=True, inputs=True: self.wrong * dy * np.sign(x.real)


def test_abs_is_reported_with_the_likely_reason():
    report = check_layer(AbsLayer(np.abs), (4, 3))
    assert not report
    assert "a central difference agrees" in report.problem and "abs" in report.problem
    assert "loses its imaginary part" in report.hint()
    assert check_layer(AbsLayer(np.abs), (4, 3), method="central"), "the remedy"
    assert check_layer(AbsLayer(lambda x: np.maximum(x, -x)), (4, 3)), "the better remedy"


def lossy(x):
    y = np.empty(x.shape)
    y[...] = x  # a ComplexWarning where x is complex
    return np.maximum(y, -y)


@pytest.mark.parametrize("absolute", [np.fabs, lossy])
def test_functions_that_refuse_complex_numbers_fall_back_to_central_differences(absolute):
    report = check_layer(AbsLayer(absolute), (4, 3))
    assert report and report.method == "central"
    assert "the complex step is not possible" in report.problem
    assert not check_layer(AbsLayer(absolute, wrong=1.01), (4, 3))
    with pytest.raises((TypeError, np.exceptions.ComplexWarning)):
        check_layer(AbsLayer(absolute), (4, 3), method="complex-step")


def test_a_gradient_wrong_with_its_complex_step_is_caught_by_the_cross_check():
    """Value and gradient both treat |x| as a constant in x·|x|: the complex step agrees, a real step does not."""

    class Both(Layer):
        def forward(self, x, rng):
            size = np.abs(x)
            return x * size, lambda dy, learn=True, inputs=True: dy * size

    report = check_layer(Both(), (4, 3))
    assert not report and report.error <= 1e-12
    assert "central difference is" in report.problem
    assert check_layer(Both(), (4, 3), cross_check=False), "so this is what cross_check=False gives up"


def test_stop_in_a_value_passes_without_the_cross_check():
    """A straight-through estimator: y = z + sg[round(z) - z], whose gradient is that of z by definition."""
    layer = Linear(3, 2)
    params = Parameters(Rng(0, F64), layer=layer)
    x, target = Rng(1, F64).normal((4, 3)), Rng(2, F64).normal((4, 2))

    def objective():
        z, back = layer.forward(x, None)
        value, dy = squared_error(z + stop(np.round(z.real) - z), target)
        back(dy)
        return value

    report = gradcheck(objective, params, cross_check=False)
    assert report and report.error <= 1e-12
    assert not gradcheck(objective, params), "a central difference sees the steps of round"


# A backward that breaks the contract, its numbers right or not.


class Slip(Layer):
    """Linear with one slip against the contract."""

    def __init__(self, slip, n_in=3, n_out=2):
        self.slip = slip
        self.W, self.b = Weight((n_in, n_out), he), Weight((n_out,))
        self.seen = Weight((1,), learned=False)

    def forward(self, x, rng):
        y = x @ self.W + self.b

        def backward(dy, learn=True, inputs=True):
            if learn or self.slip == "ignores learn":
                self.db += dy.sum(axis=0)
                if self.slip == "overwrites":
                    self.dW[...] = x.T @ dy
                else:
                    self.dW += x.T @ dy
            if self.slip == "buffer moves":
                self.seen += 1
            dx = dy @ self.W.T
            if self.slip == "changes dy":
                dy *= 2
            return dx.sum(axis=0) if self.slip == "dx summed" else dx[:1] if self.slip == "one dx" else dx

        return y, backward


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ("overwrites", "backward overwrites dW: it must add"),
        ("ignores learn", "backward(learn=False) changes dW or a buffer"),
        ("buffer moves", "backward(learn=False) changes dW or a buffer"),
        ("changes dy", "backward changed dy"),
        ("dx summed", "backward returned dx of shape (3,) for x (4, 3)"),
        ("one dx", "backward returned dx of shape (1, 3) for x (4, 3)"),
    ],
)
def test_broken_contract_is_named(slip, said):
    report = check_layer(Slip(slip), (4, 3))
    assert not report
    assert said in str(report)


def test_kept_contract_passes():
    assert check_layer(Slip(""), (4, 3))


def test_inputs_false_must_still_learn():
    """The first layer of every network is called so; one that then learns nothing must not pass."""

    class Lazy(Slip):
        def forward(self, x, rng):
            y, back = super().forward(x, rng)
            return y, lambda dy, learn=True, inputs=True: back(dy, learn and inputs, inputs)

    assert not check_layer(Lazy(""), (4, 3))


@pytest.mark.parametrize("wrong_when", ["learning", "using"])
def test_a_layer_wrong_in_one_mode_only_is_caught_in_that_mode(wrong_when):
    class Half(Layer):
        def forward(self, x, rng):
            factor = 1.5 if (rng is None) == (wrong_when == "using") else 1
            return 3 * x, lambda dy, learn=True, inputs=True: 3 * factor * dy

    report = check_layer(Half(), (4, 3))
    assert not report and report.name == f"Half ({wrong_when})"


def test_a_layer_that_changes_its_input_is_caught():
    class InPlace(Layer):
        def forward(self, x, rng):
            x *= 2
            return x, lambda dy, learn=True, inputs=True: 2 * dy

    assert not check_layer(InPlace(), (4, 3))


def test_the_layer_given_stays_free():
    layer = Linear(3, 2)
    check_layer(layer, (4, 3))
    assert layer.params is None
    Parameters(Rng(0, F64), layer=layer)


# Directions: thousands of weights at the price of a few evaluations.


def test_directions_see_one_entry_of_100_000_that_is_1_percent_off():
    layer = Linear(400, 256)
    params = Parameters(Rng(0, F64), layer=layer)
    assert params.theta.size > 100_000
    x, target = Rng(1, F64).normal((4, 400)), Rng(2, F64).uniform((4, 256))
    calls = []

    def objective(factor):
        calls.append(1)
        y, back = layer.forward(x, None)
        value, dy = bernoulli_nll(y, target)
        back(dy)
        layer.dW[37, 101] *= factor
        return value

    report = gradcheck(lambda: objective(1), params)
    assert report and report.error < 1e-13
    assert len(calls) < 20
    report = gradcheck(lambda: objective(1.01), params)
    assert not report and report.error > 1e-8
    assert report.parameter == "layer.W" and "along a direction in layer.W" in str(report)


# Everything is put back.


@pytest.mark.parametrize("dtype", ["float32", F64])
@pytest.mark.parametrize("method", ["auto", "complex-step", "central"])
def test_weights_gradients_buffers_and_precision_are_restored_bit_for_bit(dtype, method):
    params, network = small_network(dtype)
    params.grad[...] = Rng(3, dtype).normal(params.grad.shape)
    params.buffers += Rng(4, dtype).uniform(params.buffers.shape)
    before = {name: getattr(params, name).copy() for name in ("theta", "grad", "buffers")}
    assert gradcheck(regression(params, network, dtype=dtype), params, method=method)
    for name, array in before.items():
        after = getattr(params, name)
        assert after.dtype == dtype and after.tobytes() == array.tobytes(), name
    assert np.shares_memory(network.layers[0].W, params.theta) and np.shares_memory(network.layers[0].dW, params.grad)
    assert np.shares_memory(network.layers[1].running_mean, params.buffers)


def test_weights_are_restored_when_the_objective_fails():
    params, network = small_network("float32")
    before, calls = params.theta.tobytes(), []

    def objective():
        calls.append(1)
        if len(calls) > 2:
            raise KeyError("a bug of the learner's")
        return regression(params, network, dtype="float32")()

    with pytest.raises(KeyError, match="learner"):
        gradcheck(objective, params)
    assert params.theta.dtype == np.float32 and params.theta.tobytes() == before


# Places where the check itself must not be at fault.


def test_dead_units_at_the_kink_are_no_false_alarm():
    """Zero biases behind dead units put pre-activations at exactly 0, where ReLU has no derivative."""
    network = Sequential(Linear(3, 4, lambda rng, shape, fan_in: rng.zeros(shape)), ReLU(), Linear(4, 2))
    params = Parameters(Rng(0, F64), network=network)
    for seed in range(5):
        assert gradcheck(regression(params, network), params, seed=seed)


def test_small_running_variances_are_no_false_alarm():
    """A trained BatchNorm may hold tiny variances; the checker's own disturbance must not make them negative."""
    norm = BatchNorm(8)
    params = Parameters(Rng(0, F64), norm=norm)
    norm.running_variance[...] = 1e-3
    x = 0.03 * Rng(1, F64).normal((5, 8))

    def objective():
        y, back = norm.forward(x, None)
        value, dy = squared_error(y, np.ones_like(y))
        back(dy)
        return value

    for seed in range(5):
        report = gradcheck(objective, params, seed=seed)
        assert report, report


def test_weights_of_two_lists_are_all_checked():
    """A layer with two lists of layers: no name may hide another, or a wrong gradient is never looked at."""

    class TwoHeads(Layer):
        def __init__(self, wrong):
            self.left, self.right, self.wrong = [Linear(3, 2)], [Linear(3, 2)], wrong

        def forward(self, x, rng):
            y1, back1 = self.left[0].forward(x, rng)
            y2, back2 = self.right[0].forward(x, rng)

            def backward(dy, learn=True, inputs=True):
                dx = back1(dy, learn) + back2(dy, learn)
                self.left[0].dW[...] *= self.wrong
                return dx

            return y1 + y2, backward

    layer = TwoHeads(1.0)
    params = Parameters(Rng(0, F64), net=layer)
    assert sum(view.size for view in params.named().values()) == params.theta.size
    wrong = TwoHeads(2.0)
    params = Parameters(Rng(0, F64), net=wrong)
    x = Rng(1, F64).normal((4, 3))

    def objective():
        y, back = wrong.forward(x, None)
        value, dy = squared_error(y, np.ones_like(y))
        back(dy)
        return value

    assert not gradcheck(objective, params, cross_check=False)


def test_dropout_is_checked_with_its_mask_held():
    assert check_layer(Dropout(0.5), (6, 5), seed=3)
