"""The house: each room is used by the rooms above it alone, nothing goes in circles, and every path that is named exists."""

import ast
import re
from pathlib import Path

import pytest

import scratchgen

PACKAGE = Path(scratchgen.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may use itself and what stands here: the rooms below it.
BELOW = {"backend": set()}
for room, directly_below in [
    ("kernels", "backend"),
    ("nn", "kernels"),
    ("models", "nn"),
    ("check", "models"),
    ("data", "backend"),
    ("train", "models data"),
    ("metrics", "train"),
    ("uses", "metrics check"),
    ("plots", "backend"),
    ("commands", "uses check plots"),
]:
    BELOW[room] = set().union(*({name} | BELOW[name] for name in directly_below.split()))


def room_of(module):
    """The room of a dotted module: "nn" of scratchgen.nn.layers. The front door has none."""
    return module.split(".")[1] if module.count(".") else None


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imported(module):
    """The modules of this package that a module imports, wherever in it: from .layers import Linear names nn.layers."""
    path, found = MODULES[module], set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            found |= {name for name in names if name.startswith("scratchgen")}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])
            found |= {f"{base}.{name}" if f"{base}.{name}" in MODULES else base for name in names}
    return found - {module}


def front_door(module):
    return module in ("scratchgen", "scratchgen.__main__")


def test_the_rooms_are_these_and_no_others():
    assert {room_of(module) for module in MODULES if not front_door(module)} == set(BELOW)


@pytest.mark.parametrize("module", [module for module in MODULES if not front_door(module)])
def test_a_room_uses_only_the_rooms_below_it(module):
    room = room_of(module)
    others = {room_of(name) for name in imported(module)} - {room, None}
    assert others <= BELOW[room], f"{room} must not use {others - BELOW[room]}"


def test_no_module_leads_back_to_itself():
    """Also not through an import inside a function."""
    graph = {module: imported(module) for module in MODULES if not front_door(module)}
    graph = {module: names - {"scratchgen"} for module, names in graph.items()}
    while graph:
        ends = {module for module, names in graph.items() if not names & graph.keys()}
        assert ends, f"a circle among {sorted(graph)}"
        graph = {module: names for module, names in graph.items() if module not in ends}


def test_a_model_is_a_file_with_its_name():
    files = {path.stem for path in (PACKAGE / "models").glob("*.py")} - {"__init__", "base", "rules", "settings"}
    assert files == set(scratchgen.models.model_names())


# ---- paths in prose ----

PATH = re.compile(r"(?<![\w/.*<-])(?:[a-z_]\w*/)*[a-z_]\w*\.py\b")
DEMOS = sorted((ROOT / "demos").glob("*.py"))
PAPERS = sorted(
    [ROOT / "README.md", *(path for room in ("demos", "tests", "scratchgen") for path in (ROOT / room).rglob("*.md"))]
)
YOURS = {"scratchgen/models/linear_autoencoder.py", "linear.py"}  # the files that a reader is told to write
TESTS = {path.name for path in (ROOT / "tests").rglob("*.py")}


def prose(path):
    """A paper whole; of a Python file its comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    nodes = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    return "\n".join([ast.get_docstring(node) or "" for node in nodes] + re.findall(r"#.*", text))


@pytest.mark.parametrize("path", [*PAPERS, *FILES, *DEMOS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(path):
    near = [path.parent, PACKAGE, PACKAGE / "models", ROOT, ROOT / "demos", ROOT / "tests"]
    for name in PATH.findall(prose(path)):
        assert name in YOURS or any((folder / name).exists() for folder in near), f"{name}: no such file"
