"""demos/scaling.py: what a ring all-reduce costs, and the tables."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

SCALING = pathlib.Path(__file__).parents[2] / "demos" / "scaling.py"


def run(*options):
    done = subprocess.run([sys.executable, SCALING, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [
        line.strip("| ").split(" | ")
        for line in done.stdout.splitlines()
        if re.match(r"\| (reference|wide|10,000)", line)
    ]


@pytest.mark.parametrize("n", [2, 5])
def test_a_ring_passes_what_the_formula_says(n, demo):
    """Each rank passes a piece to its right neighbour, which adds it, until each is whole; then copies go round."""
    rng = np.random.default_rng(0)
    held = rng.integers(0, 9, (n, n, 3)).astype(float)  # of each rank n pieces of 3 numbers
    expected, sent, rounds = held.sum(axis=0), np.zeros(n), 0
    for phase, add in (("sum", 1), ("copy", 0)):
        for step in range(n - 1):
            rounds += 1
            first = 0 if phase == "sum" else 1
            passed = [
                (rank, (rank - step + first) % n, held[rank, (rank - step + first) % n].copy()) for rank in range(n)
            ]
            for rank, piece, numbers in passed:
                right = (rank + 1) % n
                held[right, piece] = add * held[right, piece] + numbers
                sent[rank] += numbers.size
    np.testing.assert_array_equal(held, np.broadcast_to(expected, held.shape))
    sending, latency = demo("scaling").ring(n * 3, n, bits=32, latency=1.0)  # a number a second
    np.testing.assert_allclose(sent, sending)
    assert latency == rounds


def test_the_table_on_paper():
    """2 · 63/64 · 40 MB at 10 Gb/s are 63 ms, and 126 messages of 50 µs are 6.3 ms."""
    reference, ten_million = run("--paper")
    assert ten_million[1:] == ["40.0 MB", "63.0 ms", "6.3 ms", "69.3 ms"]
    assert reference == ["reference VAE, 652,824 weights", "2.6 MB", "4.1 ms", "6.3 ms", "10.4 ms"]


@pytest.mark.slow
@pytest.mark.needs("mpi4py", "mpiexec")
def test_two_ranks_are_measured():
    one, two, *_ = run("--rounds", "1", "--seconds", "0.2")
    assert one[1] == "1" and two[1] == "2"
    assert float(two[2]) > 0 and float(two[6]) < float(one[6])  # half of the examples take less CPU time
