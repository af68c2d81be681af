"""Two marks for numbers that belong to the whole batch, not to single examples.

Here both functions return what they are given. If several processes each have a part of the batch, train/parallel.py runs in
their place, and adds the parts up. The gradient needs no mark: an optimizer's step is where its parts meet.
"""

from ..kernels import watched


@watched
def total(sums):
    """A sum over the batch, an array or a whole number."""
    return sums


@watched
def agreed(drawn):
    """An array that was drawn at random, and must be the same everywhere, because weights are set to it."""
    return drawn
