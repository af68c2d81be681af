"""Tables on the command line: they are learned standardised, and come back in the units of the file."""

import csv
import json
import math

import numpy as np
import pytest

from scratchgen.__main__ import main
from scratchgen.data import load
from scratchgen.plots import COLUMNS
from scratchgen.train.checkpoint import read_checkpoint

NAMES = ["income", "length, m", "$mass$", "angle", "time"]  # with signs that a .csv file and a picture must cope with
MEAN, STD = np.array([5e4, 2e-3, -3.0, 0.5, 1.7e9]), np.array([1e4, 1e-3, 1.0, 25.0, 3e6])
CORRELATION = np.array(
    [
        [1.0, 0.6, -0.4, 0.0, 0.5],
        [0.6, 1.0, -0.1, 0.3, 0.0],
        [-0.4, -0.1, 1.0, 0.2, -0.2],
        [0.0, 0.3, 0.2, 1.0, 0.0],
        [0.5, 0.0, -0.2, 0.0, 1.0],
    ]
)


def rows(n, seed=0):
    """Rows of a Gaussian table, (n, 5)."""
    noise = np.random.default_rng(seed).normal(size=(n, 5))
    return noise @ np.linalg.cholesky(CORRELATION).T * STD + MEAN


def true_log_p(x):
    """log p (n,) of rows (n, 5)."""
    z = (x - MEAN) / STD
    squares = (z @ np.linalg.inv(CORRELATION) * z).sum(axis=1)
    return -0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * CORRELATION)[1] - np.log(STD).sum()


def write(path, x, names=NAMES):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *x.tolist()])


