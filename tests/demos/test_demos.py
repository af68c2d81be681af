"""Every command of demos/README.md runs with --quick and prints the paths of its pictures; every demo is listed there.

No axis of a figure has numbers without a label. And demos take a user's own data, or say at once what they need; what takes
long says how far it is.
"""

import ast
import pathlib
import re
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from labelled import unlabelled
from PIL import Image

from scratchgen.backend import Rng
from scratchgen.data import load
from scratchgen.models.flow import Flow
from scratchgen.models.gan import GAN
from scratchgen.plots import new_figure
from scratchgen.train import progress

DEMOS = pathlib.Path(__file__).parents[2] / "demos"
LABELLED = pathlib.Path(__file__).with_name("labelled.py")  # runs a demo and looks at its axes
NAMES = sorted(path.stem for path in DEMOS.glob("*.py") if path.stem not in ("common", "recipes", "scaling", "seeds"))
INDEX = (DEMOS / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\|[^|\n]*\| `python demos/(.*?)`", INDEX, flags=re.MULTILINE)
ON_PICTURES = [name for name in NAMES if "pictures(args" in (DEMOS / f"{name}.py").read_text(encoding="utf-8")]
STARTS = {".gif": b"GIF89a", ".png": b"\x89PNG", ".md": b"| ", ".wav": b"RIFF"}
ROWS = {"L": 9, "A": 3, "V": 9, "G": 17, "Q": 3, "D": 2, "U": 8}  # the claims of the notes, by letter


def run(command, *options):
    name, *given = command.split()
    command = [sys.executable, "-W", "error", str(LABELLED), str(DEMOS / name), *given, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 200 small colour pictures: a square of some colour somewhere."""
    path, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for i in range(200):
        picture = np.full((10, 10, 3), 255, np.uint8)
        x, y = rng.integers(0, 6, 2)
        picture[y : y + 4, x : x + 4] = rng.integers(0, 200, 3)
        Image.fromarray(picture).save(path / f"{i}.png")
    return path


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=() if c == "vae.py" else pytest.mark.slow) for c in COMMANDS]
)
def test_every_command_of_the_index_runs_quickly_and_writes_its_pictures(command, folder, tmp_path):
    done = run(command.replace("FOLDER", str(folder)), "--quick", "--out", str(tmp_path / "new" / "folder"))
    assert done.returncode == 0, done.stderr
    written = [path for path in (tmp_path / "new" / "folder").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert str(path) in done.stdout
        assert path.read_bytes().startswith(STARTS[path.suffix])


def test_an_axis_with_numbers_and_no_label_is_found():
    figure, axes = new_figure(6, 3, 1, 3)
    for axis, numbers in zip(axes[0], ([1, 100], [1, 100], ["k = 1", "k = 2"])):
        axis.plot(numbers, [0.5, 0.25])
        axis.set(xlabel="x")
    axes[0, 0].set(yscale="log", ylabel="nats")
    axes[0, 1].set(xlabel="", title="two", yticks=[])
    axes[0, 2].set(xlabel="", yticks=[])
    figure.draw_without_rendering()
    assert unlabelled(figure) == ["x of 'two'"]


def test_every_demo_is_in_the_index_with_its_figure():
    for name in NAMES:
        assert f"{name}.py" in COMMANDS
        assert (DEMOS / "figures" / f"{name}.png").exists()
    for figure in re.findall(r"\]\((figures/.*?)\)", INDEX):
        assert (DEMOS / figure).exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_is_a_claim_what_one_sees_and_what_to_read(name):
    docstring = ast.get_docstring(ast.parse((DEMOS / f"{name}.py").read_text(encoding="utf-8")))
    claim, seen, rest = docstring.split("\n\n")
    assert claim.endswith(".") and len(claim.split()) <= 20 and "\n" not in claim
    assert len(seen.splitlines()) <= 4 and len(docstring.split()) <= 80
    assert re.search(r"\bRead (scratchgen|demos)/", rest)


def test_every_claim_of_the_notes_has_a_demo():
    wanted = {f"{letter}{i}" for letter, n in ROWS.items() for i in range(1, n + 1)}
    results = (DEMOS / "RESULTS.md").read_text(encoding="utf-8")
    codes = re.findall(r"\[([LAVGQDU]\d+(?:, [LAVGQDU]\d+)*)\]", results)
    assert wanted - set(", ".join(codes).split(", ")) == set()


def test_every_family_that_draws_is_on_one_branch_of_the_tree(demo):
    on_branches = [name for branch in demo("taxonomy").TREE for name in branch.families]
    assert sorted(on_branches) == sorted(set(demo("recipes").FAMILIES) - {"autoencoder"})


@pytest.mark.parametrize("n_layers", [3, 4])
def test_a_net_of_noise_is_bent_until_it_lies_where_the_flow_brings_it(demo, n_layers):
    bent, model = demo("likelihood_flow"), Flow(n_features=2, n_layers=n_layers, hidden=(8,), averaging=0.0)
    model.build(Rng(0))
    model.params.theta += 0.3 * Rng(1).normal(model.params.theta.shape)
    model.average.average[...] = model.params.theta
    stages = bent.bending(model, seed=0)
    assert len(stages) == n_layers + 2
    z = Rng((0, 0, 9)).normal((bent.POINTS, 2))
    for stage, x in ((0, z), (-1, model.inverse(z))):
        wanted = (x - x.mean(axis=0)) / x.std(axis=0)
        order = [1, 0] if stage == 0 and n_layers % 2 else [0, 1]  # the axes of the data
        np.testing.assert_allclose(stages[stage, -bent.POINTS :], wanted[:, order], atol=1e-4)
    for before, after in pairwise(stages):  # a coupling leaves one axis as it is, up to its scale
        kept = [np.corrcoef(before[-bent.POINTS :, i], after[-bent.POINTS :, i])[0, 1] for i in (0, 1)]
        assert max(kept) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_the_tour_goes_on_after_a_failure_and_names_it(tmp_path):
    lines = [
        f"import sys; sys.path.insert(0, {str(DEMOS)!r}); sys.argv = ['tour.py', '--quick', '--out', {str(tmp_path)!r}]",
        "import tour; tour.GMM = None",
        "tour.FAMILIES = {'MADE': tour.FAMILIES['MADE']}",
        "tour.run(tour.main, tour.__doc__)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "mixture, moons" in done.stderr.splitlines()[-1] and "1 of 4" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and "FAILED: TypeError" in done.stdout
    assert (tmp_path / "tour.png").exists() and (tmp_path / "tour" / "made.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nonsense"], "nonsense"),
        (["--data", "ring"], "pictures"),
        (["--epochs", "0"], "--epochs"),
        (["--seed", "-1"], "--seed"),
        (["--out", __file__], __file__),
    ],
)
def test_mistakes_end_in_one_line(options, words):
    done = run("vae.py", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


@pytest.fixture(scope="module")
def odd_data(tmp_path_factory):
    """A folder of small data sets that are unlike the bundled digits."""
    folder, digits = tmp_path_factory.mktemp("odd"), load("digits")
    x, labels = digits.x_train.reshape(-1, 8, 8), digits.labels_train
    colour = np.stack([x, x, 1 - x], axis=3)
    sets = {
        "two": {"x": x[:2], "labels": labels[:2]},
        "few": {"x": x[:15], "labels": labels[:15]},
        "colour": {"x": colour[:100]},
        "rows": {"x_train": x[:60].reshape(60, 64)[:, :37], "x_test": x[60:61].reshape(1, 64)[:, :37]},
        "points": {"x": x[:100, 3, 3:5]},
        "alike": {"x": 0 * x[:100, :, :6], "labels": labels[:100]},
        "gaps": {
            "x_train": x[:500, :, 1:7], "x_test": x[500:720, :, 1:7], "labels_train": 2 * labels[:500],
            "labels_test": 2 * labels[500:720],
        },
        "single": {
            "x_train": x[:300], "x_test": x[300:600], "labels_train": np.arange(300) // 299,
            "labels_test": np.arange(300) % 2,
        },
    }  # fmt: skip
    for name, arrays in sets.items():
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


@pytest.fixture
def tried(demo, odd_data, tmp_path, monkeypatch, capsys):
    """tried(name, data): the exit code of a demo on one of odd_data, its lines on standard error, and its output.

    A warning counts as a failure, and so does any training before a refusal.
    """
    monkeypatch.chdir(odd_data)

    def tried(name, data):
        module, common = demo(name), demo("common")
        arguments = ["--data", f"{data}.npz", "--quick", "--epochs", "1", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        options, fitted = getattr(module, "options", None), []
        with monkeypatch.context() as patched, warnings.catch_warnings():
            warnings.simplefilter("error")
            real = common.fit
            patched.setattr(common, "fit", lambda *args, **kwargs: fitted.append(1) or real(*args, **kwargs))
            try:
                code = common.run(module.main, module.__doc__, options=options) or 0
            except SystemExit as done:
                code = done.code
        out, err = capsys.readouterr()
        assert code == 0 or not fitted
        return code, err.splitlines(), out

    return tried


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("vae", "points", "this demo needs pictures"),
        ("chain_boltzmann", "colour", "this demo needs grey pictures"),
        ("use_translation", "alike", "this demo needs square grey pictures"),
        ("autoencoder_interpolation", "two", "this demo needs 2 test pictures, and there is 1: use more"),
        ("tour", "few", "this demo needs 50 training pictures, and there are 14: use more"),
        ("vqgan", "rows", "these are 37x1: use larger ones"),
        ("diffusion_guidance", "single", "of each class, and of class 1 there is 1: use more"),
        ("chain_gsn", "colour", "no labels"),
        ("likelihood_flow_digits", "colour", "at most 100 pixels"),
        ("compare", "few", "14 pictures to train on"),
    ],
)
def test_data_that_a_demo_cannot_use_are_refused_before_any_training(tried, name, data, words):
    code, lines, out = tried(name, data)
    assert code == 2 and len(lines) == 1 and not out
    assert lines[0].startswith(f"{name}.py: ") and words in lines[0]


def test_a_measure_that_would_mean_nothing_is_left_out_and_that_is_said(tried):
    code, lines, out = tried("vqgan", "few")
    assert code == 0 and not lines
    assert "left out: Fréchet distance and reading: " in out and "14 pictures" in out
    assert "sharpness" in out and "another digit" not in out


@pytest.mark.slow
@pytest.mark.parametrize("data", ["two", "few", "colour", "rows", "points", "alike", "gaps"])
@pytest.mark.parametrize("name", ON_PICTURES)
def test_a_demo_takes_odd_data_or_says_what_it_needs(tried, name, data):
    code, lines, out = tried(name, data)
    assert code in (0, 2)
    if code:
        assert len(lines) == 1 and not out
    else:
        assert ".png" in out


def test_loops_of_demos_say_how_far_they_are(demo, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE", 0)
    common = demo("common")
    model = GAN(n_features=2, hidden_D=(4,), hidden_G=(4,), batch=8).build(Rng(0))
    common.train_D(model, lambda n, rng: rng.normal((n, 2)), 3, seed=0)
    assert capsys.readouterr().err.splitlines() == [f"step of D {i} of 3 done" for i in (1, 2, 3)]

    with ThreadPoolExecutor(1) as pool:
        assert common.results([pool.submit(time.sleep, 0.01), pool.submit(pow, 2, 3)], "job") == [None, 8]
    assert capsys.readouterr().err.splitlines()[-1] == "job 2 of 2 done"
