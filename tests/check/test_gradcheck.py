"""The public checker on a learner's own code: it passes what is right, catches what is wrong with a line that helps, and
leaves the weights as it found them."""

import numpy as np
import pytest

from scratchgen import Layer, Parameters, Rng, Sequential, Weight, check_layer, check_loss, gradcheck, stop
from scratchgen.nn.activations import ReLU, Tanh
from scratchgen.nn.embeddings import Concat
from scratchgen.nn.initialisers import he, ones
from scratchgen.nn.layers import Dropout, Linear, mlp
from scratchgen.nn.losses import bernoulli_nll, squared_error
from scratchgen.nn.norms import BatchNorm
from scratchgen.nn.optim import SGD

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
    assert not report and report.problem == f"the analytic gradient is not finite: layer.W[0, 1] is {bad}"


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
    assert not report and report.problem == "gradient 0 has shape (3,), but its array has (2, 3)"


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
    y = np.empty(x.shape, x.real.dtype)
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
    assert "second opinion (a central difference along one random direction): numeric" in report.problem
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


# Layers that work alone and fail in a network: what they keep on self belongs to whoever ran last.


def with_backward(f):
    """f(dy) as a backward."""
    return lambda dy, learn=True, inputs=True: f(dy)


class Plain(Layer):
    """A layer of one function: f(x) -> y, backward."""

    def __init__(self, f):
        self.f = f

    def forward(self, x, rng):
        return self.f(x)


class KeepsInput(Layer):
    def __init__(self):
        self.W = Weight((3, 2), he)

    def forward(self, x, rng):
        self.x = x
        return x @ self.W, self.back

    def back(self, dy, learn=True, inputs=True):
        if learn:
            self.dW += self.x.T @ dy
        return dy @ self.W.T


class KeepsMask(Layer):
    def forward(self, x, rng):
        self.mask = x > 0
        return x * self.mask, with_backward(lambda dy: dy * self.mask)


class KeepsOutput(Layer):
    def forward(self, x, rng):
        self.y = np.tanh(x)
        return self.y, with_backward(lambda dy: dy * (1 - self.y * self.y))


class KeepsStatistics(Layer):
    """The spread over the batch, which is the same for the same rows in another order."""

    def forward(self, x, rng):
        c = x - x.mean(axis=0)
        self.s = np.sqrt((c * c).mean(axis=0) + 1e-5)
        x_hat = c / self.s
        return x_hat, with_backward(
            lambda dy: (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0)) / self.s  # as BatchNorm
        )


class KeepsNoise(Layer):
    def forward(self, x, rng):
        if rng is None:
            return x, with_backward(lambda dy: dy)
        self.keep = (rng.uniform(x.shape) < 0.5).astype(rng.real)
        return x * self.keep, with_backward(lambda dy: dy * self.keep)


class KeepsPair(Layer):
    def forward(self, x, rng):
        self.a, self.b = x
        return self.a * self.b, with_backward(lambda dy: (dy * self.b, dy * self.a))


class KeepsWhenUsing(Layer):
    def forward(self, x, rng):
        mine = x
        if rng is None:
            self.x = x
        return x * x, with_backward(lambda dy: 2 * dy * (mine if rng else self.x))


KEEPERS = [KeepsInput, KeepsMask, KeepsOutput, KeepsStatistics, KeepsNoise, KeepsPair, KeepsWhenUsing]


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_layer_that_keeps_something_on_self_is_told_so(keeper, batch):
    if keeper is KeepsStatistics and batch == 1:
        batch = 3  # one row has no spread
    x = Rng(0, F64).uniform((batch, 3)) + 0.5  # all above 0, as pictures are
    report = check_layer(keeper(), (x, x + 1) if keeper is KeepsPair else x, seed=1)
    assert not report
    assert "backward uses what a later forward left on self: keep it in the closure" in str(report)


def test_a_buffer_on_self_that_the_next_output_overwrites_is_caught():
    class Reuses(Layer):
        out = None

        def forward(self, x, rng):
            if self.out is None or self.out.dtype != x.dtype:
                self.out = np.empty_like(x)
            self.out[...] = 2 * x
            return self.out, with_backward(lambda dy: 2 * dy)

    report = check_layer(Reuses(), (4, 3))
    assert not report and "a later forward changed the output of an earlier one" in str(report)


# Inputs that have no gradient are named, passed or not.


