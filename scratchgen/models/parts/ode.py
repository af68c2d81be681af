"""Differential equations: following a velocity from noise to data, back again, and what that says about log p(x).

    dx/dt = u(x, t)                                        the ODE: a sample follows one velocity at each point and time
    d log p_t(x_t)/dt = -div u(x_t, t),   div u = Σ_i ∂u_i/∂x_i     and its density falls where the velocities spread out
    dx = (u + ½ g² s) dt + g dW,   s = ∇ log p_t           the SDE with the same marginals p_t, for any g(t) >= 0

Chen et al. 2018 (the second line); Song et al. 2021, section 4.3 and appendix D.1 (the third: the score s pulls towards more
probable x as strongly as the noise g dW drives away from them). Time here is t in [0, 1], noise at 0, data at 1, unless a
model says otherwise. A solver is a generator that yields (t, x_t) at each of the given times; they may rise or fall.
"""

import math
from itertools import pairwise

from ...backend import UsageError, array_module

H = 1e-20  # of the complex step: so small that its square is lost, and no difference of two numbers is taken


def euler(u, x, t, h):
    """x_{t+h}, with an error of order h² a step, so of order h in all."""
    return x + h * u(x, t)


def heun(u, x, t, h):
    """The same by the mean of the velocities at both ends (the trapezium): of order h² in all."""
    first = u(x, t)
    return x + 0.5 * h * (first + u(x + h * first, t + h))


def rk4(u, x, t, h):
    """The classical Runge-Kutta step, Simpson's rule along the way: of order h⁴ in all."""
    k1 = u(x, t)
    k2 = u(x + 0.5 * h * k1, t + 0.5 * h)
    k3 = u(x + 0.5 * h * k2, t + 0.5 * h)
    k4 = u(x + h * k3, t + h)
    return x + (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4)


SOLVERS = {"euler": euler, "heun": heun, "rk4": rk4}
EVALUATIONS = {"euler": 1, "heun": 2, "rk4": 4}  # of u in each step


def even_times(start, end, n_steps):
    """n_steps + 1 times from start to end, as Python floats. Raises UsageError for n_steps < 1."""
    if n_steps < 1:
        raise UsageError(f"a solver takes 1 step or more, got n_steps={n_steps}")
    return [start + (end - start) * i / n_steps for i in range(n_steps)] + [end]


def solve(u, x, times, method="heun"):
    """Yields (t, x_t) at each of the times, from x (n, D) at the first. u(x, t) -> (n, D) for a float t.

    Raises UsageError for an unknown method.
    """
    if method not in SOLVERS:
        raise UsageError(f"method {method!r} is unknown: use one of {', '.join(SOLVERS)}")
    step = SOLVERS[method]
    yield times[0], x
    for t, after in pairwise(times):
        x = step(u, x, t, after - t)
        yield after, x


def solve_sde(u_and_score, g, x, times, rng):
    """Yields (t, x_t) as solve does, by Euler–Maruyama: x + h (u + ½ g² s) + g √h ε. Times rise; g(t) is a float.

    u_and_score(x, t) -> (u, s), both (n, D). With g = 0 this is Euler's method.
    """
    yield times[0], x
    for t, after in pairwise(times):
        h, scale = after - t, g(t)
        u, s = u_and_score(x, t)
        x = x + h * (u + (0.5 * scale**2) * s)
        if scale:
            x = x + (scale * math.sqrt(h)) * rng.normal(x.shape)
        yield after, x


def with_divergence(u, x, t):
    """(u(x, t), its divergence (n,)), exact, by one complex step along each of the D axes: Im u_i(x + ih e_i) / h.

    u must take complex x. The first of the D passes also gives u itself, as its real part.
    """
    total, value = 0.0, None
    for i in range(x.shape[1]):
        moved = x.astype("complex64" if x.dtype == "float32" else "complex128")
        moved[:, i] += 1j * H
        found = u(moved, t)
        value = found.real if value is None else value
        total = total + found.imag[:, i] / H
    return value, total


def log_density(u, x, times, log_p_start, method="rk4"):
    """log p(x) in nats (n,) of x (n, D) at the first time, if log_p_start(x) is log p at the last, where x has arrived.

    x and log p are solved together: along the way from the first time t to the last s, log p_t(x_t) = log p_s(x_s) + ∫_t^s
    div u. A step costs D passes of u for each evaluation of the method.
    """
    xp = array_module(x)

    def both(state, t):  # (n, D + 1): x and the integral so far
        velocity, divergence = with_divergence(u, state[:, :-1], t)
        return xp.concatenate([velocity, divergence[:, None]], axis=1)

    start = xp.concatenate([x, xp.zeros_like(x[:, :1])], axis=1)
    *_, (_, end) = solve(both, start, times, method)
    return log_p_start(end[:, :-1]) + end[:, -1]
