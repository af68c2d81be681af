"""Hypothesis draws shapes, options and a seed; arrays are made from the seed, so that no example shrinks onto a kink."""

import atexit
import ctypes
import importlib
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
if "PYTEST_XDIST_WORKER" not in os.environ:
    HOME = tempfile.mkdtemp(prefix="scratchgen-tests-")
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR"):
        os.environ.pop(name, None)
    os.environ["HOME"] = os.environ["USERPROFILE"] = HOME

import pytest
from hypothesis import settings

from scratchgen.backend import find_device
from scratchgen.train import progress

settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """No line every ten seconds of many short trainings, which tests that listen to standard error would hear."""
    monkeypatch.setattr(progress, "SILENCE", 1e9)


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
