"""Differential equations: how to follow a velocity from noise to data and back, and what it says about log p(x).

    dx/dt = u(x, t)                                                  ODE: there is one velocity at each point and time
    d log p_t(x_t)/dt = -div u(x_t, t),   div u = Σ_i ∂u_i/∂x_i      where velocities spread out, the density falls
    dx = (u + ½ g² s) dt + g dW,          s = ∇ log p_t              SDE: noise on the way, and the same p_t at each time

The second line is from Chen et al. 2018, the third from Song et al. 2021, section 4.3 and appendix D.1. There g(t) >= 0 may
be any function of time: the noise g dW drives x away from where it is probable, and the score s pulls it back as strongly.

In flow matching t runs from 0, noise, to 1, data. Here any times will do, and they may rise or fall. A solver is a generator
that yields (t, x_t) at each of them.
"""

import math
from itertools import pairwise

from ...backend import UsageError, array_module

H = 1e-20  # of the complex step: so small that its square is lost, and no difference of two numbers is taken


def euler(u, x, t, h):
    """x at time t + h, by the velocity at t. The error of a step is of order h², so that of the whole way of order h."""
    return x + h * u(x, t)


def heun(u, x, t, h):
    """x at time t + h, by the mean of the velocities at both ends. The error of the whole way is of order h²."""
    first = u(x, t)
    return x + 0.5 * h * (first + u(x + h * first, t + h))


def rk4(u, x, t, h):
    """x at time t + h, by the classical Runge–Kutta step. The error of the whole way is of order h⁴."""
    k1 = u(x, t)
    k2 = u(x + 0.5 * h * k1, t + 0.5 * h)
    k3 = u(x + 0.5 * h * k2, t + 0.5 * h)
    k4 = u(x + h * k3, t + h)
    return x + (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4)


SOLVERS = {"euler": euler, "heun": heun, "rk4": rk4}  # they take 1, 2 and 4 velocities for a step


def even_times(start, end, n_steps):
    """n_steps + 1 times from start to end, as Python floats. Raises UsageError for n_steps < 1."""
    if n_steps < 1:
        raise UsageError(f"a solver takes 1 step or more, got n_steps={n_steps}")
    return [start + (end - start) * i / n_steps for i in range(n_steps)] + [end]


def solve(u, x, times, method="heun", last=None):
    """Yields (t, x_t) at each of the times, from x (n, D) at the first. u(x, t) -> (n, D) for a float t.

    last: the method of the last step, if it is another one. Raises UsageError for an unknown method.
    """
    if method not in SOLVERS:
        raise UsageError(f"method {method!r} is unknown: use one of {', '.join(SOLVERS)}")
    yield times[0], x
    for t, after in pairwise(times):
        step = SOLVERS[last if last and after == times[-1] else method]
        x = step(u, x, t, after - t)
        yield after, x


def solve_sde(u_and_score, g, x, times, rng):
    """Yields (t, x_t) as solve does, for times that rise, by steps of Euler–Maruyama: x + h (u + ½ g² s) + g √h ε.

    u_and_score(x, t) -> (u, s), both (n, D). g(t) is a float; with g = 0 this is Euler's method.
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
    """(u(x, t), its divergence (n,)). The divergence Σ_i Im u_i(x + ih e_i)/h is exact: see check/derivative.py.

    u must take complex x. It is called once for each of the D axes. The real part of what it returns is u(x, t) itself.
    """
    total = 0.0
    for i in range(x.shape[1]):
        moved = x.astype("complex64" if x.dtype == "float32" else "complex128")
        moved[:, i] += 1j * H
        found = u(moved, t)
        total = total + found.imag[:, i] / H
    return found.real, total


def log_density(u, x, times, log_p_end, method="rk4"):
    """log p(x) in nats (n,) of x (n, D) at the first of the times. log_p_end(x) is the known log p at the last one.

    With the first time t and the last time s, log p_t(x_t) = log p_s(x_s) + ∫_t^s div u(x_r, r) dr. The solver follows x and
    the integral together. Each velocity that the method needs takes D calls of u.
    """
    xp = array_module(x)

    def both(state, t):  # state (n, D + 1): x, and the integral so far
        velocity, divergence = with_divergence(u, state[:, :-1], t)
        return xp.concatenate([velocity, divergence[:, None]], axis=1)

    start = xp.concatenate([x, xp.zeros_like(x[:, :1])], axis=1)
    *_, (_, end) = solve(both, start, times, method)
    return log_p_end(end[:, :-1]) + end[:, -1]
