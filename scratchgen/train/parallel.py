"""Training on several processes, the ranks: each takes a part of every batch, and they add up their gradients.

    mpiexec -n 4 scratchgen train vae --data mnist --epochs 10 --out runs/vae

Each rank has the whole model and reads the same data. A batch of B examples is divided into shards of B_r. Before an
optimizer's step, one all-reduce of the flat gradient makes g = Σ_r (B_r / B) g_r on every rank. Then all of them make the
same step. Rank 0 alone writes files, measures and prints. MPI is the engine (mpi4py); between GPUs it is NCCL.

Why g is the gradient of the whole batch: a loss is a mean over examples, L = 1/B Σ_i l(x_i, θ). The sum may be taken in
parts: L = Σ_r (B_r / B) L_r, where L_r is the mean over shard r. A gradient is linear, so the same holds for ∇L. This needs
that l(x_i, θ) depends on no other example. It covers penalties on a gradient at each example, and weight decay, which every
rank has whole. Clipping the gradient, Adam and averaged weights come after the sum, so they do what one process does.

Where examples of a batch meet, the mean of the shards' gradients is not the gradient of the batch:

    EM, the use of codes    sums over the batch are added up over the ranks (nn/batch.py): exact
    packing                 a pack is never divided, so D sees the same packs: exact
    running statistics      the ranks' means are averaged at each step: exact for RunningMoments
    batch norm              each rank standardises its own shard. That is another model than one of the whole batch, and a
                            line says so; its running variance is the mean over shards, without the spread between them
    λ of a VQ-GAN           each rank takes the norms of two gradients of its shard, and λ is the ratio of these
    optimal transport       a shard has fewer noises to choose from than the batch: refused
    wrong vectors of a      they come from a neighbour in the shard, not in the batch: as good, but other numbers
      conditional GAN
    persistent chains       each rank has as many as the settings say, and the mean is over all of them. After each epoch
                            those of rank 0 go on everywhere
    minibatch               none of our models looks for variety within a batch, other than by packing. A loss that does, or
      discrimination        that sorts a batch, would see only its shard

Each rank draws its own noise, from Rng((seed, epoch, 10, rank)). So runs on 1 and on 4 ranks differ as two seeds do. Without
noise they are equal, but for rounding. After each epoch all ranks take over rank 0's state. So what is saved is all there
is, and a resumed run does what the uninterrupted one does.
"""

import contextlib
import os
import sys
import time
import traceback
import warnings

import numpy as np

from ..backend import UsageError, array_module, between_gpus, find_device, on_host
from ..kernels import watching
from ..nn.norms import BatchNorm, RunningMoments
from ..nn.optim import Optimizer, Stepper, observed
from .checkpoint import describe
from .threads import useful_threads

# The environment variables in which mpiexec, or Slurm's srun, tells a process its rank and the number of processes.
LAUNCHERS = [
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_NTASKS"),
]
INSTALL = "pip install 'scratchgen[mpi]', or start it without mpiexec"
STREAM = 10  # a rank's noise is that of (seed, epoch, STREAM, rank)
PATIENCE = 2.0  # seconds that a failing rank waits to see whether all others fail too
AVERAGED = BatchNorm, RunningMoments  # layers whose buffers are means over the batch


def launched():
    """(rank, number of ranks) by the environment; (0, 1) for a process that mpiexec has not started."""
    for rank, size in LAUNCHERS:
        if os.environ.get(rank, "").isdecimal() and os.environ.get(size, "").isdecimal():
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


class Alone:
    """One process, which is all ranks at once: fit's default. Ranks has the same methods."""

    rank, size = 0, 1

    def check(self, model, rows, graph, marks):
        """Raise UsageError if this model cannot learn in parallel, or if its steps of `rows` examples are too small.

        graph: whether steps are to be recorded. marks: the fingerprint of the data, which must be equal on all ranks.
        """

    def part(self, model, rows):
        """Which rows of each batch this rank takes, an index array, or None for all of them."""

    def draws(self, model, seed, epoch, rng):
        """The random numbers of an epoch's training steps. rng: those that also give the order of the data."""
        return rng

    def by_first(self, work, tell=True):
        """What work() returns on rank 0, for every rank; without tell, None for the others. All raise its UsageError."""
        return work()

    def share(self, model):
        """Give every rank the state of rank 0's model."""

    def mean(self, values):
        """The mean of values, an array of losses, over the ranks, each weighted by its part of the batch."""
        return values

    def note(self, run):
        """Note the number of ranks in the checkpoint. If a resumed run had another one, say so."""
        if self.size > 1:
            run.notes["ranks"] = self.size
        if run.ranks not in (None, self.size):
            run.notes.pop("threads", None)
            line = f"{run.checkpoint}: was trained on {counted(run.ranks)}, now on {counted(self.size)}: other random"
            print(f"{line} numbers follow, as from another seed", file=sys.stderr, flush=True)

    def threads(self, model):
        """The number of threads of each rank, or None if it is to be chosen by trying."""

    def reducing(self):
        """A context in which gradients, and sums over the batch, are those of all ranks."""
        return contextlib.nullcontext()


