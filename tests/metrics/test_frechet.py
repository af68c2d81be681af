"""The Fréchet distance is the closed form, its classifier knows the digits, and a cached classifier never goes wrong."""

import dataclasses
import math

import numpy as np
import pytest
import simcupy
from hypothesis import given
from hypothesis import strategies as st
from simcupy.runner import Runner

from scratchgen import Rng, kernels
from scratchgen.backend import UsageError
from scratchgen.data import Data, load
from scratchgen.metrics import frechet
from scratchgen.metrics.frechet import Distance, FrechetJudge, frechet_distance, trained_classifier
from scratchgen.metrics.samples import sample_metrics
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.classifier import Classifier
from scratchgen.train.checkpoint import load_model, save_checkpoint

SEEDS = st.integers(0, 2**32 - 1)

# ---- the distance ----


def exact(n, mu, root, seed=0):
    """n points whose mean is mu and whose covariance is root rootᵀ, not on average but exactly: whitened, then shaped."""
    x = np.random.default_rng(seed).normal(size=(n, len(mu)))
    x = np.linalg.qr(x - x.mean(axis=0))[0] * np.sqrt(n - 1)  # the columns of Q are orthonormal, and still of mean 0
    return x @ root.T + mu


def random_pair(seed, n=60, m=40, n_features=5):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(k, n_features)) @ rng.normal(size=(n_features, n_features)) for k in (n, m))
    return a, b + rng.normal(size=n_features)


def test_gaussians_along_the_same_axes():
    """Then the distance is ‖μ_a - μ_b‖² + Σ (s_a - s_b)², with standard deviations s."""
    s_a, s_b = np.array([1.0, 2.0, 0.0, 5.0]), np.array([3.0, 2.0, 1.0, 0.0])
    mu_a, mu_b = np.array([0.0, 1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0, 0.5])
    a, b = exact(50, mu_a, np.diag(s_a)), exact(70, mu_b, np.diag(s_b), seed=1)
    assert frechet_distance(a, b) == pytest.approx(4.25 + 4 + 1 + 25, rel=1e-12)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(34.25, rel=1e-7)  # 1e-16 in place of 0, and its root


def test_gaussians_along_other_axes():
    """In the plane tr (Σ_a Σ_b)^½ = (tr Σ_a Σ_b + 2 (det Σ_a Σ_b)^½)^½, by Cayley and Hamilton."""
    root_a, root_b = np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([[1.0, -3.0], [0.5, 1.0]])
    cov_a, cov_b = root_a @ root_a.T, root_b @ root_b.T
    product = cov_a @ cov_b
    trace = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = 1 + 4 + np.trace(cov_a) + np.trace(cov_b) - 2 * trace
    a, b = exact(30, np.zeros(2), root_a), exact(30, np.array([1.0, -2.0]), root_b, seed=1)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@given(seed=SEEDS)
def test_against_the_matrix_root_of_scipy(seed):
    linalg = pytest.importorskip("scipy.linalg", reason="SciPy is not installed")
    a, b = random_pair(seed)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    trace = np.trace(linalg.sqrtm(cov_a @ cov_b).real)
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6, abs=1e-6)  # as good as sqrtm is


@given(seed=SEEDS)
def test_what_a_distance_must_be(seed):
    a, b = random_pair(seed)
    rng = np.random.default_rng((seed, 1))
    distance = frechet_distance(a, b)
    assert distance > 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(rng.permutation(a), rng.permutation(b)) == pytest.approx(distance, rel=1e-9)
    shift = rng.normal(size=5)
    moved = (a.mean(axis=0) - b.mean(axis=0)) @ shift * 2 + shift @ shift
    assert frechet_distance(a + shift, b) == pytest.approx(distance + moved, rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-9)
    scale = a.var(axis=0).sum()
    assert 0 <= frechet_distance(a, a) <= 1e-12 * scale
    assert frechet_distance(a + shift, a) == pytest.approx(shift @ shift, abs=1e-11 * scale)


def test_features_that_never_move_do_no_harm():
    a, b = random_pair(0)
    padded = [
        np.concatenate([x, np.zeros((len(x), 3)), x[:, :1]], axis=1) for x in (a, b)
    ]  # and one that says nothing new
    assert frechet_distance(padded[0], padded[0]) <= 1e-11
    zeros = [np.concatenate([x, np.zeros((len(x), 3))], axis=1) for x in (a, b)]
    assert frechet_distance(*zeros) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    same = np.ones((5, 3))  # one picture, five times
    assert frechet_distance(same, same + 2) == pytest.approx(12)


def test_float32_and_device_arrays_are_taken():
    a, b = (x.astype(np.float32) for x in random_pair(0))
    expected = frechet_distance(a.astype(np.float64), b.astype(np.float64))
    assert frechet_distance(simcupy.asarray(a), b) == expected
    assert type(expected) is float


