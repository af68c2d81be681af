"""check_flow on a small affine coupling layer: the right one passes, and each wrong one is told what is wrong with it."""

import math

import numpy as np
import pytest

from scratchgen import Layer, Rng, Weight, check_flow, check_layer
from scratchgen.nn.initialisers import he
from scratchgen.nn.layers import Linear


class Coupling(Layer):
    """y_1 = x_1,   y_2 = x_2 exp(s) + t,   s = tanh(x_1 S), t = x_1 T;   log|det ∂y/∂x| = Σ s.

    log_det_of(s) is what it returns for that, (B,), d_log_det_of(d, s) the gradient that goes with it, undo the inverse.
    """

    def __init__(self, log_det=lambda s: s.sum(axis=1), d_log_det=lambda d, s: d[:, None], undo=None, exp=np.exp):
        self.S, self.T = Weight((2, 2), he), Weight((2, 2), he)
        self.log_det_of, self.d_log_det_of, self.exp = log_det, d_log_det, exp
        self.undo = undo or (lambda y_2, s, t: (y_2 - t) * np.exp(-s))

    def forward(self, x, rng):
        x_1, x_2 = x[:, :2], x[:, 2:]
        s, t = np.tanh(x_1 @ self.S), x_1 @ self.T
        scale = self.exp(s)

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            d_a = (dy[:, 2:] * x_2 * scale + self.d_log_det_of(d_log_det, s)) * (1 - s * s)
            if learn:
                self.dS += x_1.T @ d_a
                self.dT += x_1.T @ dy[:, 2:]
            if inputs:
                d_1 = dy[:, :2] + d_a @ self.S.T + dy[:, 2:] @ self.T.T
                return np.concatenate([d_1, dy[:, 2:] * scale], axis=1)

        return (np.concatenate([x_1, x_2 * scale + t], axis=1), self.log_det_of(s)), backward

    def inverse(self, y):
        y_1, y_2 = y[:, :2], y[:, 2:]
        s, t = np.tanh(y_1 @ self.S), y_1 @ self.T
        return np.concatenate([y_1, self.undo(y_2, s, t)], axis=1)


def test_the_right_coupling_passes():
    report = check_flow(Coupling(), (5, 4))
    assert report, report
    assert report.error <= 1e-12 and report.name == "Coupling (learning)"
    assert check_flow(Coupling(), Rng(3, "float64").normal((1, 4)), seed=2, name="one example")


WRONG = {
    "half of it is missing": (lambda s: s.sum(axis=1) / 2, lambda d, s: d[:, None] / 2),
    "the sign is wrong": (lambda s: -s.sum(axis=1), lambda d, s: -d[:, None]),
    "twice too large": (lambda s: 2 * s.sum(axis=1), lambda d, s: 2 * d[:, None]),
    "it is 0": (lambda s: 0 * s[:, 0], lambda d, s: 0),
}


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_log_det_with_a_gradient_to_match_is_caught_by_the_jacobian_alone(said):
    assert check_layer(Coupling(*WRONG[said]), (5, 4)), "it is the derivative of itself"
    report = check_flow(Coupling(*WRONG[said]), (5, 4))
    assert not report
    assert "log_det is wrong in 5 of 5 examples" in str(report) and said in str(report)


def test_a_log_det_summed_over_the_batch_is_named():
    total = Coupling(lambda s: s.sum() + 0 * s[:, 0], lambda d, s: d.sum())
    report = check_flow(total, (5, 4))
    assert not report and "depends on the others" in str(report)
    scalar = Coupling(lambda s: s.sum(), lambda d, s: d)
    assert "log_det has shape (), expected (5,)" in str(check_flow(scalar, (5, 4)))
    column = Coupling(lambda s: s.sum(axis=1, keepdims=True), lambda d, s: d)
    assert "log_det has shape (5, 1), expected (5,)" in str(check_flow(column, (5, 4)))


def test_a_wrong_gradient_of_log_det_is_caught_as_in_any_layer():
    report = check_flow(Coupling(d_log_det=lambda d, s: 2 * d[:, None]), (5, 4))
    assert not report and report.parameter in ("layer.S", "input.x0")


@pytest.mark.parametrize(
    "undo",
    [lambda y, s, t: y * np.exp(-s) - t, lambda y, s, t: (y - t) * np.exp(s), lambda y, s, t: y - t],
)
def test_a_wrong_inverse_is_caught(undo):
    report = check_flow(Coupling(undo=undo), (5, 4))
    assert not report
    assert "inverse(forward(x)) is not x: 10 of 20 numbers differ" in str(report)


