"""The checker where a right layer or loss is hard to tell from a wrong one: beside the end of a domain, in single precision,
with state on self, with inputs that are all equal."""

import numpy as np
import pytest

from scratchgen import Layer, Weight, check_flow, check_layer, check_loss
from scratchgen.nn.activations import Tanh
from scratchgen.nn.initialisers import he


class Plain(Layer):
    """A layer of one function: f(self, x, rng) -> y, and the function of dy that is its backward."""

    def __init__(self, f, **shapes):
        self.f = f
        for name, shape in shapes.items():
            setattr(self, name, Weight(shape, he))

    def forward(self, x, rng):
        y, back = self.f(self, x, rng)

        def backward(dy, learn=True, inputs=True):
            kept = self.params.grad.copy()
            dx = back(dy)
            if not learn:
                self.params.grad[...] = kept
            return dx

        return y, backward


# Beside the end of a domain.


def log(p, factor=1.0):
    return np.log(p).sum(), factor / p


def root(p, factor=1.0):
    return np.sqrt(p).sum(), factor * 0.5 / np.sqrt(p)


def entropy(p, factor=1.0):
    return (p * np.log(p)).sum(), factor * (np.log(p) + 1)


def relative_entropy(p, factor=1.0):
    q = np.array([0.2, 0.3, 0.5])
    return (q * np.log(q / p)).sum(), -factor * q / p


def bernoulli(p, factor=1.0):
    y = np.array([1.0, 1.0, 0.0])
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), factor * ((1 - y) / (1 - p) - y / p) / p.size


@pytest.mark.parametrize("loss", [log, root, entropy, relative_entropy, bernoulli])
@pytest.mark.parametrize("mode", ["entries", "directions"])
@pytest.mark.parametrize("method", ["auto", "central"])
@pytest.mark.parametrize("small", [1e-6, 1e-8, 1e-9, 1e-10, 1e-28])
def test_a_domain_that_ends_beside_an_input(loss, method, mode, small):
    p = np.array([small, 0.4, 0.6])
    assert check_loss(loss, p, method=method, mode=mode)
    if (loss, method, mode, small) != (
        root,
        "central",
        "entries",
        1e-28,
    ):  # where rounding hides it: the report says so
        assert not check_loss(lambda p: loss(p, 1.001), p, method=method, mode=mode)


@pytest.mark.parametrize("method", ["auto", "central"])
def test_inputs_of_very_different_sizes(method):
    assert check_loss(log, np.array([1e-8, 1.0, 1e8]), method=method)
    assert check_loss(log, 1e-8 * np.abs(np.random.default_rng(0).normal(size=(4, 5))), method=method)
    assert check_loss(
        lambda x: (np.arccos(x).sum(), -1 / np.sqrt(1 - x * x)), np.array([1 - 1e-10, 0.2]), method=method
    )
    x = np.array([[1e-8, 0.5, 0.9]])
    assert check_layer(Plain(lambda self, x, rng: (np.log(x), lambda dy: dy / x)), x, method=method)


@pytest.mark.parametrize("concentration", [0.3, 0.1])
@pytest.mark.parametrize("method", ["auto", "central"])
def test_probabilities_as_small_as_a_softmax_makes_them(concentration, method):
    p = np.random.default_rng(3).dirichlet(np.full(6, concentration), 4)
    assert p.min() < 1e-9
    assert check_loss(log, p, method=method) and check_loss(entropy, p, method=method)
    report = check_loss(entropy, np.array([1e-28, 0.4, 0.6]), method="central")
    assert report and "1 entries below 1e-10 are not checked" in str(report)


@pytest.mark.parametrize("mode", ["entries", "directions"])
def test_an_entry_on_the_edge_is_called_that(mode):
    def masked(p):
        some = np.where(p > 0, p, 1)
        return np.where(p > 0, p * np.log(some / 0.03), 0).sum(), np.where(p > 0, np.log(some / 0.03) + 1, 0)

    def masked_root(p):
        return np.sqrt(p).sum(), np.where(p > 0, 0.5 / np.sqrt(np.where(p > 0, p, 1)), 0)

    for loss in (masked, masked_root):
        said = str(check_loss(loss, np.array([0.0, 0.4, 0.6]), mode=mode))
        assert "a path was forgotten" not in said and "linalg.norm" not in said
        assert "lies on" in said or "lie on" in said


