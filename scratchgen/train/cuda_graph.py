"""A training step as one CUDA graph: the step is recorded once and then launched as a whole.

In a small model, launching the kernels one by one takes longer than running them on the GPU. A graph repeats the recorded
work on the same memory with the same numbers. So everything that changes from step to step must be on the device. The batch
is copied to a fixed place. Learning rates and bias corrections are written into 0-d arrays before each replay. The random
generator keeps its state on the device anyway. What train_step decides in Python is decided only once, when the step is
recorded: a model whose steps differ must set `same_every_step = False`.
"""

import contextlib
import functools
from dataclasses import dataclass

from ..backend import UsageError
from ..nn.optim import Stepper, observed

NUMBERS = 256  # how many learning rates and similar numbers one step may read


@dataclass
class Entry:
    """One call of stepper.step() in the recorded train_step. cells: the 0-d arrays of its numbers. written: their values."""

    stepper: Stepper
    cells: list
    written: tuple

    def step(self):
        """Count the step, and write the numbers that have changed."""
        self.stepper.t += 1
        numbers = self.stepper.numbers(int(self.stepper.t[0]))
        for cell, number, before in zip(self.cells, numbers, self.written):
            if number != before:
                cell.fill(number)
        self.written = numbers
        self.stepper.params.changed()


class CapturedStep:
    """step(x=..., ...) does what model.train_step(x=..., ..., rng=rng) does, on a GPU, for batches of one size.

    The first call runs train_step as usual, so that its kernels are compiled. The second call records it and replays it. All
    later calls replay it. Raises UsageError without a GPU, for a model with same_every_step = False, and for a train_step
    that waits for the device or uploads data. Raises ValueError if the names or shapes of the arrays differ from those of
    the first batch.
    """

    def __init__(self, model, rng):
        if rng.xp.__name__ != "cupy":
            raise UsageError("a CUDA graph (--graph) needs a GPU: use device gpu, or train without a graph")
        if not model.same_every_step:
            raise UsageError(
                f"a CUDA graph (--graph) needs steps that are all alike, but a {type(model).__name__} has others; train "
                "without a graph"
            )
        self.model, self.xp = model, rng.xp
        self.pool = rng.xp.cuda.MemoryPool()  # the graph's own memory, reserved while this object exists
        self.values = rng.xp.zeros(NUMBERS, rng.dtype)
        self.batch = None
        self.draw_from(rng)

    def draw_from(self, rng):
        """Draw all random numbers from rng from now on. The next call records the step again."""
        self.rng, self.graph, self.losses = rng, None, None

    def __call__(self, **batch):
        """{name: loss} of one training step, as 0-d arrays, as train_step returns it."""
        if self.batch is None:
            self.batch = {name: array.copy() for name, array in batch.items()}
            losses = self._aside(self._run)
            return {name: value.copy() for name, value in losses.items()}  # out of the graph's own memory
        given, fixed = ({name: array.shape for name, array in b.items()} for b in (batch, self.batch))
        if given != fixed:
            raise ValueError(f"the batch has shapes {given}, but the first batch had {fixed}; both must be equal")
        for name, array in batch.items():
            self.batch[name][...] = array
        if self.graph is None:
            self.graph = self._aside(self._record)
        elif any(params.theta is not theta for params, theta in self.vectors):
            raise UsageError("the weights were cast after the step was recorded: make a new CapturedStep")
        for entry in self.entries:
            entry.step()
        self.graph.launch()
        return dict(zip(self.names, self.losses.copy()))

    def __del__(self):
        if hasattr(self, "pool"):
            self.graph = self.losses = None
            self.pool.free_all_blocks()  # CuPy's pool does not do this itself

    def _run(self):
        return self.model.train_step(**self.batch, rng=self.rng)

    def _aside(self, work):
        """The result of work(), run on a separate stream with separate memory: CUDA cannot record the default stream."""
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
                stream.end_capture()  # otherwise nothing could use the stream any more
            if isinstance(error, MemoryError) or not isinstance(error, Exception):
                raise
            raise UsageError(
                f"the train_step of a {type(self.model).__name__} cannot be a CUDA graph ({error}); train without a graph"
            ) from error
        finally:
            for entry in self.entries:
                entry.stepper.t -= 1  # the step was recorded but not run

    def _cells(self, stepper, numbers):
        """The 0-d arrays from which the recorded step reads a stepper's numbers; each replay reads them again."""
        used, n = sum(len(entry.cells) for entry in self.entries), len(numbers)
        cells = [self.values[i, ...] for i in range(used, used + n)]
        self.entries.append(Entry(stepper, cells, n * (None,)))
        return cells


@functools.cache
def _stream(xp, gpu):
    """The stream on which steps are recorded. There is one per GPU, because kernels/cuda.py keeps 32 MiB for each stream."""
    return xp.cuda.Stream(non_blocking=True)
