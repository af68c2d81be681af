"""A training step as one CUDA graph: recorded once, then started as a whole.

Launch by launch a small model's step keeps the host busy for longer than the GPU. A graph does the same work on the same
memory with the same numbers as when it was recorded; so what changes from step to step must lie on the device. The batch is
copied to one fixed place; learning rates and bias corrections are written into 0-d arrays before each replay; the random
generator keeps its state on the device anyway. What a train_step decides in Python is decided once, at the recording: a
model whose steps are not all alike says so by `same_every_step = False`.
"""

import contextlib
import functools
from dataclasses import dataclass

from ..backend import UsageError
from ..nn.optim import Stepper, observed

NUMBERS = 256  # how many learning rates and the like one step may read


@dataclass
class Entry:
    """One call of stepper.step() in the recorded train_step, the 0-d arrays where it finds its numbers, what they hold."""

    stepper: Stepper
    cells: list
    written: tuple

    def step(self):
        """Count the step, and write those of its numbers that are new."""
        self.stepper.t += 1
        numbers = self.stepper.numbers(int(self.stepper.t[0]))
        for cell, number, before in zip(self.cells, numbers, self.written):
            if number != before:
                cell.fill(number)
        self.written = numbers
        self.stepper.params.changed()


class CapturedStep:
    """step(x=..., ...) does what model.train_step(x=..., ..., rng=rng) does, on a GPU, for batches of one size.

    The first call runs it as always, so that kernels are compiled; the second records it and replays it, as do all others.
    Raises UsageError where there is no GPU, for a model without same_every_step, and for a train_step that waits for the
    device or uploads anything; ValueError for other arrays than the first batch's.
    """

    def __init__(self, model, rng):
        if rng.xp.__name__ != "cupy":
            raise UsageError("a CUDA graph (--graph) needs a GPU: use device gpu, or leave it out")
        if not model.same_every_step:
            raise UsageError(f"the steps of a {type(model).__name__} are not all alike: train it without a graph")
        self.model, self.xp = model, rng.xp
        self.pool = rng.xp.cuda.MemoryPool()  # the graph's memory, given to nobody else as long as this lives
        self.values = rng.xp.zeros(NUMBERS, rng.dtype)
        self.batch = None
        self.draw_from(rng)

    def draw_from(self, rng):
        """Take noise from rng from now on: the next call records anew."""
        self.rng, self.graph, self.losses = rng, None, None

    def __call__(self, **batch):
        """One training step. Returns {name: loss} as 0-d arrays, as train_step does."""
        if self.batch is None:
            self.batch = {name: array.copy() for name, array in batch.items()}
            losses = self._aside(self._run)
            return {name: value.copy() for name, value in losses.items()}  # out of the graph's memory
        given, fixed = ({name: array.shape for name, array in b.items()} for b in (batch, self.batch))
        if given != fixed:
            raise ValueError(f"a batch of {given}, but the first was {fixed}; both must be equal")
        for name, array in batch.items():
            self.batch[name][...] = array
        if self.graph is None:
            self.graph = self._aside(self._record)
        elif any(params.theta is not theta for params, theta in self.vectors):
            raise UsageError("the weights were cast after the step was recorded: make another CapturedStep")
        for entry in self.entries:
            entry.step()
        self.graph.launch()
        return dict(zip(self.names, self.losses.copy()))

    def __del__(self):
        if hasattr(self, "pool"):
            self.graph = self.losses = None
            self.pool.free_all_blocks()  # CuPy's pool does not do it by itself

    def _run(self):
        return self.model.train_step(**self.batch, rng=self.rng)

    def _aside(self, work):
        """The result of work(), done on a stream and in memory of its own: CUDA does not record the default stream."""
        self.xp.cuda.get_current_stream().synchronize()
        stream = _stream(self.xp, self.xp.cuda.runtime.getDevice())
        with self.xp.cuda.using_allocator(self.pool.malloc), stream:
            result = work()
            stream.synchronize()
        return result

    def _record(self):
        stream, self.entries = self.xp.cuda.get_current_stream(), []
        try:
            stream.begin_capture()
            with observed(self._cells):
                losses = self._run()
            self.names, self.losses = list(losses), self.xp.stack(list(losses.values()))
            self.vectors = [(params, params.theta) for params in self.model.parameters().values()]
            return stream.end_capture()
        except BaseException as error:
            with contextlib.suppress(Exception):
                stream.end_capture()  # else nothing could use the stream any more
            if isinstance(error, MemoryError) or not isinstance(error, Exception):
                raise
            raise UsageError(
                f"the train_step of a {type(self.model).__name__} cannot be a CUDA graph ({error}); train without one"
            ) from error
        finally:
            for entry in self.entries:
                entry.stepper.t -= 1  # it was recorded, not done

    def _cells(self, stepper, numbers):
        """0-d arrays in which the step that is being recorded will find the numbers of a stepper, at every replay afresh."""
        used, n = sum(len(entry.cells) for entry in self.entries), len(numbers)
        cells = [self.values[i, ...] for i in range(used, used + n)]
        self.entries.append(Entry(stepper, cells, n * (None,)))
        return cells


@functools.cache
def _stream(xp, gpu):
    """The stream on which steps are recorded, one for each GPU, as kernels/cuda.py keeps 32 MiB for each stream it meets."""
    return xp.cuda.Stream(non_blocking=True)
