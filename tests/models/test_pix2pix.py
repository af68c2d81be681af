"""Picture to picture: what a condition is made of, who learns from what, and that D asks for what is written down."""

import dataclasses
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Rng, UsageError, gradcheck
from scratchgen.__main__ import main
from scratchgen.backend import to_host
from scratchgen.check.variants import variants
from scratchgen.data import load
from scratchgen.metrics.image import psnr, sharpness
from scratchgen.models.pix2pix import Pix2Pix, block_means, enlarged, outlines
from scratchgen.nn import losses
from scratchgen.train.fit import fit

DEMOS = pathlib.Path(__file__).parents[2] / "demos"
every_variant = pytest.mark.parametrize("settings", variants("pix2pix"))


def tiny(**settings):
    return Pix2Pix.example(Rng(0, "float64"), **settings)


# ---- conditions ----


def test_the_outline_of_a_ring_and_at_the_border():
    """X is ink, o its outline: inside and outside, not at corners, and none beyond the picture."""
    rows = ["X o . . . . .", "o . o o o . .", ". o X X X o .", ". o X o X o .", ". o X X X o .", ". . o o o . ."]
    picture = np.array([row.split() for row in rows])[None]
    np.testing.assert_array_equal(outlines((picture == "X").astype(np.float32)), picture == "o")


@given(seed=st.integers(0, 2**32 - 1), h=st.integers(1, 7), w=st.integers(1, 7))
def test_an_outline_is_paper_that_touches_ink(seed, h, w):
    x = Rng(seed).uniform((2, h, w))
    c = outlines(x)
    assert c.dtype == np.float32 and set(np.unique(c)) <= {0, 1}
    for image, line in zip(x > 0.5, c):
        for i, j in np.ndindex(h, w):
            touching = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
            near = any(image[a, b] for a, b in touching if 0 <= a < h and 0 <= b < w)
            assert line[i, j] == (near and not image[i, j])


def test_outlines_of_grey_and_dark_ink_are_the_same():
    x = Rng(0).uniform((3, 6, 6))
    np.testing.assert_array_equal(outlines(x), outlines((x > 0.5).astype(np.float32)))


def test_a_small_picture_holds_the_means_of_blocks():
    image = np.arange(16.0).reshape(1, 4, 4)
    np.testing.assert_array_equal(block_means(image, 2), [[[2.5, 4.5], [10.5, 12.5]]])
    np.testing.assert_array_equal(enlarged(image[:, :2, :2], 2)[0, :, :2], [[0, 0], [0, 0], [4, 4], [4, 4]])


@given(seed=st.integers(0, 2**32 - 1), side=st.integers(1, 4), factor=st.integers(1, 4))
def test_to_enlarge_and_to_shrink_again_changes_nothing(seed, side, factor):
    small = Rng(seed).uniform((3, side, side))
    np.testing.assert_allclose(block_means(enlarged(small, factor), factor), small, rtol=1e-6)


def test_conditions_are_rows_of_the_right_width():
    x = Rng(0).uniform((5, 784))
    for settings, n in (
        ({}, 784),
        ({"condition": "low_resolution"}, 49),
        ({"condition": "low_resolution", "factor": 7}, 16),
    ):
        c = Pix2Pix(**settings).conditions(x)
        assert c.shape == (5, n) and c.dtype == np.float32
    block = x[2].reshape(28, 28)[4:8, 4:8].mean()
    assert Pix2Pix(condition="low_resolution").conditions(x)[2, 8] == pytest.approx(block, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_features": 63}, "n_features: expected a square"),
        (
            {"factor": 3, "condition": "low_resolution"},
            "factor: expected a divisor of the side of 28 pixels, got 3",
        ),
        ({"factor": 0}, "factor: .* got 0"),
        ({"factor": 0, "condition": "low_resolution"}, "factor: .* got 0"),
    ],
)
def test_pictures_that_cannot_be_folded_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Pix2Pix(**settings)
    Pix2Pix(factor=3)  # outlines have no blocks


