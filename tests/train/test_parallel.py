"""Training on several ranks does what one process does, and ends, resumes and complains as one.

Most tests start mpiexec; where mpi4py or mpiexec is not installed they are left out. pip install 'scratchgen[mpi]' has both.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import simcupy
from on_ranks import ALIKE, EQUAL, points, trained
from simcupy.runner import Runner

from scratchgen import kernels
from scratchgen.__main__ import main
from scratchgen.backend import Rng, UsageError, between_gpus, to_host
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.models.gan import GAN
from scratchgen.train import parallel
from scratchgen.train.fit import fit

HERE = pathlib.Path(__file__).parent
needs_mpi = pytest.mark.needs("mpi4py", "mpiexec")
RUN = [sys.executable, "-m", "scratchgen", "train"]
TINY = ["--set", "hidden=5", "n_latent=2", "batch=100", "--epochs"]


def mpiexec(*command, n=2, timeout=60):
    command = ["mpiexec", "-n", str(n), *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def arrays(folder):
    with np.load(folder / "checkpoint.npz") as saved:
        return {name: saved[name] for name in saved.files if name != "notes"}


def check_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, err_msg=name, **tolerance)


# ---- the same numbers ----


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory):
    """{"model/array": numbers} of every model in on_ranks.py, trained on two ranks."""
    path = tmp_path_factory.mktemp("ranks") / "found.npz"
    done = mpiexec(sys.executable, HERE / "on_ranks.py", path)
    assert done.returncode == 0, done.stderr
    assert "BatchNorm standardises each rank's part" in done.stderr  # once
    assert len(done.stderr.splitlines()) == 1
    with np.load(path) as saved:
        return dict(saved)


@needs_mpi
@pytest.mark.parametrize("name", EQUAL)
def test_without_noise_two_ranks_have_the_weights_of_one_process(name, of_two_ranks):
    found = {key.partition("/")[2]: array for key, array in of_two_ranks.items() if key.startswith(f"{name}/")}
    assert found.pop("spread") == 0
    check_same(found, trained(name), rtol=0, atol=1e-10)


@needs_mpi
@pytest.mark.parametrize("name", ALIKE)
def test_with_noise_all_ranks_still_have_the_same_weights(name, of_two_ranks):
    assert of_two_ranks[f"{name}/spread"] == 0
    assert abs(of_two_ranks[f"{name}/params.theta"] - trained(name)["params.theta"]).max() > 1e-6


@pytest.mark.slow
@needs_mpi
def test_the_command_on_three_ranks_compiled(tmp_path):
    """1,400 digits in batches of 100 on 3 ranks: shards of 33, 33 and 34."""
    done = mpiexec(*RUN, "autoencoder", "--out", tmp_path / "three", "--compile", *TINY, 2, n=3)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("on 3 ranks", done.stdout)) == 1
    assert main([*RUN[3:], "autoencoder", "--out", str(tmp_path / "one"), "--compile", *TINY, "2"]) == 0
    check_same(arrays(tmp_path / "three"), arrays(tmp_path / "one"), rtol=1e-3, atol=1e-4)


# ---- the end of a run ----


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("model", ["vae", "rbm"])  # rbm: chains, which differ between ranks
def test_a_run_with_a_killed_rank_is_resumed_as_if_never_stopped(model, tmp_path):
    settings = ["--set", *{"vae": ["hidden=20", "n_latent=2"], "rbm": ["n_hidden=9", "n_chains=5"]}[model], "batch=20"]
    command = [*RUN, model, *settings, "--epochs", "40", "--out"]
    started = subprocess.Popen(["mpiexec", "-n", "2", *command, tmp_path / "killed"], stderr=subprocess.DEVNULL)
    history = tmp_path / "killed" / "history.csv"
    while not history.exists() or len(history.read_text().splitlines()) < 4:
        assert started.poll() is None
        time.sleep(0.01)
    ranks = ranks_of(started.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    assert started.wait(20) != 0
    wait_until_gone(ranks)
    done = mpiexec(*command, tmp_path / "killed", "--resume")
    assert done.returncode == 0, done.stderr
    assert mpiexec(*command, tmp_path / "whole").returncode == 0
    check_same(arrays(tmp_path / "killed"), arrays(tmp_path / "whole"), rtol=0)


def ranks_of(pid):
    """The processes of scratchgen below a process."""
    table = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    family, found = {pid}, []
    for own, parent, line in sorted(rows, key=lambda row: int(row[0])):
        if int(parent) in family:
            family.add(int(own))
            if line.startswith(sys.executable):
                found.append(int(own))
    return found


def wait_until_gone(pids):
    for _ in range(500):
        if not any(alive(pid) for pid in pids):
            return
        time.sleep(0.01)
    pytest.fail("a rank was left behind")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return pathlib.Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


FAILING = """import os, sys
from scratchgen.__main__ import main
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.train import parallel

