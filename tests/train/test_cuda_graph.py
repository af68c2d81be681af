"""A training step recorded as a CUDA graph does what the plain step does, step after step. Without a GPU it says so."""

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from scratchgen.__main__ import main
from scratchgen.backend import Rng, UsageError, to_host
from scratchgen.check.variants import variants
from scratchgen.models import find_model, model_names
from scratchgen.models.vae import VAE
from scratchgen.nn import optim
from scratchgen.nn.schedules import cosine
from scratchgen.train.cuda_graph import CapturedStep
from scratchgen.train.fit import fit

VARIANTS = [(name, i) for name in model_names() for i in range(len(variants(name)))]
every_model = pytest.mark.parametrize(("name", "variant"), VARIANTS)


def example(name, variant, device):
    return find_model(name).example(Rng((0, 1), "float32", device), **variants(name)[variant])


def numbers(model):
    return {name: to_host(array) for name, array in model.state().items()}


def check_recorded_steps(plain, recorded, capture):
    (plain, batch), (recorded, _) = plain, recorded
    if not recorded.same_every_step:
        with pytest.raises(UsageError, match="steps that are all alike"):
            capture(recorded, recorded.rng(2))
        return
    rng, step = plain.rng(2), capture(recorded, recorded.rng(2))
    kept = []
    for i in range(6):
        batch = {key: array[::-1].copy() for key, array in batch.items()}  # another batch each time
        expected = plain.train_step(rng=rng, **batch)
        kept.append((step(**batch), expected))
        assert (step.graph is None) == (i == 0)
    for found, expected in kept:  # the losses of early steps are still theirs
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(to_host(found[key]), to_host(value), rtol=1e-5)
    found, expected = numbers(recorded), numbers(plain)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6)
    counts = {key: value for key, value in found.items() if key.endswith(".t")}
    assert counts == {key: value for key, value in expected.items() if key in counts}
    assert all(value % 6 == 0 for value in counts.values())  # some are stepped twice in a train_step


def check_averaged(device, capture):
    """AdamW with a schedule and an average, both stepped twice in a train_step."""

    class Averaged(VAE):
        def build(self, rng):
            super().build(rng)
            self.adam = optim.AdamW(self.params, cosine(0.05, 10, last=0.001), weight_decay=0.1)
            self.ema = optim.EMA(self.params, 0.5)
            return self

        def train_step(self, x, rng, labels=None):
            for _ in range(2):
                losses = self.loss(x, rng)
                self.adam.step()
                self.ema.step()
            return losses

    plain, batch = Averaged.example(Rng(0, "float32", device))
    recorded, _ = Averaged.example(Rng(0, "float32", device))
    rng, step = plain.rng(2), capture(recorded, recorded.rng(2))
    for _ in range(8):
        plain.train_step(**batch, rng=rng)
        step(**batch)
    found, expected = numbers(recorded), numbers(plain)
    assert found["adam.t"] == found["ema.t"] == 16
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


# ---- without a GPU ----


