"""An option that a demo does not use is declared in its call of run, and giving it is answered by one line."""

import ast
import functools
import pathlib
import sys

import pytest

DEMOS = pathlib.Path(__file__).parents[2] / "demos"
OPTIONS = {"data", "epochs", "seed", "device", "quick"}
TREES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in DEMOS.glob("*.py")}


def call_of_run(tree):
    """The call run(main, ...) at the end of a demo, or None in a file that is no demo."""
    calls = [node for node in ast.walk(tree.body[-1]) if isinstance(node, ast.Call)]
    return next((call for call in calls if getattr(call.func, "id", "") == "run"), None)


NAMES = sorted(name for name, tree in TREES.items() if call_of_run(tree))


def is_args(node):
    """Whether this is `args`, or the `args` that an object keeps."""
    return getattr(node, "id", getattr(node, "attr", "")) == "args"


@functools.cache
def reads(file, function=None):
    """The options that a demo's file reads as args.NAME, or one function of it; also in what it passes args to."""
    tree, found = TREES[file], set()
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in TREES]
    imported = {alias.asname or alias.name: (node.module, alias.name) for node in imports for alias in node.names}
    here = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(here[function] if function else tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and is_args(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and any(map(is_args, node.args)):
            name = node.func.id
            if name in imported:
                found |= reads(*imported[name])
            elif function and name in here and name != function:
                found |= reads(file, name)
    return frozenset(found - {"data"} if function == "picture_path" else found)  # there --data only names the file


def declared(name):
    """The options that a demo says it ignores."""
    found = [keyword.value for keyword in call_of_run(TREES[name]).keywords if keyword.arg == "ignores"]
    return set(ast.literal_eval(found[0])) if found else set()


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_uses_an_option_or_says_that_it_ignores_it(name):
    assert OPTIONS - reads(name) - declared(name) == set()
    assert declared(name) & reads(name) <= {"device"}  # common.train reads it, and then it is the default


def test_what_reads_args_is_found():
    assert reads("vae") >= OPTIONS
    assert not reads("likelihood_coin") & {"data", "epochs", "device"}
    assert "data" in reads("common", "pictures") and "data" not in reads("common", "picture_path")


@pytest.fixture
def seen(demo, tmp_path, monkeypatch, capsys):
    """seen(*options): the args of a demo that ignores --data and --device, and the lines on standard error."""

    def call(*options):
        found = []
        monkeypatch.setattr(sys, "argv", ["some.py", "--out", str(tmp_path), *options])
        demo("common").run(found.append, "A claim.", data="ring", ignores=("data", "device"))
        return found[0], capsys.readouterr().err.splitlines()

    return call


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ([], []),
        (["--seed", "1"], []),
        (["--data", "mnist"], ["some.py ignores --data"]),
        (["--data", "ring"], ["some.py ignores --data"]),
        (["--dev=gpu", "--data=x.npz"], ["some.py ignores --data, --device"]),
    ],
)
def test_an_ignored_option_is_answered_by_one_line_and_has_its_default(seen, options, lines):
    args, err = seen(*options)
    assert err == lines
    assert (args.data, args.device, args.epochs) == ("ring", "cpu", None)