@pytest.mark.parametrize(
    ("dtype", "said"),
    [("int64", "whole numbers (int64)"), ("uint8", "whole numbers (uint8)"), ("bool", "truth values")],
)
def test_whole_numbers_are_held_fixed_and_the_report_says_so(dtype, said):
    x = np.array([[1, 0, 1], [1, 1, 0]], dtype)
    report = check_layer(Linear(3, 2), x)
    assert report and f"x0 is not checked: {said}" in str(report)
    report = check_layer(Plain(lambda x: (2.0 * x, with_backward(lambda dy: 7 * dy))), x)
    assert not report and f"nothing to check: x0 is not checked: {said}" in str(report)


def test_whole_numbers_with_a_gradient_in_a_loss_are_checked_as_floats():
    def loss(x, t, factor=1):
        return ((x - t) ** 2).sum(), 2 * (x - t), factor * 2 * (t - x)

    x, t = Rng(0, F64).normal((4,)), np.arange(4)
    report = check_loss(loss, x, t)
    assert report and "x1 is made of whole numbers (int64)" in str(report)
    assert check_loss(lambda x, t: loss(x, t, 7), x, t).wrong == ("input.x1",)
    report = check_loss(lambda x, i: (x[i].sum(), np.bincount(i, minlength=4) + 0 * x, 0 * i), x, np.array([1, 1, 3]))
    assert report and "x1 is not checked: whole numbers (int64)" in str(report), "indices cannot be floats"


# Precision.


def scaled_by(number):
    return Plain(lambda x: (x * number, with_backward(lambda dy: dy * number)))


def test_a_layer_that_turns_float32_into_float64_is_told_so():
    report = check_layer(scaled_by(np.sqrt(3)), (4, 3))
    assert not report and "forward returns float64 for float32 inputs: " in str(report)
    report = check_layer(Plain(lambda x: (2 * x, with_backward(lambda dy: dy * np.float64(2)))), (4, 3))
    assert not report and "backward returns float64 for float32 inputs: " in str(report)
    assert check_layer(scaled_by(float(np.sqrt(3))), (4, 3))
    assert check_layer(scaled_by(np.sqrt(3, dtype=np.float32).item()), Rng(0, "float32").normal((4, 3)))


def test_a_layer_that_refuses_float32_passes_with_a_remark():
    def double_only(x):
        assert x.dtype != np.float32, "float64, please"
        return x * x, with_backward(lambda dy: 2 * x * dy)

    report = check_layer(Plain(double_only), (4, 3))
    assert report and "it does not run in float32: AssertionError: float64, please" in str(report)


def rounded_inside(x):
    buffer = np.zeros(x.shape, np.float32)
    buffer[...] = 3 * x
    return 1.0 * buffer if x.dtype == np.float32 else np.float64(1) * buffer


SINGLE = {
    "a buffer": lambda x: np.maximum(x, 0).astype(np.float32),  # kinks, too
    "a buffer and double outputs": rounded_inside,
    "complex64 as well": lambda x: (x * x).astype(np.complex64 if x.dtype.kind == "c" else np.float32),
}
SLOPES = {"a buffer": lambda x: x > 0, "a buffer and double outputs": lambda x: 3, "complex64 as well": lambda x: 2 * x}


@pytest.mark.parametrize("kind", SINGLE)
def test_a_right_gradient_of_a_forward_in_single_precision_passes_and_the_report_says_so(kind):
    def layer(wrong):
        return Plain(lambda x: (SINGLE[kind](x), with_backward(lambda dy: wrong * dy * SLOPES[kind](x))))

    report = check_layer(layer(1), (20, 15))
    assert report, report
    assert "computes in single precision (float32" in str(report)
    report = check_layer(layer(2), (20, 15))
    assert not report and "twice too large" in str(report) and "single precision" in str(report)


def test_a_gradient_rounded_to_float32_passes_with_a_remark():
    report = check_layer(Plain(lambda x: (x * x, with_backward(lambda dy: (2 * x * dy).astype(np.float32)))), (4, 3))
    assert report and 1e-9 < report.error < 1e-6 and "single precision" in str(report)
    report = check_loss(lambda a: (np.float32((a * a).sum()), 2 * a), Rng(0, F64).normal((4, 3)))
    assert report and "single precision" in str(report)


def test_float32_targets_of_a_loss_cost_no_digits():
    targets = Rng(1, "float32").uniform((4, 6)) * np.float32(0.9)
    assert check_loss(bernoulli_nll, Rng(0, F64).normal((4, 6)), targets).error <= 1e-12


