"""Every demo runs with --quick, prints the paths of its pictures, and is listed in demos/README.md."""

import pathlib
import subprocess
import sys

import pytest

DEMOS = pathlib.Path(__file__).parent.parent / "demos"
NAMES = sorted(path.stem for path in DEMOS.glob("*.py") if path.stem != "common")


def run(name, *options):
    command = [sys.executable, "-W", "error", str(DEMOS / f"{name}.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "vae" else pytest.mark.slow) for n in NAMES])
def test_runs_quickly_and_writes_its_picture(name, tmp_path):
    done = run(name, "--quick", "--out", str(tmp_path / "new" / "folder"))
    assert done.returncode == 0, done.stderr
    pictures = list((tmp_path / "new" / "folder").iterdir())
    assert pictures
    for picture in pictures:
        assert str(picture) in done.stdout
        starts = {".gif": b"GIF89a", ".png": b"\x89PNG", ".md": b"| "}
        assert picture.read_bytes().startswith(starts[picture.suffix])


def test_every_demo_is_in_the_index_with_its_figure():
    index = (DEMOS / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"python demos/{name}.py" in index
        assert (DEMOS / "figures" / f"{name}.png").exists()


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
    done = run("vae", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
