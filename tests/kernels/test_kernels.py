"""Every kernel computes what its twin in NumPy computes, and every compiled form what the function it stands for does.

Without a GPU: its lines are compiled as C++ and run number by number, where there is a C++ compiler, and compiled for a GPU,
where NVIDIA's compiler is installed (pip install nvidia-cuda-nvrtc). test_devices.py runs them on a GPU where there is one.
Also as they are compiled for the CPU, with vector functions: native.py.
"""

import ctypes
import importlib.util
import inspect
import platform
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import simcupy
from simcupy.runner import Runner
from simcupy.twins import TWINS

from scratchgen import kernels
from scratchgen.backend import Rng, to_host
from scratchgen.kernels import compiled as forms
from scratchgen.kernels import elementwise
from scratchgen.kernels.cuda import add_rows_source
from scratchgen.nn import distributions
from scratchgen.nn.activations import ACTIVATIONS, Activation, ReLU, Tanh
from scratchgen.nn.layer import Sequential
from scratchgen.nn.layers import Dropout, Linear, mlp
from scratchgen.nn.norms import BatchNorm
from scratchgen.nn.parameters import Parameters

FUSED = {k.name: k for k in elementwise.KERNELS}
FUSED |= {k.name: k for name in elementwise.ACTIVATIONS for k in elementwise.activation_kernels(name)}
SETTINGS = {  # with which numbers a kernel is tried, where they are no arrays
    "add_bias": {},
    "bernoulli": {"scale": 0.25},
    "square": {"scale": 0.25},
    "posterior": {"low": -2.0, "high": 1.5, "scale": 0.25},
    "posterior_backward": {"d_kl": 0.7, "low": -2.0, "high": 1.5, "scale": 0.25},
    "adam": {"beta1": 0.9, "rest1": 0.1, "beta2": 0.999, "rest2": 0.001, "rate": 0.01, "eps": 1e-3, "keep": 0.99},
    "move_towards": {"rate": 0.1},
}
for name in elementwise.ACTIVATIONS:
    SETTINGS |= {
        k.name: {"a": {"LeakyReLU": 0.2, "ELU": 1.0}.get(name, 0.0)} for k in elementwise.activation_kernels(name)
    }
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
def library(compile_cpp):
    """All kernels as C++ functions NAME_DTYPE."""
    lines = ["#include <cmath>", "#include <cstddef>", "using namespace std;"]
    for dtype, real in TYPES.items():
        functions = [looped(f"{name}_{dtype}", k, "for (size_t i = 0; i < n; i++)") for name, k in FUSED.items()]
        lines += [f"#define T {real}", 'extern "C" {', *functions, "}", "#undef T"]
    return compile_cpp("\n".join(lines), "-ffp-contract=off")


@pytest.fixture(scope="module", params=["lines", "native"])
def compiled(request):
    """compiled(k, arrays, dtype) -> {output: array} by the kernel's lines, or as they are compiled for this CPU."""
    if request.param == "native":
        return partial(by_native, request.getfixturevalue("native"))
    return partial(by_lines, request.getfixturevalue("library"))


def arguments(k, dtype, seed=0, n=1000):
    """Arrays (n,) for the inputs and the outputs of a kernel, and its settings; v, a mean of squares, is positive."""
    rng = Rng((seed, 1), dtype)
    arrays = {p: 3 * rng.normal(n) for p in names(k.inputs) + names(k.outputs)}
    arrays |= {"v": arrays["v"] ** 2} if "v" in arrays else {}
    return arrays | SETTINGS[k.name]


def by_twin(k, arrays):
    """{output: array} by the twin in NumPy."""
    made, twin = names(k.outputs), TWINS[k.name]
    if set(made) <= inspect.signature(twin).parameters.keys():  # it writes in place
        arrays = {p: a.copy() if isinstance(a, np.ndarray) else a for p, a in arrays.items()}
        twin(*arrays.values())
        return {p: arrays[p] for p in made}
    result = twin(*(arrays[p] for p in names(k.inputs)))
    return dict(zip(made, result if isinstance(result, tuple) else (result,)))


def by_lines(library, k, arrays, dtype):
    """{output: array} by the lines of a kernel, compiled as C++."""
    full = {p: np.full(1000, a, dtype) if isinstance(a, float) else a.copy() for p, a in arrays.items()}
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in full.values()]
    library[f"{k.name}_{dtype}"](ctypes.c_size_t(1000), *pointers)
    return {p: full[p] for p in names(k.outputs)}