# A flow that computes in single precision.


class SingleTanh(Layer):
    """y = tanh x, in float32 whatever comes in; share: of log_det."""

    def __init__(self, share=1.0):
        self.share = share

    def forward(self, x, rng):
        y = np.tanh(np.asarray(x, np.float32))
        slope = 1 - y * y

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            return dy * slope - self.share * 2 * y * d_log_det[:, None]

        return (y, self.share * np.log(slope).sum(axis=1)), backward

    def inverse(self, y):
        return np.arctanh(y)


def test_a_right_flow_in_single_precision_passes_and_a_wrong_one_does_not():
    report = check_flow(SingleTanh(), (5, 3))
    assert report and "single precision" in str(report)
    report = check_flow(SingleTanh(0.5), (5, 3))
    assert not report and "log_det is wrong in 5 of 5 examples" in str(report)


# Layers that keep something on self, on data that make it hard to see.


def dense(self, x, rng):
    self.x = x

    def back(dy):
        self.dW += self.x.T @ dy
        return dy @ self.W.T

    return x @ self.W, back


def embedding(self, i, rng):
    self.i = i
    return self.E[i], lambda dy: np.add.at(self.dE, self.i, dy)


def output(self, x, rng):
    self.y = np.tanh(x)
    return self.y, lambda dy: dy * (1 - self.y**2)


def shape(self, x, rng):
    self.shape = x.shape
    return x.reshape(-1), lambda dy: dy.reshape(self.shape)


def count(self, x, rng):
    self.n = len(x)
    return x / self.n, lambda dy: dy / self.n


KEPT = [
    (dense, np.zeros((4, 3))),
    (dense, np.ones((2, 3), int)),
    (dense, np.ones((2, 3), bool)),
    (dense, -np.ones((2, 3), int)),
    (embedding, np.array([3, 3, 3])),
    (embedding, np.array([0, 0])),
    (output, np.ones((4, 3))),
    (output, np.zeros((4, 3))),
    (shape, (4, 3)),
    (count, (4, 3)),
    (count, (1, 3)),
]


@pytest.mark.parametrize(("f", "x"), KEPT)
def test_what_a_layer_keeps_on_self_is_found_whatever_the_data(f, x):
    shapes = {"dense": {"W": (3, 2)}, "embedding": {"E": (7, 4)}}.get(f.__name__, {})
    with np.errstate(all="ignore"):
        report = check_layer(Plain(f, **shapes), x)
    assert not report and "left on self" in str(report)


class Normalised(Layer):
    """Batch normalisation; where: where the running mean moves."""

    def __init__(self, where):
        self.where = where
        self.running_mean = Weight((3,), learned=False)

    def forward(self, x, rng):
        if rng is None:
            return x - self.running_mean, lambda dy, learn=True, inputs=True: dy
        mean = x.mean(axis=0)
        if self.where == "forward":
            self.running_mean += 0.1 * (mean - self.running_mean)

        def backward(dy, learn=True, inputs=True):
            if learn and self.where == "backward":
                self.running_mean += 0.1 * (mean - self.running_mean)
            return dy - dy.mean(axis=0)

        return x - mean, backward


def test_a_buffer_that_moves_in_forward_is_told_where_to_move():
    assert check_layer(Normalised("backward"), (4, 3))
    report = check_layer(Normalised("forward"), (4, 3))
    assert (
        not report and "forward changes running_mean" in str(report) and "in backward, under `if learn:`" in str(report)
    )


# Two calls that differ.


