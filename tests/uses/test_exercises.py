"""Exercises: our lines pass, a blank says what is missing, wrong answers and bugs are refused, any right answer passes."""

import ast
import dataclasses
import functools
import inspect
import re
import runpy
import textwrap

import numpy as np
import pytest

from scratchgen import UsageError
from scratchgen.models.vae import VAE
from scratchgen.nn.layers import Linear
from scratchgen.uses.exercises import sheet as sheets
from scratchgen.uses.exercises.catalogue import EXERCISES, find, following
from scratchgen.uses.exercises.marking import close, results
from scratchgen.uses.exercises.sheet import Blank, Exercise, Part, source

sheet = functools.cache(sheets.sheet)

BUGS = [name for name, exercise in EXERCISES.items() if exercise.is_bug]
OTHERS = [name for name in EXERCISES if name not in BUGS]
BLANKS = [(name, i, j) for name in OTHERS for i, p in enumerate(EXERCISES[name].parts) for j, _ in enumerate(p.blanks)]


def marks(name, text):
    """The reports of an exercise's file, run in this process."""
    names = {"__name__": "an exercise"}
    exec(compile(text, f"{name}.py", "exec"), names)
    return list(results(name, names["checks"]()))


def with_one_blank(name, i, j=0):
    """(the file of an exercise with all of our lines except those of blank j of part i, the number of the blank's line)."""
    exercise = EXERCISES[name]
    parts = [dataclasses.replace(part, blanks=()) for part in exercise.parts]
    parts[i] = dataclasses.replace(parts[i], blanks=(exercise.parts[i].blanks[j],))
    text = sheet(name, dataclasses.replace(exercise, parts=tuple(parts)))
    (line,) = [i for i, line in enumerate(text.splitlines()) if 'raise NotImplementedError("' in line]
    return text, line + 1


def answered(name, i, answer):
    """The file of an exercise with an answer in place of the blank of part i, and our lines in place of the others."""
    text, line = with_one_blank(name, i)
    lines = text.splitlines()
    indent = len(lines[line - 1]) - len(lines[line - 1].lstrip())
    lines[line - 1] = textwrap.indent(answer.strip(), " " * indent)
    return "\n".join(lines)


# ---- ours passes, blanks and bugs do not ----


SUBJECTS = """relu linear softmax bernoulli dropout batch_norm layer_norm embedding residual maxout kl reparameterize
gaussian_nll iwae gan_losses gradient_penalty straight_through masks coupling q_sample ddim em"""


def test_there_are_enough_of_every_kind():
    assert set(SUBJECTS.split()) <= set(OTHERS)
    assert len(OTHERS) >= 20 and len(BUGS) >= 10


@pytest.mark.parametrize("names", [OTHERS, BUGS], ids=["exercises", "bugs"])
def test_the_easy_ones_come_first(names):
    levels = [EXERCISES[name].level for name in names]
    assert levels == sorted(levels) and levels[0] == 1 and levels[-1] <= 5


@pytest.mark.parametrize("name", EXERCISES)
def test_ours_passes(name):
    found = marks(name, sheet(name, EXERCISES[name], solved=True))
    assert found and all(found), found


@pytest.mark.parametrize(("name", "i", "j"), BLANKS)
def test_a_blank_fails_and_says_what_is_missing(name, i, j):
    wanted = EXERCISES[name].parts[i].blanks[j].wanted
    text, line = with_one_blank(name, i, j)
    *_, last = marks(name, text)
    assert not last and str(last) == f"FAIL {name}: line {line}: still missing: {wanted}"


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_refused_by_a_check_that_ours_passes(name):
    found = marks(name, sheet(name, EXERCISES[name]))
    assert not all(found)
    assert all(len(str(report)) > 40 for report in found if not report), "a check that fails says why"


