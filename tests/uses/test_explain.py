"""explain: a watched step is a step like any other, and beside each gradient stands the complex step's number."""

import html.parser
import json
import linecache
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass

import numpy as np
import pytest
import simcupy
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Layer, Model, Parameters, Rng, UsageError, Weight, check_layer
from scratchgen.check import selfcheck
from scratchgen.check.variants import variants
from scratchgen.models import find_model, model_names
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.models.wgan import WGAN
from scratchgen.nn import BatchNorm, Linear, ReLU, Sequential, Tanh, mlp, squared_error
from scratchgen.nn.activations import Activation
from scratchgen.nn.double_backward import Gradient
from scratchgen.nn.layer import example
from scratchgen.nn.optim import Adam
from scratchgen.uses.explain import Pass, Update, explain

EXACT = 1e-10
CASES = [
    pytest.param(name, settings, id=f"{name}-{i}", marks=[pytest.mark.slow] * (i > 0))
    for name in model_names()
    for i, settings in enumerate(variants(name))
]


def state_of(model):
    return {name: array.copy() for name, array in model.state().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def passes(explanation):
    return [part for part in explanation.timeline if isinstance(part, Pass)]


def updates(explanation):
    return [part for part in explanation.timeline if isinstance(part, Update)]


def made(name, settings, dtype="float64"):
    """A model and its batch, with other weights than the first ones."""
    model, batch = find_model(name).example(Rng((0, 1), dtype), **settings)
    for params in model.parameters().values():
        params.theta += 0.1 * Rng((0, 5), dtype).normal(params.theta.shape)
        params.changed()
    return model, batch


# ---- every objective of every model ----


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_gradient_is_the_derivative_and_the_step_is_that_of_a_model_nobody_watches(name, settings):
    model, batch = made(name, settings)
    before = state_of(model)
    found = explain(model, **batch)
    assert equal(before, state_of(model))  # a copy makes the step

    rng = model.rng((0, 2))
    model.train_step(**batch, rng=rng)
    assert equal(state_of(found.model), state_of(model))
    assert found.rng.host.bit_generator.state["state"]["state"].tolist() == state_of_stream(rng)
    assert "forward" not in {key for layer in selfcheck_layers(found.model) for key in vars(layer)}

    assert {part.name for part in passes(found) if part.shown} == set(model.objectives)
    assert found.gradients
    for g in found.gradients:
        joined = settings.get("bound") == "iwae" and g.event and g.event.name == "reparameterize"
        assert g.error < EXACT or (joined and g.split), (g.event, g.name, g.error)
        assert g.method == "complex-step" or joined
    assert f" of {len([g for g in found.gradients if not g.split])} gradients agree" in str(found)


def state_of_stream(rng):
    return rng.host.bit_generator.state["state"]["state"].tolist()


def selfcheck_layers(model):
    layers = [layer for params in model.parameters().values() for _, layer, *_ in params._places]
    return [*layers, *(child for layer in layers for _, child in layer.children())]


@pytest.mark.parametrize("name", ["vae", pytest.param("gan", marks=pytest.mark.slow)])
def test_an_example_is_compared_number_by_number(name):
    found = explain(find_model(name))
    by_entry = [g for g in found.gradients if g.signs is None]
    assert all(g.error < EXACT and g.numeric.shape == g.array.shape for g in by_entry)
    assert len(by_entry) > 0.9 * len(found.gradients)


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_example_is_compared_number_by_number(name):
    found = explain(find_model(name))
    assert found.gradients
    assert all(g.error < EXACT for g in found.gradients)


def test_the_gradients_of_all_calls_add_up_to_that_of_the_objective():
    """And that is what the optimizer gets, and what the weights' rows show."""
    found = explain(GAN, mode="directions")
    d_loss = passes(found)[0]
    sums = {}
    for event in d_loss.events:
        for g in event.gradients:
            if g.place[0] == "weight":
                key = f"{event.name}.{g.place[2]}"
                sums[key] = sums.get(key, 0) + g.array
    totals = {g.name.removeprefix("d "): g.array for g in d_loss.totals}
    assert totals.keys() == sums.keys()  # D judges real and generated examples, so each tensor gets several parts
    for name, total in totals.items():
        np.testing.assert_allclose(sums[name], total, rtol=1e-12)
    step = next(part for part in updates(found) if part.name == "optimizer_D")
    for row in step.rows:
        assert row.grad == pytest.approx(np.linalg.norm(totals[row.name]))
        assert 0 < row.share < 0.1


# ---- what is seen, and in which order ----


def test_a_vae_forwards_then_backwards():
    found = explain(VAE, mode="directions")
    (loss,), (adam,) = passes(found), updates(found)
    names = [(event.name, event.direction) for event in loss.events if event.inside is None]
    forward = ["encoder", "gaussian_posterior", "decoder", "bernoulli_nll"]
    assert names == [(name, "forward") for name in forward] + [
        (name, "backward") for name in ("decoder", "gaussian_posterior", "encoder")
    ]
    assert [event.number for event in loss.events] == list(range(1, len(loss.events) + 1))
    inner = [event.name for event in loss.events if event.direction == "backward" and event.inside]
    assert inner[:3] == ["decoder.2", "decoder.1", "decoder.0"]
    first = loss.events[1]
    assert (first.kind, first.formula) == ("Linear", "y = x W + b")
    assert [entry.name for entry in first.entries] == ["x", "W", "b", "y"]
    x, W, b, y = (entry.array for entry in first.entries)
    np.testing.assert_array_equal(y, x @ W + b)
    assert (adam.numbers["keep"], adam.formula[:8]) == (1, "m ← β1 m")
    assert {row.name for row in adam.rows} == set(found.model.params.named())


def test_each_event_names_the_line_that_called_it():
    found = explain(VAE, mode="directions")
    for event in passes(found)[0].events:
        if event.inside is None:
            said = linecache.getline(event.where[0][0].co_filename, event.where[0][1])
            wanted = event.name if event.direction == "forward" else "back_" + event.name.partition("_")[2]
            assert wanted in said
        else:
            assert event.where == event.inside.where


def test_the_double_backward_of_a_curved_activation():
    found = explain(
        WGAN, settings={"activation_D": "tanh", "d_steps": 1, "hidden_D": (4,)}, objective="discriminator_loss"
    )
    events = passes(found)[0].events
    assert [event.direction for event in events if event.name == "discriminator.1"].count("double") == 1
    (tanh,) = [event for event in events if event.name == "discriminator.1" and event.direction == "double"]
    assert {g.name for g in tanh.gradients} == {"v", "du", "dx"}
    joined = [g for g in found.gradients if g.also]  # the sweep over g and the last sweep add to the same weights
    assert {g.name for g in joined} == {"dW", "db"}
    assert all(g.error < EXACT for g in found.gradients)
    assert [part.name for part in passes(found) if part.shown] == ["discriminator_loss"]


def test_the_text_shows_the_numbers_themselves():
    text = str(explain(VAE))
    for words in (
        "VAE: one training step on its tiny example",
        "h, back_encoder = self.encoder.forward(self.told(x, labels), rng)",
        "in nll:  return bernoulli_nll(out, x)",
        "dW = xᵀ dy,   db = Σ_batch dy,   dx = dy Wᵀ",
        "dy (4, 6)   is ∂/∂logits of 13",
        "‖Δθ‖/‖θ‖",
        "returns   loss = ",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 132
    b = re.search(r"db \(5,\) +\|  complex step, error \S+\n +([^|]+)\|([^\n]+)\n", text)
    assert b[1].split() == b[2].split()
    assert len(b[1].split()) == 5


def test_large_arrays_are_summed_up():
    model = VAE(n_features=40, hidden=(30,), batch=8).build(Rng(0, "float64"))
    x = Rng(1, "float64").uniform((8, 40))
    text = str(explain(model, x, name="noise"))
    assert "one training step on noise" in text
    assert f"x (8, 40)   mean {x.mean():.4g}   spread {x.std():.4g}   from {x.min():.4g} to {x.max():.4g}" in text
    assert "along a random direction" in text


def test_a_row_too_wide_for_a_table_is_summed_up():
    text = str(explain(Linear(2, 20), (3, 2)))
    assert re.search(r"db \(20,\)   mean .* to \S+; complex step, error \d", text)


@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4), batch=st.integers(1, 4))
def test_any_network_on_any_batch(seed, sizes, batch):
    found = explain(mlp(sizes, Tanh), (batch, sizes[0]), seed=seed)
    assert all(g.error < EXACT for g in found.gradients)
    n_weights = 2 * (len(sizes) - 1)
    assert sum(g.place[0] == "weight" for g in found.gradients) == n_weights


