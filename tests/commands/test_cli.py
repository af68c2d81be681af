"""The command line: every command does what it says, and every mistake a user can make ends in exit code 2 and one line
that names what is wrong and what to do, with nothing printed, nothing half-written and nothing overwritten.
"""

import dataclasses
import gzip
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest

import scratchgen.data
import scratchgen.nn.layers
from scratchgen.__main__ import main
from scratchgen.check import selfcheck
from scratchgen.commands import sample
from scratchgen.commands.settings import meanings
from scratchgen.data import load
from scratchgen.metrics.frechet import trained_classifier
from scratchgen.metrics.meanings import meaning
from scratchgen.models import find_model, model_names
from scratchgen.models.settings import type_and_range
from scratchgen.models.vae import VAE
from scratchgen.nn.layers import Linear
from scratchgen.train.checkpoint import load_model, read_checkpoint

TRAIN = ["train", "vae", "--epochs", "2"]
SMALL = ["--set", "hidden=16", "n_latent=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a VAE after two epochs of the digits, made once."""
    trained_classifier(load("digits"))  # now, as it says that it trains one, where there is none yet
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TRAIN, "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """The name of a copy of that folder in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    return "run"


@pytest.fixture
def cli(capsys):
    """Run a command that must succeed without a word on stderr; its output."""

    def call(*args):
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


def strict(text):
    """JSON as the standard has it, without NaN and Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


# ---- list, gradcheck ----


def test_list_shows_models_data_and_demos_in_a_page(cli):
    out = cli("list")
    for name in model_names():
        assert f"\n  {name} " in out
    for text in ("a folder of pictures", "list MODEL", *scratchgen.data.names()):
        assert text in out
    demos = Path(scratchgen.__file__).parent.parent / "demos"
    for path in demos.glob("*.py"):
        assert (f"\n  {path.stem} " in out) == (path.stem not in ("common", "recipes"))
    assert "hidden=400" not in out


@pytest.mark.parametrize("name", model_names())
def test_list_of_a_model_says_what_every_setting_means(name, cli):
    out = cli("list", name)
    model = find_model(name)
    for field in dataclasses.fields(model):
        (line,) = (line for line in out.splitlines() if re.match(rf"  {field.name}(=| )", line))
        assert len(line.split(maxsplit=1)) == 2 and meanings(model)[field.name], "a setting without a meaning"
        assert str(type_and_range(field.type)[1]) in " ".join(out.split())
        for choice in get_args(field.type) if get_origin(field.type) is Literal else ():
            assert str(choice) in out


def test_list_of_no_model(capsys):
    assert main(["list", "gan9"]) == 2
    assert "'gan9'" in capsys.readouterr().err


@pytest.mark.slow  # tests/check/test_gradients.py checks the same ones without the command line
def test_gradcheck_checks_everything(cli):
    reports = strict(cli("gradcheck", "--json"))
    assert all(list(r) == ["name", "kind", "method", "error", "tolerance", "passed"] for r in reports)
    assert all(r["passed"] is True and 0 <= r["error"] <= r["tolerance"] for r in reports)
    assert max(r["error"] for r in reports if r["method"] == "complex-step") <= 1e-12
    found = [(r["kind"], r["name"]) for r in reports]
    assert found == [(kind, name) for kind, name, _ in selfcheck.targets()]
    assert len(set(found)) == len(reports)
    assert {("layer", "Linear"), ("layer", "reparameterize"), ("loss", "kl_standard_normal")} <= set(found)
    for model in map(find_model, model_names()):
        for objective in model.objectives:
            assert ("objective", f"{model.__name__}.{objective}") in found


def test_gradcheck_pattern_and_table(cli):
    names = {r["name"] for r in strict(cli("gradcheck", "hNORM", "--json"))}
    assert names == {"BatchNorm"}  # in whatever case
    *lines, last = cli("gradcheck", "hnorm").splitlines()
    assert len(lines) == 1
    assert all("ok" in line and "complex-step" in line for line in lines)
    assert last.startswith("1 passed, 0 failed; worst error ")


class Doubled(Linear):
    """A layer whose dW is twice what it should be."""

    def forward(self, x, rng):
        y, back = super().forward(x, rng)

        def backward(dy, learn=True, inputs=True):
            dx = back(dy, learn, inputs)
            if learn:
                self.dW += x.T @ dy
            return dx

        return y, backward


class NotANumber(Linear):
    def forward(self, x, rng):
        y, back = super().forward(x, rng)
        return y * np.nan, back


class Unfinished(Linear):
    def forward(self, x, rng):
        raise NotImplementedError("later")


@pytest.mark.parametrize(
    ("broken", "words"),
    [(Doubled, "twice too large"), (NotANumber, "the value is nan"), (Unfinished, "NotImplementedError: later")],
)
def test_gradcheck_ends_in_1_when_something_fails(broken, words, monkeypatch, capsys):
    like_ours = type("LinearToo", (broken,), {"__module__": "scratchgen.nn.layers"})
    monkeypatch.setattr(scratchgen.nn.layers, "LinearToo", like_ours, raising=False)
    assert main(["gradcheck", "LinearToo"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert words in out
    assert ", 0 failed" not in out
    assert main(["gradcheck", "Linear", "--json"]) == 1
    passed = {r["name"]: (r["passed"], r["error"]) for r in strict(capsys.readouterr().out)}
    assert passed["Linear"][0] is True
    assert passed["LinearToo"][0] is False
    assert passed["LinearToo"][1] > 0.1
    assert main(["gradcheck", "LayerNorm"]) == 0


# ---- train, resume, sample, evaluate ----


def test_train_through_a_real_process(tmp_path):
    command = [
        sys.executable,
        "-m",
        "scratchgen",
        *TRAIN,
        "--out",
        "new/run",
        "--seed",
        "1",
        *SMALL,
        "--set",
        "variance=0.5",
    ]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    names = ["checkpoint.npz", "best.npz", "history.csv", *["history.png"] * bool(find_spec("matplotlib"))]
    assert (process.stderr == "") == ("history.png" in names)  # without matplotlib, a line says that it is not drawn
    first, *rows = process.stdout.splitlines()
    paths = rows[-len(names) :]
    assert first.startswith("vae on digits: epoch 2, ")
    (row,) = (row for row in rows if row.startswith("  test_negative_elbo "))
    assert "nats per example" in row and row.endswith("lower is better")
    assert [Path(path) for path in paths] == [Path("new/run") / name for name in names]
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == sorted(names)
    notes, _ = read_checkpoint(tmp_path / "new" / "run" / "checkpoint.npz")
    assert (notes["model"], notes["data"], notes["seed"], notes["epoch"]) == ("vae", "digits", 1, 2)
    assert notes["settings"]["hidden"] == [16]
    assert notes["settings"]["variance"] == 0.5
    assert notes["settings"]["n_features"] == 64


def test_resume_trains_on(run, cli):
    assert "epoch 3," in cli("train", "vae", "--epochs", "3", "--out", run, "--resume")
    rows = Path(run, "history.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert load_model(Path(run) / "checkpoint.npz")[1]["epoch"] == 3
    # The same settings may be named again.
    assert "epoch 3," in cli("train", "vae", "--epochs", "3", "--out", run, "--resume", "--seed", "0", *SMALL)


def test_training_repeats_with_the_seed(trained, tmp_path, cli):
    weights = {}
    for name, seed in (("same", "0"), ("other", "1")):
        cli(*TRAIN, "--out", tmp_path / name, "--seed", seed, *SMALL)
        weights[name] = read_checkpoint(tmp_path / name / "checkpoint.npz")[1]["params.theta"]
    first = read_checkpoint(trained / "checkpoint.npz")[1]["params.theta"]
    np.testing.assert_array_equal(weights["same"], first)
    assert not np.array_equal(weights["other"], first)


def test_sample_numbers(run, cli):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert cli("sample", run, "-n", "7", "-o", f"{name}.npy", "--seed", seed) == f"{name}.npy\n"
    a, b, c = (np.load(f"{name}.npy") for name in "abc")
    assert a.shape == (7, 64)
    assert a.dtype == np.float32
    assert a.min() >= 0
    assert a.max() <= 1
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    cli("sample", run, "-o", "default.npy")
    assert np.load("default.npy").shape == (64, 64)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_sample_a_picture(n, run, cli):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        assert cli("sample", run, "-n", n, "-o", f"new/{name}.png", "--seed", "5") == f"new/{name}.png\n"
    assert Path("new/a.png").read_bytes() == Path("new/b.png").read_bytes()
    with image.open("new/a.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 50
        assert np.ptp(np.asarray(picture.convert("L"))) > 100  # there is ink on it


def test_sample_hands_a_label_to_a_model_that_takes_one(run, cli, monkeypatch):
    def sample(self, n, rng, label=None):
        return np.full((n, 64), label)

    monkeypatch.setattr(VAE, "sample", sample)
    monkeypatch.setattr(VAE, "needs_labels", True)
    cli("sample", run, "-n", "2", "-o", "x.npy", "--label", "3")
    np.testing.assert_array_equal(np.load("x.npy"), np.full((2, 64), 3))


def test_evaluate(run, cli):
    found = strict(cli("evaluate", run, "--json"))
    assert found == strict(cli("evaluate", run, "--json"))
    assert [found.pop(name) for name in ("model", "data", "epoch", "n")] == ["vae", "digits", 2, 397]
    sampled = {
        "frechet",
        "frechet_error",
        "frechet_floor",
        "frechet_floor_error",
        "classifier_accuracy",
        "rarest_class",
    }
    assert set(found) == {"negative_elbo", "nll", "kl", "mse", "log_p", "log_p_error", "log_p_method"} | sampled
    np.testing.assert_allclose(found["negative_elbo"], found["nll"] + found["kl"], rtol=1e-6)
    assert -found["negative_elbo"] - 5 < found["log_p"] < 0
    assert "100 draws" in found["log_p_method"] and "binarized by chance" in found["log_p_method"]
    first, *lines = cli("evaluate", run).splitlines()
    assert first == "vae after epoch 2, on 397 test examples of digits"
    for line, (name, value) in zip(lines, found.items(), strict=True):
        value = value if isinstance(value, str) else f"{value:.5g}"
        assert line.split(maxsplit=1) == [name, f"{value:<12} {meaning(name)}".rstrip()]
    more = strict(cli("evaluate", run, "--json", "--draws", "1000"))
    assert more["log_p"] > found["log_p"] and "1,000 draws" in more["log_p_method"]


@pytest.mark.parametrize("draws", ["0", "many", "-1"])
def test_evaluate_takes_a_number_of_draws(draws, run, capsys):
    assert main(["evaluate", str(run), "--draws", draws]) == 2
    assert "--draws" in capsys.readouterr().err


@pytest.mark.parametrize("toy", ["ring", "two_modes"])
def test_points(toy, tmp_path, cli):
    width = {"ring": 2, "two_modes": 1}[toy]
    cli(*TRAIN, "--data", toy, "--out", tmp_path / "run", "--set", "likelihood=gaussian", "hidden=8", "n_latent=1")
    assert strict(cli("evaluate", tmp_path / "run", "--json"))["n"] == 2000
    cli("sample", tmp_path / "run", "-n", "9", "-o", tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (9, width)
    pytest.importorskip("matplotlib")
    cli("sample", tmp_path / "run", "-n", "9", "-o", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_a_picture_of_points_shows_as_many_real_ones_while_they_are_there(tmp_path, cli, monkeypatch):
    pytest.importorskip("matplotlib")
    x = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    np.savez(tmp_path / "points.npz", x_train=x, x_test=x[:5])
    cli("train", "vae", "--epochs", "1", "--data", tmp_path / "points.npz", "--out", tmp_path / "run", "--set", "hidden=8",
        "n_latent=1", "likelihood=gaussian", "batch=8")  # fmt: skip
    drawn = []
    monkeypatch.setattr(sample, "picture_of", lambda x, shape, path, real: drawn.append((len(x), shape, real)))
    for n in (9, 100):
        cli("sample", tmp_path / "run", "-n", n, "-o", tmp_path / "x.png")
    (tmp_path / "points.npz").unlink()
    cli("sample", tmp_path / "run", "-n", "9", "-o", tmp_path / "x.png")
    assert [(n, shape, real if real is None else len(real)) for n, shape, real in drawn] == [
        (9, None, 9), (100, None, 40), (9, None, None),
    ]  # fmt: skip
    assert {*map(tuple, drawn[1][2])} == {*map(tuple, x)}


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (401,)])
def test_arrays_of_any_shape(shape, tmp_path, cli):
    """Grey, colour, and rows of numbers, which are drawn as pictures one pixel high."""
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, *shape), dtype=np.float32))
    cli("train", "autoencoder", "--epochs", "1", "--data", tmp_path / "x.npy", "--out", tmp_path / "run", *SMALL,
        "--set", "batch=8")  # fmt: skip
    assert strict(cli("evaluate", tmp_path / "run", "--json"))["n"] == 4
    for n in (1, 10):
        cli("sample", tmp_path / "run", "-n", n, "-o", tmp_path / "x.png")
        assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def draw(path, size):
    """A picture of size (width, height)."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path.name)))
    image.fromarray(rng.integers(0, 256, (size[1], size[0])).astype(np.uint8)).save(path)


def test_a_folder_of_pictures(tmp_path, cli):
    for i in range(20):
        draw(tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png", (6, 4))
    assert "epoch 2," in cli(*TRAIN, "--data", tmp_path / "pictures", "--out", tmp_path / "run", *SMALL, "batch=9")
    assert strict(cli("evaluate", tmp_path / "run", "--json"))["n"] == 2
    cli("sample", tmp_path / "run", "-n", "3", "-o", tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (3, 24)


# ---- everything that can go wrong ----


def idx(array):
    """The bytes of an IDX file."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return (0x800 + array.ndim).to_bytes(4, "big") + sizes + array.astype(np.uint8).tobytes()


def write_mistakes():
    """Files with something wrong with each, in the working directory."""
    x = np.random.default_rng(0).random((150, 64), dtype=np.float32)
    Path("file.txt").write_text("a file, no folder")
    np.save("good.npy", x)
    np.save("wide.npy", x[:, :16])
    good = Path("good.npy").read_bytes()
    Path("empty.npy").write_bytes(b"")
    Path("truncated.npy").write_bytes(good[:500])
    Path("noise.npy").write_bytes(np.random.default_rng(1).bytes(500))
    np.save("pickled.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save("nan.npy", np.where(x == x[3, 3], np.nan, x))
    np.save("large.npy", 255 * x.reshape(150, 8, 8))
    np.savez("damaged.npz", x=x)
    content = bytearray(Path("damaged.npz").read_bytes())
    content[1000] ^= 1
    Path("damaged.npz").write_bytes(content)
    Path("no_pictures").mkdir()
    for name, size in (("a", (4, 4)), ("b", (4, 5))):
        draw(Path("mixed") / f"{name}.png", size)
    draw(Path("spoilt") / "a.png", (4, 4))
    Path("spoilt/b.png").write_bytes(b"no picture")
    images = idx(np.zeros((3, 28, 28)))
    spoilt = {"cut": gzip.compress(images)[:-9], "magic": gzip.compress(b"\0" + images), "other": gzip.compress(images)}
    for name, content in {**spoilt, "short": images[:-1], "none": b""}.items():
        folder = Path(name) / "mnist"
        folder.mkdir(parents=True)
        (folder / "train-images-idx3-ubyte.gz").write_bytes(content)


def snapshot():
    return {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}


@pytest.fixture
def refused(run, capsys, monkeypatch):
    """Run a command that must be refused as the module's docstring says, in one line with all of these words."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    write_mistakes()

    def call(args, *words):
        before = snapshot()
        capsys.readouterr()
        code = main(args)
        out, err = capsys.readouterr()
        assert code == 2
        assert out == ""
        assert err.startswith("scratchgen: ")
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1
        for word in words:
            assert word in err
        assert snapshot() == before

    return call


NEW = [*TRAIN, "--out", "new"]
MISTAKES = {
    "variance zero": (
        [*NEW, "--data", "ring", "--set", "likelihood=gaussian", "variance=0"],
        "variance",
        "expected a number > 0",
    ),
    "no command": ([], "COMMAND", "--help"),
    "unknown command": (["dream"], "'dream'", "train", "--help"),
    "missing option": (["train", "vae", "--epochs", "1"], "--out", "--help"),
    "unknown option": ([*NEW, "--batch", "3"], "--batch", "--help"),
    "unknown model": (["train", "gan9", "--epochs", "1", "--out", "new"], "'gan9'", "use one of autoencoder, "),
    "unknown data": ([*NEW, "--data", "digit"], "'digit'", "use digits, mnist, "),
    "unknown device": ([*NEW, "--device", "tpu"], "--device", "'tpu'", "gpu"),
    "unknown setting": (
        [*NEW, "--set", "depth=3"],
        "--set depth",
        "use one of n_features, n_classes, conditional, hidden",
    ),
    "setting without =": ([*NEW, "--set", "beta"], "--set beta", "expected name=value"),
    "setting no number": ([*NEW, "--set", "lr=fast"], "--set lr=fast", "expected a number"),
    "setting not whole": ([*NEW, "--set", "n_latent=2.5"], "--set n_latent=2.5", "expected a whole number"),
    "setting no list": ([*NEW, "--set", "hidden=40,x"], "--set hidden=40,x", "whole numbers such as 400,200"),
    "setting unknown choice": ([*NEW, "--set", "likelihood=cauchy"], "likelihood", "'cauchy'", "bernoulli, gaussian"),
    "setting zero": ([*NEW, "--set", "lr=0"], "lr", "expected a number > 0"),
    "setting nan": ([*NEW, "--set", "lr=nan"], "lr", "expected a number > 0, got nan"),
    "setting infinite": ([*NEW, "--set", "beta=inf"], "beta", "expected a number >= 0, got inf"),
    "setting negative": ([*NEW, "--set", "beta=-1"], "beta", "expected a number >= 0, got -1"),
    "batch zero": ([*NEW, "--set", "batch=0"], "batch", "expected a number >= 1"),
    "layer of no width": ([*NEW, "--set", "hidden=400,0"], "hidden", "expected positive whole numbers"),
    "batch too large": ([*NEW, "--set", "batch=1401"], "batch 1401", "1400 examples", "1400 or fewer"),
    "epochs negative": ([*TRAIN, "--epochs", "-1", "--out", "new"], "--epochs", "'-1'", ">= 0"),
    "epochs no number": ([*TRAIN, "--epochs", "many", "--out", "new"], "--epochs", "'many'", "whole number"),
    "seed negative": ([*NEW, "--seed", "-1"], "--seed", "'-1'", ">= 0"),
    "width by hand": ([*NEW, "--set", "n_features=9"], "--data digits", "64 numbers", "leave --set n_features out"),
    "points for pixels": ([*NEW, "--data", "ring"], "needs pixels in [0, 1]", "--set likelihood=gaussian"),
    "data missing": ([*NEW, "--data", "none.npy"], "none.npy: no such file", "check the path"),
    "data empty": ([*NEW, "--data", "empty.npy"], "empty.npy: not readable", "numpy.save"),
    "data truncated": ([*NEW, "--data", "truncated.npy"], "truncated.npy: not readable", "numpy.save"),
    "data noise": ([*NEW, "--data", "noise.npy"], "noise.npy: not readable", "numpy.save"),
    "data pickled": ([*NEW, "--data", "pickled.npy"], "pickled.npy: not readable (pickled", "numpy.save"),
    "data damaged": ([*NEW, "--data", "damaged.npz"], "damaged.npz: not readable", "CRC"),
    "data nan": ([*NEW, "--data", "nan.npy"], "nan.npy: value nan in example 3", "rescale"),
    "data out of range": ([*NEW, "--data", "large.npy"], "large.npy: value ", "pixels in [0, 1]: rescale"),
    "data name too long": ([*NEW, "--data", 300 * "a"], "aaa", "use another path"),
    "pictures none": ([*NEW, "--data", "no_pictures"], "no_pictures: no pictures", "put "),
    "pictures mixed": ([*NEW, "--data", "mixed"], "b.png is 4x5", "a.png is 4x4: make all one size"),
    "pictures spoilt": ([*NEW, "--data", "spoilt"], "b.png: unreadable picture", "replace or remove it"),
    "out below a file": ([*TRAIN, "--out", "file.txt/new"], "file.txt/new", "Not a directory", "choose another"),
    "out a file": ([*TRAIN, "--out", "file.txt"], "file.txt", "cannot be written", "choose another"),
    "out too long": ([*TRAIN, "--out", 300 * "a"], "aaa", "use another path"),
    "out holds a run": ([*TRAIN, "--out", "run"], "run: already holds a run", "--resume"),
    "resume nothing": ([*NEW, "--resume"], "checkpoint.npz: there is no such checkpoint", "train first"),
    "resume model": (["train", "autoencoder", "--epochs", "3", "--out", "run", "--resume"], "run", "holds a vae"),
    "resume setting": ([*TRAIN, "--out", "run", "--resume", "--set", "lr=0.1"], "lr=0.001, not 0.1", "another folder"),
    "resume seed": ([*TRAIN, "--out", "run", "--resume", "--seed", "1"], "seed=0, not 1", "another folder"),
    "resume data": ([*TRAIN, "--out", "run", "--resume", "--data", "good.npy"], "good.npy", "another"),
    "resume width": ([*TRAIN, "--out", "run", "--resume", "--data", "wide.npy"], "--data wide.npy", "16 numbers"),
    "sample none": (["sample", "run", "-n", "0", "-o", "x.npy"], "-n 0", "expected a whole number > 0"),
    "sample fewer": (["sample", "run", "-n", "-3", "-o", "x.npy"], "-n -3", "expected a whole number > 0"),
    "sample half": (["sample", "run", "-n", "2.5", "-o", "x.npy"], "-n", "'2.5'", "--help"),
    "sample seed": (["sample", "run", "-o", "x.npy", "--seed", "-1"], "--seed", "'-1'", ">= 0"),
    "sample ending": (["sample", "run", "-o", "x.jpg"], "-o x.jpg", ".png or .npy"),
    "sample no ending": (["sample", "run", "-o", "x"], "-o x", ".png or .npy"),
    "sample nowhere": (["sample", "run", "-o", "file.txt/x.npy"], "file.txt/x.npy", "choose another place"),
    "picture nowhere": (["sample", "run", "-o", "file.txt/x.png"], "file.txt/x.png", "choose another place"),
    "sample without -o": (["sample", "run"], "-o", "--help"),
    "sample label": (["sample", "run", "-o", "x.npy", "--label", "3"], "--label 3", "vae", "leave it out"),
    "sample no folder": (["sample", "none", "-o", "x.npy"], "none/checkpoint.npz", "train first"),
    "sample a file": (["sample", "run/checkpoint.npz", "-o", "x.npy"], "no such checkpoint", "give the folder"),
    "evaluate no folder": (["evaluate", "none"], "none/checkpoint.npz", "train first"),
    "gradcheck nothing": (["gradcheck", "Lineal"], "'Lineal'"),
    "explain model": (["explain", "gan9"], "'gan9'", "use one of autoencoder, "),
    "explain objective": (["explain", "gan", "--objective", "loss"], "'loss'", "discriminator_loss, generator_loss"),
    "explain data": (["explain", "vae", "--data", "digit"], "'digit'", "use digits, mnist, "),
    "explain points": (["explain", "vae", "--data", "ring"], "needs pixels in [0, 1]", "--set likelihood=gaussian"),
    "explain no squares": (["explain", "pix2pix", "--data", "ring"], "n_features", "square number"),
    "explain width": (["explain", "vae", "--data", "digits", "--set", "n_features=9"], "--data digits", "64 numbers"),
    "explain setting": (["explain", "vae", "--set", "depth=3"], "--set depth", "use one of n_features, "),
    "explain pack": (["explain", "gan", "--set", "pack=3"], "pack", "batch=4"),
    "explain built on": (["explain", "latent_diffusion", "--data", "digits"], "vqgan", "--set vqvae=DIR"),
    "explain trained": (["explain", "dbn", "--set", "rbm=run"], "expected a RBM", "got a VAE"),
    "explain nowhere": (["explain", "vae", "--html", "file.txt/x.html"], "file.txt/x.html", "choose another place"),
}


def test_explain_prints_a_step_or_writes_a_page(cli, tmp_path):
    out = cli("explain", "vae", "--set", "n_latent=1", "hidden=2")
    assert out.startswith("VAE: one training step on its tiny example\n")
    assert "z (4, 1)" in out
    assert "22 of 22 gradients agree with the complex step" in " ".join(out.split())
    page = tmp_path / "pages" / "gan.html"
    out = cli("explain", "gan", "--objective", "generator_loss", "--html", page)
    assert out.splitlines()[-1] == str(page)
    text = page.read_text(encoding="utf-8")
    assert "GAN.generator_loss" in text
    assert "GAN.discriminator_loss" not in text


def test_explain_takes_real_data(cli):
    out = cli("explain", "vae", "--data", "digits", "--set", "hidden=8", "n_latent=2", "batch=16")
    assert out.startswith("VAE: one training step on digits\n")
    assert "x (16, 64)   mean " in out
    assert "along a random direction" in out
    out = cli("explain", "conditional_gan", "--data", "digits", "--set", "hidden_G=8", "hidden_D=8", "batch=8")
    assert "labels (8,)" in out


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line(mistake, refused):
    args, *words = MISTAKES[mistake]
    refused(args, *words)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("cut", "the gzip file is truncated"),
        ("magic", "magic number 8, but"),
        ("other", "SHA-256 differs"),
        ("short", "bytes, but its header says"),
        ("none", "the file is empty"),
    ],
)
def test_a_damaged_mnist_is_one_line(folder, words, refused, monkeypatch):
    monkeypatch.setenv("SCRATCHGEN_DATA", folder)
    refused([*NEW, "--data", "mnist"], f"{folder}/mnist/train-images-idx3-ubyte.gz: ", words, "delete it and run again")


@pytest.mark.parametrize("pooch", [None, types.SimpleNamespace()])
def test_no_mnist_and_no_way_to_download_it_is_one_line(pooch, refused, monkeypatch):
    def retrieve(*args):
        raise OSError("no network")

    if pooch:
        pooch.retrieve = retrieve
    monkeypatch.setitem(sys.modules, "pooch", pooch)
    monkeypatch.setenv("SCRATCHGEN_DATA", "elsewhere")
    words = "the download of http" if pooch else "pip install"
    refused([*NEW, "--data", "mnist"], "train-images-idx3-ubyte.gz is not in elsewhere/mnist", "SCRATCHGEN_DATA", words)


@pytest.mark.parametrize(
    ("cupy", "words"),
    [
        (None, "pip install"),
        (types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: False)), "use device cpu, or check"),
    ],
)
def test_no_gpu_is_one_line(cupy, words, refused, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    refused(
        [*NEW, "--device", "gpu"], "device gpu", words, "cupy-cuda13x[ctk]' (CUDA 13)", "cupy-cuda12x[ctk]' (CUDA 12)"
    )
    cli(*TRAIN, "--out", "auto", "--device", "auto", *SMALL)


@pytest.mark.parametrize("command", [["evaluate", "run"], ["sample", "run", "-o", "x.npy"]])
def test_no_gpu_is_no_fault_of_the_checkpoint(command, refused, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    refused([*command, "--device", "gpu"], "device gpu needs CuPy")
    assert main([*command, "--device", "gpu"]) == 2
    assert "again" not in capsys.readouterr().err
    assert main([*command, "--device", "auto"]) == 0


def rewritten(path="run/checkpoint.npz", arrays=None, **notes):
    """Write the checkpoint again with something changed."""
    old_notes, old_arrays = read_checkpoint(path)
    notes = np.array(json.dumps(old_notes | notes))
    np.savez(path, notes=notes, **(old_arrays if arrays is None else arrays))


def spoil(how):
    """Do to run/checkpoint.npz what the name of a parameter below says."""
    path = Path("run/checkpoint.npz")
    content = path.read_bytes()
    notes, arrays = read_checkpoint(path)
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(1000))
    elif how == "one bit":
        path.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    elif how == "a pickle":
        path.write_bytes(pickle.dumps({"notes": notes}))
    elif how == "pickled objects":
        rewritten(arrays=arrays | {"params.theta": np.array([{}, None])})
    elif how == "one array":
        with path.open("wb") as file:
            np.save(file, arrays["params.theta"])
    elif how == "no notes":
        np.savez(path, **arrays)
    elif how == "another version":
        rewritten(version=99)
    elif how == "unknown model":
        rewritten(model="gan9")
    elif how == "another model's arrays":
        rewritten(settings=notes["settings"] | {"hidden": [16, 16]})
    elif how == "text for numbers":
        rewritten(arrays=arrays | {"params.theta": np.full(arrays["params.theta"].shape, "x")})
    elif how == "unknown setting":
        rewritten(settings=notes["settings"] | {"depth": 3})
    elif how == "impossible setting":
        rewritten(settings=notes["settings"] | {"beta": -1})


@pytest.mark.parametrize(
    "command",
    [
        ["train", "vae", "--epochs", "3", "--out", "run", "--resume"],
        ["sample", "run", "-o", "x.npy"],
        ["evaluate", "run", "--json"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "there is no such checkpoint; train first"),
        ("empty", "cannot be loaded (it is damaged or not a checkpoint); train again"),
        ("truncated", "cannot be loaded (it is damaged or not a checkpoint); train again"),
        ("noise", "cannot be loaded (it is damaged or not a checkpoint); train again"),
        ("one bit", "cannot be loaded (it is damaged or not a checkpoint); train again"),
        ("a pickle", "cannot be loaded (it is damaged or not a checkpoint); train again"),
        ("one array", "cannot be loaded (it is damaged or not a checkpoint); train again"),
        ("no notes", "cannot be loaded (it is damaged or not a checkpoint); train again"),
        ("pickled objects", "cannot be loaded (it holds pickled objects); train again"),
        ("another version", "has version 99, but this scratchgen reads version 2; train again"),
        ("unknown model", "does not fit this scratchgen (model 'gan9' is unknown"),
        ("another model's arrays", "does not fit this scratchgen (the arrays of another model"),
        ("text for numbers", "does not fit this scratchgen"),
        ("unknown setting", "does not fit this scratchgen"),
        ("impossible setting", "does not fit this scratchgen (VAE setting beta"),
    ],
)
def test_a_bad_checkpoint_is_one_line(command, how, words, refused):
    spoil(how)
    refused(command, "run/checkpoint.npz", words)


def test_no_byte_of_a_checkpoint_can_go_wrong_unnoticed(run):
    """Every byte changed or cut at, a few at a time: the same arrays are loaded, or the file is refused by name."""
    path = Path("run/checkpoint.npz")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    _, arrays = read_checkpoint(path)
    places = [*rng.integers(len(content), size=60), *range(len(content) - 800, len(content), 4)]  # the directory
    refusals = 0
    for place in places:
        changed = bytes([content[place] ^ rng.integers(1, 256)])
        path.write_bytes(content[:place] + rng.choice([changed + content[place + 1 :], b""]))
        try:
            _, found = read_checkpoint(path)
        except ValueError as error:
            assert str(error).startswith("run/checkpoint.npz: ")
            refusals += 1
        else:  # a byte that means nothing, such as a date
            assert all(np.array_equal(array, arrays[name]) for name, array in found.items())
            assert found.keys() == arrays.keys()
    assert refusals > len(places) / 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"epoch,loss\n1,2.5\nthree,1.5\n",
        b"epoch,loss\n1,\n",
        b"epoch,loss\n1\n",
        b"epoch,loss\n1,2,3\n",
        b"loss,nll\n2.5,2.5\n",
        b"\xff\xfe\x00binary\x00,\n1,2\n",
    ],
)
def test_a_damaged_history_is_one_line(content, refused):
    Path("run/history.csv").write_bytes(content)
    if content:
        refused(["train", "vae", "--epochs", "3", "--out", "run", "--resume"], "run/history.csv", "delete it")
    else:
        assert main(["train", "vae", "--epochs", "3", "--out", "run", "--resume"]) == 0