def test_pixels_are_wanted():
    model, batch = Pix2Pix.example(Rng(0), output="linear")
    with pytest.raises(UsageError, match=r"Pix2Pix needs pixels in \[0, 1\]"):
        fit(model, 3 * batch["x"], epochs=1, progress=False)


# ---- who learns from what ----


@every_variant
def test_neither_loss_touches_the_other_network(settings):
    model, batch = tiny(**settings)
    for objective, own in model.objectives.items():
        other = next(params for key, params in model.parameters().items() if key != own)
        other.grad[...] = rest = Rng(3, "float64").normal(other.grad.shape)
        theta = other.theta.copy()
        getattr(model, objective)(**batch, rng=model.rng(1))
        assert (other.grad == rest).all() and (other.theta == theta).all()
        assert getattr(model, own).grad.any()


@every_variant
def test_a_round_is_k_steps_of_D_on_batches_of_their_own_and_one_of_G(settings):
    model, _ = tiny(**settings | {"d_steps": 3})
    x, judged, made = model.rng(5).uniform((model.examples_per_step, 16)), [], []
    discriminator_loss, generator_loss = model.discriminator_loss, model.generator_loss
    model.discriminator_loss = lambda x, rng, labels: judged.append(x) or discriminator_loss(x, rng)
    model.generator_loss = lambda x, rng, labels: made.append(x) or generator_loss(x, rng)
    found = model.train_step(x, model.rng(1))
    assert len(x) == model.examples_per_step == 3 * model.batch
    np.testing.assert_array_equal(np.concatenate(judged), x)
    np.testing.assert_array_equal(made, [x[-model.batch :]])
    assert (int(model.optimizer_D.t[0]), int(model.optimizer_G.t[0])) == (3, 1)
    assert {"discriminator_loss", "generator_loss", "error", "adversarial"} <= found.keys()


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_the_losses_by_formula(kind):
    model, batch = tiny(adversarial_loss=kind, adversarial_weight=0.7, r1=0.0, lam=0.0, error="squares")
    x, c = batch["x"], model.conditions(batch["x"])
    x_hat = model.generator(c)
    real, fake = (model.discriminator(np.hstack([picture, c])) for picture in (x, x_hat))
    found = model.discriminator_loss(x, model.rng(1))["discriminator_loss"]
    assert found == pytest.approx(losses.loss_D(real, fake, kind)[0])
    expected = ((x_hat - x) ** 2).sum(axis=1).mean() + 0.7 * losses.loss_G(fake, kind)[0]
    assert model.generator_loss(x, model.rng(1))["generator_loss"] == pytest.approx(expected)


def test_the_absolute_error_is_a_sum_over_pixels():
    model, batch = tiny()
    x_hat = model.generator(model.conditions(batch["x"]))
    found = model.generator_loss(**batch, rng=model.rng(1))["error"]
    assert found == pytest.approx(np.abs(x_hat - batch["x"]).sum(axis=1).mean())


def slopes(model, x, c):
    """∇ₓ D(x, c), (B, n_features)."""
    y, back = model.discriminator.forward(np.hstack([x, c]), None)
    return back(np.ones_like(y), learn=False)[:, : x.shape[1]]


def test_r1_is_half_gamma_times_the_squared_slope_in_the_pixels_of_real_pairs():
    model, batch = tiny(r1=0.7)
    x = batch["x"]
    found = model.discriminator_loss(x, model.rng(1))
    expected = (slopes(model, x, model.conditions(x)) ** 2).sum(axis=1).mean()
    assert found["penalty"] == pytest.approx(expected)
    plain = tiny(r1=0.0)[0].discriminator_loss(x, model.rng(1))["discriminator_loss"]
    assert found["discriminator_loss"] - plain == pytest.approx(0.35 * expected)


def test_a_critics_slope_is_to_be_1_between_real_and_made():
    model, batch = tiny(adversarial_loss="wasserstein", lam=3.0)
    x, c = batch["x"], model.conditions(batch["x"])
    found = model.discriminator_loss(x, Rng(5, "float64"))
    alpha = Rng(5, "float64").uniform((len(x), 1))
    at = alpha * x + (1 - alpha) * model.generator(c)
    expected = ((np.linalg.norm(slopes(model, at, c), axis=1) - 1) ** 2).mean()
    assert found["penalty"] == pytest.approx(expected)
    assert found["discriminator_loss"] == pytest.approx(3 * expected - found["wasserstein"])


