"""Reflow: the pairs are those of the first flow, always the same; it starts where the first one is, and is straighter."""

import dataclasses

import numpy as np
import pytest

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import load
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.models.latent_flow import LatentFlow
from scratchgen.models.reflow import SHARED, Reflow
from scratchgen.train.checkpoint import load_model, read_checkpoint, save_checkpoint
from scratchgen.train.fit import Stopped, fit

F64 = "float64"
SMALL = {"n_features": 6, "n_classes": 3, "width": 5, "n_waves": 4, "batch": 4, "n_steps": 4}
POINTS = {"predict": "velocity", "scaling": "standard"}


def first_flow(dtype=F64, **settings):
    """A flow after a few steps, whose averaged weights are far from its weights."""
    model, batch = FlowMatching.example(Rng((0, 1), dtype), **settings)
    for step in range(3):
        model.train_step(rng=model.rng(step), **batch)
    model.average.average[...] = Rng(9, dtype).normal(model.average.average.shape)
    return model, batch


def on(flow, dtype=F64, **settings):
    size = {name: SMALL[name] for name in ("n_features", "n_classes", "batch")}
    return Reflow(flow=flow, **{"n_pairs": 12, "pair_steps": 3} | size | settings).build(Rng((0, 2), dtype))


def bits(pairs):
    return [None if part is None else part.tobytes() for part in pairs]


# ---- the pairs ----


@pytest.mark.parametrize("conditional", [False, True])
def test_the_pairs_are_connected_by_the_first_flows_averaged_weights(conditional):
    flow, batch = first_flow(conditional=conditional, **POINTS)
    model = on(flow)
    model.prepare(**batch, rng=Rng(0, F64))
    x_1, eps, labels = model.make_pairs()
    assert x_1.shape == eps.shape == (12, 6) and (labels is None) != conditional
    *_, (_, wanted) = flow.path(eps, Rng(5, F64), labels, n_steps=3, solver="heun")
    np.testing.assert_allclose(x_1, wanted, atol=1e-12)
    if conditional:
        assert set(labels) == set(batch["labels"])  # classes that were seen
    flow.average.average[...] = flow.params.theta
    *_, (_, other) = flow.path(eps, Rng(5, F64), labels, n_steps=3, solver="heun")
    assert not np.allclose(x_1, other)


def test_pairs_are_the_same_ones_after_a_step_a_load_and_a_resume(tmp_path):
    flow, batch = first_flow()
    model, again = on(flow), on(flow)
    for each in (model, again):
        each.prepare(**batch, rng=Rng(0, F64))
    wanted = bits(model.make_pairs())
    model.train_step(**batch, rng=Rng(1, F64))
    assert bits(model.pairs) == bits(again.make_pairs()) == wanted
    save_checkpoint(tmp_path / "checkpoint.npz", model)
    loaded, _ = load_model(tmp_path / "checkpoint.npz")
    assert bits(loaded.make_pairs()) == wanted
    loaded.train_step(**batch, rng=Rng(2, F64))
    assert bits(loaded.pairs) == wanted


def test_a_resumed_run_learns_from_the_same_pairs(tmp_path):
    flow, batch = first_flow("float32")
    x = np.concatenate([batch["x"]] * 3)
    whole, killed = on(flow, "float32"), on(flow, "float32")
    fit(whole, x, epochs=3, progress=False)

    def stop(model, row):
        raise KeyboardInterrupt

    with pytest.raises(Stopped):
        fit(killed, x, epochs=3, out=tmp_path, on_epoch=stop, progress=False)
    resumed, _ = load_model(tmp_path / "checkpoint.npz")
    fit(resumed, x, epochs=3, out=tmp_path, resume=True, progress=False)
    assert bits(resumed.pairs) == bits(whole.pairs)
    assert resumed.params.theta.tobytes() == whole.params.theta.tobytes()


def test_pairs_of_other_weights_are_forgotten():
    (flow, batch), (other, _) = first_flow(), first_flow()
    other.average.average *= 0.5
    model, theirs = on(flow), on(other)
    for each in (model, theirs):
        each.prepare(**batch, rng=Rng(0, F64))
        each.train_step(**batch, rng=Rng(1, F64))
    model.load_state(theirs.state())
    model.train_step(**batch, rng=Rng(2, F64))
    assert bits(model.pairs) == bits(theirs.pairs)


