"""This benchmark times a training step of scratchgen, of PyTorch, and of its matrix products alone.

All do the same work on data that already lie on the device: draw a batch, compute loss and gradients, update with Adam.
PyTorch is written as its users write it. Contestants run in processes of their own and take turns. `x eager` and `x
floor` are median ratios to PyTorch and to the products.

Try `--case GAN`, `--device gpu`, `--json`. Read demos/peers/pytorch.py, demos/peers/turns.py.
"""

import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import platform
import statistics
import sys
from functools import partial

from common import run
from peers.cases import CASES
from peers.turns import take_turns

from scratchgen.backend import Rng, UsageError, find_device
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_figure
from scratchgen.train.cuda_graph import CapturedStep
from scratchgen.train.progress import told
from scratchgen.train.threads import blas_threads, choose_threads

N = 20_000  # examples on the device
PINS = "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"  # which CPU OpenBLAS is to take this one for
OURS, GRAPH, FLOOR = "scratchgen", "scratchgen, graph", "matrix products alone"
EAGER, FUSED, COMPILED = "PyTorch eager", "PyTorch, fused Adam", "PyTorch, compile + fused"
REDUCED, THEIR_GRAPH = "PyTorch, reduce-overhead", "PyTorch, whole-step graph"


# The contestants: each is a function (case, device) -> step(), synchronise(), called in its process.


def picked(x, order, batch):
    """Endless batches of x, its rows in the given order."""
    while True:
        for start in range(0, len(order) - batch + 1, batch):
            yield x[order[start : start + batch]]


def synchroniser(xp):
    return xp.cuda.Device().synchronize if hasattr(xp, "cuda") else lambda: None


def ours(case, device, captured=False):
    rng = Rng(0, device=device)
    model = case.model.build(rng)
    step = CapturedStep(model, rng) if captured else partial(model.train_step, rng=rng)
    batches = picked(rng.uniform((N, model.n_features)), rng.permutation(N), model.examples_per_step)

    def next_step():
        return step(x=next(batches))

    blas_threads(choose_threads(model, next_step)).__enter__()  # as in fit
    return next_step, synchroniser(rng.xp)


def floor(case, device):
    rng = Rng(0, device=device)
    arrays = [(rng.normal((m, k)), rng.normal((k, n)), rng.zeros((m, n))) for m, k, n in case.products]

    def step():
        for a, b, out in arrays:
            rng.xp.matmul(a, b, out=out)

    return step, synchroniser(rng.xp)


def pytorch(case, device, compile=None, captured=False, **adam):
    import torch
    from peers import pytorch as peers

    device = "cpu" if device == "cpu" else "cuda"
    compiled = (lambda network: network) if compile is None else partial(torch.compile, **compile)
    step = getattr(peers, case.peer)(case.model, device, partial(torch.optim.Adam, **adam), compiled)
    x, order = torch.rand(N, case.model.n_features, device=device), torch.randperm(N, device=device)
    batches = picked(x, order, case.model.examples_per_step)
    if captured:
        step = peers.captured(step, next(batches))
    return lambda: step(next(batches)), torch.cuda.synchronize if device == "cuda" else lambda: None


CONTESTANTS = {
    OURS: ours,
    GRAPH: partial(ours, captured=True),
    EAGER: pytorch,
    FUSED: partial(pytorch, fused=True),
    COMPILED: partial(pytorch, compile={}, fused=True),
    REDUCED: partial(pytorch, compile={"mode": "reduce-overhead"}, fused=True),
    THEIR_GRAPH: partial(pytorch, captured=True, fused=True, capturable=True),
    FLOOR: floor,
}


def contestants(case, gpu, peers=True, compiled=True):
    """{name: prepare} of the contestants of this case. peers, compiled: whether PyTorch and its compiler take part."""
    left_out = set() if gpu else {GRAPH, REDUCED, THEIR_GRAPH}
    if not compiled or not (gpu or case.compiled):
        left_out |= {COMPILED, REDUCED}
    if not peers or importlib.util.find_spec("torch") is None:
        left_out |= {EAGER, FUSED, COMPILED, REDUCED, THEIR_GRAPH}
    device = "gpu" if gpu else "cpu"
    return {name: partial(function, case, device) for name, function in CONTESTANTS.items() if name not in left_out}