def test_an_error_as_small_as_float32_rounding_is_called_that():
    layer = Linear(6, 6)
    params, x = Parameters(Rng(0, F64), layer=layer), Rng(1, F64).normal((4, 6))
    targets = Rng(2, "float32").uniform((4, 6)) * np.float32(0.9)

    def objective():
        params.zero_grad()
        logits, back = layer.forward(x, None)
        value, d = bernoulli_nll(logits, targets)
        back(d)
        return value

    report = gradcheck(objective, params)
    assert not report and "rounding to float32 leaves such errors" in str(report) and "abs" not in str(report)


# Weights that start at 0 and stay there.


def nothing(rng, shape, fan_in):
    return rng.zeros(shape)


def test_two_layers_that_both_start_at_zero_are_told_that_they_never_learn():
    report = check_layer(Sequential(Linear(3, 4, nothing), Tanh(), Linear(4, 2, nothing)), (5, 3))
    assert report and report.error <= 1e-12
    assert "layer.0.W, layer.0.b, layer.2.W have gradient 0 at the initial weights" in str(report)
    assert "input" not in str(report)


def test_a_bias_whose_gradient_is_zero_for_a_while_is_no_dead_layer():
    """Two scores of a hinge loss, both within the hinge: +1 and -1 for the bias, whatever it learns at first."""
    layer = Linear(3, 1)
    params, x = Parameters(Rng(0, F64), layer=layer), 0.01 * Rng(1, F64).normal((2, 3))
    signs = np.array([[1.0], [-1.0]])

    def hinge_loss():
        params.zero_grad()
        y, back = layer.forward(x, None)
        inside = signs * y < 0.05
        back(-signs * inside)
        return (inside * (0.05 - signs * y)).sum() + 0 * y.sum()

    for seed in range(20):
        assert "never learn" not in str(gradcheck(hinge_loss, params, seed=seed))


@pytest.mark.parametrize("first", [True, False])
def test_one_layer_that_starts_at_zero_learns(first):
    inits = (nothing, he) if first else (he, nothing)
    layer = Sequential(Linear(3, 4, inits[0]), Tanh(), Linear(4, 2, inits[1]))
    assert "gradient 0" not in str(check_layer(layer, (5, 3)))


# Functions with a domain.


FUNCTIONS = {
    "log": (np.log, lambda x: 1 / x),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "arctanh": (np.arctanh, lambda x: 1 / (1 - x * x)),
    "logit": (lambda x: np.log(x / (1 - x)), lambda x: 1 / (x * (1 - x))),
}


@pytest.mark.parametrize("method", ["auto", "central"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_stay_where_the_caller_put_them(name, method):
    f, slope = FUNCTIONS[name]
    layer = Plain(lambda x: (f(x), with_backward(lambda dy: dy * slope(x))))
    x = np.array([[1e-6, 0.02, 0.4], [0.3, 0.97, 0.999]])
    assert check_layer(layer, x, method=method)
    assert check_loss(lambda x: (f(x).sum(), slope(x)), x, method=method)
    assert not check_loss(lambda x: (f(x).sum(), 1.01 * slope(x)), x, method=method)


class LogScale(Layer):
    """y = x log a, for weights a > 0."""

    def __init__(self, start):
        self.a = Weight((3,), lambda rng, shape, fan_in: rng.zeros(shape) + start)

    def forward(self, x, rng):
        assert (self.a.real > 0).all(), "a must be positive"
        log_a = np.log(self.a)

        def backward(dy, learn=True, inputs=True):
            if learn:
                self.da += (dy * x).sum(axis=0) / self.a
            return dy * log_a

        return x * log_a, backward


@pytest.mark.parametrize("start", [1.0, 0.01])
def test_weights_with_a_domain_are_moved_only_where_that_leaves_a_value(start):
    report = check_layer(LogScale(start), (4, 3))
    assert report and ("the weights were not moved" in str(report)) == (start < 1)


def test_an_error_of_the_users_own_comes_up_as_it_is():
    def forward(x):
        return x * 2, with_backward(lambda dy: {}["no such key"])

    with pytest.raises(KeyError, match="no such key"):
        check_layer(Plain(forward), (4, 3))


# Kinks in the inputs.


PICTURES = np.maximum(Rng(0, F64).normal((6, 5)), 0)


@pytest.mark.parametrize("method", ["auto", "central"])
def test_pixels_of_exactly_zero_lie_on_the_kink_of_relu(method):
    report = check_layer(ReLU(), PICTURES, method=method)
    assert report and "lies on a kink" in str(report) and "more entries" in str(report)
    beyond = Plain(lambda x: (np.maximum(x, 0), with_backward(lambda dy: dy * np.where(x.real > 0, 1, 3))))
    report = check_layer(beyond, PICTURES, method=method)
    assert not report and "it lies on a kink, with slope" in str(report)
    wrong = Plain(lambda x: (np.maximum(x, 0), with_backward(lambda dy: 2 * dy * (x > 0))))
    assert not check_layer(wrong, PICTURES, method=method)


def test_kinks_of_many_inputs_are_left_out_along_a_direction():
    x = np.maximum(Rng(0, F64).normal((50, 80)), 0)
    report = check_layer(ReLU(), x)
    assert report and "entries that are exactly 0 were left out" in str(report)
    assert not check_layer(Plain(lambda x: (np.maximum(x, 0), with_backward(lambda dy: 1.01 * dy * (x > 0)))), x)


def test_equal_entries_under_a_maximum_lie_on_a_kink():
    def largest(x):
        first = np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
        return x.max(axis=1), with_backward(lambda dy: dy[:, None] * first)

    report = check_layer(Plain(largest), np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [3.0, 2.0, 1.0]]))
    assert report and "lies on a kink" in str(report)


