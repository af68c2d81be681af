"""How far a model's pictures are, as a whole, from real ones: the Fréchet distance, in the features of a classifier.

    d²(a, b) = ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)

is the squared 2-Wasserstein distance between the Gaussians of these means and covariances (Dowson & Landau 1982). In a
classifier's features it sees blurred pictures, lost classes and a lack of variety, none of which a loss need show; it does
not see copies of the training pictures. Heusel et al. 2017, eq 6, take the features of a network for photographs (FID). Here
it is models/classifier.py, trained on the data at hand, so these numbers compare only with others of the same classifier:
give its accuracy beside them, and the floor, which is what real pictures score. Fewer samples make a larger distance:
compare equal numbers of them. Of fewer than LEAST pictures no distance is taken.
"""

import hashlib
import json
import math
import re
import sys
import time
from pathlib import Path

import numpy as np

from ..backend import Rng, UsageError, find_device, to_host
from ..data.cache import cache_folder
from ..data.order import fixed_order
from ..models.classifier import Classifier
from ..train.checkpoint import load_model, save_checkpoint
from ..train.fit import fit

SEED = 0  # of the classifier, whatever the seed of the run: runs with other seeds are measured alike
STEPS, EPOCHS = 1500, 8  # its training takes at least so many of each
LEAST = (
    200  # pictures to train on and to test on: of fewer, means and covariances of 32 features or more are mostly chance
)
VERSION = 1  # to be raised when a change elsewhere makes other classifiers out of the same data and settings


