"""What models that are told a label have in common: which classes they have seen, and checks of the labels they get.

Labels may have gaps, as years do; a class in a gap cannot be generated.
"""

import numpy as np

from ...backend import UsageError, on_host, to_host


class Classes:
    """The classes among 0 ... n - 1 that occur in the training data. Until `note` has seen labels, all of them count.

    seen: (n,) ones and zeros on the host. A model keeps this object as an attribute, so that a checkpoint contains it.
    """

    def __init__(self, n):
        self.seen = np.ones(n, np.int64)
        self._tables = None

    def state(self):
        return {"seen": self.seen}

    def note(self, labels):
        """Count only these labels (N,) as seen from now on."""
        self.seen[...] = 0
        self.seen[to_host(labels)] = 1

    def tables(self, rng):
        """(the seen classes (m,), the position of each class among them (n,)), on rng's device. Both are cached."""
        mark = self.seen.tobytes(), rng.xp.__name__
        if self._tables is None or self._tables[0] != mark:
            listed, place = np.flatnonzero(self.seen), np.cumsum(self.seen) - 1
            self._tables = mark, rng.array(listed), rng.array(place)
        return self._tables[1:]

    def draw(self, n, rng):
        """n random seen classes (n,), all equally likely."""
        if self.seen.all():
            return rng.integers(len(self.seen), n)
        listed, _ = self.tables(rng)
        return listed[rng.integers(len(listed), n)]

    def other(self, labels, rng):
        """For each label (B,) another seen class, all equally likely. If only one class was seen, any other class."""
        if self.seen.all() or self.seen.sum() == 1:
            return (labels + 1 + rng.integers(len(self.seen) - 1, len(labels))) % len(self.seen)
        listed, place = self.tables(rng)
        return listed[(place[labels] + 1 + rng.integers(len(listed) - 1, len(labels))) % len(listed)]

    def check(self, labels):
        """Raise UsageError unless labels, one or an array, are seen classes. On a GPU nothing is checked: see on_host."""
        if not on_host(labels):
            return
        found = np.atleast_1d(np.asarray(labels))
        for label in np.unique(found):
            if found.dtype.kind not in "iu" or not 0 <= label < len(self.seen) or not self.seen[label]:
                raise UsageError(f"label {label}: expected {self}")

    def __str__(self):
        """The seen classes in words, such as "0 ... 9", or "one of 1, 2, 5 ... 8" if there are gaps."""
        listed = np.flatnonzero(self.seen)
        runs = np.split(listed, np.flatnonzero(np.diff(listed) > 1) + 1)
        words = [f"{run[0]} ... {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
        return words[0] if len(words) == 1 and len(runs[0]) > 1 else f"one of {', '.join(words)}"


class Conditional:
    """For a model with the setting `conditional`, whether it learns from labels, and with the attribute `classes`."""

    @property
    def needs_labels(self):
        return self.conditional

    def needed(self, labels):
        """labels for a conditional model, None for another. Raises UsageError if they are missing."""
        if self.conditional and labels is None:
            raise UsageError("a model with conditional=true needs labels: give one for each example")
        return labels if self.conditional else None

    def labels_to_sample(self, n, rng, label=None):
        """Labels (n,) for n samples: all `label`, or random seen classes if label is None. None if not conditional.

        Raises UsageError for a class that the training data does not have, and for a label if the model was trained without
        labels.
        """
        if not self.conditional:
            if label is not None:
                raise UsageError(
                    "this model was trained without labels: leave --label out, or train with conditional=true"
                )
            return None
        if label is None:
            return self.classes.draw(n, rng)
        self.classes.check(label)
        return rng.integers(1, n) + label
