"""What README.md and scratchgen/README.md show is what the code is and prints, and their files and commands exist."""

import contextlib
import importlib
import inspect
import io
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import textwrap

import pytest

from scratchgen.__main__ import arguments, main
from scratchgen.models import model_names
from scratchgen.models.vae import VAE
from scratchgen.nn.layers import Linear
from scratchgen.uses.exercises.catalogue import EXERCISES
from scratchgen.uses.explain import explain

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSIDE = (ROOT / "scratchgen" / "README.md").read_text(encoding="utf-8")
PAPERS = README + INSIDE + (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README + INSIDE, flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
ERROR = re.compile(r"error \d\.\de-1\d")  # another processor rounds otherwise


def block(words):
    """The one Python block with these words in it."""
    (code,) = [code for code in PYTHON if words in code]
    return code


def printed(code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return ERROR.sub("error tiny", out.getvalue())


SHOWN = [ERROR.sub("error tiny", code) for _, code in BLOCKS]
SQUAREPLUS = block("class Squareplus(")


def test_the_readme_is_a_page_to_read_to_the_end():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1200


def test_linear_is_shown_as_it_stands_in_its_file():
    assert inspect.getsource(Linear).startswith(block("class Linear(Layer)"))


def test_the_loss_of_the_vae_is_shown_as_it_stands_in_its_file():
    assert block("back_posterior((dz, self.beta))") == textwrap.dedent(inspect.getsource(VAE.loss))


def test_six_lines_train_and_draw():
    lines = block('data = load("digits")')
    assert len([line for line in lines.splitlines() if line]) == 6
    names = {}
    exec(lines.replace("epochs=200", "epochs=1, progress=False"), names)
    assert names["pictures"].shape == (64, 64)


def test_a_layer_prints_what_the_readme_shows():
    code = block("class Square(")
    assert printed(code) == ERROR.sub("error tiny", re.search(r"# (ok .*)", code)[1]) + "\n"
    wrong = code.replace(": 2 * x * dy", ": x * dy")
    assert wrong != code and printed(wrong) in SHOWN


def test_a_layer_with_a_weight_prints_what_the_page_shows():
    assert printed(SQUAREPLUS) in SHOWN


def test_its_double_backward_prints_what_the_page_shows():
    assert printed(SQUAREPLUS + block("forward_twice")).removeprefix(printed(SQUAREPLUS)) in SHOWN


def test_the_mistake_in_it_is_reported_as_the_page_shows():
    wrong = SQUAREPLUS.replace("(4 * r)", "(2 * r)")
    assert wrong != SQUAREPLUS
    assert printed(wrong) in SHOWN


def test_it_learns_in_a_network_as_the_page_shows():
    steps = printed(SQUAREPLUS + block("sin(3 * x)")).removeprefix(printed(SQUAREPLUS))
    numbers = re.compile(r"\d\.\d{4}")  # another processor rounds otherwise
    assert numbers.sub("loss", steps) in [numbers.sub("loss", shown) for shown in SHOWN]
    first, _, last = map(float, numbers.findall(steps))
    assert first > 1 and last < 0.1


def test_explain_prints_what_the_page_shows():
    (shown,) = [text for _, text in BLOCKS if "← " in text]
    error = re.compile(r"error \d(e-1\d)?|nn/layers.py:\d+")  # another processor rounds otherwise, and lines move
    assert error.sub("", shown) in error.sub("", str(explain(VAE)))


@pytest.fixture
def with_a_model_of_your_own(tmp_path):
    """run(*command) in a copy of the repository that has the page's own model as models/linear_autoencoder.py."""
    ignored = shutil.ignore_patterns("__pycache__", "figures", "out", ".*")
    for name in ("scratchgen", "tests", "demos"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "demos" / "figures").symlink_to(ROOT / "demos" / "figures")
    (tmp_path / "scratchgen" / "models" / "linear_autoencoder.py").write_text(
        block("class LinearAutoEncoder("), encoding="utf-8"
    )

    def run(*command):
        command, env = [sys.executable, "-m", *command], os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.slow
def test_a_model_of_your_own_is_found_and_passes_every_test_of_a_model(with_a_model_of_your_own, tmp_path):
    run = with_a_model_of_your_own
    assert "linear_autoencoder" in run("scratchgen", "list").stdout
    done = run("scratchgen", "gradcheck", "LinearAutoEncoder")
    assert done.returncode == 0 and "1 passed, 0 failed" in done.stdout, done.stdout
    out = str(tmp_path / "run")
    done = run("scratchgen", "train", "linear_autoencoder", "--epochs", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "squared_error" in run("scratchgen", "evaluate", out).stdout
    done = run("pytest", "-q", "-p", "no:cacheprovider", "-k", "linear_autoencoder or LinearAutoEncoder or rooms")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


@pytest.mark.slow
def test_a_sweep_leaves_histories_and_five_lines_make_their_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop = re.search(r"```sh\n(for lr.*?)```", INSIDE, flags=re.DOTALL)[1]
    shorter = {
        "3e-4 1e-3 3e-3": "1e-3",
        "0 1 2": "0 1",
        "--epochs 20": "--epochs 2",
        "scratchgen": "python -m scratchgen",
    }
    for old, new in shorter.items():
        assert old in loop
        loop = loop.replace(old, new.replace("python", sys.executable))
    done = subprocess.run(["sh", "-c", loop], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = block("for lr in").replace('("3e-4", "1e-3", "3e-3")', '("1e-3",)')
    assert re.fullmatch(r"lr 1e-3: test -ELBO \d\d\.\d\d ± \d\.\d\d over 2 seeds\n", printed(table))
    assert len([line for line in table.splitlines() if line]) == 5


@pytest.mark.parametrize("page", ["README.md", "scratchgen/README.md", "tests/README.md", "demos/README.md"])
def test_every_link_and_picture_of_a_page_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r'src="(.*?)"', text) + re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target


COMMANDS = re.findall(r"^scratchgen ([^#\n]*)", README + INSIDE, flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line):
    name = arguments().parse_args(line.split()).command
    assert callable(importlib.import_module(f"scratchgen.commands.{name}").run)


def test_there_are_commands():
    assert len(COMMANDS) > 10


def test_the_guided_path_has_every_exercise_once_in_ten_evenings_and_nothing_else():
    path = INSIDE.partition("## A guided path")[2].partition("\n## ")[0]
    evenings = [line.split("|")[4] for line in path.splitlines() if re.match(r"\| \d+ ", line)]
    assert len(evenings) == 10
    assert sorted(re.findall(r"`(\w+)`", " ".join(evenings))) == sorted(EXERCISES)
    named = set(re.findall(r"`(\w+)`", path)) - {"bug_", "loss"}
    assert named <= set(EXERCISES), named - set(EXERCISES)
    assert set(re.findall(r"`explain (\w+)`", path)) <= set(model_names())


def test_the_guided_path_shows_what_a_blank_prints(tmp_path, capsys):
    line = re.compile(r"line \d+")
    said = line.sub("line", re.search(r"python linear.py +# (.*)", INSIDE)[1])
    assert main(["exercise", "linear", "-o", str(tmp_path / "linear.py")]) == 0
    with pytest.raises(SystemExit):
        runpy.run_path(str(tmp_path / "linear.py"), run_name="__main__")
    assert said in line.sub("line", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py:[\w.]+)`", PAPERS))))
def test_every_function_named_exists(name):
    path, _, attributes = name.partition(".py:")
    found = importlib.import_module("scratchgen." + path.replace("/", "."))
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    assert callable(found)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py::test_\w+)`", PAPERS))))
def test_every_test_named_exists(name):
    file, _, test = name.partition("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
