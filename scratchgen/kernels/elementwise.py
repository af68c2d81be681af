"""Elementwise kernels in C++, for a GPU and for the CPU. nn/ has the same computations in plain NumPy, under the same names.

Write a kernel only if it replaces at least three launches in every step, or passes that NumPy is slow at. Write constants as
T(0.5), because 0.5 alone is a double. Let nan stay nan: write x < 0 ? 0 : x, not x > 0 ? x : 0. Add a form that uses the
kernel to compiled.py, and what it computes to tests/simcupy/twins.py. `pytest tests/kernels` then compares the two.
"""

import functools


class Kernel:
    """An elementwise computation of outputs from arrays and numbers, in C++ (T is float or double).

    The arrays are broadcast as in NumPy, and the first is no Python number; the others may be. A device makes the output
    arrays, or writes into them if they are given too.
    """

    def __init__(self, name, arrays, numbers, outputs, code):
        self.name, self.arrays, self.numbers, self.outputs, self.code = name, arrays, numbers, outputs, code
        self.inputs = ", ".join(filter(None, [arrays, numbers]))
        self.compiled = None  # the kernel that a GPU's compiler has compiled


# ---- losses: each number's share of the value, and its gradient ----

BERNOULLI = Kernel(
    "bernoulli",
    "T logits, T x",
    "T scale",
    "T nll, T d",
    """
    T t = tanh(logits / 2);
    nll = scale * ((logits < 0 ? T(0) : logits) - logits * x - log(T(0.5) + (t < 0 ? -t : t) / 2));
    d = scale * (T(0.5) + t / 2 - x);
    """,
)

SQUARE = Kernel(
    "square",
    "T x_hat, T x",
    "T scale",
    "T square, T d",
    "T e = x_hat - x; square = scale * e * e; d = 2 * scale * e;",
)

# ---- a Gaussian code: its noise and its KL ----

POSTERIOR = Kernel(
    "posterior",
    "T mu, T raw, T eps",
    "T low, T high, T scale",
    "T z, T noise, T kl",
    """
    T log_var = raw < low ? low : raw > high ? high : raw;
    noise = exp(log_var / 2) * eps;
    z = mu + noise;
    kl = scale / 2 * (mu * mu + exp(log_var) - 1 - log_var);
    """,
)

POSTERIOR_BACKWARD = Kernel(
    "posterior_backward",
    "T dz, T mu, T raw, T noise",
    "T d_kl, T low, T high, T scale",
    "T d_mu, T d_raw",
    """
    d_mu = dz + d_kl * scale * mu;
    d_raw = raw < low || raw > high ? T(0) : (noise * dz + d_kl * scale * (exp(raw) - 1)) / 2;
    """,
)

# ---- optimizers ----

ADAM = Kernel(
    "adam",
    "T g",
    "T beta1, T rest1, T beta2, T rest2, T rate, T eps, T keep",  # rest: 1 - β, which is inexact in float32
    "T theta, T m, T v",
    """
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * (g * g);
    theta = keep * theta - rate * (m / (sqrt(v) + eps));
    """,
)

MOVE_TOWARDS = Kernel("move_towards", "T theta", "T rate", "T average", "average += rate * (theta - average);")

# ---- layers ----

ADD_BIAS = Kernel("add_bias", "T b", "", "T y", "y += b;")

KERNELS = (ADD_BIAS, BERNOULLI, SQUARE, POSTERIOR, POSTERIOR_BACKWARD, ADAM, MOVE_TOWARDS)

# ---- activations, alone or with the bias before them: f and f′ of x, y = f(x) and the setting a ----

SIGMOID = "(T(0.5) + T(0.5) * tanh(x / 2))"
TANH_U = "tanh(T(0.7978845608028654) * (x + T(0.044715) * x * x * x))"  # √(2/π)

ACTIVATIONS = {
    "ReLU": ("x < 0 ? 0 : x", "y > 0 ? 1 : 0"),
    "LeakyReLU": ("x < 0 ? a * x : x", "x > 0 ? 1 : a"),
    "ELU": ("x < 0 ? a * expm1(x) : x", "x > 0 ? 1 : y + a"),
    "Tanh": ("tanh(x)", "1 - y * y"),
    "Sigmoid": (SIGMOID, "y * (1 - y)"),
    "Softplus": ("(x < 0 ? 0 : x) + log1p(exp(x < 0 ? x : -x))", SIGMOID),
    "SiLU": (f"x * {SIGMOID}", f"{SIGMOID} + y * (1 - {SIGMOID})"),
    "GELU": (
        f"x / 2 * (1 + {TANH_U})",
        f"(1 + {TANH_U}) / 2 + x / 2 * (1 - {TANH_U} * {TANH_U}) * T(0.7978845608028654) * (1 + T(0.134145) * x * x)",
    ),
}


@functools.cache
def activation_kernels(name):
    """Three Kernels for an activation in ACTIVATIONS: f, its backward, and f after a bias."""
    f, df = ACTIVATIONS[name]
    return (
        Kernel(name, "T x", "T a", "T y", f"y = {f};"),
        Kernel(f"{name}_backward", "T dy, T x, T y", "T a", "T dx", f"dx = dy * ({df});"),
        Kernel(f"bias_{name}", "T b", "T a", "T x, T y", f"x += b; y = {f};"),
    )
