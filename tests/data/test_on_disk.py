"""A .npy file larger than memory gives the same rows as a small one, in random order, at most a buffer at once."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen.__main__ import main
from scratchgen.backend import Rng, UsageError
from scratchgen.data import Rows, load, on_disk
from scratchgen.data.checked import fingerprint
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.classifier import Classifier
from scratchgen.models.gmm import GMM
from scratchgen.models.made import MADE
from scratchgen.train.fit import fit

N = 333


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything counts as larger than memory, a chunk has few rows, and a buffer few chunks."""
    for name, value in {"IN_MEMORY": 100, "BUFFER": 8192, "CHUNK": 256, "AROUND": 64, "MOST_TEST": 33}.items():
        monkeypatch.setattr(on_disk, name, value)


def numbers(kind):
    rng = np.random.default_rng(0)
    return {
        "pictures": rng.integers(0, 256, (N, 3, 4)).astype(np.uint8),
        "colours": rng.integers(0, 256, (N, 2, 2, 3)).astype(np.uint8),
        "grey": rng.uniform(size=(N, 9)),
        "points": rng.normal(size=(N, 2)),
        "table": 1e4 + rng.normal(size=(N, 5)) * [1, 2, 3, 1e-3, 1e3],
    }[kind]


def saved(path, array):
    np.save(path / "x.npy", array)
    return path / "x.npy"


def in_order(x):
    return x[np.lexsort(x.T)]


@pytest.mark.parametrize("kind", ["pictures", "colours", "grey", "points", "table"])
def test_it_holds_the_rows_of_the_file(kind, tmp_path, capsys):
    path = saved(tmp_path, numbers(kind))
    found, expected = load(path, on_disk=True), load(path)
    assert capsys.readouterr().err.count("read from the disk batch by batch; 33 are kept to test on") == 1
    assert isinstance(found.x_train, Rows) and found.x_train.shape == expected.x_train.shape
    assert (found.shape, found.name, found.columns) == (expected.shape, expected.name, expected.columns)
    tolerance = {"rtol": 0, "atol": 1e-6 if kind == "table" else 0}
    np.testing.assert_allclose(in_order(found.x_train[:]), in_order(expected.x_train), **tolerance)
    np.testing.assert_allclose(in_order(found.x_test), in_order(expected.x_test), **tolerance)
    assert found.x_train[:].dtype == np.float32
    both = np.concatenate([found.x_train[:], found.x_test])
    assert (found.x_train.min(), found.x_train.max()) == pytest.approx((both.min(), both.max()))
    assert (found.x_train.preview.min(), found.x_train.preview.max()) == pytest.approx((both.min(), both.max()))
    if kind == "table":
        np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-10)
        np.testing.assert_array_equal(found.x_train[[7, 2]], found.x_train[:][[7, 2]])
        other = load(path, scale=found.scale._replace(std=2 * found.scale.std), on_disk=True)
        np.testing.assert_allclose(other.x_train[:], found.x_train[:] / 2, rtol=1e-5)


def test_what_is_small_is_loaded_as_before(tmp_path, monkeypatch):
    path, monkeypatch = saved(tmp_path, numbers("grey")), monkeypatch.setattr(on_disk, "IN_MEMORY", 4 * N * 9)
    np.testing.assert_array_equal(load(path, on_disk=True).x_train, load(path).x_train)


def counted_rows(path, n):
    """Rows that hold their own numbers."""
    path = saved(path, np.arange(n, dtype=float)[:, None])
    return Rows(path, np.arange(n), 1, lambda array, numbers: array[numbers].astype(np.float32), 0, n - 1)


