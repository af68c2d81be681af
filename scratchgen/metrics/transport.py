"""How far points are from a toy density, beside how far its own points are from each other."""

import numpy as np

from ..backend import Rng, to_host
from ..divergences import sliced_wasserstein

PAIRS = 10  # of real samples, whose mean distance is the floor: a single pair's varies by a third


class PlaneJudge:
    """Measures samples of n points by their sliced Wasserstein distance to fresh points of a toy density.

    toy: a data.Toy; scale (D,): points are divided by it first, mostly the training points' standard deviation. Every
    distance is to n fresh points of its own. floor: the mean distance of n real points to others, over 10 pairs. Equal
    seeds give equal points.
    """

    def __init__(self, toy, scale, n, seed=0):
        self.toy, self.scale, self.n, self.seed = toy, scale, n, seed
        self.floor = float(np.mean([self.distance(self.fresh(i, 0), i) for i in range(PAIRS)]))

    def fresh(self, *which):
        return self.toy.sample(self.n, Rng((self.seed, 0, 5, *which)))

    def distance(self, x, which=0):
        """Of points x (N, D) to the fresh points called `which`, in units of scale."""
        return sliced_wasserstein(to_host(x) / self.scale, self.fresh(which, 1) / self.scale, Rng(self.seed))
