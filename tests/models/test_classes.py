"""Labels with gaps: a conditional model draws and takes only classes that it has seen."""

import numpy as np
import pytest

from scratchgen import Rng, UsageError
from scratchgen.__main__ import main
from scratchgen.data import load
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.ddpm import DDPM
from scratchgen.models.parts.classes import Classes
from scratchgen.train.checkpoint import load_model
from scratchgen.train.fit import fit

SEEN = np.array([1, 2, 4, 5, 6, 9])


def seen(n=11):
    classes = Classes(n)
    classes.note(np.tile(SEEN, 3))
    return classes


def gan():
    return ConditionalGAN(n_features=64, n_classes=11, hidden_G=(8,), hidden_D=(8,), batch=32).build(Rng(0))


def ddpm():
    return DDPM(n_features=64, n_classes=11, conditional=True, width=8, n_blocks=1, n_waves=4, batch=32).build(Rng(0))


def gapped():
    data = load("digits")
    keep = np.isin(data.labels_train, SEEN)
    return data.x_train[keep][:320], data.labels_train[keep][:320]


def test_all_classes_count_until_labels_were_seen():
    classes = Classes(3)
    assert set(classes.draw(200, Rng(0))) == {0, 1, 2}
    classes.check(np.arange(3))
    assert str(classes) == "0 ... 2"


def test_classes_are_named_in_words():
    assert [str(Classes(n)) for n in (1, 2, 3)] == ["one of 0", "0, 1", "0 ... 2"]
    assert str(seen()) == "one of 1, 2, 4 ... 6, 9"


def test_only_seen_classes_are_drawn_and_all_alike():
    drawn = seen().draw(60_000, Rng(0))
    found, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(found, SEEN)
    np.testing.assert_allclose(counts, 10_000, atol=450)


@pytest.mark.parametrize("classes", [seen(), Classes(6)])
def test_another_class_is_never_the_same_and_each_as_likely(classes):
    listed = np.flatnonzero(classes.seen)
    labels = np.repeat(listed, 5_000)
    other = classes.other(labels, Rng(1))
    assert set(other) == set(listed) and not (other == labels).any()
    for label in listed:
        np.testing.assert_allclose(np.unique(other[labels == label], return_counts=True)[1], 1_000, atol=150)


@pytest.mark.parametrize("label", [0, 3, 7, 10, 11, -1, True, None, np.int64(3), 1.5, "2", np.array([1, 2, 3])])
def test_a_class_that_was_not_seen_is_refused(label):
    with pytest.raises(UsageError, match=r"label .*: expected one of 1, 2, 4 \.\.\. 6, 9"):
        seen().check(label)
    for known in (4, np.int64(9), np.array([1, 2])):
        seen().check(known)


@pytest.mark.parametrize("make", [gan, ddpm])
def test_a_trained_model_keeps_to_its_classes(make, tmp_path):
    x, labels = gapped()
    model = make()
    fit(model, x, labels=labels, epochs=1, out=tmp_path, progress=False)
    for found in (model, load_model(tmp_path / "checkpoint.npz")[0]):
        with pytest.raises(UsageError, match="label 3: expected one of 1, 2"):
            found.sample(2, found.rng(0), label=3)
        with pytest.raises(UsageError, match="label 7"):
            found.generate(*((np.array([1, 7]), found.rng(0)) if make is gan else (2, found.rng(0), np.array([1, 7]))))
        assert found.sample(2, found.rng(0), label=9).shape == (2, 64)
        drawn, original = [], found.generate
        found.generate = lambda *given, original=original, drawn=drawn: (drawn.extend(given), original(*given))[1]
        found.sample(300, found.rng(0))
        labels_drawn = next(g for g in drawn if isinstance(g, np.ndarray))
        assert set(labels_drawn) <= set(SEEN) and len(labels_drawn) == 300


@pytest.mark.parametrize("label", [True, 1.5, "2"])
@pytest.mark.parametrize("make", [gan, ddpm])
def test_what_is_no_class_cannot_be_sampled(make, label):
    with pytest.raises(UsageError, match=rf"label {label}: expected 0 \.\.\. 10"):
        make().sample(2, Rng(0), label=label)


def test_the_wrong_condition_of_a_gan_is_one_that_occurs():
    x, labels = gapped()
    model = gan()
    model.prepare(x, model.rng(0), labels)
    assert set(model.wrong(np.repeat(SEEN, 50), model.rng(0))) == set(SEEN)


def test_of_one_class_alone_any_other_is_wrong():
    x, labels = gapped()
    model = gan()
    fit(model, x, labels=0 * labels + 4, epochs=1, progress=False)
    wrong = model.wrong(np.full(500, 4), model.rng(0))
    assert set(wrong) == set(range(11)) - {4}
    assert model.sample(3, model.rng(0)).shape == (3, 64)


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, labels = gapped()
    np.savez("gapped.npz", x=x, labels=labels + 2000)
    given = ["--data", "gapped.npz", "--epochs", "1", "--set", "hidden_G=8", "hidden_D=8"]
    assert main(["train", "conditional_gan", "--out", "run", *given]) == 0
    capsys.readouterr()
    assert main(["sample", "run", "-n", "4", "-o", "x.npy", "--label", "2003"]) == 2
    assert "label 2003: expected one of 2001, 2002, 2004 ... 2006, 2009" in capsys.readouterr().err
    assert main(["sample", "run", "-n", "4", "-o", "x.npy", "--label", "2004"]) == 0


def test_a_checkpoint_of_before_classes_were_counted_takes_them_all(tmp_path):
    x, labels = gapped()
    fit(gan(), x, labels=labels, epochs=1, out=tmp_path, progress=False)
    with np.load(tmp_path / "checkpoint.npz") as saved:
        arrays = {name: saved[name] for name in saved.files if name != "classes.seen"}
    np.savez(tmp_path / "checkpoint.npz", **arrays)
    model, _ = load_model(tmp_path / "checkpoint.npz")
    assert model.sample(1, model.rng(0), label=3).shape == (1, 64)