def by_native(device, k, arrays, dtype):
    """{output: array} by the library for this CPU."""
    full = {p: a.copy() if isinstance(a, np.ndarray) else a for p, a in arrays.items()}
    device.elementwise(k, tuple(full[p] for p in names(k.inputs) + names(k.outputs)))
    return {p: full[p] for p in names(k.outputs)}


@every_kernel
@pytest.mark.parametrize("dtype", TYPES)
def test_a_kernels_lines_compute_what_the_twin_computes(name, dtype, compiled):
    k = FUSED[name]
    arrays = arguments(k, dtype)
    found = compiled(k, arrays, dtype)
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
        found = compiled(k, spoilt, "float64")
        for output, expected in by_twin(k, spoilt).items():
            np.testing.assert_array_equal(np.isnan(found[output]), np.isnan(expected), f"{output} where {given} is nan")


@every_kernel
def test_no_number_is_a_double_whatever_T_is(name):
    assert not re.search(r"\d\.|\.\d|\de-?\d", re.sub(r"T\([\d.]+\)", "", FUSED[name].code)), "write T(0.5), not 0.5"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_lines_of_an_activation_keep_nan_and_do_not_overflow(name, compiled):
    k = FUSED[ACTIVATIONS[name].__name__]
    x = np.resize([np.nan, -1e4, 1e4, 0.0], 1000)
    y = compiled(k, {"x": x, "a": SETTINGS[k.name]["a"], "y": x}, "float64")["y"]
    assert np.isnan(y[::4]).all()
    assert np.isfinite(y[1:4]).all()


def cuda_code(dtype):
    """All kernels as CUDA source, {name: source}."""
    head = f'typedef {TYPES[dtype]} T; extern "C" __global__ '
    index = "size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; if (i < n)"
    sources = {name: head + looped(name, k, index) for name, k in FUSED.items()}
    return sources | dict(add_rows_source(np.dtype(dtype), name) for name in ["", *elementwise.ACTIVATIONS])


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
    assert nvrtc(sources["adam"].replace("sqrt(v)", "sqrt(w)"))[0] != 0  # a compiler that takes anything proves nothing


# ---- where the compiled forms run, and where not ----


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.setitem(kernels.DEVICES, "simcupy", Runner())
    return simcupy


def test_every_form_stands_for_a_marked_operation_and_every_operation_has_a_form():
    methods = {f"scratchgen.nn.activations.{f.__name__}.forward" for f in ACTIVATIONS.values()}
    assert set(forms.FORMS) == set(forms.MARKED) - {"scratchgen.nn.activations.Activation.forward"} | methods
    assert forms.BOUNDS == distributions.LOG_VAR_RANGE


def counted(monkeypatch, *classes):
    """[name of the class, ...] of each layer whose own forward runs from now on, in order."""
    ran = []
    for kind in classes:
        own = kind.forward

        def forward(self, x, rng, own=own):
            ran.append(type(self).__name__)
            return own(self, x, rng)

        monkeypatch.setattr(kind, "forward", forward)
    return ran


def test_on_numpy_every_layer_of_a_network_runs_its_own_forward(monkeypatch):
    network = mlp([4, 5, 5, 3], ReLU, norm=BatchNorm, dropout=0.1, last=Tanh)
    Parameters(Rng(0), network=network)
    ran = counted(monkeypatch, Linear, Activation, BatchNorm, Dropout)
    y, back = network.forward(Rng(1).normal((6, 4)), Rng(2))
    assert ran == [type(layer).__name__ for layer in network.layers]
    assert back(y).shape == (6, 4)