class ActNorm(Layer):
    """Glow's: scale and shift taken from the first batch."""

    def __init__(self, n, share=1.0):
        self.log_s, self.b = Weight((n,)), Weight((n,))
        self.started, self.share = False, share

    def forward(self, x, rng):
        if not self.started:
            self.log_s[...] = -np.log(x.std(axis=0))
            self.b[...] = -x.mean(axis=0) * np.exp(self.log_s)
            self.started = True
        s = np.exp(self.log_s)

        def backward(d, learn=True, inputs=True):
            dy, d_log_det = d
            if learn:
                self.dlog_s += self.share * (dy * x * s).sum(axis=0) + d_log_det.sum()
                self.db += dy.sum(axis=0)
            return dy * s

        return (x * s + self.b, np.ones(len(x), x.dtype) * self.log_s.sum()), backward

    def inverse(self, y):
        return (y - self.b) * np.exp(-self.log_s)


def test_weights_taken_from_the_first_batch():
    x = 3 + 2 * np.random.default_rng(0).normal(size=(5, 3))
    assert check_layer(ActNorm(3), x) and check_flow(ActNorm(3), x)
    assert not check_layer(ActNorm(3, 1.01), x)


def remembers(self, x, rng):
    self.h = x + getattr(self, "h", 0)
    return self.h, lambda dy: dy


def global_noise(self, x, rng):
    keep = np.random.rand(*x.shape) < 0.5  # noqa: NPY002
    return x * keep, lambda dy: dy * keep


def own_noise(self, x, rng):
    keep = np.random.default_rng().random(x.shape) < 0.5
    return x * keep, lambda dy: dy * keep


def shrinks(self, x, rng):
    self.a[...] = 0.9 * self.a

    def back(dy):
        self.da += (dy * x).sum(axis=0)
        return dy * self.a

    return x * self.a, back


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (remembers, "it changes self.h, which the next call uses"),
        (global_noise, "it draws from np.random; draw from the rng"),
        (own_noise, "it draws noise of its own; draw from the rng"),
        (shrinks, "forward changes the weights"),
    ],
)
def test_a_layer_whose_calls_differ_is_told_why(f, said):
    report = check_layer(Plain(f, a=(3,)) if f is shrinks else Plain(f), (4, 3))
    assert not report and said in str(report) and "Rng inside the objective" not in str(report)


# What is no layer, no inverse, no loss.


def test_what_is_no_layer_is_refused_in_words():
    with pytest.raises(ValueError, match=r"give a layer, Tanh\("):
        check_layer(Tanh, (4, 3))
    with pytest.raises(ValueError, match="give an instance of a subclass of Layer"):
        check_layer(lambda x: x, (4, 3))


class Doubled(Layer):
    def __init__(self, inverse):
        self.undo = inverse

    def forward(self, x, rng):
        log_det = np.full(len(x), x.shape[1] * np.log(2), x.dtype)
        return (2 * x, log_det), lambda d, learn=True, inputs=True: 2 * d[0]

    def inverse(self, *args):
        return self.undo(*args)


def not_implemented(y):
    raise NotImplementedError("no closed form")


@pytest.mark.parametrize(
    ("inverse", "said"),
    [
        (not_implemented, "inverse(y) raises NotImplementedError: no closed form"),
        (lambda y, rng: y / 2, "inverse(y) raises TypeError"),
        (lambda y: y @ np.ones((7, 7)), "inverse(y) raises ValueError"),
        (
            lambda y: [y / 2, np.zeros(len(y))],
            "inverse must return x, or the tuple (x, log_det), but it returned a list",
        ),
        (lambda y: None, "the result of inverse is not an array of"),
    ],
)
def test_an_inverse_that_fails_is_one_line_of_the_report(inverse, said):
    assert check_flow(Doubled(lambda y: y / 2), (4, 3))
    report = check_flow(Doubled(inverse), (4, 3))
    assert not report and said in str(report) and len(str(report).splitlines()) == 1


def test_a_loss_that_changes_its_argument_is_told_so():
    def centred(x):
        x -= x.mean()
        return (x * x).sum(), 2 * x

    report = check_loss(centred, np.array([1.0, 2.0, 4.0]))
    assert not report and "the loss changes its argument x0" in str(report)
