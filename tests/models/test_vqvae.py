"""The codebook finds the nearest code, learns, and lets no code die; the VQ-VAE's three terms pull on what they should."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Parameters, Rng, UsageError, gradcheck
from scratchgen.backend import stop
from scratchgen.data import load
from scratchgen.models.parts import codebook
from scratchgen.models.parts.codebook import Codebook, perplexity
from scratchgen.models.vqvae import VQVAE
from scratchgen.nn.losses import squared_error
from scratchgen.train.fit import fit

F64 = "float64"
both_codebooks = pytest.mark.parametrize("kind", ["ema", "gradient"])


def book(n_embeddings, n_dim, averaged=False, seed=0):
    layer = Codebook(n_embeddings, n_dim, averaged)
    Parameters(Rng(seed, F64), book=layer)
    return layer


def tiny(**settings):
    model, batch = VQVAE.example(Rng((0, 1), F64), **settings)
    return model, batch["x"]


def distances(z, W):
    return ((z[:, None] - W[None]) ** 2).sum(axis=2)


# ---- the codebook ----


@given(
    n=st.integers(1, 30),
    n_embeddings=st.integers(1, 12),
    n_dim=st.integers(1, 5),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    block=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_nearest_code_by_trying_them_all(n, n_embeddings, n_dim, scale, block, seed):
    layer, z = book(n_embeddings, n_dim, seed=seed), scale * Rng((seed, 1), F64).normal((n, n_dim))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codebook, "BLOCK", block)
        found = layer.nearest(z)
    np.testing.assert_array_equal(found, distances(z, layer.W).argmin(axis=1))
    np.testing.assert_array_equal(layer(z), layer.W[found])


def test_of_equally_near_codes_the_first():
    layer = book(3, 1)
    layer.put(np.array([[1.0], [-1.0], [1.0]]))
    np.testing.assert_array_equal(layer.nearest(np.array([[0.9], [-0.1], [5.0]])), [0, 1, 0])


@pytest.mark.parametrize("offset", [0.0, 100.0, -3000.0])
def test_the_nearest_code_far_from_0_in_single_precision(offset):
    """‖z - W‖² by ‖W‖² - 2 z·W would lose it all: at 100 a half of the codes were wrong."""
    layer, rng = Codebook(16, 4), Rng(0, "float32")
    Parameters(rng, layer=layer)
    layer.put(rng.normal((16, 4)) + np.float32(offset))
    z = rng.normal((500, 4)) + np.float32(offset)
    exact = distances(z.astype(F64), layer.W.astype(F64))
    found = layer.nearest(z)
    np.testing.assert_allclose(exact[np.arange(500), found], exact.min(axis=1), rtol=1e-3, atol=1e-3)


def test_every_code_learns_from_those_that_chose_it():
    layer, z, de = book(4, 3), Rng(1, F64).normal((20, 3)), Rng(2, F64).normal((20, 3))
    _, backward = layer.forward(z, None)
    dz, codes, expected = backward(de), layer.nearest(z), np.zeros((4, 3))
    np.add.at(expected, codes, de)
    np.testing.assert_allclose(layer.dW, expected, rtol=1e-13)
    assert dz.shape == z.shape and not dz.any()
    np.testing.assert_array_equal(layer.n, np.bincount(codes, minlength=4))


def test_perplexity_by_formula():
    counts = np.array([5.0, 0, 1, 2])
    p = np.array([5, 1, 2]) / 8
    assert perplexity(counts) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert perplexity(np.full(7, 3.0)) == pytest.approx(7)
    assert perplexity(np.array([0.0, 9, 0])) == pytest.approx(1)


def test_following_is_a_running_average_of_those_that_chose_it():
    """Appendix A.1, with its N and m kept here."""
    model, _ = tiny(decay=0.8, restart_every=0, lr=0.01)
    N, W = np.ones(5), model.book.W.copy()
    m = N[:, None] * W
    for step in range(12):
        x = Rng((step, 5), F64).uniform((4, 6))
        z = model.encode(x).reshape(-1, 2)
        codes = distances(z, W).argmin(axis=1)
        for k in range(5):
            N[k] = 0.8 * N[k] + 0.2 * (codes == k).sum()
            m[k] = 0.8 * m[k] + 0.2 * z[codes == k].sum(axis=0)
        W = m / N[:, None]
        model.train_step(x, model.rng(step))
        np.testing.assert_allclose(model.book.N, N, rtol=1e-12)
        np.testing.assert_allclose(model.book.W, W, rtol=1e-10)
    assert np.abs(W - model.book.W).max() < 1e-10 < np.abs(z).max()


def test_a_code_that_nobody_chooses_stays_where_it_is_for_ever():
    layer = book(2, 1, averaged=True)
    layer.put(np.array([[0.0], [50.0]]))
    for _ in range(3000):
        layer.n[...], layer.pull[...] = [4, 0], [[1.0], [0.0]]
        layer.follow(0.9)
    assert layer.N[1] < 1e-100 and layer.W[1, 0] == 50.0
    assert np.isfinite(layer.W).all()


@pytest.mark.parametrize("averaged", [True, False])
def test_a_restart_moves_dead_codes_and_only_those_onto_what_is_there(averaged):
    layer, z = book(6, 2, averaged), Rng(3, F64).normal((50, 2)) + 10
    before = layer.W.copy()
    layer.used[...] = [0, 297, 1.4, 1.6, 0, 0]  # a fair share is 50: 3 % of it are 1.5
    if averaged:
        layer.N[...] = [0, 7, 0.1, 0.1, 0, 0]
    layer.restart(z, 0.03, Rng(4, F64))
    np.testing.assert_array_equal(layer.W[[1, 3]], before[[1, 3]])
    moved = layer.W[[0, 2, 4, 5]]
    assert all((z == row).all(axis=1).any() for row in moved)
    assert len(np.unique(moved, axis=0)) > 1
    assert not layer.used.any()
    if averaged:
        np.testing.assert_array_equal(layer.N, [1, 7, 1, 0.1, 1, 1])


@both_codebooks
def test_a_revived_code_is_used(kind):
    """All codes but one start out of reach, where nobody chooses them."""
    model, x = tiny(codebook=kind, restart_every=5, n_embeddings=8, decay_steps=0)
    model.book.put(np.vstack([np.zeros((1, 2)), np.full((7, 2), 1e3)]))
    found = [model.train_step(x, model.rng(step)) for step in range(7)]
    assert found[3]["perplexity"] == pytest.approx(1) and found[3]["used"] == 1 / 8
    assert found[5]["perplexity"] > 1.5
    assert np.abs(model.book.W).max() < 100


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"restart_every": 3}, [3, 6, 9, 12, 15, 18]),
        ({"restart_every": 3, "decay_steps": 20}, [3, 6, 9, 12]),  # the last 30 % of the rounds are left in peace
        ({"restart_every": 0}, []),
    ],
)
def test_when_codes_are_restarted(settings, expected):
    model, x = tiny(**settings)
    found = []
    model.book.restart = lambda *given: found.append(int(model.adam.t[0]))
    for step in range(20):
        model.train_step(x, model.rng(step))
    assert found == expected
    assert model.same_every_step == (not settings["restart_every"])


@both_codebooks
def test_the_codebook_starts_from_tokens_of_the_training_data(kind):
    model = VQVAE(n_features=6, hidden=(5,), n_codes=3, n_dim=2, n_embeddings=9, codebook=kind, batch=4).build(
        Rng(0, F64)
    )
    x = Rng(1, F64).uniform((40, 6))
    fit(model, x, epochs=0, progress=False)
    tokens = model.encode(x).reshape(-1, 2)
    assert (distances(model.book.W, tokens).min(axis=1) < 1e-25).all()
    assert len(np.unique(model.book.W, axis=0)) == 9
    wide = VQVAE(n_features=6, hidden=(5,), n_codes=1, n_dim=2, n_embeddings=9, batch=4).build(Rng(0, F64))
    wide.prepare(x[:4], Rng(2, F64))  # fewer tokens than codes
    assert len(np.unique(wide.book.W, axis=0)) == 4


# ---- the objective ----


def slices(model, name):
    return np.concatenate([model.params.grad[where] for key, where in model.params.slices().items() if name in key])


def test_the_decoder_is_given_the_codes_and_the_encoder_its_gradient_as_it_is():
    model, x = tiny(beta=0.0)
    found = model.loss(x, model.rng(2))
    encoder, decoder = slices(model, "encoder"), slices(model, "decoder")
    model.params.zero_grad()
    z, back_encoder = model.encoder.forward(x, None)
    x_hat, back_decoder = model.decoder.forward(model.quantise(z), None)
    assert not np.allclose(z, model.quantise(z))
    assert found["squares"] == pytest.approx(((x_hat - x) ** 2).sum() / 4)
    back_encoder(back_decoder(2 * (x_hat - x) / 4))
    np.testing.assert_allclose(encoder, slices(model, "encoder"), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(decoder, slices(model, "decoder"), rtol=1e-10, atol=1e-14)
    assert np.abs(encoder).max() > 0.01


@both_codebooks
def test_the_terms_by_formula(kind):
    model, x = tiny(codebook=kind, beta=0.7)
    found = model.loss(x, model.rng(2))
    z = model.encode(x)
    distance = ((z - model.quantise(z)) ** 2).sum() / 4
    squares = ((model.reconstruct(x) - x) ** 2).sum() / 4
    assert distance > 1e-3
    assert found["commitment"] == pytest.approx(distance)
    assert found["squares"] == pytest.approx(squares)
    assert found["loss"] == pytest.approx(squares + (0.7 + (kind == "gradient")) * distance)
    counts = np.bincount(model.codes(x).ravel(), minlength=5)
    assert found["perplexity"] == pytest.approx(perplexity(counts))
    assert found["used"] == (counts > 0).mean()


def test_beta_weighs_what_holds_the_encoder_and_nothing_else():
    gradients = {}
    for beta in (0.0, 1.0, 3.0):
        model, x = tiny(codebook="gradient", beta=beta)
        model.loss(x, model.rng(2))
        gradients[beta] = {name: slices(model, name) for name in ("encoder", "book", "decoder")}
    for name in ("book", "decoder"):
        np.testing.assert_array_equal(gradients[0.0][name], gradients[3.0][name])
    once = gradients[1.0]["encoder"] - gradients[0.0]["encoder"]
    np.testing.assert_allclose(gradients[3.0]["encoder"] - gradients[0.0]["encoder"], 3 * once, atol=1e-13)
    assert np.abs(once).max() > 0.01 and gradients[0.0]["book"].any()


class Slip(VQVAE):
    """VQVAE.loss, codes by gradient, with one slip of public code: a name of `slips`, or "" for none."""

    slips = (
        "commitment after straight-through",
        "beta on the codebook's term",
        "codebook untrained",
        "no straight-through",
    )
    slip = ""

    def loss(self, x, rng, labels=None):
        slip = self.slip
        self.params.zero_grad()
        z, back_encoder = self.encoder.forward(x, rng)
        e, back_book = self.book.forward(self.as_tokens(z), rng)
        e = e.reshape(z.shape)
        through = z + stop(e - z)
        x_hat, back_decoder = self.decoder.forward(through, rng)
        squares, d_x_hat = squared_error(x_hat, x)
        codebook, de = squared_error(e, stop(z))
        held = through if slip == "commitment after straight-through" else z
        commitment, dz = squared_error(held, stop(e))

        straight_through = back_decoder(d_x_hat) * (slip != "no straight-through")
        on_the_codes, on_z = (self.beta, 1) if slip == "beta on the codebook's term" else (1, self.beta)
        back_book(self.as_tokens(de) * on_the_codes * (slip != "codebook untrained"))
        back_encoder(straight_through + on_z * dz, inputs=False)
        return {"loss": squares + codebook + self.beta * commitment, "commitment": commitment}


def slipped(slip):
    model, batch = Slip.example(Rng((0, 1), F64), codebook="gradient")
    model.slip = slip
    return model, batch["x"]


def report(slip):
    model, x = slipped(slip)
    return gradcheck(lambda: model.loss(x, Rng(2, F64))["loss"], model.params, cross_check=False)


def holds_the_encoder(slip):
    """Whether the commitment is the distance from z to its codes."""
    model, x = slipped(slip)
    z = model.encode(x)
    return np.isclose(model.loss(x, model.rng(1))["commitment"], ((z - model.quantise(z)) ** 2).sum() / len(x))


@pytest.mark.parametrize(
    ("slip", "wrong"),
    [
        ("beta on the codebook's term", "book.W"),
        ("codebook untrained", "book.W"),
        ("no straight-through", "encoder"),
    ],
)
def test_slips_in_the_gradient_are_caught(slip, wrong):
    found = report(slip)
    assert not found
    assert any(name.startswith(wrong) for name in found.wrong)
    assert holds_the_encoder(slip)


def test_commitment_after_straight_through_is_its_own_derivative_but_holds_nothing():
    slip = "commitment after straight-through"
    assert report(slip)
    assert not holds_the_encoder(slip)
    model, x = slipped(slip)
    assert model.loss(x, model.rng(1))["commitment"] < 1e-25
    assert report("") and holds_the_encoder("")


# ---- what training does ----


def mixture(rng, n=64):
    """Points around eight places on a circle."""
    angle = rng.integers(8, n) * (math.pi / 4)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.02 * rng.normal((n, 2))


@both_codebooks
def test_training_moves_the_codes_to_where_the_data_is(kind):
    settings = {"n_features": 2, "hidden": (16,), "n_codes": 1, "n_dim": 2, "n_embeddings": 8, "output": "linear"}
    model = VQVAE(**settings, codebook=kind, restart_every=20, decay=0.9, lr=5e-3).build(Rng(0))
    rng, test = model.rng(1), np.float32(mixture(Rng(2), 500))
    model.book.put(model.book.W * 0.01)  # all codes in one place
    before, first = model.evaluate(test, rng), None
    for _ in range(500):
        losses = model.train_step(np.float32(mixture(rng)), rng)
        first = first or losses
    after = model.evaluate(test, rng)
    assert before["perplexity"] < 5 and after["perplexity"] > 7
    assert after["mse"] < 0.03 < 0.3 < before["mse"]
    assert losses["commitment"] < 0.1 * first["commitment"]


def test_training_repeats_bit_for_bit():
    def run():
        model = VQVAE.example(Rng(0), restart_every=2, n_embeddings=40)[0]
        fit(model, Rng(1).uniform((24, 6)), epochs=3, progress=False)
        return [array.tobytes() for array in model.state().values()]

    assert run() == run()


# ---- using it ----


def test_its_ways_in_and_out_fit_together():
    model, x = tiny()
    z, codes = model.encode(x), model.codes(x)
    e = model.quantise(z)
    assert z.shape == e.shape == (4, 6) and codes.shape == (4, 3) and codes.dtype == np.int64
    np.testing.assert_array_equal(e, model.book.W[codes].reshape(4, 6))
    np.testing.assert_array_equal(model.quantise(e), e)
    np.testing.assert_array_equal(model.decode(e), model.reconstruct(x))
    np.testing.assert_array_equal(model.decode_codes(codes), model.reconstruct(x))
    assert model.decode_codes(codes[:2]).shape == (2, 6)
    assert VQVAE().bits == 128


def test_what_is_measured_on_test_data():
    model, x = tiny()
    found = model.evaluate(x, None)
    counts = np.bincount(model.codes(x).ravel(), minlength=5)
    assert found["mse"] == pytest.approx(((model.reconstruct(x) - x) ** 2).mean())
    assert found["perplexity"] == pytest.approx(perplexity(counts))
    assert found["used"] == pytest.approx((counts > 0).mean())


def test_it_cannot_sample_and_says_what_can():
    with pytest.raises(UsageError, match=r"a VQVAE has no prior over its codes.*code_prior.*latent_diffusion"):
        tiny()[0].sample(3, Rng(0))


def test_pixels_are_wanted_for_a_sigmoid():
    x = np.array([[-0.5, 2.0]])
    with pytest.raises(UsageError, match=r"VQVAE needs pixels in \[0, 1\], .*-0\.5 to 2: use --set output=linear"):
        VQVAE(n_features=2, batch=1).check_data(x)
    VQVAE(n_features=2, batch=1, output="linear").check_data(x)
    with pytest.raises(UsageError, match=r"decay: expected a number >= 0 and < 1, got 1\.0"):
        VQVAE(decay=1.0)


# ---- no setting is dead ----

OTHER = {  # another value for each setting that says how a step is made
    "beta": 2.0,
    "codebook": "gradient",
    "decay": 0.5,
    "restart_every": 2,
    "activation": "tanh",
    "init": "glorot",
    "lr": 3e-3,
    "decay_steps": 3,
}
BESIDE = {"restart_every": {"n_embeddings": 40}}  # so many that some must die
NETWORKS = {"n_features", "hidden", "n_codes", "n_dim", "n_embeddings", "output"}
LOOP = {"batch"}  # fit's


def after_four_steps(settings):
    model, x = tiny(**settings)
    for step in range(4):
        model.train_step(x, model.rng(step))
    return np.concatenate([model.params.theta, model.book.W.ravel(), model.reconstruct(x).ravel()])


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    beside = BESIDE.get(setting, {})
    assert not np.array_equal(after_four_steps(beside), after_four_steps(beside | {setting: OTHER[setting]}))


def test_every_setting_is_tried_above():
    assert {field.name for field in dataclasses.fields(VQVAE)} - NETWORKS - LOOP == OTHER.keys()


def test_the_output_is_what_is_asked_for():
    sigmoid, linear = (tiny(output=output)[0] for output in ("sigmoid", "linear"))
    e = 100 * Rng(3, F64).normal((50, 6))
    assert sigmoid.decode(e).min() >= 0 and sigmoid.decode(e).max() <= 1
    assert linear.decode(e).min() < 0 and linear.decode(e).max() > 1


# ---- what it reaches ----


@pytest.mark.slow
@pytest.mark.needs("mnist")
def test_mnist_in_128_bits():
    """One pass, which gave 0.0170 and a perplexity of 249 of 256; eight give 0.0070 and 243."""
    data = load("mnist")
    model = VQVAE(init="he", decay_steps=len(data.x_train) // 128).build(Rng(0))
    fit(model, data.x_train, epochs=1, progress=False)
    found = model.evaluate(data.x_test, None)
    assert found["mse"] <= 0.019 and found["perplexity"] >= 235, found
