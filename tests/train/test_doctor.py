"""The doctor names each illness of a training, once and with a remedy, says nothing of healthy ones, and changes nothing."""

import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import simcupy
from simcupy.runner import Runner

from scratchgen import kernels
from scratchgen.__main__ import main
from scratchgen.backend import Rng, to_host
from scratchgen.data import load
from scratchgen.models import find_model, model_names
from scratchgen.models.classifier import Classifier
from scratchgen.models.ebm import EBM
from scratchgen.models.gan import GAN
from scratchgen.models.gsn import GSN
from scratchgen.models.rbm import RBM
from scratchgen.models.vae import VAE
from scratchgen.models.vqvae import VQVAE
from scratchgen.models.wgan import WGAN
from scratchgen.nn import losses as losses_module
from scratchgen.train import doctor as doctor_module
from scratchgen.train import fit as fit_module
from scratchgen.train.doctor import ILLNESSES, LOOKS, Doctor
from scratchgen.train.fit import fit

every_model = pytest.mark.parametrize("name", model_names())
DEEP = {"hidden": (8,) * 6, "n_features": 6, "n_latent": 2, "batch": 8}


@pytest.fixture(autouse=True)
def often(monkeypatch, request):
    """A look after every ten steps, however short they are: what is wrong shows in a fast test."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(doctor_module, "SHARE", math.inf)
        monkeypatch.setattr(doctor_module, "LOOK_EVERY", 10)


def pixels(n, n_features=6):
    """n pictures of independent pixels, each as often dark as light."""
    return Rng(7).uniform((n, n_features)).round() * 0.8 + 0.1


def trained(capsys, model, x=None, epochs=10, **options):
    """What standard error says of the training of a model, as lines."""
    model = model.build(Rng(0)) if not hasattr(model, "params") and not hasattr(model, "params_G") else model
    fit(model, pixels(80) if x is None else x, epochs=epochs, **options)
    return capsys.readouterr().err.splitlines()


def looked(model, x, losses=None, between=None, looks=8):
    """The lines of a Doctor in so many looks at a built model. between(model, i): changes the model before look i."""
    doctor, lines = Doctor(model, model.on_device(x=x), [], 0), []
    for i in range(looks):
        if between:
            between(model, i)
        lines += doctor.look(losses or {}, 10)
    return lines


def only(lines, name, *words):
    """Assert that just one line is of this illness, and that it has these words."""
    (line,) = [line for line in lines if f"{name}:" in line]
    assert all(word in line for word in words), line


# ---- each illness, in a short training that goes wrong, or in a model that is put into that state ----


def test_dead_relus(capsys):
    said = trained(capsys, VAE(n_features=6, hidden=(20,), n_latent=2, batch=8, lr=2.0), epochs=30)
    only(said, "dead ReLUs", "of the ReLUs of encoder.1", "a smaller lr (now 2)", "activation=leaky_relu")


def test_half_of_a_layer_may_be_idle():
    model, batch = VAE.example(Rng(0), hidden=(20,))

    def step(model, i):
        model.encoder.layers[0].b[:10] = -100.0
        model.params.changed()
        model.loss(**batch, rng=Rng(i))

    assert not [line for line in looked(model, batch["x"], between=step) if "dead" in line]


def test_vanishing_gradient(capsys):
    said = trained(capsys, VAE(**DEEP, activation="sigmoid"))
    only(said, "vanishing gradient", "first layer of", "activation=relu", "init=he")
    assert not [line for line in trained(capsys, VAE(**DEEP)) if "gradient" in line]


def test_gradient_that_explodes_from_layer_to_layer():
    model, batch = VAE.example(Rng(0), **DEEP | {"activation": "tanh"})
    for layer in model.encoder.layers[::2]:
        layer.W *= 40
    model.params.changed()
    model.loss(**batch, rng=Rng(1))
    grads = model.params.named_grads()  # tanh is flat there: what a network without a flat part would have
    grads["encoder.0.W"][...] = 1e5 * np.abs(grads["encoder.12.W"]).max()
    only(looked(model, batch["x"]), "exploding gradient", "first layer of encoder", "init=he")


def test_gradient_that_grows_while_training():
    model, batch = VAE.example(Rng(0))
    model.loss(**batch, rng=Rng(1))

    def grow(model, i):
        model.params.named_grads()["decoder.2.W"][...] *= 200 if i == LOOKS else 1

    only(
        looked(model, batch["x"], between=grow), "exploding gradient", "params.decoder.2.W", "2e+02 times", "smaller lr"
    )


@pytest.mark.parametrize("kind", ["minimax", "non_saturating", "least_squares", "hinge"])
def test_D_wins_below_a_tenth_of_the_loss_of_one_that_cannot_tell(kind):
    """The loss without the penalty. Its answer is then ½, which is least_squares' own number and the others' logit of 0."""
    model, batch = GAN.example(Rng(0), adversarial_loss=kind, r1=3.0)
    undecided = np.full((4, 1), 0.5 if kind == "least_squares" else 0.0)
    unsure = float(losses_module.loss_D(undecided, undecided, kind)[0])
    for penalty in (0.0, 0.2):
        most = 0.1 * unsure + 0.5 * 3.0 * penalty
        said = [
            looked(model, batch["x"], {"discriminator_loss": most + d, "penalty": penalty}) for d in (0.001, -0.001)
        ]
        assert not [line for line in said[0] if "D wins" in line]
        only(said[1], "D wins", "tells real from generated", "a larger r1")
    assert not [line for line in looked(model, batch["x"]) if "D wins" in line]


@pytest.mark.parametrize("name", ["gan", "conditional_gan"])
def test_a_saturated_D_is_named_once(name, capsys):
    settings = {"r1": 0.0, "lr_D": 0.05, "lr_G": 1e-6, "n_latent": 2, "hidden_G": (4,), "hidden_D": (64,), "batch": 8}
    model = find_model(name)(n_features=6, **settings).build(Rng(0))
    x = np.zeros((80, 6), np.float32)
    fit(model, x, labels=np.zeros(80, np.int64), epochs=60, progress=True)
    only(capsys.readouterr().err.splitlines(), "D wins", "epoch", "step", "discriminator_loss", "r1")


def test_a_critic_the_wrong_way_round():
    model, batch = WGAN.example(Rng(0))
    for fine in ({"wasserstein": 0.3}, {"wasserstein": -0.04}, {"discriminator_loss": -5.0}):  # that has no least value
        assert not [line for line in looked(model, batch["x"], fine) if "D " in line and "G does" not in line]
    only(looked(model, batch["x"], {"wasserstein": -0.06}), "D has the wrong sign", "a smaller lam", "one_sided=true")


def test_G_does_not_move(capsys):
    settings = {"n_features": 6, "n_latent": 2, "hidden_G": (8,), "hidden_D": (8,), "batch": 8}
    said = trained(capsys, GAN(**settings, lr_G=1e-8))
    only(said, "G does not move", "a larger lr_G (now 1e-08)", "a larger r1")
    assert "non_saturating" not in "".join(said)  # it is so already
    said = trained(capsys, GAN(**settings, lr_G=1e-8, adversarial_loss="minimax"))
    only(said, "G does not move", "adversarial_loss=non_saturating")
    falling = GAN(**settings, decay_steps=100)  # the rates fall to 0: G stops, as it should
    assert not [line for line in trained(capsys, falling) if "G does not move" in line]


def test_mode_collapse():
    model = GAN(n_features=2, n_latent=2, hidden_G=(8,), hidden_D=(8,), output="linear", averaging=0.0).build(Rng(0))
    ring = load("ring").x_train[:1000]
    model.generator.layers[-1].b[...] = ring[0]
    model.generator.layers[-1].W[...] *= 0.01  # one spot, where one of the eight modes is
    model.params_G.changed()
    model.average.average[...] = model.params_G.theta
    only(looked(model, ring), "mode collapse", "of 256 real examples", "pack=2", "lr_D (now 0.0005)")
    model.sample = lambda n, rng: ring[rng.integers(len(ring), n)]
    assert not [line for line in looked(model, ring) if "mode collapse" in line]


def test_posterior_collapse(capsys):
    model = VAE(n_features=6, hidden=(8,), n_latent=3, batch=8, beta=50.0)
    only(trained(capsys, model), "posterior collapse", "all 3 codes", "a smaller beta (now 50)")


def test_silent_codes_are_named_and_a_few_of_them_are_healthy():
    model, batch = VAE.example(Rng(0), n_latent=20, activation="tanh")

    def silence(codes):
        W, b = model.encoder.layers[-1].W, model.encoder.layers[-1].b
        W[...] += 10 * Rng(1).normal(W.shape)
        W[:, codes] = b[codes] = W[:, 20 + codes] = b[20 + codes] = 0
        model.params.changed()
        return [line for line in looked(model, batch["x"]) if "collapse" in line]

    assert silence(np.arange(15)) == []
    only(silence(np.arange(19)), "posterior collapse", "codes 0, 1, 2, ", ", 18 say nothing")


def test_codes_off_the_prior(capsys):
    model = VAE(n_features=6, hidden=(40,), n_latent=2, batch=8, beta=0.0, lr=1e-2)
    only(
        trained(capsys, model, epochs=40), "codes off the prior", "E[z²] = 1", "a larger beta (now 0; 1 gives the ELBO)"
    )


def test_codebook_collapse(capsys):
    model = VQVAE(n_features=6, hidden=(8,), n_codes=2, n_dim=2, n_embeddings=40, batch=8, restart_every=0).build(
        Rng(0)
    )
    model.prepare = lambda x, rng, labels=None: model.book.put(1e3 * (model.book.W + 1))  # far from every token
    only(trained(capsys, model), "codebook collapse", "of 40 codes only about 1", "restart_every=200")


@pytest.mark.parametrize("settings", [{}, {"persistent": False, "gibbs_steps": 5}])
def test_diverging_chain_of_a_boltzmann_machine(settings, capsys):
    model = RBM(n_features=6, n_hidden=8, n_chains=20, batch=8, lr=100.0, **settings)
    only(trained(capsys, model, epochs=20), "diverging chain", "a smaller lr (now 100)", "more gibbs_steps")


def test_diverging_chain_of_a_gsn():
    model = GSN(n_features=6, hidden=(8,), batch=8).build(Rng(0))
    model.network.layers[-1].b[...] = 20.0  # whatever it sees, it says black
    model.params.changed()
    only(looked(model, pixels(80)), "diverging chain", "standard deviations", "more walk_steps")


@pytest.mark.parametrize("how", ["away", "apart"])
def test_diverging_chain_of_an_energy(how):
    model = EBM(n_features=6, hidden=(8,), n_chains=20, batch=8, objective="contrastive").build(Rng(0))
    assert looked(model, pixels(80)) == []
    if how == "away":
        model.buffer.states += 3
    else:
        model.buffer.states[::2], model.buffer.states[1::2] = 5, -5
    words = "standard deviations of the data away" if how == "away" else "standard deviation of the chains is"
    only(looked(model, pixels(80)), "diverging chain", words, "more chain_steps")


def test_overfitting(capsys):
    data = load("digits")
    model = Classifier(n_features=64, hidden=(64,), batch=20, lr=1e-2, dropout=0.0)
    few = {"labels": data.labels_train[:40], "labels_test": data.labels_test[:100] * 0 + Rng(0).integers(10, 100)}
    said = trained(capsys, model, data.x_train[:40], 25, x_test=data.x_test[:100], **few)
    only(said, "overfitting", "test_cross_entropy was least in epoch", "--best", "smaller network")


def test_neither_noise_nor_a_training_that_gets_worse_is_overfitting():
    model, rng = VAE.example(Rng(0))[0], np.random.default_rng(0)

    def said(test, train):
        rows = []
        doctor, lines = Doctor(model, {"x": pixels(8)}, rows, 0), []
        for epoch, (a, b) in enumerate(zip(test, train), 1):
            rows.append({"epoch": epoch, "test_negative_elbo": a, "loss": b})
            lines += doctor.read()
        return lines

    falls, rises = np.linspace(3, 1, 40), np.linspace(1, 3, 40)
    assert len(said(rises, falls)) == 1
    assert said(rises, rises) == said(falls, falls) == said(2 + 0.3 * rng.normal(size=40), falls) == []


# ---- when it speaks ----


def test_a_line_once_in_a_run_with_the_time_and_also_without_progress(capsys):
    model = VAE(n_features=6, hidden=(8,), n_latent=3, batch=8, beta=50.0)
    (line,) = trained(capsys, model, epochs=20, progress=False)
    assert line.startswith("epoch 7, step 10: posterior collapse: ")


def test_what_is_wrong_for_a_moment_is_not_named(monkeypatch):
    answers = iter(["odd", "odd", "", "odd", "", "odd", "odd", "odd", "odd", "odd"])
    monkeypatch.setattr(doctor_module, "ILLNESSES", (lambda doctor: next(answers, ""),))
    model, batch = VAE.example(Rng(0))
    doctor = Doctor(model, batch, [], 0)
    assert [doctor.look({}, 10) for _ in range(10)] == [[]] * 7 + [["odd"]] + [[]] * 2


def test_looks_take_a_hundredth_of_the_time(monkeypatch):
    now = [0.0]

    def slow(doctor):
        now[0] += 0.2
        seen.append(now[0])
        return ""

    seen = []
    monkeypatch.setattr(doctor_module, "SHARE", 0.01)
    monkeypatch.setattr(doctor_module, "ILLNESSES", (slow,))
    monkeypatch.setattr(doctor_module.time, "perf_counter", lambda: now[0])
    model, batch = VAE.example(Rng(0))
    doctor = Doctor(model, batch, [], 0)
    for _ in range(10_000):
        now[0] += 0.01  # a step
        doctor.look({}, 1)
    assert len(seen) == 5 and min(np.diff(seen)) >= 20


def test_every_illness_has_a_symptom_a_measure_and_a_remedy():
    for illness in (*ILLNESSES, doctor_module.overfitting):
        assert all(f"{word}:" in illness.__doc__ for word in ("Symptom", "Measured", "Remedy")), illness


# ---- it changes nothing ----


@every_model
@pytest.mark.parametrize("device", ["cpu", "simulated"])
def test_a_look_changes_nothing_on_any_device(name, device, monkeypatch):
    monkeypatch.setitem(kernels.DEVICES, "simcupy", Runner())
    model, batch = find_model(name).example(Rng(0, "float32", np if device == "cpu" else simcupy))
    losses = {key: float(value) for key, value in model.train_step(**batch, rng=model.rng(1)).items()}

    def bits():
        arrays = model.state() | {f"{k}.grad": params.grad for k, params in model.parameters().items()}
        return {key: to_host(array).tobytes() for key, array in arrays.items()}

    before, doctor = bits(), Doctor(model, batch, [], 0)
    lines = [line for _ in range(LOOKS) for line in doctor.look(losses, 10)]
    assert all(isinstance(line, str) for line in lines)
    assert bits() == before


@pytest.mark.parametrize("name", ["vae", "gan", "vqvae", "rbm"])
def test_a_training_is_the_same_bit_for_bit_without_a_doctor(name, monkeypatch):
    def run():
        model, batch = find_model(name).example(Rng(0))
        history = fit(model, np.concatenate([batch["x"]] * 10), epochs=4, progress=False)
        return [row | {"seconds": 0} for row in history], {key: array.tobytes() for key, array in model.state().items()}

    looks, look = [], Doctor.look
    monkeypatch.setattr(Doctor, "look", lambda *given: looks.append(1) or look(*given))
    seen = run()
    assert len(looks) == 4
    monkeypatch.setattr(fit_module.Doctor, "look", lambda *given: [])
    assert run() == seen


# ---- healthy trainings, and demos that fail on purpose ----

DEMOS = pathlib.Path(__file__).parents[2] / "demos"
NAMES = (
    "dead ReLUs", "vanishing gradient", "exploding gradient", "D wins", "D has the wrong sign", "G does not move",
    "mode collapse", "posterior collapse", "codes off the prior", "codebook collapse", "diverging chain", "overfitting",
)  # fmt: skip
LONG = {"ddpm", "ebm", "flow", "flow_matching", "latent_diffusion", "latent_flow", "reflow"}
ON_POINTS = [
    "gan output=linear", "wgan output=linear lam=0.1", "vae likelihood=gaussian draw_x=true", "flow levels=0",
    "ebm objective=contrastive scaling=standard",
]  # fmt: skip


def named(said):
    """The illnesses of which standard error speaks, each as often as it does."""
    return sorted(name for line in said.splitlines() for name in NAMES if f": {name}: " in line)


@pytest.mark.slow
@every_model
def test_nothing_is_said_of_a_default_training(name, tmp_path, capsys):
    epochs = 25 if name in LONG else 40
    fewer = ["--set", "n_pairs=2000"] if name == "reflow" else []  # 50,000 take two minutes
    assert main(["train", name, "--epochs", str(epochs), "--out", str(tmp_path / "run"), "--compile", *fewer]) == 0
    assert named(capsys.readouterr().err) == []


@pytest.mark.slow
@pytest.mark.parametrize("given", ON_POINTS)
@pytest.mark.parametrize("data", ["ring", "moons"])
def test_nothing_is_said_of_a_training_on_points(given, data, tmp_path, capsys):
    name, *settings = given.split()
    command = ["train", name, "--data", data, "--epochs", "8", "--out", str(tmp_path / "run"), "--compile"]
    assert main([*command, "--set", *settings]) == 0
    assert named(capsys.readouterr().err) == []


def run_demo(name, tmp_path, *given):
    command = [sys.executable, DEMOS / f"{name}.py", "--compile", "--out", tmp_path, *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return named(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("demo", "illnesses"),
    [
        ("gan_what_losses_hide", {"mode collapse"}),
        ("vae_why_kl", {"codes off the prior", "posterior collapse"}),
        ("vqvae", {"codebook collapse"}),
    ],
)
def test_a_demo_that_fails_on_purpose_is_named(demo, illnesses, tmp_path):
    """In full: a twentieth of the training, as with --quick, is too short for three looks."""
    assert set(run_demo(demo, tmp_path)) == illnesses