def read(path):
    """(names, rows) of a .csv file."""
    with open(path, encoding="utf-8", newline="") as file:
        names, *cells = csv.reader(file)
    return names, np.array(cells, float)


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run a command that must succeed in an empty folder: (standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out, err

    return call


@pytest.fixture
def refused(cli, capsys):
    """Run a command that must be refused, in one line with all of these words."""

    def call(args, *words):
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        assert not [word for word in words if word not in err], err

    return call


def train(cli, model, *settings, data="x.csv", out="run", epochs=1):
    return cli(
        "train", model, "--data", data, "--epochs", epochs, "--out", out, *(["--set", *settings] if settings else [])
    )


def evaluated(cli, *args):
    return json.loads(cli("evaluate", "run", "--json", *args)[0])


ONE = "n_components=1"  # a mixture of one Gaussian fits a Gaussian table in one iteration of EM


# ---- units ----


def test_samples_and_log_p_are_in_the_units_of_the_file(cli):
    write("x.csv", rows(4_000))
    train(cli, "gmm", ONE)
    cli("sample", "run", "-n", 4_000, "-o", "s.csv")
    cli("sample", "run", "-n", 4_000, "-o", "s.npy")
    names, x = read("s.csv")
    assert names == NAMES and (abs(x - np.load("s.npy")) < 1e-5 * STD).all()
    z = (x - MEAN) / STD
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(z.T), CORRELATION, atol=0.1)

    found = evaluated(cli)
    assert found["nll"] == pytest.approx(-true_log_p(held_out("x.csv")).mean(), abs=0.03)
    assert found["log_p"] == pytest.approx(-found["nll"], abs=1e-4)
    assert found["log_p_method"] == "exact; in the units of the table"
    assert found["log_std"] == pytest.approx(np.log(STD).sum(), abs=0.1)
    with open("run/history.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    assert float(last["test_nll"]) == pytest.approx(found["nll"] - found["log_std"], abs=1e-3)


def held_out(path):
    """The test part of a table, in its units."""
    data = load(path)
    return data.scale.undo(data.x_test)


def test_other_rows_are_measured_by_the_scale_of_the_model(cli):
    write("x.csv", rows(4_000))
    write("y.csv", MEAN + STD + 0.3 * (rows(500, seed=1) - MEAN))  # with a mean and deviations of their own
    train(cli, "gmm", ONE)
    given = ["--data", "y.csv"]
    assert evaluated(cli, *given)["nll"] == pytest.approx(-true_log_p(held_out("y.csv")).mean(), abs=0.1)


def test_an_array_in_the_range_of_pixels_is_a_table_for_a_model_of_tables(cli):
    rng = np.random.default_rng(0)
    np.save("x.npy", 3 * rng.normal(size=(4_000, 3)))
    np.save("y.npy", rng.random((500, 3)))
    train(cli, "gmm", ONE, data="x.npy")
    expected = 0.5 * 3 * (1 / 3) / 9 + 3 * math.log(3 * math.sqrt(2 * math.pi))  # E u² = 1/3
    assert evaluated(cli, "--data", "y.npy")["nll"] == pytest.approx(expected, abs=0.1)


def test_a_run_on_a_table_goes_on_with_the_scale_it_began_with(cli):
    write("x.csv", rows(300))
    train(cli, "gmm", ONE)
    scale = read_checkpoint("run/checkpoint.npz")[0]["scale"]
    go_on = ["train", "gmm", "--out", "run", "--resume"]
    write("moved.csv", rows(300))
    cli(*go_on, "--epochs", 2, "--data", "moved.csv")
    write("moved.csv", 2 * rows(300, seed=1))
    cli(*go_on, "--epochs", 3, "--accept-new-data")
    notes = read_checkpoint("run/checkpoint.npz")[0]
    assert notes["epoch"] == 3 and notes["scale"] == scale and notes["columns"] == NAMES
    cli("sample", "run", "-n", 2_000, "-o", "s.npy")  # the mixture has followed the new rows, in the old units
    np.testing.assert_allclose(np.load("s.npy").std(axis=0), 2 * STD, rtol=0.2)


# ---- what train sets, and what it says ----


@pytest.mark.parametrize(
    ("model", "given", "chosen"),
    [
        ("vae", ["hidden=4"], {"likelihood": "gaussian", "draw_x": True}),
        ("ddpm", ["width=4"], {"scaling": "standard", "predict": "v"}),
        ("ddpm", ["width=4", "predict=x0"], {"scaling": "standard", "predict": "x0"}),
        ("flow_matching", ["width=4"], {"scaling": "standard", "predict": "velocity"}),
        ("flow", ["n_layers=1", "hidden=4"], {"levels": 0}),
        ("gan", ["hidden_G=4", "hidden_D=4"], {"output": "linear"}),
        ("autoencoder", ["hidden=4"], {"likelihood": "squares"}),
    ],
)
def test_train_sets_what_a_table_needs(model, given, chosen, cli):
    write("x.csv", rows(300))
    _, err = train(cli, model, *given, epochs=0)
    settings = read_checkpoint("run/checkpoint.npz")[0]["settings"]
    assert {name: settings[name] for name in chosen} == chosen and settings["n_features"] == 5
    (line,) = err.splitlines()
    assert line.startswith("x.csv: a table of 5 columns; the model learns them standardised")
    assert ("predict=x0" in line) is False and ("scaling=standard" in line) == ("scaling" in chosen)
    cli("sample", "run", "-n", 3, "-o", "s.csv")
    assert read("s.csv")[1].shape == (3, 5)


def test_why_an_array_is_a_table_is_said(cli):
    np.save("x.npy", rows(100)[:, :3])
    assert (
        "a table of 3 columns (some numbers are outside [0, 1]; pictures are" in train(cli, "gmm", ONE, data="x.npy")[1]
    )
    cli("sample", "run", "-n", 3, "-o", "s.csv")
    assert read("s.csv")[0] == ["x0", "x1", "x2"]


def test_a_model_with_labels_learns_a_table_of_classes(cli):
    labels = np.arange(400) % 2
    x = np.random.default_rng(0).normal(size=(400, 3)) + 100 * labels[:, None]
    write("x.csv", np.column_stack([x, labels]), ["a", "b", "c", "label"])
    train(cli, "flow", "conditional=true", "n_layers=1", "hidden=4", epochs=2)
    for k in (0, 1):
        cli("sample", "run", "-n", 50, "-o", "s.csv", "--label", k)
        names, x = read("s.csv")
        assert names == ["a", "b", "c"] and np.isfinite(x).all()
    assert "given the labels" in evaluated(cli)["log_p_method"]


@pytest.mark.slow
def test_log_p_of_a_wide_table_by_an_ode_is_in_its_units(cli):
    np.save("x.npy", 1e3 * np.random.default_rng(0).normal(size=(400, 4)))
    train(cli, "flow_matching", "width=8", "n_blocks=1", "n_waves=4", data="x.npy", epochs=2)
    found = evaluated(cli, "--log-p")
    assert found["log_std"] == pytest.approx(4 * math.log(1e3), abs=0.5)
    assert -20 < found["log_p"] + found["log_std"] < -3 and found["log_p_method"].endswith(
        "; in the units of the table"
    )


# ---- pictures of tables ----


@pytest.mark.parametrize("width", [1, 6])
def test_a_picture_of_a_table_shows_some_columns_and_names_the_others(width, cli):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    names = [*NAMES, "ein sehr langer Name einer Spalte", "last"][:width]
    write("x.csv", np.random.default_rng(0).normal(size=(60, width)), names)
    train(cli, "gmm", ONE)
    out, err = cli("sample", "run", "-n", 40, "-o", "s.png")
    assert out == "s.png\n"
    assert err == (f"s.png: shows {COLUMNS} columns, without {', '.join(names[COLUMNS:])}\n" if width > COLUMNS else "")
    with image.open("s.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100


# ---- what cannot be ----


@pytest.mark.parametrize("model", ["made", "rbm", "dbn", "gsn", "pix2pix"])
def test_a_model_of_pixels_names_those_that_take_a_table(model, refused):
    write("x.csv", rows(100))
    words = (
        f"--data x.csv: is a table of real numbers, but a {model} needs",
        "use another model (vae, gan, wgan, ddpm, ebm, flow, ",
    )
    refused(["train", model, "--data", "x.csv", "--epochs", 1, "--out", "run"], *words)


@pytest.mark.parametrize(
    ("model", "wrong", "right"),
    [
        ("vae", "likelihood=bernoulli", "likelihood=gaussian draw_x=true"),
        ("ddpm", "scaling=pixels", "scaling=standard predict=v"),
        ("flow", "levels=5", "levels=0"),
    ],
)
def test_a_setting_for_pixels_is_refused_with_the_one_to_use(model, wrong, right, refused):
    write("x.csv", rows(100))
    given = ["--data", "x.csv", "--epochs", 1, "--out", "run", "--set", wrong]
    refused(["train", model, *given], f"but a {model} needs pixels in [0, 1]: use --set {right} for other numbers")


def test_data_of_another_kind_than_the_models_are_refused(cli, refused):
    write("x.csv", rows(100))
    np.save("pictures.npy", np.random.default_rng(0).integers(0, 256, (100, 5), np.uint8))
    np.save("points.npy", rows(100)[:, :2])
    write("two.csv", rows(100)[:, :2], NAMES[:2])
    write("swapped.csv", rows(100), [NAMES[1], NAMES[0], *NAMES[2:]])
    train(cli, "gmm", ONE)
    refused(["evaluate", "run", "--data", "two.csv"], "two.csv: has 2 columns, but the model was trained on 5")
    refused(
        ["evaluate", "run", "--data", "ring"], "ring: is not a table, but the model was trained on one; give a .csv"
    )
    refused(["evaluate", "run", "--data", "pictures.npy"], "uint8 of shape (100, 5), but a table is an array of floats")
    refused(
        ["evaluate", "run", "--data", "swapped.csv"], "column 1 is 'length, m', but the model was trained on 'income'"
    )
    refused(
        ["train", "gmm", "--epochs", 2, "--out", "run", "--resume", "--data", "swapped.csv"], "column 1 is 'length, m'"
    )
    train(cli, "gmm", ONE, data="points.npy", out="points")
    refused(["evaluate", "points", "--data", "two.csv"], "two.csv: is a table", "trained on numbers as they are")
    train(cli, "gmm", ONE, data="pictures.npy", out="pictures")
    refused(["evaluate", "pictures", "--data", "x.csv"], "x.csv: is a table", "trained on pictures")
    for run in ("points", "pictures"):
        refused(["sample", run, "-o", "s.csv"], "-o s.csv: only samples of a table have columns")


# ---- whole trainings ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "epochs", "settings"),
    [
        ("gmm", 20, ["n_components=3"]),
        ("flow", 40, ["n_layers=4", "hidden=32"]),
        ("vae", 150, ["hidden=64,64", "n_latent=5", "decay_steps=4200"]),
        ("ddpm", 80, ["width=64", "n_times=100", "decay_steps=4500"]),
        ("flow_matching", 80, ["width=64", "decay_steps=4500"]),
    ],
)
def test_a_trained_model_makes_rows_like_those_of_the_table(model, epochs, settings, cli):
    write("x.csv", rows(4_000))
    cli("train", model, "--data", "x.csv", "--epochs", epochs, "--out", "run", "--compile", "--set", *settings)
    cli("sample", "run", "-n", 4_000, "-o", "s.csv")
    z = (read("s.csv")[1] - MEAN) / STD
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.12)
    np.testing.assert_allclose(np.corrcoef(z.T), CORRELATION, atol=0.12)
    found = evaluated(cli)
    assert found["sliced_wasserstein"] < 1.6 * found["sliced_wasserstein_floor"]
    if model in ("gmm", "flow", "vae"):
        assert found["log_p"] == pytest.approx(true_log_p(held_out("x.csv")).mean(), abs=0.15)
