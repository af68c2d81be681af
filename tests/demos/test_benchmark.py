"""demos/benchmark.py: its JSON, its table and its figure, and what becomes of a contestant that fails.

That all contestants are given the same work is held in test_peers.py.
"""

import contextlib
import functools
import json
import math
import os
import sys
import types

import numpy as np
import pytest

from scratchgen.backend import UsageError
from scratchgen.models.conditional_gan import ConditionalGAN


@pytest.mark.slow
def test_json_has_a_row_for_each_contestant_and_nothing_else_is_printed(demo, tmp_path, monkeypatch, capsys):
    benchmark = demo("benchmark")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    options = ["--json", "--quick", "--seconds", "0.2", "--case", "2-128-128-2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *options])
    benchmark.run(benchmark.main, benchmark.__doc__, options=benchmark.options)
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"  # only the contestants' processes are without
    found = json.loads(capsys.readouterr().out)
    names = [row["contestant"] for row in found["results"]]
    assert names[0] == "scratchgen" and names[-1] == "matrix products alone"
    assert ("scratchgen, compiled" in names) == (demo("peers.contestants").native() is not None)
    assert ("PyTorch eager" in names) == ("PyTorch" in found["environment"])
    assert ("JAX" in names) == ("JAX" in found["environment"])
    for row in found["results"]:
        assert row["measurement"] == "training" and row["case"] == "VAE 2-128-128-2, batch 256"
        assert row["ms"] > 0 and row["x_floor"] > 0 and row["rounds"] >= 1
        assert (row["x_eager"] is None) == ("PyTorch eager" not in names)
    assert found["results"][-1]["x_floor"] == 1
    assert (tmp_path / "benchmark.png").exists()
    sheet = (tmp_path / "benchmark.md").read_text().splitlines()
    assert sheet[0].startswith("| | unit | scratchgen |") and len(sheet) == 3
    assert sheet[2].startswith("| VAE 2-128-128-2, batch 256 | ms |")


@pytest.mark.parametrize("options", [["--case", "nonsense"], ["--seconds", "-1"]])
def test_mistakes_end_in_one_line(demo, tmp_path, monkeypatch, capsys, options):
    benchmark = demo("benchmark")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *options, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        benchmark.run(benchmark.main, benchmark.__doc__, options=benchmark.options)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and options[0] in error


def test_a_contestant_that_cannot_run_is_named(demo):
    prepares = {"wrong": math.sqrt, "gone": functools.partial(os._exit, 3)}
    times, failures = demo("peers.turns").take_turns(prepares, seconds=0, gpu=False)
    assert times == {}
    assert "wrong: TypeError" in str(failures[0]) and "gone: its process ended with code 3" in str(failures[1])


def test_the_reference_has_eleven_matrix_products(demo):
    case = demo("peers.cases").CASES[0]
    assert len(case.products) == 11  # four layers; three products each, but no gradient of the data
    assert sum(m * k * n for m, k, n in case.products) == 128 * (
        3 * 784 * 400 + 3 * 400 * 40 + 3 * 20 * 400 + 2 * 784 * 400
    )


def test_ours_trains_with_labels_and_draws_what_it_is_asked_for(demo, monkeypatch):
    contestants = demo("peers.contestants")
    monkeypatch.setattr(contestants, "N", 40)
    monkeypatch.setattr(contestants, "HELD", contextlib.ExitStack())
    case = demo("peers.cases").Sampling("tiny", ConditionalGAN(**ConditionalGAN.tiny), "ConditionalGAN", 7)
    with contestants.HELD:
        step, _ = contestants.ours(case, "cpu")
        assert all(math.isfinite(value) for _ in range(12) for value in step().values())  # more than all batches
        draw, _ = contestants.our_samples(case, "cpu")
        assert draw().shape == (7, 6)


def test_em_starts_anew_in_each_step(demo):
    mixture = demo("peers.mixture")
    step, _, model = mixture.ours(mixture.Mixture(n=50, n_components=2, n_features=2, iterations=3))
    found = []
    for _ in range(2):
        step()
        found.append(model.params.theta.copy())
    np.testing.assert_array_equal(*found)
    assert model.steps.t[0] == 3


def rows_of_all_kinds():
    def row(measurement, case, contestant, unit="ms", **number):
        return {"measurement": measurement, "case": case, "contestant": contestant} | number

    return [
        row("training", "VAE", "scratchgen", ms=4.0),
        row("training", "VAE", "matrix products alone", ms=1.2345),
        row("training", "VAE", "JAX", ms=3.0),
        row("mixture", "EM", "scikit-learn", ms=1234.5),
        row("start", "memory", "scratchgen", MB=100.0),
        *(row("batch", f"batch {n}", "scratchgen", ms=0.1 * n**0.5, size=n) for n in (4, 16, 64)),
    ]


def test_the_table_has_a_line_for_each_case_and_a_column_for_each_contestant(demo):
    report = demo("peers.report")
    assert report.table(report.with_slopes(rows_of_all_kinds())).splitlines() == [
        "| | unit | scratchgen | JAX | scikit-learn | matrix products alone |",
        "|---|---|---|---|---|---|",
        "| VAE | ms | 4.00 | **3.00** |  | 1.23 |",
        "| EM | ms |  |  | 1,234 |  |",
        "| memory | MB | 100 |  |  |  |",
        "| batch 4 | ms | 0.200 |  |  |  |",
        "| batch 16 | ms | 0.400 |  |  |  |",
        "| batch 64 | ms | 0.800 |  |  |  |",
        "| log time against log batch | slope | 0.500 |  |  |  |",
    ]


def test_the_figure_shows_whatever_was_measured(demo, tmp_path):
    report, rows = demo("peers.report"), rows_of_all_kinds()
    report.draw(report.with_slopes(rows), "a machine", tmp_path / "all.png")
    report.draw(rows[4:5], "a machine", tmp_path / "start.png")
    assert (tmp_path / "all.png").exists() and (tmp_path / "start.png").exists()


def test_what_is_measured_is_chosen_by_options(demo, capsys):
    benchmark = demo("benchmark")
    none = dict.fromkeys(benchmark.MEASUREMENTS, False) | {"case": None}

    def chosen(gpu=False, **given):
        return list(benchmark.chosen(types.SimpleNamespace(**none | given), gpu))

    assert chosen() == list(benchmark.MEASUREMENTS)
    assert chosen(case="GAN") == chosen(gpu=True) == ["training"]
    assert chosen(mixture=True, start=True) == ["mixture", "start"]
    with pytest.raises(UsageError, match="--sizes"):
        chosen(gpu=True, sizes=True)
    assert "on a GPU only training steps are measured" in capsys.readouterr().err


def test_a_process_that_cannot_start_is_named(demo, monkeypatch):
    start = demo("peers.start")
    monkeypatch.setitem(start.IMPORTS, "JAX", "import no_such_package")
    with pytest.raises(RuntimeError, match="no_such_package"):
        start.measured("JAX")


def test_no_two_cases_have_the_same_name(demo):
    cases = demo("peers.cases")
    names = [case.name for case in [*cases.CASES, *cases.SAMPLINGS, *cases.BATCHES, *cases.WIDTHS]]
    assert len(names) == len({*names}) == 31
