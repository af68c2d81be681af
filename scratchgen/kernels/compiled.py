"""The compiled forms, which run on a device instead of the functions and methods of nn/ that are marked as operations.

Each form is registered under the name of a function, and takes and returns the same. It is called only with arrays of a
device. For cases that it does not handle, such as a wrong shape, it calls the function itself (`plain`), which raises the
error.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..backend import array_module
from .cuda import Cuda
from .elementwise import (
    ACTIVATIONS,
    ADAM,
    ADD_BIAS,
    BERNOULLI,
    MOVE_TOWARDS,
    POSTERIOR,
    POSTERIOR_BACKWARD,
    SQUARE,
    activation_kernels,
)

DEVICES = {"cupy": Cuda()}  # {name of an array module: the object that runs kernels on its arrays}
MARKED: dict[str, Any] = {}  # {qualified name: the marked function}, which nn/ fills
FORMS: dict[str, Any] = {}  # {qualified name: its compiled form}, filled below
NN = "scratchgen.nn"


class Misfit(Exception):
    """Raised by a device, before it has changed anything, for arrays of which it leaves the work to the plain function."""


def device_of(array):
    """The object that runs kernels on this array, or None. Kernels take float32 and float64 alone.

    NumPy arrays have such an object only inside `compiled_kernels` (native.py).
    """
    module = array_module(array)
    device = DEVICES.get(module.__name__)
    fits = device and type(array) is module.ndarray and array.dtype.char in "fd" and array.dtype.isnative
    return device if fits else None


def form_of(layer, method):
    """The compiled form of a method of a layer, or None. A subclass does not inherit the form."""
    kind = type(layer)
    return FORMS.get(f"{kind.__module__}.{kind.__qualname__}.{method}")


def form(*names):
    """A decorator that registers a function as the compiled form of these names, without the "scratchgen.nn." in front."""

    def enter(function):
        FORMS.update({f"{NN}.{name}": function for name in names})
        return function

    return enter


def plain(name):
    """The function of nn/ as it is written there."""
    return MARKED[f"{NN}.{name}"].plain


# ---- matrix products, and sums over the batch ----


@form("layers.matmul")
def matmul(a, b):
    return device_of(a).gemm(a, b)


@form("layers.add_matmul")
def add_matmul(out, a, b):
    device_of(out).gemm(a, b, out)


@form("layers.add_rows")
def add_rows(out, dy):
    device_of(out).add_rows(out, dy)


# ---- what only the CPU has a compiled form of: a GPU raises Misfit, so the plain function runs ----


def rows_of(array):
    """What runs a function of cpp.ROWS on arrays like this one. Raises Misfit on a GPU."""
    device = device_of(array)
    if not hasattr(device, "by_rows"):
        raise Misfit
    return device.by_rows


@form("layers.masked")
def masked(W, M):
    run, out = rows_of(W), np.empty(W.shape, W.dtype)
    run("masked", (W, M, out))
    return out


@form("layers.add_masked")
def add_masked(out, W, M):
    rows_of(out)("add_masked", (W, M, out))


@form("layers.sum_by_label")
def sum_by_label(rows, labels, n):
    run = rows_of(rows)
    counts, sums = np.zeros(n, rows.dtype), np.zeros((n, *rows.shape[1:]), rows.dtype)
    run("sum_by_label", (rows, labels, counts, sums))
    return counts, sums


@form("losses.softmax_cross_entropy")
def softmax_cross_entropy(logits, labels, weights=None):
    run, B = rows_of(logits), len(logits)
    if labels.ndim != 1 or not B or (weights is not None and weights.shape != (B,)):
        raise Misfit
    values, d = np.empty(B, logits.dtype), np.empty(logits.shape, logits.dtype)
    run("softmax_cross_entropy", (logits, labels, values, d), 1 / B)
    if weights is not None:
        values *= weights
        d *= weights[:, None]
    return values.sum() / B, d


@form("norms.LayerNorm.forward")
def layer_norm(layer, x, rng):
    run, gamma = rows_of(x), layer.gamma
    y = np.empty(x.shape, x.dtype)
    moments = np.empty((*x.shape[:1], 2), x.dtype)  # the mean and 1/s of each row
    run("layer_norm", (x, gamma, layer.beta, moments, y), layer.eps)

    def backward(dy, learn=True, inputs=True):
        dx = np.empty(x.shape, x.dtype)
        try:
            run("layer_norm_backward", (dy, x, gamma, moments, layer.dgamma, layer.dbeta, dx), learn)
        except Misfit:
            return plain("norms.LayerNorm.forward")(layer, x, rng)[1](dy, learn, inputs)
        return dx

    return y, backward


# ---- layers ----


def fits(x, W):
    return x.ndim == 2 and x.shape[1] == len(W)


@form("layers.Linear.forward")
def linear(layer, x, rng):
    W, device = layer.W, device_of(x)
    if not fits(x, W):
        return plain("layers.Linear.forward")(layer, x, rng)
    y = device.gemm(x, W)
    device.elementwise(ADD_BIAS, (layer.b, y))

    def backward(dy, learn=True, inputs=True):
        if learn:
            device.gemm(x.T, dy, layer.dW)
            device.add_rows(layer.db, dy)
        if inputs:
            return device.gemm(dy, W.T)

    return y, backward


@form("layers.Linear.forward_twice")
def linear_twice(layer, x):
    device = device_of(x)
    y, back = layer.forward(x, None)

    def gradient(u):
        def double_backward(v, learn=True, inputs=True):
            if learn:
                device.gemm(v.T, u, layer.dW)
            return device.gemm(v, layer.W), None

        return back(u, learn=False), double_backward

    return y, back, gradient


@form(*(f"activations.{name}.forward" for name in ACTIVATIONS))
def activation(f, x, rng):
    device, a = device_of(x), getattr(f, "a", 0.0)
    forward, backward, _ = activation_kernels(type(f).__name__)
    y = device.elementwise(forward, (x, a))

    def back(dy, learn=True, inputs=True):
        if inputs:
            try:
                return device.elementwise(backward, (dy, x, y, a))
            except Misfit:
                return plain("activations.Activation.forward")(f, x, rng)[1](dy)

    return y, back


class LinearActivation:
    """A Linear and the activation after it in one step, which saves the launches of the bias, of f and of the bias's sum."""

    def __init__(self, linear, f):
        self.linear, self.f = linear, f

    def forward(self, x, rng):  # x (B, n_in)
        layer, device, name, a = self.linear, device_of(x), type(self.f).__name__, getattr(self.f, "a", 0.0)
        W = layer.W
        if not (device and fits(x, W)):
            return self.in_two_steps(x)
        _, f_backward, biased = activation_kernels(name)
        h = device.gemm(x, W)
        try:
            _, y = device.elementwise(biased, (layer.b, a, h, array_module(h).empty_like(h)))  # h += b, y = f(h)
        except Misfit:
            return self.in_two_steps(x)

        def backward(dy, learn=True, inputs=True):  # dy (B, n_out)
            try:
                if learn:
                    dh = device.add_rows(layer.db, dy, (name, a, h, y))  # f′ dy, and db += Σ_batch dh
                    device.gemm(x.T, dh, layer.dW)
                elif inputs:
                    dh = device.elementwise(f_backward, (dy, h, y, a))
            except Misfit:
                return self.in_two_steps(x)[1](dy, learn, inputs)
            if inputs:
                return device.gemm(dh, W.T)  # dx (B, n_in)

        return y, backward

    def in_two_steps(self, x):
        """The same for arrays that the kernels do not take."""
        h, back_linear = plain("layers.Linear.forward")(self.linear, x, None)
        y, back_f = plain("activations.Activation.forward")(self.f, h, None)
        return y, lambda dy, learn=True, inputs=True: back_linear(back_f(dy), learn, inputs)


