"""What several commands need: find the data of a model, and print numbers with their units."""

from ..backend import UsageError
from ..data import load
from ..metrics.meanings import meaning


def show(found):
    """Print numbers and words with their names, their units, and whether lower or higher is better."""
    for name, value in found.items():
        value = value if isinstance(value, str) else f"{value:.5g}"
        print(f"  {name:<25} {value:<12} {meaning(name)}".rstrip())


def data_of(notes, given=None):
    """The Data that a model was trained on, or the given data. Raises UsageError if it cannot be loaded or does not fit."""
    if given is None and "data" not in notes:
        raise UsageError(f"the checkpoint of this {notes['model']} does not name its data; give the data with --data")
    try:
        data = load(given or notes["data"], notes.get("seed", 0))
    except UsageError as error:
        raise UsageError(f"{error}" if given else f"{error}; if the data has moved, give it with --data") from None
    width, known = data.x_train.shape[1], notes["settings"].get("n_features")
    if known not in (None, width):
        remedy = "put back the data it was trained on, or give it with --data"
        raise UsageError(
            f"{data.name}: has {width} numbers per example, but the model was trained on {known}; {remedy}"
        )
    return data