# ---- layers, losses and models of one's own ----


class Squareplus(Layer):
    """y = ½ (x + r), r = √(x² + eᵃ).      dx = ½ (1 + x/r) dy,   da = Σ dy eᵃ / 4r"""

    factor = 4

    def __init__(self, n):
        self.a = Weight((n,))

    def forward(self, x, rng):
        r = np.sqrt(x * x + np.exp(self.a))

        def backward(dy, learn=True, inputs=True):
            if learn:
                self.da += (dy * np.exp(self.a) / (self.factor * r)).sum(axis=0)
            return dy * 0.5 * (1 + x / r)

        return 0.5 * (x + r), backward


class Forgetful(Squareplus):
    factor = 2


def test_a_layer_of_ones_own():
    layer, x = Squareplus(3), np.array([[1.0, -2.0, 0.5], [0.1, 0.2, 0.3]])
    found = explain(layer, x)
    assert layer.params is None
    assert [g.name for g in found.gradients] == ["dy", "dx", "da"]
    assert all(g.error < EXACT for g in found.gradients)
    assert "y = ½ (x + r), r = √(x² + eᵃ)" in str(found)
    np.testing.assert_array_equal(passes(found)[0].events[0].entries[0].array, x)
    assert bool(check_layer(Squareplus(3), x))


