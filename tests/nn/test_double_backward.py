"""The gradient of a gradient: against an oracle that takes ordinary passes only, and against the definition.

Along v = ∂penalty/∂g the weights' gradient of the penalty is d/dh of D's own weight gradient at x + h v. So two ordinary
backward passes (or one, at a complex h) say what the second-order pass must say, and share none of its code.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Layer, Parameters, Rng, Sequential, Weight, check_layer, gradcheck
from scratchgen.nn.activations import ACTIVATIONS, LeakyReLU, ReLU, Tanh
from scratchgen.nn.double_backward import Gradient, between, gradient_penalty
from scratchgen.nn.embeddings import TimeEmbedding
from scratchgen.nn.initialisers import he
from scratchgen.nn.layers import Linear, Maxout, Residual, mlp
from scratchgen.nn.norms import BatchNorm, LayerNorm

PENALTIES = st.sampled_from([(1.0, False), (1.0, True), (0.0, False), (0.3, True)])


def critic(activation, rng, n_in=3, width=6):
    body = Residual(Linear(width, width))
    return Sequential(mlp([n_in, width, width], activation), activation(), body, activation(), Linear(width, 1))


def slopes(D, x):
    """∇ₓ Σ D(x) by the ordinary backward pass, (B, n)."""
    y, backward = D.forward(x, None)
    return backward(np.ones_like(y), learn=False)


def value_of(g, centre, one_sided):
    norm = np.sqrt((g * g).sum(axis=1))
    excess = np.maximum(norm - centre, 0) if one_sided else norm - centre
    return (excess**2).mean()


def direction(g, centre, one_sided):
    """∂ mean (‖g‖ - centre)² / ∂g."""
    norm = np.sqrt((g * g).sum(axis=1, keepdims=True))
    excess = np.maximum(norm - centre, 0) if one_sided else norm - centre
    return 2 * excess * g / np.maximum(norm, 1e-12) / len(g)  # a slope of 0 where every ReLU is off


def weight_gradient(D, params, x):
    """∂ Σ D(x) / ∂W by the ordinary backward pass."""
    params.zero_grad()
    y, backward = D.forward(x, None)
    backward(np.ones_like(y))
    return params.grad.copy()


def penalty_gradient(D, params, x, weight=1.0, **options):
    params.zero_grad()
    value, backward = gradient_penalty(D, x, **options)
    backward(weight)
    return value, params.grad.copy()


@given(
    name=st.sampled_from([*ACTIVATIONS]), penalty=PENALTIES, seed=st.integers(0, 2**32 - 1), weight=st.floats(0.1, 10)
)
def test_two_ordinary_passes_say_the_same(name, penalty, seed, weight):
    rng = Rng(seed, "float64")
    D = critic(ACTIVATIONS[name], rng)
    params, x = Parameters(rng, D=D), rng.normal((5, 3))
    params.theta += 0.1 * rng.normal(params.theta.shape)
    centre, one_sided = penalty
    g = slopes(D, x)
    value, found = penalty_gradient(D, params, x, weight, centre=centre, one_sided=one_sided)
    np.testing.assert_allclose(value, value_of(g, centre, one_sided), rtol=1e-10, atol=1e-15)

    v = weight * direction(g, centre, one_sided)
    params.cast("complex128")
    oracle = weight_gradient(D, params, x + 1e-20j * v).imag / 1e-20
    np.testing.assert_allclose(found, oracle, rtol=1e-9, atol=1e-12 * max(1, np.abs(oracle).max()))
    if (
        name in ("tanh", "softplus", "silu", "gelu", "sigmoid") and np.abs(v).max() > 1e-6
    ):  # and without complex numbers
        params.cast("float64")
        h = 1e-5 / np.abs(v).max()
        there, here = (weight_gradient(D, params, x + sign * h * v) for sign in (1, -1))
        np.testing.assert_allclose(found, (there - here) / (2 * h), rtol=1e-5, atol=1e-7 * np.abs(oracle).max())


@given(seed=st.integers(0, 2**32 - 1), penalty=PENALTIES, k=st.integers(1, 4))
def test_maxout_against_ordinary_passes(seed, penalty, k):
    rng = Rng(seed, "float64")
    D = Sequential(Maxout(3, 5, k), Linear(5, 4), Tanh(), Maxout(4, 1, k))
    params, x = Parameters(rng, D=D), rng.normal((5, 3))
    centre, one_sided = penalty
    g = slopes(D, x)
    _, found = penalty_gradient(D, params, x, centre=centre, one_sided=one_sided)
    params.cast("complex128")
    oracle = weight_gradient(D, params, x + 1e-20j * direction(g, centre, one_sided)).imag / 1e-20
    np.testing.assert_allclose(found, oracle, rtol=1e-9, atol=1e-12 * max(1, np.abs(oracle).max()))


def test_a_linear_critic_has_the_penalty_of_its_weights():
    rng = Rng(0, "float64")
    D = Sequential(Linear(4, 1))
    params = Parameters(rng, D=D)
    W = D.layers[0].W[:, 0]
    value, found = penalty_gradient(D, params, rng.normal((7, 4)))
    norm = np.linalg.norm(W)
    assert value == pytest.approx((norm - 1) ** 2)
    np.testing.assert_allclose(found[:4], 2 * (norm - 1) * W / norm)
    assert found[4] == 0  # a bias has no part in the slope


class WithoutCurvature(Tanh):
    """numpy-ml's WGAN-GP: exact for ReLU, for others wrong by as much as there is."""

    def ddf(self, xp, x, y):
        return None