@pytest.mark.parametrize(("a", "b"), [((4, 3), (4, 2)), ((4,), (4,)), ((1, 3), (4, 3)), ((4, 3), (0, 3))])
def test_other_shapes_are_refused_by_name(a, b):
    with pytest.raises(ValueError) as caught:
        frechet_distance(np.zeros(a), np.zeros(b))
    assert str(a) in str(caught.value) and str(b) in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_give_nan(bad):
    a, b = random_pair(0)
    a[3, 2] = bad
    assert np.isnan(frechet_distance(a, b))


# ---- the judge of the bundled digits ----


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of this file's own, as $XDG_CACHE_HOME."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def judge(cache, digits):
    return FrechetJudge(digits)


def test_the_judge_knows_the_digits(judge, digits):
    assert judge.accuracy >= 0.96
    assert judge.accuracy == pytest.approx((judge.classifier.predict(digits.x_test) == digits.labels_test).mean())
    assert judge.reference.shape == (1400, 32)
    assert judge.reference.min() == 0


def test_the_floor_is_low_and_what_is_wrong_is_far_above_it(judge, digits):
    floor = judge.floor()
    assert 0.5 < floor.mean < 2
    assert 0.1 < floor.error < 0.6
    assert judge.floor(397) == judge.floor(10_000) == floor
    assert floor.mean < judge.floor(200).mean < judge.floor(50).mean  # fewer samples, a larger distance
    assert judge.distance(digits.x_train) == pytest.approx(0, abs=1e-9)
    wrong = {
        "noise": Rng(0).uniform((2000, 64)),
        "one digit again and again": np.repeat(digits.x_test[:1], 500, axis=0),
        "pale": 0.5 * digits.x_test,
        "a class is lost": digits.x_test[digits.labels_test != 3],
        "the mean of all": np.repeat(digits.x_train.mean(axis=0, keepdims=True), 100, axis=0),
    }
    for name, x in wrong.items():
        assert judge.distance(x) > (2 if name == "a class is lost" else 20) * floor.mean, name


def test_the_floor_is_that_of_real_pictures_against_other_real_pictures(judge, digits):
    """Among draws made here, the floor's mean is theirs within four errors, and its error is theirs within a half."""
    x, rng = judge.features(np.concatenate([digits.x_train, digits.x_test])), np.random.default_rng(1)
    orders = [rng.permutation(1_797) for _ in range(100)]
    found = [frechet_distance(x[order[:397]], x[order[397:]]) for order in orders]
    floor = judge.floor()
    assert floor.mean == pytest.approx(np.mean(found), abs=4 * np.std(found) * math.sqrt(1 / 50 + 1 / 100))
    assert floor.error == pytest.approx(np.std(found), rel=0.5)


def noisy(digits, n, rng):
    """Samples of a model that draws training pictures and adds noise."""
    x = digits.x_train[rng.integers(0, len(digits.x_train), n)]
    return np.clip(x + 0.2 * rng.normal(size=x.shape), 0, 1).astype(np.float32)


def test_several_parts_have_a_mean_and_a_standard_deviation(judge, digits):
    x = noisy(digits, 1_200, np.random.default_rng(2))
    found = [judge.distance(part) for part in np.split(x, 4)]
    assert judge.measure(x, 300) == pytest.approx((np.mean(found), np.std(found, ddof=1)), rel=1e-12)


def test_the_error_of_one_set_is_the_spread_of_many(judge, digits):
    """The jackknife needs one set of samples only, and finds what many sets show: on average within a quarter."""
    found = [judge.measure(noisy(digits, 397, np.random.default_rng((3, i)))) for i in range(60)]
    means, errors = np.transpose(found)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(means.std(ddof=1), rel=0.25)
    x = noisy(digits, 397, np.random.default_rng((3, 0)))
    assert found[0].mean == judge.distance(x)
    in_order = x[np.argsort(judge.read(x), kind="stable")]  # sorted by digit, as files may be
    assert judge.measure(in_order).error == pytest.approx(found[0].error, rel=0.8)


def test_two_distances_differ_by_more_than_both_errors_or_cannot_be_told_apart():
    assert Distance(1.0, 0.3).differs(Distance(1.6, 0.4))
    assert not Distance(1.0, 0.3).differs(Distance(1.49, 0.4))
    assert Distance(1.6, 0.4).differs(Distance(1.0, 0.3))
    assert str(Distance(1.126, 0.304)) == "1.13 ± 0.30"
    assert str(Distance(51.26, 1.3)) == "51.3 ± 1.3"
    assert str(Distance(162.3, 1.3)) == "162 ± 1"