# More ways of refusing complex numbers.


REFUSALS = [TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError, KeyError, OverflowError]


@pytest.mark.parametrize("kind", REFUSALS)
def test_whatever_error_refuses_complex_numbers_central_differences_follow(kind):
    def square(x, wrong=1):
        if np.iscomplexobj(x):
            raise kind
        return x * x, with_backward(lambda dy: wrong * 2 * x * dy)

    report = check_layer(Plain(square), (4, 3))
    assert report and report.method == "central" and kind.__name__ in str(report)
    assert not check_layer(Plain(lambda x: square(x, 1.01)), (4, 3))
    with pytest.raises(kind):
        check_layer(Plain(square), (4, 3), method="complex-step")


RIGHT_FOR_REAL_NUMBERS = {
    "slogdet": lambda a: (np.linalg.slogdet(a)[1], np.linalg.inv(a).T),
    "vdot": lambda a: (np.vdot(a, a).real, 2 * a),
    "abs": lambda a: (np.abs(a).sum(), np.sign(a.real)),
    "svd": lambda a: (np.linalg.svd(a, compute_uv=False).sum(), (lambda u, _, v: u @ v)(*np.linalg.svd(a))),
}


@pytest.mark.parametrize("name", RIGHT_FOR_REAL_NUMBERS)
def test_functions_that_are_right_for_real_numbers_alone_are_sent_to_central_differences(name):
    a = Rng(0, F64).normal((3, 3))
    report = check_loss(RIGHT_FOR_REAL_NUMBERS[name], a)
    assert not report and 'method="central"' in str(report) and name in str(report)
    assert check_loss(RIGHT_FOR_REAL_NUMBERS[name], a, method="central")


# Sizes, and entries that nobody looks at.


@pytest.mark.parametrize("method", ["auto", "central"])
def test_large_values_and_large_or_small_inputs(method):
    a = Rng(0, F64).normal((4, 4))
    assert check_loss(lambda a: (1e8 + np.sin(a).sum(), np.cos(a)), a, method=method)
    assert not check_loss(lambda a: (1e8 + np.sin(a).sum(), 1.01 * np.cos(a)), a, method=method)
    for size in (1e8, 1e-8):
        assert check_loss(lambda a: ((a * a).sum(), 2 * a), size * a, method=method)
        assert not check_loss(lambda a: ((a * a).sum(), 2.01 * a), size * a, method=method)
        mixed = np.concatenate([a, size * a])
        assert check_loss(
            lambda a: (np.sin(a[:4]).sum() + a[4:].sum() / size, np.concatenate([np.cos(a[:4]), 1 / size + 0 * a[4:]])),
            mixed,
            method=method,
        )


@pytest.mark.parametrize("method", ["auto", "central"])
@pytest.mark.parametrize("hidden", [np.nan, -1.0, 0.0])
def test_masked_entries_may_hold_anything(hidden, method):
    seen = np.array([[True, False, True], [False, True, True]])
    x = np.where(seen, 0.5, hidden)

    def masked_log(x):
        with np.errstate(all="ignore"):
            y, slope = np.where(seen, np.log(x), 0), np.where(seen, 1 / x, 0)
        return y, with_backward(lambda dy: dy * slope)

    assert check_layer(Plain(masked_log), x, method=method)


