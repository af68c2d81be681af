"""What the README prints is what its code prints, and its files and commands exist."""

import contextlib
import importlib
import io
import pathlib
import re

import pytest

from scratchgen.__main__ import arguments

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INDEX = (ROOT / "demos" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SQUAREPLUS = next(code for code in PYTHON if "class Squareplus" in code)


SHOWN = [re.sub(r"error \d\.\de-1\d", "error tiny", code) for _, code in BLOCKS]  # another processor rounds otherwise


def printed(code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return re.sub(r"error \d\.\de-1\d", "error tiny", out.getvalue())


def test_the_layer_of_your_own_prints_what_the_readme_shows():
    assert printed(SQUAREPLUS) in SHOWN


def test_its_double_backward_prints_what_the_readme_shows():
    twice = next(code for code in PYTHON if "forward_twice" in code)
    assert printed(SQUAREPLUS + twice).removeprefix(printed(SQUAREPLUS)) in SHOWN


def test_the_mistake_in_it_is_reported_as_the_readme_shows():
    wrong = SQUAREPLUS.replace("(4 * r)", "(2 * r)")
    assert wrong != SQUAREPLUS
    assert printed(wrong) in SHOWN


def test_it_learns_in_a_network_as_the_readme_shows():
    network = next(code for code in PYTHON if "sin(3 * x)" in code)
    steps = printed(SQUAREPLUS + network).removeprefix(printed(SQUAREPLUS))
    numbers = re.compile(r"\d\.\d{4}")  # another processor rounds otherwise
    assert numbers.sub("loss", steps) in [numbers.sub("loss", shown) for shown in SHOWN]
    first, _, last = map(float, numbers.findall(steps))
    assert first > 1 and last < 0.1


def test_the_table_of_all_families_is_the_one_that_its_demo_wrote():
    assert (ROOT / "demos" / "figures" / "compare.md").read_text(encoding="utf-8") in README


COMMANDS = re.findall(r"^scratchgen (.*)$", README, flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line):
    name = arguments().parse_args(line.split()).command
    assert callable(importlib.import_module(f"scratchgen.commands.{name}").run)


def test_there_are_commands():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py:[\w.]+)`", README))))
def test_every_function_named_exists(name):
    path, _, attributes = name.partition(".py:")
    found = importlib.import_module("scratchgen." + path.replace("/", "."))
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    assert callable(found)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py::test_\w+)`", README + INDEX))))
def test_every_test_named_exists(name):
    file, _, test = name.partition("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
