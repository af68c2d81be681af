"""The best epoch by test loss is kept beside the last one, and the history is drawn where that can be done."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from scratchgen import plots
from scratchgen.__main__ import main
from scratchgen.commands.train import draw_history
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.plots import panels_of, picture_of_history
from scratchgen.train.checkpoint import load_model, read_checkpoint
from scratchgen.train.run import test_loss as loss_of

TRAIN = ["train", "vae", "--out", "run", "--set", "hidden=16", "n_latent=2"]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder: (its exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def losses(monkeypatch):
    """losses([5.0, 4.0, ...]): what a VAE measures on the test data in its next epochs."""

    def give(values):
        values = iter(values)
        monkeypatch.setattr(VAE, "evaluate", lambda self, x, rng, labels=None: {"negative_elbo": next(values)})

    return give


def epoch_of(name):
    return read_checkpoint(Path("run") / name)[0]["epoch"]


def test_the_epoch_with_the_least_test_loss_is_kept(cli, losses):
    for epochs, values, best in [(3, [5.0, 4.0, 4.5], 2), (4, [4.0], 2), (6, [3.9, 4.2], 5)]:
        losses(values)
        assert cli(*TRAIN, "--epochs", epochs, *(["--resume"] if epochs > 3 else []))[0] == 0
        assert (epoch_of("best.npz"), epoch_of("checkpoint.npz")) == (best, epochs)
    assert read_checkpoint("run/best.npz")[0]["test_loss"] == ["test_negative_elbo", 3.9]


def test_killed_between_best_and_checkpoint_the_epoch_is_made_again(cli, losses):
    losses([5.0, 4.0, 3.0])
    cli(*TRAIN, "--epochs", 1)
    before = Path("run/checkpoint.npz").read_bytes()
    cli(*TRAIN, "--epochs", 3, "--resume")
    best = Path("run/best.npz").read_bytes()
    Path("run/checkpoint.npz").write_bytes(before)  # as if killed after the best of epoch 3, resumed from epoch 1
    losses([4.0, 3.0])
    cli(*TRAIN, "--epochs", 3, "--resume")
    assert Path("run/best.npz").read_bytes() == best


def test_losses_on_new_data_begin_anew(cli, losses):
    rng = np.random.default_rng(0)
    np.save("a.npy", rng.random((60, 4), dtype=np.float32))
    np.save("b.npy", rng.random((60, 4), dtype=np.float32))
    losses([1.0])
    given = ["--set", "batch=10"]
    assert cli(*TRAIN, *given, "--data", "a.npy", "--epochs", 1)[0] == 0
    losses([2.0, 1.5])
    assert cli(*TRAIN, *given, "--data", "b.npy", "--epochs", 3, "--resume", "--accept-new-data")[0] == 0
    assert epoch_of("best.npz") == 3


def test_sample_and_evaluate_take_the_best_epoch(cli, losses, monkeypatch):
    losses([1.0, 2.0, 7.0])
    monkeypatch.setattr("scratchgen.commands.evaluate.sample_metrics", lambda *given: (None, ""))
    cli(*TRAIN, "--epochs", 2)
    assert json.loads(cli("evaluate", "run", "--json", "--best")[1])["epoch"] == 1
    assert cli("sample", "run", "-n", 3, "-o", "best.npy", "--best")[0] == 0
    assert cli("sample", "run", "-n", 3, "-o", "last.npy")[0] == 0
    model = load_model("run/best.npz")[0]
    np.testing.assert_array_equal(np.load("best.npy"), model.sample(3, model.rng((0, 0, 1))))
    assert not np.array_equal(np.load("best.npy"), np.load("last.npy"))


@pytest.mark.parametrize("command", [["sample", "run", "-o", "x.npy"], ["evaluate", "run"]])
def test_without_a_test_loss_there_is_no_best(command, cli):
    assert cli("train", "rbm", "--epochs", 1, "--out", "run", "--set", "n_hidden=8")[0] == 0
    assert sorted(path.name for path in Path("run").iterdir()) == ["checkpoint.npz", "history.csv"]
    code, _, said = cli(*command, "--best")
    assert code == 2 and said.count("\n") == 1
    assert "no best epoch of its rbm" in said and "leave --best out" in said
    assert not Path("x.npy").exists()


def test_what_the_test_loss_of_a_model_is():
    vae, gan = VAE(), GAN()
    assert loss_of(vae, {"loss": 1.0, "test_nll": 2.0, "test_negative_elbo": 3.0}) == ("test_negative_elbo", 3.0)
    assert loss_of(vae, {"test_binarized_nll": 2.0, "test_mse": 1.0}) == ("test_binarized_nll", 2.0)
    assert loss_of(vae, {"loss": 1.0, "test_accuracy": 1.0}) is None
    assert loss_of(gan, {"test_mse": 1.0}) is None
    row = {"test_negative_elbo": 3.0, "test_nll": 2.0, "test_kl": 1.0}
    assert loss_of(VAE(beta=4.0), row) == ("test_nll + 4 test_kl", 6.0)  # what this VAE minimises


# ---- the picture ----


def test_train_draws_its_history(cli, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("scratchgen.commands.train.draw_history", draw_history)
    code, out, said = cli(*TRAIN, "--epochs", 2)
    assert (code, said) == (0, "")
    names = ["checkpoint.npz", "best.npz", "history.csv", "history.png"]
    assert out.splitlines()[-4:] == [str(Path("run") / name) for name in names]
    assert Path("run/history.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_one_line_says_so(cli, monkeypatch):
    monkeypatch.setattr("scratchgen.commands.train.draw_history", draw_history)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, said = cli(*TRAIN, "--epochs", 2)
    assert code == 0 and "history.png" not in out
    assert said == "run/history.png is not drawn: pictures need matplotlib: pip install matplotlib\n"


@pytest.mark.parametrize("epochs", [0, 1])
def test_no_curve_is_drawn_of_fewer_than_two_epochs(epochs, cli, monkeypatch):
    monkeypatch.setattr("scratchgen.commands.train.draw_history", draw_history)
    code, out, said = cli(*TRAIN, "--epochs", epochs)
    assert (code, said) == (0, "") and "history.png" not in out


def test_test_data_is_drawn_beside_training_data():
    columns = ["loss", "nll", "kl", "test_negative_elbo", "test_nll", "test_kl", "test_mse"]
    assert panels_of(columns) == {
        "loss": ["loss", "test_negative_elbo"],
        "nll": ["nll", "test_nll"],
        "kl": ["kl", "test_kl"],
        "mse": ["test_mse"],
    }
    assert panels_of(["loss", "test_binarized_nll"]) == {"loss": ["loss", "test_binarized_nll"]}
    assert panels_of(["frechet", "frechet_floor"]) == {"frechet": ["frechet", "frechet_floor"]}


def test_every_number_is_drawn_and_a_wide_range_is_logarithmic(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        {"epoch": e, "seconds": 1.0, "loss": 100.0 / e, "test_loss": -e, "penalty": 10.0**-e, "frechet": float("nan")}
        | {"frechet_floor": 1.0} | ({"frechet": 2.0, "frechet_error": 0.5} if e % 2 else {})
        for e in range(1, 8)
    ]  # fmt: skip
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    picture_of_history(rows, tmp_path / "x.png", best=3)
    axes = {axis.get_title(): axis for axis in figures[0].axes if axis.axison}
    assert axes.keys() == {"loss", "penalty", "frechet"}
    assert [axis.get_yscale() for axis in axes.values()] == ["linear", "log", "linear"]
    lines = {line.get_label(): line.get_xydata() for axis in axes.values() for line in axis.lines}
    np.testing.assert_allclose(lines["loss"], [(e, 100 / e) for e in range(1, 8)])
    np.testing.assert_allclose(lines["frechet"], [(e, 2) for e in (1, 3, 5, 7)])
    assert axes["frechet"].collections  # the band of the error
    assert all(axis.get_xlabel() == "epoch" for axis in axes.values())