def test_the_first_wrong_gradient_is_named():
    net = Sequential(Linear(3, 4), Forgetful(4), Linear(4, 2))
    found = explain(net, (5, 3))
    wrong = [g for g in found.gradients if not g.right]
    assert [(g.event.name, g.name) for g in wrong] == [("layer.1", "da")]
    assert "The first that does not agree is da in" in found.verdict()
    assert "layer.1 Forgetful" in found.verdict()
    assert "twice too large: a ½ forgotten?" in str(found)
    assert 'badge bad">' in found.html()


def test_a_wrong_gradient_of_the_library_would_be_seen(monkeypatch):
    """What stands beside a gradient does not come from it."""
    monkeypatch.setattr(Tanh, "df", lambda self, xp, x, y: 1 - y)
    found = explain(VAE, settings={"activation": "tanh"}, mode="directions")
    wrong = [g for g in found.gradients if not g.right]
    assert (wrong[0].name, wrong[0].event.kind, wrong[0].event.direction) == ("dx", "Tanh", "backward")
    assert any(g.place[0] == "weight" for g in wrong)


def test_a_forward_pass_that_takes_no_complex_numbers_is_compared_with_differences():
    class Absolute(Layer):
        """y = |x|.      dx = sign(x) dy"""

        def forward(self, x, rng):
            return np.abs(x), lambda dy, learn=True, inputs=True: dy * np.sign(x)

    found = explain(Sequential(Linear(3, 3), Absolute()), (4, 3))
    assert all(g.right for g in found.gradients)
    assert {g.method for g in found.gradients} == {"complex-step", "central"}
    assert "central difference" in found.verdict()


def test_a_kink_is_no_mistake():
    found = explain(ReLU(), np.array([[0.0, 1.0], [-1.0, 2.0]]))
    (dx,) = [g for g in found.gradients if g.name == "dx"]
    assert dx.kink
    assert not dx.right
    assert "on a kink: there is no derivative" in str(found)
    assert "1 of 1 gradients agree" in found.verdict()


@example(lambda rng: (rng.normal((3, 2)), rng.normal((3, 2))))
def quartic(x_hat, x):
    """Σ (x̂ - x)⁴.      ∂/∂x̂ = 4 (x̂ - x)³"""
    d = x_hat - x
    return (d**4).sum() / len(x), 4 * d**3 / len(x)


