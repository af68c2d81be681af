"""A new machine and an odd one: no home, a home that cannot be written, output that is closed or knows no Greek.

And: tests leave nothing behind, and find nothing that an earlier run left.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scratchgen
from scratchgen.__main__ import main

ROOT = Path(scratchgen.__file__).parent.parent
ALLOWED = {".hypothesis", ".pytest_cache", "__pycache__"}
GAN = ["train", "gan", "--epochs", "1", "--set", "hidden_G=8", "hidden_D=8"]


@pytest.fixture
def run(tmp_path):
    """run(*arguments of python, **environment): a finished process in an empty folder; None takes a variable away."""

    def call(*args, shell=None, **environment):
        variables = {k: v for k, v in (os.environ | environment).items() if v is not None}
        command = [sys.executable, *map(str, args)]
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command] if shell else command
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, errors="replace")

    return call


def files(folder):
    return {p.relative_to(folder) for p in folder.rglob("*") if not ALLOWED & set(p.relative_to(folder).parts)}


@pytest.mark.slow
def test_tests_leave_nothing_in_the_home_and_the_project(run, tmp_path):
    """Those that train classifiers, draw pictures and start processes, from a home that has nothing and must stay so."""
    home, before = tmp_path / "home", files(ROOT)
    home.mkdir()
    some = [
        "commands/test_cli.py",
        "metrics/test_frechet.py",
        "test_plots.py",
        "data/test_data.py",
        "demos/test_demos.py",
    ]
    done = run("-m", "pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "--rootdir", ROOT,
               *(ROOT / "tests" / name for name in some), HOME=str(home), XDG_CACHE_HOME=None)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert files(home) == set()
    assert files(ROOT) == before


def test_the_home_of_these_tests_is_not_the_users():
    pwd = pytest.importorskip("pwd")
    assert Path.home() == Path(os.environ["HOME"]) != Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert Path.home().name.startswith("scratchgen-tests-")


# ---- homes ----


@pytest.fixture
def nobody(tmp_path):
    """Environment variables of a user without a home: HOME unset, and unknown to the system."""
    folder = tmp_path / "nobody"
    folder.mkdir()
    line = "import pwd\ndef unknown(uid):\n    raise KeyError(uid)\npwd.getpwuid = unknown\n"
    (folder / "sitecustomize.py").write_text(line)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"HOME": None, "XDG_CACHE_HOME": None, "USERPROFILE": None, "PYTHONPATH": path}


@pytest.mark.slow
def test_without_a_home_everything_works_and_that_is_said_once(run, nobody):
    done = run("-m", "scratchgen", *GAN, "--out", "g", **nobody)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("there is no home folder") == 1
    for command in (["evaluate", "g"], ["sample", "g", "-o", "x.png"]):
        done = run("-m", "scratchgen", *command, **nobody)
        assert done.returncode == 0, done.stderr
    done = run(ROOT / "demos" / "likelihood_coin.py", "--quick", "--out", "o", **nobody)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("given", [["--data", "~/x.npy"], ["--data", "~nobody-of-this-name/pictures"]])
def test_a_path_in_a_home_that_is_not_known_is_one_line(given, run, nobody):
    done = run("-m", "scratchgen", "train", "vae", "--epochs", "1", "--out", "v", *given, **nobody)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert given[1] in done.stderr and "home folder" in done.stderr


def test_own_data_in_a_home_that_is_not_known_is_one_line(run, nobody):
    done = run("-m", "scratchgen", "train", "vae", "--data", "mnist", "--epochs", "1", "--out", "v",
               SCRATCHGEN_DATA="~/data", **nobody)  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "~/data" in done.stderr


def test_a_home_that_cannot_be_written_loses_nothing(run, tmp_path):
    (tmp_path / "file").write_text("no folder can be made in here")
    done = run("-m", "scratchgen", *GAN, "--out", "g", HOME=str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    assert "not saved for the next time" in done.stderr
    assert (tmp_path / "g" / "checkpoint.npz").exists()
    done = run(ROOT / "demos" / "likelihood_coin.py", "--quick", "--out", "o", HOME=str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "likelihood_coin.png").exists()


# ---- output ----

COMMANDS = {
    "list": ["-m", "scratchgen", "list"],
    "settings": ["-m", "scratchgen", "list", "gan"],
    "help": ["-m", "scratchgen", "train", "--help"],
    "train": ["-m", "scratchgen", "train", "vae", "--epochs", "1", "--out", "v", "--set", "hidden=8"],
    "demo": [ROOT / "demos" / "likelihood_coin.py", "--quick", "--out", "o"],
    "help of a demo": [ROOT / "demos" / "likelihood_coin.py", "--help"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "encoding"), [(c, "cp1252") for c in COMMANDS] + [("list", "ascii"), ("demo", "ascii")]
)
def test_an_encoding_without_greek_letters(command, encoding, run):
    done = run(*COMMANDS[command], PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_output(closed, run, tmp_path):
    for name in ("train", "demo"):
        assert run(*COMMANDS[name], shell=closed).returncode == 0
    assert (tmp_path / "v" / "checkpoint.npz").exists()
    assert (tmp_path / "o" / "likelihood_coin.png").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(run, tmp_path):
    done = run(*COMMANDS["train"], shell=">/dev/full")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "No space left" in done.stderr
    assert (tmp_path / "v" / "checkpoint.npz").exists()


# ---- few examples ----


@pytest.mark.parametrize("n", [2, 19, 60])
@pytest.mark.parametrize("labels", ["none", "one class", "two classes"])
def test_train_and_evaluate_work_from_one_test_picture_on(n, labels, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    kinds = {"none": {}, "one class": {"labels": np.zeros(n, int)}, "two classes": {"labels": np.arange(n) % 2}}
    np.savez("few.npz", x=x, **kinds[labels])
    given = ["--data", "few.npz", "--epochs", "1", "--out", "g", "--set", "batch=1", "hidden_G=8", "hidden_D=8"]
    for args in (["train", "gan", *given], ["evaluate", "g"]):
        assert main(args) == 0
        out, err = capsys.readouterr()
        assert "no Fréchet distance" in out + err and "frechet_floor" not in out
        assert {"none": "no labels", "one class": "to train on", "two classes": "to train on"}[labels] in out + err
