"""The Fréchet distance between a set of generated pictures and real ones, in the features of a classifier.

    d²(a, b) = ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)

is the squared 2-Wasserstein distance between the Gaussians with these means and covariances (Dowson & Landau 1982). In a
classifier's features it detects blurred pictures, lost classes and a lack of variety, which a loss may not show. It does not
detect copies of the training pictures. Heusel et al. 2017, eq 6, use the features of a network for photographs (FID). Here
they come from models/classifier.py, trained on the same data. So compare only distances from the same classifier, and report
its accuracy and the floor, which is the distance of real pictures. Fewer samples have a larger distance, so compare equal
numbers of samples. Other samples of the same model have another distance, so each distance has an error. If two differ by
less than their errors together, they cannot be told apart. With fewer than LEAST pictures no distance is computed.
"""

import hashlib
import json
import math
import re
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..backend import Rng, UsageError, cache_folder, find_device, to_host
from ..data.order import fixed_order
from ..models.classifier import Classifier
from ..train.checkpoint import load_model, save_checkpoint
from ..train.fit import fit

SEED = 0  # of the classifier, for every run's seed, so that all runs are measured in the same way
STEPS, EPOCHS = 1500, 8  # its training takes at least this many of each
LEAST = 200  # pictures in each part: with fewer, means and covariances of 32 or more features are mostly chance
DRAWS = 50  # of real pictures, for the floor
GROUPS = 10  # of the jackknife
VERSION = 1  # increase it if a change elsewhere gives other classifiers for the same data and settings


def frechet_distance(a, b):
    """The squared distance d² above between features a (N, F) and b (M, F). Covariances divide by N - 1 and M - 1. float64.

    nan if a feature is not finite. Raises ValueError for other shapes, or for fewer than two rows.
    """
    a, b = to_host(a).astype(np.float64), to_host(b).astype(np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"frechet_distance: a has shape {a.shape} and b {b.shape}; expected (N, F) and (M, F), N, M >= 2"
        )
    return between(gaussian(a), gaussian(b))


def gaussian(a):
    """(μ, Σ, R) of features a (N, F) in float64: μ (F,), the unbiased Σ (F, F), and R of `root`. None if one is not finite.

    Raises ValueError for fewer than two rows.
    """
    if len(a) < 2:
        raise ValueError(f"a covariance of features {a.shape}: expected (N, F), N >= 2")
    if not np.isfinite(a).all():
        return None
    mu = a.mean(axis=0)
    covariance = (a - mu).T @ (a - mu) / (len(a) - 1)
    return mu, covariance, root(covariance)


