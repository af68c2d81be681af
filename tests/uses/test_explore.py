"""explore: the page computes what NumPy computes, says so when it opens, and draws while one drags."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import simcupy

from scratchgen import Layer, Parameters, Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.backend import to_host
from scratchgen.check import selfcheck
from scratchgen.check.variants import variants
from scratchgen.models import find_model, model_names
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.nn.layers import Residual, mlp
from scratchgen.nn.norms import LayerNorm
from scratchgen.uses.explore import SCRIPTS, explore, in_double, plane, sampled
from scratchgen.uses.explore.export import Numbers, exported, known, source

TOLERANCE, EXACT = 1e-5, 2e-7  # what is promised; float32 numbers of NumPy's in the page are rounded by 6e-8
SHOWN = [name for name in model_names() if find_model(name).__name__ in known("MODELS", "models.js")]
CASES = {
    f"{name}-{i}": (name, settings)
    for name in SHOWN
    for i, settings in enumerate(variants(name))
    if settings.get("condition") != "vector"
} | {
    "conditional_gan-dropout": ("conditional_gan", {"dropout": 0.5}),
    "vae-gelu": ("vae", {"activation": "gelu"}),
    "gan-one-code": ("gan", {"n_latent": 1}),
    "flow-random": ("flow", {"order": "random", "conditional": True, "transform": "spline", "n_features": 4}),
    "ddpm-rounding": ("ddpm", {"n_times": 30, "n_steps": 12, "predict": "v", "scaling": "standard"}),
}


def made(name, settings):
    """A model with weights of its own, and averaged weights that are others, and its batch."""
    model, batch = find_model(name).example(Rng((0, 1)), **settings)
    for params in model.parameters().values():
        params.theta += 0.2 * Rng((0, 5)).normal(params.theta.shape)
        params.changed()
    if hasattr(model, "average"):
        model.average.average += 0.2 * Rng((0, 6)).normal(model.average.average.shape)
    return model, batch


def page_of(name, settings, pictures=True):
    model, batch = made(name, settings)
    n = model.n_features
    return explore(
        model, x=batch["x"], labels=batch.get("labels"), shape=(2, n // 2) if pictures and n % 2 == 0 else None
    )


def scripts(page):
    return re.findall(r"<script>\n(.*?)</script>", page, re.DOTALL)


def hidden(page, name):
    return re.search(rf'id="{name}">([^<]*)<', page)[1]


ENGINE = """
const tasks = JSON.parse(require("fs").readFileSync(0, "utf8")), vm = require("vm"), found = {};
const globals = { atob, Uint8Array, Float32Array, Float64Array };
for (const [name, { program, ...given }] of Object.entries(tasks))
  try { found[name] = JSON.parse(vm.runInNewContext(program, { ...globals, ...given })); }
  catch (error) { found[name] = String(error); }