@pytest.mark.parametrize(
    "command", [["evaluate", "run"], ["train", "vae", "--epochs", "3", "--out", "run", "--resume"]]
)
def test_data_that_has_changed_or_gone_is_one_line(command, refused):
    rewritten(data="wide.npy")
    refused(command, "wide.npy: has 16 numbers per example", "trained on 64", "put back the data", "--data")
    rewritten(data="none.npy")
    refused(command, "none.npy: no such file", "give it with --data")


def test_a_checkpoint_that_names_no_data_is_one_line(refused, cli):
    notes, arrays = read_checkpoint("run/checkpoint.npz")
    del notes["data"]  # as fit writes it when called from Python
    np.savez("run/checkpoint.npz", notes=np.array(json.dumps(notes)), **arrays)
    refused(["evaluate", "run"], "does not name its data")
    cli("sample", "run", "-o", "x.npy")


def test_no_matplotlib_is_one_line(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    rewritten(shape=None)  # points, which matplotlib draws; pictures need Pillow alone
    refused(["sample", "run", "-o", "x.png"], "matplotlib", "pip install")


@pytest.mark.parametrize("name", ["x.npy", "x.png"])
def test_a_full_disk_leaves_the_older_file(name, refused, monkeypatch):
    pytest.importorskip("matplotlib.font_manager")  # writes its cache at its first import, not below
    Path(name).write_bytes(b"the older one")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scratchgen.backend.os.fsync", full)
    refused(["sample", "run", "-o", name], f"{name}: cannot be written (No space left on device)", "another place")


def test_too_little_memory_is_one_line(refused, monkeypatch):
    def zeros(self, shape):
        raise MemoryError(f"Unable to allocate {shape}")

    monkeypatch.setattr("scratchgen.backend.Rng.zeros", zeros)
    refused([*NEW, "--set", "hidden=10000000000"], "not enough memory", "make the model")


def test_a_diverging_run_is_one_line_and_keeps_the_last_good_epoch(run, capsys):
    assert main([*NEW, "--set", "lr=1e30"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    for words in (
        "became nan in epoch 1, step 2",
        "smaller learning rate (now lr=1e+30)",
        "new/checkpoint.npz holds epoch 0",
    ):
        assert words in err
    _, arrays = read_checkpoint("new/checkpoint.npz")
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_mistake_in_a_real_process(tmp_path):
    command = [sys.executable, "-m", "scratchgen", *NEW, "--set", "lr=fast"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "scratchgen: --set lr=fast: expected a number\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_seen_enough_is_no_mistake():
    """`scratchgen list | head -1`"""
    read, write = os.pipe()
    os.close(read)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "scratchgen", "list"]
    process = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment)
    os.close(write)
    assert (process.returncode, process.stderr) == (0, b"")
