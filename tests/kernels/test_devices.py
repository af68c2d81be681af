"""Everything in the library gives on a device what it gives on the CPU, with the same noise, and nothing waits for it.

The device is simulated (simcupy: CuPy's rules on NumPy arrays), and where there is a GPU the same tests run on it. Nothing
is listed by hand that can be found: layers, losses, initialisers, optimizers, toys, and every model with its variants.
"""

import contextlib
import copy
import inspect
import pickle

import numpy as np
import pytest
import simcupy
from simcupy.runner import Runner

from scratchgen import kernels
from scratchgen.backend import Rng, UsageError, to_host
from scratchgen.check import selfcheck
from scratchgen.check.selfcheck import named
from scratchgen.check.variants import variants
from scratchgen.data import TOYS
from scratchgen.kernels.native import compiled_kernels
from scratchgen.models import find_model, model_names
from scratchgen.nn import distributions, losses, optim
from scratchgen.nn.activations import ACTIVATIONS, Activation
from scratchgen.nn.double_backward import Gradient, gradient_penalty
from scratchgen.nn.initialisers import INITIALISERS, ones, zeros
from scratchgen.nn.layer import Layer, Sequential
from scratchgen.nn.layers import Dropout, Linear, Maxout, Residual, mlp
from scratchgen.nn.norms import BatchNorm
from scratchgen.nn.parameters import Parameters
from scratchgen.nn.schedules import cosine
from scratchgen.train.checkpoint import load_model, save_checkpoint
from scratchgen.train.fit import Stopped, fit

# The most launches of one train_step, by model and variant. A model that is not here may have MANY.
LAUNCHES = {
    ("autoencoder", 0): 32,
    ("autoencoder", 1): 38,
    ("classifier", 0): 27,
    ("classifier", 1): 44,
    ("code_prior", 0): 68,
    ("code_prior", 1): 118,
    ("code_prior", 2): 55,
    ("conditional_gan", 0): 113,
    ("conditional_gan", 1): 159,
    ("conditional_gan", 2): 124,
    ("ddpm", 0): 144,
    ("ddpm", 1): 149,
    ("ddpm", 2): 149,
    ("ddpm", 3): 159,
    ("ddpm", 4): 226,
    ("dbn", 0): 105,
    ("dbn", 1): 122,
    ("ebm", 0): 108,
    ("ebm", 1): 94,
    ("ebm", 2): 89,
    ("ebm", 3): 150,
    ("ebm", 4): 210,
    ("flow", 0): 157,
    ("flow", 1): 462,
    ("flow", 2): 197,
    ("flow", 3): 184,
    ("flow", 4): 475,
    ("flow_matching", 0): 150,
    ("flow_matching", 1): 146,
    ("flow_matching", 2): 153,
    ("flow_matching", 3): 157,
    ("gan", 0): 79,
    ("gan", 1): 123,
    ("gan", 2): 112,
    ("gan", 3): 147,
    ("gan", 4): 85,
    ("gmm", 0): 70,
    ("gmm", 1): 69,
    ("gmm", 2): 69,
    ("gmm", 3): 72,
    ("gsn", 0): 68,
    ("gsn", 1): 31,
    ("latent_diffusion", 0): 153,
    ("latent_diffusion", 1): 162,
    ("latent_diffusion", 2): 150,
    ("latent_flow", 0): 153,
    ("latent_flow", 1): 157,
    ("latent_flow", 2): 155,
    ("latent_flow", 3): 152,
    ("made", 0): 33,
    ("made", 1): 44,
    ("made", 2): 52,
    ("made", 3): 41,
    ("masked_diffusion", 0): 78,
    ("masked_diffusion", 1): 104,
    ("masked_diffusion", 2): 46,
    ("pix2pix", 0): 115,
    ("pix2pix", 1): 137,
    ("pix2pix", 2): 127,
    ("pix2pix", 3): 117,
    ("rbm", 0): 96,
    ("rbm", 1): 113,
    ("reflow", 0): 145,
    ("reflow", 1): 159,
    ("reflow", 2): 143,
    ("reflow", 3): 144,
    ("vae", 0): 29,
    ("vae", 1): 33,
    ("vae", 2): 95,
    ("vae", 3): 95,
    ("vae", 5): 60,
    ("vae", 6): 120,
    ("vqgan", 0): 204,
    ("vqgan", 1): 137,
    ("vqgan", 2): 190,
    ("vqvae", 0): 72,
    ("vqvae", 1): 76,
    ("vqvae", 2): 62,
    ("wgan", 0): 453,
    ("wgan", 1): 238,
    ("wgan", 2): 146,
    ("wgan", 3): 136,
}
MANY = 200

