"""The judge of points: real ones score the floor, others more, on any scale, and the command line shows it."""

import json

import numpy as np
import pytest

from scratchgen import Rng
from scratchgen.__main__ import main
from scratchgen.data import TOYS, load
from scratchgen.metrics.samples import sample_metrics
from scratchgen.metrics.transport import PlaneJudge


@pytest.mark.parametrize("name", ["ring", "moons", "three_modes"])
def test_real_points_score_the_floor_and_moved_ones_their_way(name):
    toy = TOYS[name]
    judge = PlaneJudge(toy, np.ones(toy.n_dim), 1000)
    real = np.mean([judge.distance(toy.sample(1000, Rng((9, i))), i) for i in range(10)])
    assert real == pytest.approx(judge.floor, rel=0.5)
    moved = judge.distance(toy.sample(1000, Rng(8)) + 3)
    mean_cosine = 2 / np.pi if toy.n_dim == 2 else 1  # of a direction with that of the move
    assert moved == pytest.approx(3 * np.sqrt(toy.n_dim) * mean_cosine, rel=0.1)


def test_points_and_scale_in_other_units_give_the_same():
    toy, x = TOYS["moons"], TOYS["moons"].sample(500, Rng(1)) + 0.3
    found = [PlaneJudge(toy, scale * np.ones(2), 500) for scale in (1.0, 2.0)]
    assert found[0].distance(x) == pytest.approx(2 * found[1].distance(x))
    assert found[0].floor == pytest.approx(2 * found[1].floor)
    assert found[0].distance(x, 1) != found[0].distance(x, 2)  # other fresh points
    assert found[0].distance(x) == PlaneJudge(toy, np.ones(2), 500).distance(x)


def test_models_of_curves_are_measured_by_it():
    class Real:
        def sample(self, n, rng):
            return TOYS["swiss_roll"].sample(n, rng)

    found = sample_metrics(load("swiss_roll"))(Real(), Rng(5))
    assert found.keys() == {"sliced_wasserstein", "sliced_wasserstein_floor"}
    assert 0.2 < found["sliced_wasserstein"] / found["sliced_wasserstein_floor"] < 3


def test_on_the_command_line(tmp_path, capsys):
    out = str(tmp_path / "run")
    small = ["scaling=standard", "predict=v", "width=16", "n_blocks=1", "n_times=10", "n_steps=5"]
    assert main(["train", "ddpm", "--data", "moons", "--epochs", "1", "--out", out, "--set", *small]) == 0
    assert "sliced_wasserstein" in (tmp_path / "run" / "history.csv").read_text()
    capsys.readouterr()
    assert main(["evaluate", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sliced_wasserstein"] > 3 * found["sliced_wasserstein_floor"]  # it has hardly learned