def test_a_breakpoint_in_a_layer_is_met_by_every_such_layer_of_a_network():
    """What a debugger does: it stops where the function's own code starts, however it was called."""
    network, met = mlp([4, 5, 5, 3], ReLU), []
    Parameters(Rng(0), network=network)
    code = {Linear.forward.plain.__code__: "Linear", Activation.forward.plain.__code__: "ReLU"}
    sys.setprofile(
        lambda frame, event, given: met.append(code[frame.f_code]) if event == "call" and frame.f_code in code else None
    )
    try:
        network(Rng(1).normal((6, 4)))
    finally:
        sys.setprofile(None)
    assert [name for name in met if name] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_a_marked_method_takes_its_input_by_name(simulated):
    for device in ("cpu", simulated):
        rng = Rng(0, "float32", device)
        layer = Linear(4, 5)
        Parameters(rng, layer=layer)
        x = rng.normal((6, 4))
        np.testing.assert_array_equal(to_host(layer.forward(x=x, rng=None)[0]), to_host(layer(x)))


def launches(work):
    with simcupy.counting() as counts:
        result = work()
    return counts.launches, result


def test_a_linear_and_its_activation_are_one_step_on_a_device(simulated):
    rng = Rng(0, "float32", simulated)
    network, x = mlp([4, 5, 3], ReLU), rng.normal((6, 4))
    Parameters(rng, network=network)
    assert launches(lambda: network(x))[0] == 4  # two products, bias and ReLU together, bias
    assert launches(lambda: [layer.forward(x, None) for layer in network.layers[:1]])[0] == 2


def test_a_subclass_runs_as_it_is_written_on_a_device_too(simulated):
    rng = Rng(0, "float32", simulated)
    same = type("Same", (ReLU,), {})
    other = type("Other", (ReLU,), {"f": lambda self, xp, x: -x})

    class Halved(Linear):
        def forward(self, x, rng):
            y, back = super().forward(x, rng)
            return 0.5 * y, lambda dy, learn=True, inputs=True: back(0.5 * dy, learn, inputs)

    for f, halves in ((same(), False), (other(), False), (ReLU(), True)):
        network = Sequential((Halved if halves else Linear)(4, 5), f)
        Parameters(rng, network=network)
        x = rng.normal((6, 4))
        h = (x @ network.layers[0].W + network.layers[0].b) * (0.5 if halves else 1.0)
        expected = -h if type(f).__name__ == "Other" else simulated.maximum(h, 0)
        np.testing.assert_allclose(to_host(network(x)), to_host(expected), rtol=1e-6)
        assert forms.joined(network.layers) == list(network.layers)


def test_a_forward_put_in_place_to_look_at_what_passes_is_not_passed_over(simulated, monkeypatch):
    rng = Rng(0, "float32", simulated)
    network, x = mlp([4, 5, 3], ReLU), rng.normal((6, 4))
    Parameters(rng, network=network)
    assert len(forms.joined(network.layers)) == 2
    first = network.layers[0]
    with monkeypatch.context() as patch:
        ran = counted(patch, Linear)
        network(x)
        assert ran == ["Linear", "Linear"]
    with monkeypatch.context() as patch:
        ran = counted(patch, Activation)
        network(x)
        assert ran == ["ReLU"]
    seen = []
    first.forward = lambda x, rng: (seen.append(x), Linear.forward(first, x, rng))[1]
    network(x)
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_shapes_are_explained_on_a_device_as_on_numpy(dtype, simulated):
    rng = Rng(0, dtype, simulated)
    network = mlp([4, 5, 3], ReLU)
    Parameters(rng, network=network)
    for work in (network, network.layers[0]):
        with pytest.raises(ValueError, match=r"Linear\(.*got an input of shape \(6, 3\), expected \(B, 4\)"):
            work(rng.normal((6, 3)))
    with pytest.raises(ValueError, match=r"shape \(3, 5\), expected \(B, 2 D\)"):
        distributions.gaussian_posterior(rng.normal((3, 5)), rng)


def test_other_precisions_run_as_they_are_written(simulated):
    """Whole numbers and complex ones: no kernel takes them."""
    assert forms.device_of(Rng(0, "complex128", simulated).zeros((2, 2))) is None
    assert forms.device_of(Rng(0, "float32", simulated).integers(3, 4)) is None
    assert forms.device_of(np.zeros(3)) is None


@pytest.mark.parametrize("dtype", TYPES)
def test_no_gradient_passes_a_bound_not_even_an_infinite_one(dtype, compiled):
    k = elementwise.POSTERIOR_BACKWARD
    arrays = arguments(k, dtype)
    for array, number in (("dz", np.inf), ("raw", 5.0)):
        arrays[array][:] = number
    assert (compiled(k, arrays, dtype)["d_raw"] == 0).all()
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
