"""Hypothesis draws shapes, options and a seed; arrays are made from the seed, so that no example shrinks onto a kink."""

import atexit
import ctypes
import functools
import importlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import tempfile

# One BLAS thread, also in what the tests start: other numbers of threads give other last digits, and workers side by side
# would wait for each other.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# A home of their own, thrown away at the end, so that nothing that an earlier run left behind is found, and nothing is left.
# Workers (pytest -n) inherit it from the process that starts them.
if "scratchgen-tests-" not in os.environ.get("HOME", ""):
    HOME = tempfile.mkdtemp(prefix="scratchgen-tests-")
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR"):
        os.environ.pop(name, None)
    os.environ["HOME"] = os.environ["USERPROFILE"] = HOME

import pytest
from hypothesis import settings

from scratchgen.backend import find_device
from scratchgen.commands import train as train_command
from scratchgen.kernels.native import native as find_native
from scratchgen.train import progress

settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


# ---- tests that cannot run here are left out, and how many is said ----

TORCH_ALONE = "nn/test_torch_oracle.py"  # imports PyTorch for all of its tests
LEFT_OUT = pytest.StashKey()


@functools.cache
def met(need):
    """Whether this machine has what a test needs: a GPU, MNIST, a program, or a package."""
    if need == "gpu":
        try:
            return find_device("auto").__name__ == "cupy"
        except Exception:  # a CuPy that does not fit its CUDA
            return False
    if need == "mnist":
        folder = pathlib.Path(os.environ.get("SCRATCHGEN_DATA") or "nowhere", "mnist")
        return bool(list(folder.glob("train-images-idx3-ubyte*")))
    if need in ("chromium", "node", "mpiexec"):
        return shutil.which(need) is not None
    return importlib.util.find_spec(need) is not None


def pytest_ignore_collect(collection_path):
    if str(collection_path).replace(os.sep, "/").endswith(TORCH_ALONE) and not met("torch"):
        return True


def pytest_collection_modifyitems(config, items):
    kept, left = [], []
    for item in items:
        needs = {need for mark in item.iter_markers("needs") for need in mark.args}
        needs |= {"gpu"} if item.get_closest_marker("gpu") else set()
        missing = sorted(need for need in needs if not met(need))
        (left if missing else kept).append(item)
        if missing:
            counts = config.stash.setdefault(LEFT_OUT, {})
            counts[missing[0]] = counts.get(missing[0], 0) + 1
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a worker of pytest -n: every one has collected everything
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter, config):
    for need, n in sorted(config.stash.get(LEFT_OUT, {}).items()):
        terminalreporter.write_line(f"left out: {n} test{'s' * (n > 1)} that need{'s' * (n == 1)} {need}")
    if not met("torch"):
        terminalreporter.write_line(f"left out: {TORCH_ALONE}, which needs torch")


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """No line every ten seconds of many short trainings, which tests that listen to standard error would hear."""
    monkeypatch.setattr(progress, "SILENCE", 1e9)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """No history.png at the end of every `train`, which takes a second: tests/commands/test_best.py draws some."""
    monkeypatch.setattr(train_command, "draw_history", lambda *given: None)


@pytest.fixture
def demo(monkeypatch):
    """Imports a module of the demos folder."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent.parent / "demos")
    return importlib.import_module


@pytest.fixture
def gpu():
    """CuPy, where there is a GPU; elsewhere the test is skipped."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no GPU")
    return find_device("gpu")


@pytest.fixture(scope="session")
def native():
    """What runs kernels on NumPy arrays, compiled for this CPU; the test is skipped where that cannot be done."""
    return find_native() or pytest.skip("no C++ compiler to compile the kernels for this CPU")


@pytest.fixture(scope="session")
def compile_cpp(tmp_path_factory):
    """compile_cpp(source, *options): C++ as a loaded library; the test is skipped where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        pytest.skip("no C++ compiler (g++ or clang++) to run the kernels' lines on the CPU")

    def build(source, *options, missing=None):
        """missing: what a compiler may be too old to have; the test is skipped if it complains of that."""
        folder = tmp_path_factory.mktemp("kernels")
        (folder / "kernels.cpp").write_text(source)
        command = [compiler, "-O1", "-shared", "-fPIC", *options, "kernels.cpp", "-o", "kernels.so"]
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if built.returncode:
            if missing and missing in built.stderr:
                pytest.skip(f"the C++ compiler has no {missing} yet")
            pytest.fail("\n".join(built.stderr.splitlines()[:12]), pytrace=False)
        return ctypes.CDLL(str(folder / "kernels.so"))

    return build
