"""The epoch loop: whatever stops a run, resuming it gives the weights, the optimizer's state and the history that an
unbroken run has, bit for bit. And: what fit writes, what it refuses, and what it says when it stops.

Run as a script, this file trains and kills itself half-way; see the end.
"""

import contextlib
import csv
import functools
import io
import itertools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from scratchgen.__main__ import main
from scratchgen.backend import Rng, UsageError
from scratchgen.check.variants import variants
from scratchgen.models import find_model, model_names
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.classifier import Classifier
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.vae import VAE
from scratchgen.train import progress as progress_module
from scratchgen.train import threads
from scratchgen.train.checkpoint import read_checkpoint
from scratchgen.train.fit import READ_EVERY, Stopped, fit

VARIANTS = [(name, i) for name in model_names() for i in range(len(variants(name)))]
FAST = ("autoencoder", "ddpm", "ebm", "gan", "gmm", "rbm", "vqgan")  # each has state of a kind of its own
STEPS = 6  # an epoch of train()


def train(name, variant, epochs, out=None, **options):
    """Train the example of a model on six of its example batches, and on what is left over; (model, history)."""
    model_class = find_model(name)
    settings = variants(name)[variant]
    batches = [model_class.example(Rng((1, k)), **settings)[1] for k in range(STEPS)]
    data = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    model = model_class.example(Rng(0), **settings)[0]
    data |= {f"{key}_test": array[: model.batch] for key, array in data.items()}
    return model, fit(model, **data, epochs=epochs, seed=3, out=out, **options)


def tiny(**settings):
    return VAE(**{"n_features": 3, "hidden": (4,), "n_latent": 1, "batch": 4} | settings).build(Rng(0))


def pixels(n):
    """n pictures of three pixels; the first says which it is."""
    x = np.random.default_rng(0).random((n, 3), dtype=np.float32)
    x[:, 0] = np.arange(n) / n
    return x


