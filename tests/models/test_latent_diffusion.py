"""Diffusion in features of a VQ-GAN: the model inside stands still, is saved with the other, is trained if missing."""

import json

import numpy as np
import pytest

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import load
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.latent_diffusion import LatentDiffusion
from scratchgen.models.latent_flow import LatentFlow
from scratchgen.models.vqgan import VQGAN
from scratchgen.models.vqvae import VQVAE
from scratchgen.train.checkpoint import load_model, read_checkpoint, save_checkpoint
from scratchgen.train.fit import fit

SMALL_VQVAE = {"n_features": 64, "hidden": (16,), "n_codes": 4, "n_dim": 2, "n_embeddings": 8, "batch": 50}
SMALL = {"n_features": 64, "n_times": 10, "n_steps": 5, "width": 8, "n_blocks": 1, "n_waves": 4}
SET_VQVAE = ["hidden=16", "n_codes=4", "n_dim=2", "n_embeddings=8"]
SET = ["n_times=10", "n_steps=5", "width=8", "n_blocks=1", "n_waves=4"]


def trained(epochs=1, **settings):
    x = load("digits").x_train
    vqvae = VQVAE(**SMALL_VQVAE).build(Rng(0))
    fit(vqvae, x, epochs=2, progress=False)
    model = LatentDiffusion(vqvae=vqvae, **SMALL, **settings).build(Rng(1))
    fit(model, x, epochs=epochs, progress=False)
    return vqvae, model, x


def bits(model):
    return {name: array.tobytes() for name, array in model.vqvae.params.state().items()}


def test_the_vqvae_inside_is_the_one_given_and_stands_still():
    vqvae, model, _ = trained(epochs=2)
    assert model.vqvae is not vqvae
    assert bits(model) == {name: array.tobytes() for name, array in vqvae.params.state().items()}
    assert {name.partition(".")[0] for name in model.state()} == {"params", "adam", "average", "classes", "vqvae"}


