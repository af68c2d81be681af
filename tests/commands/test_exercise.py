"""The command `exercise`: the list, the file that it writes, our solution, and every mistake a user can make."""

import runpy

import pytest

from scratchgen.__main__ import main
from scratchgen.uses.exercises.catalogue import EXERCISES


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*arguments) in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        capsys.readouterr()
        return main(["exercise", *args]), *capsys.readouterr()

    return call


def test_the_list_names_each_with_its_number_level_and_file(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if line[:3].strip().isdigit()]
    for number, (line, (name, exercise)) in enumerate(zip(lines, EXERCISES.items(), strict=True), 1):
        assert line.startswith(f"{number:3} {name} ") and f"level {exercise.level}  {exercise.teaches} " in line
        assert line.endswith(exercise.files[-1].removeprefix("scratchgen/"))
    assert max(map(len, lines)) <= 140
    assert "scratchgen exercise NAME -o NAME.py" in out and "find the bug" in out


def test_it_writes_a_file_that_leads_to_the_next(run, tmp_path, capsys):
    code, out, err = run("relu", "-o", "mine.py")
    assert (code, out, err) == (0, "mine.py: write what is missing, then run: python mine.py\n", "")
    path = tmp_path / "mine.py"
    text = path.read_text(encoding="utf-8")
    assert "raise NotImplementedError(" in text and "return y > 0" not in text
    path.write_text(
        text.replace('raise NotImplementedError("f′(x), of the shape of x")', "return y > 0"), encoding="utf-8"
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith("relu: solved. Next: scratchgen exercise linear -o linear.py\n")


def test_a_bug_says_that_it_is_one(run, tmp_path):
    assert run("bug_kl", "-o", "new/bug_kl.py")[1] == "new/bug_kl.py: find the bug, then run: python new/bug_kl.py\n"
    assert "Find the bug" in (tmp_path / "new" / "bug_kl.py").read_text(encoding="utf-8")


def test_the_solution_is_shown_or_written(run, tmp_path):
    code, out, err = run("linear", "--solution")
    assert (code, err) == (0, "") and out.startswith("# scratchgen/nn/layers.py, Linear\nclass Linear(Layer):\n")
    assert "dW = xᵀ dy" in out and "self.dW += x.T @ dy" in out and not list(tmp_path.iterdir())
    assert run("linear", "--solution", "-o", "ours.py")[:2] == (
        0,
        "ours.py: solved; to see its marks: python ours.py\n",
    )
    assert "self.dW += x.T @ dy" in (tmp_path / "ours.py").read_text(encoding="utf-8")


def test_the_solution_of_a_bug_is_what_is_wrong_and_what_is_right(run):
    lines = run("bug_dropout", "--solution")[1].splitlines()
    assert lines[0] == "scratchgen/nn/layers.py, Dropout"
    assert lines[1:3] == ["- .astype(rng.real)", "+ .astype(rng.real) * (1 / (1 - self.p))"]
    assert lines[3] == EXERCISES["bug_dropout"].seen


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rely", "-o", "x.py"], ["'rely' is unknown", "do you mean relu"]),
        (["rely", "--solution"], ["'rely' is unknown", "do you mean relu"]),
        (["%", "-o", "x.py"], ["'%' is unknown", "scratchgen exercise lists them all"]),
        (["relu"], ["exercise relu:", "-o relu.py", "--solution"]),
        (["-o", "x.py"], ["give the name", "lists them all"]),
        (["--solution"], ["give the name", "lists them all"]),
        (["relu", "-o", "x.txt"], ["-o x.txt", "ends in .py"]),
        (["relu", "-o", "x"], ["-o x", "ends in .py"]),
        (["relu", "-o", "there.py"], ["-o there.py", "already", "another name"]),
        (["relu", "--solution", "-o", "there.py"], ["-o there.py", "already", "another name"]),
        (["relu", "-o", "there.py/x.py"], ["there.py/x.py", "cannot be written", "another place"]),
        (["relu", "-o", "copy.py"], ["-o copy.py", "would hide", "another name"]),
        (["relu", "-o", "numpy.py"], ["-o numpy.py", "would hide", "another name"]),
        (["relu", "linear", "-o", "x.py"], ["linear", "--help"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(args, words, run, tmp_path):
    (tmp_path / "there.py").write_text("mine")
    code, out, err = run(*args)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "mine"
