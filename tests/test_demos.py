"""Every command of demos/README.md runs with --quick and prints the paths of its pictures; every demo is listed there."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

DEMOS = pathlib.Path(__file__).parent.parent / "demos"
NAMES = sorted(path.stem for path in DEMOS.glob("*.py") if path.stem != "common")
INDEX = (DEMOS / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\| `python demos/(.*?)`", INDEX, flags=re.MULTILINE)
STARTS = {".gif": b"GIF89a", ".png": b"\x89PNG", ".md": b"| ", ".wav": b"RIFF"}
ROWS = {"L": 9, "A": 3, "V": 9, "G": 17, "Q": 3, "D": 2, "U": 8}  # the claims of the notes, by letter


def run(command, *options):
    name, *given = command.split()
    command = [sys.executable, "-W", "error", str(DEMOS / name), *given, *options]
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


def test_every_demo_is_in_the_index_with_its_figure():
    for name in NAMES:
        assert f"{name}.py" in COMMANDS
        assert (DEMOS / "figures" / f"{name}.png").exists()
    for figure in re.findall(r"\]\((figures/.*?)\)", INDEX):
        assert (DEMOS / figure).exists()


def test_every_claim_of_the_notes_has_a_demo():
    wanted = {f"{letter}{i}" for letter, n in ROWS.items() for i in range(1, n + 1)}
    rows = [line for line in INDEX.splitlines() if line.startswith("| `python")]
    assert wanted - set(re.findall(r"\b[LAVGQDU]\d+\b", "\n".join(rows))) == set()


@pytest.mark.slow
def test_the_tour_goes_on_after_a_failure_and_names_it(tmp_path):
    lines = [
        f"import sys; sys.path.insert(0, {str(DEMOS)!r}); sys.argv = ['tour.py', '--quick', '--out', {str(tmp_path)!r}]",
        "import tour; tour.GMM = None",
        "tour.SAYS = {'MADE': tour.SAYS['MADE']}",
        "tour.run(tour.main, tour.__doc__)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "mixture, moons" in done.stderr.splitlines()[-1] and "1 of 5" in done.stderr.splitlines()[-1]
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
