"""Chooses the measure of a model's samples that suits the data, for fit's history and for `evaluate`."""

from ..backend import UsageError
from .coverage import coverage
from .frechet import FrechetJudge
from .transport import PointsJudge, ToyJudge

POINTS, PICTURES = 2_500, 2_000  # PacGAN's number of points; few enough pictures to be fast after each epoch


def sample_metrics(data, device="cpu"):
    """(measure, left_out): measure(model, rng, epoch) -> {name: number} for models of a Data, or None; why None, or "".

    Mixtures in the plane: how many modes, how accurate and how even (coverage.py). Other points: sliced_wasserstein, and
    sliced_wasserstein_floor, that of real points. A toy is compared with new points, the user's data with the test points
    (transport.py). Labelled pictures: frechet, the squared distance of samples to training pictures; frechet_floor, that of
    as many real pictures, at most 2,000 of each; the errors of both; classifier_accuracy; and rarest_class, the smallest
    share of a class of the data, 0 if one is missing (frechet.py). The classifier is trained now, on the device, if it is
    not in the cache. A measure that would have no meaning, such as for very few pictures, is left out. A model that cannot
    sample gets {}.
    """
    data = data.in_memory()
    if data.toy is not None and data.toy.centres is not None and data.toy.n_dim == 2:
        return measure_of(POINTS, lambda x: coverage(x, data.toy.centres, data.toy.sigma)), ""
    if data.shape is None:
        judge = PointsJudge(data) if data.toy is None else ToyJudge(data, POINTS)
        floor = {"sliced_wasserstein_floor": judge.floor}
        return measure_of(judge.n, lambda x: {"sliced_wasserstein": judge.distance(x)} | floor), ""
    try:
        judge = FrechetJudge(data, device)
    except UsageError as error:  # too few pictures, one class, a classifier that has learned nothing
        return None, str(error)
    n = min(PICTURES, len(data.x_test))
    fixed = judge.floor(n).columns("frechet_floor") | {"classifier_accuracy": judge.accuracy}

    def measured(x):
        return judge.measure(x).columns() | fixed | {"rarest_class": judge.rarest(x)}

    return measure_of(n, measured), ""


def measure_of(n, found_in):
    """A function measure(model, rng, epoch) that returns found_in(x) for n samples x. It does not use epoch."""

    def measure(model, rng, epoch=None):
        try:
            x = model.sample(n, rng)
        except UsageError:
            return {}
        return found_in(x)

    return measure
