"""Which measure suits the samples of a model depends on the data: it is chosen here, for fit's history and `evaluate`."""

from ..backend import UsageError
from .coverage import coverage
from .frechet import FrechetJudge

POINTS, PICTURES = 2_500, 2_000  # PacGAN's number of points; as many pictures as take a moment after each epoch


def sample_metrics(data, device="cpu", n=None):
    """measure(model, rng) -> {name: number} for models of a Data, or None if nothing suits. n: how many samples to draw.

    Mixtures in the plane: how many modes, how well and how evenly (coverage.py). Labelled pictures: frechet, the squared
    distance to training pictures (frechet.py), and rarest_class, the smallest share that a class has, 0 if one is lost; the
    classifier is trained now, on the device, if it was not before. A model that cannot sample gets {}.
    """
    if data.toy is not None and data.toy.centres is not None and data.toy.n_dim == 2:
        return drawn(n or POINTS, lambda x: coverage(x, data.toy.centres, data.toy.sigma))
    if data.labels_train is None or data.shape is None:
        return None
    judge = FrechetJudge(data, device)
    return drawn(n or PICTURES, lambda x: {"frechet": judge.distance(x), "rarest_class": float(judge.classes(x).min())})


def drawn(n, measured):
    """measure(model, rng): what `measured` finds in n samples."""

    def measure(model, rng):
        try:
            x = model.sample(n, rng)
        except UsageError:
            return {}
        return measured(x)

    return measure