parallel.PATIENCE = 0.2
step = AutoEncoder.train_step

def train_step(self, *given, **named):
    if os.environ["PMI_RANK"] in sys.argv[1] and self.adam.t[0] == 3:
        raise KeyError("a mistake in the program")
    return step(self, *given, **named)

AutoEncoder.train_step = train_step
sys.exit(main(["train", "autoencoder", "--out", sys.argv[2], "--epochs", "2"]))
"""


@needs_mpi
@pytest.mark.parametrize(
    "who", ["1", pytest.param("0", marks=pytest.mark.slow), pytest.param("01", marks=pytest.mark.slow)]
)
def test_a_rank_that_dies_ends_all_with_one_line(who, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    done = mpiexec(sys.executable, script, who, tmp_path / "run")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    rank = "rank 1: " if who == "1" else ""
    assert line == f"scratchgen: {rank}KeyError: 'a mistake in the program' (failing.py, line 11)"
    assert (tmp_path / "run" / "checkpoint.npz").exists()  # of epoch 0


@needs_mpi
def test_a_users_mistake_is_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.npz").touch()  # only rank 0 looks into the folder
    done = mpiexec(*RUN, "vae", "--out", tmp_path / "run", *TINY, 1)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "already holds a run" in done.stderr


# ---- what cannot be divided, and who may not ----


@pytest.fixture
def two_ranks():
    comm = SimpleNamespace(rank=1, size=2, bcast=lambda sent: (None, None))
    ranks = parallel.Ranks(comm)
    ranks.by_first = lambda work, tell=True: work()
    return ranks


@pytest.mark.parametrize(
    ("kind", "settings", "line"),
    [
        (AutoEncoder, {"batch": 1}, "a batch of 1 cannot be divided into 2 parts: use --set batch=2"),
        (GAN, {"batch": 3, "pack": 3}, "a batch of 3 cannot be divided into 2 parts of packs of 3: use --set batch=6"),
        (FlowMatching, {"pairing": "optimal"}, "use --set pairing=independent"),
        (ConditionalGAN, {"condition": "vector", "batch": 3}, "use --set batch=4"),
    ],
)
def test_what_cannot_be_divided_is_refused(kind, settings, line, two_ranks):
    model = kind(**kind.tiny | settings).build(Rng(0))
    labels = points()[:, :3] if kind is ConditionalGAN else None
    with pytest.raises(UsageError, match=line):
        fit(model, points()[:, : model.n_features], labels=labels, epochs=1, ranks=two_ranks)


def test_a_graph_cannot_sum_over_ranks(two_ranks):
    with pytest.raises(UsageError, match="train without a graph"):
        two_ranks.check(AutoEncoder(**AutoEncoder.tiny).build(Rng(0)), 4, True, {})


@pytest.mark.parametrize("differs", ["the model", "the data"])
def test_other_settings_or_other_data_on_a_rank_are_found_out(differs, two_ranks):
    model, marks = AutoEncoder(**AutoEncoder.tiny).build(Rng(0)), {"x": "mine"}
    two_ranks.by_first = lambda work, tell=True: {} if (work() == marks) == (differs == "the data") else work()
    with pytest.raises(UsageError, match=f"{differs} differs from that of rank 0"):
        two_ranks.check(model, 4, False, marks)


def test_another_number_of_ranks_than_before_is_said(two_ranks, capsys):
    run = SimpleNamespace(ranks=4, notes={"threads": 3}, checkpoint="checkpoint.npz")
    two_ranks.note(run)
    assert run.notes == {"ranks": 2}
    assert "checkpoint.npz: was trained on 4 ranks, now on 2 ranks: other random numbers" in capsys.readouterr().err
    two_ranks.note(run := SimpleNamespace(ranks=2, notes={"threads": 3}, checkpoint=""))
    assert (run.notes, capsys.readouterr().err) == ({"threads": 3, "ranks": 2}, "")


def test_the_ranks_of_a_machine_share_its_cores(two_ranks, monkeypatch):
    monkeypatch.setattr(parallel, "useful_threads", lambda model: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(9), raising=False)
    two_ranks.local = 2
    assert two_ranks.threads(None) == 4
    two_ranks.local = 12
    assert two_ranks.threads(None) == 1


@pytest.mark.parametrize(("rank", "expected"), [("0", 1), ("1", 0)])
def test_other_commands_ask_for_one_process(rank, expected, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", rank)
    for command in (["list"], ["evaluate", str(tmp_path)], ["sample", str(tmp_path), "-o", "x.npy"]):
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", expected)
        assert not expected or "works on one process" in err


@pytest.mark.parametrize("names", parallel.LAUNCHERS)
def test_without_mpi4py_one_line_says_how_to_get_it(names, monkeypatch, capsys, tmp_path):
    for name, value in zip(names, ("0", "3")):
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert main(["train", "vae", "--epochs", "1", "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "3 ranks needs mpi4py" in err and "pip install 'scratchgen[mpi]'" in err
    assert not (tmp_path / "run").exists()


@needs_mpi
def test_an_mpi_of_another_mpiexec_is_found_out(tmp_path):
    """mpi4py sees one process, but the environment says that there are two."""
    environment = os.environ | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    command = [*RUN, "vae", "--epochs", "1", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "use the mpiexec of the MPI for which mpi4py was installed" in done.stderr


# ---- between GPUs, simulated ----


class Twin:
    """In place of NCCL: the other of two ranks has the same examples, so that every sum doubles."""

    def all_reduce(self, given, out):
        out[...] = given + given

    def broadcast(self, array):
        pass


class Host:
    rank, size = 0, 2

    def bcast(self, sent):
        return sent

    def Allreduce(self, in_place, array):
        array += array

    def Bcast(self, array):
        pass


@pytest.mark.gpu
@pytest.mark.needs("mpi4py")
def test_nccl_with_one_rank_changes_nothing(gpu):
    from mpi4py import MPI

    ranks, found = parallel.Ranks(MPI.COMM_SELF, between_gpus(0, 1, 0, 1)), []
    for given in (ranks, parallel.Alone()):
        model = AutoEncoder(**AutoEncoder.tiny).build(Rng(3, "float64", gpu))
        fit(model, points(), epochs=2, ranks=given)
        found.append({name: to_host(array) for name, array in model.state().items()})
    check_same(*found, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["autoencoder", "restarts by gradient", "flow"])
def test_between_gpus_a_gradient_never_visits_the_host(name, monkeypatch):
    """Each of two ranks has half of the batch, and both halves are equal: then one process learns the same from one half."""
    monkeypatch.setitem(kernels.DEVICES, "simcupy", Runner())
    kind, settings = (EQUAL | ALIKE)[name]
    ranks, found = parallel.Ranks(Host(), Twin()), []
    ranks.in_place = lambda: None
    ranks.weight = 0.5
    x = points()[:8]
    for context in (ranks.reducing, parallel.Alone().reducing):
        model = kind(**settings).build(Rng(3, "float64", simcupy))
        given = model.on_device(x=x)["x"]
        rng = model.rng(1)
        for _ in range(3):
            with context(), simcupy.counting() as counts:
                model.train_step(given, rng)
            assert (counts.syncs, counts.uploads) == (0, 0)
        found.append({name: to_host(array) for name, array in model.state().items()})
    if name == "restarts by gradient":
        counts = [numbers.pop("params.buffers") for numbers in found]
        np.testing.assert_array_equal(counts[0], 2 * counts[1])  # of 16 examples, not 8
    check_same(*found, rtol=0, atol=1e-10)
