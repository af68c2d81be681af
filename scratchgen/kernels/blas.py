"""Finds the matrix products of NumPy's own BLAS, which can also add to what is there: out ← out + a b.

NumPy brings OpenBLAS and has loaded it, but it only offers a @ b, which needs an array for the product and a pass to add it.
"""

import ctypes
import functools
import pathlib

import numpy as np

# Names of cblas_sgemm in builds of OpenBLAS and others, and how many bits a size has in their arguments.
NAMES = ("scipy_cblas_{}gemm64_", 64), ("cblas_{}gemm64_", 64), ("cblas_{}gemm", 32)


def libraries():
    """Paths of what may be NumPy's BLAS: what this process has loaded, and what lies beside NumPy."""
    found, beside = [], pathlib.Path(np.__file__).parent
    try:
        lines = pathlib.Path("/proc/self/maps").read_text(errors="replace").splitlines()
        found += [line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6]
    except OSError:  # not Linux
        pass
    for folder in (beside.parent / "numpy.libs", beside / ".dylibs"):
        found += sorted(map(str, folder.glob("*")))
    found = [path for path in dict.fromkeys(found) if "blas" in pathlib.Path(path).name.lower()]
    return sorted(found, key=lambda path: "numpy" not in path)  # SciPy has one of its own, with other threads


@functools.cache
def find_gemm():
    """({dtype: address of cblas_sgemm or cblas_dgemm}, bits of a size); the dict is empty if they are not found."""
    for path in libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for name, bits in NAMES:
            if hasattr(library, name.format("s")):
                functions = {"float32": library[name.format("s")], "float64": library[name.format("d")]}
                return {dtype: ctypes.cast(f, ctypes.c_void_p).value for dtype, f in functions.items()}, bits
    return {}, 64
