"""Small programs that a GPU cannot run, or not well: nearly all pass for correct with NumPy, and all must be found.

Each takes an array module xp, x (4, 3) of its float32 numbers and labels = 0, 1, 2, 3 of its integers.
"""

import io
import math

import numpy as np


def generator(xp):
    return xp.random.default_rng(0)


def only_numpy_is_an_array(xp, x, labels):
    if not isinstance(x, np.ndarray):
        raise TypeError("an array is wanted")


def host_array_written_into_a_view(xp, x, labels):
    x[...] = np.zeros((4, 3), np.float32)


def list_written_into_a_row(xp, x, labels):
    x[1] = [1.0, 2.0, 3.0]


def added_to_one_place_twice(xp, x, labels):
    x[labels // 2] += 1


def assert_finite(xp, x, labels):
    assert xp.isfinite(x).all()


def check_of_the_labels(xp, x, labels):
    assert 0 <= labels.min() <= labels.max() < 9


# CuPy raises.
RAISES = {
    "numpy mean of a list of losses": lambda xp, x, labels: np.mean([x.sum(), x.max()]),
    "numpy array of a list of losses": lambda xp, x, labels: np.array([x.sum(), x.max()]),
    "implicit conversion": lambda xp, x, labels: np.asarray(x),
    "only numpy is an array": only_numpy_is_an_array,
    "host noise": lambda xp, x, labels: x + np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32),
    "host array on the left": lambda xp, x, labels: np.ones(3, np.float32) * x,
    "host weights": lambda xp, x, labels: x @ np.eye(3, dtype=np.float32),
    "host array to a device function": lambda xp, x, labels: xp.log(np.ones(3)),
    "host array joined": lambda xp, x, labels: xp.concatenate([x, np.zeros((1, 3), np.float32)]),
    "host array in where": lambda xp, x, labels: xp.where(x > 0, x, np.zeros(3, np.float32)),
    "host array written into a view": host_array_written_into_a_view,
    "list written into a row": list_written_into_a_row,
    "list added": lambda xp, x, labels: x * [1.0, 2.0, 3.0],
    "stack of numbers": lambda xp, x, labels: xp.stack([1.0, 2.0]),
    "Generator.normal": lambda xp, x, labels: generator(xp).normal(0.0, 1.0, x.shape),
    "Generator.permutation": lambda xp, x, labels: x[generator(xp).permutation(4)],
    "Generator.shuffle": lambda xp, x, labels: generator(xp).shuffle(x),
    "Generator.choice": lambda xp, x, labels: generator(xp).choice(4, 2),
    "Generator.multinomial": lambda xp, x, labels: generator(xp).multinomial(3, [0.5, 0.5]),
    "Generator.spawn": lambda xp, x, labels: generator(xp).spawn(2),
    "ufunc where": lambda xp, x, labels: xp.log(x, where=x > 0, out=xp.zeros_like(x)),
    "sum initial": lambda xp, x, labels: x.sum(initial=1.0),
    "max initial": lambda xp, x, labels: xp.max(x, initial=0.0),
    "mean where": lambda xp, x, labels: x.mean(where=x > 0),
    "clip by other names": lambda xp, x, labels: xp.clip(x, min=0.0),
    "take along no axis": lambda xp, x, labels: xp.take_along_axis(x, labels[:, None] % 3),
    "einsum out": lambda xp, x, labels: xp.einsum("ij,ij->i", x, x, out=xp.zeros(4, xp.float32)),
    "errstate": lambda xp, x, labels: xp.errstate(all="ignore"),
    "vecdot": lambda xp, x, labels: xp.vecdot(x, x),
    "unstack": lambda xp, x, labels: xp.unstack(x),
    "objects": lambda xp, x, labels: x.astype(object),
    "range of a reduction": lambda xp, x, labels: list(range(labels.max())),
    "list index by a reduction": lambda xp, x, labels: ["cat", "dog", "cow", "hen"][labels.max()],
    "rounded loss": lambda xp, x, labels: round(x.sum(), 3),
    "loss as a key": lambda xp, x, labels: {x.sum(): "best"},
}

# CuPy says nothing: it runs its own function in place of NumPy's, or does something else than NumPy.
SILENT = {
    "numpy scatter": lambda xp, x, labels: np.add.at(x, labels, 1.0),
    "numpy exp": lambda xp, x, labels: np.exp(x),
    "numpy relu": lambda xp, x, labels: np.maximum(x, 0),
    "numpy concatenate": lambda xp, x, labels: np.concatenate([x, x]),
    "numpy norm": lambda xp, x, labels: np.linalg.norm(x),
    "numpy array_equal": lambda xp, x, labels: np.array_equal(x, x),
    "numpy savez": lambda xp, x, labels: np.savez(io.BytesIO(), x=x),
    "labels out of range": lambda xp, x, labels: x[labels + 4],
    "added to one place twice": added_to_one_place_twice,
}

# The host waits for the device.
SYNCS = {
    "branch on a loss": lambda xp, x, labels: 1 if x.sum() < 3 else 2,
    "loss in an f-string": lambda xp, x, labels: f"loss {x.sum():.3f}",
    "loss in a message": lambda xp, x, labels: "loss " + str(x.sum()),
    "float of a loss": lambda xp, x, labels: float(x.sum()),
    "item of a loss": lambda xp, x, labels: x.sum().item(),
    "root by math": lambda xp, x, labels: math.sqrt((x * x).sum()),
    "largest of a list": lambda xp, x, labels: max([x.sum(), x.max()]),
    "sorted": lambda xp, x, labels: sorted(x.sum(axis=1)),
    "assert finite": assert_finite,
    "check of the labels": check_of_the_labels,
    "mask index": lambda xp, x, labels: x[x > 0],
    "nonzero": lambda xp, x, labels: xp.nonzero(x),
    "where of one argument": lambda xp, x, labels: xp.where(x > 0),
    "unique": lambda xp, x, labels: xp.unique(labels),
    "tolist": lambda xp, x, labels: labels.tolist(),
}

# The host sends something to the device, which could lie there already.
UPLOADS = {
    "list index": lambda xp, x, labels: x[[0, 2]],
    "shuffled by the host": lambda xp, x, labels: x[np.random.default_rng(0).permutation(4)],
    "labels sent each step": lambda xp, x, labels: xp.asarray(np.arange(4)),
    "constant sent each step": lambda xp, x, labels: x * xp.array(0.5, xp.float32),
}

# float32 becomes float64, 30 times slower on some GPUs.
UPCASTS = {
    "numpy scalar": lambda xp, x, labels: x * np.sqrt(2.0),
    "zeros of no dtype": lambda xp, x, labels: x + xp.zeros(3),
    "noise of no dtype": lambda xp, x, labels: x + generator(xp).standard_normal(x.shape),
    "integers divided": lambda xp, x, labels: labels / 2 * x[:, 0],
}

PLANTED = {
    name: (program, found_by)
    for group, found_by in (
        (RAISES, "raises"),
        (SILENT, "raises"),
        (SYNCS, "syncs"),
        (UPLOADS, "uploads"),
        (UPCASTS, "upcasts"),
    )
    for name, program in group.items()
}
