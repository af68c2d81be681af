"""explore: write a page on which one drags through the codes or the noise of a trained model."""

import pathlib

from ..backend import UsageError, written_whole
from ..train.checkpoint import load_model
from ..uses.explore import explore
from .shared import data_of, scale_of


def run(args):
    path = pathlib.Path(args.o)
    if path.suffix not in (".html", ".htm"):
        raise UsageError(f"-o {args.o}: expected a name that ends in .html")
    model, notes = load_model(pathlib.Path(args.dir) / "checkpoint.npz")
    try:
        data = data_of(notes, args.data)
    except UsageError:
        if args.data or "shape" not in notes:  # an older checkpoint does not contain the shape of its examples
            raise
        data = None
    page = explore(
        model,
        x=data and data.x_test,
        labels=data and data.labels_test,
        shape=notes.get("shape", data and data.shape),
        columns=notes.get("columns"),
        scale=scale_of(notes),
        title=f"{type(model).__name__} trained on {pathlib.Path(notes['data']).stem if 'data' in notes else 'other data'}",
    )
    with written_whole(path, "w") as file:
        file.write(page)
    print(path)