console.log(JSON.stringify(found));
"""


def run_in_node(tasks):
    """{name: what its program gives}, for programs that follow on layers.js and models.js, in one process."""
    both = source("layers.js") + source("models.js").replace('"use strict";', "", 1)
    tasks = {name: task | {"program": both + task["program"]} for name, task in tasks.items()}
    done = subprocess.run(
        [shutil.which("node"), "-e", ENGINE], input=json.dumps(tasks), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def comparison(page):
    program = (
        "const page = opened(JSON.parse(drawnText), decoded(text));\nJSON.stringify(compared(page.model, page.checks));"
    )
    return {"program": program, "drawnText": hidden(page, "drawn"), "text": hidden(page, "numbers")}


# ---- the numbers ----


@pytest.mark.needs("node")
def test_every_variant_of_every_model_samples_as_numpy_does():
    found = run_in_node({name: comparison(page_of(*case)) for name, case in CASES.items()})
    assert {name: result for name, result in found.items() if not isinstance(result, dict)} == {}
    assert {name: result["worst"] for name, result in found.items() if result["worst"] > EXACT} == {}
    for name, result in found.items():
        assert result["numbers"] >= 24, name
    assert found["ddpm-1"]["numbers"] > found["vae-1"]["numbers"]  # whole paths, not their ends alone


@pytest.mark.needs("node")
def test_a_wrong_weight_or_a_wrong_formula_is_seen():
    page = page_of("ddpm", {})
    task = comparison(page)
    wrong = {
        "weight": "page.model.denoiser.enter.W.data[3] += 0.01;",
        "layer": "FORWARD.SiLU = (layer, x) => map(x, (v) => v * sigmoid(1.01 * v));",
        "sampler": "page.model.n_times += 1;",
        "nothing at all": "page.model.scaler.mean.data[0] = NaN;",
    }
    tasks = {name: task | {"program": task["program"].replace("\n", f"\n{line}\n")} for name, line in wrong.items()}
    found = run_in_node(tasks)
    for name in wrong:
        worst = found[name]["worst"] if isinstance(found[name], dict) else None
        assert worst is None or worst > TOLERANCE, (name, found[name])  # JSON has no infinity: None


LAYERS = {
    kind.__name__: kind
    for kind in selfcheck._layers()
    if hasattr(kind, "example") and kind.__name__ in known("FORWARD|INVERSE", "layers.js")
}


@pytest.mark.needs("node")
def test_every_layer_of_the_page_computes_what_the_layer_computes():
    """Flow layers go back: the page's inverse is given their y."""
    tasks, wanted = {}, {}
    for name, kind in LAYERS.items():
        layer, x = kind.example(Rng((0, 1)))
        params = Parameters(Rng((0, 2)), layer=layer) if layer.params is None else layer.params
        params.theta += 0.3 * Rng((0, 3)).normal(params.theta.shape)
        numbers = Numbers()
        inverse = name in known("INVERSE", "layers.js") - known("FORWARD", "layers.js")
        y = layer(x)
        if inverse:
            x, y = (y[0], x) if not isinstance(x, tuple) else ((y[0], x[1].reshape(len(x[1]), -1)), x[0])
        parts = [
            numbers.rows(part) if np.ndim(part) == 2 and part.dtype.kind == "f" else np.asarray(part).ravel().tolist()
            for part in (x if isinstance(x, tuple) else (x,))
        ]
        if name == "MaskedMLP":
            parts[1] = parts[1][0]
        given = {"layer": exported(layer, numbers), "x": parts}
        call = {True: "INVERSE[layer.type](layer, ...x)", False: "forward(layer, x.length > 1 ? x : x[0])"}[inverse]
        program = f"const {{ layer, x }} = opened(given, decoded(text));\nJSON.stringify(Array.from({call}.data));"
        tasks[name], wanted[name] = {"program": program, "given": given, "text": str(numbers)}, np.ravel(y)
    found = run_in_node(tasks)
    for name, y in wanted.items():
        assert isinstance(found[name], list), (name, found[name])
        np.testing.assert_allclose(found[name], y, rtol=2e-4, atol=2e-5, err_msg=name)  # NumPy's are in float32 here
    assert {
        "Linear",
        "Maxout",
        "BatchNorm",
        "GELU",
        "Denoiser",
        "Coupling",
        "Autoregressive",
        "Spline",
    } <= wanted.keys()


def test_the_page_knows_the_layers_from_which_networks_are_built():
    ours = {kind.__name__ for kind in selfcheck._layers() if kind.__module__.startswith("scratchgen.nn.")}
    assert ours - known("FORWARD", "layers.js") <= {"Activation", "Gradient", "Layer"}