def test_the_classes_of_real_digits(judge, digits):
    found = judge.classes(digits.x_test)
    assert found.shape == (10,)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, np.bincount(digits.labels_test) / 397, atol=0.03)
    sevens = judge.classes(digits.x_test[digits.labels_test == 7])
    assert sevens[7] > 0.9
    assert sevens.min() == 0


def test_the_share_of_pictures_that_the_classifier_is_sure_of(judge, digits):
    grey = np.full((30, 64), 0.5)
    assert judge.sure(digits.x_test) > 0.9 and judge.sure(grey) in (0, 1)  # all are alike
    p = judge.classifier.probabilities(digits.x_test)
    assert judge.sure(digits.x_test) == np.mean([row.max() >= 0.9 for row in p])


def test_the_judge_of_a_device_says_the_same(judge, digits, monkeypatch, capsys):
    monkeypatch.setitem(kernels.DEVICES, "simcupy", Runner())
    on_device = FrechetJudge(digits, simcupy, n_reference=500)
    assert type(on_device.reference) is simcupy.ndarray
    assert capsys.readouterr().err == ""  # the cached one, whatever trained it
    x = digits.x_test
    assert on_device.accuracy == pytest.approx(judge.accuracy)
    expected = FrechetJudge(digits, n_reference=500).distance(x)
    assert on_device.distance(x) == pytest.approx(expected, rel=1e-3)
    assert on_device.distance(simcupy.asarray(x)) == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(on_device.classes(simcupy.asarray(x)), judge.classes(x))


# ---- the cache ----


def theta(classifier):
    return classifier.params.theta.tobytes()


def small(name="digits", noise=0.0, **changes):
    """A few digits, so that a classifier is trained in a moment."""
    data = load("digits")
    x = np.clip(data.x_train[:60] + noise, 0, 1).astype(np.float32)
    made = Data(name, x, data.x_test[:30], data.labels_train[:60], data.labels_test[:30], data.shape)
    return dataclasses.replace(made, **changes)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(frechet, "STEPS", 40)  # what it learns matters little here
    return tmp_path / "cache" / "scratchgen" / "classifiers"


def said(capsys):
    """How often it was said that a classifier is trained: each time in one line."""
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("training the classifier that measures samples of ") for line in lines)
    return len(lines)


def test_a_classifier_is_trained_once(empty_cache, capsys):
    first = trained_classifier(small())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("training the classifier that measures samples of digits: ")
    assert " s once, " in line and line.endswith("% of the test pictures correct")
    (path,) = empty_cache.iterdir()
    assert path.name.startswith("digits-") and path.suffix == ".npz"
    again = trained_classifier(small())
    assert capsys.readouterr() == ("", "")
    assert theta(again) == theta(first)
    assert list(empty_cache.iterdir()) == [path]


def test_training_repeats_bit_for_bit(empty_cache, tmp_path, monkeypatch):
    first = trained_classifier(small())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert theta(trained_classifier(small())) == theta(first)


def test_other_data_gets_another_classifier(empty_cache, capsys):
    longer = "/" + 50 * "folder/" + 300 * "a" + "/my data: 3.npz"
    labels = small().labels_train[::-1].copy()
    others = [small(), small(noise=0.1), small(labels_train=labels), small(longer), small(labels_test=np.full(30, 11))]
    for n, data in enumerate(others, 1):
        trained_classifier(data)
        # The name alone makes another file, not another classifier; and a class that only the test part has is one too.
        assert said(capsys) == 1
        assert len(list(empty_cache.iterdir())) == n
    assert any(path.name.startswith("my_data_3-") for path in empty_cache.iterdir())
    for data in others:
        trained_classifier(data)
    assert said(capsys) == 0


def foreign(path):
    save_checkpoint(path, AutoEncoder.example(Rng(0))[0], epoch=1)


def of_other_data(path):
    model = load_model(path)[0]
    model.params.theta += 1
    save_checkpoint(path, model, fingerprint="0" * 64)


