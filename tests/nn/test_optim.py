"""Every optimizer against the loop its paper prints, one number at a time; clipping, averaged weights and schedules by
what they promise."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Parameters, Rng, Sequential
from scratchgen.nn.layers import Linear, mlp
from scratchgen.nn.norms import BatchNorm
from scratchgen.nn.optim import EMA, SGD, Adam, AdamW, Annealed, RMSProp, clip_by_norm, observed
from scratchgen.nn.schedules import constant, cosine, iwae, steps

SEEDS = st.integers(0, 2**32 - 1)


def parameters(dtype="float64", seed=0):
    return Parameters(Rng(seed, dtype), layer=Linear(3, 2))


# The textbooks: theta and state as lists, g and t given, one rule each. They return the new theta.


def sgd(theta, g, t, memory, lr, momentum=0.0, nesterov=False):
    for i in range(len(theta)):
        memory["v"][i] = momentum * memory["v"][i] + g[i]  # PyTorch's form: lr outside the velocity
        theta[i] -= lr * (g[i] + momentum * memory["v"][i] if nesterov else memory["v"][i])


def rmsprop(theta, g, t, memory, lr, alpha=0.99, eps=1e-8):
    for i in range(len(theta)):
        memory["v"][i] = alpha * memory["v"][i] + (1 - alpha) * g[i] ** 2
        theta[i] -= lr * g[i] / (math.sqrt(memory["v"][i]) + eps)


def adam(theta, g, t, memory, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    for i in range(len(theta)):
        memory["m"][i] = beta1 * memory["m"][i] + (1 - beta1) * g[i]
        memory["v"][i] = beta2 * memory["v"][i] + (1 - beta2) * g[i] ** 2
        m_hat = memory["m"][i] / (1 - beta1**t)
        v_hat = memory["v"][i] / (1 - beta2**t)
        theta[i] -= lr * m_hat / (math.sqrt(v_hat) + eps)


def adamw(theta, g, t, memory, lr, weight_decay=0.01, **rest):
    for i in range(len(theta)):
        theta[i] -= lr * weight_decay * theta[i]
    adam(theta, g, t, memory, lr, **rest)


RULES = [
    (SGD, sgd, {}),
    (SGD, sgd, {"momentum": 0.9}),
    (SGD, sgd, {"momentum": 0.9, "nesterov": True}),
    (RMSProp, rmsprop, {}),
    (RMSProp, rmsprop, {"alpha": 0.5, "eps": 0.1}),
    (Adam, adam, {}),
    (Adam, adam, {"beta1": 0.5, "beta2": 0.9, "eps": 0.1}),
    (Adam, adam, {"beta1": 0.0, "beta2": 0.9}),
    (AdamW, adamw, {}),
    (AdamW, adamw, {"weight_decay": 0.3, "beta1": 0.5}),
]


@pytest.mark.parametrize(("rule", "textbook", "options"), RULES)
@given(seed=SEEDS, lr=st.sampled_from([1e-3, 0.1]), scale=st.sampled_from([1e-4, 1.0, 100.0]))
def test_rule_follows_its_textbook(rule, textbook, options, seed, lr, scale):
    params = parameters(seed=seed)
    optimizer = rule(params, lr, **options)
    theta, n = list(params.theta), params.theta.size
    memory = {"v": [0.0] * n, "m": [0.0] * n}
    rng = Rng(seed, "float64")
    for t in range(1, 8):
        params.grad[...] = scale * rng.normal(n)
        textbook(theta, params.grad, t, memory, lr, **options)
        optimizer.step()
        np.testing.assert_allclose(params.theta, theta, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("rule", "textbook", "options"), RULES)
def test_rule_in_float32_stays_there_and_close(rule, textbook, options):
    params = parameters("float32")
    optimizer = rule(params, constant(0.01), **options)
    theta, n = [float(number) for number in params.theta], params.theta.size
    memory = {"v": [0.0] * n, "m": [0.0] * n}
    for t in range(1, 50):
        params.grad[...] = Rng(t).normal(n)
        textbook(theta, params.grad.astype("float64"), t, memory, 0.01, **options)
        optimizer.step()
    np.testing.assert_allclose(params.theta, theta, rtol=1e-4, atol=1e-5)
    assert params.theta.dtype == np.float32
    assert all(array.dtype == np.float32 for name, array in optimizer.state().items() if name != "t")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_adams_first_step_is_lr_times_the_sign(scale):
    params = parameters()
    before = params.theta.copy()
    params.grad[...] = scale * np.array([1, -2, 3, -4, 5, -6, 7, -8])
    Adam(params, lr=0.01).step()
    np.testing.assert_allclose(params.theta - before, -0.01 * np.sign(params.grad), rtol=2e-5)


def test_zero_gradient_moves_nothing_but_weight_decay():
    for rule in (SGD, RMSProp, Adam):
        params = parameters()
        before = params.theta.copy()
        rule(params, 0.1).step()
        np.testing.assert_array_equal(params.theta, before)
    params = parameters()
    before = params.theta.copy()
    AdamW(params, 0.1, weight_decay=0.5).step()
    np.testing.assert_allclose(params.theta, before * 0.95, rtol=1e-14)


@pytest.mark.parametrize("rule", [SGD, RMSProp, Adam, AdamW])
def test_every_rule_walks_down_a_quadratic(rule):
    params = parameters()
    optimizer = rule(params, cosine(0.05, 400))
    target = Rng(1, "float64").normal(params.theta.size)
    for _ in range(400):
        params.grad[...] = params.theta - target
        optimizer.step()
    assert np.abs(params.theta - target).max() < 0.02


def test_a_step_is_taken_in_place_and_makes_older_closures_stale():
    network = mlp([3, 2])
    params = Parameters(Rng(0, "float64"), network=network)
    optimizer, theta = Adam(params), params.theta
    _, back = network.forward(np.ones((1, 3)), None)
    optimizer.step()
    assert params.theta is theta
    with pytest.raises(RuntimeError, match="call forward again"):
        back(np.ones((1, 2)))


def test_an_optimizer_survives_a_cast():
    """It keeps the Parameters: theta itself is replaced."""
    params = parameters("float32")
    optimizer = Adam(params, lr=0.1)
    params.cast("float64")
    before = params.theta.copy()
    params.grad[...] = 1
    optimizer.step()
    np.testing.assert_allclose(params.theta, before - 0.1, rtol=1e-6)


# State: what a checkpoint lists and writes into.


@pytest.mark.parametrize(("rule", "names"), [(SGD, {"v"}), (RMSProp, {"v"}), (Adam, {"m", "v"}), (AdamW, {"m", "v"})])
def test_state_lists_live_arrays_that_restore_everything(rule, names):
    def gradient(t):
        return Rng(t, "float64").normal(8)

    def run(params, optimizer, times):
        for t in times:
            params.grad[...] = gradient(t)
            optimizer.step()

    params, lr = parameters(), cosine(0.1, 20)
    optimizer = rule(params, lr)
    run(params, optimizer, range(5))
    state = optimizer.state()
    assert set(state) == names | {"t"} and state["t"] == 5
    assert all(state[name] is getattr(optimizer, name) for name in names)
    kept = {name: array.copy() for name, array in state.items()}
    theta = params.theta.copy()
    run(params, optimizer, range(5, 10))

    other = parameters(seed=1)
    resumed = rule(other, lr)
    other.theta[...] = theta
    for name, array in resumed.state().items():
        array[...] = kept[name]
    run(other, resumed, range(5, 10))
    assert other.theta.tobytes() == params.theta.tobytes()


# Clipping.


def test_adams_m_and_v_are_those_of_the_paper():
    params, memory = parameters(), {"m": 8 * [0.0], "v": 8 * [0.0]}
    optimizer, theta = Adam(params, 0.1), params.theta.tolist()
    for t in range(1, 6):
        params.grad[...] = g = Rng(t, "float64").normal(8)
        optimizer.step()
        adam(theta, g.tolist(), t, memory, 0.1)
    for name, expected in memory.items():
        np.testing.assert_allclose(optimizer.state()[name], expected, rtol=1e-12)


def test_an_observer_sees_every_step_and_may_change_its_numbers():
    params = parameters()
    params.grad[...] = 1.0
    sgd, average, seen = SGD(params, 0.5), EMA(params, 0.9), []

    def halve(stepper, numbers):
        seen.append((stepper, int(stepper.t[0])))
        return tuple(0.5 * number for number in numbers)

    before = params.theta.copy()
    with observed(halve):
        sgd.step()
        average.step()
    np.testing.assert_allclose(params.theta, before - 0.25)
    assert seen == [(sgd, 1), (average, 1)]
    sgd.step()
    assert len(seen) == 2
    np.testing.assert_allclose(params.theta, before - 0.75)


def test_an_annealed_number_is_that_of_its_step_also_after_loading():
    number = Annealed(parameters(), lambda step: 10.0 - step)
    assert number.value == 10
    for expected in (10, 9, 8):
        number.step()
        assert number.value == expected
    number.state()["t"][...] = 6
    number.loaded()
    assert number.value == 5


@given(seed=SEEDS, max_norm=st.floats(0.01, 100))
def test_clipping_keeps_the_direction_and_bounds_the_length(seed, max_norm):
    params = parameters()
    g = Rng(seed, "float64").normal(8)
    params.grad[...] = g
    norm = clip_by_norm(params, max_norm)
    assert norm == pytest.approx(np.linalg.norm(g), rel=1e-12)
    np.testing.assert_allclose(params.grad, g * min(1, max_norm / np.linalg.norm(g)), rtol=1e-9)
    assert np.linalg.norm(params.grad) <= max_norm * (1 + 1e-12)


def test_clipping_leaves_short_and_zero_gradients_alone_in_float32():
    params = parameters("float32")
    assert clip_by_norm(params, 1.0) == 0 and not params.grad.any()
    params.grad[...] = g = Rng(0).normal(8)
    assert clip_by_norm(params, 100.0).dtype == np.float32
    np.testing.assert_array_equal(params.grad, g)


# Averaged weights.


def test_ema_is_its_recursion():
    params = parameters()
    ema, average = EMA(params, decay=0.9), params.theta.copy()
    for t in range(1, 150):
        params.theta += Rng(t, "float64").normal(8)
        ema.step()
        d = min(0.9, (1 + t) / (10 + t))
        average = d * average + (1 - d) * params.theta
    np.testing.assert_allclose(ema.average, average, rtol=1e-11)
    assert set(ema.state()) == {"average", "t"} and ema.state()["average"] is ema.average
    assert ema.state()["t"] == 149


def test_ema_of_constant_weights_is_the_constant_and_it_forgets_the_start():
    params = parameters()
    ema = EMA(params, decay=0.99)
    params.theta[...] = 3
    for _ in range(20):
        ema.step()
    assert np.abs(ema.average - 3).max() < 1e-4  # with d = 0.99 from the start it would be 0.8 of the way back


def test_swapped_puts_the_average_in_place_and_takes_it_out_again():
    network = Sequential(Linear(3, 2), BatchNorm(2))
    params = Parameters(Rng(0, "float64"), network=network)
    ema = EMA(params)
    before = params.theta.copy()
    ema.average[...] = 7
    theta = params.theta
    with ema.swapped():
        assert (params.theta == 7).all() and (network.layers[0].W == 7).all()
    np.testing.assert_array_equal(params.theta, before)
    with pytest.raises(KeyError, match="inside"), ema.swapped():
        raise KeyError("inside")
    np.testing.assert_array_equal(params.theta, before)
    assert params.theta is theta and (ema.average == 7).all()


def test_swapped_makes_closures_stale_on_both_sides():
    network = mlp([3, 2])
    ema = EMA(Parameters(Rng(0, "float64"), network=network))
    x, dy = np.ones((1, 3)), np.ones((1, 2))
    _, before = network.forward(x, None)
    with ema.swapped():
        with pytest.raises(RuntimeError):
            before(dy)
        _, inside = network.forward(x, None)
        inside(dy)
    with pytest.raises(RuntimeError):
        inside(dy)


# Schedules.


def test_constant_and_steps():
    assert [constant(0.3)(step) for step in (0, 7, 10**6)] == [0.3] * 3
    schedule = steps(1.0, every=10, factor=0.5)
    assert [schedule(step) for step in (0, 9, 10, 19, 20, 35)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    assert steps(1.0, 10)(10) == pytest.approx(0.1)


def test_cosine():
    schedule = cosine(2.0, 100, last=0.5)
    found = [schedule(step) for step in range(101)]
    assert found[0] == 2.0 and found[100] == pytest.approx(0.5) and found[50] == pytest.approx(1.25)
    assert found[25] == pytest.approx(0.5 + 0.75 * (1 + math.sqrt(0.5)))
    assert all(a > b for a, b in pairwise(found))
    assert schedule(1000) == pytest.approx(0.5) and cosine(1.0, 10)(10) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("steps_per_pass", [1, 7])
def test_iwae_has_eight_stages_and_3280_passes(steps_per_pass):
    schedule = iwae(steps_per_pass)
    found = [schedule(step) for step in range(3280 * steps_per_pass)]
    stages = [1e-3 * 10 ** (-i / 7) for i in range(8)]
    lengths = [3**i * steps_per_pass for i in range(8)]
    assert sum(lengths) == len(found)
    np.testing.assert_allclose(found, np.repeat(stages, lengths), rtol=1e-12)
    assert found[-1] == pytest.approx(1e-4) and schedule(10**7) == found[-1]


def test_a_schedule_is_asked_with_the_steps_done_so_far():
    params, asked = parameters(), []
    params.grad[...] = 1

    def schedule(step):
        asked.append(step)
        return 0.1 * (step + 1)

    optimizer, before = SGD(params, schedule), params.theta.copy()
    for _ in range(3):
        optimizer.step()
    assert asked == [0, 1, 2]
    np.testing.assert_allclose(before - params.theta, 0.1 + 0.2 + 0.3, rtol=1e-12)
