"""The log-likelihood of new data under a model: log p(x) in nats per example, exact or estimated, with its error.

    exact          MADE, a mixture, a normalizing flow: they have a log_prob
    noise          a flow of pixels: the mean of log p over draws of the noise in their grey levels, which is a bound
    masks          masked diffusion: the mean of its bound over random masks
    importance     a VAE: log p(x) = log E_q[w], w = p(x, z) / q(z|x), by the mean of k draws of w (Burda et al. 2015, eq 8)
    grid           an energy of points in the plane: -E(x) - log Z, with log Z by a sum over cells (models/ebm.py)
    ODE            diffusion and flow matching: the integral of a divergence (models/parts/ode.py), up to the solver's error
    annealed       an RBM: -F(x) - log Z, with an estimate of log Z; a DBN: its bound, with the same (annealed.py)
    Parzen         any model: its samples as the centres of Gaussians of one σ (Goodfellow et al. 2014, section 5)

The logarithm of a mean of k draws is on average below log p(x), by about var(w) / (2 k E[w]²). It never decreases with k. So
a VAE's number is a bound in expectation. An estimate of log Z is also too low on average. This makes an RBM's likelihood too
high, and may lift a DBN's bound above log p. Do not trust it if the effective sample size is below ten. Densities of grey
pixels cannot be compared with probabilities of black and white pixels. Pixels binarized at random cannot be compared with
pixels rounded at a half. So every result says how its pixels were made.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..backend import UsageError, array_module, to_host
from ..data import fixed_order
from ..models.dbn import DBN
from ..models.ebm import CELLS
from ..models.rbm import RBM
from ..nn.layers import log_sum_exp
from ..train.progress import told
from .annealed import annealed_log_z

SIGMAS = tuple(np.logspace(-1, 0, 10))  # those of Goodfellow et al. 2014
ROWS = 1_000  # rows that a decoder or a distance handles at once, so that memory does not grow with k
STEPS = 100  # of the ODE; it is solved again with half of them, to see the error
EXAMPLES = 100  # of the test data, for the ODE
NOISY = "with noise as wide as a level"
PLANE, PICTURE = 3, 100  # up to so many numbers per example the ODE is always solved, or only if it is asked for


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p(x) of each example, and how it was found.

    log_p: (N,) float64 in nats. error: (N,), the error of each: 0 if it is exact, the standard error of an estimate, or how
    much half of an ODE's steps, or of a grid's cells, change it. shared: the standard error that all have in common, that of
    log Z. method: "exact", ... pixels: how they were made black and white, or "as they are".
    """

    log_p: np.ndarray
    error: np.ndarray
    method: str
    pixels: str
    shared: float = 0.0

    @property
    def nll(self):
        """The mean of -log p(x)."""
        return -float(self.log_p.mean())

    @property
    def standard_error(self):
        """The standard error of nll, from the choice of the N examples and from `shared`; nan for one example."""
        n = len(self.log_p)
        return math.hypot(float(self.log_p.std(ddof=1)) / math.sqrt(n), self.shared) if n > 1 else math.nan

    @property
    def chance(self):
        """The part of nll's standard error that comes from the estimate: the same examples, but other draws."""
        return math.hypot(float(np.sqrt((self.error**2).sum())) / len(self.error), self.shared)

    def __str__(self):
        chance = f", of which from the estimate {self.chance:.2g}" if self.chance > 0 else ""
        n = f"{len(self.log_p):,} examples, pixels {self.pixels}"
        return f"{self.nll:.2f} ± {self.standard_error:.2f} nats{chance} ({self.method}; {n})"


def black_and_white(model, x, rng, pixels=None):
    """x with pixels that suit the model, and a description of how they were made.

    For a model of black and white pixels, each grey pixel is drawn once, by this rng, as 1 with the probability of its grey
    value. If the description `pixels` is given, x does not change.
    """
    if pixels is not None:
        return x, pixels
    bits = isinstance(model, RBM) or getattr(model, "n_values", 0) == 2
    if not bits and getattr(model, "likelihood", "") != "bernoulli":
        return x, "as they are"
    if ((x == 0) | (x == 1)).all():
        return x, "black and white as given"
    return rng.bernoulli(x), "binarized by chance, once"


