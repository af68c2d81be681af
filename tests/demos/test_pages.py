"""The pages of demos/: a gallery with a sentence for each demo, the measured results, the mistakes of the notes."""

import ast
import pathlib
import re

import pytest

from scratchgen.plots import LARGEST

ROOT = pathlib.Path(__file__).parents[2]
DEMOS, TESTS = ROOT / "demos", ROOT / "tests"
GALLERY, RESULTS, ERRATA = (
    (DEMOS / f"{name}.md").read_text(encoding="utf-8") for name in ("README", "RESULTS", "ERRATA")
)
NAMES = sorted(path.stem for path in DEMOS.glob("*.py") if path.stem not in ("common", "recipes", "scaling", "seeds"))
ROWS = [line.strip("| ").split(" | ") for line in GALLERY.splitlines() if line.startswith("| [")]


def test_every_demo_is_in_the_gallery_with_its_picture():
    shown = {command.split("`")[1].removeprefix("python demos/"): picture for picture, command, _ in ROWS}
    for name in NAMES:
        figure = f"figures/{name}.png"
        assert shown[f"{name}.py"] == f'[<img src="{figure}" width="220">]({figure})'
    assert len(ROWS) == len(shown) == len(NAMES) + 1  # and vae.py with a folder of one's own


@pytest.mark.parametrize("sentence", [sentence for _, _, sentence in ROWS])
def test_a_demo_is_one_short_sentence(sentence):
    assert len(sentence.split()) <= 20
    assert sentence.endswith(".") and ". " not in sentence


def test_it_is_the_claim_of_the_demo_where_that_is_short_enough():
    shown = {command.split("`")[1]: sentence.replace("\\|", "|") for _, command, sentence in ROWS}
    for name in NAMES:
        docstring = ast.get_docstring(ast.parse((DEMOS / f"{name}.py").read_text(encoding="utf-8")))
        claim = docstring.splitlines()[0]
        if len(claim.split()) <= 20:
            assert shown[f"python demos/{name}.py"] == claim


def test_little_stands_above_the_gallery():
    above, _, _ = GALLERY.partition("\n## ")
    assert len([line for line in above.splitlines() if line]) <= 9  # the title and eight lines


def test_every_demo_has_results():
    for name in NAMES:
        assert f"**`python demos/{name}.py`**" in RESULTS


def test_the_table_of_all_families_is_the_one_that_its_demo_wrote():
    assert (DEMOS / "figures" / "compare.md").read_text(encoding="utf-8") in RESULTS


@pytest.mark.parametrize("page", [GALLERY, RESULTS, ERRATA], ids=["gallery", "results", "errata"])
def test_files_and_commands_that_a_page_names_exist(page):
    for file in re.findall(r"\]\(([\w./]+)(?:#[\w-]*)?\)", page) + re.findall(r'src="(.*?)"', page):
        assert (DEMOS / file).exists()
    for name in re.findall(r"`(?:python )?demos/(?!NAME)(\w+\.py)(?!::)", page):
        assert (DEMOS / name).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py::test_\w+)`", ERRATA))))
def test_every_test_of_a_mistake_exists(name):
    file, _, test = name.partition("::")
    assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8")


def test_every_mistake_has_a_test_and_every_claim_a_demo():
    rows = [line for line in ERRATA.splitlines() if line.startswith("| ") and not line.startswith("| notes")]
    assert len(rows) > 40
    for row in rows:
        assert "::test_" in row or "`python demos/" in row


def test_figures_are_small():
    sizes = {path.name: path.stat().st_size for path in (DEMOS / "figures").iterdir()}
    assert not {name: size for name, size in sizes.items() if size > LARGEST}
