"""explore: a page on which one drags through the codes or the noise of a trained model, and sees what it makes of them.

    page = explore(model, shape=(8, 8), x=data.x_test, labels=data.labels_test, title="VAE, digits")

The page is one file that loads nothing. It holds the weights, and computes in plain JavaScript: layers.js has one function
for each layer, models.js has the samplers, and the other scripts draw. When the page opens, it samples from noise from which
NumPy has sampled before, and compares. Names and symbols are those of the Python files, for readers who look at its source.
"""

import html
import json

import numpy as np

from ...backend import Rng, UsageError, to_host
from ...data import fixed_order
from ...models import find_model, kind_of, model_names
from ...models.autoencoder import AutoEncoder
from ...models.conditional_gan import ConditionalGAN
from ...models.ddpm import DDPM
from ...models.flow import Flow
from ...models.parts.adversarial import Adversarial
from ...models.parts.denoising import Denoising
from ...models.parts.levels import quantise
from ...models.vae import VAE
from ...nn.layer import Layer
from .export import PACKAGE, Numbers, exported, known, source

SCRIPTS = ("layers.js", "models.js", "page.js", "pictures.js", "points.js", "controls.js")
NETWORKS = ("decoder", "generator", "flow", "denoiser", "scaler")  # those that sampling needs, where a model has them
EXAMPLES = {"pictures": 150, "points": 1_500}  # so many real examples are on the page
DRAWS, MOST = 100, 20_000_000  # codes at which the slope of what the model makes is measured; numbers of all slopes
H = 1e-20  # of the complex step
ROWS = {"pictures": 3, "points": 20}  # of a check: noises from which NumPy samples


class Recorded(Rng):
    """A random stream that keeps what it has drawn, so that the page can use the same numbers."""

    def __init__(self, seed):
        super().__init__(seed, "float64")
        self.drawn = []

    def kept(self, array):
        array = rounded(array)
        self.drawn.append(array.ravel())
        return array

    def normal(self, shape):
        return self.kept(super().normal(shape))

    def uniform(self, shape):
        return self.kept(super().uniform(shape))


