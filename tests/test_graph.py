"""A training step recorded as a CUDA graph does what the plain step does, step after step. Without a GPU it says so."""

import numpy as np
import pytest

from scratchgen import optim
from scratchgen.__main__ import main
from scratchgen.backend import Rng, UsageError, to_host
from scratchgen.fit import fit
from scratchgen.graph import CapturedStep
from scratchgen.model import call
from scratchgen.models import find_model, model_names
from scratchgen.models.vae import VAE

VARIANTS = [(name, i) for name in model_names() for i in range(len(find_model(name).variants))]
every_model = pytest.mark.parametrize(("name", "variant"), VARIANTS)


@pytest.fixture
def gpu():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no GPU")
    return cupy


def example(name, variant, device):
    return find_model(name).example(Rng((0, 1), "float32", device), **find_model(name).variants[variant])


def numbers(model):
    return {name: to_host(array) for name, array in model.state().items()}


# ---- without a GPU ----


def test_the_cpu_has_no_graphs(tmp_path, capsys):
    model, batch = example("vae", 0, "cpu")
    with pytest.raises(UsageError, match="GPU only"):
        CapturedStep(model, model.rng(0))
    with pytest.raises(UsageError, match="GPU only"):
        fit(model, batch["x"], epochs=1, out=tmp_path / "run", graph=True)
    assert main(["train", "vae", "--epochs", "1", "--out", str(tmp_path / "run"), "--graph"]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "GPU only" in err
    assert not (tmp_path / "run").exists()


# ---- on a GPU ----


@pytest.mark.gpu
@every_model
def test_recorded_steps_are_the_plain_steps(name, variant, gpu):
    plain, batch = example(name, variant, "gpu")
    recorded, _ = example(name, variant, "gpu")
    rng, step = plain.rng(2), CapturedStep(recorded, recorded.rng(2))
    kept = []
    for i in range(6):
        batch = {key: array[::-1].copy() for key, array in batch.items()}  # another batch each time
        expected = call(plain.train_step, rng=rng, **batch)
        kept.append((step(**batch), expected))
        assert (step.graph is None) == (i == 0)
    for found, expected in kept:  # the losses of early steps are still theirs
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(to_host(found[key]), to_host(value), rtol=1e-5)
    found, expected = numbers(recorded), numbers(plain)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6)
    assert all(value == 6 for key, value in found.items() if key.endswith(".t"))


@pytest.mark.gpu
def test_a_replay_reads_new_learning_rates_and_counts(gpu):
    """AdamW with a schedule and an average, both stepped twice in a train_step."""

    class Averaged(VAE):
        def build(self, rng):
            super().build(rng)
            self.adam = optim.AdamW(self.params, optim.cosine(0.05, 10, last=0.001), weight_decay=0.1)
            self.ema = optim.EMA(self.params, 0.5)
            return self

        def train_step(self, x, rng):
            for _ in range(2):
                losses = self.loss(x, rng)
                self.adam.step()
                self.ema.step()
            return losses

    plain, batch = Averaged.example(Rng(0, "float32", "gpu"))
    recorded, _ = Averaged.example(Rng(0, "float32", "gpu"))
    rng, step = plain.rng(2), CapturedStep(recorded, recorded.rng(2))
    for _ in range(8):
        plain.train_step(**batch, rng=rng)
        step(**batch)
    found, expected = numbers(recorded), numbers(plain)
    assert found["adam.t"] == found["ema.t"] == 16
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@every_model
def test_fit_with_a_graph_is_fit_without(name, variant, gpu, tmp_path):
    histories = []
    for graph in (False, True):
        model, batch = example(name, variant, "gpu")
        data = {key: np.concatenate([to_host(array)] * 10) for key, array in batch.items()}
        histories.append(fit(model, **data, x_test=data["x"], epochs=3, progress=False, graph=graph))
    for plain, recorded in zip(*histories):
        for key in plain.keys() - {"seconds"}:
            assert recorded[key] == pytest.approx(plain[key], rel=1e-4), key


@pytest.mark.gpu
def test_a_step_that_waits_cannot_be_recorded_and_does_no_harm(gpu):
    class Waiting(VAE):
        def train_step(self, x, rng):
            losses = super().train_step(x, rng)
            float(losses["loss"])
            return losses

    model, batch = Waiting.example(Rng(0, "float32", "gpu"))
    step = CapturedStep(model, model.rng(1))
    step(**batch)
    with pytest.raises(UsageError, match="cannot be a CUDA graph"):
        step(**batch)
    assert optim.Stepper.recorder is None
    other, batch = example("vae", 0, "gpu")
    step = CapturedStep(other, other.rng(1))
    values = [float(step(**batch)["loss"]) for _ in range(3)]
    assert np.isfinite(values).all()


@pytest.mark.gpu
def test_batches_of_another_size_are_refused_and_memory_does_not_grow(gpu):
    model, batch = example("vae", 0, "gpu")
    step, pool = CapturedStep(model, model.rng(1)), gpu.get_default_memory_pool()
    for _ in range(3):
        step(**batch)
    with pytest.raises(ValueError, match=r"\(3, 6\).*\(4, 6\)"):
        step(x=batch["x"][:3])
    gpu.cuda.Device().synchronize()
    before = pool.used_bytes()
    for _ in range(1000):
        step(**batch)
    gpu.cuda.Device().synchronize()
    assert pool.used_bytes() == before