def test_a_batch_is_drawn_from_the_pairs_and_their_labels_stay_with_them():
    flow, batch = first_flow(conditional=True)
    model = on(flow)
    model.prepare(**batch, rng=Rng(0, F64))
    x_1, eps, labels = model.ends(np.zeros((300, 6)), np.zeros(300, int), Rng(3, F64))
    known = {row.tobytes(): i for i, row in enumerate(model.pairs[0])}
    i = [known[row.tobytes()] for row in x_1]
    assert set(i) == set(range(12))  # each of the pairs
    assert (eps == model.pairs[1][i]).all() and (labels == model.pairs[2][i]).all()


# ---- where it starts, and what it takes from the first flow ----


def test_it_starts_from_the_first_flows_averaged_weights_and_scale():
    flow, batch = first_flow(**POINTS)
    flow.scaler.mean[...] = 7.0
    model = on(flow)
    model.prepare(batch["x"], Rng(0, F64))
    assert (model.params.theta == flow.average.average).all() and (model.average.average == model.params.theta).all()
    assert (model.scaler.mean == 7).all() and (model.scaler.std == flow.scaler.std).all()
    eps = Rng(3, F64).normal((5, 6))
    *_, (_, theirs) = flow.path(eps, Rng(4, F64), n_steps=6)
    *_, (_, ours) = model.path(eps, Rng(4, F64), n_steps=6, solver="heun")
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_first_flow_stands_still():
    flow, batch = first_flow()
    model = on(flow)
    model.prepare(batch["x"], Rng(0, F64))
    before = model.flow.params.theta.copy()
    assert (before == flow.average.average).all() and model.flow is not flow
    for step in range(3):
        model.train_step(batch["x"], Rng(step, F64))
    assert (model.flow.params.theta == before).all() and (model.params.theta != before).any()
    assert {name.partition(".")[0] for name in model.state()} == {"params", "adam", "average", "classes", "flow"}


def test_shared_settings_are_the_first_flows():
    settings = {"conditional": True, "width": 7, "n_blocks": 1, "n_waves": 6, "n_classes": 4, "levels": 3}
    flow = FlowMatching(n_features=6, **settings, **POINTS)
    model = Reflow(n_features=6, flow=flow)
    assert {name: getattr(model, name) for name in SHARED} == settings | POINTS
    for name, value in (settings | POINTS).items():
        assert Reflow(n_features=6, flow=flow, **{name: value}).settings() == model.settings()
    names = {field.name for field in dataclasses.fields(Reflow)}
    assert names >= set(SHARED)


def test_a_setting_that_is_not_the_first_flows_is_refused():
    with pytest.raises(
        UsageError, match=r"^Reflow setting width: 7 is not the first flow's, 512; .*--set flow\.width=7$"
    ):
        Reflow(width=7)


def test_a_first_flow_that_does_not_fit_is_refused():
    flow, batch = first_flow()
    for untrained in (FlowMatching(**SMALL), FlowMatching(**SMALL).build(Rng(0, F64))):
        with pytest.raises(UsageError, match="train one first and give it as"):
            fit(on(untrained), batch["x"], epochs=1, progress=False)
    with pytest.raises(UsageError, match=r"Reflow setting flow: it takes pictures of 6 numbers, but .* have 784"):
        Reflow(flow=flow)
    latent, _ = LatentFlow.example(Rng(0))
    with pytest.raises(UsageError, match="Reflow setting flow: expected a flow of examples, got a LatentFlow"):
        Reflow(n_features=6, flow=latent)


def test_a_reflow_can_be_the_first_flow_of_another():
    flow, batch = first_flow()
    model = on(flow)
    model.prepare(batch["x"], Rng(0, F64))
    model.train_step(batch["x"], Rng(1, F64))
    second = on(model)
    second.prepare(batch["x"], Rng(0, F64))
    x_1, eps, _ = second.make_pairs()
    *_, (_, wanted) = model.path(eps, Rng(1, F64), n_steps=3, solver="heun")
    np.testing.assert_allclose(x_1, wanted, atol=1e-12)