def test_a_forgotten_second_derivative_is_caught():
    def report(activation):
        rng = Rng(1, "float64")
        D = critic(activation, rng)
        params, x = Parameters(rng, D=D), rng.normal((6, 3))

        def objective():
            return penalty_gradient(D, params, x)[0]

        return gradcheck(objective, params)

    assert report(Tanh) and report(ReLU)
    wrong = report(WithoutCurvature)
    assert not wrong and wrong.error > 0.1


def test_a_slope_of_zero_has_a_penalty_and_a_gradient_without_nan():
    rng = Rng(0, "float32")
    D = mlp([3, 5, 1], LeakyReLU)
    params = Parameters(rng, D=D)
    params.theta[...] = 0
    value, found = penalty_gradient(D, params, rng.normal((4, 3)))
    assert value == pytest.approx(1) and np.isfinite(found).all()


@pytest.mark.parametrize("one_sided", [False, True])
def test_one_sided_leaves_small_slopes_alone(one_sided):
    rng = Rng(0, "float64")
    D = mlp([3, 5, 1], Tanh)
    params = Parameters(rng, D=D)
    params.theta *= 0.1
    value, found = penalty_gradient(D, params, rng.normal((4, 3)), one_sided=one_sided)
    assert (value == 0) == (not found.any()) == one_sided


def test_dropout_is_off_in_the_penalty():
    rng = Rng(0, "float64")
    D = mlp([3, 8, 8, 1], Tanh, dropout=0.5)
    params, x = Parameters(rng, D=D), rng.normal((6, 3))
    value, found = penalty_gradient(D, params, x)
    assert value == pytest.approx(value_of(slopes(D, x), 1.0, False))
    again, found_again = penalty_gradient(D, params, x)
    assert value == again and (found == found_again).all()


def test_columns_restrict_the_slope():
    rng = Rng(3, "float64")
    D = critic(Tanh, rng, n_in=5)
    params, x = Parameters(rng, D=D), rng.normal((4, 5))
    value, found = penalty_gradient(D, params, x, centre=0.0, columns=slice(0, 3))
    g = slopes(D, x)
    g[:, 3:] = 0
    assert value == pytest.approx((g * g).sum() / 4)
    params.cast("complex128")
    oracle = weight_gradient(D, params, x + 1e-20j * (2 * g / 4)).imag / 1e-20
    np.testing.assert_allclose(found, oracle, rtol=1e-10, atol=1e-13)


def test_a_penalty_adds_to_the_gradient_that_is_there():
    rng = Rng(2, "float64")
    D = critic(Tanh, rng)
    params, x = Parameters(rng, D=D), rng.normal((4, 3))
    _, alone = penalty_gradient(D, params, x)
    params.grad.fill(5)
    gradient_penalty(D, x)[1](2.0)
    np.testing.assert_allclose(params.grad, 5 + 2 * alone)


def test_weights_that_have_changed_since_are_refused():
    rng = Rng(0, "float64")
    D = Sequential(mlp([3, 4, 4], Tanh), Linear(4, 1))
    params = Parameters(rng, D=D)
    _, backward = gradient_penalty(D, rng.normal((5, 3)))
    params.theta += 0.1
    params.changed()
    with pytest.raises(RuntimeError, match="call forward again"):
        backward()
    _, ordinary, gradient = D.forward_twice(rng.normal((5, 3)))
    for refuses in (ordinary, gradient):
        with pytest.raises(ValueError, match=r"\(5, 2\).*\(5, 1\)"):
            refuses(np.ones((5, 2)))


