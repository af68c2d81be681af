"""The few operations that are worth a GPU kernel of their own, each beside plain NumPy that says what it computes.

Starting an operation on a GPU costs the host ten to forty microseconds, however small it is. A VAE's training step written
in plain array operations starts some ninety and waits for little else; with what stands here it starts 29. On NumPy arrays,
and on complex ones, the plain twin runs: that is the code to read, and what the gradient checks check.

A kernel of your own pays where it makes one of three launches or more in every step. Write the twin, with the inputs' names
as its parameters, then the outputs' if it writes into arrays that it is given; above it @kernel with the same formula in
CUDA. There write T(0.5), as 0.5 alone is a double; and let nan stay nan: x < 0 ? 0 : x, not x > 0 ? x : 0. `pytest
tests/kernels/test_kernels.py` finds it and compares the two.
"""

import functools

from ..backend import array_module
from .cuda import Cuda

DEVICES = {"cupy": Cuda()}  # {name of an array module: what runs kernels on its arrays}; all others run the plain twins


def device_of(*arrays):
    """What runs kernels on these arrays, or None where the plain twins do. The first must be an array."""
    return DEVICES.get(array_module(*arrays).__name__) if arrays[0].dtype.char in "fd" else None


class Kernel:
    """Number by number, outputs from inputs: code in CUDA C++ (T is float or double), twin in NumPy.

    Called with the inputs it returns the outputs, a fresh array or a tuple of them; called with inputs and outputs it
    writes into these. Inputs are arrays, broadcast as NumPy does, or Python numbers; the first is an array. settings: a
    value for each input that is a number, with which the tests try it.
    """

    def __init__(self, name, inputs, outputs, code, twin, settings):
        self.name, self.inputs, self.outputs, self.code, self.twin = name, inputs, outputs, code, twin
        self.settings = settings
        self.compiled = None

    def __call__(self, *arrays):
        device = device_of(*arrays)
        return self.twin(*arrays) if device is None else device.elementwise(self, arrays)


def kernel(inputs, outputs, code, **settings):
    """Makes a Kernel of the plain twin below it."""
    return lambda twin: functools.wraps(twin)(Kernel(twin.__name__, inputs, outputs, code, twin, settings))


# ---- losses: each number's share of the value, and its gradient ----


@kernel(
    "T logits, T x, T scale",
    "T nll, T d",
    """
    T t = tanh(logits / 2);
    nll = scale * ((logits < 0 ? T(0) : logits) - logits * x - log(T(0.5) + (t < 0 ? -t : t) / 2));
    d = scale * (T(0.5) + t / 2 - x);
    """,
    scale=0.25,
)
def bernoulli(logits, x, scale):
    """scale · (softplus(l) - x l) and scale · (p - x), from one tanh: see losses.bernoulli_nll."""
    xp = array_module(logits)
    t = xp.tanh(0.5 * logits)
    nll = xp.maximum(logits, 0)  # in place from here on, for speed: nll = max(l, 0) - x l - log(½ + ½ |t|)
    nll -= logits * x
    nll -= xp.log(0.5 + 0.5 * xp.maximum(t, -t))
    nll *= scale
    t *= 0.5  # t becomes the gradient
    t += 0.5 - x
    t *= scale
    return nll, t


@kernel(
    "T x_hat, T x, T scale", "T square, T d", "T e = x_hat - x; square = scale * e * e; d = 2 * scale * e;", scale=0.25
)
def square(x_hat, x, scale):
    """scale · (x̂ - x)² and its derivative."""
    difference = x_hat - x
    return difference * difference * scale, difference * (2 * scale)


@kernel(
    "T mu, T log_var, T scale",
    "T kl, T d_mu, T d_log_var",
    """
    T variance = exp(log_var);
    kl = scale / 2 * (mu * mu + variance - 1 - log_var);
    d_mu = scale * mu;
    d_log_var = scale / 2 * (variance - 1);
    """,
    scale=0.25,
)
def kl_normal(mu, log_var, scale):
    """scale · ½ (μ² + σ² - 1 - log σ²) and its two derivatives."""
    variance = array_module(mu).exp(log_var)
    kl = (mu * mu + variance - 1 - log_var) * (0.5 * scale)
    return kl, mu * scale, (variance - 1) * (0.5 * scale)


# ---- a Gaussian code: its noise and its KL ----


@kernel(
    "T mu, T raw, T eps, T low, T high, T scale",
    "T z, T noise, T kl",
    """
    T log_var = raw < low ? low : raw > high ? high : raw;
    noise = exp(log_var / 2) * eps;
    z = mu + noise;
    kl = scale / 2 * (mu * mu + exp(log_var) - 1 - log_var);
    """,
    low=-2.0,
    high=1.5,
    scale=0.25,
)
def posterior(mu, raw, eps, low, high, scale):
    """z = μ + σ ε, σ ε, and scale · KL, all (B, D): see distributions.gaussian_posterior."""
    xp = array_module(mu)
    log_var = xp.maximum(xp.minimum(raw, high), low)
    noise = xp.exp(0.5 * log_var) * eps
    return mu + noise, noise, (mu * mu + xp.exp(log_var) - 1 - log_var) * (0.5 * scale)


