"""The notebooks are what their sources make: cell for cell, and they run to the end with the same results."""

import pathlib
import re
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "demos" / "notebooks"
NAMES = ("layer", "vae", "diffusion_and_flow")
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
pytestmark = pytest.mark.needs("jupytext", "nbclient", "ipykernel")


@pytest.fixture
def make(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return __import__("make")


def committed(name):
    import nbformat

    found = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(found)
    return found


def cells(notebook):
    return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]


def told(notebook):
    """What each code cell shows: its text without the digits of numbers, which differ between machines, and its pictures."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type in ("stream", "display_data", "execute_result"), output
            data = output.get("data", {})
            text = "" if "image/png" in data else output.get("text", data.get("text/plain", ""))
            found.append((cell.id, output.output_type, NUMBER.sub("#", text), "image/png" in data))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_notebook_has_the_cells_that_its_source_makes(name, make):
    assert cells(committed(name)) == cells(make.notebook(name))


def test_every_notebook_is_made_and_every_source_is_a_notebook(make):
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES) == set(make.NAMES)
    assert {path.stem for path in FOLDER.glob("*.py")} == {*NAMES, "make"}


def test_the_code_of_the_library_is_in_them_as_it_is(make):
    package = FOLDER.parents[1] / "scratchgen"
    assert make.source_of("nn.layers", "Linear") in (package / "nn" / "layers.py").read_text(encoding="utf-8")
    for name, words in (("layer", "class Linear(Layer):"), ("vae", "def loss(self, x, rng, labels=None):")):
        assert any(words in cell.source for cell in committed(name).cells), name
    assert not any(re.search(r"^(# )?source: ", cell.source, re.M) for name in NAMES for cell in committed(name).cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_to_the_end_and_shows_what_the_committed_one_shows(name, make):
    made = make.notebook(name)
    make.run(made)
    assert told(made) == told(committed(name))
    assert any(picture for *_, picture in told(made))


def test_a_name_that_is_none_is_refused_in_one_line(tmp_path):
    command = [sys.executable, FOLDER / "make.py", "gan", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "no notebook gan: use some of layer, vae, diffusion_and_flow" in done.stderr
    assert not list(tmp_path.iterdir())
