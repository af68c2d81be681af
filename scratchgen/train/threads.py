"""How many threads NumPy's matrix products (BLAS) may use while a model trains: as many as help, found by trying.

More threads can help, by up to a half on idle cores, and can hurt: on busy cores a small product waits for a thread that
is not running, and a step of 7 ms takes 61. So fit tries a few steps with each number, and takes more than one thread only
where that is clearly faster.
"""

import contextlib
import functools
import os
import sys
import time

import numpy as np

SMALL = 2e7  # weights times batch: below, a second thread saves a quarter at the most
GAIN = 0.9  # more threads must take less than this part of one thread's time
ROUNDS, SECONDS = 5, 2.0  # of trying; large models get fewer rounds


def blas_threads(n):
    """A context in which matrix products use n threads. Without threadpoolctl it changes nothing."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(n, "blas")


def most_threads():
    """How many threads matrix products may use now; 1 where nobody can tell, as without threadpoolctl."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return 1
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


def choose_threads(model, step):
    """The number of threads with which step(), one train_step of the model, is fastest: 1 unless more clearly help.

    What the steps change is put back.
    """
    most = most_threads()
    small = sum(params.theta.size for params in model.parameters().values()) * (model.examples_per_step or 1) < SMALL
    if most == 1 or small or model.rng(0).xp is not np:
        return 1
    counts = sorted({1, min(4, most), most})
    kept = {name: array.copy() for name, array in model.state().items()}
    try:
        seconds = timed(step, counts)
    finally:
        model.load_state(kept)
    # The mean, not the median: what hurts on busy cores is that now and then a step takes ten times as long.
    fastest = min(counts, key=lambda n: np.mean(seconds[n]))
    return fastest if np.mean(seconds[fastest]) < GAIN * np.mean(seconds[1]) else 1


def timed(step, counts):
    """{number of threads: seconds of some steps each}, the numbers taking turns."""
    seconds, started = {n: [] for n in counts}, time.perf_counter()
    for turn in range(ROUNDS + 1):
        for n in counts:
            with blas_threads(n):
                before = time.perf_counter()
                step()
                seconds[n].append(time.perf_counter() - before)
        if turn and time.perf_counter() - started > SECONDS:
            break
    return {n: times[1:] for n, times in seconds.items()}  # the first turn warms up


@functools.cache
def say_that_nothing_is_limited():
    """Say once, where it matters, that threadpoolctl is missing."""
    limits = {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys()
    with contextlib.suppress(ImportError):
        import threadpoolctl  # noqa: F401

        return
    if (os.cpu_count() or 1) > 1 and not limits:
        line = "threadpoolctl is not installed: matrix products use every core, which is slow for small models on busy ones"
        print(f"{line}; pip install threadpoolctl, or set OPENBLAS_NUM_THREADS=1", file=sys.stderr, flush=True)
