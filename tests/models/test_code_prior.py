"""A prior over a VQ-VAE's codes: it is a law over codes, the VQ-VAE inside stands still, and the command line knows it."""

import functools
import itertools
import json
import math

import numpy as np
import pytest

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import load
from scratchgen.models.code_prior import CodePrior
from scratchgen.models.made import MADE
from scratchgen.models.masked_diffusion import MaskedDiffusion
from scratchgen.models.vqvae import VQVAE
from scratchgen.train.checkpoint import load_model, read_checkpoint, save_checkpoint
from scratchgen.train.fit import fit

SMALL_VQVAE = {"n_features": 64, "hidden": (32,), "n_codes": 4, "n_dim": 2, "n_embeddings": 8, "batch": 50, "lr": 1e-2}
SMALL = {"n_features": 64, "n_embed": 4, "hidden": (32,), "lr": 1e-2, "averaging": 0.95}
SET = ["hidden=16", "n_embed=2"]
SET_VQVAE = ["vqvae.hidden=16", "vqvae.n_codes=4", "vqvae.n_dim=2", "vqvae.n_embeddings=8", "vqvae.hidden_D=8"]
both = pytest.mark.parametrize("prior", ["made", "masked"])


@functools.cache
def first():
    """A trained VQ-VAE, and its pictures."""
    vqvae, x = VQVAE(**SMALL_VQVAE).build(Rng(0)), load("digits").x_train
    fit(vqvae, x, epochs=4, progress=False)
    return vqvae, x


def trained(epochs=1, **settings):
    vqvae, x = first()
    model = CodePrior(vqvae=vqvae, **SMALL | settings).build(Rng(1))
    fit(model, x, epochs=epochs, progress=False)
    return vqvae, model, x


@both
def test_the_vqvae_inside_is_the_one_given_and_stands_still(prior, tmp_path):
    vqvae, model, x = trained(prior=prior)
    assert model.vqvae is not vqvae
    for name, array in vqvae.params.state().items():
        np.testing.assert_array_equal(model.vqvae.params.state()[name], array)
    assert {name.partition(".")[0] for name in model.state()} == {"params", "adam", "average", "vqvae"}
    assert model.parameters().keys() == {"params", "vqvae.params"}
    assert type(model.over_codes) is {"made": MADE, "masked": MaskedDiffusion}[prior]
    save_checkpoint(tmp_path / "checkpoint.npz", model)
    again, _ = load_model(tmp_path / "checkpoint.npz")
    assert (again.sample(5, Rng(1)) == model.sample(5, Rng(1))).all()
    assert again.evaluate(x[:50], Rng(2)) == model.evaluate(x[:50], Rng(2))


def test_the_bits_are_those_of_a_law_over_the_codes():
    """It gives all 8^4 codes together probability 1."""
    _, model, x = trained()
    every = np.array(list(itertools.product(range(8), repeat=4)))
    log_p = model.over_codes.log_prob(every)
    assert np.exp(log_p).sum() == pytest.approx(1, rel=1e-4)
    codes = model.vqvae.codes(x[:100])
    found = model.evaluate(x[:100], Rng(0))
    wanted = -log_p[codes @ 8 ** np.arange(4)[::-1]].mean() / math.log(2)
    assert found["code_bits"] == pytest.approx(wanted, rel=1e-5) and found["stored_bits"] == 12


@both
def test_its_codes_cost_less_than_by_their_frequencies_and_its_pictures_are_of_such_codes(prior):
    _, model, x = trained(epochs=15, prior=prior)
    codes = model.vqvae.codes(x)
    p = np.stack([np.bincount(column, minlength=8) for column in codes.T]) / len(x)
    alone = -(p * np.log2(np.maximum(p, 1e-9))).sum()  # bits, if each code is independent of the others
    found = model.evaluate(x, Rng(0))
    assert found["code_bits"] < alone - 0.5 < found["stored_bits"]
    drawn = model.over_codes.sample(400, Rng(3))
    np.testing.assert_array_equal(model.sample(400, Rng(3)), model.vqvae.decode_codes(drawn))
    (cost,) = model.over_codes.evaluate(drawn, Rng(4)).values()
    assert cost / math.log(2) == pytest.approx(found["code_bits"], abs=1)


@both
def test_two_codes_are_enough_and_one_is_not(prior):
    vqvae, batch = VQVAE.example(Rng(0), n_embeddings=2)
    vqvae.train_step(**batch, rng=Rng(1))
    model, batch = CodePrior.example(Rng(2), vqvae=vqvae, prior=prior)
    model.train_step(**batch, rng=Rng(3))
    assert len(np.unique(model.sample(50, Rng(4)), axis=0)) > 1
    with pytest.raises(UsageError, match="CodePrior setting vqvae: its codebook has a single code"):
        CodePrior(n_features=64, vqvae=VQVAE(**SMALL_VQVAE | {"n_embeddings": 1}))


def test_a_vqvae_of_other_pictures_or_an_untrained_one_is_refused():
    with pytest.raises(UsageError, match=r"CodePrior setting vqvae: .*784.*64"):
        CodePrior(n_features=64)
    untrained = CodePrior(vqvae=VQVAE(**SMALL_VQVAE), **SMALL).build(Rng(0))
    with pytest.raises(UsageError, match=r"CodePrior setting vqvae: .* train a VQVAE first"):
        fit(untrained, load("digits").x_train, epochs=1, progress=False)
    with pytest.raises(UsageError, match=r"CodePrior needs pixels in \[0, 1\].* --set vqvae\.output=linear"):
        untrained.check_data(2 + load("digits").x_train)


# ---- on the command line ----


def train(tmp_path, *options, epochs=1, resume=()):
    command = ["train", "code_prior", "--epochs", str(epochs), "--out", str(tmp_path / "run"), *resume]
    return main([*command, "--set", *SET, *options])


def test_train_sample_evaluate_and_resume(tmp_path, capsys):
    assert train(tmp_path, "prior=masked", *SET_VQVAE) == 0
    assert f"training one first, into {tmp_path / 'run' / 'vqvae'}" in capsys.readouterr().out
    notes, arrays = read_checkpoint(tmp_path / "run" / "checkpoint.npz")
    first, inside = read_checkpoint(tmp_path / "run" / "vqvae" / "checkpoint.npz")
    assert first["model"] == "vqgan" and (arrays["vqvae.params.theta"] == inside["params.theta"]).all()
    assert notes["settings"]["vqvae"]["n_embeddings"] == 8 and notes["settings"]["prior"] == "masked"
    assert train(tmp_path, "prior=masked", "n_steps=2", epochs=2, resume=["--resume"]) == 0
    assert main(["sample", str(tmp_path / "run"), "-n", "3", "-o", str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (3, 64)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["epoch"] == 2 and found["code_bits"] < found["stored_bits"] == 12 and "frechet_error" in found


def test_a_vqvae_that_is_given_is_taken(tmp_path, capsys):
    vqvae, settings = tmp_path / "vqvae", [setting.removeprefix("vqvae.") for setting in SET_VQVAE[:-1]]
    assert main(["train", "vqvae", "--epochs", "1", "--out", str(vqvae), "--set", *settings]) == 0
    assert main(["sample", str(vqvae), "-n", "3", "-o", str(tmp_path / "x.npy")]) == 2
    assert "train a code_prior" in capsys.readouterr().err
    assert train(tmp_path, f"vqvae={vqvae}") == 0
    assert "training one first" not in capsys.readouterr().out
    assert main(["list", "code_prior"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "vqvae=DIR makes the codes: the folder of a trained vqvae or vqgan. Without it a vqgan is trained" in said
