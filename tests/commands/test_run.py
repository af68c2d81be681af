"""What a run on the command line says and keeps: units, how seldom samples are measured, moved folders, changed data."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratchgen import Rng
from scratchgen.__main__ import main
from scratchgen.check.variants import variants
from scratchgen.commands.train import Seldom
from scratchgen.data import load
from scratchgen.metrics.meanings import meaning
from scratchgen.metrics.samples import sample_metrics
from scratchgen.models import find_model, model_names
from scratchgen.train.checkpoint import read_checkpoint

RESUME = ["train", "vae", "--epochs", "2", "--out", "run", "--resume"]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        code = main([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def run(cli):
    """The same, with a run of a VAE on pictures of one's own, a.npy."""
    np.save("a.npy", np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    assert (
        cli("train", "vae", "--data", "a.npy", "--epochs", "1", "--out", "run", "--set", "hidden=8", "batch=20")[0] == 0
    )
    return cli


# ---- moved, changed ----


@pytest.mark.parametrize("command", [RESUME, ["evaluate", "run", "--json"], ["sample", "run", "-o", "s.png"]])
def test_a_run_that_moved_with_its_data(command, run):
    os.mkdir("other")
    shutil.move("run", "other")
    shutil.move("a.npy", "other")
    os.chdir("other")
    if command[0] != "sample":  # the checkpoint knows what its examples look like
        code, _, err = run(*command)
        assert code == 2 and "a.npy: no such file" in err and "give it with --data" in err
    given = [] if command[0] == "sample" else ["--data", "a.npy"]
    assert run(*command, *given)[0] == 0
    if command is RESUME:  # which remembers the new place
        assert run("evaluate", "run")[0] == 0


def test_a_run_goes_on_only_with_its_own_data(run):
    x = np.load("a.npy")
    for changed in (x[:-1], x[::-1], np.where(x == x[0, 0, 0], 0, x), x.astype(np.float32) / 255 * 0.9):
        np.save("a.npy", changed)
        code, out, err = run(*RESUME)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert "has changed since" in err and "--accept-new-data" in err
    code, _, err = run("evaluate", "run")
    assert code == 0 and "has changed since" in err
    assert run(*RESUME, "--accept-new-data")[0] == 0
    assert run(*RESUME)[0] == 0


def test_a_class_folder_that_was_renamed_is_other_data(cli):
    for name in "ab":
        for i in range(20):
            path = Path("pictures") / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng((i, ord(name))).integers(0, 256, (4, 4), dtype=np.uint8)).save(path)
    given = ["--data", "pictures", "--set", "batch=10", "hidden_G=8", "hidden_D=8"]
    assert cli("train", "conditional_gan", "--epochs", "1", "--out", "run", *given)[0] == 0
    os.rename("pictures/a", "pictures/z")
    code, _, err = cli("train", "conditional_gan", "--epochs", "2", "--out", "run", "--resume")
    assert code == 2 and "x has other values" in err


# ---- what numbers mean ----


def test_every_number_of_every_model_has_a_unit():
    for name in model_names():
        for settings in variants(name):
            model, batch = find_model(name).example(Rng(0), **settings)
            found = model.train_step(rng=Rng(1), **batch)
            found |= {f"test_{key}": value for key, value in model.evaluate(rng=Rng(1), **batch).items()}
            assert not [key for key in found if not meaning(key)]


@pytest.mark.parametrize("data", ["digits", "ring", "moons"])
def test_every_measure_of_samples_has_a_unit(data):
    class Real:
        def sample(self, n, rng, label=None):
            return np.resize(data.x_train, (n, data.x_train.shape[1]))

    data = load(data)
    measure, left_out = sample_metrics(data)
    assert left_out == ""
    assert all(meaning(name) for name in measure(Real(), Rng(0)))


def test_which_way_is_better_is_said():
    assert meaning("test_negative_elbo") == "nats per example; a bound on -log p, lower is better"
    assert meaning("binarized_nll").endswith("lower is better") and meaning("log_p").endswith("higher is better")
    assert meaning("something_of_ones_own") == ""


# ---- points of one's own ----