def exact(model, x, rng, pixels=None, labels=None):
    """The Likelihood of x (N, D) under a model that has log_prob(x); of x given its labels (N,), if these are given."""
    x, pixels = black_and_white(model, x, rng, pixels)
    log_p = to_host(model.log_prob(x) if labels is None else model.log_prob(x, labels)).astype(np.float64)
    return Likelihood(log_p, np.zeros(len(x)), "exact" if labels is None else "exact, given the labels", pixels)


def with_noise(model, x, rng, k=100, labels=None):
    """The Likelihood whose log_p is a bound, for pixels x (N, D) and a flow of grey levels: models/parts/levels.py.

    It is the mean over k draws of the noise that is as wide as a level. labels (N,): then it is a bound given these.
    """
    D, L, extra = x.shape[1], model.levels, () if labels is None else (labels,)
    draws = [to_host(model.log_prob(model.dequantised(x, rng), *extra)) for _ in told(range(k), "noise, draw")]
    log_p, error = mean_and_error(np.stack(draws).astype(np.float64) - D * math.log(L))
    method = f"exact for x with noise, {k:,} draws of it" + given(labels)
    return Likelihood(log_p, error, method + in_bits(log_p, D, L), NOISY)


def by_masks(model, x, rng, k=100, pixels=None):
    """The Likelihood whose log_p is a bound, for x (N, D) and a masked diffusion: the mean over k random masks of each x."""
    x, pixels = black_and_white(model, x, rng, pixels)
    draws = [to_host(model.log_bound(x, rng)) for _ in told(range(k), "masks, draw")]
    return Likelihood(*mean_and_error(np.stack(draws).astype(np.float64)), f"bound, {k:,} random masks", pixels)


def in_bits(log_p, D, L):
    """What to add to a method for pixels of L grey levels, whose log_p (N,) is a bound; "" without levels."""
    return f"; a bound, {-log_p.mean() / (D * math.log(2)):.3g} bits per pixel of {L} levels" if L else ""


def importance(model, x, rng, k=5_000, pixels=None, labels=None):
    """The Likelihood of x (N, D) under a VAE, by k draws of z for each x; of x given its labels (N,), if these are given.

    x and labels are on the model's device. The standard error of log ŵ, ŵ = 1/k Σ w_i, is that of ŵ divided by ŵ:
    √(Σ (w_i / ŵ - 1)²) / k. It is too small if a few draws have nearly all the weight. Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"importance: k must be 1 or more, got {k}")
    x, pixels = black_and_white(model, x, rng, pixels)
    parts = told(
        [slice(i, i + max(1, ROWS // k)) for i in range(0, len(x), max(1, ROWS // k))], "importance weights, part"
    )
    found = [sums(model, x[part], k, rng, of(labels, part)) for part in parts]
    log_p, error = np.concatenate([to_host(log_p) for log_p, _ in found]), [to_host(error) for _, error in found]
    method = f"importance-weighted, {k:,} draws of z" if k > 1 else "ELBO, one draw of z"
    return Likelihood(log_p, np.concatenate(error), method + given(labels), pixels)


def of(labels, part):
    """The labels of a part of the examples, or None if there are none."""
    return None if labels is None else labels[part]


def given(labels):
    """What to add to a method if labels are given."""
    return "" if labels is None else "; given the labels"


def sums(model, x, k, rng, labels=None):
    """log 1/k Σ w and its standard error, both (N,), from k draws for each x, at most ROWS at a time, in float64."""
    xp = array_module(x)
    once, twice = [], []  # log Σ w and log Σ w² of each part
    for start in range(0, k, ROWS):
        log_w = model.log_weights(x, min(ROWS, k - start), rng, labels).astype(np.float64)  # (part, N)
        once.append(log_sum_exp(log_w, 0))
        twice.append(log_sum_exp(2 * log_w, 0))
    once, twice = (log_sum_exp(xp.stack(parts), 0) for parts in (once, twice))
    share = xp.exp(twice - 2 * once)  # Σ w² / (Σ w)²: 1/k if all weights are equal, 1 if one has all the weight
    error = xp.sqrt(xp.maximum(share - 1 / k, 0)) if k > 1 else share * math.nan  # one draw shows no spread
    return once - math.log(k), error


def annealed(model, x, z, rng, pixels=None):
    """The Likelihood of x (N, D) under an RBM, or a DBN's bound on it, from an annealed.Estimate z of log Z."""
    x, pixels = black_and_white(model, x, rng, pixels)
    method = f"log Z annealed, {len(z.log_weights):,} chains, {z.n_betas:,} temperatures, "
    method += f"effective sample size {z.effective_sample_size:.0f}"
    if isinstance(model, DBN):
        draws = to_host(model.bound_draws(x, z.log_z, rng)).astype(np.float64)
        return Likelihood(*mean_and_error(draws), f"bound, {method}", pixels, z.standard_error)
    log_p = to_host(model.log_p(x, z.log_z)).astype(np.float64)
    return Likelihood(log_p, np.zeros(len(x)), method, pixels, z.standard_error)