@kernel(
    "T dz, T d_kl, T mu, T raw, T noise, T low, T high, T scale",
    "T d_mu, T d_raw",
    """
    d_mu = dz + d_kl * scale * mu;
    d_raw = raw < low || raw > high ? T(0) : (noise * dz + d_kl * scale * (exp(raw) - 1)) / 2;
    """,
    d_kl=0.7,
    low=-2.0,
    high=1.5,
    scale=0.25,
)
def posterior_backward(dz, d_kl, mu, raw, noise, low, high, scale, d_mu, d_raw):
    """The gradients of posterior, written into d_mu and d_raw; 0 in d_raw where log σ² hit its bounds."""
    xp = array_module(dz)
    log_var = xp.maximum(xp.minimum(raw, high), low)
    d_mu[...] = dz + d_kl * scale * mu
    beyond = (raw < low) | (raw > high)
    d_raw[...] = xp.where(beyond, 0, 0.5 * (noise * dz + d_kl * scale * (xp.exp(log_var) - 1)))


# ---- optimizers ----


@kernel(
    "T g, T beta1, T beta2, T rate, T eps, T keep",
    "T theta, T M, T V",
    "M = beta1 * M + g; V = beta2 * V + g * g; theta = keep * theta - rate * M / (sqrt(V) + eps);",
    beta1=0.9,
    beta2=0.999,
    rate=0.01,
    eps=1e-3,
    keep=0.99,
)
def adam(g, beta1, beta2, rate, eps, keep, theta, M, V):
    """M ← β1 M + g,   V ← β2 V + g²,   θ ← keep θ - rate M / (√V + eps), all in place: see optim.Adam."""
    xp = array_module(g)
    M *= beta1
    M += g
    V *= beta2
    scratch = g * g
    V += scratch
    xp.sqrt(V, out=scratch)
    scratch += eps
    xp.divide(M, scratch, out=scratch)
    scratch *= rate
    if keep != 1:
        theta *= keep
    theta -= scratch


@kernel("T theta, T rate", "T average", "average += rate * (theta - average);", rate=0.1)
def move_towards(theta, rate, average):
    """θ̄ ← θ̄ + rate (θ - θ̄), in place: see optim.EMA."""
    average += rate * (theta - average)


# ---- an activation f, alone or with the bias before it ----
# f is an Activation. Its attribute cuda states f(x) and f′ of x and y = f(x) in CUDA; without it, f.f and f.df do all.


def activation_kernels(f):
    """{name: Kernel} of an Activation, which keeps them as f.kernels: f, its backward, and f after a bias."""
    forward, backward = f.cuda
    name = type(f).__name__

    def add_bias(b, a, x, y):
        x += b
        y[...] = f.f(array_module(x), x)

    return {
        "forward": Kernel(name, "T x, T a", "T y", f"y = {forward};", lambda x, a: f.f(array_module(x), x), {"a": f.a}),
        "backward": Kernel(
            f"{name}_backward", "T dy, T x, T y, T a", "T dx", f"dx = dy * ({backward});",
            lambda dy, x, y, a: dy * f.df(array_module(x), x, y), {"a": f.a},
        ),
        "bias": Kernel(f"bias_{name}", "T b, T a", "T x, T y", f"x += b; y = {forward};", add_bias, {"a": f.a}),
    }  # fmt: skip


def activate(f, x):
    """y = f(x)."""
    if device_of(x) and f.cuda:
        return f.kernels["forward"](x, f.a)
    return f.f(array_module(x), x)


def activate_backward(f, dy, x, y):
    """dx = f′(x) dy."""
    if device_of(dy) and f.cuda:
        return f.kernels["backward"](dy, x, y, f.a)
    return dy * f.df(array_module(x), x, y)


def bias_activate(f, x, b):
    """x ← x + b in place, and y = f(x).      x (B, n), b (n,)"""
    if device_of(x) and f.cuda:
        return f.kernels["bias"](b, f.a, x, array_module(x).empty_like(x))[1]
    x += b
    return activate(f, x)


def bias_activate_backward(f, dy, x, y, db):
    """dx = f′(x) dy, and db ← db + Σ_batch dx.      dy, x, y (B, n), db (n,)"""
    device = device_of(dy)
    if device and f.cuda:
        return device.add_rows(db, dy, f, x, y)
    dx = activate_backward(f, dy, x, y)
    add_rows(db, dx)
    return dx


# ---- sums over the batch, and matrix products that add to what is there ----


def add_rows(db, dy):
    """db ← db + Σ_batch dy.      db (n,), dy (B, n)"""
    device = device_of(dy)
    if device:
        device.add_rows(db, dy)
    else:
        db += dy.sum(axis=0)


def matmul(a, b):
    """a b.      (n, k), (k, m) -> (n, m)"""
    device = device_of(a, b)
    return device.gemm(a, b) if device else a @ b


def add_matmul(out, a, b):
    """out ← out + a b.      out (n, m), a (n, k), b (k, m)"""
    device = device_of(a, b)
    if device:
        device.gemm(a, b, out)
    else:
        out += a @ b