REPAIRS = {
    "bug_cross_entropy": [("p - labels", "(p - labels) * (1 / logits.shape[0])")],
    "bug_softmax": [
        ("logits - xp.log(xp.exp(logits).sum(axis=1, keepdims=True))", "logits - log_sum_exp(logits, 1)[:, None]")
    ],
    "bug_dropout": [(".astype(rng.real)", ".astype(rng.real) / (1 - self.p)")],
    "bug_kl": [("-0.5 * (1 + log_var - mu * mu + variance)", "-0.5 * (1 + log_var - mu * mu - variance)")],
    "bug_sampler": [
        (".exp(log_var) * rng.normal(mu.shape)", ".sqrt(array_module(mu).exp(log_var)) * rng.normal(mu.shape)"),
        ("return dz, sigma_eps * dz", "return dz, sigma_eps * dz / 2"),
    ],
    "bug_batch_norm": [
        (
            "return (g - g.mean(axis, keepdims=True)) / s",
            "g = g / s; return g - g.mean(axis, keepdims=True) - x_hat * (g * x_hat).mean(axis, keepdims=True)",
        )
    ],
    "bug_vae": [("(self.beta * dz, 1.0)", "(1.0 * dz, 1.0 * self.beta)")],
    "bug_iwae": [
        ("array_module(x).exp(log_softmax(-log_w.T)).T", "array_module(x).exp(log_w - log_sum_exp(log_w, 0))")
    ],
    "bug_gan": [("back_discriminator(d_logits)", "back_discriminator(d_logits, False)")],
    "bug_wgan": [("rng.uniform(real.shape)", "rng.uniform(len(fake))[:, None]")],
    "bug_masks": [
        ("below[:, None] <= xp.repeat(features, self.n_out)", "below[:, None] + 1 <= xp.repeat(features, self.n_out)")
    ],
    "bug_ddim": [("math.sqrt(1 - then) * eps", "(1 - then - variance) ** 0.5 * eps")],
    "bug_vqvae": [
        ("self.as_tokens(self.beta * de)", "self.as_tokens(de)"),
        ("straight_through + dz", "self.beta * dz + straight_through"),
        ("commitment + (self.beta * codebook if", "commitment * self.beta + (codebook if"),
    ],
}


@pytest.mark.parametrize("name", BUGS)
def test_a_repair_in_other_words_is_accepted(name):
    text = sheet(name, EXERCISES[name])
    for old, new in REPAIRS[name]:
        text = sheets.replaced(text, old, new)
    found = marks(name, text)
    assert all(found), found


HALF_REPAIRS = [
    (
        "bug_sampler",
        ".exp(log_var) * rng",
        ".exp(0.5 * log_var) * rng",
    ),  # the gradient is still that of the wrong sampler
    ("bug_kl", "- mu * mu + variance", "+ mu * mu - variance"),
    ("bug_softmax", "logits - xp.log(xp.exp(logits)", "logits - xp.log(1e-9 + xp.exp(logits)"),
    ("bug_batch_norm", "(g - g.mean(axis, keepdims=True)) / s", "g / s"),
    ("bug_vae", "(self.beta * dz, 1.0)", "(self.beta * dz, self.beta)"),
    ("bug_wgan", "rng.uniform(real.shape)", "rng.uniform((1, 1))"),  # one α for all examples
    ("bug_masks", "below[:, None] <= xp", "below[:, None] + 1 < xp"),
    ("bug_ddim", "math.sqrt(1 - then) * eps", "math.sqrt(max(0.0, 1 - now - variance)) * eps"),
    ("bug_vqvae", "self.as_tokens(self.beta * de)", "self.as_tokens(de)"),
]


@pytest.mark.parametrize(("name", "old", "new"), HALF_REPAIRS)
def test_half_a_repair_is_refused(name, old, new):
    assert not all(marks(name, sheets.replaced(sheet(name, EXERCISES[name]), old, new)))