@given(n=st.integers(2, 200), batch=st.integers(1, 60), chunk=st.integers(1, 100), chunks=st.integers(1, 9))
def test_an_epoch_has_each_row_once_but_for_those_left_over(n, batch, chunk, chunks, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_disk, "CHUNK", 4 * chunk)
        patch.setattr(on_disk, "BUFFER", 4 * chunk * chunks)
        rows = counted_rows(tmp_path_factory.mktemp("rows"), n)
        batches = [part[:, 0].astype(int) for part in rows.batches(batch, Rng(1))]
        assert [len(part) for part in batches] == n // batch * [batch]
        seen = np.concatenate([*batches, np.zeros(0, int)])
        assert len(set(seen)) == len(seen) and set(seen) <= set(range(n))
        part = np.arange(batch // 2, batch)  # what one of two ranks takes
        for found, whole in zip(rows.batches(batch, Rng(1), part), batches, strict=True):
            np.testing.assert_array_equal(found[:, 0], whole[part])


def test_the_order_is_random_and_another_one_in_each_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(on_disk, "CHUNK", 4 * 20)
    monkeypatch.setattr(on_disk, "BUFFER", 4 * 400)
    rows = counted_rows(tmp_path, 4000)
    first, second = (np.concatenate([part[:, 0] for part in rows.batches(50, Rng(seed))]) for seed in (1, 2))
    assert (
        abs(np.corrcoef(first, np.arange(4000))[0, 1]) < 0.25
    )  # of 200 chunks in random order: 3.5 standard deviations
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25
    together = np.mean([len(set(part // 20)) for part in first.reshape(-1, 50)])  # 50 rows of 20 chunks: 18.5 of them
    assert 17 < together <= 20


def test_a_killed_run_is_resumed_as_if_never_stopped(tmp_path):
    data = load(saved(tmp_path, numbers("grey")), on_disk=True)

    def run(*pieces, out):
        for epochs in pieces:
            model = AutoEncoder(n_features=9, hidden=(5,), n_latent=2, batch=20).build(Rng(0))
            history = fit(model, data.x_train, x_test=data.x_test, epochs=epochs, out=out, resume=epochs != pieces[0])
        return model, history

    (whole, history), (pieced, _) = run(4, out=tmp_path / "whole"), run(1, 3, 4, out=tmp_path / "pieces")
    for name, array in whole.state().items():
        np.testing.assert_array_equal(pieced.state()[name], array)
    assert history[3]["test_mse"] < history[0]["test_mse"]


def test_other_numbers_in_the_file_change_its_fingerprint(tmp_path):
    array = numbers("table")
    first = fingerprint(x=load(saved(tmp_path, array), on_disk=True).x_train)
    assert first == fingerprint(x=load(saved(tmp_path, array), on_disk=True).x_train)
    array[:50] += 1
    assert first != fingerprint(x=load(saved(tmp_path, array), on_disk=True).x_train)


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        ("grey", 1.5, None),  # then it is a table
        ("grey", np.nan, "value nan in example 300"),
        ("points", np.inf, "value inf in example 300"),
        ("table", np.nan, "row 300, column 0: nan is not finite"),
    ],
)
def test_a_wrong_number_far_down_is_found(kind, value, line, tmp_path):
    array = numbers(kind)
    array[300, 0] = value
    path = saved(tmp_path, array)
    if line is None:
        assert load(path, on_disk=True).scale is not None
        return
    with pytest.raises(UsageError, match=line):
        load(path, on_disk=True)


def test_a_column_that_never_changes_is_refused(tmp_path):
    array = numbers("table")
    array[:, 2] = 7
    with pytest.raises(UsageError, match="column 2 is 7 in every training row"):
        load(saved(tmp_path, array), on_disk=True)


def test_a_model_that_takes_all_data_at_once_is_refused(tmp_path):
    x = load(saved(tmp_path, numbers("points")), on_disk=True).x_train
    with pytest.raises(UsageError, match=r"x\.npy: is too large for a GMM, which takes all"):
        fit(GMM(n_features=2, n_components=2).build(Rng(0)), x, epochs=1)
    model = Classifier(n_features=2, n_classes=2).build(Rng(0))
    with pytest.raises(UsageError, match="has no labels"):
        fit(model, x, labels=np.zeros(len(x), int), epochs=1)


def test_the_range_of_all_numbers_is_checked_before_training(tmp_path):
    x = load(saved(tmp_path, numbers("points")), on_disk=True).x_train
    with pytest.raises(UsageError, match="pixels in"):
        fit(MADE(n_features=2).build(Rng(0)), x, epochs=1)


@pytest.mark.parametrize(("kind", "model"), [("table", "flow"), ("pictures", "autoencoder"), ("points", "vqvae")])
def test_commands_take_it(kind, model, tmp_path, capsys):
    settings = {"flow": ["n_layers=2", "hidden=8"], "autoencoder": ["hidden=8"], "vqvae": ["hidden=8", "output=linear"]}
    path, out = str(saved(tmp_path, numbers(kind))), str(tmp_path / "run")
    train = ["train", model, "--data", path, "--epochs", "2", "--out", out, "--set", *settings[model], "batch=32"]
    assert main(train) == 0, capsys.readouterr().err
    assert main(["evaluate", out]) == 0
    assert model == "vqvae" or main(["sample", out, "-n", "4", "-o", str(tmp_path / "made.npy")]) == 0
    assert main([*train, "--resume"]) == 0
    saved(tmp_path, numbers(kind)[::-1])
    capsys.readouterr()
    assert main([*train, "--resume"]) == 2
    assert "has changed since" in capsys.readouterr().err.splitlines()[-1]


MEASURED = """
import sys
import numpy as np
from scratchgen.backend import Rng
from scratchgen.data import load, on_disk
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.train.fit import fit

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024  # MB

MB = 2**20
on_disk.IN_MEMORY, on_disk.BUFFER, on_disk.CHUNK, on_disk.MOST_TEST = 4 * MB, 2 * MB, MB // 8, 100
model = AutoEncoder(n_features=1024, hidden=(4,), n_latent=2).build(Rng(0))
fit(model, np.zeros((200, 1024), np.float32), epochs=1)  # NumPy's products take memory of their own when first used
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
before = peak()
data = load(sys.argv[1], on_disk=sys.argv[2] == "on disk")
fit(model, data.x_train, x_test=data.x_test, epochs=1)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("way", "least", "most"),
    [
        ("on disk", 0, 20),
        pytest.param("in memory", 64, 200, marks=pytest.mark.slow),  # the file, and the rows of its two parts
    ],
)
def test_peak_memory_is_a_few_buffers_and_not_the_file(way, least, most, tmp_path):
    """A file of 32 MB, a buffer of 2 MB."""
    path = saved(tmp_path, np.random.default_rng(0).random((2**13, 1024), np.float32))
    command = [sys.executable, "-c", MEASURED, str(path), way]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert least < float(done.stdout) < most