def explore(model, *, x=None, labels=None, shape=None, columns=None, scale=None, title=""):
    """The page of a trained model, as text.

    x (N, n_features) and labels (N,): real examples to show with it, if there are any. shape: of its pictures, or None for
    points and tables. columns, scale: the names of a table's columns, and its Scale.
    Raises UsageError for a model or a layer that the page lacks.
    """
    kind = type(model)
    if not kind.__module__.startswith(PACKAGE) or kind.__name__ not in known("MODELS", "models.js"):
        shown = [name for name in model_names() if find_model(name).__name__ in known("MODELS", "models.js")]
        raise UsageError(f"explore has no page for a {kind_of(kind)}; it has one for {', '.join(shown)}")
    if model.labels_are_vectors:
        raise UsageError("explore has no page for a conditional_gan whose conditions are vectors; train it with labels")
    if shape is None and model.n_features < 2:
        raise UsageError("explore draws pictures, or points of two numbers or more, but these examples are one number")
    model, numbers = in_double(model), Numbers()
    directions, rows = plane(model, x), ROWS["pictures" if shape else "points"]
    drawn = {
        "title": title or kind.__name__,
        "model": network(model, numbers),
        "shape": list(shape) if shape else None,
        "columns": list(columns) if columns else None,
        "scale": {"mean": scale.mean.tolist(), "std": scale.std.tolist()} if scale else None,
        "classes": model.classes.seen.nonzero()[0].tolist() if model.needs_labels else None,
        "plane": {name: numbers.add(array) for name, array in directions.items()},
        "real": {} if x is None else real_examples(model, to_host(x), labels, shape, directions, numbers),
        "checks": [
            checked(model, options, seed, rows, numbers) for seed, options in enumerate(variants(model), start=1)
        ],
    }
    scripts = [source(name) for name in SCRIPTS]
    filled = {
        "TITLE": html.escape(drawn["title"]),
        "SCRIPTS": "".join(f"<script>\n{script}</script>\n" for script in scripts),
        "DRAWN": json.dumps(drawn, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        "NUMBERS": str(numbers),
    }
    text = source("page.html")
    for name, value in filled.items():
        text = text.replace(f"<!--{name}-->", value)
    return text


def rounded(array):
    """The array in float64, rounded to the float32 numbers that the page gets."""
    return array.astype(np.float32).astype(np.float64)


def in_double(model):
    """A copy of the model on the host that computes in float64, with its weights rounded to float32.

    JavaScript computes in 64 bits too, so what differs by more than some 1e-7 is a mistake and no rounding.
    """
    twin = type(model)(**model.settings()).build(Rng(0, "float64"))
    state = {name: to_host(array) for name, array in model.state().items()}
    twin.load_state({name: rounded(array) if array.dtype.kind == "f" else array for name, array in state.items()})
    return twin


def network(model, numbers):
    """The model as JSON: its settings as attributes, and the networks from which it samples, with averaged weights if it has
    them."""
    settings = {name: value for name, value in model.settings().items() if not isinstance(value, dict)}
    networks = [name for name in NETWORKS if isinstance(getattr(model, name, None), Layer)]

    def parts():
        return {name: exported(getattr(model, name), numbers) for name in networks}

    if not hasattr(model, "average"):
        return {"type": type(model).__name__} | settings | parts()
    with model.average.swapped():
        return {"type": type(model).__name__} | settings | parts()


def sampled(model, noise, labels, options, rng):
    """(the last frames of the way from noise (n, D) to examples, the examples (n, n_features)), as NumPy finds them.

    Of diffusion and flow matching these are all frames.
    """
    if isinstance(model, Denoising):
        frames = [x_t for _, x_t in model.path(noise, rng, labels, **options)]
        return frames, model.unscaled(frames[-1])
    if isinstance(model, Flow):
        x = model.inverse(noise, labels)
        return [x], quantise(x, model.levels) if model.levels else x
    if isinstance(model, Adversarial):
        z = np.concatenate([noise, model.as_vectors(labels)], axis=1) if isinstance(model, ConditionalGAN) else noise
        with model.average.swapped():
            x = model.generator(z, rng)  # with rng, dropout is active
    elif isinstance(model, VAE):
        x = model.decode(noise, labels)
        x = model.drawn(x, rng) if options.get("draw_x") else x
    else:
        x = model.decode(noise)
    return [x], x


def variants(model):
    """The options with which the page and NumPy sample, to be compared: each a dict."""
    if isinstance(model, VAE):
        return [{"draw_x": False}, {"draw_x": True}]
    if not isinstance(model, Denoising):
        return [{}]
    if isinstance(model, DDPM):
        few = {"sampler": "ddim", "n_steps": min(7, model.n_times)}
        own = {"sampler": "ddim", "n_steps": min(model.n_steps, model.n_times), "eta": 0.0}
        found = [own, few | {"eta": 1.0}]
    else:
        few = {"n_steps": 5, "noise": 0.0}
        found = [{"noise": 0.0}, few | {"noise": 0.5}, *(few | {"solver": name} for name in ("euler", "heun", "rk4"))]
    return [options | {"guidance": 0.0} for options in found] + [few | {"guidance": 1.5}] * model.conditional


def checked(model, options, seed, rows, numbers):
    """One check as JSON: noise and labels, and what NumPy makes of them."""
    rng = Recorded((0, seed))
    noise = rounded(Rng((0, seed, 1), "float64").normal((rows, width(model))))
    labels = model.classes.draw(rows, rng) if model.needs_labels else None
    frames, x = sampled(model, noise, labels, options, rng)
    return {
        "options": {name: value for name, value in options.items() if name != "sampler"},
        "noise": numbers.rows(noise),
        "labels": None if labels is None else labels.tolist(),
        "drawn": numbers.add(np.concatenate([np.zeros(0), *rng.drawn])),
        "frames": [numbers.rows(frame) for frame in frames],
        "x": numbers.rows(x),
    }


def width(model):
    """How many numbers the code or the noise of one example has."""
    return getattr(model, "n_latent", model.n_features)


# ---- the plane ----


def plane(model, x):
    """{"mean" (n,), "axes" (n, n), "share" (n,)} of the codes z = mean + axes w, with w about N(0, I); {} for noise.

    One or two codes are the axes themselves. More are turned, so that examples change most along the first axis, then along
    the second. Let z = mean + S w, and J = ∂x/∂w be the Jacobian of what the model makes. From E[JᵀJ] = V Λ Vᵀ come the axes
    S V, and share, which is Λ / Σ Λ. J is exact, by the complex step (check/derivative.py).
    """
    if not hasattr(model, "n_latent"):
        return {}
    n, rng = model.n_latent, Rng((0, 0, 2), "float64")
    mean, S = np.zeros(n), np.eye(n)
    if isinstance(model, AutoEncoder):
        mean, S = model.moments.mean, np.diag(np.sqrt(model.moments.variance))
        if n > 2 and x is not None and len(x) > n:
            z = model.encode(to_host(x).astype(np.float64))
            mean, S = z.mean(axis=0), spread(z)
    draws = min(DRAWS, max(8, MOST // (n * model.n_features)))
    z = mean + rng.normal((draws, n)) @ S.T
    labels = model.classes.draw(draws, rng) if model.needs_labels else None
    J = np.stack([sampled(model, z + 1j * H * step, labels, {}, None)[1].imag / H for step in S.T])  # (n, draws, D)
    JTJ = np.tensordot(J, J, ([1, 2], [1, 2]))
    change, V = (JTJ.diagonal(), np.eye(n)) if n <= 2 else (part[..., ::-1] for part in np.linalg.eigh(JTJ))
    V = V * np.sign(V[np.abs(V).argmax(axis=0), range(n)])
    return {"mean": mean, "axes": S @ V, "share": np.maximum(change, 0) / max(change.sum(), 1e-300)}


def spread(z):
    """S (n, n) with S Sᵀ the covariance of codes z (N, n): its principal directions, each as long as the spread along it."""
    variances, directions = np.linalg.eigh(np.cov(z.T))
    return directions * np.sqrt(np.maximum(variances, 1e-12))


def real_examples(model, x, labels, shape, directions, numbers):
    """Real examples as JSON: points in the plane, or pictures with their codes w, for models that have an encoder."""
    if shape and not isinstance(model, (VAE, AutoEncoder)):
        return {}
    rows = fixed_order(len(x))[: EXAMPLES["pictures" if shape else "points"]]
    x, labels = x[rows], None if labels is None else to_host(labels)[rows]
    found = {"x": numbers.rows(x), "labels": None if labels is None else labels.tolist()}
    if not shape or (model.needs_labels and labels is None):
        return found
    codes = (
        model.encode(x.astype(np.float64), labels)[0] if isinstance(model, VAE) else model.encode(x.astype(np.float64))
    )
    w = np.linalg.lstsq(directions["axes"], (codes - directions["mean"]).T, rcond=None)[0].T
    return found | {"w": numbers.rows(w)}