def test_the_cpu_has_no_graphs(tmp_path, capsys):
    model, batch = example("vae", 0, "cpu")
    with pytest.raises(UsageError, match="needs a GPU"):
        CapturedStep(model, model.rng(0))
    with pytest.raises(UsageError, match="needs a GPU"):
        fit(model, batch["x"], epochs=1, out=tmp_path / "run", graph=True)
    assert main(["train", "vae", "--epochs", "1", "--out", str(tmp_path / "run"), "--graph"]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "needs a GPU" in err
    assert not (tmp_path / "run").exists()


# ---- on a pretended one: NumPy under CuPy's name, with a graph that repeats the step by running it again ----


class Stream:
    """Records nothing of what runs between begin and end, which must therefore leave no trace."""

    def __init__(self, model, rng):
        self.model, self.rng, self.recording = model, rng, False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def synchronize(self):
        assert not self.recording, "waits while it is recorded"

    def begin_capture(self):
        assert not self.recording, "is recorded already"
        self.recording = True
        self.kept = {name: array.copy() for name, array in self.model.state().items() if not name.endswith(".t")}
        self.noise = self.rng.host.bit_generator.state

    def end_capture(self):
        self.recording = False
        for name, array in self.kept.items():
            self.model.state()[name][...] = array
        self.rng.host.bit_generator.state = self.noise
        return SimpleNamespace(launch=self.launch)

    def launch(self):
        counters = [(entry.stepper.t, entry.stepper.t.copy()) for entry in self.step.entries]
        cells = iter([entry.cells for entry in self.step.entries])
        with optim.observed(lambda stepper, numbers: [float(cell) for cell in next(cells)]):
            losses = self.model.train_step(rng=self.rng, **self.step.batch)
        self.step.losses[...] = list(losses.values())
        for t, before in counters:  # a graph knows nothing of what the host counts
            t[...] = before


@pytest.fixture
def pretend():
    """pretend(model, rng): a CapturedStep, and its Stream."""

    def make(model, rng):
        stream, xp = Stream(model, rng), ModuleType("cupy")
        xp.__getattr__ = lambda name: getattr(np, name)
        xp.cuda = SimpleNamespace(
            MemoryPool=lambda: SimpleNamespace(malloc=None, free_all_blocks=lambda: None),
            get_current_stream=lambda: stream,
            using_allocator=lambda malloc: np.errstate(all="ignore"),  # a recorded step computes nothing
            runtime=SimpleNamespace(getDevice=lambda: 0),
            Stream=lambda non_blocking: stream,
        )
        rng.xp = xp
        stream.step = CapturedStep(model, rng)
        return stream.step, stream

    return make


@every_model
def test_the_bookkeeping_of_a_recorded_step(name, variant, pretend):
    check_recorded_steps(*(example(name, variant, "cpu") for _ in range(2)), lambda *given: pretend(*given)[0])


def test_the_bookkeeping_of_schedules_and_averages(pretend):
    check_averaged("cpu", lambda *given: pretend(*given)[0])


def test_another_rng_is_drawn_from(pretend):
    plain, batch = example("vae", 0, "cpu")
    recorded, _ = example("vae", 0, "cpu")
    step, stream = pretend(recorded, recorded.rng(5))
    for seed in (5, 6):
        rng, stream.rng = plain.rng(seed), recorded.rng(seed)
        stream.rng.xp = step.xp
        step.draw_from(stream.rng)
        for _ in range(4):
            assert step(**batch)["loss"] == plain.train_step(**batch, rng=rng)["loss"]


@pytest.mark.parametrize("error", [RuntimeError("it is not permitted"), KeyboardInterrupt(), MemoryError()])
def test_a_recording_that_fails_leaves_no_trace(error, pretend):
    class Failing(VAE):
        calls = 0

        def train_step(self, x, rng, labels=None):
            losses = super().train_step(x, rng)
            self.calls += 1
            if self.calls == 2:
                raise error
            return losses

    plain, batch = example("vae", 0, "cpu")
    model, _ = Failing.example(Rng((0, 1)))
    step, stream = pretend(model, model.rng(2))
    step(**batch)
    with pytest.raises(UsageError if isinstance(error, RuntimeError) else type(error)):
        step(**batch)
    assert (int(model.adam.t[0]), stream.recording, optim.OBSERVERS.get()) == (1, False, ())
    for _ in range(3):
        step(**batch)
    assert int(model.adam.t[0]) == 4
    rng = plain.rng(2)
    for _ in range(4):
        plain.train_step(**batch, rng=rng)
    assert numbers(plain)["params.theta"].tobytes() == numbers(model)["params.theta"].tobytes()


def test_other_batches_other_steps_and_cast_weights_are_refused(pretend):
    model, batch = example("vae", 0, "cpu")
    step, _ = pretend(model, model.rng(1))
    for _ in range(3):
        step(**batch)
    for other in ({"x": batch["x"][:3]}, {}, batch | {"labels": batch["x"]}):
        with pytest.raises(ValueError, match=r"\(4, 6\)"):
            step(**other)
    model.params.cast("float64")
    with pytest.raises(UsageError, match="cast"):
        step(**batch)

    class Fickle(VAE):
        same_every_step = False

    model, batch = Fickle.example(Rng(0))
    with pytest.raises(UsageError, match="steps that are all alike"):
        pretend(model, model.rng(1))


# ---- on a GPU ----


@pytest.mark.gpu
@every_model
def test_recorded_steps_are_the_plain_steps(name, variant, gpu):
    check_recorded_steps(*(example(name, variant, "gpu") for _ in range(2)), CapturedStep)


@pytest.mark.gpu
def test_a_replay_reads_new_learning_rates_and_counts(gpu):
    check_averaged("gpu", CapturedStep)


@pytest.mark.gpu
@every_model
def test_fit_with_a_graph_is_fit_without(name, variant, gpu, tmp_path):
    histories = []
    for graph in (False, example(name, variant, "gpu")[0].same_every_step):
        model, batch = example(name, variant, "gpu")
        data = {key: np.concatenate([to_host(array)] * 10) for key, array in batch.items()}
        histories.append(fit(model, **data, x_test=data["x"], epochs=3, progress=False, graph=graph))
    for plain, recorded in zip(*histories):
        for key in plain.keys() - {"seconds"}:
            assert recorded[key] == pytest.approx(plain[key], rel=1e-4), key


@pytest.mark.gpu
def test_a_step_that_waits_cannot_be_recorded_and_does_no_harm(gpu):
    class Waiting(VAE):
        def train_step(self, x, rng, labels=None):
            losses = super().train_step(x, rng)
            float(losses["loss"])
            return losses

    model, batch = Waiting.example(Rng(0, "float32", "gpu"))
    step = CapturedStep(model, model.rng(1))
    step(**batch)
    with pytest.raises(UsageError, match="cannot be a CUDA graph"):
        step(**batch)
    assert optim.OBSERVERS.get() == ()
    assert model.adam.t[0] == 1
    other, batch = example("vae", 0, "gpu")
    step = CapturedStep(other, other.rng(1))
    values = [float(step(**batch)["loss"]) for _ in range(3)]
    assert np.isfinite(values).all()


@pytest.mark.gpu
def test_memory_does_not_grow_from_step_to_step(gpu):
    model, batch = example("vae", 0, "gpu")
    step, pool = CapturedStep(model, model.rng(1)), gpu.get_default_memory_pool()
    for _ in range(3):
        step(**batch)
    gpu.cuda.Device().synchronize()
    before = pool.used_bytes()
    for _ in range(1000):
        step(**batch)
    gpu.cuda.Device().synchronize()
    assert pool.used_bytes() == before


@pytest.mark.gpu
def test_memory_does_not_grow_from_epoch_to_epoch_or_run_to_run(gpu):
    model, batch = example("vae", 0, "gpu")
    data = {key: np.concatenate([to_host(array)] * 10) for key, array in batch.items()}

    def free_after(epochs):
        fit(model, **data, epochs=epochs, progress=False, graph=True)
        gpu.get_default_memory_pool().free_all_blocks()
        gpu.cuda.Device().synchronize()
        return gpu.cuda.runtime.memGetInfo()[0]

    before = [free_after(2) for _ in range(3)][-1]
    after = [free_after(epochs) for epochs in [50] + 30 * [1]]
    assert min(after) >= before - (4 << 20)
