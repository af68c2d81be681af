"""The bundled book, its characters as numbers, and what the demo of text measures with."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from scratchgen.backend import Rng, UsageError
from scratchgen.data.text import Alphabet, load_text, split, windows

DEMOS = pathlib.Path(__file__).parents[2] / "demos"
BOOK = load_text()


@pytest.fixture
def text_demo(demo):
    return demo("use_text")


def test_the_book_is_whole_and_holds_nothing_else():
    assert len(BOOK) == 141_242
    assert BOOK.startswith("alice was beginning to get very tired") and BOOK.endswith("the happy summer days.")
    assert "".join(sorted(set(BOOK))) == " !'(),-.:;?abcdefghijklmnopqrstuvwxyz"
    assert "  " not in BOOK
    for stranger in ("gutenberg", "chapter", "later editions"):
        assert stranger not in BOOK
    for place in (
        "down the chimney",
        "the white rabbit",
        "'off with her head!'",
        "soup of the evening",
        "nothing but a pack of",
    ):
        assert place in BOOK


def test_characters_become_numbers_and_come_back():
    alphabet = Alphabet("hello, you")
    tokens = alphabet.encode("you, hello")
    assert len(alphabet) == 8 and set(tokens) == set(range(8)) and tokens.dtype == np.int64
    assert alphabet.decode(np.stack([tokens, tokens[::-1]])) == ["you, hello", "olleh ,uoy"]
    assert alphabet.decode(tokens[:0].reshape(0, 10)) == [] and len(alphabet.encode("")) == 0
    with pytest.raises(UsageError, match=r"'hey x' .*'x'") as caught:
        alphabet.encode("hey x")
    assert "\n" not in str(caught.value)


def test_windows_begin_at_every_place():
    tokens = np.arange(10, 17)
    np.testing.assert_array_equal(windows(tokens, 3), [[t, t + 1, t + 2] for t in range(10, 15)])
    assert windows(tokens, 7).shape == (1, 7)


def test_no_window_reaches_from_one_part_into_the_other():
    train, test = split(np.arange(1000))
    assert len(test) == 100
    assert windows(train, 24).max() == 899 and windows(test, 24).min() == 900
    np.testing.assert_array_equal(np.concatenate(split(np.arange(1000), 0.25)), np.arange(1000))


# ---- the demo's measures ----


def test_tables_are_probabilities_and_smoothed_counts(text_demo):
    tokens = np.array([0, 1, 0, 1, 0, 2, 2])
    none, one, two = text_demo.tables(tokens, 4, 2)
    for p in (none, one, two):
        np.testing.assert_allclose(p.sum(axis=-1), 1)
        assert (p > 0).all()
    np.testing.assert_allclose(none, (np.array([3, 2, 2, 0]) + 3 / 4) / 10)  # three kinds in seven
    np.testing.assert_allclose(one[0], (np.array([0, 2, 1, 0]) + 2 * none) / 5)  # after 0: 1, 1, 2
    np.testing.assert_allclose(one[3], none)  # nothing followed 3
    np.testing.assert_allclose(two[1, 0], (np.array([0, 1, 1, 0]) + 2 * one[0]) / 4)


def test_tables_find_the_entropy_of_a_known_chain(text_demo):
    """And what they draw follows it."""
    rng = np.random.default_rng(0)
    chain = rng.dirichlet(np.ones(4), 4)
    tokens = [0]
    for u in rng.random(20_000):
        tokens.append(int((chain[tokens[-1]].cumsum() < u).sum()))
    tokens = np.array(tokens)
    found = text_demo.tables(tokens[:15_000], 4, 2)
    costs = text_demo.cost_by(found[:2], windows(tokens[15_000:], 6))
    visits = np.bincount(tokens, minlength=4) / len(tokens)
    entropy = -(visits[:, None] * chain * np.log(chain)).sum()
    assert costs.shape == (4996, 6)
    np.testing.assert_allclose(costs[:, 1:].mean(axis=0), entropy, atol=0.03)
    assert costs[:, 0].mean() == pytest.approx(-(visits * np.log(visits)).sum(), abs=0.03)
    drawn = text_demo.drawn_by(found[:2], np.full((5000, 1), 2), 3, rng)
    np.testing.assert_allclose(np.bincount(drawn[:, 1], minlength=4) / 5000, chain[2], atol=0.03)
    np.testing.assert_allclose(np.bincount(drawn[:, 2], minlength=4) / 5000, chain[2] @ chain, atol=0.03)


def test_the_cost_of_a_line_is_its_log_probability_and_openings_are_kept(text_demo):
    alphabet = Alphabet(BOOK)
    model = text_demo.MADE(n_features=text_demo.N, n_values=len(alphabet), hidden=(8,), n_embed=3).build(Rng(0))
    x = windows(alphabet.encode(BOOK[:80]), text_demo.N)
    np.testing.assert_allclose(text_demo.cost(model, x).sum(axis=1), -model.log_prob(x), rtol=1e-5)
    openings = ["alice ", "the queen was not at all amused", ""]
    texts = text_demo.written(model, alphabet, openings, 50, model.rng(1))
    assert [len(text) for text in texts] == 3 * [50]
    assert all(text.startswith(opening) for text, opening in zip(texts, openings))


def test_copies_and_words(text_demo):
    assert text_demo.longest_copy("the cat sat", "a cat sat on the mat") == 8  # " cat sat"
    assert text_demo.longest_copy("xyz", "abc") == 0
    assert text_demo.longest_copy("mat", "a mat") == 3
    found = [match.group() for match in text_demo.words("ill, don't (say) rabbit-hole--so sai")]
    assert found == ["don't", "say", "rabbit-hole", "so"]


def test_an_opening_with_characters_of_no_book_ends_in_one_line():
    command = [sys.executable, str(DEMOS / "use_text.py"), "--quick", "--prompt", "Alice & 7 cats"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "'&7'" in done.stderr
