"""The solvers, and log p by the divergence: their order, there and back again, and exact fields whose density is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError
from scratchgen.data import TOYS
from scratchgen.data.toys import Mixture
from scratchgen.models.ddpm import DDPM, SMALL
from scratchgen.models.flow_matching import FlowMatching, line
from scratchgen.models.parts.denoiser import Denoiser
from scratchgen.models.parts.denoising import standard_normal
from scratchgen.models.parts.diffusion import mixture_mean
from scratchgen.models.parts.ode import SOLVERS, even_times, log_density, solve, solve_sde, with_divergence
from scratchgen.models.parts.predictions import converted
from scratchgen.nn.parameters import Parameters

F64 = "float64"
SMOOTH = Mixture("smooth", 0.5, [[-1, 0.3], [1, -0.5]], [0.4, 0.6])


def exact(toy):
    """The velocity E[x - ε | x_t] on the straight way from N(0, I) to a toy, also at t = 1 and for complex x."""

    def u(x, t):
        a, b, c = t, 1 - t, toy.nodes
        variance = (a * toy.sigma) ** 2 + b**2  # of x_t around a c_k
        log_r = np.log(toy.weights) - ((x[:, None] - a * c) ** 2).sum(axis=2) / (2 * variance)
        r = np.exp(log_r - log_r.real.max(axis=1, keepdims=True))
        mean = (r / r.sum(axis=1, keepdims=True)) @ c
        return mean + (a * toy.sigma**2 - b) / variance * (x - a * mean)

    return u


def end(path):
    *_, (_, x) = path
    return x


def test_the_exact_field_is_that_of_the_exact_mean():
    x = Rng(1, F64).normal((7, 2))
    for t in (0.0, 0.3, 0.9):
        x_0 = mixture_mean(SMOOTH.nodes, SMOOTH.weights, SMOOTH.sigma)(x, t, 1 - t)
        np.testing.assert_allclose(exact(SMOOTH)(x, t), converted("x0", x_0, "velocity", x, *line(t)), atol=1e-12)


# ---- solvers ----


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_error_of_a_solver_falls_with_its_order(method, order):
    u, x = exact(SMOOTH), Rng(1, F64).normal((20, 2))
    truth = end(solve(u, x, even_times(0, 1, 1000), "rk4"))
    steps = [20, 40, 80] if order < 4 else [10, 20, 40]
    errors = [np.abs(end(solve(u, x, even_times(0, 1, n), method)) - truth).mean() for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15), errors


def test_every_solver_is_tried_above():
    assert set(SOLVERS) == {"euler", "heun", "rk4"}


@pytest.mark.parametrize("method", SOLVERS)
def test_a_step_by_hand(method):
    """Of dx/dt = x every step multiplies by the first terms of eʰ."""
    x, h = Rng(1, F64).normal((3, 2)), 0.3
    n_terms = {"euler": 2, "heun": 3, "rk4": 5}[method]
    factor = sum(h**k / math.factorial(k) for k in range(n_terms))
    (start, found), (t, after) = solve(lambda x, t: x, x, [1.0, 1.0 + h], method)
    assert (start, t) == (1.0, 1.3) and found is x
    np.testing.assert_allclose(after, factor * x, rtol=1e-14)


@pytest.mark.parametrize("method", ["heun", "rk4"])
def test_there_and_back_again(method):
    u, x = exact(SMOOTH), Rng(1, F64).normal((20, 2))
    times = even_times(0, 1, 200)
    there = end(solve(u, x, times, method))
    assert np.abs(there - x).max() > 0.3
    back = end(solve(u, there, times[::-1], method))
    np.testing.assert_allclose(back, x, atol={"heun": 1e-3, "rk4": 1e-8}[method])


def test_the_last_step_may_be_of_another_method():
    u, x, times = exact(SMOOTH), Rng(1, F64).normal((5, 2)), even_times(0, 1, 4)
    found = end(solve(u, x, times, "rk4", last="euler"))
    before = end(solve(u, x, times[:-1], "rk4"))
    assert (found == before + 0.25 * u(before, 0.75)).all()


def test_times_are_even_and_end_where_they_should():
    assert even_times(0.0, 1.0, 4) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert even_times(1.0, 0.0, 3)[-1] == 0.0 and len(even_times(1.0, 0.0, 3)) == 4
    assert all(type(t) is float for t in even_times(0.0, 1.0, 7))


def test_no_steps_and_unknown_methods_are_refused_in_one_line():
    for n in (0, -1):
        with pytest.raises(UsageError, match=f"1 step or more, got n_steps={n}$"):
            even_times(0, 1, n)
    with pytest.raises(UsageError, match=r"^method 'midpoint' is unknown: use one of euler, heun, rk4$"):
        end(solve(lambda x, t: x, np.zeros((1, 1)), [0, 1], "midpoint"))


# ---- the divergence ----


@pytest.mark.parametrize("dtype", ["float32", F64])
@given(seed=st.integers(0, 10_000), D=st.integers(1, 5))
def test_the_divergence_is_the_trace_of_the_jacobian(dtype, seed, D):
    """Of x A it is tr A everywhere; of tanh(x A) B it is Σ_ij (1 - tanh²)_j A_ij B_ji."""
    rng = Rng((seed, 1), dtype)
    x, A, B = rng.normal((4, D)), rng.normal((D, 3)), rng.normal((3, D))
    tolerance = {"float32": 1e-5, F64: 1e-13}[dtype]
    value, found = with_divergence(lambda x, t: t * x @ (A @ B), x, 2.0)
    assert value.dtype == found.dtype == dtype and found.shape == (4,)
    np.testing.assert_allclose(value, 2 * x @ (A @ B), rtol=1e-4, atol=50 * tolerance)
    np.testing.assert_allclose(found, 2 * np.trace(A @ B), rtol=1e-4, atol=50 * tolerance)
    value, found = with_divergence(lambda x, t: np.tanh(x @ A) @ B, x, 0.0)
    h = np.tanh(x @ A)
    np.testing.assert_allclose(value, h @ B, atol=50 * tolerance)
    np.testing.assert_allclose(found, ((1 - h**2) * (A * B.T).sum(axis=0)).sum(axis=1), atol=50 * tolerance)


@pytest.mark.parametrize("dtype", ["float32", F64])
def test_the_divergence_of_a_network_is_that_of_its_backward_pass(dtype):
    """The gradient of f_i, written by hand, has ∂f_i/∂x_i as its entry i."""
    net, (x, t, labels) = Denoiser.example(Rng(1, dtype))
    Parameters(Rng(2, dtype), net=net)

    def u(x, s):
        return net((x, t, labels))

    value, found = with_divergence(u, x, 0.0)
    f, backward = net.forward((x, t, labels), None)
    wanted = sum(backward(np.tile(unit, (5, 1)), learn=False)[0][:, i] for i, unit in enumerate(np.eye(3, dtype=dtype)))
    tolerance = {"float32": 1e-5, F64: 1e-13}[dtype]
    np.testing.assert_allclose(value, f, atol=tolerance)
    np.testing.assert_allclose(found, wanted, atol=tolerance)


# ---- log p ----


def errors(name, n_points, n_steps):
    toy = TOYS[name]
    x = toy.sample(n_points, Rng(3, F64))
    found = log_density(exact(toy), x, even_times(1, 0, n_steps), standard_normal)
    return np.abs(found - toy.log_density(x))


def test_log_p_by_the_exact_field_is_the_toys():
    """The ring has modes of 1 %: it needs 400 steps of RK4, where 200 leave 2e-4 nats."""
    assert errors("ring", 50, 400).mean() < 1e-4


def test_on_the_ode_of_diffusion_too():
    """With the exact ε̂ and the default 200 times: what is left is the law of x_T, which is not quite N(0, I)."""
    model = DDPM(n_features=2, predict="eps", width=4).build(Rng(0, F64))

    def forward(inputs, rng):
        x, t = inputs
        a = float(np.exp(np.interp(t[0], np.arange(201), np.log(model.alpha_bar))))
        x_0 = mixture_mean(SMOOTH.nodes, SMOOTH.weights, SMOOTH.sigma)(x, math.sqrt(a), math.sqrt(1 - a))
        return (x - math.sqrt(a) * x_0) / math.sqrt(1 - a) if a < 1 else 0 * x, None

    model.denoiser.forward = forward
    model.scaler.mean[...], model.scaler.std[...] = 0, 1
    x = SMOOTH.sample(20, Rng(3, F64))
    np.testing.assert_allclose(model.ode_log_prob(x), SMOOTH.log_density(x), atol=1e-3)


@pytest.mark.slow
def test_log_p_by_the_exact_field_of_moons_is_the_toys():
    assert errors("moons", 10, 200).max() < 1e-4


def test_log_p_in_one_dimension_is_a_change_of_variables():
    """For dx/dt = x the map from t = 0 to 1 multiplies by e, so log p falls by 1."""
    x = Rng(1, F64).normal((9, 1))
    found = log_density(lambda x, t: x, math.e * x, even_times(1, 0, 40), standard_normal)
    np.testing.assert_allclose(found, standard_normal(x) - 1, atol=1e-7)


def a_network(model, **settings):
    """A tiny model in the plane with random weights far from 0."""
    model = model(n_features=2, n_classes=3, width=8, n_blocks=1, n_waves=4, scaling="standard", **settings)
    model.build(Rng(1, F64))
    model.params.theta[...] = 0.7 * Rng(2, F64).normal(model.params.theta.shape)
    model.average.average[...] = model.params.theta
    model.scaler.std[...] = [0.5, 1.5]
    return model


@pytest.mark.parametrize(
    "model", [a_network(FlowMatching, predict="velocity"), a_network(DDPM, predict="v", n_times=20, n_steps=5)]
)
def test_a_density_integrates_to_one(model):
    """And does not without the divergence."""
    axes = [np.linspace(-7, 7, 48) * std for std in model.scaler.std]
    x = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(model.ode_log_prob(x, n_steps=25)).sum() * cell == pytest.approx(1, abs=2e-3)
    u, times, log_p = model.ode(20)
    noise = end(solve(u, model.scaler(x), times, "rk4"))
    assert abs(np.exp(log_p(noise)).sum() * cell / np.prod(model.scaler.std) - 1) > 0.1


# ---- diffusion's own ODE, and the SDE ----


@pytest.mark.parametrize("predict", ["v", "eps"])
@pytest.mark.parametrize("n_steps", [4, 20])
def test_ddim_without_noise_is_eulers_method(predict, n_steps):
    """On dx̄/ds = ε̂, x̄ = x/√ᾱ and s = √((1 - ᾱ)/ᾱ), at the same times: Song et al. 2021 (DDIM), eq 13 and 14."""
    model = a_network(DDPM, predict=predict, clip_x0=False, n_times=20, n_steps=5)
    x_T, signal = Rng(3, F64).normal((6, 2)), np.sqrt(model.alpha_bar)
    in_tau, ends, _ = model.ode(2)

    def eps_hat(x, s):  # dx̄/ds, from dx̄/dτ with s = SMALL sinh τ
        return in_tau(x, math.asinh(s / SMALL)) / math.hypot(SMALL, s)

    ddim = list(model.path(x_T, Rng(4, F64), n_steps=n_steps, eta=0.0, sampler="ddim"))
    noise = [float(np.sqrt(1 - model.alpha_bar[t]) / signal[t]) for t, _ in ddim]
    euler = list(solve(eps_hat, x_T / signal[-1], noise, "euler"))
    assert len(ddim) == len(euler) == n_steps + 1
    for (t, x_t), (_, x) in zip(ddim, euler):
        np.testing.assert_allclose(x * signal[t], x_t, rtol=1e-12, atol=1e-12)
    assert ends[0] == 0 and SMALL * math.sinh(ends[-1]) == pytest.approx(noise[0], rel=1e-12)


MEAN, DEVIATION = 1.5, 0.6  # of the data


def moments(t):
    """Mean and variance of x_t = t x + (1 - t) ε."""
    return t * MEAN, (t * DEVIATION) ** 2 + (1 - t) ** 2


def gaussian(x, t):
    """The exact velocity and score where the data are N(MEAN, DEVIATION²)."""
    mean, variance = moments(t)
    return MEAN + (t * DEVIATION**2 - (1 - t)) / variance * (x - mean), -(x - mean) / variance


@pytest.mark.parametrize("eta", [0.0, 0.5, 2.0])
def test_the_sde_has_the_marginals_of_the_ode(eta):
    n, rng = 40_000, Rng((1, 1), F64)
    path = solve_sde(
        gaussian, lambda t: math.sqrt(2 * eta * (1 - t)), rng.normal((n, 1)), even_times(0.0, 1.0, 400), rng
    )
    for t, x in path:
        if t in (0.5, 1.0):
            mean, variance = moments(t)
            assert x.mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / n) + 0.003)  # 400 steps leave a little
            assert x.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / n) + 0.01)


def test_without_noise_the_sde_is_eulers_method_bit_for_bit():
    x, times = Rng(1, F64).normal((9, 1)), even_times(0.0, 1.0, 7)
    ours = list(solve_sde(gaussian, lambda t: 0.0, x, times, Rng(2, F64)))
    wanted = list(solve(lambda x, t: gaussian(x, t)[0], x, times, "euler"))
    assert [t for t, _ in ours] == [t for t, _ in wanted]
    assert all((a == b).all() for (_, a), (_, b) in zip(ours, wanted))
