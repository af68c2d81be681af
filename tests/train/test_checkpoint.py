"""Checkpoints of former versions: one of each model, as version 1 wrote it, is read as if it had been written now."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from scratchgen.__main__ import main
from scratchgen.backend import Rng, UsageError
from scratchgen.commands.settings import parse_settings
from scratchgen.models import find_model
from scratchgen.nn.optim import Adam
from scratchgen.train.checkpoint import RENAMED, VERSION, load_model, read_checkpoint, save_checkpoint

OLD = pathlib.Path(__file__).parent / "checkpoints"
NOW = {  # some settings of these checkpoints, by the names that they have now
    "classifier": {"decay_steps": 0},
    "conditional_gan": {"adversarial_loss": "non_saturating", "d_steps": 1, "decay_steps": 0},
    "dbn": {"gibbs_steps": 1, "n_steps": 4, "decay_steps": 0},
    "ddpm": {"ancestral_variance": "beta_tilde", "clip_x0": True, "n_steps": 4, "decay_steps": 0},
    "gan": {"adversarial_loss": "non_saturating", "d_steps": 1, "noise_steps": 0, "noise": 0.0, "decay_steps": 0},
    "gsn": {"corruption_rate": 0.2, "walk_steps": 2, "samples_per_chain": 1, "n_burn": 3, "decay_steps": 0},
    "latent_diffusion": {"ancestral_variance": "beta_tilde", "clip_x0": True, "decay_steps": 0},
    "made": {"decay_steps": 0},
    "pix2pix": {"adversarial_loss": "non_saturating", "adversarial_weight": 1.0, "d_steps": 1, "decay_steps": 0},
    "rbm": {"gibbs_steps": 1, "n_steps": 4, "decay_steps": 0},
    "vae": {"variance": 0.1, "n_samples": 1, "decay_steps": 0},
    "vqgan": {"adversarial_loss": "hinge", "adversarial_weight": 1.0, "warmup_steps": 0, "decay_steps": 0},
    "vqvae": {"decay_steps": 0},
    "wgan": {"clip": 0.01, "d_steps": 5, "decay_steps": 0},
}
every_model = pytest.mark.parametrize("name", sorted(path.stem for path in OLD.glob("*.npz")))


def as_written(name):
    """The settings and the arrays of an old checkpoint, as they stand in the file."""
    with np.load(OLD / f"{name}.npz") as saved:
        arrays = {key: saved[key] for key in saved.files}
    return json.loads(str(arrays.pop("notes")))["settings"], arrays


@every_model
def test_an_old_checkpoint_is_the_model_that_it_was(name):
    model, notes = load_model(OLD / f"{name}.npz")
    settings, arrays = as_written(name)
    assert notes["version"] == VERSION and notes["settings"].keys() == model.settings().keys()
    assert notes["settings"].items() >= NOW.get(name, {}).items()
    kept = [notes["settings"][RENAMED.get(name, {}).get(k, k)] for k in settings]
    assert list(notes["settings"].values())[: len(settings)] == kept  # then come settings that are newer
    assert model.has_stepped() and not any("critic" in key for key in model.state())
    for key, params in model.parameters().items():
        assert params.theta.tobytes() == arrays[f"{key}.theta"].tobytes()
    batch = find_model(name).example(Rng(0))[1]
    assert all(np.isfinite(value) for value in model.train_step(**batch, rng=Rng(1)).values())
    assert all(np.isfinite(value) for value in model.evaluate(**batch, rng=Rng(2)).values())


@every_model
def test_what_is_read_can_be_written_and_read_again(name, tmp_path):
    model, notes = load_model(OLD / f"{name}.npz")
    save_checkpoint(tmp_path / "checkpoint.npz", model, epoch=1, seed=0)
    again, arrays = read_checkpoint(tmp_path / "checkpoint.npz")
    assert again == notes
    first = read_checkpoint(OLD / f"{name}.npz")[1]
    new = {key.rpartition(".")[2] for key in arrays.keys() - first.keys()}
    assert new <= {"seen", "m", "v"}  # older versions did not note classes, and kept Adam's m and v in another form
    assert all(arrays[key].tobytes() == array.tobytes() for key, array in first.items() if key[-2:] not in (".M", ".V"))


@every_model
def test_adams_m_and_v_are_made_of_what_older_versions_kept(name):
    """M = m / (1 - β1) and V = v / (1 - β2), with the betas of that optimizer: of a GAN by its settings."""
    model, (_, old) = load_model(OLD / f"{name}.npz")[0], read_checkpoint(OLD / f"{name}.npz")
    adams = {key: part for key, part in vars(model).items() if isinstance(part, Adam)}
    assert bool(adams) == (name not in ("rbm", "dbn", "gmm"))
    for key, adam in adams.items():
        for now, before, beta in (("m", "M", adam.beta1), ("v", "V", adam.beta2)):
            np.testing.assert_allclose(getattr(adam, now), (1 - beta) * old[f"{key}.{before}"], rtol=1e-6)
            assert np.any(getattr(adam, now))


def test_settings_of_the_model_inside_are_renamed_too():
    assert load_model(OLD / "dbn.npz")[0].rbm.n_steps == 4
    assert load_model(OLD / "latent_diffusion.npz")[0].vqvae.decay_steps == 0


def test_settings_that_are_newer_than_a_run_have_their_defaults(tmp_path, capsys):
    """It is resumed as it was trained, and with another value it is refused."""
    small = ["width=8", "n_blocks=1", "n_waves=4", "predict=v", "n_times=20", "n_steps=5"]
    train = ["train", "ddpm", "--out", str(tmp_path), "--epochs"]
    assert main([*train, "1", "--set", *small]) == 0
    path = tmp_path / "checkpoint.npz"
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    notes = json.loads(str(arrays.pop("notes")))
    assert notes["settings"].pop("levels") == 0
    np.savez(path, notes=np.array(json.dumps(notes)), **arrays)
    assert main([*train, "2", "--resume", "--set", "levels=17"]) == 2
    assert "was trained with levels=0, not 17" in capsys.readouterr().err
    assert main([*train, "2", "--resume"]) == 0
    assert read_checkpoint(path)[0]["settings"]["levels"] == 0


def test_an_old_run_goes_on_and_its_history_with_it(tmp_path, capsys):
    """A WGAN's column critic_loss goes on as discriminator_loss."""
    np.save(tmp_path / "points.npy", np.random.default_rng(0).random((60, 6), dtype=np.float32))
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(OLD / "wgan.npz", out / "checkpoint.npz")
    (out / "history.csv").write_text("epoch,seconds,critic_loss\n1,0.5,2.25\n")
    given = ["--data", str(tmp_path / "points.npy"), "--accept-new-data", "--out", str(out)]
    assert main(["train", "wgan", "--epochs", "2", "--resume", *given]) == 0, capsys.readouterr().err
    header, first, second = (out / "history.csv").read_text().splitlines()
    assert header.startswith("epoch,seconds,discriminator_loss,") and first.startswith("1,0.5,2.25,")
    assert second.startswith("2,") and "nan" not in second and "critic_loss" not in header
    assert main(["sample", str(out), "-n", "3", "-o", str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (3, 6)


def test_a_former_name_on_the_command_line_is_told_the_new_one(tmp_path, capsys):
    out = ["--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", "wgan", *out, "--set", "k=5"]) == 2
    assert "--set k: this setting of a WGAN is now called d_steps; use --set d_steps=5" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "former"), [(name, former) for name in RENAMED for former in RENAMED[name]])
def test_every_former_name_is_known_and_gone(name, former):
    settings = {field: None for field in find_model(name).__dataclass_fields__}
    assert former not in settings and RENAMED[name][former] in settings
    with pytest.raises(UsageError, match=f"now called {RENAMED[name][former]};"):
        parse_settings(find_model(name), [f"{former}=1"])