def test_without_an_adversary_it_is_a_regression_and_nothing_else():
    model, batch = tiny(adversarial_weight=0.0, d_steps=3)
    assert model.examples_per_step == model.batch  # no steps of D to take batches for
    assert model.objectives == {"generator_loss": "params_G"} and model.discriminator is None
    assert not any("_D" in name for name in model.state())

    def value():
        return model.generator_loss(**batch, rng=Rng(1, "float64"))["generator_loss"]

    report = gradcheck(value, model.params_G)
    assert report and report.error <= 1e-12, str(report)
    x, before = batch["x"][:4], model.params_G.theta.copy()
    found = model.train_step(x, model.rng(1))
    expected = np.abs(tiny(adversarial_weight=0.0)[0].generator(model.conditions(x)) - x).sum(axis=1).mean()
    assert found.keys() == {"generator_loss"} and found["generator_loss"] == pytest.approx(expected)
    assert (model.params_G.theta != before).any()
    assert model.evaluate(x, None).keys() == {"absolute_error", "squared_error", "mse"}
    history = fit(model, np.tile(batch["x"], (4, 1)), epochs=2, progress=False)
    assert history[1]["generator_loss"] < history[0]["generator_loss"]


def test_D_is_asked_whether_the_picture_fits_its_condition():
    """D trained on true pairs must tell (x, c) from (x, another's c), which are both real pictures."""
    model, _ = Pix2Pix.example(Rng(0), condition="low_resolution", hidden_D=(64,), lr_D=5e-3, r1=0.0)
    rng = model.rng(1)
    model.translate = lambda c, rng: (shuffled, None)  # a G that makes real pictures, of other conditions
    for _ in range(300):
        x = enlarged(rng.uniform((32, 2, 2)), 2).reshape(32, 16)
        shuffled = np.roll(x, 1, axis=0)
        model.discriminator_loss(x, rng)
        model.optimizer_D.step()
    x = enlarged(rng.uniform((500, 2, 2)), 2).reshape(500, 16)
    c = model.conditions(x)
    right, wrong = (model.discriminator(np.hstack([x, other])) for other in (c, np.roll(c, 1, axis=0)))
    assert ((right > 0).mean() + (wrong < 0).mean()) / 2 > 0.85


# ---- what it makes ----


def test_dropout_is_the_noise_of_what_it_makes():
    model, batch = tiny(dropout=0.5, hidden_G=(30,))
    c = model.conditions(batch["x"])
    a, b, again = (model.generate(c, Rng(seed, "float64")) for seed in (1, 2, 1))
    assert (a == again).all() and not np.array_equal(a, b)
    assert (model.generate(c) == model.generate(c)).all()
    assert a.shape == (4, 16)


def test_pictures_come_from_the_averaged_weights():
    model, batch = tiny()
    model.average.average[...] = 0
    assert (model.generate(model.conditions(batch["x"])) == 0.5).all()  # the sigmoid of 0
    assert model.params_G.theta.any()


def test_a_residual_is_added_to_the_enlarged_condition():
    for condition in ("low_resolution", "edges"):
        model, batch = tiny(output="residual", condition=condition)
        model.average.average[...] = 0
        c = model.conditions(batch["x"])
        wanted = c if condition == "edges" else enlarged(c.reshape(4, 2, 2), 2).reshape(4, 16)
        np.testing.assert_array_equal(model.generate(c), wanted)


def test_it_draws_nothing_out_of_thin_air():
    with pytest.raises(UsageError, match="Pix2Pix has no way to sample"):
        tiny()[0].sample(3, Rng(0))