class Ranks(Alone):
    """The processes of an MPI communicator. Each must call the same methods in the same order.

    between: what sums and broadcasts arrays between GPUs, with the methods of cupyx.distributed.NCCLBackend. On the host MPI
    does. local: how many ranks are on this machine.
    """

    def __init__(self, comm, between=None, local=None):
        self.comm, self.between, self.rank, self.size = comm, between, comm.rank, comm.size
        self.local = local or comm.size
        self.weight = 1.0  # this rank's part of the batch, B_r / B
        self.complete = set()  # the Parameters whose gradients are summed and not yet used

    # What is exchanged.

    def sum(self, array):
        """Add up an array over the ranks, in place. It must be contiguous."""
        if on_host(array):
            self.comm.Allreduce(self.in_place(), array)
        else:
            self.between.all_reduce(array, array)

    def broadcast(self, array):
        """Overwrite an array with rank 0's. It must be contiguous."""
        if on_host(array):
            self.comm.Bcast(array)
        else:
            self.between.broadcast(array)

    def in_place(self):
        from mpi4py import MPI

        return MPI.IN_PLACE

    def by_first(self, work, tell=True):
        found = failure = None
        if self.rank == 0:
            try:
                found = work()
            except UsageError as error:
                failure = str(error)
        told, failure = self.comm.bcast((found if tell else None, failure))
        if failure is not None:
            raise UsageError(failure)
        return told if tell else found

    def share(self, model):
        for array in model.state().values():
            if array.size:
                self.broadcast(array)
        for params in model.parameters().values():
            params.changed()
        for part in vars(model).values():
            if isinstance(part, Stepper):
                part.loaded()

    def mean(self, values):
        values = self.weight * values
        self.sum(values)
        return values

    # How the work is divided.

    def check(self, model, rows, graph, marks):
        for name, value in (("the model", describe(model)), ("the data", marks)):
            if self.by_first(lambda: value) != value:
                raise UsageError(
                    f"{name} differs from that of rank 0: give every rank the same command and the same files"
                )
        if graph:
            raise UsageError("a CUDA graph (--graph) cannot contain the sum over ranks: train without a graph")
        _, batch, unit = batches_of(model, rows)
        least = 2 if getattr(model, "condition", None) == "vector" else 1  # a wrong vector is that of a neighbour
        if batch // unit < least * self.size:
            packs = f" of packs of {unit}" if unit > 1 else ""
            remedy = f"use --set batch={least * unit * self.size} or more, or fewer ranks"
            raise UsageError(f"a batch of {batch} cannot be divided into {self.size} parts{packs}: {remedy}")
        if getattr(model, "pairing", None) == "optimal":
            raise UsageError(
                "pairing=optimal looks for pairs in the whole batch, but each rank has only a part of it: use "
                "--set pairing=independent, or one process"
            )
        if self.rank == 0 and any(isinstance(layer, BatchNorm) for layer in layers(model)):
            line = "BatchNorm standardises each rank's part of a batch on its own: more ranks are like a smaller batch"
            print(line, file=sys.stderr, flush=True)

    def part(self, model, rows):
        parts, batch, unit = batches_of(model, rows)
        start, stop = (unit * (batch // unit * r // self.size) for r in (self.rank, self.rank + 1))
        self.weight = (stop - start) / batch
        xp = model.rng(0).xp
        return (xp.arange(parts)[:, None] * batch + xp.arange(start, stop)).reshape(-1)

    def draws(self, model, seed, epoch, rng):
        return model.rng((seed, epoch, STREAM, self.rank))

    def threads(self, model):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(useful_threads(model), max(1, cores // self.local))

    # What happens during a step.

    @contextlib.contextmanager
    def reducing(self):
        self.complete.clear()
        with observed(self.before_step), watching(self.instead):
            yield

    def before_step(self, stepper, numbers):
        """The observer of every Stepper: an optimizer uses a gradient; other steppers do not."""
        if isinstance(stepper, Optimizer):
            self.complete_gradient(stepper.params)
            self.complete.discard(stepper.params)
        return numbers

    def complete_gradient(self, params):
        """Replace the gradient by that of the whole batch, and with it the running statistics, in one message."""
        if params in self.complete:  # clipped before the step
            return
        self.complete.add(params)
        moved = [params.buffers[where] for where in statistics(params)]
        message = array_module(params.grad).concatenate([params.grad, *moved]) if moved else params.grad
        message *= self.weight
        self.sum(message)
        end = 0
        for array in [params.grad, *moved] if moved else ():
            start, end = end, end + array.size
            array[...] = message[start:end]

    def instead(self, function, given, named):
        """Stands in for every watched function."""
        name = function.__qualname__ if function.__module__.startswith(PACKAGE) else ""
        if name == "clip_by_norm":
            self.complete_gradient(given[0] if given else named["params"])
        elif name == "total":
            return self.total(*given, **named)
        elif name == "agreed":
            array = array_module(given[0]).ascontiguousarray(given[0])
            self.broadcast(array)
            return array
        return function(*given, **named)

    def total(self, sums):
        if isinstance(sums, int):
            return self.comm.allreduce(sums)
        sums = sums.copy()
        self.sum(sums)
        return sums


PACKAGE = __name__.rpartition(".train")[0] + ".nn."


def counted(n):
    return f"{n} rank{'s' * (n != 1)}"


def batches_of(model, rows):
    """(parts, batch, unit): a step's rows are so many batches, one after the other, and a batch is divided into units."""
    batch = model.batch if model.batch and rows % model.batch == 0 else rows
    return rows // batch, batch, getattr(model, "pack", 1)


def layers(model):
    """Every layer of a model's Parameters that has a weight or a buffer."""
    return [layer for params in model.parameters().values() for _, layer, *_ in params._places]


def statistics(params):
    """The slices of the buffers that are means over the batch."""
    return [
        where for _, layer, _, weight, where in params._places if isinstance(layer, AVERAGED) and not weight.learned
    ]


# ---- the start and the end of a run ----


def connect(device="cpu"):
    """The Ranks of a process that mpiexec has started, or Alone.

    device: "gpu" gives each rank of a machine a GPU of its own. Raises UsageError without mpi4py, or NCCL, or enough GPUs.
    """
    if launched()[1] == 1:
        return Alone()
    try:
        with warnings.catch_warnings(action="ignore"):  # of another MPI's mpiexec: below is a line about that
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # no mpi4py, or no MPI library
        raise UsageError(f"training on {launched()[1]} ranks needs mpi4py ({error}): {INSTALL}") from None
    comm = MPI.COMM_WORLD
    if comm.size == 1:
        raise UsageError(
            f"mpiexec started {launched()[1]} processes, but mpi4py sees each of them alone: use the mpiexec of the MPI "
            "for which mpi4py was installed"
        )
    local = comm.Split_type(MPI.COMM_TYPE_SHARED)
    between = None if find_device(device) is np else between_gpus(comm.rank, comm.size, local.rank, local.size)
    return Ranks(comm, between, local.size)


@contextlib.contextmanager
def quiet(rank):
    """A context in which ranks other than 0 print nothing."""
    if rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def ended_together(ranks, program):
    """A context for the work of every rank. If one fails, all end, and one line on standard error says why.

    If all fail, as they do for a wrong setting, the error is raised on each. If only this one does, the others would wait
    for it for ever: so it prints the line and aborts them.
    """
    if ranks.size == 1:
        yield
        return
    failed = ranks.comm.Dup()
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        everybody, since = failed.Ibarrier(), time.perf_counter()
        while not (done := everybody.Test()) and time.perf_counter() - since < PATIENCE:
            time.sleep(0.01)
        if done and isinstance(error, (UsageError, KeyboardInterrupt, OSError, MemoryError)):
            raise
        if not done or ranks.rank == 0:
            who = f"{program}: " + (f"rank {ranks.rank}: " if ranks.rank else "")
            print(f"{who}{said(error)}", file=sys.__stderr__, flush=True)
        if done:
            raise SystemExit(1) from None
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MPI's own line would follow
        ranks.comm.Abort(exit_code(error))


def said(error):
    """One line about an error. If it is a fault of the program, with its type and place."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "stopped"
    line = " ".join(str(error).split())
    if isinstance(error, UsageError):
        return line
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {line} ({os.path.basename(place.filename)}, line {place.lineno})"


def exit_code(error):
    return {UsageError: 2, KeyboardInterrupt: 130}.get(type(error), 130 if isinstance(error, KeyboardInterrupt) else 1)