@dataclass(eq=False)
class Autoencoder(Model):
    """z = x A,   x̂ = z B,   minimise ‖x̂ - x‖⁴"""

    n_features: int = 4
    tiny = {"n_features": 4}
    batch = 3

    def build(self, rng):
        self.parts = {"down": Linear(4, 2), "up": [Linear(2, 4)]}
        self.params = Parameters(rng, **{"parts.down": self.parts["down"], "parts.up.0": self.parts["up"][0]})
        self.adam = Adam(self.params)
        return self

    def loss(self, x, rng, labels=None):
        self.params.zero_grad()
        z, back_down = self.parts["down"].forward(x, rng)
        x_hat, back_up = self.parts["up"][0].forward(z, rng)
        loss, d = quartic(x_hat, x)
        back_down(back_up(d), inputs=False)
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng)
        self.adam.step()
        return losses


def test_a_model_of_ones_own_with_a_loss_of_its_own():
    found = explain(Autoencoder)
    names = [event.name for event in passes(found)[0].events]
    assert names == ["parts.down", "parts.up.0", "quartic", "parts.up.0", "parts.down"]
    assert all(g.error < EXACT for g in found.gradients)
    assert "loss = " in str(found)
    model = Autoencoder().build(Rng(0))  # float32: the complex step is exact, the gradients are rounded
    found = explain(model, Rng(1).normal((3, 4)))
    assert found.gradients
    assert all(g.right and g.error < 1e-4 for g in found.gradients)


def test_a_model_without_a_batch_gets_one():
    model = VAE(n_features=10, hidden=(8,), n_latent=3, batch=5).build(Rng(0))
    assert "x (5, 10)" in str(explain(model, mode="directions"))


def test_an_objective_that_draws_noise_of_its_own_is_not_compared():
    class Noisy(Autoencoder):
        def loss(self, x, rng, labels=None):
            return {"loss": super().loss(x, rng)["loss"] + np.random.default_rng().random()}

    model = Noisy().build(Rng(0, "float64"))
    found = explain(model, Rng(1, "float64").normal((3, 4)))
    assert "gives another value, so nothing is compared" in str(found)


LAYERS = [kind for kind in selfcheck._layers() if hasattr(kind, "example") and kind not in (Activation, Gradient)]


@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_every_layer_of_the_library(kind):
    found = explain(kind, mode="directions")
    assert all(g.error < EXACT for g in found.gradients)
    assert found.gradients or kind.__name__ in ("Dropout",)
    assert kind.__name__ in str(found)


def test_running_statistics_move_as_in_an_unwatched_step():
    net = Sequential(Linear(3, 4), BatchNorm(4), Tanh())
    params, x = Parameters(Rng(0, "float64"), net=net), Rng(1, "float64").normal((6, 3))
    found = explain(net, x)
    assert np.array_equal(params.buffers, Parameters(Rng(0, "float64"), net=copy_of(net)).buffers)  # not moved here
    watched = found.model.params.buffers
    net.forward(x, Rng(2))[1](np.ones((6, 4)))
    np.testing.assert_array_equal(params.buffers, watched)


def copy_of(net):
    return Sequential(Linear(3, 4), BatchNorm(4), Tanh())