def test_what_is_measured_on_test_pictures():
    model, batch = tiny()
    x = batch["x"]
    c = model.conditions(x)
    x_hat, found = model.generate(c), model.evaluate(x, None)
    assert found["absolute_error"] == pytest.approx(np.abs(x_hat - x).sum(axis=1).mean())
    assert found["mse"] == pytest.approx(((x_hat - x) ** 2).mean()) == pytest.approx(found["squared_error"] / 16)
    assert found["logit_real"] == pytest.approx(model.discriminator(np.hstack([x, c])).mean())
    assert found["logit_fake"] == pytest.approx(model.discriminator(np.hstack([x_hat, c])).mean())


# ---- no setting is dead ----

OTHER = {
    "factor": 4, "output": "linear", "error": "squares", "adversarial_weight": 0.3, "adversarial_loss": "hinge",
    "d_steps": 2, "dropout": 0.4,
    "r1": 0.3, "lam": 3.0, "batch": 8, "lr_G": 1e-3, "lr_D": 1e-3, "beta1": 0.5, "beta2": 0.8, "decay_steps": 3,
    "averaging": 0.3, "condition": "low_resolution",
}  # fmt: skip
BESIDE = {"factor": {"condition": "low_resolution"}, "lam": {"adversarial_loss": "wasserstein"}}
NETWORKS = {"n_features", "hidden_G", "hidden_D"}


def after_four_rounds(settings):
    model, batch = tiny(**settings)
    for step in range(4):
        model.train_step(**batch, rng=model.rng(step))
    return model.params_D.theta, model.generate(model.conditions(np.full((3, 16), 0.3)), model.rng(9))


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    beside = BESIDE.get(setting, {})
    (D, x), (other_D, other_x) = (after_four_rounds(beside | s) for s in ({}, {setting: OTHER[setting]}))
    assert not np.array_equal(x, other_x)
    assert setting == "averaging" or not np.array_equal(D, other_D)


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(Pix2Pix)} - NETWORKS == OTHER.keys()


def test_the_rates_stay_for_half_of_the_rounds_and_then_fall_to_nothing():
    model, batch = tiny(d_steps=2, decay_steps=10, lr_G=1e-3, lr_D=2e-3)
    rates = []
    for step in range(12):
        model.train_step(**batch, rng=model.rng(step))
        rates.append([o.rate(int(o.t[0])) for o in (model.optimizer_G, model.optimizer_D)])
    np.testing.assert_allclose(rates[:5], [[1e-3, 2e-3]] * 5)
    assert 0 < rates[8][0] < 5e-4 and 0 < rates[8][1] < 1e-3
    np.testing.assert_allclose(rates[10:], 0, atol=1e-20)


def test_a_saturated_D_is_named(capsys):
    model, _ = Pix2Pix.example(Rng(0), r1=0.0, lr_D=0.05, lr_G=1e-6, hidden_D=(64,), batch=8)
    fit(model, np.zeros((80, 16), np.float32), epochs=60)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "tells real from generated" in line]
    assert all(word in said for word in ("epoch", "discriminator_loss", "r1"))


# ---- on digits ----