def as_marked(layer, method):
    """Whether a layer's forward is the marked one, not overridden in a subclass or replaced, e.g. to record activations."""
    return type(layer).forward is MARKED[f"{NN}.{method}"] and "forward" not in vars(layer)


def joined(layers):
    """The layers, with each Linear and the activation after it replaced by one step."""
    steps = []
    for layer in layers:
        before = steps[-1] if steps else None
        if (
            form_of(before, "forward") is linear
            and form_of(layer, "forward") is activation
            and as_marked(before, "layers.Linear.forward")
            and as_marked(layer, "activations.Activation.forward")
        ):
            steps[-1] = LinearActivation(before, layer)
        else:
            steps.append(layer)
    return steps


@form("layer.Sequential.forward")
def sequential(network, x, rng):
    faster = SimpleNamespace(layers=joined(network.layers), same_weights=network.same_weights)
    return plain("layer.Sequential.forward")(faster, x, rng)


# ---- losses and distributions ----


@form("losses.bernoulli")
def bernoulli(logits, x, scale=1.0):
    return device_of(logits).elementwise(BERNOULLI, (logits, x, scale))


@form("losses.square")
def square(x_hat, x, scale=1.0):
    return device_of(x_hat).elementwise(SQUARE, (x_hat, x, scale))


BOUNDS = -30.0, 10.0  # of log σ², as in nn/distributions.py


@form("distributions.gaussian_posterior")
def gaussian_posterior(h, rng):
    if h.ndim != 2 or h.shape[1] % 2:
        return plain("distributions.gaussian_posterior")(h, rng)
    device, n, scale = device_of(h), h.shape[1] // 2, 1 / len(h)
    mu, raw = h[:, :n], h[:, n:]
    eps = rng.normal(mu.shape)
    z, noise, kl = device.elementwise(POSTERIOR, (mu, raw, eps, *BOUNDS, scale))  # noise: σ ε

    def backward(d_both):
        dz, d_kl = d_both
        dh = array_module(h).empty_like(h)
        try:
            device.elementwise(POSTERIOR_BACKWARD, (dz, mu, raw, noise, d_kl, *BOUNDS, scale, dh[:, :n], dh[:, n:]))
        except Misfit:
            drawn = SimpleNamespace(normal=lambda shape: eps)  # the same noise once more
            return plain("distributions.gaussian_posterior")(h, drawn)[1](d_both)
        return dh

    return (z, kl.sum()), backward


# ---- optimizers ----


@form("optim.adam")
def adam(theta, g, m, v, beta1, beta2, rate, eps, keep):
    numbers = beta1, 1 - beta1, beta2, 1 - beta2, rate, eps, keep
    device_of(g).elementwise(ADAM, (g, *numbers, theta, m, v))


@form("optim.move_towards")
def move_towards(average, theta, rate):
    device_of(theta).elementwise(MOVE_TOWARDS, (theta, rate, average))
