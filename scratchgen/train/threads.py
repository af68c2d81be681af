"""The number of threads that NumPy's matrix products (BLAS) use while a model trains, chosen by trying.

More threads can help: on idle cores a step takes up to a half less time. They can also hurt: on busy cores a small product
waits for a thread that is not running, and a step of 7 ms takes 61 ms. So fit tries a few steps with each number of threads
and uses more than one thread only if that is clearly faster.
"""

import contextlib
import functools
import os
import sys
import time

import numpy as np

SMALL = 2e7  # weights times batch: below this, a second thread saves at most a quarter of the time
GAIN = 0.9  # more threads are used only if they need less than this fraction of the time of one thread
ROUNDS, SECONDS = 5, 2.0  # the most rounds and seconds of trying; large models get fewer rounds


def blas_threads(n):
    """A context in which matrix products use n threads. Without threadpoolctl it changes nothing."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(n, "blas")


def most_threads():
    """The number of threads that matrix products may use now, or 1 if it is unknown, as without threadpoolctl."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return 1
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


def useful_threads(model):
    """The most threads that may make a step of this model faster: 1 for a small one, and on a GPU."""
    small = sum(params.theta.size for params in model.parameters().values()) * (model.examples_per_step or 1) < SMALL
    return 1 if small or model.rng(0).xp is not np else most_threads()


def choose_threads(model, step):
    """The number of threads with which step(), one train_step of the model, is fastest; 1 unless more are clearly faster.

    Afterwards the model's state is restored.
    """
    most = useful_threads(model)
    if most == 1:
        return 1
    counts = sorted({1, min(4, most), most})
    kept = {name: array.copy() for name, array in model.state().items()}
    try:
        seconds = timed(step, counts)
    finally:
        model.load_state(kept)
    # We use the mean, not the median: on busy cores, the cost is that a few steps take ten times as long.
    fastest = min(counts, key=lambda n: np.mean(seconds[n]))
    return fastest if np.mean(seconds[fastest]) < GAIN * np.mean(seconds[1]) else 1


def timed(step, counts):
    """{number of threads: [seconds of each step]}. The numbers of threads take turns."""
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
    """Print once that threadpoolctl is missing, if it matters."""
    limits = {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys()
    with contextlib.suppress(ImportError):
        import threadpoolctl  # noqa: F401

        return
    if (os.cpu_count() or 1) > 1 and not limits:
        line = "threadpoolctl is not installed: matrix products use all cores, which is slow for small models on busy cores"
        print(f"{line}; pip install threadpoolctl, or set OPENBLAS_NUM_THREADS=1", file=sys.stderr, flush=True)