# Settings with which a step has to wait for the device, and why.
WAITS = {("pairing", "optimal"): "SciPy finds the pairs on the host"}

# How far results may differ, relative to the largest number of the array.
TOLERANCE = {
    ("simulated", "float64"): 1e-12,
    ("simulated", "float32"): 1e-5,
    ("compiled", "float64"): 1e-12,
    ("compiled", "float32"): 3e-4,
    ("gpu", "float64"): 1e-10,
    ("gpu", "float32"): 1e-4,
}

VARIANTS = [(name, i) for name in model_names() for i in range(len(variants(name)))]
MAY_WAIT = {f"{name} {i}" for name, i in VARIANTS if WAITS.keys() & variants(name)[i].items()}
every_model = pytest.mark.parametrize(("name", "variant"), VARIANTS)
first_variant_fast = pytest.mark.parametrize(
    ("name", "variant"), [pytest.param(*v, marks=pytest.mark.slow if v[1] else ()) for v in VARIANTS]
)  # all variants with -m slow
both_precisions = pytest.mark.parametrize("dtype", ["float32", "float64"])


class HostRng(Rng):
    """Draws all numbers on the host and then puts them on the device: the same numbers everywhere."""

    def __init__(self, seed, dtype="float32", device="cpu"):
        super().__init__(seed, dtype, device)
        self.generator = self.host = Rng(seed).host

    def like(self, seed, dtype=None):
        return HostRng(seed, dtype or self.dtype, self.xp)