# Wrong answers: (exercise, number of the part, the answer, what the report says). Some are their own derivative.
WRONG = [
    ("relu", 0, "return x >= -1", "analytic"),
    ("linear", 0, "self.dW += x.T @ dy\nreturn dy @ self.W.T", "wrong: layer.b (4 of 4 entries are wrong)"),
    ("linear", 0, "self.dW = x.T @ dy", "view into the flat vector"),
    ("residual", 0, "return back_body(dy, learn, inputs)", "wrong: input.x0"),
    ("residual", 0, "return dy + back_body(dy)", "backward(learn=False) changes dW"),
    ("dropout", 0, "return dy * (rng.uniform(x.shape) >= self.p) / (1 - self.p)", "FAIL Dropout"),
    ("embedding", 0, "self.dW += rows.T @ dy", "backward(learn=False) changes dW"),
    ("gaussian_nll", 0, "d = (x_hat - x) / c / batch\nreturn 0.5 * c * (d * d).sum() * batch, d", "integral"),
    (
        "gaussian_nll",
        0,
        "d = (x_hat - x) / c / batch / n\nreturn 0.5 * (c * (d * d).sum() * batch * n + math.log(2 * math.pi * c)), d",
        "FAIL sum over the features",
    ),
    ("kl", 0, "d_mu, d_log_var = mu / batch, 0.25 * (variance - 1) / batch", "half of it is missing"),
    ("kl", 0, "d_mu, d_log_var = mu, 0.5 * (variance - 1)", "is it a sum over the batch"),
    ("kl", 0, "d_mu = mu / batch", "d_log_var is missing: nothing has this name yet"),
    ("softmax", 0, "d_logits = xp.exp(log_p) / len(logits)", "wrong"),
    ("softmax", 0, "d_logits = (xp.exp(log_p) - 1) * labels / len(logits)", "a path was forgotten"),
    ("gan_losses", 0, "return binary_cross_entropy(logits, 0)", "minimax at D = ½"),
    ("reparameterize", 0, "return dz, sigma_eps * dz", "twice too large: a ½ forgotten?"),
    ("maxout", 0, "def scatter(y):\n    return y.repeat(self.n_pieces, axis=1)", "wrong"),
    ("masks", 0, ("below[:, None] <= degree", "below[:, None] < degree"), "misses feature"),
    ("masks", 0, ("below[:, None] < xp", "below[:, None] > xp"), "depends on feature"),
    ("q_sample", 0, "return self.shares(t)[1] * x_0 + self.shares(t)[0] * eps", "FAIL q_sample"),
    ("q_sample", 1, "return *squared_error(f, x_0), back_denoiser", "FAIL loss of a network that knows ε"),
    ("iwae", 0, "share = array_module(x).exp(log_softmax(log_w)) / B", "wrong"),
    ("gan", 1, "back_generator(back_discriminator(d_logits), inputs=False)", "pass learn=False"),
    ("gan", 0, "back_fake(d_real, inputs=False)\nback_fake(d_fake, inputs=False)", "wrong"),
    (
        "straight_through",
        0,
        "back_book(self.as_tokens(de))\nback_trunk(back_head(d_x_hat))\nback_encoder(self.beta * dz, inputs=False)",
        "wrong: encoder",
    ),
    ("ddim", 0, ("+ math.sqrt(max(", "- math.sqrt(max("), "FAIL η = 0: x_s has the noise of x_t"),
    ("ddim", 0, ("math.sqrt(variance) * rng", "variance * rng"), "squares of the factors"),
    ("em", 0, ("exp(a - log_p)", "exp(a)"), "FAIL E step: r"),
    ("em", 1, ("r[k, rows] / n[k]", "r[k, rows] / len(x)"), "FAIL M step: P"),
    ("coupling", 0, ("dy * stretched + d_log_det[:, None]", "dy * stretched"), "FAIL Affine"),
    ("coupling", 1, ("dy[:, : self.n_a] + dx_a", "dy[:, : self.n_a]"), "FAIL Coupling"),
    ("gradient_penalty", 0, ("(2 * weight / batch)", "(weight / batch)"), "half of it is missing"),
    ("double_backward", 0, "self.dW += v.T @ u\nreturn v @ self.W, None", "learn=False"),
    ("double_backward", 1, "return None", "FAIL backward of Tanh"),
]


@pytest.mark.parametrize(("name", "i", "answer", "said"), WRONG)
def test_a_wrong_answer_is_refused_and_the_report_says_why(name, i, answer, said):
    if isinstance(answer, tuple):  # ours, with one thing changed
        text = sheets.replaced(sheet(name, EXERCISES[name], solved=True), *answer)
    else:
        text = answered(name, i, answer)
    failed = [str(report) for report in marks(name, text) if not report]
    assert any(said in report for report in failed), failed