def read_table(out):
    with open(out / "history.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(a, b):
    """Two folders hold the same run, but for the seconds it took."""
    names, again = (sorted(path.name for path in out.iterdir() if path.name != "history.png") for out in (a, b))
    assert names == again
    assert names in (["checkpoint.npz", "history.csv"], ["best.npz", "checkpoint.npz", "history.csv"])
    for path in names[:-1]:
        (notes_a, arrays_a), (notes_b, arrays_b) = (read_checkpoint(out / path) for out in (a, b))
        assert notes_a == notes_b
        assert arrays_a.keys() == arrays_b.keys()
        for name, array in arrays_a.items():
            assert array.dtype == arrays_b[name].dtype
            assert array.tobytes() == arrays_b[name].tobytes(), name
    assert read_table(a) == read_table(b)


def at_step(model_class, step, action, monkeypatch=None):
    """Make the class's train_step do something else at its step-th call, counted over all epochs."""
    original, calls = model_class.train_step, itertools.count(1)

    @functools.wraps(original)
    def train_step(self, *args, **given):
        return action() if next(calls) == step else original(self, *args, **given)

    (monkeypatch or pytest.MonkeyPatch()).setattr(model_class, "train_step", train_step)


def interrupt(*args, **given):
    raise KeyboardInterrupt


def run_and_die(step, name, *what):
    """Run this file as a script in a process of its own, which must end by SIGKILL."""
    process = subprocess.run([sys.executable, __file__, str(step), name, *map(str, what)], capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


# ---- kill and resume ----


@pytest.mark.parametrize(
    ("name", "variant"),
    [pytest.param(*v, marks=() if v[1] == 0 and v[0] in FAST else pytest.mark.slow) for v in VARIANTS],
)
def test_killed_in_the_third_epoch_and_resumed_is_as_if_never_stopped(name, variant, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    train(name, variant, 4, unbroken)
    steps = STEPS if find_model(name).batch else 1
    run_and_die(2 * steps + min(3, steps), name, variant, killed)
    assert read_checkpoint(killed / "checkpoint.npz")[0]["epoch"] == 2
    _, history = train(name, variant, 4, killed, resume=True)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert_same_run(unbroken, killed)


@pytest.mark.parametrize(
    ("name", "settings"), [("autoencoder", "noise=0.1"), pytest.param("vae", "beta=2", marks=pytest.mark.slow)]
)
def test_killed_and_resumed_through_the_command_line(name, settings, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    train = ["train", name, "--epochs", "4", "--out"]
    options = ["--seed", "7", "--set", "hidden=16", "n_latent=2", settings]
    assert main([*train, str(unbroken), *options]) == 0
    run_and_die(25, name, *train, killed, *options)  # 1,400 digits in batches of 128 make 10 steps an epoch
    assert read_checkpoint(killed / "checkpoint.npz")[0]["epoch"] == 2
    resume = [sys.executable, "-m", "scratchgen", *train, str(killed), "--resume"]  # remembers seed and settings
    assert subprocess.run(resume, capture_output=True, check=True).stderr == b""
    assert_same_run(unbroken, killed)


def test_a_model_is_prepared_once_from_the_training_data(tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr(VAE, "prepare", lambda self, x, rng: prepared.append((x, rng.normal(3))))
    x = pixels(20)
    fit(tiny(), x, epochs=1, progress=False, out=tmp_path / "a")
    fit(tiny(), x, epochs=2, progress=False, out=tmp_path / "a", resume=True)
    model = tiny()
    model.train_step(x[:4], model.rng(0))
    fit(model, x, epochs=1, progress=False)  # it has learned something already
    assert len(prepared) == 1 and (prepared[0][0] == x).all()
    fit(tiny(), x, epochs=1, progress=False, x_test=pixels(5))
    assert (prepared[1][0] == x).all() and (prepared[1][1] == prepared[0][1]).all()


def test_resume_in_several_pieces(tmp_path):
    train("vae", 0, 4, tmp_path / "whole")
    for epochs in (1, 3, 4):
        train("vae", 0, epochs, tmp_path / "pieces", resume=epochs > 1)
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


@pytest.mark.parametrize(("module", "function"), [(np, "savez"), (os, "replace")])
@pytest.mark.parametrize(("name", "last"), [("checkpoint.npz", 2), ("best.npz", 1)])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_stopped_while_writing_a_checkpoint(module, function, name, last, error, tmp_path, monkeypatch):
    """The old checkpoint stays as it was, and the run can go on from it."""
    train("vae", 0, 2, tmp_path / "unbroken")
    out = tmp_path / "broken"
    train("vae", 0, 1, out)
    before = (out / "checkpoint.npz").read_bytes()
    # Resuming writes history, checkpoint (the old one again), history, best, checkpoint: let the last write of one fail.
    original, calls = getattr(module, function), itertools.count(1)

    def fail(*args, **given):
        path = args[0].name if function == "savez" else str(args[1])
        if name not in path or next(calls) < last:
            return original(*args, **given)
        if function == "savez":
            args[0].write(b"half a checkpoint")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, function, fail)
        with pytest.raises((UsageError, Stopped)) as caught:
            train("vae", 0, 2, out, resume=True)
    assert (out / "checkpoint.npz").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["best.npz", "checkpoint.npz", "history.csv"]
    assert str(out / (name if isinstance(error, OSError) else "checkpoint.npz")) in str(caught.value)
    if isinstance(caught.value, Stopped):
        assert "holds epoch 1" in str(caught.value)
    train("vae", 0, 2, out, resume=True)
    assert_same_run(tmp_path / "unbroken", out)


def test_history_is_ahead_of_the_checkpoint(tmp_path, monkeypatch):
    """A kill between the two writes of an epoch leaves a row too many; it must not be there twice."""
    train("vae", 0, 3, tmp_path / "unbroken")
    out = tmp_path / "broken"
    train("vae", 0, 1, out)
    saved = (out / "checkpoint.npz").read_bytes()
    train("vae", 0, 2, out, resume=True)
    (out / "checkpoint.npz").write_bytes(saved)
    train("vae", 0, 3, out, resume=True)
    assert_same_run(tmp_path / "unbroken", out)


def test_leftovers_of_a_killed_write_do_not_matter(tmp_path):
    train("vae", 0, 2, tmp_path / "unbroken")
    out = tmp_path / "killed"
    train("vae", 0, 1, out)
    for name in ("checkpoint.npz", "history.csv"):
        (out / f".{name}.partial").write_bytes(b"half of it")
    train("vae", 0, 2, out, resume=True)
    assert_same_run(tmp_path / "unbroken", out)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_resuming_a_finished_run_does_nothing(epochs, tmp_path, monkeypatch):
    _, history = train("vae", 0, 2, tmp_path / "run")
    train("vae", 0, 2, tmp_path / "same")
    monkeypatch.setattr(VAE, "train_step", lambda self, x, rng: pytest.fail("trained on"))
    model, again = train("vae", 0, epochs, tmp_path / "run", resume=True)
    assert again == history
    assert_same_run(tmp_path / "same", tmp_path / "run")
    theta = read_checkpoint(tmp_path / "run" / "checkpoint.npz")[1]["params.theta"]
    np.testing.assert_array_equal(model.params.theta, theta)


def test_no_epochs_save_the_fresh_model(tmp_path):
    model = tiny()
    fresh = model.params.theta.copy()
    assert fit(model, pixels(8), epochs=0, out=tmp_path) == []
    notes, arrays = read_checkpoint(tmp_path / "checkpoint.npz")
    assert notes["epoch"] == 0
    np.testing.assert_array_equal(arrays["params.theta"], fresh)
    fit(tiny(), pixels(8), epochs=1, out=tmp_path, resume=True)
    assert [row["epoch"] for row in read_table(tmp_path)] == ["1"]


def test_resume_goes_on_without_a_lost_history(tmp_path):
    train("vae", 0, 2, tmp_path)
    (tmp_path / "history.csv").unlink()
    train("vae", 0, 3, tmp_path, resume=True)
    assert [row["epoch"] for row in read_table(tmp_path)] == ["3"]


def test_resume_with_more_columns_than_before(tmp_path):
    fit(tiny(), pixels(8), epochs=1, out=tmp_path)
    fit(tiny(), pixels(8), x_test=pixels(8), epochs=2, out=tmp_path, resume=True)
    first, second = read_table(tmp_path)
    assert first["test_nll"] == "nan"
    assert float(second["test_nll"]) > 0
    assert [row["epoch"] for row in fit(tiny(), pixels(8), epochs=2, out=tmp_path, resume=True)] == [1, 2]


# ---- stopping ----


def test_ctrl_c_says_what_is_saved_and_how_to_go_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(VAE, STEPS + 2, interrupt, patch)
        with pytest.raises(Stopped) as caught:
            train("vae", 0, 3, tmp_path / "stopped")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("stopped in epoch 2:")
    assert f"{tmp_path / 'stopped' / 'checkpoint.npz'} holds epoch 1" in message
    assert message.endswith("continue with resume=True")
    train("vae", 0, 3, tmp_path / "stopped", resume=True)
    train("vae", 0, 3, tmp_path / "unbroken")
    assert_same_run(tmp_path / "unbroken", tmp_path / "stopped")


def test_ctrl_c_without_a_folder(monkeypatch):
    at_step(VAE, 2, interrupt, monkeypatch)
    with pytest.raises(Stopped, match=r"^stopped in epoch 1: nothing was saved"):
        train("vae", 0, 2)


def test_ctrl_c_on_the_command_line_ends_in_130(tmp_path, monkeypatch, capsys):
    at_step(VAE, 12, interrupt, monkeypatch)
    assert main(["train", "vae", "--epochs", "3", "--out", str(tmp_path), "--set", "hidden=8"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "holds epoch 1" in err
    assert f"scratchgen train vae --epochs 3 --out {tmp_path} --resume" in err


def test_ctrl_c_outside_training(monkeypatch, capsys):
    monkeypatch.setattr("scratchgen.commands.shared.load", interrupt)
    assert main(["train", "vae", "--epochs", "1", "--out", "nowhere"]) == 130
    assert capsys.readouterr().err == "scratchgen: stopped\n"


@pytest.mark.parametrize(
    ("spoilt", "first"),
    [
        ({3: {"loss": np.nan, "nll": 1.0, "kl": 1.0}}, "loss became nan in epoch 2, step 3"),
        ({3: {"loss": np.nan, "nll": 1.0, "kl": np.inf}}, "kl became inf in epoch 2, step 3"),
        ({3: {"loss": 1.0, "nll": np.nan, "kl": 1.0}, 2: {"loss": 1.0, "nll": 1.0, "kl": np.inf}}, "kl became inf in"),
        ({READ_EVERY + 7: {"loss": np.nan, "nll": 1.0, "kl": 1.0}}, f"loss became nan in epoch 2, step {READ_EVERY + 7}"),
    ],
)  # fmt: skip
def test_the_first_quantity_that_is_not_finite_is_named(spoilt, first, tmp_path, monkeypatch):
    n = READ_EVERY + 10
    for step, losses in spoilt.items():
        at_step(VAE, n + step, lambda losses=losses: {k: np.float32(v) for k, v in losses.items()}, monkeypatch)
    with pytest.raises(UsageError) as caught:
        fit(tiny(batch=1), pixels(n), epochs=3, out=tmp_path)
    message = str(caught.value)
    assert message.startswith(first)
    assert "smaller learning rate (now lr=0.001)" in message
    assert "holds epoch 1" in message
    assert read_checkpoint(tmp_path / "checkpoint.npz")[0]["epoch"] == 1
    assert [row["epoch"] for row in read_table(tmp_path)] == ["1"]


def test_an_exploding_run_warns_of_nothing_but_its_end(tmp_path):
    """NumPy's own warnings, errors in these tests, would bury the one line that helps."""
    with pytest.raises(UsageError, match="epoch 1, step 2"):
        fit(tiny(lr=1e30), pixels(16), epochs=1)


def test_a_nan_on_the_test_data_is_named_and_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(VAE, "evaluate", lambda self, x, rng: {"nll": np.float32(1), "kl": np.float32(np.nan)})
    with pytest.raises(UsageError, match="test_kl became nan in epoch 1"):
        fit(tiny(), pixels(8), x_test=pixels(4), epochs=2, out=tmp_path)
    assert read_checkpoint(tmp_path / "checkpoint.npz")[0]["epoch"] == 0


# ---- the loop ----


def order_of(seed, monkeypatch, n=10):
    """Which pictures a run of three epochs saw, (3, steps, batch)."""
    seen = []

    def train_step(self, x, rng, labels=None):
        seen.append(np.round(n * x[:, 0]).astype(int))
        return {"loss": np.float32(0)}

    monkeypatch.setattr(VAE, "train_step", train_step)
    fit(tiny(), pixels(n), epochs=3, seed=seed)
    return np.stack(seen).reshape(3, -1, 4)


def test_order_differs_between_epochs_and_repeats_with_the_seed(monkeypatch):
    orders = order_of(5, monkeypatch)
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])
    np.testing.assert_array_equal(orders, order_of(5, monkeypatch))
    assert not np.array_equal(orders, order_of(6, monkeypatch))


def test_an_incomplete_batch_is_dropped(monkeypatch):
    orders = order_of(0, monkeypatch)
    assert orders.shape == (3, 2, 4)  # 10 pictures make two batches of 4
    assert all(len(set(epoch.ravel())) == 8 for epoch in orders)


def test_labels_go_along_with_their_pictures(monkeypatch):
    def train_step(self, x, rng, labels=None):
        np.testing.assert_array_equal(np.round(12 * x[:, 0]), labels)
        return {"loss": labels.sum()}

    monkeypatch.setattr(VAE, "train_step", train_step)
    (row,) = fit(tiny(conditional=True, n_classes=12), pixels(12), labels=np.arange(12), epochs=1)
    assert row["loss"] == 66 / 3


def test_history_is_the_mean_of_the_losses_and_the_table_holds_it(tmp_path, monkeypatch):
    losses, original = [], VAE.train_step

    def train_step(self, x, rng, labels=None):
        losses.append(original(self, x, rng))
        return losses[-1]

    monkeypatch.setattr(VAE, "train_step", train_step)
    n = READ_EVERY + 10  # so many that the losses of an epoch are read in two parts
    history = fit(tiny(batch=1), pixels(n), x_test=pixels(5), epochs=2, out=tmp_path)
    columns = ["epoch", "seconds", "loss", "nll", "kl"]
    columns += ["test_negative_elbo", "test_nll", "test_kl", "test_mse"]
    assert all(list(row) == columns for row in history)
    for name in ("loss", "nll", "kl"):
        np.testing.assert_allclose(history[1][name], np.mean([float(step[name]) for step in losses[n:]]), rtol=1e-12)
    for row, text in zip(history, read_table(tmp_path), strict=True):
        assert {name: float(value) for name, value in text.items()} == {k: row[k] for k in columns if k != "seconds"}


def test_on_epoch_comes_after_saving(tmp_path):
    seen = []

    def on_epoch(model, row):
        seen.append((row["epoch"], read_checkpoint(tmp_path / "checkpoint.npz")[0]["epoch"], len(read_table(tmp_path))))

    fit(tiny(), pixels(8), epochs=2, out=tmp_path, on_epoch=on_epoch)
    assert seen == [(1, 1, 1), (2, 2, 2)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_is_drawn_on_a_terminal_unless_switched_off(monkeypatch):
    pytest.importorskip("tqdm")
    drawn = {}
    for progress in (True, False):
        monkeypatch.setattr(sys, "stderr", Terminal())
        fit(tiny(), pixels(8), epochs=1, progress=progress)
        drawn[progress] = sys.stderr.getvalue()
    assert "step" in drawn[True] and "epoch 1 of 1" in drawn[True]
    assert drawn[False] == ""


def test_no_bar_in_a_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    fit(tiny(), pixels(8), epochs=1)
    assert sys.stderr.getvalue() == ""


def test_a_line_now_and_then_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress_module, "SILENCE", 0)
    for show in (True, False):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        fit(tiny(), pixels(8), epochs=2, progress=show)
        lines = sys.stderr.getvalue().splitlines()
        assert [line.partition(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"][: 2 * show]
        assert all("loss " in line for line in lines)


def test_a_line_says_how_long_it_takes_yet(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "SILENCE", 0)
    monkeypatch.setattr(progress_module, "CLOCK", progress_module.Clock())
    now = iter([0, 0, *range(30, 3000, 30)])  # half a minute between two looks at the clock
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(now))
    with progress_module.Progress(10, 3, 6, True) as progress:  # epochs 3 to 6
        for _ in range(4):
            progress.epoch({"epoch": 0, "seconds": 0.1, "loss": 2.5})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(": loss 2.5" in line for line in lines)
    assert [line.partition("; about ")[2] for line in lines] == ["90 s left", "90 s left", "50 s left", ""]
    assert [progress_module.duration(s) for s in (99.4, 100, 5999, 6000)] == ["99 s", "2 min", "100 min", "1.7 h"]


def test_losses_that_come_only_now_and_then_are_averaged_over_their_steps(monkeypatch):
    model, steps = tiny(), []

    def train_step(x, rng):
        steps.append(1)
        return {"often": np.float32(1)} | ({"seldom": np.float32(len(steps))} if len(steps) % 2 == 0 else {})

    monkeypatch.setattr(model, "train_step", train_step)
    (row,) = fit(model, pixels(16), epochs=1)
    assert (row["often"], row["seldom"]) == (1, 3)  # steps 2 and 4 of 4


def test_a_model_that_learns_from_labels_refuses_data_without(monkeypatch):
    model = tiny(conditional=True)
    monkeypatch.setattr(model, "train_step", lambda x, rng, labels: {"loss": np.float32(labels.sum())})
    with pytest.raises(UsageError, match="labels"):
        fit(model, pixels(8), epochs=1)
    assert fit(model, pixels(8), labels=np.ones(8, int), epochs=1)[0]["loss"] == model.batch


def test_trains_the_same_without_tqdm(tmp_path, monkeypatch):
    train("vae", 0, 2, tmp_path / "with")
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    train("vae", 0, 2, tmp_path / "without")
    assert sys.stderr.getvalue() == ""
    assert_same_run(tmp_path / "with", tmp_path / "without")


# ---- what is refused, before anything is written ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": -1}, "epochs must be a whole number >= 0, got -1"),
        ({"x": pixels(3)}, "batch 4 is larger than the 3 examples"),
        ({"x": 2 * pixels(8)}, r"needs pixels in \[0, 1\]"),
        ({"x": pixels(8) - 1}, r"needs pixels in \[0, 1\]"),
        ({"resume": True}, "there is no such checkpoint"),
    ],
)
def test_refused_with_nothing_written(options, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        fit(tiny(), **{"x": pixels(8), "epochs": 1, "out": tmp_path / "new"} | options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (tiny(), {"resume": False}, "already holds a run; continue it with --resume"),
        (tiny(lr=0.1), {}, "lr=0.001, not 0.1"),
        (tiny(hidden=(5,)), {}, r"hidden=\[4\], not \[5\]"),
        (tiny(), {"seed": 1}, "seed=0, not 1"),
        (tiny(), {"notes": {"colour": "red"}}, "colour=blue, not red"),
        (tiny(), {"x": pixels(9)}, r"x was float32 \(8, 3\), now it is float32 \(9, 3\)"),
        (tiny(), {"x": pixels(8)[::-1]}, "yours, which has changed since .x has other values"),
        (tiny(), {"x": pixels(8)[::-1], "notes": {"data": "mine"}}, "yours, but mine is other data"),
        (AutoEncoder(n_features=3, hidden=(4,), n_latent=1, batch=4).build(Rng(0)), {}, "model=vae, not autoencoder"),
        (VAE(n_features=3, hidden=(4,), n_latent=1, batch=4).build(Rng(0, "float64")), {}, "dtype=float32, not float6"),
    ],
)
def test_another_run_is_left_alone(model, options, words, tmp_path):
    fit(tiny(), pixels(8), epochs=1, out=tmp_path, notes={"data": "yours", "colour": "blue"})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    theta = model.params.theta.copy()
    with pytest.raises(UsageError, match=words) as caught:
        fit(model, **{"x": pixels(8), "epochs": 2, "out": tmp_path, "resume": True} | options)
    assert str(tmp_path) in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    np.testing.assert_array_equal(model.params.theta, theta)


# ---- the data of a resumed run ----


def test_the_same_data_in_another_place_is_the_same(tmp_path):
    fit(tiny(), pixels(8), epochs=1, out=tmp_path, notes={"data": "here"})
    assert len(fit(tiny(), pixels(8), epochs=2, out=tmp_path, resume=True, notes={"data": "there"})) == 2
    assert read_checkpoint(tmp_path / "checkpoint.npz")[0]["data"] == "there"
    swapped = pixels(8).astype(">f4")  # the same numbers, their bytes the other way round
    assert len(fit(tiny(), swapped, epochs=3, out=tmp_path, resume=True, notes={"data": "there"})) == 3


def test_new_data_is_taken_where_that_is_said(tmp_path):
    fit(tiny(), pixels(8), epochs=1, out=tmp_path)
    with pytest.raises(UsageError, match="accept_new_data"):
        fit(tiny(), pixels(12), epochs=2, out=tmp_path, resume=True)
    assert len(fit(tiny(), pixels(12), epochs=2, out=tmp_path, resume=True, accept_new_data=True)) == 2
    assert len(fit(tiny(), pixels(12), epochs=3, out=tmp_path, resume=True)) == 3, "it is the run's data from now on"


@pytest.mark.parametrize("changed", ["labels", "x_test", "labels_test"])
def test_labels_and_test_data_that_changed_are_other_data(changed, tmp_path):
    data = {"x": pixels(8), "labels": np.arange(8) % 2, "x_test": pixels(6), "labels_test": np.arange(6) % 2}
    fit(tiny(), **data, epochs=1, out=tmp_path)
    with pytest.raises(UsageError, match=f"{changed} has other values"):
        fit(tiny(), **data | {changed: data[changed][::-1]}, epochs=2, out=tmp_path, resume=True)
    del data[changed], data["labels_test" if changed == "x_test" else "x"]
    fit(tiny(), **{"x": pixels(8)} | data, epochs=2, out=tmp_path, resume=True)  # what is not given says nothing


def test_a_run_of_an_older_version_goes_by_the_name_of_its_data(tmp_path):
    fit(tiny(), pixels(8), epochs=1, out=tmp_path, notes={"data": "here"})
    notes, arrays = read_checkpoint(tmp_path / "checkpoint.npz")
    del notes["fingerprint"], notes["threads"]
    np.savez(tmp_path / "checkpoint.npz", notes=np.array(json.dumps(notes)), **arrays)
    with pytest.raises(UsageError, match="trained on here, but there is other data"):
        fit(tiny(), pixels(8), epochs=2, out=tmp_path, resume=True, notes={"data": "there"})
    fit(tiny(), pixels(8), epochs=2, out=tmp_path, resume=True, notes={"data": "here"})


def test_two_processes_do_not_train_into_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    fit(tiny(), pixels(8), epochs=1, out=tmp_path)
    refusals = []

    def meanwhile(model, row):
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import test_fit as t\n"
            "t.fit(t.tiny(), t.pixels(8), epochs=3, out=sys.argv[2], resume=True)"
        )
        process = subprocess.run([sys.executable, "-c", code, os.path.dirname(__file__), tmp_path], capture_output=True)
        refusals.append(process.stderr.decode().splitlines()[-1])

    fit(tiny(), pixels(8), epochs=2, out=tmp_path, resume=True, on_epoch=meanwhile)
    assert "UsageError" in refusals[0] and "another process is training into it" in refusals[0]
    assert len(fit(tiny(), pixels(8), epochs=3, out=tmp_path, resume=True)) == 3, "the folder is free again"


def test_two_new_runs_at_once_in_one_folder(tmp_path):
    pytest.importorskip("fcntl")

    def meanwhile(model, row):
        with pytest.raises(UsageError, match=r"already holds a run|another process"):
            fit(tiny(), pixels(8), epochs=1, out=tmp_path)

    fit(tiny(), pixels(8), epochs=1, out=tmp_path, on_epoch=meanwhile)


def test_where_folders_cannot_be_locked_runs_go_on_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("scratchgen.train.run.fcntl", None)  # as on Windows
    fit(tiny(), pixels(8), epochs=0, out=tmp_path)
    assert len(fit(tiny(), pixels(8), epochs=1, out=tmp_path, resume=True)) == 1
    with pytest.raises(UsageError, match="already holds a run"):
        fit(tiny(), pixels(8), epochs=1, out=tmp_path)


# ---- arrays that do not fit ----

X, LABELS = pixels(8), np.arange(8) % 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"x": X.tolist()}, "x is a builtins.list: give a NumPy array"),
        ({"x": X[0]}, "x has shape"),
        ({"x": X.reshape(2, 4, 3)}, r"x has shape \(2, 4, 3\).*reshape"),
        ({"x": X[:0]}, "x has shape .0, 3. and is empty"),
        ({"x": X.astype(str)}, "x holds <U"),
        ({"x": X.astype(complex)}, "x holds complex128"),
        ({"x": X[:, :2]}, "2 numbers per example, but the model has n_features=3"),
        ({"x": np.where(X[3, 1] == X, np.nan, X)}, "x is nan in row 3, column 1"),
        ({"x": np.where(X[3, 1] == X, np.inf, X)}, "x is inf in row 3, column 1"),
        ({"x": X.astype(np.float64) * 1e39}, "x has numbers beyond 1e15"),
        ({"x": np.ma.masked_array(X, X > 0.5)}, "x is a masked array"),
        ({"labels": np.ma.masked_array(LABELS, LABELS > 1)}, "labels is a masked array"),
        ({"labels": LABELS[:7]}, r"labels has shape \(7,\), but there are 8 examples"),
        ({"labels": LABELS + 0.5}, "labels holds float64: give whole numbers"),
        ({"labels": LABELS.astype(str)}, "labels holds <U"),
        ({"labels": LABELS.tolist()}, "labels is a builtins.list"),
        ({"x_test": X[:0]}, "x_test has shape .0, 3. and is empty"),
        ({"x_test": X[:, :2]}, "x_test has 2 numbers per example, but x has 3"),
        ({"x_test": X * 2}, r"test data: VAE needs pixels in \[0, 1\]"),
        ({"x_test": np.where(X[3, 1] == X, np.nan, X)}, "x_test is nan in row 3, column 1"),
        ({"x_test": X, "labels_test": LABELS[:7]}, r"labels_test has shape \(7,\), but there are 8"),
        ({"x_test": X, "labels_test": LABELS + 0.5}, "labels_test holds float64"),
        ({"labels_test": LABELS}, "labels_test was given without x_test"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"seed": 1.5}, "seed must be a whole number >= 0"),
        ({"epochs": 2.5}, "epochs must be a whole number >= 0"),
    ],
)
def test_arrays_and_numbers_that_do_not_fit_are_one_line(given, words, tmp_path):
    with pytest.raises(UsageError, match=words) as caught:
        fit(tiny(), **{"x": X, "epochs": 1, "out": tmp_path / "new"} | given)
    assert "\n" not in str(caught.value) and "learning rate" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "test", "words"),
    [
        (LABELS + 1, LABELS, "the labels are 1 ... 3"),
        (LABELS - 1, LABELS, "the labels are -1 ... 1"),
        (LABELS, LABELS + 1, "test data: the labels are 1 ... 3"),
        (np.eye(3)[LABELS], LABELS, "labels holds float64"),
        (np.eye(3, dtype=int)[LABELS], LABELS, r"labels has shape \(8, 3\): give one whole number for each example"),
    ],
)
def test_labels_that_the_model_does_not_have(labels, test, words):
    model = Classifier(n_features=3, n_classes=3, hidden=(4,), batch=4).build(Rng(0))
    with pytest.raises(UsageError, match=words):
        fit(model, X, labels=labels, x_test=X, labels_test=test, epochs=1)
    fit(model, X, labels=LABELS.astype(np.uint8), x_test=X, labels_test=LABELS > 0, epochs=1)