def test_a_model_on_a_device_is_explained_on_the_host():
    model, batch = VAE.example(Rng(0, "float64", simcupy))
    found = explain(model, **batch)
    assert isinstance(found.model.params.theta, np.ndarray)
    assert all(g.error < EXACT for g in found.gradients)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: (VAE, None, None, {"objective": "los"}), "a VAE has no such objective; use one of loss"),
        (lambda: (Linear(3, 2), None, None, {}), "give a layer and its input"),
        (lambda: (Squareplus, None, None, {}), "give a layer and its input"),
        (lambda: ("vae", None, None, {}), "expected a model, a class of models or a layer"),
        (lambda: (VAE, np.zeros((4, 6)), None, {}), "a class has no weights"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(arguments, words):
    *given, named = arguments()
    with pytest.raises(UsageError, match=re.escape(words)) as refused:
        explain(*given, **named)
    assert "\n" not in str(refused.value)


def test_watching_ends_with_the_step_also_after_an_error():
    model, batch = VAE.example(Rng(0))
    with pytest.raises(ValueError, match="expected"):
        explain(model, batch["x"][:, :3])
    assert squared_error(batch["x"], batch["x"])[0] == 0  # nothing listens any more


# ---- the page ----


class Reader(html.parser.HTMLParser):
    """The ids, links and text of a page, and whether every element is closed."""

    VOID = {"meta", "link", "input", "br"}
    LOOSE = {"tr", "td", "th", "p"}  # may stay open

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.data, self.open, self.scripts, self.words = [], [], [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[key] for key in ("href", "src") if key in attrs]
        self.data += [attrs] if tag == "article" else []
        self.open += [tag] if tag not in self.VOID | self.LOOSE else []

    def handle_endtag(self, tag):
        if tag not in self.LOOSE:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts += data
        elif self.open[-1:] != ["style"]:
            self.words.append(data)


@pytest.fixture(scope="module")
def pages():
    return {kind.__name__: explain(kind, mode="directions").html() for kind in (VAE, WGAN)} | {
        "own": explain(VAE).html()
    }


@pytest.mark.parametrize("name", ["VAE", "WGAN", "own"])
def test_the_page_is_one_file_whose_links_lead_somewhere(name, pages):
    page = Reader(pages[name])
    assert not page.open
    assert len(pages[name].encode()) < 3_000_000
    assert not re.search(r"https?:|//[a-z]|@import|url\(", pages[name])
    assert len(page.ids) == len(set(page.ids))
    assert all(link == "data:," or (link[0] == "#" and link[1:] in page.ids) for link in page.links)
    for card in page.data:
        lines = card.get("data-lines", "").split()
        assert lines
        assert all(line in page.ids for line in lines)
        assert all(f"e{mate}" in page.ids for mate in card.get("data-mates", "").split())
        assert all(line in page.ids for line in card.get("data-part", "").split())
        assert "data-event" not in card or card.get("data-part")  # the code of the layer or loss is there
    words = " ".join("".join(page.words).split())
    assert "gradients agree with the complex step" in words
    assert "losses = self." in words  # the model's own code
    assert "def backward(dy, learn=True, inputs=True)" in words  # and that of its layers


def test_the_page_shows_what_the_text_shows():
    found = explain(VAE)
    page, text = " ".join(Reader(found.html()).words), str(found)
    numbers = set(re.findall(r"-?\d+\.\d{4}\b", text))
    assert len(numbers) > 300
    assert numbers <= set(re.findall(r"-?\d+\.\d{4}\b", page))


@pytest.mark.needs("node")
def test_the_script_of_the_page_is_a_program(pages, tmp_path):
    path = tmp_path / "page.js"
    path.write_text(Reader(pages["VAE"]).scripts, encoding="utf-8")
    assert subprocess.run([shutil.which("node"), "--check", path], capture_output=True).returncode == 0


@pytest.mark.needs("chromium")
def test_the_page_opens_in_a_browser_without_errors(pages, tmp_path):
    """A program at its end walks through the page by keys and clicks, and writes down what it sees."""
    walk = """
    <script>
    const seen = [], now = () => document.querySelector(".card.now").id;
    const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    seen.push(now());
    for (let i = 0; i < 3; i++) press("ArrowRight");
    seen.push(now());
    press("Enter");
    seen.push(now());
    press("End");
    seen.push(now());
    document.querySelector(".line.has").click();
    seen.push(now(), document.querySelectorAll("svg.arcs path").length, document.querySelectorAll(".line.now").length);
    document.title = JSON.stringify(seen);
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(pages["own"].replace("</body>", textwrap.dedent(walk)), encoding="utf-8")
    command = [shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    first, third, mate, last, clicked, arcs, lines = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert (first, third, clicked) == ("c1", "c4", "c1")
    events = [dict(card) for card in Reader(pages["own"]).data]
    assert events[int(mate[1:]) - 1]["data-event"] == events[3]["data-mates"].split()[0]
    assert last == f"c{len(events)}"
    assert arcs == 3  # encoder, posterior and decoder
    assert lines >= 1
