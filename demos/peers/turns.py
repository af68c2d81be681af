"""Time several contestants fairly: each in a process of its own, a block of steps at a time, turn by turn.

In one process they would share a heap and threads: whoever comes after NumPy's products finds its OpenBLAS threads still
spinning for a tenth of a second (PyTorch then takes twice as long on two cores), and whether freed memory goes back to the
system, which costs up to a third of a step, depends on what the others allocated. Hence the processes, and a pause.
"""

import contextlib
import math
import multiprocessing
import signal
import sys
import time

from scratchgen.backend import UsageError

PAUSE = 0.15  # seconds between blocks on a CPU, until the last one's threads are asleep
BLOCK = 0.05  # seconds that a block takes at least


class Failure(UsageError):
    """Who does not run, and why."""


def work(pipe, prepare, first):
    """The life of a contestant's process: prepare, make the first steps, then answer numbers of steps with their seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sys.stdout = sys.stderr  # stdout is for the results
    try:
        step, synchronise = prepare()
        for _ in range(first):  # whatever happens only once: compilation, first allocations
            step()
        synchronise()
        pipe.send(0.0)
        while steps := pipe.recv():
            for _ in range(min(steps - 1, 1 + steps // 4)):  # wake up, but not for one long step
                step()
            synchronise()
            started = time.perf_counter()
            for _ in range(steps):
                step()
            synchronise()
            pipe.send(time.perf_counter() - started)
    except Exception as error:
        pipe.send(" ".join(f"{type(error).__name__}: {error}".split())[:300])  # one line


class Contestant:
    """A process that runs prepare() -> step, synchronise and then steps when told to."""

    def __init__(self, name, prepare, first):
        context = multiprocessing.get_context("spawn")
        self.name, (self.pipe, theirs) = name, context.Pipe()
        self.process = context.Process(target=work, args=(theirs, prepare, first))
        self.process.start()
        theirs.close()

    def answer(self):
        try:
            found = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise Failure(f"{self.name}: its process ended with code {self.process.exitcode}") from None
        if isinstance(found, str):
            raise Failure(f"{self.name}: {found}")
        return found

    def block(self, steps):
        """Seconds a step."""
        self.pipe.send(steps)
        return self.answer() / steps

    def end(self):
        self.process.join(1)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def take_turns(prepares, seconds, gpu, least=None):
    """{name: seconds a step in each round}, and the Failures; prepares: {name: prepare}, functions of a module.

    least: how many steps a block has at least; 1 for steps that take about a second. A third of the seconds goes to rounds
    that do not count: PyTorch's first second of steps may take three times as long.
    """
    contestants, failures, steps = {}, [], {}
    least = least or (50 if gpu else 3)  # so many that waiting for a GPU does not matter
    try:
        for name, prepare in prepares.items():  # one after the other: some try with how many threads they are fastest
            contestants[name] = Contestant(name, prepare, min(least, 3))
            try:
                contestants[name].answer()
                steps[name] = least
            except Failure as failure:
                failures.append(failure)
        for name in steps:
            steps[name] = max(least, math.ceil(BLOCK / contestants[name].block(least)))
        times = {name: [] for name in steps}
        started = time.perf_counter()
        while times and ((now := time.perf_counter()) < started + seconds or not all(times.values())):
            for name, found in times.items():
                time.sleep(0 if gpu else PAUSE)
                took = contestants[name].block(steps[name])
                if now >= started + seconds / 3:
                    found.append(took)
    finally:
        for contestant in contestants.values():
            with contextlib.suppress(OSError):  # it has ended already
                contestant.pipe.send(0)
        for contestant in contestants.values():
            contestant.end()
    return times, failures