def test_one_step_is_enough_once_the_paths_are_straight():
    """A flow of two modes, and a reflow of it: how far one step of Euler's method lands from where many steps end."""
    x = np.where(np.arange(2000)[:, None] % 2, 1.0, -1.0) + 0.1 * Rng(1).normal((2000, 1))
    settings = {"n_features": 1, "width": 32, "n_waves": 16, "batch": 200, "lr": 4e-3, "averaging": 0.99}
    flow = FlowMatching(**settings, **POINTS, decay_steps=300).build(Rng(0))
    fit(flow, x.astype(np.float32), epochs=30, progress=False)
    settings = {"n_features": 1, "batch": 200, "lr": 4e-3, "averaging": 0.99}
    model = Reflow(flow=flow, n_pairs=2000, pair_steps=20, decay_steps=300, **settings).build(Rng(1))
    fit(model, x.astype(np.float32), epochs=30, progress=False)
    eps, gaps = Rng(5).normal((1000, 1)), []
    for each in (flow, model):
        ends = [list(each.path(eps, Rng(0), n_steps=n, solver="euler"))[-1][1] for n in (1, 100)]
        gaps.append(float(np.abs(ends[0] - ends[1]).mean()))
    assert gaps[1] < 0.25 * gaps[0], gaps
    found = np.abs(model.scaler.undo(ends[0]))  # one step: close to the two modes
    assert np.abs(found - 1).mean() < 0.25


# ---- on the command line ----

SET = ["width=8", "n_blocks=1", "n_waves=4"]
FIRST = [f"flow.{setting}" for setting in SET]


def train(tmp_path, *options, model="reflow", out="run"):
    command = ["train", model, "--epochs", "1", "--out", str(tmp_path / out)]
    return main([*command, "--set", *options])


def test_a_missing_flow_is_trained_first(tmp_path, capsys):
    assert train(tmp_path, "n_pairs=100", "pair_steps=2", *FIRST, "flow.conditional=true") == 0
    said = capsys.readouterr().out
    assert f"training one first, into {tmp_path / 'run' / 'flow'}" in said and "--set flow=DIR" in said
    notes, arrays = read_checkpoint(tmp_path / "run" / "checkpoint.npz")
    first, inside = read_checkpoint(tmp_path / "run" / "flow" / "checkpoint.npz")
    assert notes["settings"]["flow"] == first["settings"] and first["model"] == "flow_matching"
    assert notes["settings"]["conditional"] and notes["settings"]["width"] == 8
    assert (arrays["flow.params.theta"] == inside["average.average"]).all()


def test_one_that_is_given_is_taken_and_not_needed_any_more(tmp_path, capsys):
    assert train(tmp_path, *SET, model="flow_matching", out="flow") == 0
    assert train(tmp_path, f"flow={tmp_path / 'flow'}", "n_pairs=100", "pair_steps=2") == 0
    assert "training one first" not in capsys.readouterr().out
    (tmp_path / "flow").rename(tmp_path / "elsewhere")
    assert main(["train", "reflow", "--epochs", "2", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert main(["sample", str(tmp_path / "run"), "-n", "3", "-o", str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (3, load("digits").x_train.shape[1])


def test_points_need_a_first_flow_of_points_and_it_says_how(tmp_path, capsys):
    command = ["train", "reflow", "--data", "ring", "--epochs", "1", "--out", str(tmp_path / "run")]
    command += ["--set", "n_pairs=100", "pair_steps=2", "batch=500", "flow.batch=500"]
    assert main([*command, *FIRST]) == 2
    error = capsys.readouterr().err
    assert "--set flow.scaling=standard flow.predict=velocity" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert main([*command, *FIRST, "flow.scaling=standard", "flow.predict=velocity"]) == 0
    notes, _ = read_checkpoint(tmp_path / "run" / "flow" / "checkpoint.npz")
    assert notes["settings"]["scaling"] == "standard"


def test_list_says_what_the_setting_takes(capsys):
    assert main(["list", "reflow"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "width, predict, ... are taken: the folder of a trained flow_matching" in out and "flow.batch=50" in out