@pytest.fixture(params=["simulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """The array module of a device."""
    return request.getfixturevalue("gpu" if request.param == "gpu" else "simulated")


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.setitem(kernels.DEVICES, "simcupy", Runner())
    return simcupy


def flat(found, path=""):
    """(path, array) of all that is in nested dicts, tuples and lists."""
    if isinstance(found, dict):
        for key, part in found.items():
            yield from flat(part, f"{path}.{key}")
    elif isinstance(found, (tuple, list)):
        yield from flat(dict(enumerate(found)), path)
    elif found is not None:
        yield path, found


def compare(program, dtype, device, waits=False):
    """Raise AssertionError unless program(rng) gives the same on the device as on the CPU, in this precision.

    device: an array module; NumPy stands for itself with compiled kernels. waits: it may read values on the way.
    """
    expected = dict(flat(program(HostRng((0, 1), dtype))))
    with simcupy.counting() as counts, compiled_kernels() if device is np else contextlib.nullcontext():
        found = dict(flat(program(HostRng((0, 1), dtype, device))))
    assert found.keys() == expected.keys()
    tolerance = TOLERANCE[{"numpy": "compiled", "simcupy": "simulated", "cupy": "gpu"}[device.__name__], dtype]
    for path, array in found.items():
        if hasattr(array, "dtype") and array.dtype.kind in "fc":
            assert array.dtype == expected[path].dtype == dtype, path
        a, b = to_host(array), np.asarray(expected[path])
        assert a.shape == b.shape, path
        difference = np.max(np.abs(a - b.astype(a.dtype)), initial=0)
        assert difference <= tolerance * max(np.max(np.abs(b), initial=0), 1e-3), f"{path}: {difference}\n{a}\n{b}"
    assert waits or not counts.syncs, counts
    if dtype == "float32":
        wide = [line for line in counts.log if "float64" in line or "complex" in line]
        assert not wide, f"another precision in between: {wide}"


# ---- the parts of the library, each as a program(rng) that returns arrays ----


def forward_and_backward(layer, x, rng):
    """What a layer computes, learning and using: outputs, gradients, buffers."""
    params, found = Parameters(rng, layer=layer), {}
    for mode, noise in (("learning", rng.like(2)), ("using", None)):
        params.zero_grad()
        y, backward = layer.forward(x, noise)
        dy = [rng.normal(part.shape) for part in (y if isinstance(y, tuple) else (y,))]
        dx = backward(tuple(dy) if isinstance(y, tuple) else dy[0])
        found[mode] = y, dx, params.grad.copy(), params.buffers.copy()
    return found


def layer_program(found):
    if found is Sequential:  # wider than a CUDA block, with all that Linear joins
        return lambda rng: forward_and_backward(
            mlp([45, 70, 33], norm=BatchNorm, dropout=0.2), rng.normal((50, 45)), rng
        )
    return lambda rng: forward_and_backward(*found.example(rng), rng)


def penalty_program(activation):
    def program(rng):
        D = Sequential(
            mlp([45, 70, 33], activation), Dropout(0.3), Residual(Linear(33, 33)), Maxout(33, 9), Linear(9, 1)
        )
        params, found = Parameters(rng, D=D), []
        for options in ({}, {"one_sided": True}, {"centre": 0.0, "columns": slice(3, 20)}):
            params.zero_grad()
            value, backward = gradient_penalty(D, rng.normal((50, 45)), **options)
            backward(0.7)
            found += [value, params.grad.copy()]
        return found

    return program


def function_program(f):
    def program(rng):
        arrays = f.example(rng)
        y, backward = f(*arrays, rng=rng)
        dy = [rng.normal(part.shape) for part in (y if isinstance(y, tuple) else (y,))]
        return y, backward(tuple(dy) if isinstance(y, tuple) else dy[0])

    return program


def covariance(rng):
    a = rng.normal((3, 3))
    return a @ a.T + 0.1 * rng.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])


UNMARKED = {  # functions of nn/distributions.py that have no backward
    "diagonal_gaussian_log_prob": lambda rng: [rng.normal((4, 3)) for _ in range(3)],
    "gaussian_log_prob": lambda rng: [rng.normal((4, 3)), rng.normal(3), covariance(rng)],
    "sample_gaussian": lambda rng: [5, rng.normal(3), covariance(rng), rng],
    "bernoulli_log_prob": lambda rng: [(rng.uniform((4, 3)) < 0.5).astype(rng.real), rng.normal((4, 3))],
    "binarize": lambda rng: [rng.uniform((40, 3)), rng],
    "sample_bernoulli": lambda rng: [rng.normal((40, 3)), rng],
    "categorical_log_prob": lambda rng: [rng.integers(3, 4), rng.normal((4, 3))],
    "log_frequencies": lambda rng: [rng.integers(3, (8, 2)), 3, rng.real],
    "sample_gumbel": lambda rng: [(40, 3), rng],
    "sample_categorical": lambda rng: [rng.normal((40, 3)), rng],
}


def steps_program(stepper_class, **options):
    def program(rng):
        params = Parameters(rng, layer=Linear(5, 4))
        stepper = stepper_class(params, **options)
        for _ in range(4):
            params.grad[...] = rng.normal(params.grad.shape)
            norm = optim.clip_by_norm(params, 3.0)
            stepper.step()
            params.theta -= 0.01 * params.grad
            optim.clip_weights(params, 0.5)
        return params.theta, stepper.state(), norm

    return program


def model_program(name, variant):
    def program(rng):
        model, batch = find_model(name).example(rng, **variants(name)[variant])
        found = {}
        for objective in model.objectives:
            value = getattr(model, objective)(rng=model.rng(2), **batch)
            found[objective] = value, [params.grad.copy() for params in model.parameters().values()]
        for step in range(3):
            found[f"step {step}"] = model.train_step(rng=model.rng((3, step)), **batch)
        found["test"] = model.evaluate(rng=model.rng(4), **batch)
        with contextlib.suppress(UsageError):  # not every model can
            found["sample"] = model.sample(5, model.rng(5))
        return found | model.state()

    return program


def fit_program(name, variant):
    def program(rng):
        model, batch = find_model(name).example(rng, **variants(name)[variant])
        data = {key: np.concatenate([to_host(array)] * 3) for key, array in batch.items()}
        tests = {f"{key}_test": array[:5] for key, array in data.items()}
        history = fit(model, **data, **tests, epochs=2, progress=False)
        return [{key: value for key, value in row.items() if key != "seconds"} for row in history], model.state()

    return program


def public_functions(module):
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and not name.startswith("_")
    }


def programs():
    """{name: program} of the whole library."""
    found = {f.__name__: layer_program(f) for f in selfcheck._layers() if f not in (Layer, Activation, Gradient)}
    for name, f in ACTIVATIONS.items():
        found[f"mlp {name}"] = lambda rng, f=f: forward_and_backward(mlp([45, 70, 33], f), rng.normal((50, 45)), rng)
        found[f"gradient penalty {name}"] = penalty_program(f)
    for name, f in public_functions(distributions).items():
        make = None if hasattr(f, "example") else UNMARKED[name]  # KeyError: say there with what to try it
        found[name] = (lambda rng, f=f, make=make: f(*make(rng))) if make else function_program(f)
    for name, f in public_functions(losses).items():
        for options in getattr(f, "options", ()):  # terms such as losses.square have none: test_kernels.py tries them
            found[named(name, options)] = lambda rng, f=f, options=options: f(*f.example(rng), **options)
    for name, init in (INITIALISERS | {"zeros": zeros, "ones": ones}).items():
        found[f"init {name}"] = lambda rng, init=init: (init(rng, (4, 3), 4), init(rng, (3, 4), 3))
    for name, f in vars(optim).items():
        if inspect.isclass(f) and issubclass(f, optim.Stepper) and f not in (optim.Stepper, optim.Optimizer):
            wanted = inspect.signature(f).parameters
            options = {option: cosine(0.01, 3) for option in ("lr", "schedule") if option in wanted}
            found[name] = steps_program(f, **options)
    found["SGD nesterov"] = steps_program(optim.SGD, lr=0.1, momentum=0.9, nesterov=True)
    for name, toy in TOYS.items():
        found[f"toy {name}"] = lambda rng, toy=toy: toy.sample_with_labels(20, rng)
    for name, variant in VARIANTS:
        found[f"{name} {variant}"] = model_program(name, variant)
        found[f"fit {name} {variant}"] = fit_program(name, variant)
    return found


PROGRAMS = programs()


@both_precisions
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.slow if name.startswith("fit ") and name not in ("fit gan 0", "fit vae 0") else ()
        )
        for name in PROGRAMS
    ],
)
def test_same_on_the_device(name, dtype, device):
    compare(PROGRAMS[name], dtype, device, waits=name.startswith("fit ") or name in MAY_WAIT)


@both_precisions
@pytest.mark.parametrize("name", [name for name in PROGRAMS if not name.startswith(("fit ", "toy "))])
def test_same_with_compiled_kernels(name, dtype, native):
    compare(PROGRAMS[name], dtype, np)


@pytest.mark.parametrize("name", TOYS)
def test_log_density_of_a_toy(name, device):  # float64 whatever the points are
    toy = TOYS[name]
    compare(lambda rng: toy.log_density(toy.sample(50, rng)), "float64", device)


# ---- arrays and models that move between devices ----


def example(name, variant, rng):
    return find_model(name).example(rng, **variants(name)[variant])


def trained(name, variant, rng):
    """A model after two steps."""
    model, batch = example(name, variant, rng)
    for step in range(2):
        model.train_step(rng=model.rng(step), **batch)
    return model


def bits(model):
    return {name: (array.dtype, to_host(array).tobytes()) for name, array in model.state().items()}


@first_variant_fast
@both_precisions
def test_state_and_checkpoint_move_between_devices(name, variant, dtype, device, tmp_path):
    for here, there in ((np, device), (device, np)):
        model = trained(name, variant, Rng(1, dtype, here))
        other, _ = example(name, variant, Rng(2, dtype, there))
        assert bits(other) != bits(model)
        other.load_state(model.state())
        assert bits(other) == bits(model)
        save_checkpoint(tmp_path / "checkpoint.npz", model)
        for device_again in (here, there):
            loaded, _ = load_model(tmp_path / "checkpoint.npz", device_again)
            assert bits(loaded) == bits(model)
            assert all(params.rng.xp is device_again for params in loaded.parameters().values())


@both_precisions
def test_rng_makes_arrays_on_its_device(dtype, device):
    rng = Rng(3, dtype, device)
    host = np.arange(6).reshape(2, 3) / 2
    for array in (
        rng.normal((2, 3)),
        rng.uniform((2, 3)),
        rng.zeros((2, 3)),
        rng.array(host),
        rng.array(host.tolist()),
    ):
        assert (type(array), array.dtype, array.shape) == (device.ndarray, dtype, (2, 3))
    np.testing.assert_array_equal(to_host(rng.array(rng.array(host))), host)
    np.testing.assert_array_equal(to_host(Rng(3, dtype).array(rng.array(host))), host)
    assert rng.integers(4, 5).dtype == rng.permutation(5).dtype == rng.array([1, 2]).dtype == np.int64
    assert sorted(to_host(rng.permutation(5))) == list(range(5))
    again, other = Rng((3, 4), dtype, device), rng.like((3, 4))
    assert (other.xp, other.dtype, type(other)) == (device, dtype, Rng)
    np.testing.assert_array_equal(to_host(again.normal(9)), to_host(other.normal(9)))
    assert (to_host(rng.normal(9)) != to_host(rng.like(5).normal(9))).all()


def test_cast(device):
    params = Parameters(Rng(0, "float32", device), layer=BatchNorm(3), other=Linear(3, 2))
    before = to_host(params.theta)
    params.cast("float64")
    assert params.theta.dtype == params.grad.dtype == params.buffers.dtype == params.rng.dtype == np.float64
    np.testing.assert_array_equal(to_host(params.theta), before)
    params.named()["other.W"][...] = 7
    assert (to_host(params.theta) == 7).sum() == 6


# ---- what a training step costs ----


@every_model
def test_a_training_step_neither_waits_nor_copies_and_starts_few_kernels(name, variant, simulated):
    model, batch = example(name, variant, Rng(0, "float32", simulated))
    rng = model.rng(1)
    model.train_step(rng=rng, **batch)
    with simcupy.counting() as counts:
        model.train_step(rng=rng, **batch)
    other = [line for line in counts.log if not line.startswith("launch")]
    if f"{name} {variant}" not in MAY_WAIT:
        assert not other, f"a training step waits for the device, or sends something to it: {other}"
    assert counts.launches <= LAUNCHES.get((name, variant), MANY), counts


@first_variant_fast
def test_a_step_that_may_be_recorded_is_always_the_same(name, variant, simulated):
    """A CUDA graph repeats one step: a model whose steps differ must say same_every_step = False."""
    model, batch = example(name, variant, Rng(0, "float32", simulated))
    rng, seen = model.rng(1), set()
    for _ in range(12):
        before = {key: int(array[0]) for key, array in model.state().items() if key.endswith(".t")}
        with simcupy.counting() as counts:
            losses = model.train_step(rng=rng, **batch)
        counted = {key: int(model.state()[key][0]) - t for key, t in before.items()}
        seen.add((tuple(counts.log), tuple(losses), tuple(counted.items())))
    assert len(seen) == 1 or not model.same_every_step


def test_an_activation_that_ran_on_a_device_can_be_copied_and_pickled(simulated):
    silu = ACTIVATIONS["silu"]()
    x = Rng(0, "float32", simulated).normal((2, 3))
    for other in (copy.deepcopy(silu), pickle.loads(pickle.dumps(silu))):
        np.testing.assert_array_equal(to_host(other(x)), to_host(silu(x)))


def test_the_reference_vae_starts_at_most_30_kernels_a_step(simulated):
    model = find_model("vae")().build(Rng(0, "float32", simulated))  # 784-400-20
    x, rng = Rng(1, "float32", simulated).uniform((128, 784)), model.rng(2)
    model.train_step(x, rng)
    with simcupy.counting() as counts:
        model.train_step(x, rng)
    assert (counts.syncs, counts.uploads) == (0, 0), counts
    assert counts.launches <= 30, counts


@first_variant_fast
def test_an_epoch_waits_only_to_read_its_losses_and_copies_only_its_order(name, variant, simulated):
    def epochs(n):
        model, batch = example(name, variant, Rng(0, "float32", simulated))
        data = {key: np.concatenate([to_host(array)] * 10) for key, array in batch.items()}
        with simcupy.counting() as counts:
            fit(model, **data, epochs=n, progress=False)
        return counts

    if f"{name} {variant}" in MAY_WAIT:
        return
    one, two = epochs(1), epochs(2)
    assert two.syncs - one.syncs <= 10
    assert two.uploads - one.uploads == 1


# ---- on a GPU alone: its own random numbers, its memory ----


@pytest.mark.gpu
@both_precisions
def test_moments_of_the_gpus_own_numbers(dtype, gpu):
    n, rng = 200_000, Rng(7, dtype, gpu)
    z, u, k = (to_host(a) for a in (rng.normal(n), rng.uniform(n), rng.integers(5, n)))
    assert abs(z.mean()) < 0.015 and abs(z.var() - 1) < 0.02 and abs((z**4).mean() - 3) < 0.15
    assert u.min() >= 0 and u.max() <= 1 and abs(u.mean() - 0.5) < 0.004 and abs(u.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 0.015
    np.testing.assert_allclose(np.bincount(k, minlength=5) / n, 0.2, atol=0.006)
    mu, cov = np.array([1.0, -2.0]), np.array([[2.0, 0.6], [0.6, 0.5]])
    x = to_host(distributions.sample_gaussian(n, mu, cov, rng))
    np.testing.assert_allclose(x.mean(axis=0), mu, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.04)
    p = np.array([0.1, 0.3, 0.6])
    logits = rng.array(np.log(p)) + rng.zeros((n, 3))
    drawn = np.bincount(to_host(distributions.sample_categorical(logits, rng)), minlength=3) / n
    np.testing.assert_allclose(drawn, p, atol=0.006)
    odds = rng.array(np.log(p / (1 - p))) + rng.zeros((n, 3))
    np.testing.assert_allclose(to_host(distributions.sample_bernoulli(odds, rng)).mean(axis=0), p, atol=0.006)


@pytest.mark.gpu
@every_model
def test_killed_after_an_epoch_is_never_stopped_on_the_gpu(name, variant, gpu, tmp_path):
    def run(folder, **options):
        model, batch = example(name, variant, Rng(0, "float32", gpu))
        data = {key: np.concatenate([to_host(array)] * 5) for key, array in batch.items()}
        fit(model, **data, epochs=3, progress=False, out=tmp_path / folder, **options)
        return model

    def kill(model, row):
        raise KeyboardInterrupt

    whole = run("whole")
    with pytest.raises(Stopped):
        run("killed", on_epoch=kill)
    assert bits(run("killed", resume=True)) == bits(whole)


@pytest.mark.gpu
@every_model
def test_memory_does_not_grow(name, variant, gpu):
    model, batch = example(name, variant, Rng(0, "float32", gpu))
    rng, pool = model.rng(1), gpu.get_default_memory_pool()

    def train(n):
        for _ in range(n):
            model.train_step(rng=rng, **batch)
        gpu.cuda.Device().synchronize()
        return pool.used_bytes(), pool.total_bytes()

    train(20)
    before = train(1)
    assert train(1000) == before
