"""The epoch loop: shuffled batches, a progress bar, a history, a checkpoint after every epoch, and resume.

Epoch e draws everything (its order of the data, its noise) from a fresh Rng((seed, e)). So no generator state needs saving:
an epoch that was killed half-way is simply run again from the last checkpoint, and gives the same weights bit for bit.
"""

import contextlib
import math
import time
from functools import partial

import numpy as np

from .backend import UsageError, array_module, to_host
from .data import batches
from .graph import CapturedStep
from .model import accepted, call, needs
from .progress import Progress
from .run import Run

READ_EVERY = 50  # steps between two looks at the losses: each look makes a GPU wait


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with a message that says what is saved and how to go on."""


def fit(
    model,
    x,
    *,
    epochs,
    labels=None,
    x_test=None,
    labels_test=None,
    seed=0,
    out=None,
    resume=False,
    progress=True,
    on_epoch=None,
    measure=None,
    notes=None,
    graph=False,
):
    """Train a built model until it has seen `epochs` passes over x (N, n_features), without each pass's incomplete batch.

    x, labels (N,), x_test, labels_test: NumPy arrays, moved to the model's device once. out: a folder for checkpoint.npz
    and history.csv. resume: go on from out's checkpoint; the settings must be the same. on_epoch(model, row): called after
    each epoch. measure(model, rng), or with epoch too: {name: number} to stand beside the losses, called after each epoch.
    notes: JSON values to keep in the checkpoint. graph: record the training step as a CUDA graph (graph.py): faster for
    small models on a GPU, and the same numbers. Returns the history, a list of {column: number}: means of the losses over
    the epoch in nats per example, seconds, and model.evaluate(x_test) under test_ names.

    Raises UsageError for epochs < 0, a batch larger than the data, data the model cannot take, a folder that holds
    another run or cannot be written, and a loss that stops being finite; Stopped on Ctrl-C.
    """
    if epochs < 0:
        raise UsageError(f"epochs must be >= 0, got {epochs}")
    model.check_data(x, labels)
    if labels is None and needs(model.train_step, "labels"):
        raise UsageError(f"a {type(model).__name__} learns from labels, and this data has none")
    if x_test is not None and labels_test is None and needs(model.evaluate, "labels"):
        raise UsageError(
            f"a {type(model).__name__} is tested on labels, and these test data have none: give labels_test"
        )
    rows = model.rows or len(x)
    batches(len(x), rows, model.rng(seed))  # complains of the sizes now, before anything is written
    captured = CapturedStep(model, model.rng(seed)) if graph else None  # complains where there is no GPU
    run = Run(out, resume, model, epochs, {"seed": seed} | (notes or {}))
    given, tested = model.on_device(x=x, labels=labels), model.on_device(x=x_test, labels=labels_test)
    if not resume and not model.has_stepped():
        with np.errstate(all="ignore"):  # as below
            call(model.prepare, rng=model.rng((seed, 0, 4)), **given)
    run.save(model, run.epoch)
    bar = Progress((epochs - run.epoch) * (len(x) // rows), epochs, progress)
    # NumPy's warnings are silenced because the losses are looked at here, which says more.
    with bar, blas_threads(model), np.errstate(all="ignore"):
        try:
            for epoch in range(run.epoch + 1, epochs + 1):
                started = time.perf_counter()
                means = _train_epoch(model, given, seed, epoch, bar, run, captured)
                row = {"epoch": epoch, "seconds": round(time.perf_counter() - started, 3)} | means
                if x_test is not None:
                    row |= _test(model, tested, seed, epoch, run)
                if measure:
                    row |= call(measure, model=model, rng=model.rng((seed, epoch, 3)), epoch=epoch)
                run.add(row)
                run.save(model, epoch)
                bar.epoch(row)
                if on_epoch:
                    on_epoch(model, row)
        except KeyboardInterrupt:
            raise Stopped(f"stopped in epoch {run.epoch + 1}: {run.how_to_resume()}") from None
    return run.history


def _train_epoch(model, given, seed, epoch, bar, run, captured):
    """One pass over the data; returns {name: mean loss}. given: {argument name: array (N, ...) on the device}."""
    rng = model.rng((seed, epoch))
    n = len(given["x"])
    rows = model.rows or n
    n_steps, seen, recent = n // rows, {}, []
    given = accepted(model.train_step, given)
    train_step = captured or partial(model.train_step, rng=rng)
    if captured:
        captured.draw_from(rng)
    for step, chosen in enumerate(batches(n, rows, rng), 1):
        recent.append(train_step(**{name: array[chosen] for name, array in given.items()}))
        if step % READ_EVERY == 0 or step == n_steps:
            _read(recent, seen, model, epoch, step - len(recent), run)
            latest = {name: float(np.mean(values[-len(recent) :])) for name, values in seen.items()}
            bar.complain(model.complaint(latest), epoch, step)
            means = {name: float(np.mean(values, dtype=np.float64)) for name, values in seen.items()}
            bar.steps(len(recent), means)
            recent = []
    return means


def _test(model, tested, seed, epoch, run):
    """{test_name: number} of what model.evaluate finds on the test data. tested: {argument name: array (N, ...)}."""
    found = call(model.evaluate, rng=model.rng((seed, epoch, 1)), **tested)
    row = {f"test_{name}": float(value) for name, value in found.items()}
    for name, value in row.items():
        if math.isnan(value):
            raise UsageError(f"{name} became nan in epoch {epoch}; {_remedy(model, run)}")
    return row


def _read(recent, seen, model, epoch, before, run):
    """Append the recent steps' losses to seen, {name: [numbers]}. Raises UsageError at the first that is not finite.

    recent: a dict for each step; not every step need have every loss. One transfer a name.
    """
    xp = array_module(*recent[0].values())
    bad = []
    for name in dict.fromkeys(name for losses in recent for name in losses):
        steps = [i for i, losses in enumerate(recent) if name in losses]
        values = to_host(xp.stack([recent[i][name] for i in steps]))
        seen.setdefault(name, []).extend(values.tolist())
        # The total is bad as soon as one of its terms is: terms come first.
        bad += [(i, name in model.objectives, name, value) for i, value in zip(steps, values) if not np.isfinite(value)]
    if bad:
        i, _, name, value = min(bad, key=lambda found: found[:2])
        raise UsageError(f"{name} became {value} in epoch {epoch}, step {before + i + 1}; {_remedy(model, run)}")


def _remedy(model, run):
    rates = ", ".join(f"{name}={value:g}" for name, value in model.settings().items() if name.startswith("lr"))
    return f"try a smaller learning rate (now {rates}) in another folder; {run.how_to_resume()}"


def blas_threads(model):
    """A context with one BLAS thread where the matrices are small: more gain little, and can lose a hundredfold.

    Measured on two idle cores: up to 20 million weights times batch a second thread saves 5 to 25 %, at 80 million 40 %.
    On busy cores small models took up to 150 times as long with two threads, one of 40 million 4 times.
    """
    if sum(params.theta.size for params in model.parameters().values()) * (model.batch or 1) > 5e7:
        return contextlib.nullcontext()
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(1, "blas")