def test_a_small_spread_around_a_large_mean_is_no_false_alarm():
    for seed in range(5):
        assert check_layer(BatchNorm(3), 1e6 + Rng(seed, F64).normal((6, 3)), seed=seed)


# A gradient that was not cleared.


def test_a_forgotten_zero_grad_is_called_that():
    layer = Linear(3, 2)
    params, x = Parameters(Rng(0, F64), layer=layer), Rng(1, F64).normal((4, 3))
    sums = np.zeros_like(params.grad)

    def half_square(before):
        before()
        y, back = layer.forward(x, None)
        back(y)
        return 0.5 * (y * y).sum()

    def collect():
        value = half_square(params.zero_grad)
        np.add(sums, params.grad, out=sums)
        params.grad[...] = sums
        return value

    assert str(gradcheck(lambda: half_square(params.zero_grad), params)).count("\n") == 0
    report = gradcheck(lambda: half_square(lambda: None), params)
    assert report and "call params.zero_grad()" in str(report)
    report = gradcheck(lambda: half_square(lambda: params.grad.fill(1)), params)
    assert not report and "every entry is too large by 1: was zero_grad() forgotten?" in str(report)
    report = gradcheck(collect, params)
    assert not report and "zero_grad() is missing" in str(report)


# Arguments of every kind work, or are refused in words.


def product(x):
    return x[0] * x[1], with_backward(lambda dy: (dy * x[1], dy * x[0]))


def test_containers_that_work():
    a, twice = Rng(0, F64).normal((4, 3)), Plain(lambda x: (2 * x, with_backward(lambda dy: 2 * dy)))
    for x in ([[1.0, 2.0], [3.0, 4.0]], 3.0, np.float32(3), tuple(np.array([4, 5])), a.astype(np.float16)):
        assert check_layer(twice, x)
    for x in ([(4, 3), (4, 3)], ((4, 3), a), [a, a + 1], ([1.0, 2.0], [3.0, 4.0])):
        assert check_layer(Plain(product), x)
    report = check_layer(Plain(lambda x: (x[0] * x[1], with_backward(lambda dy: (dy * x[1], None)))), (a, 0.3))
    assert report and "x1 is not checked: a plain number (float)" in str(report)
    assert check_layer(Plain(lambda x: ([x, 2 * x], with_backward(lambda dy: dy[0] + 2 * dy[1]))), (4, 3))
    assert check_layer(Plain(lambda x: (float(x.sum()), with_backward(lambda dy: dy + 0 * x))), (4, 3))


def test_losses_that_take_or_return_other_containers():
    a = Rng(0, F64).normal((4, 3))
    assert check_loss(lambda p, t: (((p - t) ** 2).sum(), (2 * (p - t), 2 * (t - p))), a, a + 1)
    assert check_loss(lambda p, t: ((p - t) ** 2, 2 * (p - t)), 1.0, 3.0)
    assert check_loss(lambda p: ((p * p).sum(), 2 * p), [1.0, 2.0])
    report = check_loss(lambda p, t: ((p * t).sum(), None, p), a, a + 1)
    assert report and "x0 is not checked" in str(report)


class Tensor:
    """What torch's looks like from outside."""

    __module__ = "torch"
    shape, dtype = (2,), "torch.float32"


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (Tensor(), "torch tensor: give a NumPy array"),
        ((np.ones(2), Tensor()), "x1 is a torch tensor: give a NumPy array"),
        ([[1.0], [2.0, 3.0]], "not an array of numbers"),
        ([4, 5], "give an array, a shape such as"),
        (3, "give an array, a shape such as"),
        (None, "give an array, a shape such as"),
        ({"x": (4, 3)}, "give an array, a shape such as"),
        ((np.ones(2), {"x": 1}), "x1 is not an array"),
        (np.ones(2) + 1j, "not an array of real numbers"),
        ("abc", "give an array, a shape such as"),
    ],
)
def test_what_is_no_input_is_refused_in_words(x, said):
    with pytest.raises(ValueError, match=said):
        check_layer(ReLU(), x)


