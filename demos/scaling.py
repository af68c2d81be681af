"""How training steps scale with the number of ranks: `mpiexec -n N`, as in scratchgen/train/parallel.py.

The first table is measured on this machine: milliseconds for a step of one batch that the ranks share, examples per second,
and the share of a step that a rank spends in the all-reduce, which includes waiting for the slowest rank. Each number of
ranks gets a run of its own, in turns, and medians are shown. On busy cores a rank often waits for one that is not running.
The last three columns do not depend on that: the CPU time of a rank's own work, the least time of an all-reduce alone, and
from their sum how much faster n ranks would be on idle cores. The second table is computed: what a ring all-reduce costs
on a network,

    seconds = 2 (n - 1)/n · bytes / bandwidth + 2 (n - 1) · latency

because each rank sends and receives 2 (n - 1) pieces of size bytes / n, one after the other (Patarasuk & Yuan 2009).

Try `scaling.py --ranks 1 2`, `scaling.py --paper`. Needs mpi4py and mpiexec: pip install 'scratchgen[mpi]'.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time

import numpy as np

from scratchgen.__main__ import Parser
from scratchgen.backend import Rng, UsageError
from scratchgen.commands.console import run_to_the_end
from scratchgen.kernels.native import compiled_kernels
from scratchgen.models.vae import VAE
from scratchgen.train.parallel import Ranks, connect
from scratchgen.train.progress import told

CASES = {
    "reference VAE, 784-400-20, batch 128": {},
    "wide VAE, 784-1800-1800-20, batch 512": {"hidden": (1800, 1800), "batch": 512},
}
BITS, LATENCY, MANY = 10e9, 50e-6, 64  # bits a second, seconds for a message by TCP, ranks
WARM, MESSAGES = 3, 200  # steps that are not counted; how many all-reduces are tried
HEAD = [
    "| model | ranks | ms a step | examples/s | times as fast | in the all-reduce "
    "| CPU ms of a rank | least all-reduce, ms | on idle cores |",
    "|---|---|---|---|---|---|---|---|---|",
]


class Timed(Ranks):
    """Ranks that measure the time that they spend in sums: by the clock, and of the CPU."""

    clock = cpu = 0.0

    def sum(self, array):
        clock, cpu = time.perf_counter(), time.process_time()
        super().sum(array)
        self.clock, self.cpu = self.clock + time.perf_counter() - clock, self.cpu + time.process_time() - cpu


def worker(name, seconds):
    """On each rank: train for some seconds. Rank 0 prints four numbers of ms as JSON: see `measured`."""
    ranks = connect()
    ranks = Timed(ranks.comm) if ranks.size > 1 else ranks
    model = VAE(**CASES[name]).build(Rng(0))
    part, rng = ranks.part(model, model.batch), model.rng((1, ranks.rank))
    x = Rng(2).uniform((model.batch, model.n_features))
    x = x if part is None else x[part]

    def now():
        sums = (ranks.clock, ranks.cpu) if ranks.size > 1 else (0.0, 0.0)
        return np.array([time.perf_counter(), time.process_time() - sums[1], sums[0]])

    steps, started = [], math.inf
    with compiled_kernels():
        while ranks.by_first(lambda: len(steps) < WARM or time.perf_counter() - started < seconds):
            if len(steps) == WARM:
                started = time.perf_counter()
            before = now()
            with ranks.reducing():
                model.train_step(x, rng)
            steps.append(now() - before)
    sums = []
    for _ in range(MESSAGES if ranks.size > 1 else 0):
        ranks.comm.Barrier()
        before = now()
        ranks.sum(model.params.grad)
        sums.append((now() - before)[2])
    if ranks.rank == 0:
        step, own, waited = np.median(steps[WARM:], axis=0)
        print(json.dumps([1e3 * value for value in (step, own, waited, min(sums, default=0.0))]))


def measured(name, n, seconds):
    """On n ranks, ms of a step: by the clock; of the CPU, without the all-reduce; in the all-reduce, with waiting. And the
    least ms of an all-reduce alone. Medians, but for the last."""
    command = [sys.executable, __file__, "--worker", name, "--seconds", str(seconds)]
    command = ["mpiexec", "-n", str(n), *command] if n > 1 else command
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # each rank is a core
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise UsageError(f"{n} ranks: {(done.stderr.splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout)


def table(name, counts, rounds, seconds):
    """The rows of a case, as Markdown."""
    found = {n: [] for n in counts}
    for _ in told(range(rounds), f"round of {name}"):
        for n in counts:
            found[n].append(measured(name, n, seconds))
    batch, idle = VAE(**CASES[name]).batch, {}
    for n in counts:
        step, own, waited = np.median([row[:3] for row in found[n]], axis=0)
        least = min(row[3] for row in found[n])
        idle[n] = own + least
        faster = np.median([one[0] / many[0] for one, many in zip(found[counts[0]], found[n])])
        share = f"{100 * waited / step:.0f} %" if n > 1 else ""
        row = f"{step:.2f} | {1e3 * batch / step:,.0f} | {faster:.2f} | {share} | {own:.2f} | {least:.2f}"
        yield f"| {name} | {n} | {row} | {idle[counts[0]] / idle[n]:.2f} |"


def weights(name):
    return VAE(**CASES[name]).build(Rng(0)).params.theta.size


def ring(n_weights, n=MANY, bits=BITS, latency=LATENCY):
    """(seconds of sending, seconds of latency) of a ring all-reduce of float32 gradients over n ranks."""
    return 2 * (n - 1) / n * 4 * n_weights / (bits / 8), 2 * (n - 1) * latency


def paper():
    """The rows of what an all-reduce costs on a network, as Markdown."""
    sizes = {f"reference VAE, {weights(next(iter(CASES))):,} weights": weights(next(iter(CASES)))}
    for name, size in (sizes | {"10,000,000 weights": 10_000_000}).items():
        sending, latency = ring(size)
        yield (
            f"| {name} | {4 * size / 1e6:.1f} MB | {1e3 * sending:.1f} ms | {1e3 * latency:.1f} ms | "
            f"{1e3 * (sending + latency):.1f} ms |"
        )


def main(args):
    if args.worker:
        return worker(args.worker, args.seconds)
    if min(args.ranks) < 1 or args.rounds < 1 or args.seconds < 0:
        raise UsageError("--ranks and --rounds must be 1 or more, and --seconds 0 or more")
    if not args.paper:
        load = " of ".join([f"load {os.getloadavg()[0]:.1f}", f"{os.cpu_count()} cores"])
        print(f"{load}, {args.rounds} rounds of {args.seconds:g} s\n")
        print(*HEAD, sep="\n")
        for name in CASES:
            for row in table(name, sorted(set(args.ranks)), args.rounds, args.seconds):
                print(row, flush=True)
        print()
    print(f"{MANY} ranks, {BITS / 1e9:g} Gb/s, {1e6 * LATENCY:g} µs for a message\n")
    print("| gradient | float32 | sending | latency | all-reduce |\n|---|---|---|---|---|")
    print(*paper(), sep="\n")


def start():
    """Parse the options and print the tables. Returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of ranks; default: 1 2")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured; default: 5")
    parser.add_argument("--seconds", type=float, default=4, help="how long, each time; default: 4")
    parser.add_argument("--paper", action="store_true", help="only the table that is computed")
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    return run_to_the_end(parser.prog, lambda: main(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(start())