class Liar(Linear):
    """forward_twice of another layer than forward's: y, g or the backward is tripled, and everything beside it fits."""

    lie = "y"

    def forward_twice(self, x):
        y, back, gradient = super().forward_twice(x)
        factor = {name: 3 if name == self.lie else 1 for name in ("y", "g", "backward")}

        def tripled(u):
            g, double_backward = gradient(factor["g"] * u)

            def double(v, learn=True, inputs=True):
                du, dx = double_backward(v, learn, inputs)
                return factor["g"] * du, dx

            return g, double

        return factor["y"] * y, lambda dy, *flags, **named: factor["backward"] * back(dy, *flags, **named), tripled


@pytest.mark.parametrize("lie", ["y", "g", "backward"])
def test_forward_twice_must_be_the_same_layer_as_forward(lie):
    layer = Liar(3, 4)
    layer.lie = lie
    with pytest.raises(ValueError, match=f"Liar.forward_twice gives a different {lie} from forward and its backward"):
        check_layer(Gradient(layer), ((5, 3), (5, 4)))
    layer = Liar(3, 4)
    layer.lie = "none"
    assert check_layer(Gradient(layer), ((5, 3), (5, 4)))


class Off(Linear):
    """The y of forward_twice is off by a number."""

    def forward_twice(self, x):
        y, back, gradient = super().forward_twice(x)
        return y + self.delta, back, gradient


@pytest.mark.parametrize(("size", "tolerance"), [(0, 1e-12), (1000, 1e-6)])
def test_forward_twice_may_differ_by_rounding_and_no_more(size, tolerance):
    layer = Off(3, 4)
    Parameters(Rng(0, "float64"), layer=layer)
    layer.b[...] = size
    pair = np.zeros((5, 3)), np.ones((5, 4))
    layer.delta = 0.6 * tolerance
    Gradient(layer)(pair)
    layer.delta = 1.6 * tolerance
    with pytest.raises(ValueError, match="a different y"):
        Gradient(layer)(pair)


class Swish(Layer):
    """A layer of one's own that knows nothing of second order."""

    def __init__(self):
        self.W = Weight((3, 3), he)

    def forward(self, x, rng):
        raise AssertionError("never reached")


@pytest.mark.parametrize(
    ("D", "words"),
    [
        (mlp([3, 4, 1], norm=BatchNorm), "BatchNorm makes the score of one example depend on the whole batch"),
        (mlp([3, 4, 1], norm=LayerNorm), "LayerNorm has no forward_twice"),
        (Sequential(Swish(), Linear(3, 1)), "Swish has no forward_twice"),
        (Sequential(TimeEmbedding(4), Linear(4, 1)), "TimeEmbedding has no forward_twice"),
        (mlp([3, 4, 2]), r"returned \(5, 2\) for x \(5, 3\); it must return one number per example, \(B, 1\)"),
        (mlp([2, 4, 1]), r"shape \(5, 3\), expected \(B, 2\)"),
    ],
)
def test_what_cannot_be_penalised_is_refused(D, words):
    rng = Rng(0)
    Parameters(rng, D=D)
    with pytest.raises(ValueError, match=words):
        gradient_penalty(D, rng.normal((5, 3)))


def test_an_activation_without_a_second_derivative_is_refused():
    class Cube(Tanh.__base__):
        def f(self, xp, x):
            return x * x * x

        def df(self, xp, x, y):
            return 3 * x * x

    rng = Rng(0)
    D = mlp([3, 4, 1], Cube)
    Parameters(rng, D=D)
    with pytest.raises(ValueError, match="Cube needs a method ddf"):
        gradient_penalty(D, rng.normal((5, 3)))


def test_points_between_lie_on_straight_lines_one_alpha_each():
    rng = Rng(0, "float64")
    real, fake = rng.normal((2000, 5)), rng.normal((2000, 5)) + 3
    alpha = (between(real, fake, rng) - fake) / (real - fake)
    np.testing.assert_allclose(alpha, np.repeat(alpha[:, :1], 5, axis=1), rtol=1e-7, atol=1e-9)
    assert 0 <= alpha.min() < 0.01 and 0.99 < alpha.max() <= 1
    assert abs(alpha.mean() - 0.5) < 0.03 and abs(alpha[:, 0].var() - 1 / 12) < 0.01
    with pytest.raises(ValueError, match=r"\(2000, 5\).*\(3, 5\)"):
        between(real, fake[:3], rng)
