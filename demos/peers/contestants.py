"""The contestants of benchmark.py: functions (case, device) -> step(), synchronise(), each called in its own process."""

import contextlib
import importlib.util
import itertools
import sys
from functools import partial

from peers.turns import take_turns

from scratchgen.backend import Rng
from scratchgen.kernels.native import compiled_kernels, native
from scratchgen.train.cuda_graph import CapturedStep
from scratchgen.train.threads import blas_threads, useful_threads

N = 20_000  # examples on the device
OURS, KERNELS, GRAPH, FLOOR = "scratchgen", "scratchgen, compiled", "scratchgen, graph", "matrix products alone"
EAGER, FUSED, COMPILED = "PyTorch eager", "PyTorch, fused Adam", "PyTorch, compile + fused"
REDUCED, THEIR_GRAPH = "PyTorch, reduce-overhead", "PyTorch, whole-step graph"
JAX, SKLEARN = "JAX", "scikit-learn"
ORDER = (OURS, KERNELS, GRAPH, EAGER, FUSED, COMPILED, REDUCED, THEIR_GRAPH, JAX, SKLEARN, FLOOR)
PACKAGES = {"torch": ("PyTorch", "torch"), "jax": ("JAX", "jax"), "sklearn": ("scikit-learn", "scikit-learn")}
HELD = contextlib.ExitStack()  # what a contestant's process enters and never leaves


def installed(package):
    return importlib.util.find_spec(package) is not None


def synchroniser(xp):
    return xp.cuda.Device().synchronize if hasattr(xp, "cuda") else lambda: None


# scratchgen, and its products


def picked(arrays, order, batch):
    """Endless batches [rows of each array], in the given order."""
    while True:
        for start in range(0, len(order) - batch + 1, batch):
            yield [array[order[start : start + batch]] for array in arrays]


def hold_kernels(compiled):
    if compiled:
        HELD.enter_context(compiled_kernels())


def ours(case, device, captured=False, compiled=False):
    hold_kernels(compiled)
    rng = Rng(0, device=device)
    model = case.model.build(rng)
    step = CapturedStep(model, rng) if captured else partial(model.train_step, rng=rng)
    names = ["x"] + ["labels"] * model.needs_labels
    arrays = [rng.uniform((N, model.n_features))] + [rng.integers(model.n_classes, N) for _ in names[1:]]
    batches = picked(arrays, rng.permutation(N), model.examples_per_step)

    def next_step():
        return step(**dict(zip(names, next(batches))))

    HELD.enter_context(blas_threads(useful_threads(model)))  # which fit chooses too, if no other program runs
    return next_step, synchroniser(rng.xp)


def our_samples(case, device, compiled=False):
    hold_kernels(compiled)
    rng = Rng(0, device=device)
    model = case.model.build(rng)
    return lambda: model.sample(case.n, rng), synchroniser(rng.xp)


def floor(case, device):
    rng = Rng(0, device=device)
    arrays = [(rng.normal((m, k)), rng.normal((k, n)), rng.zeros((m, n))) for m, k, n in case.products]

    def step():
        for a, b, out in arrays:
            rng.xp.matmul(a, b, out=out)

    return step, synchroniser(rng.xp)


# PyTorch


def torch_class(case):
    """(the network's class, the function that makes its training step)."""
    from peers import pytorch, pytorch_adversaries

    if hasattr(pytorch_adversaries, case.peer):
        return getattr(pytorch_adversaries, case.peer), pytorch_adversaries.two_losses
    return getattr(pytorch, case.peer), pytorch.one_loss


def pytorch(case, device, compile=None, captured=False, **adam):
    import torch
    from peers.pytorch import captured as capture

    device = "cpu" if device == "cpu" else "cuda"
    compiled = (lambda network: network) if compile is None else partial(torch.compile, **compile)
    network, trained = torch_class(case)
    step = trained(network, case.model, device, partial(torch.optim.Adam, **adam), compiled)
    arrays = [torch.rand(N, case.model.n_features, device=device)]
    if case.model.needs_labels:
        arrays.append(torch.randint(case.model.n_classes, (N,), device=device))
    batches = picked(arrays, torch.randperm(N, device=device), case.model.examples_per_step)
    if captured:
        step = capture(step, *next(batches))
    return lambda: step(*next(batches)), torch.cuda.synchronize if device == "cuda" else lambda: None


