"""This benchmark times scratchgen beside PyTorch, JAX, scikit-learn and the matrix products alone.

All do the same work on data that already lie on the device. Each contestant has a process of its own, and they take turns.
Measured are training steps, sampling, EM, the start of a run and its memory, and how steps grow with batch and width. The
table is written as Markdown too.

Try `--case GAN`, `--training`, `--device gpu`, `--json`. Read demos/peers/contestants.py, demos/peers/turns.py.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
from functools import partial

from common import run
from peers import mixture, report, start
from peers.cases import BATCHES, CASES, SAMPLINGS, WIDTHS
from peers.contestants import (
    EAGER,
    FLOOR,
    FUSED,
    JAX,
    KERNELS,
    ORDER,
    OURS,
    PACKAGES,
    SAMPLING,
    TRAINING,
    able,
    installed,
    raced,
)

from scratchgen.backend import UsageError, find_device, written_whole
from scratchgen.train.progress import told

PINS = "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"  # which CPU OpenBLAS is to take this one for
QUICK_SIZES = 2  # how many batches and widths with --quick
LONG = "DDPM"  # its sampling takes about a second


class Bench:
    """What is measured, one method for each option. Each yields the rows of one case after the other.

    seconds: how long each case is measured. quick: whether the peers stay away from all but the first case of a kind.
    """

    def __init__(self, seconds, quick=False, gpu=False, pattern=""):
        self.seconds, self.quick, self.gpu = seconds, quick, gpu
        self.cases = [case for case in CASES if pattern in case.name]

    def race(self, measurement, case, functions, seconds=None, least=None, **more):
        """Rows, dicts, of the contestants {name: function} that run the case. more: what else stands in each row."""
        device = "gpu" if self.gpu else "cpu"
        prepares = {name: partial(function, case, device) for name, function in functions.items()}
        return self.rows(measurement, case.name, prepares, seconds, least, **more)

    def rows(self, measurement, name, prepares, seconds=None, least=None, **more):
        with unpinned():
            times = raced(name, prepares, self.seconds if seconds is None else seconds, self.gpu, least)

        def relative(who, other):
            return statistics.median(a / b for a, b in zip(times[who], times[other])) if other in times else None

        return [
            {"measurement": measurement, "case": name, "contestant": who}
            | {"ms": 1e3 * statistics.median(found), "rounds": len(found)}
            | {"x_eager": relative(who, EAGER), "x_floor": relative(who, FLOOR)}
            | more
            for who, found in times.items()
        ]

    def able(self, functions, first, compiler=False):
        return able(functions, self.gpu, peers=first or not self.quick, compiler=compiler and not self.quick)

    def training(self):
        """Training steps of every model."""
        for case in told(self.cases, "case"):
            functions = self.able(TRAINING, case is self.cases[0], compiler=self.gpu or case.compiled)
            yield self.race("training", case, functions)

    def sampling(self):
        """Pictures drawn by trained models."""
        for case in told(SAMPLINGS[: 1 if self.quick else None], "sampling"):
            functions = self.able(SAMPLING, case is SAMPLINGS[0])
            yield self.race("sampling", case, functions, least=1 if case.peer == LONG else None)

    def mixture(self):
        """EM of a Gaussian mixture."""
        case = mixture.Mixture(n=1_000, iterations=3) if self.quick else mixture.Mixture()
        yield self.rows("mixture", case.name, self.able(mixture.contestants(case), True), least=1)

    def start(self):
        """Seconds of import and until the first step is done, and the peak of memory; the best of ROUNDS processes each."""
        found = {}
        with unpinned():
            for _ in told(range(1 if self.quick else start.ROUNDS), "round of starts"):
                for who in self.able(start.IMPORTS, not self.quick):
                    try:
                        for what, value in start.measured(who).items():
                            found.setdefault(what, {}).setdefault(who, []).append(value)
                    except RuntimeError as error:
                        print(f"start: left out {who}: {error}", file=sys.stderr)
        for what, (name, unit) in start.NAMES.items():
            row, values = {"measurement": "start", "case": name}, found.get(what, {})
            yield [row | {"contestant": who, unit: min(values[who]), "rounds": len(values[who])} for who in values]

    def sizes(self):
        """Training steps of the reference VAE against its batch and its width, a third as long each."""
        functions = {name: TRAINING[name] for name in (OURS, KERNELS, FUSED, JAX)}
        for what, cases in {"batch": BATCHES, "width": WIDTHS}.items():
            for case in told(cases[: QUICK_SIZES if self.quick else None], what):
                size = case.model.batch if what == "batch" else case.model.hidden[0]
                yield self.race(what, case, self.able(functions, not self.quick), self.seconds / 3, size=size)


MEASUREMENTS = ("training", "sampling", "mixture", "start", "sizes")


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
    for package, (name, distribution) in PACKAGES.items():
        if hasattr(xp, "cuda") and package != "torch":
            continue  # it takes no part
        if installed(package):
            found[name] = importlib.metadata.version(distribution)
        else:
            print(f"{name} is not installed, so it is not compared: pip install {distribution}", file=sys.stderr)
    return found | {"date": datetime.date.today().isoformat()}


@contextlib.contextmanager
def unpinned():
    """Inside, new processes let OpenBLAS choose its products for their CPU, whatever the environment says."""
    pins = {name: os.environ.pop(name) for name in PINS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(pins)


def show(rows):
    """Print the rows of one case."""
    unit = report.unit_of(rows[0])
    print(f"\n{rows[0]['case']:<52}{unit:>4}   x eager   x floor")
    for row in sorted(rows, key=lambda row: ORDER.index(row["contestant"])):
        ratios = [f"{row[key]:.2f}" if row.get(key) else "-" for key in ("x_eager", "x_floor")]
        print(f"  {row['contestant']:<44}{row[unit]:10.3f}{ratios[0]:>10}{ratios[1]:>10}", flush=True)


def options(parser):
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on standard output")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each case is measured; default: 8")
    parser.add_argument(
        "--case", metavar="PATTERN", help="only training steps, and only cases whose names contain this"
    )
    for name in MEASUREMENTS:
        words = getattr(Bench, name).__doc__.splitlines()[0].rstrip(".")
        parser.add_argument(f"--{name}", action="store_true", help=f"measure only this: {words[0].lower()}{words[1:]}")


def chosen(args, gpu):
    """The names of what is measured."""
    given = [name for name in MEASUREMENTS if getattr(args, name)]
    if gpu and set(given) - {"training"}:
        raise UsageError(f"--{given[-1]}: on a GPU only training steps are measured")
    if gpu and args.case is None:
        print("on a GPU only training steps are measured; JAX and scikit-learn are left out", file=sys.stderr)
    return given or (MEASUREMENTS if args.case is None and not gpu else ("training",))


def main(args):
    xp = find_device(args.device)
    bench = Bench(8 if args.seconds is None else args.seconds, args.quick, hasattr(xp, "cuda"), args.case or "")
    if not bench.cases:
        raise UsageError(f"--case {args.case}: no case has this in its name: {'; '.join(case.name for case in CASES)}")
    if not 0 <= bench.seconds < 1e6:
        raise UsageError(f"--seconds {args.seconds:g}: expected a number >= 0")
    if args.quick and args.seconds is None:
        bench.seconds = 0
    for name in (name for name in PINS if name in os.environ):
        print(
            f"{name}={os.environ[name]} is ignored: it would slow down NumPy's products and nothing else",
            file=sys.stderr,
        )
    wanted = chosen(args, bench.gpu)
    environment, rows = describe(xp), []
    if not args.json:
        print(", ".join(f"{name} {value}" for name, value in environment.items()), flush=True)
    for measurement in wanted:
        for found in getattr(bench, measurement)():
            rows += found
            if found and not args.json:
                show(found)
    if not rows:
        raise UsageError("nothing could be measured")
    rows = report.with_slopes(rows)
    if args.json:
        print(json.dumps({"environment": environment, "results": rows}, indent=1))
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        path = args.out / "benchmark.png"
        with written_whole(path.with_suffix(".md")) as sheet:
            sheet.write(report.table(rows).encode())
        print(path.with_suffix(".md"))
        report.draw(rows, ", ".join(f"{name} {value}" for name, value in environment.items()), path)


if __name__ == "__main__":
    run(main, __doc__, options=options, ignores=("data", "epochs", "seed", "compile"))
