"""The distance of generated points to those of a toy density or of the user, and that of real points as a comparison."""

import numpy as np

from ..backend import Rng, to_host
from .divergences import sliced_wasserstein

PAIRS, DIRECTIONS = 40, 50  # distances vary by a third among pairs, but little with more directions


class PointsJudge:
    """Measures samples of n points by their sliced Wasserstein distance to a Data's test points, which no model has seen.

    Each column is divided by its standard deviation among the training points, unless that is 0. n: the number of test
    points. floor: the mean distance of n training points to the test points, over PAIRS draws.
    """

    def __init__(self, data, seed=0):
        scale = data.x_train.std(axis=0)
        self.scale, self.n, self.seed = np.where(scale > 0, scale, 1), len(data.x_test), seed
        self.test, n_train = data.x_test / self.scale, len(data.x_train)
        parts = [Rng((seed, 0, 6, i)).host.choice(n_train, self.n, replace=self.n > n_train) for i in range(PAIRS)]
        self.floor = float(np.mean([self.distance(data.x_train[part]) for part in parts]))

    def distance(self, x):
        """The distance of points x (N, D) to the test points."""
        return sliced_wasserstein(to_host(x) / self.scale, self.test, Rng(self.seed), DIRECTIONS)


class ToyJudge:
    """Measures samples of n points by their sliced Wasserstein distance to as many new points of a Data's toy density.

    Each column is divided by its standard deviation among the training points. floor: the mean distance of n real points to
    n others, over PAIRS pairs. Equal seeds give equal new points.
    """

    def __init__(self, data, n, seed=0):
        self.toy, self.scale, self.n, self.seed = data.toy, data.x_train.std(axis=0), n, seed
        self.floor = float(np.mean([self.distance(self.fresh(i, 0), i) for i in range(PAIRS)]))

    def fresh(self, *which):
        return self.toy.sample(self.n, Rng((self.seed, 0, 5, *which)))

    def distance(self, x, which=0):
        """The distance of points x (N, D) to the new points with the number `which`."""
        return sliced_wasserstein(
            to_host(x) / self.scale, self.fresh(which, 1) / self.scale, Rng(self.seed), DIRECTIONS
        )

    def over_floor(self, samples):
        """The mean distance of samples [(N, D), ...], each to its own new points, divided by the floor."""
        return float(np.mean([self.distance(x, i) for i, x in enumerate(samples)]) / self.floor)