def test_results_that_are_no_numbers_are_refused_in_words():
    for result, said in ((Tensor(), "a torch tensor"), (None, "None"), ((1.0, 2), "a tuple"), (1j, "the complex 1j")):
        with pytest.raises(ValueError, match=f"must return one number, got {said}"):
            checked(lambda layer, params, result=result: result)
    with pytest.raises(ValueError, match="torch tensor"):
        check_loss(lambda x: (x, x), Tensor())
    for result, said in ((Tensor(), "a torch tensor"), ({}, "dict"), (None, "NoneType")):
        layer = Plain(lambda x, result=result: (result, with_backward(lambda dy: dy)))
        assert f"returned {said}" in str(check_layer(layer, (4, 3)))


def test_shapes_at_the_edge():
    assert check_layer(Tanh(), ()), "x may be one number"
    report = check_layer(ReLU(), (0, 3))
    assert not report and "nothing to check: x0 is not checked: it is empty, of shape (0, 3)" in str(report)
    report = check_layer(Linear(3, 2), (0, 3))
    assert not report and "it is empty, of shape (0, 3)" in str(report)
    assert check_layer(Plain(lambda x: (x, with_backward(lambda dy: dy))), (4, 3)), "the identity"
    assert check_layer(Plain(lambda x: (x.T, with_backward(lambda dy: dy.T))), (4, 3)), "a view"
    unused = Plain(lambda x: (2 * x[0], with_backward(lambda dy: (2 * dy, None))))
    assert check_layer(unused, ((4, 3), (4, 2)))
    forgotten = Plain(lambda x: (x[0] * x[1], with_backward(lambda dy: (x[1] * dy, None))))
    assert check_layer(forgotten, ((4, 3), (4, 3))).wrong == ("input.x1",)


# Hints claim a factor only where every wrong entry is off by it.


@pytest.mark.parametrize(
    ("factors", "hint", "count"),
    [
        ((-1, 1), "the sign is wrong", "5 of 12 entries are wrong"),
        ((2, 1), "twice too large: a ½ forgotten?", "5 of 12 entries are wrong"),
        ((-1, 2), "analytic / numeric varies", "12 of 12 entries are wrong"),
        ((3, 3), "3 times too large: is it a sum over the batch where the value takes the mean?", "12 of 12 entries"),
        ((0, 2), "the analytic gradient is 0 at this entry, but not at every wrong one", "12 of 12 entries"),
    ],
)
def test_hints_speak_for_all_wrong_entries(factors, hint, count):
    factor = np.where(np.arange(12).reshape(4, 3) < 5, *factors)
    x = np.where(factor == 0, 3.0, 1.0)  # so that the worst entry is one of those that are 0
    report = check_layer(Plain(lambda x: (x * x, with_backward(lambda dy: 2 * x * dy * factor))), x)
    assert not report
    assert report.hint().startswith(hint) and count in str(report)


def test_a_weight_that_is_one_number_is_named_without_an_index():
    class Scale(Layer):
        def __init__(self):
            self.a = Weight((), ones)

        def forward(self, x, rng):
            def backward(dy, learn=True, inputs=True):
                if learn:
                    self.da += 2 * (dy * x).sum()
                return dy * self.a

            return x * self.a, backward

    report = check_layer(Scale(), (4, 3))
    assert not report and "layer.a: analytic" in str(report) and "twice too large" in str(report)


# Layers in containers, and what Sequential cannot chain.


def test_layers_are_found_however_nested():
    class Net(Layer):
        def __init__(self):
            self.blocks = [(Linear(3, 3), Tanh()), (Linear(3, 3), Tanh())]
            self.heads = {"a": [[Linear(3, 1)]], "b": {"c": Linear(3, 1)}}
            self.numbers = [[1, 2], ["three"]]

    params = Parameters(Rng(0, F64), net=Net())
    names = ["net.blocks.0.0", "net.blocks.1.0", "net.heads.a.0.0", "net.heads.b.c"]
    assert list(params.named()) == [f"{name}.{weight}" for name in names for weight in "Wb"]


def test_sequential_says_what_it_cannot_chain():
    pair = Plain(lambda x: ((x, x.sum(axis=1)), with_backward(lambda dy: dy[0])))
    with pytest.raises(ValueError, match=r"Sequential cannot chain Plain.*it returned 2 arrays"):
        Sequential(pair, Tanh())(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"number 0 is \[.*write Sequential\(\*layers\)"):
        Sequential([Linear(2, 2), Tanh()])
    with pytest.raises(ValueError, match=r"number 1 is .*Tanh.*write Tanh\(\.\.\.\)"):
        Sequential(Linear(2, 2), Tanh)