def frechet_distance(a, b):
    """The squared distance d² above, of features a (N, F) and b (M, F), covariances with N - 1 and M - 1. In float64.

    nan if a feature is not finite. Raises ValueError for other shapes, or for fewer than two rows.
    """
    a, b = to_host(a).astype(np.float64), to_host(b).astype(np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"frechet_distance: a has shape {a.shape} and b {b.shape}; expected (N, F) and (M, F), N, M >= 2"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    (mu_a, cov_a), (mu_b, cov_b) = mean_and_covariance(a), mean_and_covariance(b)
    # With Σ = R Rᵀ and M = R_aᵀ R_b, M Mᵀ has the eigenvalues of Σ_a Σ_b; so the singular values of M are their roots, and
    # have more digits than roots taken of the eigenvalues would.
    trace = np.linalg.svd(root(cov_a).T @ root(cov_b), compute_uv=False).sum()
    return max(0.0, float(((mu_a - mu_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace))


def mean_and_covariance(a):
    """μ (F,) and the unbiased Σ (F, F) of features a (N, F)."""
    mu = a.mean(axis=0)
    return mu, (a - mu).T @ (a - mu) / (len(a) - 1)


def root(covariance):
    """R (F, F) with R Rᵀ = Σ. Cholesky's would not exist for a singular Σ, and some features are always 0."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def unfit(data):
    """Why the Fréchet distance of this Data's pictures would mean nothing, in a few words, or ""."""
    if data.shape is None:
        return f"the examples of {data.name} are no pictures"
    if data.labels_train is None:
        return f"the pictures of {data.name} have no labels, from which a classifier could learn what to look at"
    for part, x in (("train", data.x_train), ("test", data.x_test)):
        if len(x) < LEAST:
            return f"{data.name} has {len(x)} picture{'s' * (len(x) > 1)} to {part} on, and {LEAST} are needed"
    if len(np.unique(data.labels_train)) < 2:
        return f"the pictures of {data.name} are all of one class, and the classifier needs two"
    return ""


class FrechetJudge:
    """Measures pictures against a Data with labels: their distance to training pictures, and the classes they show.

    accuracy: the fraction of the test pictures that its classifier gets right. device: where the classifier runs, as in
    find_device; pictures may lie anywhere. n_reference: how many training pictures, at most. Raises UsageError for data that
    is `unfit`, and where the classifier reads no more test pictures right than the commonest class has.
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
                f"no Fréchet distance: the classifier reads {self.accuracy:.0%} of the test pictures of {data.name} right, "
                f"and guessing the commonest class {guess:.0%}"
            )
        # Files may be sorted, by class or by difficulty as MNIST's test pictures are: so a part is taken in shuffled order.
        self.reference = self.features(data.x_train[fixed_order(len(data.x_train))[:n_reference]])  # (n_reference, F)

    def features(self, x):
        """The classifier's features of pictures x (N, D): (N, F), on its device."""
        return self.classifier.features(**self.classifier.on_device(x=x))

    def distance(self, x):
        """The squared Fréchet distance of pictures x (N, D) to the training pictures; N >= 2, better thousands."""
        return frechet_distance(self.features(x), self.reference)

    def mean_distance(self, x, n):
        """The mean distance of parts of n pictures each of x (N, D), N being a multiple of n."""
        return float(np.mean([self.distance(part) for part in np.split(x, len(x) // n)]))

    def floor(self, n=None):
        """What real pictures score: the distance of n test pictures, all of them if not given or if there are fewer.

        The bundled digits have 397, a small sample, so that 2,000 good generated ones can score less than this.
        """
        return self.distance(self.data.x_test[fixed_order(len(self.data.x_test))[:n]])

    def classes(self, x):
        """The fraction of pictures x (N, D) that the classifier puts into each class, (n_classes,), of sum 1."""
        labels = self.read(x)
        return np.bincount(labels, minlength=self.classifier.n_classes) / len(labels)

    def rarest(self, x):
        """The smallest share that a class of the training data has among pictures x (N, D), 0 if one is lost."""
        return float(self.classes(x)[self.occurring].min())

    def read(self, x):
        """The class that the classifier takes each picture of x (N, D) for, (N,), on the host."""
        return to_host(self.classifier.predict(**self.classifier.on_device(x=x)))


def accuracy(classifier, data):
    """The fraction of data's test pictures that the classifier gets right."""
    tested = classifier.on_device(x=data.x_test, labels=data.labels_test)
    return float(classifier.evaluate(**tested, rng=None)["accuracy"])


def trained_classifier(data, device="cpu"):
    """The classifier of a Data: read from the cache folder, or else trained, said in one line on stderr, and put there.

    A file that is damaged or holds something else is replaced; a folder that cannot be written is done without. Raises
    UsageError for data without labels or without a picture shape.
    """
    if data.labels_train is None or data.shape is None:
        missing = "are no pictures" if data.shape is None else "have no labels"
        raise UsageError(f"{data.name}: its examples {missing}; the Fréchet distance takes labelled pictures")
    device = find_device(device)  # now, as a GPU that is missing is no fault of the cached file
    settings, epochs = plan(data)
    mark = fingerprint(data, settings, epochs)
    name = re.sub(r"\W+", "_", Path(data.name).stem)[:40]  # for people; it is the fingerprint that counts
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
    found = f"{time.perf_counter() - started:.1f} s once, {accuracy(classifier, data):.1%} of the test pictures right"
    try:
        if path:
            save_checkpoint(path, classifier, fingerprint=mark)
    except UsageError as error:
        found = f"{found}; not kept for the next time: {error}"
    print(f"training the classifier that measures samples of {data.name}: {found}", file=sys.stderr)
    return classifier


def plan(data):
    """The settings of a Data's classifier, and for how many epochs to train it: 10 s for MNIST, 1 s for the digits."""
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
    """A hash of all that makes the classifier what it is: other data, settings or versions never meet it."""
    made_of = hashlib.sha256(json.dumps([VERSION, SEED, epochs, settings]).encode())
    for array in (data.x_train, data.labels_train):
        made_of.update(f"{array.dtype} {array.shape}".encode())
        made_of.update(np.ascontiguousarray(array))
    return made_of.hexdigest()
