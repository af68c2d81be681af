"""What the README prints is what its code prints, and its files and commands exist."""

import ast
import contextlib
import importlib
import io
import pathlib
import re

import pytest

from scratchgen.__main__ import arguments

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:models/)?\w+\.py)`", README))))
def test_every_file_named_exists(name):
    assert (ROOT / "scratchgen" / name).exists()


def test_every_file_of_the_library_is_in_the_reading_order():
    named = set(re.findall(r"`((?:models/)?\w+\.py)`", README))
    files = {path.name for path in (ROOT / "scratchgen").glob("*.py")} - {"__init__.py", "__main__.py"}
    files |= {f"models/{path.name}" for path in (ROOT / "scratchgen" / "models").glob("*.py")} - {"models/__init__.py"}
    assert not files - named, f"each needs a row under Reading order in README.md: {files - named}"


def test_the_table_of_all_families_is_the_one_that_its_demo_wrote():
    assert (ROOT / "demos" / "figures" / "compare.md").read_text(encoding="utf-8") in README


@pytest.mark.parametrize("line", re.findall(r"^python -m scratchgen (.*)$", README, flags=re.MULTILINE))
def test_every_command_is_one(line):
    assert arguments().parse_args(line.split()).function


INDEX = (ROOT / "demos" / "README.md").read_text(encoding="utf-8")
READING = re.findall(r"^\| \**(\d+)\** \| (.*?) \| ([\d, ]+) \|", README, flags=re.MULTILINE)


def test_the_reading_order_is_numbered_and_knows_how_long_files_are():
    assert [int(number) for number, *_ in READING] == list(range(1, len(READING) + 1))
    for _, files, lengths in READING:
        paths = [ROOT / "scratchgen" / name for name in re.findall(r"`(.*?)`", files)]
        parts = [sorted(path.glob("*.py")) if path.is_dir() else [path] for path in paths]
        found = [sum(len(p.read_text(encoding="utf-8").splitlines()) for p in part) for part in parts]
        told = [int(length) for length in lengths.split(",")]
        assert told == pytest.approx(found, abs=15), f"{files}: now {found} lines"


def test_imports_run_downwards_through_the_reading_order():
    order = [name.removesuffix(".py").rstrip("/") for _, files, _ in READING for name in re.findall(r"`(.*?)`", files)]
    for place, name in enumerate(order):
        path = ROOT / "scratchgen" / name
        for file in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            package = ["scratchgen", *pathlib.Path(name).parts][: None if path.is_dir() else -1]
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ImportFrom) and node.level:
                    found = [*package[: len(package) + 1 - node.level], *(node.module or "").split(".")][1:]
                    later = [other for other in order[place + 1 :] if found == other.split("/")[: len(found)] != []]
                    assert not later or found == ["models"], f"{file.name} imports {later}, which come after it"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py:[\w.]+)`", README))))
def test_every_function_named_exists(name):
    path, _, attributes = name.partition(".py:")
    found = importlib.import_module("scratchgen." + path.replace("/", "."))
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    assert callable(found)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+\.py::test_\w+)`", README + INDEX))))
def test_every_test_named_exists(name):
    file, _, test = name.partition("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
