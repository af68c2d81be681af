"""A .npy file larger than memory: its rows stay on the disk and are read through a memory map, batch by batch.

An epoch needs the rows in random order, but a disk is slow at single rows. So the file is divided into chunks of rows that
lie side by side. The chunks are read in random order, as many at a time as a buffer holds, and the rows in the buffer are
shuffled. Two rows of one chunk often meet in the same buffer, but hardly ever in the same batch. The order of an epoch
depends on its Rng alone.

Only the buffer, the batch and 8 bytes for each row are in memory. Each chunk has a map of its own, because the pages
that a map has touched count as memory of the process.
"""

import sys
from functools import cached_property

import numpy as np

from ..backend import UsageError
from .files import flatten
from .order import fixed_order
from .tables import Scale, as_table, checked_scale, is_table

IN_MEMORY = 2**30  # a .npy file stays on the disk if its rows would take more bytes as float32
BUFFER = 2**28  # bytes of rows that are in memory at a time
CHUNK = 2**20  # bytes that are read in one piece
MOST_TEST = 10_000  # the most test examples: they are in memory
SEEN = 1_000  # rows of a preview
AROUND = 2**21  # Linux may map so many bytes around a row that is read


class Rows:
    """Some rows of a .npy file as (N, D) float32, which are read when they are indexed: rows[:10], rows[[5, 3]].

    numbers: which rows of the file, (N,). read(array, numbers) makes float32 rows of the opened array. low and high: the
    smallest and the largest number.
    """

    ndim, dtype = 2, np.dtype(np.float32)

    def __init__(self, path, numbers, width, read, low, high):
        self.path, self.numbers, self._read, self.low, self.high = path, numbers, read, low, high
        self.shape, self.size = (len(numbers), width), len(numbers) * width
        self.row_bytes = 4 * width

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, which):
        numbers = np.atleast_1d(self.numbers[which])
        x = np.empty((len(numbers), self.shape[1]), self.dtype)
        piece = max(1, BUFFER // 4 // max(self.row_bytes, AROUND))
        for i in range(0, len(numbers), piece):
            x[i : i + piece] = self._read(opened(self.path), numbers[i : i + piece])
        return x

    def min(self):
        return self.low

    def max(self):
        return self.high

    @cached_property
    def preview(self):
        """Up to 1,000 rows, evenly spread. Two numbers in them are replaced by the smallest and the largest of all rows."""
        x = self[np.linspace(0, len(self) - 1, min(SEEN, len(self))).astype(int)]
        x.flat[[x.argmin(), x.argmax()]] = self.low, self.high
        return x

    def sample(self, rng, n=None):
        """n random rows in memory; by default as many as a quarter of the buffer holds."""
        n = n or BUFFER // 4 // self.row_bytes
        return self[np.sort(rng.host.permutation(len(self))[: max(1, n)])]

    def batches(self, batch, rng, part=None):
        """One epoch of batches (batch, D), in the order described above; rows left over after the last batch are dropped.

        part: which rows of each batch are wanted, an index array on the host; None for all of them.
        """
        per_chunk = max(1, CHUNK // self.row_bytes)
        together = max(1, BUFFER // (per_chunk * self.row_bytes))
        starts, left = per_chunk * rng.host.permutation(-(-len(self) // per_chunk)), self[:0]
        for i in range(0, len(starts), together):
            chunks = [self.numbers[start : start + per_chunk] for start in np.sort(starts[i : i + together])]
            buffer = np.empty((len(left) + sum(map(len, chunks)), self.shape[1]), self.dtype)
            buffer[: len(left)], end = left, len(left)
            for numbers in chunks:
                buffer[end : end + len(numbers)] = self._read(opened(self.path), numbers)
                end += len(numbers)
            order, full = rng.host.permutation(end), end // batch * batch
            for start in range(0, full, batch):
                chosen = order[start : start + batch]
                yield buffer[chosen if part is None else chosen[part]]
            left = buffer[order[full:]]
            del buffer  # before the next one is made


def in_memory(x):
    """x, or of Rows a preview: for checks of settings against data."""
    return x.preview if isinstance(x, Rows) else x


def opened(path):
    """The array of a .npy file as a memory map."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def large_array(path):
    """The array of a .npy file that stays on the disk, or None if the file is small, or cannot be opened in this way."""
    try:
        array = opened(path) if path.suffix.lower() == ".npy" else None
    except Exception:  # files.py will say what is wrong
        return None
    return array if isinstance(array, np.memmap) and array.ndim > 1 and 4 * array.size > IN_MEMORY else None


def load_rows(path, array, scale):
    """(x_train, x_test, None, None, shape, None, scale) of a large array of a .npy file, where x_train is Rows.

    What is a picture, a point or a table is as in files.py. All numbers are checked, in blocks. The test part is drawn as
    that of a smaller file, but has 10,000 examples at most.
    """
    row_bytes = 4 * max(1, array[0].size)
    block = max(1, BUFFER // 8 // row_bytes)
    starts = range(0, len(array), block)
    table = scale is not None or any(is_table(opened(path)[i : i + block]) for i in starts)
    n_test = max(1, min(len(array) // 10, MOST_TEST, BUFFER // 4 // row_bytes))
    test, train = (np.sort(part) for part in np.split(fixed_order(len(array)), [n_test]))
    if table:
        blocks = (as_table(opened(path)[i : i + block], None, path, i) for i in starts)
        extremes = [(x.min(axis=0), x.max(axis=0)) for x in blocks]
        low, high = (extreme([pair[i] for pair in extremes], axis=0) for i, extreme in enumerate((np.min, np.max)))
        scale = scale or measured(path, train, block)
        if len(scale.mean) != array.shape[1]:
            width = f"has {array.shape[1]} columns, but the model was trained on {len(scale.mean)}"
            raise UsageError(f"{path}: {width}: give a table with the same columns")
        low, high = scale.standardised(low).min(), scale.standardised(high).max()
        shape, width = None, array.shape[1]
    else:
        low, high = np.inf, -np.inf
        for i in starts:
            x, shape = flatten(opened(path)[i : i + block], path, i)
            low, high = min(low, x.min()), max(high, x.max())
        width = x.shape[1]

    def read(array, numbers):
        rows = array[numbers].reshape(-1, width)  # a copy
        if table:
            return scale.standardised(rows.astype(np.float64))
        return np.divide(rows, 255, dtype=np.float32) if rows.dtype == np.uint8 else rows.astype(np.float32)

    x_train = Rows(path, train, width, read, low, high)
    size = f"{len(array):,} examples, {len(array) * row_bytes / 1e9:.1f} GB in memory"
    print(f"{path}: {size}: read from the disk batch by batch; {n_test:,} are kept to test on", file=sys.stderr)
    return x_train, Rows(path, test, width, read, low, high)[:], None, None, shape, None, scale


def measured(path, train, block):
    """The Scale of the training rows of a large table, in two passes: means, then squares of the differences from them."""
    parts = [train[i : i + block] for i in range(0, len(train), block)]
    low, high, total = np.inf, -np.inf, 0.0
    for part in parts:
        x = opened(path)[part].astype(np.float64)
        low, high, total = np.minimum(low, x.min(axis=0)), np.maximum(high, x.max(axis=0)), total + x.sum(axis=0)
    mean = total / len(train)
    squares = sum(((opened(path)[part] - mean) ** 2).sum(axis=0) for part in parts)
    return checked_scale(Scale(mean, np.sqrt(squares / len(train))), low, high, None, path)