def test_test_data_without_labels_is_enough_where_the_tests_need_none():
    model = ConditionalGAN(n_features=3, n_classes=3, hidden_G=(4,), hidden_D=(4,), batch=4).build(Rng(0))
    assert len(fit(model, X, labels=LABELS, x_test=X[:5], epochs=1, progress=False)) == 1


@pytest.mark.parametrize("kind", [np.float64, np.uint8, np.int64, bool])
def test_numbers_of_any_type_train_in_the_models_precision(kind):
    model, x = tiny(), np.round(pixels(8)).astype(kind)
    history = fit(model, x, x_test=x, epochs=2)
    assert model.params.theta.dtype == np.float32
    assert history == [row | {"seconds": row["seconds"]} for row in history]
    assert np.isfinite(history[-1]["loss"])
    other = tiny()
    fit(other, x.astype(np.float32), epochs=2)
    np.testing.assert_array_equal(other.params.theta, model.params.theta)


def test_numpy_scalars_wherever_a_number_is_taken(tmp_path):
    settings = {"n_latent": np.int64(1), "lr": np.float64(1e-3), "hidden": tuple(np.array([4])), "beta": np.float32(1)}
    model = VAE(**{"n_features": np.int32(3), "batch": np.int8(4), "binarize": np.bool_(False)} | settings).build(
        Rng(0)
    )
    assert all(type(value) in (int, float, bool, str, tuple) for value in model.settings().values())
    notes = {"share": np.float32(0.5), "table": np.arange(3)}
    fit(model, X, epochs=np.int64(2), seed=np.int64(3), out=tmp_path, notes=notes)
    saved, _ = read_checkpoint(tmp_path / "checkpoint.npz")
    assert (saved["epoch"], saved["seed"], saved["share"], saved["table"]) == (2, 3, 0.5, [0, 1, 2])
    again = tiny(n_latent=1, hidden=[4])
    fit(again, X, epochs=3, seed=3, out=tmp_path, resume=True, notes=notes)
    assert again.sample(np.int64(5), again.rng(np.int64(1))).shape == (5, 3)


