"""Which measure suits the samples of a model depends on the data: it is chosen here, for fit's history and `evaluate`."""

import numpy as np

from ..backend import UsageError
from .coverage import coverage
from .frechet import FrechetJudge
from .transport import ToyJudge

POINTS, PICTURES = 2_500, 2_000  # PacGAN's number of points; as many pictures as take a moment after each epoch


def sample_metrics(data, device="cpu"):
    """measure(model, rng) -> {name: number} for models of a Data, or None if nothing suits.

    Mixtures in the plane: how many modes, how well and how evenly (coverage.py). Other toys: sliced_wasserstein, and
    sliced_wasserstein_floor, that of real points (transport.py). Labelled pictures: frechet, the squared distance of
    samples to training pictures; frechet_floor, that of as many test pictures, at most 2,000 of each; its classifier's
    accuracy; and rarest_class, the smallest share of a class of the data, 0 if one is lost (frechet.py). The classifier
    is trained now, on the device, if it was not before. A model that cannot sample gets {}.
    """
    if data.toy is not None and data.toy.centres is not None and data.toy.n_dim == 2:
        return drawn(POINTS, lambda x: coverage(x, data.toy.centres, data.toy.sigma))
    if data.toy is not None:
        judge = ToyJudge(data, POINTS)
        floor = {"sliced_wasserstein_floor": judge.floor}
        return drawn(POINTS, lambda x: {"sliced_wasserstein": judge.distance(x)} | floor)
    if data.labels_train is None or data.shape is None:
        return None
    judge, n = FrechetJudge(data, device), min(PICTURES, len(data.x_test))
    classes = np.unique(data.labels_train)
    fixed = {"frechet_floor": judge.floor(n), "classifier_accuracy": judge.accuracy}

    def measured(x):
        return {"frechet": judge.distance(x)} | fixed | {"rarest_class": float(judge.classes(x)[classes].min())}

    return drawn(n, measured)


def drawn(n, measured):
    """measure(model, rng): what `measured` finds in n samples."""

    def measure(model, rng):
        try:
            x = model.sample(n, rng)
        except UsageError:
            return {}
        return measured(x)

    return measure
