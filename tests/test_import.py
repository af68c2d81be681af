"""Importing scratchgen must stay cheap: NumPy and the standard library, nothing that only some of its users need.

And CuPy must be known to one place only, so that every other file runs where there is none.
"""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import scratchgen
from scratchgen import Layer, Model
from scratchgen.data import load
from scratchgen.nn import losses
from scratchgen.train.fit import fit

PACKAGE = Path(scratchgen.__file__).parent
HEAVY = ["matplotlib", "tqdm", "pooch", "PIL", "scipy", "cupy", "sklearn", "torch"]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_numpy_and_nothing_heavier():
    loaded = run("import sys, scratchgen; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


def test_import_takes_less_than_a_fifth_of_a_second_beyond_numpys_own():
    code = "import numpy, time; t = time.perf_counter(); import scratchgen; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(5)) < 0.2  # the best of several: a busy machine is no fault of ours


def imports_cupy(source):
    """Whether a source text imports CuPy, by a statement or by a call such as import_module("cupy")."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if function in ("import_module", "__import__"):
                names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if any(str(name).partition(".")[0] in ("cupy", "cupyx") for name in names):
            return True
    return False


def test_only_backend_imports_cupy():
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if imports_cupy(path.read_bytes())}
    assert "backend.py" in found  # else this test is blind
    assert found <= {"backend.py"}


PUBLIC = {name: getattr(scratchgen, name) for name in scratchgen.__all__} | {"fit": fit, "load": load}
PUBLIC |= {name: f for name, f in vars(losses).items() if inspect.isfunction(f) and f.__module__ == losses.__name__}


@pytest.mark.parametrize(
    "name", [name for name in PUBLIC if name[0] != "_" and name not in ("UsageError", "Layer", "Model")]
)
def test_public_names_have_type_hints(name):
    function = PUBLIC[name].__init__ if inspect.isclass(PUBLIC[name]) else PUBLIC[name]
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert all(p.annotation is not p.empty for p in parameters)
    assert inspect.isclass(PUBLIC[name]) or inspect.signature(function).return_annotation is not inspect.Signature.empty


def test_every_method_that_a_model_or_a_layer_defines_has_type_hints():
    for method in (Layer.forward, Layer.__call__, Model.build, Model.train_step, Model.sample, Model.evaluate):
        assert "return" in method.__annotations__, method
