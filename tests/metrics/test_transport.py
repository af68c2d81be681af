"""The judge of points: real ones score the floor, others more, on any scale, and the command line shows it."""

import json

import numpy as np
import pytest

from scratchgen import Rng
from scratchgen.__main__ import main
from scratchgen.data import TOYS, Data, load
from scratchgen.metrics.samples import sample_metrics
from scratchgen.metrics.transport import ToyJudge


def data_of(name, scale=1.0):
    """A Data of a toy whose training points have this standard deviation in every column."""
    x = np.array([[-1.0], [1.0]]) * np.ones(TOYS[name].n_dim) * scale
    return Data(name, x, x, toy=TOYS[name])


@pytest.mark.parametrize("name", ["ring", "moons", "three_modes"])
def test_real_points_score_the_floor_and_moved_ones_their_way(name):
    toy, judge = TOYS[name], ToyJudge(data_of(name), 1000)
    real = [toy.sample(1000, Rng((9, i))) for i in range(20)]
    assert judge.over_floor(real) == pytest.approx(1, abs=0.3)
    moved = judge.distance(real[0] + 3)
    mean_cosine = 2 / np.pi if toy.n_dim == 2 else 1  # of a direction with that of the move
    assert moved == pytest.approx(3 * np.sqrt(toy.n_dim) * mean_cosine, rel=0.15)


def test_distances_are_in_units_of_the_training_points():
    x = TOYS["moons"].sample(500, Rng(1)) + 0.3
    one, two, again = (ToyJudge(data_of("moons", scale), 500) for scale in (1.0, 2.0, 1.0))
    assert one.distance(x) == pytest.approx(2 * two.distance(x)) and one.floor == pytest.approx(2 * two.floor)
    assert one.over_floor([x, x]) == pytest.approx(two.over_floor([x, x]))
    assert one.distance(x, 1) != one.distance(x, 2)  # other fresh points
    assert one.distance(x) == again.distance(x)


def test_models_of_curves_are_measured_by_it():
    class Real:
        def sample(self, n, rng, label=None):
            return TOYS["swiss_roll"].sample(n, rng)

    found = sample_metrics(load("swiss_roll"))[0](Real(), Rng(5))
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