def mean_and_error(draws):
    """The mean of draws (k, N) over k, and its standard error, both (N,); nan for k = 1."""
    k = len(draws)
    error = draws.std(axis=0, ddof=1) / math.sqrt(k) if k > 1 else np.full(draws.shape[1], math.nan)
    return draws.mean(axis=0), error


def negative_elbo(model, x, rng, k=100, pixels=None, labels=None):
    """The Likelihood whose log_p is the ELBO of each x (N, D): the mean of k draws of log w. labels: see importance."""
    x, pixels = black_and_white(model, x, rng, pixels)
    rows = max(1, ROWS // k)
    log_w = [
        to_host(model.log_weights(x[i : i + rows], k, rng, of(labels, slice(i, i + rows)))).astype(np.float64)
        for i in told(range(0, len(x), rows), "ELBO, part")
    ]
    return Likelihood(*mean_and_error(np.concatenate(log_w, axis=1)), f"ELBO, {k:,} draws of z{given(labels)}", pixels)


def parzen(samples, x, sigma, pixels="as they are"):
    """The Likelihood of x (N, D) under 1/M Σ_m N(x; samples_m, σ² I), samples (M, D) of a model.

    This is a weak measure (Theis et al. 2016): it depends more on the number of samples and on σ than on the model. Even
    training pictures can have a lower value than a bad model. It is here because the first GAN papers report it.
    """
    samples, x = to_host(samples).astype(np.float64), to_host(x).astype(np.float64)
    if samples.ndim != 2 or x.ndim != 2 or samples.shape[1] != x.shape[1]:
        raise ValueError(f"parzen: samples has shape {samples.shape} and x {x.shape}; expected (M, D) and (N, D)")
    if not sigma > 0:
        raise ValueError(f"parzen: sigma must be > 0, got {sigma}")
    M, D = samples.shape
    constant = -math.log(M) - 0.5 * D * math.log(2 * math.pi * sigma**2)
    log_p, norms = [], (samples * samples).sum(axis=1)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        squares = (part * part).sum(axis=1)[:, None] + norms - 2 * part @ samples.T  # (rows, M)
        log_p.append(constant + log_sum_exp(-0.5 / sigma**2 * np.maximum(squares, 0), 1))
    method = f"Parzen window of {M:,} samples, σ = {sigma:.3g}"
    return Likelihood(np.concatenate(log_p), np.zeros(len(x)), method, pixels)


def best_sigma(samples, x_valid, sigmas=SIGMAS):
    """The σ under which x_valid (N, D), data kept for this choice, is most probable. Goodfellow et al. 2014."""
    return max(sigmas, key=lambda sigma: parzen(samples, x_valid, sigma).log_p.mean())


def by_ode(model, x, rng, labels=None, n_steps=STEPS):
    """The Likelihood of x (N, D) under a model that has ode_log_prob; of x given its labels (N,), if these are given.

    With grey levels, x gets noise as wide as a level, and log_p is a bound on the log-probability of the picture:
    models/parts/levels.py says why. Raises UsageError as check_ode does.
    """
    D, L = x.shape[1], model.levels
    check_ode(model, D)
    x = model.dequantised(x, rng)
    fine, coarse = (to_host(model.ode_log_prob(x, n, labels)).astype(np.float64) for n in (n_steps, n_steps // 2))
    error, log_p = abs(fine - coarse), fine - D * math.log(max(L, 1))
    method = f"ODE, rk4, {n_steps} steps; with {n_steps // 2} it differs by {error.mean():.1g}"
    return Likelihood(log_p, error, method + given(labels) + in_bits(log_p, D, L), NOISY if L else "as they are")


def by_grid(model, x, n_cells=CELLS):
    """The Likelihood of points x (N, D), D <= 2, under a model that has grid_log_prob."""
    fine, coarse = (to_host(model.grid_log_prob(x, n)).astype(np.float64) for n in (n_cells, n_cells // 2))
    error = abs(fine - coarse)
    method = f"log Z by a grid of {n_cells} cells along each axis; with {n_cells // 2} it differs by {error.mean():.1g}"
    return Likelihood(fine, error, method, "as they are")


def check_ode(model, D):
    """Raise UsageError if by_ode would take too long for D numbers per example, or if the model has no density of them."""
    if D > PICTURE:
        cost = f"these have {D}, which would take {passes(D):,} passes of the network"
        raise UsageError(f"log p by the ODE is for at most {PICTURE} numbers per example; {cost}")
    if D > PLANE and model.data_range and not model.levels:
        raise UsageError("log p of pictures needs noise in their grey levels: train with levels=17 for digits")
    model.check_density()


def passes(D, n_steps=STEPS):
    """How many passes of the network by_ode takes for examples of D numbers."""
    return 4 * D * (n_steps + n_steps // 2)


def log_likelihood(model, x, rng, draws=100, pixels=None, labels=None, asked=False):
    """The Likelihood of x (N, D), on the model's device, by the method that suits the model; None for one without p(x).

    An ODE is solved for at most EXAMPLES of the x, and for points in the plane only, unless it is asked for. labels: see
    by_ode.
    """
    if hasattr(model, "ode_log_prob"):
        rows = array_module(x).asarray(fixed_order(len(x))[:EXAMPLES])
        if not asked and x.shape[1] > PLANE:
            return None
        try:
            return by_ode(model, x[rows], rng, of(labels, rows))
        except UsageError:
            if asked:
                raise
            return None
    if hasattr(model, "grid_log_prob"):
        return by_grid(model, x) if x.shape[1] <= 2 else None
    if hasattr(model, "log_weights"):
        return importance(model, x, rng, draws, pixels, labels)
    if hasattr(model, "log_bound"):
        return by_masks(model, x, rng, draws, pixels)
    if hasattr(model, "log_prob") and getattr(model, "levels", 0):
        return with_noise(model, x, rng, draws, labels)
    if hasattr(model, "log_prob"):
        return exact(model, x, rng, pixels, labels)
    if isinstance(model, RBM):  # a DBN is one too
        return annealed(model, x, annealed_log_z(model, rng, n_betas=10_000), rng, pixels)
    return None


def likelihood_metrics(model, x, rng, draws=100, labels=None, asked=False):
    """{name: value} about log p of test data x (N, D), for `evaluate`; {} for a model without p(x).

    log_p: its mean in nats. log_p_error: its standard error, including that of log Z. log_p_method: how it was computed, and
    how the pixels were made. labels, asked: see log_likelihood.
    """
    if (found := log_likelihood(model, x, rng, draws, labels=labels, asked=asked)) is None:
        return {}
    method = f"{found.method}; pixels {found.pixels}"
    known = {"log_p_error": found.standard_error} if len(x) > 1 else {}  # JSON has no nan
    return {"log_p": -found.nll} | known | {"log_p_method": method}
