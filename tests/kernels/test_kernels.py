"""Every CUDA kernel says what the plain twin beside it says.

Without a GPU: its lines are compiled as C++ and run number by number, where there is a C++ compiler, and compiled for a GPU,
where NVIDIA's compiler is installed (pip install nvidia-cuda-nvrtc). test_devices.py runs them on a GPU where there is one.
"""

import ctypes
import importlib.util
import inspect
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scratchgen.backend import Rng
from scratchgen.kernels import operations as kernels
from scratchgen.kernels.cuda import add_rows_source
from scratchgen.kernels.operations import Kernel
from scratchgen.nn.activations import ACTIVATIONS, Activation, ReLU
from scratchgen.nn.layer import Sequential
from scratchgen.nn.layers import Linear, mlp
from scratchgen.nn.parameters import Parameters

FUSED = {name: found for name, found in vars(kernels).items() if isinstance(found, Kernel)}
FUSED |= {k.name: k for f in ACTIVATIONS.values() for k in kernels.activation_kernels(f()).values()}
TYPES = {"float32": "float", "float64": "double"}
every_kernel = pytest.mark.parametrize("name", FUSED)


def names(parameters):
    return re.findall(r"T (\w+)", parameters)


def looped(name, k, index):
    """A kernel as a C function over n numbers; index: what says which of them."""
    given, made = names(k.inputs), names(k.outputs)
    pointers = ", ".join([f"const T* {p}_" for p in given] + [f"T* {p}_" for p in made])
    views = " ".join([f"const T {p} = {p}_[i];" for p in given] + [f"T& {p} = {p}_[i];" for p in made])
    return f"void {name}(size_t n, {pointers}) {{ {index} {{ {views} {k.code} }} }}"


@pytest.fixture(scope="module")
def compiled(compile_cpp):
    """All kernels as C++ functions NAME_DTYPE."""
    lines = ["#include <cmath>", "#include <cstddef>", "using namespace std;"]
    for dtype, real in TYPES.items():
        functions = [looped(f"{name}_{dtype}", k, "for (size_t i = 0; i < n; i++)") for name, k in FUSED.items()]
        lines += [f"#define T {real}", 'extern "C" {', *functions, "}", "#undef T"]
    return compile_cpp("\n".join(lines), "-ffp-contract=off")


def arguments(k, dtype, seed=0, n=1000):
    """Arrays (n,) for the inputs and the outputs of a kernel, and its settings; V, a sum of squares, is positive."""
    rng = Rng((seed, 1), dtype)
    arrays = {p: 3 * rng.normal(n) for p in names(k.inputs) + names(k.outputs)}
    arrays |= {"V": arrays["V"] ** 2} if "V" in arrays else {}
    return arrays | k.settings


def by_twin(k, arrays):
    """{output: array} by the plain twin."""
    made = names(k.outputs)
    if set(made) <= inspect.signature(k.twin).parameters.keys():  # it writes in place
        arrays = {p: a.copy() if isinstance(a, np.ndarray) else a for p, a in arrays.items()}
        k.twin(*arrays.values())
        return {p: arrays[p] for p in made}
    result = k.twin(*(arrays[p] for p in names(k.inputs)))
    return dict(zip(made, result if isinstance(result, tuple) else (result,)))


def by_lines(k, arrays, dtype, library):
    """{output: array} by the CUDA lines, compiled as C++."""
    full = {p: np.full(1000, a, dtype) if isinstance(a, float) else a.copy() for p, a in arrays.items()}
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in full.values()]
    library[f"{k.name}_{dtype}"](ctypes.c_size_t(1000), *pointers)
    return {p: full[p] for p in names(k.outputs)}


@every_kernel
@pytest.mark.parametrize("dtype", TYPES)
def test_cuda_lines_compute_what_the_twin_computes(name, dtype, compiled):
    k = FUSED[name]
    arrays = arguments(k, dtype)
    found = by_lines(k, arrays, dtype, compiled)
    for output, expected in by_twin(k, arrays).items():
        assert expected.dtype == dtype
        tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(found[output], expected, rtol=tolerance, atol=atol, err_msg=f"{name}, {output}")


@every_kernel
def test_nan_comes_through_as_in_the_twin(name, compiled):
    k = FUSED[name]
    arrays = arguments(k, "float64")
    inputs = [p for p in names(k.inputs) if isinstance(arrays[p], np.ndarray)]
    for given in set(inputs) - {"y"}:  # y = f(x): never nan alone
        spoilt = arrays | {given: np.where(np.arange(1000) % 3, arrays[given], np.nan)}
        found = by_lines(k, spoilt, "float64", compiled)
        for output, expected in by_twin(k, spoilt).items():
            np.testing.assert_array_equal(np.isnan(found[output]), np.isnan(expected), f"{output} where {given} is nan")


@every_kernel
def test_no_number_is_a_double_whatever_T_is(name):
    assert not re.search(r"\d\.|\.\d|\de-?\d", re.sub(r"T\([\d.]+\)", "", FUSED[name].code)), "write T(0.5), not 0.5"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_cuda_lines_of_an_activation_keep_nan_and_do_not_overflow(name, compiled):
    k = FUSED[ACTIVATIONS[name].__name__]
    x = np.resize([np.nan, -1e4, 1e4, 0.0], 1000)
    y = by_lines(k, {"x": x, "a": k.settings["a"], "y": x}, "float64", compiled)["y"]
    assert np.isnan(y[::4]).all()
    assert np.isfinite(y[1:4]).all()


