"""The epoch loop: shuffled batches, a progress bar, a history, a checkpoint after every epoch, and resume.

Epoch e draws all its random numbers (the order of the data, the noise) from a new Rng((seed, e)). So the state of the random
generator need not be saved. If an epoch is killed half-way, it is run again from the last checkpoint and gives the same
weights, bit for bit.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, UsageError, array_module, to_host
from ..data import Rows, batches
from ..data.checked import check_examples, check_labels, fingerprint
from ..data.on_disk import in_memory
from ..kernels.native import compiled_kernels
from ..models.base import Model
from .cuda_graph import CapturedStep
from .doctor import Doctor
from .parallel import Alone
from .progress import Progress
from .run import Run
from .threads import blas_threads, choose_threads, say_that_nothing_is_limited

ON_DISK = 2_000  # of data on the disk, the doctor sees so many rows
READ_EVERY = 50  # steps between two readings of the losses: each reading makes a GPU wait


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with a message that says what is saved and how to continue."""


def fit(
    model: Model,
    x: Array,
    *,
    epochs: int,
    labels: Array | None = None,
    x_test: Array | None = None,
    labels_test: Array | None = None,
    seed: int = 0,
    out: Any = None,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[Any, dict[str, float]], Any] | None = None,
    measure: Callable[[Any, Any, int], dict[str, float]] | None = None,
    notes: dict[str, Any] | None = None,
    graph: bool = False,
    compile: bool = False,
    accept_new_data: bool = False,
    ranks: Alone | None = None,
) -> list[dict[str, float]]:
    """Trains a built model and returns its history, a list with one {column: number} per epoch.

    A row holds the means of the losses over the epoch in nats per example, the seconds, and model.evaluate(x_test) under
    test_ names. Training ends when the model has made `epochs` passes over x (N, n_features), counting those before a
    resume. An incomplete last batch of a pass is left out.

    x, labels (N,), x_test, labels_test: NumPy arrays, which are moved to the model's device once. Or x is the Rows of a file
        on the disk (data/on_disk.py): then each batch is read when it is needed, and prepare sees some random rows.
    out: the folder for checkpoint.npz and history.csv, and for best.npz, the checkpoint of the epoch with the least test
        loss, if there is one (run.py). None: nothing is written.
    resume: continue from the checkpoint in out. The settings must be the same, and also the data unless accept_new_data.
    on_epoch(model, row): called after each epoch.
    measure(model, rng, epoch) -> {name: number}: called after each epoch; its numbers are added to the row.
    notes: JSON values that the checkpoint keeps.
    graph: record the training step as a CUDA graph (cuda_graph.py). This is faster for small models on a GPU and gives the
        same numbers.
    compile: run kernels that are compiled for this CPU (kernels/native.py). This is faster, and the last digits of the
        results differ. Without a C++ compiler plain NumPy runs.
    ranks: the processes that share the work, parallel.connect(). Each of them calls fit with the same arguments.

    If something goes wrong, such as mode collapse, a line on standard error says what to change: see doctor.py.

    At first a few steps are tried and undone, to find the number of threads with which matrix products are fastest
    (threads.py). The number of threads changes the last digits of the results, so the checkpoint keeps it.

    Raises UsageError for epochs < 0, for a batch larger than the data, for arrays that do not fit each other or the model,
    for a folder that holds another run, is in use or cannot be written, and for a loss that is not finite. Raises Stopped on
    Ctrl-C.
    """
    epochs, seed = as_int("epochs", epochs), as_int("seed", seed)
    check_given(model, x, labels, x_test, labels_test)
    rows = model.examples_per_step or len(x)
    model.check_size(len(x))
    batches(len(x), rows, model.rng(seed))  # raises an error for wrong sizes now, before anything is written
    captured = CapturedStep(model, model.rng(seed)) if graph else None  # raises an error without a GPU
    marks = fingerprint(x=x, labels=labels, x_test=x_test, labels_test=labels_test)
    ranks, told = ranks or Alone(), ({"seed": seed} | (notes or {}), marks, accept_new_data)
    ranks.check(model, rows, graph, marks)
    opened = ranks.by_first(lambda: Run(out, resume, model, epochs, *told), tell=False)
    kernels = compiled_kernels(model.rng(seed).xp) if compile else contextlib.nullcontext()
    with kernels, opened or Run(None, False, model, epochs, *told) as run:  # rank 0 alone has a folder
        if not model.needs_labels:
            labels = labels_test = None
        given = {"x": x} if isinstance(x, Rows) else model.on_device(x=x, labels=labels)
        tested = model.on_device(x=x_test, labels=labels_test)
        # NumPy's warnings are silenced, here and below: the losses are checked, and that message says more.
        with np.errstate(all="ignore"):
            _get_ready(model, given, rows, seed, resume, run, ranks)
        run.epoch, run.history = ranks.by_first(lambda: (run.epoch, run.history))
        progress = progress and ranks.rank == 0
        if progress:
            say_that_nothing_is_limited()
        run.save(model, run.epoch)
        doctor = Doctor(model, _some(model, given, seed), run.history, seed) if ranks.rank == 0 else None
        bar = Progress(len(x) // rows, run.epoch + 1, epochs, progress)
        with bar, blas_threads(run.notes["threads"]), np.errstate(all="ignore"):
            try:
                for epoch in range(run.epoch + 1, epochs + 1):
                    started = time.perf_counter()
                    means = _train_epoch(model, given, seed, epoch, bar, run, captured, ranks, doctor)
                    ranks.share(model)
                    row = {"epoch": epoch, "seconds": round(time.perf_counter() - started, 3)} | means
                    row |= ranks.by_first(lambda: _measures(model, tested, measure, seed, epoch, run))
                    run.add(row)
                    run.save(model, epoch)
                    bar.epoch(row)
                    if doctor:
                        bar.warn(doctor.read(), f"epoch {epoch}")
                    if on_epoch and ranks.rank == 0:
                        on_epoch(model, row)
            except KeyboardInterrupt:
                raise Stopped(f"stopped in epoch {run.epoch + 1}: {run.how_to_resume()}") from None
        ranks.by_first(lambda: None)  # now the last checkpoint is written
        return run.history


def as_int(name, value):
    """value as a Python int. Raises UsageError unless it is a whole number >= 0, from Python or NumPy."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{name} must be a whole number >= 0, got {value!r}")
    return int(value)


def check_given(model, x, labels, x_test, labels_test):
    """Raise UsageError unless the arrays that fit was given match each other and the model."""
    if isinstance(x, Rows):
        if labels is not None or not model.examples_per_step:
            needs = (
                "has no labels" if labels is not None else f"is too large for a {type(model).__name__}, which takes all"
            )
            raise UsageError(f"{x.path}: {needs}: use another model, or a smaller file that is loaded into memory")
        x = in_memory(x)
    check_examples("x", x)
    if labels is not None:
        check_labels("labels", labels, len(x), model.labels_are_vectors)
    model.check_data(x, labels)
    if labels is None and model.needs_labels:
        raise UsageError(f"a {type(model).__name__} learns from labels, but this data has none: give labels")
    if x_test is None:
        if labels_test is not None:
            raise UsageError("labels_test was given without x_test: give both")
        return
    check_examples("x_test", x_test)
    if x_test.shape[1] != x.shape[1]:
        raise UsageError(
            f"x_test has {x_test.shape[1]} numbers per example, but x has {x.shape[1]}: both must have the same"
        )
    if labels_test is not None:
        check_labels("labels_test", labels_test, len(x_test), model.labels_are_vectors)
    elif model.tested_on_labels:
        raise UsageError(f"a {type(model).__name__} is tested on labels, but the test data has none: give labels_test")
    try:
        model.check_data(x_test, labels_test)
    except UsageError as error:
        raise UsageError(f"test data: {error}") from None


def _get_ready(model, given, rows, seed, resume, run, ranks):
    """Prepare the model unless it has learned before, and choose the threads; of a file on the disk by some rows."""
    if isinstance(x := given["x"], Rows):
        given = model.on_device(x=x.sample(model.rng((seed, 0, 9))))
    if not resume and not model.has_stepped():
        ranks.by_first(lambda: model.prepare(**given, rng=model.rng((seed, 0, 4))), tell=False)
    ranks.share(model)
    ranks.note(run)
    if "threads" not in run.notes:
        run.notes["threads"] = ranks.threads(model) or choose_threads(model, _one_step(model, given, rows, seed))


def _some(model, given, seed):
    """given, or of data on the disk about ON_DISK rows, in order and evenly spread over some random ones."""
    if not isinstance(x := given["x"], Rows):
        return given
    rows = x.sample(model.rng((seed, 0, 10)))
    return model.on_device(x=rows[:: max(1, len(rows) // ON_DISK)])


def _one_step(model, given, rows, seed):
    """A function step() that trains the model on the first batch. choose_threads measures it."""
    first = {name: array[:rows] for name, array in given.items()}
    return lambda: model.train_step(**first, rng=model.rng((seed, 0, 5)))


def check_losses(model, losses):
    """Raise ValueError unless a train_step has returned {name: loss}."""
    if not isinstance(losses, dict) or not losses:
        raise ValueError(
            f"{type(model).__name__}.train_step must return a dict {{name: loss}}, and returned {losses!r}"
        )


def _train_epoch(model, given, seed, epoch, bar, run, captured, ranks, doctor):
    """{name: mean loss} of one pass over the data. given: {argument name: array (N, ...) on the device}."""
    rng = model.rng((seed, epoch))
    n = len(given["x"])
    rows = model.examples_per_step or n
    n_steps, seen, recent = n // rows, {}, []
    part, draws = ranks.part(model, rows), ranks.draws(model, seed, epoch, rng)
    if captured:
        captured.draw_from(rng)
    for step, batch in enumerate(_batches(model, given, rows, rng, part), 1):
        with ranks.reducing():
            recent.append(captured(**batch) if captured else model.train_step(**batch, rng=draws))
        check_losses(model, recent[-1])
        if step % READ_EVERY == 0 or step == n_steps:
            _read(recent, seen, model, epoch, step - len(recent), run, ranks)
            latest = {name: float(np.mean(values[-len(recent) :])) for name, values in seen.items()}
            if doctor:
                bar.warn(doctor.look(latest, len(recent)), f"epoch {epoch}, step {step}")
            means = {name: float(np.mean(values, dtype=np.float64)) for name, values in seen.items()}
            bar.steps(len(recent), means)
            recent = []
    return means


def _batches(model, given, rows, rng, part):
    """Yields the batches of an epoch, {argument name: array} on the device. part: which of the rows this process takes."""
    if isinstance(x := given["x"], Rows):
        for batch in x.batches(rows, rng, None if part is None else to_host(part)):
            yield model.on_device(x=batch)
        return
    for chosen in batches(len(x), rows, rng):
        yield {name: array[chosen if part is None else chosen[part]] for name, array in given.items()}


def _measures(model, tested, measure, seed, epoch, run):
    """What is measured after an epoch: a dict. tested: {argument name: array (N, ...)}, or {}."""
    row = _test(model, tested, seed, epoch, run) if tested else {}
    return row | (measure(model, model.rng((seed, epoch, 3)), epoch) if measure else {})


def _test(model, tested, seed, epoch, run):
    """{test_name: number} from model.evaluate on the test data. tested: {argument name: array (N, ...)}."""
    found = model.evaluate(**tested, rng=model.rng((seed, epoch, 1)))
    row = {f"test_{name}": float(value) for name, value in found.items()}
    for name, value in row.items():
        if math.isnan(value):
            raise UsageError(f"{name} became nan in epoch {epoch}; {_remedy(model, run)}")
    return row


def _read(recent, seen, model, epoch, before, run, ranks):
    """Append the recent steps' losses to seen, {name: [numbers]}. Raises UsageError for the first that is not finite.

    recent: a dict for each step. A step may lack some of the losses. Each name needs one transfer from the device.
    """
    xp = array_module(*recent[0].values())
    bad = []
    for name in dict.fromkeys(name for losses in recent for name in losses):
        steps = [i for i, losses in enumerate(recent) if name in losses]
        values = ranks.mean(to_host(xp.stack([recent[i][name] for i in steps])))
        seen.setdefault(name, []).extend(values.tolist())
        # If one term is bad, the total is bad too: so the terms come first, and the message names the term.
        bad += [(i, name in model.objectives, name, value) for i, value in zip(steps, values) if not np.isfinite(value)]
    if bad:
        i, _, name, value = min(bad, key=lambda found: found[:2])
        raise UsageError(f"{name} became {value} in epoch {epoch}, step {before + i + 1}; {_remedy(model, run)}")


def _remedy(model, run):
    """What to do if a number is not finite: train again in another folder. After a resume the same would happen again."""
    rates = ", ".join(f"{name}={value:g}" for name, value in model.settings().items() if name.startswith("lr"))
    return f"train again with a smaller learning rate (now {rates}) in another folder; {run.what_is_saved()}"
