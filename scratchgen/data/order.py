"""The order of examples: the fixed split into train and test, and the random order of an epoch.

The split never depends on the user's seed, so that runs with different seeds are measured on the same test part. The
order within an epoch does depend on it, through its Rng.
"""

import numpy as np

from ..backend import UsageError


def fixed_order(n, which=0):
    """0 ... n - 1 in an order that looks random and is always the same; another order for each number `which`."""
    return np.random.Generator(np.random.PCG64(which)).permutation(n)  # (n,)


def batches(n, batch, rng):
    """One epoch of batches: index arrays (batch,) in random order, on rng's device.

    The examples left over after the last full batch are dropped, so that all batches have the same size. Then every gradient
    is a mean over equally many examples, and a GPU can reuse its buffers. Later epochs, in other orders, use the dropped
    examples. Raises UsageError unless 1 ≤ batch ≤ n.
    """
    if batch < 1:
        raise UsageError(f"batch {batch} is too small: use 1 or more")
    if batch > n:
        raise UsageError(f"batch {batch} is larger than the {n} examples: use --set batch={n} or fewer")
    order = rng.permutation(n)  # (n,)
    return (order[start : start + batch] for start in range(0, n - batch + 1, batch))