def test_the_command_line_trains_it_on_pictures_alone(tmp_path, capsys):
    options = [
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "run"),
        "--set",
        "condition=low_resolution",
        "factor=2",
        "hidden_G=32",
    ]
    assert main(["train", "pix2pix", *options]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "mse" in capsys.readouterr().out
    assert main(["sample", str(tmp_path / "run"), "-n", "4", "-o", str(tmp_path / "x.png")]) == 2
    assert "no way to sample" in capsys.readouterr().err


def upscaled(steps, **settings):
    """A network that doubles the side of digits, trained for so many steps, and what it makes of test digits."""
    data, settings = load("digits"), {"condition": "low_resolution", "factor": 2, "error": "squares"} | settings
    model = Pix2Pix(n_features=64, hidden_G=(256, 256), **settings).build(Rng(0))
    fit(model, data.x_train, epochs=math.ceil(steps / 21), progress=False)
    return data, model, to_host(model.generate(model.conditions(data.x_test)))


def test_a_regression_beats_repeated_pixels_at_once():
    data, model, x_hat = upscaled(300, adversarial_weight=0.0, lr_G=1e-3, beta1=0.9)
    repeated = enlarged(model.conditions(data.x_test).reshape(-1, 4, 4), 2).reshape(-1, 64)
    assert psnr(x_hat, data.x_test) > psnr(repeated, data.x_test) + 3  # measured: 17.3 and 12.9


@pytest.mark.slow
def test_D_buys_sharpness_with_error():
    (data, _, soft), (_, _, sharp) = (
        upscaled(1500, adversarial_weight=0.0, lr_G=1e-3, beta1=0.9),
        upscaled(1200, adversarial_weight=10.0, r1=0.1),
    )
    assert psnr(soft, data.x_test) > psnr(sharp, data.x_test) + 0.5
    assert sharpness(soft, (8, 8)) + 0.01 < sharpness(sharp, (8, 8))


# ---- a drawing of one's own, for demos/use_translation.py ----


@pytest.fixture
def translation(demo):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    return demo("use_translation")


def zero(size, paper, ink, line, width=0.4, place=(0.3, 0.1)):
    """A drawing of a zero's outer outline in a picture of a size (w, h): an ellipse, 0.8 of the height."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, paper)
    left, top = place[0] * size[0], place[1] * size[1]
    ImageDraw.Draw(image).ellipse((left, top, left + width * size[1], top + 0.8 * size[1]), outline=ink, width=line)
    return image


def outlines_of_size(n, side=28):
    """Outlines of squares of n pixels."""
    images = np.zeros((3, side, side), np.float32)
    images[:, 2:n, 3 : n + 1] = 1
    return outlines(images).reshape(3, -1)


def test_a_drawing_is_read_whatever_its_size_colours_and_place(translation, tmp_path):
    found = []
    for i, drawing in enumerate(
        [
            zero((300, 400), "white", "black", 12),
            zero((500, 400), "black", "#d0ffd0", 12, place=(0.05, 0.15)),
            zero((600, 800), "#f0ead8", "#203060", 24),
        ]
    ):
        drawing.save(tmp_path / f"{i}.png")
        found.append(translation.read_drawing(tmp_path / f"{i}.png", outlines_of_size(20)))
    for c in found:
        assert c.shape == (1, 784) and c.dtype == np.float32 and set(np.unique(c)) == {0, 1}
        line = c.reshape(28, 28)
        rows, columns = np.flatnonzero(line.any(axis=1)), np.flatnonzero(line.any(axis=0))
        assert (rows[0], rows[-1]) == (4, 23) and (columns[0], columns[-1]) == (
            9,
            18,
        )  # 20 high, 10 wide, in the middle
        assert (line[13, [9, 18]] == 1).all() and not line[8:20, 12:16].any()  # a line, and paper inside
        assert (c != found[0]).mean() < 0.02


def test_a_line_of_one_pixel_in_a_picture_of_the_right_size_stays(translation, tmp_path):
    from PIL import Image

    c = outlines_of_size(20)[:1]
    Image.fromarray((255 * (1 - c.reshape(28, 28))).astype(np.uint8)).save(tmp_path / "c.png")
    centred = np.roll(c.reshape(28, 28), (3, 2), axis=(0, 1)).reshape(1, -1)
    np.testing.assert_array_equal(translation.read_drawing(tmp_path / "c.png", c), centred)


def test_what_is_no_drawing_is_refused_by_name(translation, tmp_path):
    zero((60, 60), "white", "white", 3).save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, words in (
        ("blank.png", "one even colour"),
        ("text.png", "unreadable picture"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(UsageError, match=f"{name}: {words}") as caught:
            translation.read_drawing(tmp_path / name, outlines_of_size(20))
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_drawing_is_painted(tmp_path):
    zero((300, 400), "white", "black", 12).save(tmp_path / "zero.png")
    command = [sys.executable, "-W", "error", str(DEMOS / "use_translation.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--input", str(tmp_path / "zero.png")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "use_translation_input.png") in done.stdout
    assert (tmp_path / "use_translation_input.png").read_bytes().startswith(b"\x89PNG")
    done = subprocess.run([*command, "--input", str(tmp_path / "none.png")], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "none.png" in done.stderr