def test_what_is_diffused_are_standardised_features():
    _, model, x = trained()
    z = model.vqvae.encode(x)
    assert model.n_diffused == 8 and z.shape == (1400, 8)
    x_0 = model.scaler(model.encode(x))
    np.testing.assert_allclose(x_0.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(x_0.std(axis=0), 1, atol=1e-3)
    assert not np.allclose(model.encode(x), model.vqvae.quantise(z))


def test_samples_are_pictures_of_codes():
    """Each is what the decoder makes of some 4 of the 8 vectors; without noise and network it is a reconstruction."""
    _, model, x = trained()
    assert (model.decode(model.encode(x)) == model.vqvae.reconstruct(x)).all()
    made = model.sample(20, Rng(3))
    every = np.stack(np.meshgrid(*[np.arange(8)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    possible = model.vqvae.decode_codes(every)
    gaps = ((made[:, None] - possible) ** 2).sum(axis=2).min(axis=1)
    assert gaps.max() < 1e-8


def test_the_vqvae_travels_with_the_checkpoint(tmp_path):
    _, model, _ = trained()
    save_checkpoint(tmp_path / "checkpoint.npz", model)
    again, notes = load_model(tmp_path / "checkpoint.npz")
    assert notes["settings"]["vqvae"] == model.vqvae.settings() | {"hidden": [16]}  # JSON has no tuples
    assert (again.sample(5, Rng(1)) == model.sample(5, Rng(1))).all()


def test_a_vqvae_of_other_pictures_or_none_at_all_is_refused():
    with pytest.raises(UsageError, match=r"LatentDiffusion setting vqvae: .*784.*64"):
        LatentDiffusion(n_features=64)
    with pytest.raises(UsageError, match="LatentDiffusion setting vqvae: expected a VQVAE or its settings, got 'runs'"):
        LatentDiffusion(vqvae="runs")
    untrained = LatentDiffusion(vqvae=VQVAE(**SMALL_VQVAE), **SMALL).build(Rng(0))
    with pytest.raises(UsageError, match="train a VQVAE first"):
        fit(untrained, load("digits").x_train, epochs=1, progress=False)


# ---- on the command line ----


def train(tmp_path, *options):
    return main(["train", "latent_diffusion", "--epochs", "1", "--out", str(tmp_path / "run"), "--set", *SET, *options])


def test_a_missing_vqvae_is_trained_first(tmp_path, capsys):
    assert train(tmp_path) == 0
    said = capsys.readouterr().out
    assert f"training one first, into {tmp_path / 'run' / 'vqvae'}" in said and "--set vqvae=DIR" in said
    notes, arrays = read_checkpoint(tmp_path / "run" / "checkpoint.npz")
    first, inside = read_checkpoint(tmp_path / "run" / "vqvae" / "checkpoint.npz")
    assert first["model"] == "vqgan" and first["epoch"] == 1
    assert notes["settings"]["vqvae"].items() < first["settings"].items()  # without those of D
    assert (arrays["vqvae.params.theta"] == inside["params.theta"]).all()


def test_settings_of_the_discriminator_go_to_the_vqgan_inside(tmp_path):
    assert train(tmp_path, "vqvae.hidden_D=7", "vqvae.hidden=9") == 0
    settings = read_checkpoint(tmp_path / "run" / "vqvae" / "checkpoint.npz")[0]["settings"]
    assert settings["hidden_D"] == [7] and settings["hidden"] == [9]


def test_one_that_is_given_is_taken(tmp_path, capsys):
    vqvae = tmp_path / "vqvae"
    assert main(["train", "vqvae", "--epochs", "1", "--out", str(vqvae), "--set", *SET_VQVAE]) == 0
    capsys.readouterr()
    assert train(tmp_path, f"vqvae={vqvae}") == 0
    assert "training one first" not in capsys.readouterr().out
    notes, _ = read_checkpoint(tmp_path / "run" / "checkpoint.npz")
    assert notes["settings"]["vqvae"]["n_embeddings"] == 8
    command = ["train", "latent_diffusion", "--epochs", "2", "--out", str(tmp_path / "run"), "--resume"]
    vqvae.rename(tmp_path / "elsewhere")  # it is not needed any more
    assert main(command) == 0
    assert main(["sample", str(tmp_path / "run"), "-n", "3", "-o", str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (3, 64)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    assert "frechet" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_stopped_in_the_vqvaes_training_it_goes_on_there(options, tmp_path, capsys, monkeypatch):
    fit_whole, calls = VQGAN.train_step, []

    def stop(self, x, rng):
        calls.append(1)
        if len(calls) == 15:  # of 10 steps an epoch
            raise KeyboardInterrupt
        return fit_whole(self, x, rng)

    monkeypatch.setattr(VQGAN, "train_step", stop)
    command = ["train", "latent_diffusion", "--epochs", "2", "--out", str(tmp_path / "run"), "--set", *SET]
    assert main(command) == 130
    assert read_checkpoint(tmp_path / "run" / "vqvae" / "checkpoint.npz")[0]["epoch"] == 1
    assert main([*command, *options]) == 0
    assert len(calls) == 15 + 10  # the second epoch, and not the first
    assert read_checkpoint(tmp_path / "run" / "checkpoint.npz")[0]["epoch"] == 2


@pytest.mark.parametrize("what", ["nowhere", "gan"])
def test_a_folder_that_holds_no_vqvae_is_refused_in_one_line(what, tmp_path, capsys):
    if what == "gan":
        assert main(["train", "gan", "--epochs", "0", "--out", str(tmp_path / "gan"), "--set", "hidden_G=4"]) == 0
    capsys.readouterr()
    assert train(tmp_path, f"vqvae={tmp_path / what}") == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and {"nowhere": "nowhere", "gan": "expected a VQVAE or its settings, got a GAN"}[what] in error
    )
    assert not (tmp_path / "run").exists()


def test_a_vqgan_serves_as_well(tmp_path, capsys):
    vqgan = tmp_path / "vqgan"
    assert main(["train", "vqgan", "--epochs", "1", "--out", str(vqgan), "--set", *SET_VQVAE, "hidden_D=8"]) == 0
    assert train(tmp_path, f"vqvae={vqgan}") == 0
    (_, theirs), (_, ours) = (read_checkpoint(folder / "checkpoint.npz") for folder in (vqgan, tmp_path / "run"))
    assert (ours["vqvae.params.theta"] == theirs["params.theta"]).all()


@pytest.mark.parametrize(("options", "words"), [(["n_times=5", "n_steps=9"], "n_steps: 9"), (["n_waves=5"], "n_waves")])
def test_what_is_wrong_with_the_whole_is_said_before_a_part_is_trained(options, words, tmp_path, capsys):
    assert train(tmp_path, *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_left_as_it_is(tmp_path, capsys):
    vqvae = tmp_path / "vqvae"
    assert main(["train", "vqvae", "--epochs", "1", "--out", str(vqvae), "--set", *SET_VQVAE]) == 0
    assert train(tmp_path, f"vqvae={vqvae}") == 0
    assert train(tmp_path) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert not (tmp_path / "run" / "vqvae").exists()


def test_what_is_wrong_inside_says_what_to_do(tmp_path, capsys):
    command = ["train", "latent_diffusion", "--data", "ring", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "the vqgan inside: " in error and "--set vqvae=DIR" in error and error.count("\n") == 1


def test_a_vqvae_that_never_saw_a_batch_is_refused():
    built = VQVAE(**SMALL_VQVAE).build(Rng(0))
    with pytest.raises(UsageError, match="train a VQVAE first"):
        fit(LatentDiffusion(vqvae=built, **SMALL).build(Rng(0)), load("digits").x_train, epochs=1, progress=False)


def test_list_says_what_the_setting_takes(capsys):
    assert main(["list", "latent_diffusion"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "vqvae=DIR compresses the pictures: the folder of a trained vqvae or vqgan. Without it a vqgan is trained"
        in out
    )
    assert "vqvae.batch=50" in out


# ---- a flow in the same features ----


def test_a_flow_is_built_on_a_vqvae_in_the_same_way(tmp_path, capsys):
    small = SET[2:]  # width, n_blocks, n_waves
    command = ["train", "latent_flow", "--epochs", "1", "--out", str(tmp_path / "run"), "--set", *small]
    assert main(command) == 0
    assert f"training one first, into {tmp_path / 'run' / 'vqvae'}" in capsys.readouterr().out
    model, _ = load_model(tmp_path / "run" / "checkpoint.npz")
    inside = read_checkpoint(tmp_path / "run" / "vqvae" / "checkpoint.npz")[1]
    assert (model.vqvae.params.theta == inside["params.theta"]).all()
    x = load("digits").x_test[:50]
    np.testing.assert_allclose(model.unscaled(model.scaled(x, Rng(0))), model.vqvae.reconstruct(x), atol=1e-5)
    x_0 = model.scaled(load("digits").x_train, Rng(0))
    np.testing.assert_allclose(x_0.std(axis=0), 1, atol=1e-3)
    untrained = LatentFlow(n_features=64, vqvae=VQVAE(**SMALL_VQVAE), width=8, n_blocks=1, n_waves=4).build(Rng(0))
    with pytest.raises(UsageError, match=r"^LatentFlow setting vqvae: .*train a VQVAE first.*LatentFlow\(vqvae=...\)$"):
        fit(untrained, load("digits").x_train, epochs=1, progress=False)
    with pytest.raises(UsageError, match=r"^LatentFlow setting vqvae: it takes pictures of 64 numbers, .* have 784"):
        LatentFlow(vqvae=VQVAE(**SMALL_VQVAE))


@pytest.mark.slow
def test_latent_diffusion_learns_the_digits():
    data = load("digits")
    vqvae = VQVAE(n_features=64, hidden=(128,), n_codes=8, n_dim=4, n_embeddings=64, batch=50, decay_steps=840).build(
        Rng(0)
    )
    fit(vqvae, data.x_train, epochs=30, progress=False)
    model = LatentDiffusion(vqvae=vqvae, n_features=64, width=128, n_blocks=2, n_times=100, decay_steps=1000).build(
        Rng(0)
    )
    fit(model, data.x_train, epochs=100, progress=False)
    judge, n = FrechetJudge(data), len(data.x_test)
    found = np.mean([judge.distance(model.sample(n, Rng((1, seed)))) for seed in range(3)])
    assert found <= 6 * judge.floor(n).mean, found
