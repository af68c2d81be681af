"""demos/benchmark.py: its JSON, what becomes of a contestant that fails, and that PyTorch is given the same work."""

import dataclasses
import functools
import json
import math
import os
import sys

import numpy as np
import pytest

from scratchgen import Rng


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
    assert ("PyTorch eager" in names) == ("PyTorch" in found["environment"])
    for row in found["results"]:
        assert row["case"] == "VAE 2-128-128-2, batch 256"
        assert row["ms"] > 0 and row["x_floor"] > 0 and row["rounds"] >= 1
        assert (row["x_eager"] is None) == ("PyTorch eager" not in names)
    assert found["results"][-1]["x_floor"] == 1
    assert (tmp_path / "benchmark.png").exists()


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


@pytest.mark.needs("torch")
def test_pytorch_computes_the_same_losses_and_gradients(demo):
    import torch

    peers = demo("peers.pytorch")
    networks = {"vae": peers.VAE, "autoencoder": peers.AutoEncoder}
    for case in demo("peers.cases").CASES:
        if case.peer not in networks:
            continue
        model = dataclasses.replace(case.model, batch=16).build(Rng(0))
        network = networks[case.peer](model)
        for theirs, ours in zip(network.parameters(), model.params.named().values()):
            theirs.data[...] = torch.tensor(ours.T)
        x = Rng(1).uniform((16, model.n_features))
        eps = [torch.tensor(Rng(2).normal((16, model.n_latent)))] if case.peer == "vae" else []
        loss = network(torch.tensor(x), *eps)
        loss.backward()
        ours = model.loss(x, Rng(2))["loss"]
        if model.likelihood == "gaussian":
            ours -= 0.5 * model.n_features * math.log(2 * math.pi * model.variance)
        assert ours == pytest.approx(loss.item(), rel=1e-4)
        for theirs, where in zip(network.parameters(), model.params.slices().values()):
            np.testing.assert_allclose(model.params.grad[where], theirs.grad.numpy().T.ravel(), rtol=1e-3, atol=1e-5)


@pytest.mark.needs("torch")
def test_pytorch_denoises_the_same(demo):
    import torch

    cases = [case for case in demo("peers.cases").CASES if case.peer == "ddpm"]
    assert {case.model.predict for case in cases} == {"logits", "v"}
    for case in cases:
        model = dataclasses.replace(case.model, batch=16).build(Rng(0))
        network = demo("peers.pytorch").DDPM(model)
        names = [name.removeprefix("denoiser.").replace("time.1.", "time.") for name in model.params.named()]
        theirs = dict(network.named_parameters())
        renamed = {".W": ".weight", ".b": ".bias", ".gamma": ".weight", ".beta": ".bias"}
        pairs = [
            theirs[name[: -len(end)] + new] for name in names for end, new in renamed.items() if name.endswith(end)
        ]
        assert len(pairs) == len(theirs) == len(names)
        for weight, ours in zip(pairs, model.params.named().values()):
            weight.data[...] = torch.tensor(ours.T)
        x, drawn = Rng(1).uniform((16, model.n_features)), Rng(2)
        t, eps = 1 + drawn.integers(model.n_times, 16), drawn.normal((16, model.n_features))
        loss = network(torch.tensor(x), torch.tensor(t), torch.tensor(eps))
        loss.backward()
        assert model.loss(x, Rng(2))["loss"] == pytest.approx(loss.item(), rel=1e-4)
        scale = np.abs(model.params.grad).max()
        for weight, where in zip(pairs, model.params.slices().values()):
            np.testing.assert_allclose(
                model.params.grad[where], weight.grad.numpy().T.ravel(), rtol=1e-3, atol=1e-4 * scale
            )


@pytest.mark.needs("torch")
@pytest.mark.parametrize("peer", ["gan", "wgan"])
def test_pytorch_plays_the_same_game(demo, peer):
    import torch

    (case,) = (case for case in demo("peers.cases").CASES if case.peer == peer)
    model = dataclasses.replace(case.model, batch=16, k=1).build(Rng(0))
    networks = {"gan": demo("peers.pytorch").GAN, "wgan": demo("peers.pytorch").WGAN}[peer](model)
    for network, params in ((networks.G, model.params_G), (networks.D, model.params_D)):
        for theirs, ours in zip(network.parameters(), params.named().values()):
            theirs.data[...] = torch.tensor(ours.T)
    x, drawn = Rng(1).uniform((16, model.n_features)), Rng(2)
    noise = [drawn.normal((16, model.n_latent))] + ([drawn.uniform((16, 1))] if peer == "wgan" else [])
    judging, deceiving = model.objectives  # their names
    theirs = (
        networks.discriminator_loss(torch.tensor(x), *map(torch.tensor, noise)),
        networks.generator_loss(torch.tensor(noise[0])),
    )
    ours = getattr(model, judging)(x, Rng(2))[judging], getattr(model, deceiving)(Rng(2))[deceiving]
    sides = (networks.D, model.params_D), (networks.G, model.params_G)
    for loss, value, (network, params) in zip(theirs, ours, sides):
        networks.zero_grad()
        loss.backward()
        assert value == pytest.approx(loss.item(), rel=1e-4)
        scale = np.abs(params.grad).max()
        for theirs, where in zip(network.parameters(), params.slices().values()):
            expected = 0 if theirs.grad is None else theirs.grad.numpy().T.ravel()
            np.testing.assert_allclose(params.grad[where], expected, rtol=1e-3, atol=1e-4 * scale)