def measure(case, seconds, gpu, **options):
    """A row, a dict, for each contestant that runs the case; a line on standard error for one that cannot."""
    times, failures = take_turns(contestants(case, gpu, **options), seconds, gpu)
    for failure in failures:
        print(f"{case.name}: left out {failure}", file=sys.stderr)

    def relative(name, other):
        return statistics.median(a / b for a, b in zip(times[name], times[other])) if other in times else None

    return [
        {"case": case.name, "contestant": name, "ms": 1e3 * statistics.median(found), "rounds": len(found)}
        | {"x_eager": relative(name, EAGER), "x_floor": relative(name, FLOOR)}
        for name, found in times.items()
    ]


def describe(xp):
    """The machine and the versions of everything that matters."""
    found = {"CPU": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    with contextlib.suppress(OSError, StopIteration):  # Linux knows the CPU's name
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        found["CPU"] = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    found |= {"Python": platform.python_version(), "NumPy": importlib.metadata.version("numpy")}
    if hasattr(xp, "cuda"):
        version, name = xp.cuda.runtime.runtimeGetVersion(), xp.cuda.runtime.getDeviceProperties(0)["name"].decode()
        found = {"GPU": name} | found | {"CuPy": xp.__version__, "CUDA": f"{version // 1000}.{version % 1000 // 10}"}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed, so it is not compared: pip install torch", file=sys.stderr)
    else:
        found |= {"PyTorch": torch.__version__, "PyTorch threads": torch.get_num_threads()}
    return found | {"date": datetime.date.today().isoformat()}


@contextlib.contextmanager
def unpinned():
    """Inside, new processes let OpenBLAS choose its products for their CPU, whatever the environment says."""
    pins = {name: os.environ.pop(name) for name in PINS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(pins)


def draw(rows, device, path):
    names = list(dict.fromkeys(row["case"] for row in rows))
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = new_figure(3.9 * columns, 2.1 * lines, lines, columns)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names):
        mine = {row["contestant"]: row["ms"] for row in rows if row["case"] == name}
        colours = [BLUE if who in (OURS, GRAPH) else GREY if who == FLOOR else RED for who in mine]
        bars = axis.barh(list(mine), list(mine.values()), color=colours)
        axis.bar_label(bars, [f"{ms:#.3g}" for ms in mine.values()], padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.set_title(name, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"ms per training step, {device}", fontsize=9)
    save_figure(figure, path)


def options(parser):
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on standard output")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each case is measured; default: 8")
    parser.add_argument("--case", default="", metavar="PATTERN", help="run only the cases whose names contain this")


def main(args):
    xp = find_device(args.device)
    cases = [case for case in CASES if args.case in case.name]
    if not cases:
        raise UsageError(f"--case {args.case}: no case has this in its name: {'; '.join(case.name for case in CASES)}")
    if args.seconds is not None and not 0 <= args.seconds < 1e6:
        raise UsageError(f"--seconds {args.seconds:g}: expected a number >= 0")
    seconds = (0 if args.quick else 8) if args.seconds is None else args.seconds
    for name in (name for name in PINS if name in os.environ):
        print(
            f"{name}={os.environ[name]} is ignored: it would slow down NumPy's products and nothing else",
            file=sys.stderr,
        )
    environment, rows = describe(xp), []
    if not args.json:
        print(", ".join(f"{name} {value}" for name, value in environment.items()), flush=True)
    for case in told(cases, "case"):
        peers = not args.quick or case is cases[0]  # PyTorch takes seconds to import
        with unpinned():
            found = measure(case, seconds, hasattr(xp, "cuda"), peers=peers, compiled=not args.quick)
        rows += found
        if not args.json:
            print(f"\n{case.name:<38}ms/step   x eager   x floor")
            for row in found:
                ratios = ["-" if row[key] is None else f"{row[key]:.2f}" for key in ("x_eager", "x_floor")]
                print(f"  {row['contestant']:<35}{row['ms']:8.3f}{ratios[0]:>10}{ratios[1]:>10}", flush=True)
    if not rows:
        raise UsageError("nothing could be measured")
    if args.json:
        print(json.dumps({"environment": environment, "results": rows}, indent=1))
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        draw(rows, environment.get("GPU", environment["CPU"]), args.out / "benchmark.png")


if __name__ == "__main__":
    run(main, __doc__, options=options, ignores=("data", "epochs", "seed"))
