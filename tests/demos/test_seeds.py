"""demos/seeds.py: each number over several seeds, what stays as it is, and what becomes of a demo that fails."""

import sys

import pytest


def rows(demo, *runs):
    return demo("seeds").table(list(runs))


def test_a_number_becomes_its_mean_with_the_least_and_the_largest(demo):
    runs = [["distance 1.20 after 50 steps"], ["distance 1.00 after 50 steps"], ["distance 1.10 after 50 steps"]]
    assert rows(demo, *runs) == ["distance 1.10 [1.00, 1.20] after 50 steps"]


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("8.4% of them", "8.6% of them", "8.5% [8.4, 8.6] of them"),
        ("1.00 ± 0.20 nats", "2.00 ± 0.40 nats", "1.50 [1.00, 2.00] ± 0.30 nats"),
        ("1,000 draws", "3,000 draws", "2,000 [1,000, 3,000] draws"),
        ("from -1.5", "from 0.5", "from -0.5 [-1.5, 0.5]"),
        ("off by 1e-10", "off by 3e-10", "off by 2e-10 [1e-10, 3e-10]"),
        ("at 2.0 in 10 s", "at 4.0 in 30 s", "at 3.0 [2.0, 4.0] in 20 s"),  # other times say nothing
        ("worst, 4: 90%", "worst, 7: 80%", "worst, 4/7: 85% [80, 90]"),  # 4 and 7 are names
        ("1.3, which cannot be told apart; 2", "2.3; 2", "1.8 [1.3, 2.3]; 2 (cannot be told apart in 1 of 2 seeds)"),
    ],
)
def test_numbers_are_written_as_they_were(demo, first, second, found):
    assert rows(demo, [first], [second]) == [found]


def test_what_no_seed_changes_is_left_out(demo):
    first = ["8 modes", "trained in 3 s", "loss 1.0"]
    assert rows(demo, first, ["8 modes", "trained in 4 s", "loss 2.0"]) == ["loss 1.5 [1.0, 2.0]"]


def test_a_line_that_some_seeds_lack_says_so_and_equal_lines_are_matched_in_order(demo):
    runs = [["x 1", "x 5", "y 2"], ["x 3", "x 7"]]
    assert rows(demo, *runs) == ["x 2 [1, 3]", "x 6 [5, 7]", "y 2 (printed in 1 of 2 seeds)"]


def asked(demo, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["seeds.py", *options])
    return demo("seeds").start()


@pytest.mark.slow
def test_a_demo_runs_with_its_seeds(demo, monkeypatch, capsys, tmp_path):
    assert not asked(demo, monkeypatch, "likelihood_coin", "--seeds", "2", "--out", str(tmp_path))
    head, line, *rows = capsys.readouterr().out.splitlines()
    assert head == "| demo | seeds 0 to 1: mean [least, largest] |" and line == "|---|---|"
    assert all(row.startswith("| `likelihood_coin.py` | ") for row in rows)
    assert any("[0." in row for row in rows)
    for seed in (0, 1):
        assert (tmp_path / f"seed_{seed}" / "likelihood_coin.png").exists()
        assert "tosses" in (tmp_path / f"seed_{seed}" / "likelihood_coin.txt").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nonsense"], "no demo nonsense: use some of autoencoder, "),
        (["gan", "--seeds", "1"], "--seeds must be 2 or more, got 1"),
        (["gan", "--data", "nonsense", "--seeds", "2"], "gan.py --seed 0 failed: "),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(demo, monkeypatch, capsys, tmp_path, options, words):
    assert asked(demo, monkeypatch, *options, "--out", str(tmp_path)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seeds.py: ")]
    assert words in line