def pytorch_samples(case, device):
    import torch

    network = torch_class(case)[0](case.model).eval()

    @torch.inference_mode()
    def step():
        return network.sample(network.code(case.n))

    return step, lambda: None


# JAX


def jax_peer(case):
    import jax

    jax.config.update("jax_platforms", "cpu")  # even where it could use a GPU
    from peers import jax_adversaries, jax_models

    file = jax_adversaries if hasattr(jax_adversaries, case.peer) else jax_models
    return getattr(file, case.peer)(case.model)


def jax_step(case, device):
    """The whole step is one compiled function, which takes its batch and draws its noise inside, and reuses its state."""
    peer = jax_peer(case)
    import jax
    from jax import lax, random

    key, model = random.key(0), case.model
    batch = model.examples_per_step
    arrays = [random.uniform(key, (N, model.n_features))]
    if model.needs_labels:
        arrays.append(random.randint(key, N, 0, model.n_classes))

    @partial(jax.jit, donate_argnums=0)
    def train(state, arrays, order, start):
        key, learned = state
        key, now = random.split(key)
        rows = lax.dynamic_slice(order, (start,), (batch,))
        learned, loss = peer.step(learned, now, *(array[rows] for array in arrays))
        return (key, learned), loss

    kept, order = {"state": (key, peer.start())}, random.permutation(key, N)
    starts = itertools.cycle(range(0, N - batch + 1, batch))

    def step():
        kept["state"], loss = train(kept["state"], arrays, order, next(starts))
        return loss

    return step, lambda: jax.block_until_ready(kept["state"])


def jax_samples(case, device):
    """All examples are drawn in one compiled function."""
    peer = jax_peer(case)
    import jax
    from jax import random

    weights, kept = peer.weights(), {"key": random.key(0)}

    @jax.jit
    def sample(weights, key):
        key, now = random.split(key)
        return key, peer.sample(weights, peer.code(now, case.n))

    def step():
        kept["key"], kept["made"] = sample(weights, kept["key"])
        return kept["made"]

    return step, lambda: jax.block_until_ready(kept)


# Who takes part

TRAINING = {
    OURS: ours,
    KERNELS: partial(ours, compiled=True),
    GRAPH: partial(ours, captured=True),
    EAGER: pytorch,
    FUSED: partial(pytorch, fused=True),
    COMPILED: partial(pytorch, compile={}, fused=True),
    REDUCED: partial(pytorch, compile={"mode": "reduce-overhead"}, fused=True),
    THEIR_GRAPH: partial(pytorch, captured=True, fused=True, capturable=True),
    JAX: jax_step,
    FLOOR: floor,
}
SAMPLING = {
    OURS: our_samples,
    KERNELS: partial(our_samples, compiled=True),
    EAGER: pytorch_samples,
    JAX: jax_samples,
}


def able(functions, gpu=False, peers=True, compiler=True):
    """Those of {name: function} that can run here. peers, compiler: whether the peers, and torch.compile, take part."""
    left_out = {KERNELS, JAX} if gpu else {GRAPH, REDUCED, THEIR_GRAPH}
    if not gpu and native() is None:
        left_out.add(KERNELS)  # which says so
    if not compiler:
        left_out |= {COMPILED, REDUCED}
    if not peers or not installed("torch"):
        left_out |= {EAGER, FUSED, COMPILED, REDUCED, THEIR_GRAPH}
    if not peers or not installed("jax"):
        left_out.add(JAX)
    if not peers or not installed("sklearn"):
        left_out.add(SKLEARN)
    return {name: function for name, function in functions.items() if name not in left_out}


def raced(name, prepares, seconds, gpu=False, least=None):
    """{contestant: seconds a step in each round} of {contestant: prepare}. A line says who cannot run, and why."""
    times, failures = take_turns(prepares, seconds, gpu, least)
    for failure in failures:
        print(f"{name}: left out {failure}", file=sys.stderr)
    return times