@pytest.mark.needs("node")
def test_any_mlp():
    """A network of other layers than the model's own: what is exported is whatever is there."""
    model, _ = VAE.example(Rng(0))
    model.decoder = mlp([2, 8, 8, 6], norm=LayerNorm, dropout=0.5)
    model.decoder.layers = (*model.decoder.layers[:4], Residual(mlp([8, 8])), *model.decoder.layers[4:])
    model.params = Parameters(Rng(1), encoder=VAE.example(Rng(2))[0].encoder.__class__(), decoder=model.decoder)
    numbers = Numbers()
    z = Rng(3).normal((5, 2))
    given = {"layer": exported(model.decoder, numbers), "x": numbers.rows(z)}
    program = "const { layer, x } = opened(given, decoded(text));\nJSON.stringify(Array.from(forward(layer, x).data));"
    found = run_in_node({"mlp": {"program": program, "given": given, "text": str(numbers)}})["mlp"]
    np.testing.assert_allclose(found, model.decoder(z).ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.needs("node")
def test_a_path_has_a_frame_for_each_step_from_the_noise_to_the_example():
    program = """
    const page = opened(JSON.parse(drawnText), decoded(text)), { model, checks: [check] } = page;
    const path = [...MODELS[model.type].path(model, check.noise, check.labels, check.options, replayed(check.drawn.data))];
    JSON.stringify({ t: path.map(([t]) => t), start: Array.from(path[0][1].data), noise: Array.from(check.noise.data) });"""
    cases = {
        "vae": ({}, 1),
        "gan": ({}, 1),
        "flow": ({"n_layers": 3, "levels": 4}, 3),
        "flow_matching": ({"n_steps": 6}, 6),
        "ddpm": ({"n_steps": 6}, 6),
    }
    pages = {name: page_of(name, settings) for name, (settings, _) in cases.items()}
    found = run_in_node({name: comparison(page) | {"program": program} for name, page in pages.items()})
    for name, (_, steps) in cases.items():
        t = found[name]["t"]
        np.testing.assert_allclose(t, np.linspace(20, 0, 7).round() if name == "ddpm" else np.linspace(0, 1, steps + 1))
        if name != "flow":  # whose first frame has the order of the data
            assert found[name]["start"] == found[name]["noise"]
        assert sorted(found[name]["start"]) == sorted(found[name]["noise"])


# ---- the plane ----


def test_examples_change_most_along_the_first_direction_and_not_at_all_along_an_idle_one():
    model = VAE(n_features=12, hidden=(9,), n_latent=4).build(Rng(0, "float64"))
    model.decoder.layers[0].W[2] = 0  # nothing depends on the third code
    model.params.changed()
    found = plane(model, None)
    share, axes = found["share"], found["axes"]
    assert (np.diff(share) <= 0).all()
    assert share[-1] < 1e-12 < 0.01 < share[-2]
    assert share.sum() == pytest.approx(1)
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(np.abs(axes[:, -1]), [0, 0, 1, 0], atol=1e-8)


def test_the_codes_of_an_autoencoder_lie_on_its_plane():
    """z = mean + axes w with w of mean 0 and covariance I, over real examples."""
    model, batch = AutoEncoder.example(Rng(0, "float64"), n_latent=3, batch=50)
    found = plane(model, batch["x"])
    w = np.linalg.solve(found["axes"], (model.encode(batch["x"]) - found["mean"]).T)
    np.testing.assert_allclose(np.cov(w), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(w.mean(axis=1), 0, atol=1e-12)


# ---- the page ----

KINDS = ["vae", "autoencoder", "gan", "conditional_gan", "flow", "ddpm", "flow_matching"]


@pytest.mark.parametrize("name", KINDS)
def test_the_page_is_one_file_that_loads_nothing(name):
    page = page_of(name, {})
    assert not re.search(r"https?:|src=|@import|url\(|fetch\(|XMLHttpRequest|import\(|WebSocket|EventSource", page)
    assert not re.search(r"<!--[A-Z]+-->", page)
    assert len(scripts(page)) == len(SCRIPTS)
    drawn = json.loads(hidden(page, "drawn"))
    assert drawn["model"]["type"] == find_model(name).__name__
    assert drawn["checks"]
    assert "encoder" not in drawn["model"] and "discriminator" not in drawn["model"]


def test_names_of_the_user_cannot_end_the_script():
    model, batch = made("vae", {"likelihood": "gaussian"})
    bad = "</script><b>&"
    page = explore(model, x=batch["x"], columns=[bad] * 6, title=bad)
    assert page.count("</script>") == len(SCRIPTS) + 2
    assert json.loads(hidden(page, "drawn"))["columns"] == [bad] * 6
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in page


@pytest.mark.parametrize("name", KINDS)
def test_a_model_on_a_device_gives_the_page_of_the_host(name):
    model, batch = find_model(name).example(Rng(0, "float32", simcupy))
    twin = find_model(name)(**model.settings()).build(Rng(1))
    twin.load_state({key: to_host(array) for key, array in model.state().items()})
    known = {key: to_host(array) for key, array in batch.items()}
    assert explore(model, **batch, shape=(2, model.n_features // 2)) == explore(
        twin, **known, shape=(2, twin.n_features // 2)
    )


def test_the_model_stays_as_it_is():
    model, _ = made("gan", {})
    before = {name: array.copy() for name, array in model.state().items()}
    explore(model, shape=(2, 3))
    assert all(np.array_equal(array, before[name]) for name, array in model.state().items())


BROWSER = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
]
WALK = """
<script>
try {
  const seen = {}, ink = (id) => byId(id).toDataURL(), main = byId("main").className === "points" ? "cloud" : "picture";
  const from = byId(main === "cloud" ? "cloud" : "plane"), box = from.getBoundingClientRect();
  const point = (type, x, y) => from.dispatchEvent(new PointerEvent(type, {
    bubbles: true, buttons: 1, pointerId: 1, clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
  from.setPointerCapture = () => {};
  const drained = () => { for (const job of cloud ? [cloud.job] : []) while (!job.next().done); };
  drained();
  const first = ink(main);
  point("pointerdown", 0.2, 0.3);
  point("pointermove", 0.8, 0.75);
  seen.dragged = ink(main) !== first;
  const there = [noiseAt(state.u, state.v), frames.at(-1)?.[1].data];
  if (shape && hasCodes && !classes) [seen.z, seen.x] = there.map((array) => [...array]);
  for (const button of document.querySelectorAll("#controls button, #views button")) { button.click(); drained(); }
  for (const input of document.querySelectorAll("#controls input")) {
    if (input.type === "checkbox") input.click(); else { input.value = input.max; input.dispatchEvent(new Event("input")); }
  }
  if (main === "cloud") {
    changed();
    drained();
    scrub(0.5);
    const half = ink(main);
    scrub(1);
    seen.moved = ink(main) !== half;
  }
  for (const job of [...jobs.values()]) while (!job.next().done);
  seen.error = byId("error").hidden ? "" : byId("error").textContent;
  seen.badge = byId("check").textContent;
  document.documentElement.dataset.seen = JSON.stringify(seen);
} catch (error) { document.documentElement.dataset.seen = JSON.stringify({ error: String(error.stack) }); }
</script></body>"""


def opened(page, folder, ending="", hash=""):
    """{name: value} of the data attributes that the page has set in a browser, and what its console said."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", ending or "</body>"), encoding="utf-8")
    command = [*BROWSER, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri() + hash]
    done = subprocess.run([shutil.which(command[0]), *command[1:]], capture_output=True, text=True, timeout=120)
    attributes = re.search(r"<html([^>]*)>", done.stdout)[1].replace("&quot;", '"')
    found = {name: json.loads(value) for name, value in re.findall(r"data-(\w+)=\"(\{.*?\})\"(?= data-|$)", attributes)}
    return found | {"console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}


SEEN = [
    pytest.param(name, settings, pictures, id=f"{name}-{'pictures' if pictures else 'points'}-{i}", marks=marks)
    for name in KINDS
    for i, (settings, pictures) in enumerate(
        [({}, True), ({"n_features": 2}, False)]
        + [({"conditional": True, "n_features": 4}, pictures) for pictures in (True, False)]
        * (name in ("vae", "flow", "ddpm"))
    )
    for marks in [[pytest.mark.slow] * ((name, i) != ("vae", 0))]
]


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(("name", "settings", "pictures"), SEEN)
def test_in_a_browser_the_page_agrees_with_numpy_and_can_be_dragged(name, settings, pictures, tmp_path):
    found = opened(page_of(name, settings, pictures), tmp_path, WALK)
    if "z" in found["seen"]:  # what is seen at the place to which the ring was dragged
        _, x = sampled(in_double(made(name, settings)[0]), np.array([found["seen"]["z"]]), None, {}, None)
        np.testing.assert_allclose(found["seen"]["x"], x[0], atol=TOLERANCE)
    assert found["check"]["good"] is True
    assert found["check"]["worst"] <= TOLERANCE
    assert found["check"]["numbers"] >= 18
    assert found["seen"]["error"] == ""
    assert found["seen"]["dragged"]
    assert found["seen"].get("moved", pictures)
    assert re.match(r"checked: [\d,]+ numbers, worst difference from NumPy \de-\d+ ≤ 1e-5$", found["seen"]["badge"])
    assert found["console"] == []


@pytest.mark.needs("chromium")
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3)])
def test_grey_pictures_are_ink_on_paper_and_colours_stay(shape, tmp_path):
    model, _ = made("vae", {})
    look = """<script>{
    const x = frames.at(-1)[1].data, drawn = pictured(x).getContext("2d").getImageData(0, 0, shape[1], shape[0]).data;
    document.documentElement.dataset.seen = JSON.stringify({ x: [...x], drawn: [...drawn] });
    }</script></body>"""
    found = opened(explore(model, shape=shape), tmp_path, look)["seen"]
    x, drawn = np.reshape(found["x"], shape), np.reshape(found["drawn"], (*shape[:2], 4)) / 255
    wanted = x if len(shape) == 3 else np.repeat(1 - x[..., None], 3, axis=2)
    np.testing.assert_allclose(drawn[..., :3], wanted, atol=0.51 / 255)
    assert (drawn[..., 3] == 1).all()


@pytest.mark.needs("chromium")
@pytest.mark.slow
def test_a_page_whose_weights_were_changed_says_so(tmp_path):
    page = page_of("vae", {})
    text = hidden(page, "numbers")
    found = opened(page.replace(text, text[:40] + "QUFB" + text[44:]), tmp_path, WALK)
    assert found["check"]["good"] is False
    assert found["seen"]["badge"].startswith("wrong: ")


@pytest.mark.needs("chromium")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "gan", "ddpm"])
def test_dragging_draws_twenty_frames_a_second_at_the_size_of_mnist(name, tmp_path):
    settings = {"vae": {}, "gan": {}, "ddpm": {"conditional": True}}[name]
    model = find_model(name)(**settings).build(Rng(0))
    found = opened(explore(model, shape=(28, 28)), tmp_path, hash="#bench")
    assert found["bench"]["frames_per_second"] >= 20
    assert found["check"]["good"] is True


@pytest.mark.needs("chromium")
@pytest.mark.slow
def test_an_error_is_said_on_the_page(tmp_path):
    page = page_of("vae", {}).replace("FORWARD.ReLU =", "FORWARD.Rectifier =")
    say = "document.documentElement.dataset.seen = JSON.stringify({error: byId('error').textContent});"
    found = opened(page, tmp_path, f"<script>{say}</script></body>")
    assert found["seen"]["error"].startswith("Something went wrong: ")
    assert "check" not in found


# ---- what is refused ----


class Own(Layer):
    """y = x.      dx = dy"""

    def forward(self, x, rng):
        return x, lambda dy, learn=True, inputs=True: dy


class ReLU(Own):
    """Another layer of a name that the page knows."""


@pytest.mark.parametrize("kind", [Own, ReLU])
def test_a_layer_that_the_page_lacks_is_refused(kind):
    model, _ = GAN.example(Rng(0))
    model.generator.layers = (*model.generator.layers, kind())
    with pytest.raises(UsageError, match=f"the page has no layer {kind.__name__}; ") as refused:
        explore_as_it_is(model)
    assert "\n" not in str(refused.value)


def explore_as_it_is(model):
    exported(model.generator, Numbers())


class Mine(VAE):
    pass


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            lambda: find_model("vqvae").example(Rng(0))[0],
            "explore has no page for a vqvae; it has one for autoencoder, ",
        ),
        (lambda: Mine.example(Rng(0))[0], "explore has no page for a "),
        (lambda: ConditionalGAN.example(Rng(0), condition="vector")[0], "whose conditions are vectors"),
        (lambda: VAE.example(Rng(0), n_features=1)[0], "these examples are one number"),
    ],
)
def test_a_model_that_the_page_lacks_is_refused(model, words):
    with pytest.raises(UsageError, match=re.escape(words)) as refused:
        explore(model())
    assert "\n" not in str(refused.value)


# ---- the command ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a VAE, a flow and a mixture have been trained for an epoch."""
    folder = tmp_path_factory.mktemp("trained")
    rows = np.random.default_rng(0).standard_normal((60, 3))
    np.savez(folder / "people.npz", x_train=rows, x_test=rows[:9], columns=["height", "income", "age"])
    small = {"vae": ["hidden=8", "n_latent=3"], "gmm": [], "flow": ["hidden=8", "n_layers=2", "batch=8"]}
    for name, settings in small.items():
        data = folder / "people.npz" if name == "flow" else "digits"
        options = ["--set", *settings] if settings else []
        assert main(["train", name, "--data", str(data), "--epochs", "1", "--out", str(folder / name), *options]) == 0
    return folder


def test_the_command_writes_a_page(trained, tmp_path, capsys):
    capsys.readouterr()
    path = tmp_path / "new" / "page.html"
    assert main(["explore", str(trained / "vae"), "-o", str(path)]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{path}\n", "")
    page = path.read_text(encoding="utf-8")
    drawn = json.loads(hidden(page, "drawn"))
    assert drawn["title"] == "VAE trained on digits"
    assert drawn["shape"] == [8, 8]
    assert len(drawn["real"]["labels"]) == 150


def test_a_table_keeps_its_columns_and_its_units_also_without_its_file(trained, tmp_path, capsys):
    path = tmp_path / "page.html"
    for there in (True, False):
        if not there:
            (trained / "people.npz").rename(tmp_path / "moved.npz")
        assert main(["explore", str(trained / "flow"), "-o", str(path)]) == 0
        drawn = json.loads(hidden(path.read_text(encoding="utf-8"), "drawn"))
        assert drawn["columns"] == ["height", "income", "age"]
        assert len(drawn["scale"]["std"]) == 3
        assert ("x" in drawn["real"]) is there


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "-o", "page.html"], "nowhere/checkpoint.npz: there is no such checkpoint"),
        (["vae", "-o", "page.png"], "-o page.png: expected a name that ends in .html"),
        (["vae"], "-o"),
        (["gmm", "-o", "page.html"], "explore has no page for a gmm"),
        (["vae", "-o", "file/page.html"], "file/page.html: cannot be written"),
        (["vae", "-o", "page.html", "--data", "moons"], "moons: has 2 numbers per example"),
        (["vae", "-o", "page.html", "--data", "nothing"], "data 'nothing' is unknown"),
    ],
)
def test_mistakes_end_in_one_line_and_nothing_is_written(arguments, words, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    for name in ("vae", "gmm"):
        (tmp_path / name).symlink_to(trained / name)
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert main(["explore", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