# ---- threads ----


def large():
    """A model that is large enough to be tried with several threads."""
    return VAE(n_features=300, hidden=(300,), n_latent=2, batch=200).build(Rng(0))


@pytest.fixture
def pretended(monkeypatch):
    """pretended(seconds of a step by number of threads): a machine of 4 threads, on which steps last as long as said."""
    used = []

    @contextlib.contextmanager
    def blas_threads(n):
        used.append(n)
        yield

    def machine(seconds):
        monkeypatch.setattr(threads, "most_threads", lambda: 4)
        monkeypatch.setattr(threads, "blas_threads", blas_threads)
        monkeypatch.setattr("scratchgen.train.fit.blas_threads", blas_threads)
        clock, original = [0.0], VAE.train_step

        def train_step(self, x, rng, labels=None):
            clock[0] += seconds(used[-1], len(used))
            return original(self, x, rng)

        monkeypatch.setattr(VAE, "train_step", train_step)
        monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
        return used

    return machine


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        (lambda n, k: 0.01 / n, 4),  # idle cores
        (lambda n, k: 0.01 - 0.0001 * n, 1),  # nothing to be gained
        (lambda n, k: 0.01 if n == 1 else 0.06, 1),  # busy cores
        (lambda n, k: 0.01 if n == 1 else 0.005 + 0.06 * (k % 6 == 4), 1),  # busy now and then
    ],
)
def test_more_threads_only_where_they_are_clearly_faster(seconds, chosen, pretended, tmp_path):
    x, used = np.random.default_rng(0).random((400, 300), np.float32), pretended(seconds)
    model = large()
    fit(model, x, epochs=1, out=tmp_path, progress=False)
    assert used[-1] == chosen and set(used) == {1, 4}
    notes, arrays = read_checkpoint(tmp_path / "checkpoint.npz")
    assert notes["threads"] == chosen
    plain = large()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "most_threads", lambda: 1)
        fit(plain, x, epochs=1, progress=False)
    np.testing.assert_array_equal(plain.params.theta, arrays["params.theta"], "the steps that were tried are undone")
    used.clear()
    fit(large(), x, epochs=2, out=tmp_path, resume=True, progress=False)
    assert set(used) == {chosen}, "resume keeps the choice"


def test_small_models_are_not_tried(pretended):
    used = pretended(lambda n, k: 0.01 / n)
    fit(tiny(), X, epochs=1)
    assert set(used) == {1}


@pytest.mark.parametrize(("limit", "said"), [(None, True), ("1", False)])
def test_without_threadpoolctl_it_is_said_once_that_nothing_is_limited(limit, said, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if limit:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
    threads.say_that_nothing_is_limited.cache_clear()
    for _ in range(2):
        fit(tiny(), X, epochs=1)
    assert capsys.readouterr().err.count("threadpoolctl is not installed") == said


if (
    __name__ == "__main__"
):  # python tests/train/test_fit.py STEP MODEL VARIANT OUT   or   STEP MODEL train MODEL --epochs ...
    step, name, *what = sys.argv[1:]
    at_step(find_model(name), int(step), lambda: os.kill(os.getpid(), signal.SIGKILL))
    if what[0] == "train":
        main(what)
    else:
        train(name, int(what[0]), 4, what[1])
