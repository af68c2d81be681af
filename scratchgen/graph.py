"""A training step as one CUDA graph: recorded once, then started with a single launch.

Launch by launch a small model's step keeps the host busy for longer than the GPU. A graph does the same work on the same
memory with the same numbers as when it was recorded; so what changes from step to step must lie on the device. The batch is
copied to one fixed place; learning rates and bias corrections are written into 0-d arrays before each replay; the random
generator keeps its state on the device anyway. What a train_step decides in Python is decided once, at the recording.
"""

import contextlib
import functools
from types import SimpleNamespace

from .backend import UsageError
from .model import call
from .optim import Stepper

NUMBERS = 256  # how many learning rates and the like one step may read


class CapturedStep:
    """step(x=..., ...) does what model.train_step(x=..., ..., rng=rng) does, on a GPU, for batches of one size.

    The first call runs it as always, so that kernels are compiled; the second records it and replays it, as do all others.
    Raises UsageError where there is no GPU, and for a train_step that waits for the device or uploads anything.
    """

    def __init__(self, model, rng):
        if rng.xp.__name__ != "cupy":
            raise UsageError("a captured step runs on a GPU only: use device gpu, or no graph")
        self.model, self.rng, self.xp = model, rng, rng.xp
        self.pool = rng.xp.cuda.MemoryPool()  # the graph's memory: given to nobody else as long as this lives
        self.values = rng.xp.zeros(NUMBERS, rng.dtype)
        self.batch, self.graph, self.log, self.used = None, None, [], 0

    def __call__(self, **batch):
        """One training step. Returns {name: loss} as 0-d arrays, as train_step does."""
        if self.batch is None:
            self.batch = {name: array.copy() for name, array in batch.items()}
            return self._aside(lambda: call(self.model.train_step, rng=self.rng, **self.batch))
        for name, array in batch.items():
            if array.shape != self.batch[name].shape:
                raise ValueError(f"{name} has shape {array.shape}; the step was recorded for {self.batch[name].shape}")
            self.batch[name][...] = array
        if self.graph is None:
            self.graph = self._aside(self._record)
        else:
            for entry in self.log:
                entry.stepper.t += 1
                entry.numbers = entry.stepper.numbers(int(entry.stepper.t[0]))
        for entry in self.log:
            for slot, number in zip(entry.slots, entry.numbers):
                slot.fill(number)
            entry.stepper.params.changed()
        self.graph.launch()
        return dict(zip(self.names, self.losses.copy()))

    def _aside(self, work):
        """The result of work(), done on a stream and in memory of its own: CUDA does not record the default stream."""
        self.xp.cuda.get_current_stream().synchronize()
        with self.xp.cuda.using_allocator(self.pool.malloc), _stream(self.xp) as stream:
            result = work()
            stream.synchronize()
        return result

    def _record(self):
        Stepper.recorder = self._slots
        stream = self.xp.cuda.get_current_stream()
        stream.begin_capture()
        try:
            losses = call(self.model.train_step, rng=self.rng, **self.batch)
            self.names, self.losses = list(losses), self.xp.stack(list(losses.values()))
            return stream.end_capture()
        except Exception as error:
            with contextlib.suppress(Exception):
                stream.end_capture()  # else nothing could use the stream any more
            raise UsageError(
                f"the train_step of a {type(self.model).__name__} cannot be a CUDA graph ({error}); train without one"
            ) from error
        finally:
            Stepper.recorder = None

    def _slots(self, stepper):
        """0-d arrays in which the step that is being recorded will find the numbers of a stepper."""
        numbers = stepper.numbers(int(stepper.t[0]))
        slots = [self.values[i] for i in range(self.used, self.used + len(numbers))]
        self.used += len(numbers)
        self.log.append(SimpleNamespace(stepper=stepper, slots=slots, numbers=numbers))
        return slots


@functools.cache
def _stream(xp):
    """The stream on which steps are recorded: one for all, as cuda.py keeps 32 MiB for each stream it meets."""
    return xp.cuda.Stream(non_blocking=True)