def test_an_inverse_right_only_where_forward_has_been_is_caught():
    class Rounds(Coupling):
        seen = None

        def forward(self, x, rng):
            returned = super().forward(x, rng)
            if rng is None and x.dtype == np.float64 and self.seen is None:
                self.seen = np.copy(x), np.copy(returned[0][0])
            return returned

        def inverse(self, y):
            x = super().inverse(y)
            return x if np.array_equal(y, self.seen[1]) else x + 0.1

    assert "forward(inverse(y)) is not y" in str(check_flow(Rounds(), (5, 4)))


def test_an_inverse_may_return_its_log_det_too():
    class Both(Coupling):
        def __init__(self, sign):
            super().__init__()
            self.sign = sign

        def inverse(self, y):
            return super().inverse(y), self.sign * np.tanh(y[:, :2] @ self.S).sum(axis=1)

    assert check_flow(Both(-1), (5, 4))
    report = check_flow(Both(1), (5, 4))
    assert not report and "the log_det of inverse is not minus that of forward" in str(report)
    assert "the sign is wrong" in str(report)


def test_without_an_inverse_or_without_log_det_the_report_says_so():
    class OneWay(Layer):
        def forward(self, x, rng):
            return (2 * x, 0 * x[:, 0] + x.shape[1] * math.log(2)), lambda d, learn=True, inputs=True: 2 * d[0]

    assert "there is no inverse: add a method inverse(y)" in str(check_flow(OneWay(), (5, 4)))
    assert "must return ((y, log_det), backward)" in str(check_flow(Linear(4, 4), (5, 4)))
    with pytest.raises(ValueError, match=r"\(B, n\)"):
        check_flow(Coupling(), (5, 4, 3))
    with pytest.raises(ValueError, match=r"\(B, n\)"):
        check_flow(Coupling(), ((5, 4), (5, 4)))


def test_a_layer_whose_examples_look_at_each_other_has_no_jacobian_of_one_example():
    class Centred(Layer):
        def forward(self, x, rng):
            def backward(d, learn=True, inputs=True):
                return d[0] - d[0].mean(axis=0) / 2

            return (x - x.mean(axis=0) / 2, 0 * x[:, 0]), backward

        def inverse(self, y):
            return y + y.mean(axis=0)

    report = check_flow(Centred(), (5, 4))
    assert not report and "depends on the others" in str(report)


def test_a_layer_that_loses_a_feature_cannot_be_undone():
    class Flat(Layer):
        def forward(self, x, rng):
            keep = np.array([1.0, 1.0, 0.0]).astype(x.real.dtype)
            return (x * keep, 0 * x[:, 0]), lambda d, learn=True, inputs=True: d[0] * keep

        def inverse(self, y):
            return y

    report = check_flow(Flat(), (4, 3))
    assert not report and "has determinant 0" in str(report)


def refuses_complex(s):
    if np.iscomplexobj(s):
        raise NotImplementedError("real numbers only")
    return np.exp(s)


def test_where_complex_numbers_are_refused_the_jacobian_is_made_by_central_differences():
    assert check_flow(Coupling(exp=refuses_complex), (5, 4))
    wrong = Coupling(*WRONG["half of it is missing"], exp=refuses_complex)
    report = check_flow(wrong, (5, 4))
    assert not report and "by central" in str(report) and "half of it is missing" in str(report)


def test_where_the_complex_step_is_silently_wrong_central_differences_take_over():
    class Scaled(Layer):
        """y = 3 x by way of |x|, which drops the imaginary part."""

        def forward(self, x, rng):
            return (
                3 * np.abs(x) * np.sign(x.real),
                0 * x[:, 0] + 2 * math.log(3),
            ), lambda d, learn=True, inputs=True: 3 * d[0]

        def inverse(self, y):
            return y / 3

    assert check_flow(Scaled(), (4, 2), method="central")


def test_fresh_zeros_do_not_hide_a_wrong_log_det():
    """Couplings often start as the identity, where log_det is 0 whatever its formula."""
    layer = Coupling(*WRONG["half of it is missing"])
    layer.S, layer.T = Weight((2, 2)), Weight((2, 2))
    assert "half of it is missing" in str(check_flow(layer, (5, 4)))
