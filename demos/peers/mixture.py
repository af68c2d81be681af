"""EM of a Gaussian mixture, ours and scikit-learn's: the same number of iterations on the same data from the same start."""

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
from peers.contestants import KERNELS, OURS, SKLEARN, hold_kernels

from scratchgen.backend import Rng
from scratchgen.models.gmm import GMM
from scratchgen.train.threads import blas_threads


@dataclass
class Mixture:
    name: str = "EM, 10 Gaussians in 32 dimensions, 20 iterations"
    n: int = 10_000
    n_components: int = 10
    n_features: int = 32
    iterations: int = 20
    floor: float = 1e-6

    def data(self, dtype="float32"):
        """(x (n, n_features) in overlapping clusters, the built GMM at its start)."""
        rng = Rng(0, dtype)
        centres = rng.normal((self.n_components, self.n_features))
        x = centres[rng.integers(self.n_components, self.n)] + rng.normal((self.n, self.n_features))
        model = GMM(self.n_features, self.n_components, floor=self.floor).build(rng)
        model.prepare(x, rng)
        return x, model


def ours(case, dtype="float32", compiled=False):
    """(step, synchronise, model). A step makes all iterations from the start, with one thread: fit does so at this size."""
    hold_kernels(compiled)
    x, model = case.data(dtype)
    rng, start = model.rng(1), {name: array.copy() for name, array in model.state().items()}

    def step():
        model.load_state(start)
        with blas_threads(1):
            for _ in range(case.iterations):
                model.train_step(x, rng)

    return step, lambda: None, model


def scikit_learn(case, dtype="float32"):
    """The same. It makes one more E step at the end, and adds reg_covar to the variances in place of a floor."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    warnings.simplefilter("ignore", ConvergenceWarning)  # tol=0: all iterations are made
    x, model = case.data(dtype)
    theirs = GaussianMixture(
        case.n_components, tol=0, reg_covar=case.floor, max_iter=case.iterations, warm_start=True, init_params="random"
    )
    P = np.tril(model.gaussians.P)
    start = {
        "weights_": np.exp(model.gaussians.log_pi()),
        "means_": model.gaussians.mu.copy(),
        "precisions_cholesky_": P,  # Σ⁻¹ = P Pᵀ, only the triangle is the other one
        "covariances_": np.linalg.inv(P @ P.swapaxes(1, 2)),
        "converged_": False,
        "lower_bound_": -np.inf,
    }

    def step():
        vars(theirs).update(start)  # with warm_start, fit goes on from here and makes no start of its own
        theirs.fit(x)

    return step, lambda: None, theirs


def prepare(function, case, **options):
    return function(case, **options)[:2]


def contestants(case):
    return {
        OURS: partial(prepare, ours, case),
        KERNELS: partial(prepare, ours, case, compiled=True),
        SKLEARN: partial(prepare, scikit_learn, case),
    }