def between(a, b):
    """d² of two Gaussians, as `gaussian` gives them; nan if one of them is None."""
    if a is None or b is None:
        return math.nan
    (mu_a, cov_a, root_a), (mu_b, cov_b, root_b) = a, b
    # With Σ = R Rᵀ and M = R_aᵀ R_b, M Mᵀ has the eigenvalues of Σ_a Σ_b. So the singular values of M are their roots. They
    # have more correct digits than roots of computed eigenvalues.
    trace = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    return max(0.0, float(((mu_a - mu_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace))


def root(covariance):
    """R (F, F) with R Rᵀ = Σ. Cholesky fails for a singular Σ, and some features are always 0."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def unfit(data):
    """A short reason why the Fréchet distance would have no meaning for this Data's pictures, or ""."""
    if data.shape is None:
        return f"the examples of {data.name} are not pictures"
    if data.labels_train is None:
        return f"the pictures of {data.name} have no labels, which the classifier must learn from"
    for part, x in (("train", data.x_train), ("test", data.x_test)):
        if len(x) < LEAST:
            return f"{data.name} has {len(x)} picture{'s' * (len(x) > 1)} to {part} on, but {LEAST} are needed"
    if len(np.unique(data.labels_train)) < 2:
        return f"the pictures of {data.name} are all of one class, but the classifier needs two"
    return ""


class Distance(NamedTuple):
    """A squared Fréchet distance, and how much it varies from one set of n pictures to the next (standard deviation)."""

    mean: float
    error: float

    def columns(self, name="frechet"):
        """{column of a history: number}: the two numbers as `name` and `name`_error."""
        return {name: self.mean, f"{name}_error": self.error}

    def __str__(self):
        digits = 2 if self.mean < 10 else 1 if self.mean < 100 else 0
        return f"{self.mean:.{digits}f} ± {self.error:.{digits}f}"

    def differs(self, other):
        """Whether two distances can be told apart: they differ by more than both errors together, √(error² + error²)."""
        return abs(self.mean - other.mean) > math.hypot(self.error, other.error)


class FrechetJudge:
    """Compares pictures with a labelled Data: their distance to training pictures, and the classes they show.

    accuracy: the fraction of the test pictures that its classifier classifies correctly. device: where the classifier runs,
    as in find_device; pictures may be on any device. n_reference: the greatest number of training pictures. Raises
    UsageError for data that is `unfit`, and if the classifier is no better than always guessing the most frequent class.
    """

    def __init__(self, data, device="cpu", n_reference=10_000):
        if reason := unfit(data):
            raise UsageError(f"no Fréchet distance: {reason}")
        self.data, self.classifier = data, trained_classifier(data, device)
        self.accuracy = accuracy(self.classifier, data)
        self.occurring = np.unique(data.labels_train)  # labels may have gaps
        guess = np.unique(data.labels_test, return_counts=True)[1].max() / len(data.labels_test)
        if self.accuracy <= guess + 2 * math.sqrt(guess * (1 - guess) / len(data.labels_test)):  # two standard errors
            raise UsageError(
                f"no Fréchet distance: the classifier gets {self.accuracy:.0%} of the test pictures of {data.name} right, "
                f"and guessing the most frequent class gets {guess:.0%}"
            )
        # Files may be sorted by class, or by difficulty like MNIST's test pictures. So parts are taken in shuffled order.
        self.reference = self.features(data.x_train[fixed_order(len(data.x_train))[:n_reference]])  # (n_reference, F)
        self.floors = {}  # {n: Distance}, once computed

    def features(self, x):
        """The classifier's features of pictures x (N, D): (N, F), on its device."""
        return self.classifier.features(**self.classifier.on_device(x=x))

    def distance(self, x):
        """The squared Fréchet distance of pictures x (N, D) to the training pictures; N >= 2, better thousands."""
        return self.to_reference(to_host(self.features(x)))

    def to_reference(self, features):
        """The squared distance of features (N, F), on the host, to those of the training pictures."""
        return between(gaussian(features.astype(np.float64)), self.fitted)

    @cached_property
    def fitted(self):
        """The Gaussian of the training pictures' features, fitted once."""
        return gaussian(to_host(self.reference).astype(np.float64))

    def measure(self, x, n=None):
        """The Distance of pictures x (N, D), taken in parts of n; N is a multiple of n. Without n, x is the only part.

        Several parts give their mean and standard deviation. The error of a single part comes from the jackknife: with one
        of GROUPS groups left out at a time, √((GROUPS - 1) / GROUPS Σ (d_i - mean d)²) (Efron & Stein 1981).
        """
        features = to_host(self.features(x))
        parts = np.split(features, len(x) // (n or len(x)))
        found = [self.to_reference(part) for part in parts]
        if len(parts) > 1:
            return Distance(float(np.mean(found)), float(np.std(found, ddof=1)))
        shuffled = features[fixed_order(len(x))]  # real pictures may be in an order
        groups = np.arange(len(x)) * GROUPS // len(x)
        without = [self.to_reference(shuffled[groups != group]) for group in range(GROUPS)]
        return Distance(found[0], math.sqrt((GROUPS - 1) * np.var(without)))

    @cached_property
    def real(self):
        """The features of all real pictures, for training and test, in a fixed order."""
        both = [to_host(self.features(x)) for x in (self.data.x_train, self.data.x_test)]  # smaller than the pictures
        features = np.concatenate(both)
        return features[fixed_order(len(features))]

    def floor(self, n=None):
        """The Distance that n real pictures have: the best that n samples can reach, but for luck.

        DRAWS times, n of all real pictures are drawn and compared with as many of the others as the judge has for reference.
        n is at most the number of test pictures, which is also its value if it is not given.
        """
        n, size = min(n or len(self.data.x_test), len(self.data.x_test)), len(self.reference)
        if n not in self.floors:
            orders = [fixed_order(len(self.real), draw) for draw in range(DRAWS)]
            found = [frechet_distance(self.real[order[:n]], self.real[order[n : n + size]]) for order in orders]
            self.floors[n] = Distance(float(np.mean(found)), float(np.std(found, ddof=1)))
        return self.floors[n]

    def classes(self, x):
        """The fraction of pictures x (N, D) that the classifier puts into each class, (n_classes,). The sum is 1."""
        labels = self.read(x)
        return np.bincount(labels, minlength=self.classifier.n_classes) / len(labels)

    def rarest(self, x):
        """The smallest share that a class of the training data has among pictures x (N, D), 0 if a class is missing."""
        return float(self.classes(x)[self.occurring].min())

    def read(self, x):
        """The class that the classifier gives to each picture of x (N, D): (N,), on the host."""
        return to_host(self.classifier.predict(**self.classifier.on_device(x=x)))

    def sure(self, x):
        """The fraction of pictures x (N, D) of whose class the classifier is at least 90 % sure."""
        return float((self.classifier.probabilities(**self.classifier.on_device(x=x)).max(axis=1) >= 0.9).mean())


def accuracy(classifier, data):
    """The fraction of data's test pictures that the classifier classifies correctly."""
    tested = classifier.on_device(x=data.x_test, labels=data.labels_test)
    return float(classifier.evaluate(**tested, rng=None)["accuracy"])


def trained_classifier(data, device="cpu"):
    """The classifier of a Data, read from the cache folder; or else trained, with one line on stderr, and saved there.

    A file that is damaged or holds something else is replaced. If the folder cannot be written, nothing is saved. Raises
    UsageError for data without labels or without a picture shape.
    """
    if data.labels_train is None or data.shape is None:
        missing = "are not pictures" if data.shape is None else "have no labels"
        raise UsageError(f"{data.name}: its examples {missing}; the Fréchet distance needs labelled pictures")
    device = find_device(device)  # first, because a missing GPU is not a fault of the cached file
    settings, epochs = plan(data)
    mark = fingerprint(data, settings, epochs)
    name = re.sub(r"\W+", "_", Path(data.name).stem)[:40]  # for people to read; the fingerprint decides
    folder = cache_folder("classifiers")
    path = folder and folder / f"{name}-{mark[:16]}.npz"
    if path:
        try:
            classifier, notes = load_model(path, device)
            if notes.get("fingerprint") == mark:
                return classifier
        except UsageError:
            pass  # none yet, or a damaged one

    started, classifier = time.perf_counter(), Classifier(**settings).build(Rng(SEED, device=device))
    fit(classifier, data.x_train, labels=data.labels_train, epochs=epochs, seed=SEED)
    found = f"{time.perf_counter() - started:.1f} s once, {accuracy(classifier, data):.1%} of the test pictures correct"
    try:
        if path:
            save_checkpoint(path, classifier, fingerprint=mark)
    except UsageError as error:
        found = f"{found}; not saved for the next time: {error}"
    print(f"training the classifier that measures samples of {data.name}: {found}", file=sys.stderr)
    return classifier


def plan(data):
    """The settings of a Data's classifier and the number of epochs to train it: 10 s for MNIST, 1 s for the digits."""
    n, n_features = data.x_train.shape
    batch = min(64, n)
    epochs = max(EPOCHS, STEPS // (n // batch))
    return {
        "n_features": n_features,
        "n_classes": data.n_classes,
        "hidden": (128, 32) if n_features <= 256 else (256, 64),
        "batch": batch,
        "decay_steps": epochs * (n // batch),
    }, epochs


def fingerprint(data, settings, epochs):
    """A hash of everything that determines the classifier: other data, settings or versions have another one."""
    made_of = hashlib.sha256(json.dumps([VERSION, SEED, epochs, settings]).encode())
    for array in (data.x_train, data.labels_train):
        made_of.update(f"{array.dtype} {array.shape}".encode())
        made_of.update(np.ascontiguousarray(array))
    return made_of.hexdigest()