def unmarked(path):
    save_checkpoint(path, load_model(path)[0], epoch=1)


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no classifier"),
    "a byte changed": lambda path: path.write_bytes(path.read_bytes().replace(b"\x3f", b"\x3e", 1)),
    "another model": foreign,
    "of other data": of_other_data,
    "unmarked": unmarked,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_use_is_replaced(damage, empty_cache, capsys):
    expected = theta(trained_classifier(small()))
    (path,) = empty_cache.iterdir()
    DAMAGES[damage](path)
    capsys.readouterr()
    assert theta(trained_classifier(small())) == expected
    assert said(capsys) == 1
    assert theta(trained_classifier(small())) == expected
    assert said(capsys) == 0
    assert list(empty_cache.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_is_done_without(empty_cache, capsys):
    empty_cache.parent.parent.write_text("a file where the folder should be")
    classifier = trained_classifier(small())
    line = capsys.readouterr().err
    assert "not saved for the next time" in line and str(empty_cache) in line
    assert line.count("\n") == 1
    assert theta(trained_classifier(small())) == theta(classifier)


def test_a_folder_in_the_way_is_done_without(empty_cache, capsys):
    trained_classifier(small())
    (path,) = empty_cache.iterdir()
    path.unlink()
    path.mkdir()
    capsys.readouterr()
    trained_classifier(small())
    assert said(capsys) == 1


def few(n_train, n_test):
    """A Data of the first digits."""
    data = load("digits")
    return Data("few", data.x_train[:n_train], data.x_test[:n_test], data.labels_train[:n_train],
                data.labels_test[:n_test], data.shape)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dataclasses.replace(few(300, 300), labels_train=None, labels_test=None), "no labels"),
        (dataclasses.replace(few(300, 300), shape=None), "not pictures"),
        (few(199, 300), "199 pictures to train on, but 200 are needed"),
        (few(300, 1), "1 picture to test on, but 200 are needed"),
        (dataclasses.replace(few(300, 300), labels_train=np.full(300, 3)), "all of one class"),
    ],
)
def test_data_that_cannot_be_judged_is_refused_in_a_line(data, reason, empty_cache):
    with pytest.raises(UsageError, match=rf"^no Fréchet distance: .*{data.name}.*{reason}") as caught:
        FrechetJudge(data)
    assert "\n" not in str(caught.value)
    if data.shape:  # else these are points, and measured otherwise
        assert sample_metrics(data) == (None, str(caught.value))
    assert not empty_cache.exists()


@pytest.mark.parametrize("how", ["shuffled", "all wrong"])
def test_a_classifier_that_has_learned_nothing_is_no_judge(how, empty_cache):
    data, rng = few(300, 300), np.random.default_rng(0)
    if how == "shuffled":
        data = dataclasses.replace(data, labels_train=rng.permutation(data.labels_train))
    else:
        data = dataclasses.replace(data, labels_test=(data.labels_test + 1) % 10)
    measure, left_out = sample_metrics(data)
    assert measure is None
    assert "no Fréchet distance: the classifier gets " in left_out and "guessing the most frequent class" in left_out


# ---- what suits the samples of which data ----


class Sampler:
    """A model that knows the data by heart."""

    def __init__(self, x):
        self.x, self.asked = x, []

    def sample(self, n, rng, label=None):
        self.asked.append(n)
        return self.x[rng.integers(len(self.x), n)]


def test_labelled_pictures_are_measured_by_distance_and_rarest_class(cache, judge, digits):
    model, measure = Sampler(digits.x_train), sample_metrics(digits)[0]
    found = measure(model, Rng(1))
    assert model.asked == [397]  # as many as there are test pictures
    assert list(found) == [
        "frechet", "frechet_error", "frechet_floor", "frechet_floor_error", "classifier_accuracy", "rarest_class"
    ]  # fmt: skip
    assert all(type(value) is float for value in found.values())
    assert 0 < found["frechet"] < 2
    assert (found["frechet_floor"], found["frechet_floor_error"]) == judge.floor(397)
    assert found["classifier_accuracy"] == judge.accuracy
    assert 0 < found["frechet_error"] < 1
    assert 0.04 < found["rarest_class"] <= 0.1
    assert measure(model, Rng(1)) == found
    no_threes = Sampler(digits.x_train[digits.labels_train != 3])
    worse = measure(no_threes, Rng(1))
    assert worse["frechet"] > 2
    assert worse["rarest_class"] < 0.01


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_mixtures_in_the_plane_are_measured_by_their_modes(name):
    data = load(name)
    model = Sampler(data.x_test)
    found = sample_metrics(data)[0](model, Rng(0))
    assert model.asked == [2500]
    assert found["modes"] == len(data.toy.centres)
    assert found["high_quality"] > 0.97
    assert 0 <= found["reverse_kl"] < 0.02


def test_a_model_that_cannot_sample_is_not_measured(cache, judge, digits):
    classifier, _ = Classifier.example(Rng(0))
    with pytest.raises(UsageError, match="no way to sample"):
        classifier.sample(5, Rng(0))
    assert sample_metrics(digits)[0](classifier, Rng(0)) == {}


# ---- MNIST ----


@pytest.mark.slow
@pytest.mark.needs("mnist")
def test_mnist(empty_cache):
    judge = FrechetJudge(load("mnist"))
    assert judge.accuracy >= 0.98
    floors = [judge.floor(n).mean for n in (10_000, 5_000, 2_000)]
    assert floors == sorted(floors)
    assert floors[0] < 1