BATCH_NORM = """
N, sigma = len(x), s * s
d_variance = (g * centred).sum(axis, keepdims=True) * -0.5 / (s * sigma)
dm = -(g / s).sum(axis, keepdims=True)
return g / s + d_variance * 2 * centred / N + dm / N
"""
EM = """
to.logits[...] = xp.log(n)
to.mu[...] = (r @ x) / n[:, None]
S[...] = np.einsum("kn,ni,nj->kij", r, x, x) / n[:, None, None] - to.mu[:, :, None] * to.mu[:, None, :]
"""
MASKS = """
features, *hidden = np.split(self.degree[k].reshape(-1).real.astype(int), self.cuts)
before = [d for d in features for _ in range(self.n_in)]
inputs = before
for units in hidden:
    yield np.array([[not d > unit for unit in units] for d in before])
    before = list(units)
before = before + inputs if self.direct else before
yield np.array([[d < feature for feature in features for _ in range(self.n_out)] for d in before])
"""
DDIM = """
noise = 1 - now / then
sigma = eta * math.sqrt((1 - then) / (1 - now) * noise)
x_0 = denoise(x, t)
direction = (x - now**0.5 * x_0) / (1 - now) ** 0.5
return then**0.5 * x_0 + (1 - then - sigma**2) ** 0.5 * direction + sigma * rng.normal(x.shape)
"""
AFFINE = """
dy, d_log_det = d
dh = np.zeros_like(h)
dh[:, :, 0] = dy
dh[:, :, 1] = (dy * x * scale + d_log_det.reshape(-1, 1)) / np.cosh(h[:, :, 1] / self.c) ** 2
return dy * np.exp(s), dh
"""
VAE_BACKWARD = """
d_code = back_decoder(d_out)
both = back_posterior((d_code, self.beta))
back_encoder(back_copies(both))
"""