@pytest.mark.parametrize("width", [1, 2])
def test_points_of_ones_own_are_measured_against_held_out_ones(width, cli):
    x = np.random.default_rng(0).normal(size=(600, width)) * 40 + 3
    np.save("points.npy", x)
    settings = ["likelihood=gaussian", "hidden=8", "n_latent=1", "batch=50"]
    assert cli("train", "vae", "--data", "points.npy", "--epochs", "1", "--out", "run", "--set", *settings)[0] == 0
    found = json.loads(cli("evaluate", "run", "--json")[1])
    assert found["sliced_wasserstein"] > 3 * found["sliced_wasserstein_floor"] > 0


def test_real_points_are_at_the_floor():
    class Real:
        def sample(self, n, rng, label=None):
            return x[rng.integers(len(x), n)]

    x = np.random.default_rng(0).normal(size=(5_000, 2)).astype(np.float32)
    np.save("points.npy", x)
    data = load("points.npy")
    os.remove("points.npy")
    found = sample_metrics(data)[0](Real(), Rng(7))
    assert found["sliced_wasserstein"] == pytest.approx(found["sliced_wasserstein_floor"], rel=0.5)


def test_a_column_that_never_changes_does_no_harm(cli):
    np.save("points.npy", np.stack([np.linspace(0, 1, 100), np.ones(100)], axis=1))
    measure, _ = sample_metrics(load("points.npy"))

    class Model:
        def sample(self, n, rng, label=None):
            return rng.normal((n, 2))

    assert np.isfinite(measure(Model(), Rng(0))["sliced_wasserstein"])


# ---- log p by an ODE ----

SMALL = ["width=8", "n_blocks=1", "n_waves=4", "n_steps=3"]
FLOW = ["predict=velocity", *SMALL]


def trained_on(array, cli, model, *settings):
    """A run of one epoch on pictures or points of one's own, in the folder run."""
    np.save("own.npy", array)
    command = ["train", model, "--data", "own.npy", "--epochs", "1", "--out", "run"]
    assert cli(*command, *(["--set", *settings] if settings else []))[0] == 0


