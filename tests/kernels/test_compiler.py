"""The library of compiled kernels: it is found again, private and whole, and made anew where it is not."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from scratchgen.__main__ import main
from scratchgen.backend import UsageError
from scratchgen.kernels import compiler, cpp, elementwise
from scratchgen.kernels import native as module
from scratchgen.kernels.compiler import CompilerError, build
from scratchgen.kernels.native import Native

SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of libraries, in a cache of its own that is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scratchgen" / "kernels"


@pytest.fixture
def real():
    """The command of a compiler that is installed."""
    try:
        return compiler.find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))


def script(path, text):
    """A program that runs these lines of the shell."""
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o700)
    return str(path)


@pytest.fixture
def calls(tmp_path, monkeypatch, real):
    """calls() -> how often CXX has compiled something; CXX is a compiler that counts."""
    log = tmp_path / "calls"
    counting = f'case "$1" in --version) ;; *) echo x >> {log} ;; esac\nexec {shlex.join(real)} "$@"\n'
    monkeypatch.setenv("CXX", script(tmp_path / "counting", counting))
    return lambda: len(log.read_text().split()) if log.exists() else 0


def test_a_library_is_found_again(cache, calls):
    for _ in range(2):
        assert build(SOURCE).answer() == 42
        assert calls() == 1
    (library,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    assert build(SOURCE.replace("42", "43")).answer() == 43
    assert calls() == 2
    assert library in cache.iterdir()


@pytest.mark.parametrize("what", ["FLAGS", "cpu", "output"])
def test_other_flags_another_cpu_and_another_compiler_have_libraries_of_their_own(what, cache, calls, monkeypatch):
    build(SOURCE)
    output = compiler.output
    other = {
        "FLAGS": (("-O1",),),
        "cpu": lambda: "another",
        "output": lambda command, folder=None: output(command, folder) + "another version",
    }
    monkeypatch.setattr(compiler, what, other[what])
    assert build(SOURCE).answer() == 42
    assert calls() == 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:99] + b"?" + b[100:], lambda b: 2 * b]
)
def test_a_damaged_library_is_made_anew(damage, cache, calls):
    build(SOURCE.replace("42", "41"))
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.unlink()  # it is loaded, and must not change under the process
    path.write_bytes(damage(whole))
    assert build(SOURCE.replace("42", "41")).answer() == 41
    assert calls() == 2
    assert path.read_bytes()[-32:] != damage(whole)[-32:] or len(path.read_bytes()) == len(whole)


def spoil_mode(folder, monkeypatch):
    folder.chmod(0o777)


def spoil_owner(folder, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)


def spoil_by_link(folder, monkeypatch):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_owner, spoil_by_link])
def test_a_folder_that_others_may_write_to_is_not_trusted(spoil, cache, calls, monkeypatch, capsys):
    build(SOURCE)
    (planted,) = cache.iterdir()
    before = planted.read_bytes()
    spoil(cache, monkeypatch)
    assert build(SOURCE).answer() == 42
    assert calls() == 2  # not what lies there
    assert [path.read_bytes() for path in cache.iterdir()] == [before]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{cache}: is not yours alone" in said


def test_a_home_that_cannot_be_written_to_still_works(cache, calls, tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_text("a file in the way")
    assert build(SOURCE).answer() == 42
    assert capsys.readouterr().err.count("cannot be made") == 1
    (tmp_path / "cache").unlink()

    def full(path):
        raise UsageError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(compiler, "written_whole", full)
    assert build(SOURCE).answer() == 42
    assert capsys.readouterr().err.count("not kept for the next run") == 1
    assert not list(cache.iterdir())


def test_no_home_at_all(cache, calls, monkeypatch):
    monkeypatch.setattr(compiler, "cache_folder", lambda kind: None)
    assert build(SOURCE).answer() == 42


def test_two_processes_at_once(cache, real):
    program = f"from scratchgen.kernels.compiler import build; print(build({SOURCE!r}).answer())"
    ran = [subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True) for _ in range(2)]
    assert [process.communicate() for process in ran] == [("42\n", "")] * 2
    assert [path.suffix for path in cache.iterdir()] == [".so"]


def test_flags_that_a_compiler_does_not_know_are_left_out(cache, real, tmp_path, monkeypatch):
    plain = f'case " $* " in *native*) exit 1 ;; esac\nexec {shlex.join(real)} "$@"\n'
    monkeypatch.setenv("CXX", script(tmp_path / "plain", plain))
    assert build(SOURCE).answer() == 42


@pytest.mark.slow
def test_every_loop_over_numbers_is_made_of_vectors(real, tmp_path):
    """A branch or a call in a function of vector_math.py would make some of them ten times slower, and change no number."""
    version = compiler.output([*real, "--version"])
    if "Free Software Foundation" not in version or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("only GCC says which loops it has made of vectors")
    text = cpp.source("float32")
    (tmp_path / "kernels.cpp").write_text(text)
    command = [
        *real,
        *compiler.COMMON,
        "-mavx2",
        "-mfma",
        "-fopenmp-simd",
        "-fopt-info-vec",
        "kernels.cpp",
        "-o",
        "x.so",
    ]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    vectors = {int(line.split(":")[1]) for line in said.stderr.splitlines() if "vectorized" in line}
    loops = {i + 1 for i, line in enumerate(text.splitlines(), 1) if line.strip() == "#pragma omp simd"}
    assert len(loops) > 40
    missing = [text.splitlines()[i - 1].strip() for i in sorted(loops - vectors)]
    assert not missing, missing


def test_clang_does_as_well(cache, monkeypatch):
    if not shutil.which("clang++"):
        pytest.skip("clang++ is not installed")
    monkeypatch.setenv("CXX", "clang++")
    x = np.linspace(-3, 3, 50)
    device = Native({np.dtype("float64"): build(cpp.source("float64"))})
    np.testing.assert_allclose(
        device.elementwise(elementwise.activation_kernels("Tanh")[0], (x, 0.0)), np.tanh(x), rtol=1e-13
    )


# ---- what goes wrong is one line ----

BROKEN = """
case "$1" in --version) echo broken 1.0 ;; *) echo "kernels.cpp:1: error: no such machine" >&2; exit 3 ;; esac
"""


SILENT = (
    'case "$1" in --version) echo silent 1.0 ;; *) touch kernels.so ;; esac'  # asked for its version, it works here
)


def test_a_compiler_that_fails_is_quoted(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", script(tmp_path / "broken", BROKEN))
    with pytest.raises(CompilerError, match=r"broken cannot compile.*error: no such machine; exit code 3.*in CXX"):
        build(SOURCE)
    monkeypatch.setenv("CXX", script(tmp_path / "broken", "exit 1"))
    with pytest.raises(CompilerError, match="no message; exit code 1"):
        build(SOURCE)
    monkeypatch.setenv("CXX", script(tmp_path / "silent", SILENT))  # it says that all went well
    with pytest.raises(CompilerError, match="made no library"):
        build(SOURCE)
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(CompilerError, match=r"no C\+\+ compiler is installed \(c\+\+, g\+\+, clang\+\+\): install one"):
        build(SOURCE)


@pytest.mark.parametrize("broken", [True, False], ids=["no compiler", "a compiler"])
def test_training_goes_on_either_way(broken, cache, tmp_path, monkeypatch, capsys, native):
    """The command line. What a run makes of it differs in the last digits."""
    if broken:
        monkeypatch.setenv("CXX", script(tmp_path / "broken", BROKEN))
    monkeypatch.setattr(module, "native", lambda: native) if not broken else module.native.cache_clear()
    try:
        options = [
            "--data",
            "ring",
            "--epochs",
            "1",
            "--set",
            "hidden=8",
            "n_latent=2",
            "likelihood=gaussian",
            "batch=64",
        ]
        assert main(["train", "vae", *options, "--out", str(tmp_path / "run"), "--compile"]) == 0
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if "epoch" not in line]
        assert len(lines) == broken and all("plain NumPy runs" in line for line in lines)
        assert "loss" in out
        for command in (["sample", "-n", "4", "-o", str(tmp_path / "x.npy")], ["evaluate"]):
            assert main([command[0], str(tmp_path / "run"), *command[1:], "--compile"]) == 0
        assert main(["gradcheck", "Tanh", "--compile"]) == 0
    finally:
        if broken:
            module.native.cache_clear()


def test_the_beginning_of_an_array_is_looked_at_before_it_is_used(native, monkeypatch, capsys):
    class Library:
        def __getattr__(self, name):
            return type("Function", (), {"__call__": lambda self, *given: 0})()

    module.native.cache_clear()
    monkeypatch.setattr(compiler, "build", lambda source: Library())
    try:
        assert module.native() is None
    finally:
        module.native.cache_clear()
    assert "lie in memory in a way that is not known here" in capsys.readouterr().err