RIGHT = [
    ("relu", 0, "return 0.5 * (xp.sign(x) + 1)"),
    ("relu", 0, "return np.where(x > 0, 1, 0)"),  # its type makes dx float64, which is said, and forgiven
    ("linear", 0, "self.dW += learn * (x.T @ dy)\nself.db += learn * dy.sum(axis=0)\nreturn (self.W @ dy.T).T"),
    ("embedding", 0, "if learn:\n    np.add.at(self.dW, labels, dy)"),
    ("gaussian_nll", 0, "d = (x_hat - x) / c\n"
                        "nll = 0.5 * (c * d * d + math.log(2 * math.pi * c))\nreturn nll.sum() / batch, d / batch"),
    ("softmax", 0, "p = np.exp(logits - logits.max(axis=1, keepdims=True))\n"
                   "d_logits = (p / p.sum(axis=1, keepdims=True) - labels) / len(labels)"),
    ("gan_losses", 0, "return -softplus(logits).sum() / len(logits), -sigmoid(logits) / len(logits)"),
    ("reparameterize", 0, "return dz.copy(), dz * sigma_eps / 2"),
    ("maxout", 0, "def scatter(y):\n    return (winner * np.expand_dims(y, 2)).reshape(len(y), -1)"),
    ("batch_norm", 0, BATCH_NORM),
    ("masks", 0, MASKS),
    ("q_sample", 1, "d = (f - eps) / len(f)\nreturn len(f) * (d * d).sum(), 2 * d, back_denoiser"),
    ("vae", 0, VAE_BACKWARD),
    ("iwae", 0, "w = np.exp(log_w - log_w.max(axis=0))\nshare = w / w.sum(axis=0)"),
    ("ddim", 0, DDIM),
    ("em", 1, EM),
    ("coupling", 0, AFFINE),
    ("gradient_penalty", 0, "double_backward(2 * weight * (g - centre * g / norm) / len(x))"),
    ("double_backward", 1, "return -2 * xp.tanh(x) / xp.cosh(x) ** 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "i", "answer"), RIGHT)
def test_a_right_answer_in_other_words_is_accepted(name, i, answer):
    text = answered(name, i, answer)
    text = text.replace("import sys\n", "import sys\nfrom scratchgen.nn import sigmoid, softplus\n")
    found = marks(name, text)
    assert all(found), found


# ---- the files ----


@pytest.mark.parametrize("name", EXERCISES)
def test_a_file_gives_nothing_away_and_is_well_made(name):
    exercise = EXERCISES[name]
    text, solved = (sheet(name, exercise, solved=solved) for solved in (False, True))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 125 and not any(line != line.rstrip() for line in lines)
    assert exercise.teaches in text and f"exercise {name} --solution" in text
    assert ("One thing in the code below is wrong" in text) == exercise.is_bug
    ours = set(solved.partition("# ---- the checks")[0].splitlines())
    gone = [line.partition("  #")[0].strip() for line in ours if line not in lines]
    gone = [line for line in gone if len(line) > 1 and not line.startswith(('"', "if", "def", "lambda h"))]
    assert gone, "nothing was taken out"
    assert exercise.is_bug or not [line for line in gone if line in text], "what was taken out stands elsewhere"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("scratchgen"):
            assert not any(alias.name.startswith("_") for alias in node.names)
    for docstring in re.findall(r'^ *"""(.*)"""$', text, flags=re.MULTILINE):
        assert exercise.is_bug or not sheets.GRADIENT.search(docstring)


def test_ours_is_our_source():
    """Except for checks of arguments and for decorators."""
    kept = [line for line in inspect.getsource(Linear).splitlines() if line.strip() and "check_width" not in line]
    shown = [
        line for line in source(Part(Linear, ("__init__", "forward", "forward_twice", "example"))).splitlines() if line
    ]
    assert shown == [line for line in kept if line.strip() != "@operation"]


def test_a_source_that_has_changed_is_an_error():
    """So no blank and no bug can move to other lines, or vanish, without a word."""

    def made(what, **options):
        return sheet("x", Exercise(1, "", (Part(what, **options),), EXERCISES["linear"].checks))

    with pytest.raises(ValueError, match="0 statements begin with 'no such'"):
        made(VAE.loss, blanks=(Blank("", "z", "no such"),))
    with pytest.raises(ValueError, match="2 statements begin with 'h'"):
        made(VAE.loss, blanks=(Blank("", "z", "h"),))
    with pytest.raises(ValueError, match="0 times in the source"):
        made(VAE.loss, plant=("no such", "z"))
    with pytest.raises(ValueError, match="not enough values"):
        made(Linear, blanks=(Blank("forward.no_such", "z"),))
    with pytest.raises(ValueError, match="each of"):
        sheets.formulas(dataclasses.replace(EXERCISES["ddim"], formula=(VAE, ("no such",))))


@pytest.mark.parametrize("solved", [False, True])
def test_running_a_file_marks_it(solved, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(sheet("linear", EXERCISES["linear"], following("linear"), solved), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    first, last = capsys.readouterr().out.splitlines()
    assert ended.value.code == (0 if solved else 1)
    if solved:
        assert first.startswith("ok   Linear (learning): error ")
        assert last == "linear: solved. Next: scratchgen exercise residual -o residual.py"
    else:
        assert first.startswith("FAIL linear: line ") and first.endswith("still missing: dW, db and dx")
        assert last.startswith("linear: not solved yet") and "exercise linear --solution" in last


# ---- the catalogue and the marks ----


def test_the_list_leads_from_the_first_to_the_last():
    name, seen = next(iter(EXERCISES)), []
    while name:
        seen.append(name)
        name = following(name)
    assert seen == list(EXERCISES)


def test_an_unknown_name_is_told_the_nearest():
    assert find("relu") is EXERCISES["relu"]
    with pytest.raises(UsageError, match="'bach_norm' is unknown: do you mean batch_norm or bug_batch_norm"):
        find("bach_norm")
    with pytest.raises(UsageError, match="scratchgen exercise lists them all"):
        find("%")


def test_close_names_the_worst_number_and_takes_nothing_else_for_numbers():
    good, bad = np.array([[1.0, 2.0]]), np.array([[1.0, np.nan]])
    assert close("a", good, good + 1e-10)
    assert str(close("a", bad, good, hint="why")) == "FAIL a: at [0, 1] got nan, expected 2; why"
    assert str(close("a", 1.0, 2.0)) == "FAIL a: got 1, expected 2"
    assert "shape (1, 2), expected (2,)" in str(close("a", good, good[0]))
    for nothing in (None, ..., "1"):
        assert "expected numbers" in str(close("a", nothing, 1.0))
