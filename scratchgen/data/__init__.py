"""Data sets: load(name) loads any of them.

A name is a built-in set (digits, mnist, fashion), a toy density of known log-likelihood (ring, grid, moons, ...), a
folder of pictures, or a .npy, .npz or .csv file. In every case an example is one row of a float32 matrix. Pictures are
pixels in [0, 1], and `shape` says how to turn a row back into a picture. The columns of a table are standardised, and
`scale` turns them back into the numbers of the file:

    data = load("people.csv")                              # data.columns: ("height", "income", ...)
    model = Flow(n_features=data.x_train.shape[1]).build(Rng(0))
    fit(model, data.x_train, epochs=100)
    values = data.scale.undo(model.sample(1000, Rng(1)))   # in metres, in euros, ...
"""

from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from typing import Any

import numpy as np

from ..backend import Rng, UsageError, full_path
from .files import load_arrays, load_csv, load_folder
from .idx import SETS, load_idx
from .on_disk import Rows, large_array, load_rows
from .order import batches, fixed_order
from .tables import Scale
from .toys import TOYS, Toy

__all__ = ["TOYS", "Data", "Rows", "Scale", "Toy", "batches", "binarized", "fixed_order", "load", "names"]

# The middle number of the random streams of toy points. It is large, to differ from those of training, (seed, epoch).
# Points made from the same random numbers as a sampler's noise would not be independent of it.
TOY_STREAM = 0x746F79


@dataclass(eq=False)
class Data:
    """A data set in memory, as NumPy arrays. Only x_train may stay on the disk, as Rows: see load.

    name: the name given to load; for a folder or a file its full path, which works from every folder.
    x_train, x_test: float32 (N, D); pixels in [0, 1] for pictures, any numbers for points, for a table its columns in
        standard deviations from their mean.
    labels_train, labels_test: int64 (N,), or None if there are no classes.
    shape: (h, w) grey, (h, w, 3) colour, or None for points and tables.
    columns: the names of a table's columns; None if there are no names.
    scale: the mean and standard deviation of a table's columns; None if the data are not a table.
    toy: the density the points were drawn from, or None.
    """

    name: str
    x_train: np.ndarray
    x_test: np.ndarray
    labels_train: np.ndarray | None = None
    labels_test: np.ndarray | None = None
    shape: tuple | None = None
    columns: tuple[str, ...] | None = None
    scale: Scale | None = None
    toy: Toy | None = None

    @property
    def n_classes(self) -> int:
        """One more than the largest label, or 0 if there are no labels."""
        if self.labels_train is None or self.labels_test is None:
            return 0
        return int(max(self.labels_train.max(), self.labels_test.max())) + 1

    def in_memory(self) -> "Data":
        """The same Data; if x_train is on the disk, with as many random rows of it as there are test examples."""
        if not isinstance(self.x_train, Rows):
            return self
        return replace(self, x_train=self.x_train.sample(Rng(0), len(self.x_test)))


def names() -> list[str]:
    """The built-in names that load() accepts, besides folders and files."""
    return ["digits", *SETS, *TOYS]


def load(name: Any, seed: int = 0, scale: Scale | None = None, on_disk: bool = False) -> Data:
    """The Data called `name`: a built-in name, a folder of pictures, or a .npy, .npz or .csv file. Built-in names have
    priority.

    seed: for a toy's points (10,000 train, 2,000 test). The other sets do not depend on it: their splits are fixed.
    scale: that of the table which a model was trained on. A file is then a table too, and its columns are divided by the
        same standard deviations, not by its own.
    on_disk: a .npy file of more than a gibibyte is not loaded: x_train is Rows, which fit reads batch by batch.
    Raises UsageError, with the reason, for a name or a file that cannot be used.
    """
    name = str(name)
    if name == "digits":
        return Data(name, *load_digits())
    if name in SETS:
        return Data(name, *load_idx(name))
    if name in TOYS:
        return load_toy(name, seed)
    path = full_path(name)
    if path.is_dir():
        return Data(str(path.absolute()), *load_folder(path))
    if on_disk and (array := large_array(path)) is not None:
        return Data(str(path.absolute()), *load_rows(path, array, scale))
    if path.suffix.lower() in (".npy", ".npz"):
        return Data(str(path.absolute()), *load_arrays(path, scale))
    if path.suffix.lower() == ".csv":
        return Data(str(path.absolute()), *load_csv(path, scale))
    known = f"{', '.join(names())}, a folder of pictures, or a .npy, .npz or .csv file"
    raise UsageError(f"data {name!r} is unknown: use {known}")


def binarized(data: Data, seed: int = 28) -> Data:
    """The Data with every pixel drawn once as 0 or 1; its grey value is the probability of 1 (static binarization).

    Papers do this since Salakhutdinov & Murray 2008. The draws here are our own, so results can be compared with those of
    papers, but not to the last digit.
    """
    n, m = len(data.x_train), len(data.x_test)
    x_train = Rng((seed, n)).bernoulli(data.x_train)
    x_test = Rng((seed, m, int(m == n))).bernoulli(data.x_test)  # another stream if both have the same length
    return replace(data, x_train=x_train, x_test=x_test)


def load_digits():
    """1,400 train and 397 test digits of 8×8 pixels with 17 grey levels; see digits.md for where they come from."""
    with package_files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]  # (1797, 64) of 0..16, (1797,)
    x = images.astype(np.float32) / 16  # the file is already shuffled, so the first 1,400 can be the training part
    labels = labels.astype(np.int64)
    return x[:1400], x[1400:], labels[:1400], labels[1400:], (8, 8)


def load_toy(name, seed):
    """10,000 points to train on and 2,000 to test; labels if the toy has more than one component."""
    toy = TOYS[name]
    x_train, labels_train = toy.sample_with_labels(10_000, Rng((seed, TOY_STREAM, 0)))
    x_test, labels_test = toy.sample_with_labels(2_000, Rng((seed, TOY_STREAM, 1)))
    if toy.n_classes == 1:
        labels_train = labels_test = None
    return Data(name, x_train, x_test, labels_train, labels_test, toy=toy)