def test_of_points_in_the_plane_log_p_is_always_measured(cli):
    trained_on(np.random.default_rng(0).normal(size=(300, 2)), cli, "flow_matching", "scaling=standard", *FLOW)
    code, out, err = cli("evaluate", "run", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and -20 < found["log_p"] < 0 < found["log_p_error"]
    assert found["log_p_method"].startswith("ODE, rk4, 100 steps; with 50 it differs by ")
    assert "log_p" in cli("evaluate", "run")[1]


def test_of_pictures_log_p_is_measured_on_request_and_its_cost_said_first(cli):
    pictures = np.random.default_rng(0).integers(0, 256, (300, 2, 2)).astype(np.uint8)
    trained_on(pictures, cli, "flow_matching", "levels=256", *FLOW)
    assert "log_p" not in json.loads(cli("evaluate", "run", "--json")[1])
    code, out, err = cli("evaluate", "run", "--json", "--log-p")
    assert code == 0 and "bits per pixel of 256 levels" in json.loads(out)["log_p_method"]
    cost = "log p takes 2,400 passes of the network: 4 × 4 for each of 100 steps, and again for half of them"
    assert err.splitlines()[0] == cost


@pytest.mark.parametrize(
    ("side", "model", "settings", "said"),
    [
        (2, "flow_matching", ["levels=256", "predict=x0", *SMALL], "predict=x0 gives no density of x: train with "),
        (2, "ddpm", ["n_times=20", *SMALL], "log p of pictures needs noise in their grey levels: train with levels"),
        (2, "gan", ["hidden_G=4", "hidden_D=4"], "--log-p: a gan has no density of x: use ddpm, flow, flow_matching, "),
        (11, "flow_matching", ["levels=256", *FLOW], "log p by the ODE is for at most 100 numbers per example; these"),
    ],
)
def test_where_there_is_no_log_p_the_request_is_refused_in_one_line(side, model, settings, said, cli):
    pictures = np.random.default_rng(0).integers(0, 256, (300, side, side)).astype(np.uint8)
    trained_on(pictures, cli, model, *settings)
    code, out, err = cli("evaluate", "run", "--log-p")
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err, err
    assert cli("evaluate", "run")[0] == 0


def test_a_model_that_says_log_p_anyway_says_it_on_request_too(cli):
    pictures = np.random.default_rng(0).integers(0, 256, (300, 2, 2)).astype(np.uint8)
    trained_on(pictures, cli, "vae", "hidden=4", "n_latent=1")
    code, out, err = cli("evaluate", "run", "--log-p")
    assert (code, err) == (0, "") and "importance-weighted" in out


# ---- measures of samples take a tenth of the training ----


@pytest.mark.parametrize(("training", "measuring", "every"), [(1.0, 0.05, 1), (1.0, 0.35, 4), (0.1, 0.195, 20)])
def test_samples_are_measured_so_seldom_that_it_costs_a_tenth(training, measuring, every, monkeypatch, capsys):
    now, epochs = [0.0], 45
    monkeypatch.setattr("scratchgen.commands.train.time.perf_counter", lambda: now[0])

    def measure(model, rng, epoch):
        now[0] += measuring
        return {"frechet": 1.0}

    seldom, measured = Seldom(measure, epochs), []
    for epoch in range(1, epochs + 1):
        now[0] += training
        if seldom(None, None, epoch):
            measured.append(epoch)
    assert measured == sorted({1, epochs} | set(range(every, epochs + 1, every)))
    assert (f"after every {every} epochs" in capsys.readouterr().err) == (every > 1)


def test_a_gan_on_points_measures_its_last_epoch(cli):
    given = ["--data", "ring", "--epochs", "5", "--out", "run", "--set", "output=linear", "hidden_G=8", "hidden_D=8"]
    code, out, _ = cli("train", "gan", *given)
    assert code == 0 and "modes with at least one good sample" in out
    with open("run/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["modes"]) >= 0 and float(rows[-1]["modes"]) >= 0


# ---- settings of a model inside another ----


def test_settings_of_the_model_inside(cli):
    np.save("few.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    given = [
        "train",
        "latent_diffusion",
        "--data",
        "few.npy",
        "--epochs",
        "1",
        "--out",
        "run",
        "--set",
        "width=8",
        "batch=9",
    ]
    code, _, err = cli(*given)
    assert code == 2 and "the vqgan inside: batch 128 is larger" in err and "use --set vqvae.batch=36 or fewer" in err
    shutil.rmtree("run", ignore_errors=True)
    assert cli(*given, "vqvae.batch=10", "vqvae.hidden=16,8", "vqvae.n_codes=4")[0] == 0
    settings = read_checkpoint("run/checkpoint.npz")[0]["settings"]["vqvae"]
    assert (settings["batch"], settings["hidden"], settings["n_codes"]) == (10, [16, 8], 4)
    for wrong, words in (("vqvae.depth=3", "--set depth"), ("vqvae.batch=x", "expected a whole number")):
        code, _, err = cli(*given[:-4], "new", "--set", wrong)
        assert code == 2 and words in err and len(err.splitlines()) == 1


def test_large_pictures_are_sampled_at_full_size(cli):
    np.save("large.npy", np.random.default_rng(0).integers(0, 256, (12, 200, 150, 3), dtype=np.uint8))
    given = ["--data", "large.npy", "--epochs", "1", "--out", "run", "--set", "hidden=4", "n_latent=2", "batch=10"]
    assert cli("train", "vae", *given)[0] == 0
    assert cli("sample", "run", "-n", "6", "-o", "s.png")[0] == 0
    with Image.open("s.png") as picture:
        assert picture.size[0] >= 3 * 150 and picture.size[1] >= 2 * 200


def test_a_flow_takes_the_grey_levels_from_its_pictures(cli):
    for L in (2, 256):
        pictures = np.random.default_rng(0).integers(0, L, (300, 2, 2)) * (255 // (L - 1))
        np.save("own.npy", pictures.astype(np.uint8))
        command = ["train", "flow", "--data", "own.npy", "--epochs", "1", "--set", "n_layers=1", "hidden=4"]
        assert cli(*command, "--out", f"run{L}")[0] == 0
        assert "bits_per_dim" in json.loads(cli("evaluate", f"run{L}", "--json")[1])
    np.save("own.npy", np.random.default_rng(0).uniform(size=(300, 2, 2)))
    assert cli(*command, "--out", "run0")[0] == 0
    assert "bits_per_dim" not in json.loads(cli("evaluate", "run0", "--json")[1])
