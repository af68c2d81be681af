"""Compiles C++ with the system's compiler into a library of functions, and keeps the library for the next run.

A library is found again by a hash of all that it depends on: the source, the flags, the compiler and the CPU. The folder
must belong to the user and be closed to others, because what lies in it is run. Each file ends in the hash of its own
content, so that a damaged one is noticed and compiled again.
"""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile

from ..backend import UsageError, cache_folder, written_whole

NAMES = "c++", "g++", "clang++"
SECONDS = 300  # the most that a compilation may take
DIGEST = hashlib.sha256().digest_size

# No -ffast-math: it would take nan for a number, and older versions of GCC let it change the rounding of the whole process.
COMMON = "-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"
FLAGS = ("-march=native", "-fopenmp-simd"), ("-mcpu=native", "-fopenmp-simd"), ()  # the first that the compiler takes


class CompilerError(Exception):
    """Why there is no library, and what to do, in one line."""


def say(line):
    print(line, file=sys.stderr, flush=True)


def find_compiler():
    """The words of the command that CXX names, or of the first compiler that is installed."""
    own = os.environ.get("CXX", "").strip()
    command = shlex.split(own) if own else next(([name] for name in NAMES if shutil.which(name)), [])
    if not command or not shutil.which(command[0]):
        found = f"CXX={own} is not installed" if own else f"no C++ compiler is installed ({', '.join(NAMES)})"
        raise CompilerError(f"{found}: install one, such as g++, or name one in CXX")
    return command


def output(command, folder=None):
    """What a command prints. Raises CompilerError if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, text=True, errors="replace"
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{command[0]} cannot be run ({error}): name another compiler in CXX") from None
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no message"]
        )
        said = f"{lines[0].strip()[:200]}; exit code {done.returncode}"
        raise CompilerError(f"{command[0]} cannot compile the kernels ({said}): name another compiler in CXX")
    return done.stdout


def cpu():
    """What -march=native depends on."""
    found = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        for name in ("model name", "flags", "Features"):
            found += [line for line in lines if line.startswith(name)][:1]
    return "\n".join(found)


def build(source):
    """The compiled source as a ctypes library. Raises CompilerError."""
    compiler = find_compiler()
    version = output([*compiler, "--version"])
    flags = [(*COMMON, *more) for more in FLAGS]
    known = repr((source, flags, compiler, version, cpu()))
    name = f"{hashlib.sha256(known.encode()).hexdigest()[:40]}.so"
    folder = private_folder()
    if folder and (library := load(folder / name)):
        return library
    try:
        with tempfile.TemporaryDirectory(prefix="scratchgen-") as temporary:  # only its owner may enter it
            made = pathlib.Path(temporary, name)
            compile_into(made, source, compiler, flags)
            keep(folder, made)
            library = (folder and load(folder / name)) or load(made)
    except OSError as error:
        raise CompilerError(f"{compiler[0]} made no library ({error}): name another compiler in CXX") from None
    if library is None:
        raise CompilerError(f"what {compiler[0]} made cannot be loaded: name another compiler in CXX")
    return library


def compile_into(path, source, compiler, flags):
    """Compile the source into this file, with the first flags that work, and add the hash of its content."""
    (path.parent / "kernels.cpp").write_text(source, encoding="utf-8")
    for chosen in flags:
        try:
            output([*compiler, *chosen, "kernels.cpp", "-o", path.name], path.parent)
            break
        except CompilerError:
            if chosen == flags[-1]:
                raise
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())


def keep(folder, path):
    """Copy a library into the folder, if there is one, for the next run. It appears there only when complete."""
    if folder:
        try:
            with written_whole(folder / path.name) as file:
                file.write(path.read_bytes())
        except UsageError as error:
            say(f"compiled kernels are not kept for the next run: {error}")


def private_folder():
    """The folder for libraries, or None if there is none that the user alone can write to. A line says why."""
    folder = cache_folder("kernels")
    if folder is None:
        return None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = os.lstat(folder)
    except OSError as error:
        say(f"{folder}: cannot be made ({error.strerror}), so compiled kernels are not kept for the next run")
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    if not ours:
        say(
            f"{folder}: is not yours alone, so what it holds is not run and compiled kernels are not kept for the next run; "
            "delete it"
        )
        return None
    return folder


def load(path):
    """The library in a file, or None if there is none or it is damaged."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
            return None
        return ctypes.CDLL(str(path))
    except OSError:
        return None