def cuda_code(dtype):
    """All kernels as CUDA source, {name: source}."""
    head = f'typedef {TYPES[dtype]} T; extern "C" __global__ '
    index = "size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; if (i < n)"
    sources = {name: head + looped(name, k, index) for name, k in FUSED.items()}
    rows = [(), *((f.__name__, f.cuda[1]) for f in ACTIVATIONS.values())]
    return sources | dict(add_rows_source(np.dtype(dtype), *row) for row in rows)


@pytest.fixture(scope="module")
def nvrtc():
    """compile(source) -> (status, log), by NVIDIA's compiler, which needs no GPU."""
    found = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (found.submodule_search_locations if found else [])]
    libraries = [path for root in roots for path in root.rglob("libnvrtc.so.*") if "builtins" not in path.name]
    if not libraries:
        pytest.skip("nvidia is installed without its run-time compiler: pip install nvidia-cuda-nvrtc")
    library = ctypes.CDLL(str(libraries[0]))

    def compile(source):
        program = ctypes.c_void_p()
        library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        option = (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_80")
        status, size = library.nvrtcCompileProgram(program, 1, option), ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        library.nvrtcDestroyProgram(ctypes.byref(program))
        return status, log.value.decode()

    return compile


@pytest.mark.needs("nvidia")
@pytest.mark.parametrize("dtype", TYPES)
def test_every_kernel_compiles_for_a_gpu(dtype, nvrtc):
    sources = cuda_code(dtype)
    assert len(sources) == len(FUSED) + 1 + len(ACTIVATIONS)
    for name, source in sources.items():
        status, log = nvrtc(source)
        assert status == 0, f"{name}: {log}\n{source}"
    assert nvrtc(sources["adam"].replace("sqrt(V)", "sqrt(W)"))[0] != 0  # a compiler that takes anything proves nothing


def test_every_activation_has_cuda_lines_and_a_changed_one_does_not_inherit_them():
    assert all(f.cuda for f in ACTIVATIONS.values())
    assert Activation.cuda is None
    assert type("Same", (ReLU,), {"__init__": lambda self: None}).cuda == ReLU.cuda
    elsewhere = type("Mixin", (), {"f": lambda self, xp, x: -x})
    assert type("Other", (ReLU,), {"f": lambda self, xp, x: -x}).cuda is None
    assert type("Mixed", (elsewhere, ReLU), {}).cuda is None
    assert type("Helped", (ACTIVATIONS["gelu"],), {"tanh_u": lambda self, xp, x: x}).cuda is None
    assert type("Stated", (ReLU,), {"f": lambda self, xp, x: -x, "cuda": ("-x", "-1")}).cuda == ("-x", "-1")


def run(steps, params, x, dy):
    """y, dx and all weights' gradients of layers, or joined layers, one after the other."""
    backs = []
    params.zero_grad()
    for step in steps:
        x, back = step.forward(x, None)
        backs.append(back)
    y = x
    for back in reversed(backs):
        dy = back(dy)
    return y, dy, params.grad.copy()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_linear_and_its_activation_in_one_step_are_the_two_in_turn(name):
    network = mlp([4, 5, 3], ACTIVATIONS[name])
    params = Parameters(Rng(0, "float64"), network=network)
    assert (len(network.layers), len(network.steps())) == (3, 2)
    given = params, Rng(1, "float64").normal((6, 4)), Rng(2, "float64").normal((6, 3))
    for joined, single in zip(run(network.steps(), *given), run(network.layers, *given)):
        np.testing.assert_allclose(joined, single, rtol=1e-13, atol=1e-15)


def test_a_subclass_with_a_forward_of_its_own_is_never_passed_over():
    class Halved(Linear):
        def forward(self, x, rng):
            return 0.5 * (x @ self.W), None

    class Silent(ReLU):
        def forward(self, x, rng):
            return 0 * x, None

    watched = Linear(2, 2), ReLU()
    watched[0].forward = lambda x, rng: Linear.forward(watched[0], x, rng)  # to look at what passes
    for layers in ((Halved(2, 2), ReLU()), (Linear(2, 2), Silent()), watched):
        assert Sequential(*layers).steps() == list(layers)


def test_a_forward_put_in_place_of_a_classs_is_not_passed_over(monkeypatch):
    layers = Linear(2, 2), ReLU()
    assert len(Sequential(*layers).steps()) == 1
    for layer_class in (Linear, Activation):
        with monkeypatch.context() as patch:
            patch.setattr(layer_class, "forward", lambda self, x, rng: (x, None))
            assert Sequential(*layers).steps() == list(layers)


@pytest.mark.parametrize("dtype", TYPES)
def test_no_gradient_passes_a_bound_not_even_an_infinite_one(dtype, compiled):
    k = kernels.posterior_backward
    arrays = arguments(k, dtype)
    for array, number in (("dz", np.inf), ("raw", 5.0)):
        arrays[array][:] = number
    assert (by_lines(k, arrays, dtype, compiled)["d_raw"] == 0).all()
    assert (by_twin(k, arrays)["d_raw"] == 0).all()


def test_memory_of_large_arrays_is_kept_between_steps():
    resource = pytest.importorskip("resource", reason="no page faults to count on this system")
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc gives memory back so soon")
    program = """
import resource, numpy as np
from scratchgen import Parameters, Rng
{}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.zeros(3 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    assert resource.getpagesize() <= 1 << 16
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", program.format(line)], capture_output=True, check=True).stdout)
        for line in ("", "Parameters(Rng(0))")
    )
    assert kept < 100, f"{kept} page faults, {plain} without"
