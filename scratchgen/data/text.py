"""Text as numbers: a book as one string, its characters as whole numbers, and windows of n characters each.

The book comes with the package: Alice's Adventures in Wonderland, 141,242 characters. alice.md gives its source.
"""

from importlib.resources import files as package_files

import numpy as np

from ..backend import UsageError


def load_text():
    """The whole book in one line of 37 different characters: lower-case letters, the space and ! ' ( ) , - . : ; ?"""
    return " ".join(package_files(__package__).joinpath("alice.txt").read_text(encoding="ascii").lower().split())


class Alphabet:
    """The characters of a text in their order, numbered from 0; len() counts them."""

    def __init__(self, text):
        self.characters = "".join(sorted(set(text)))
        self.number = {character: i for i, character in enumerate(self.characters)}

    def __len__(self):
        return len(self.characters)

    def encode(self, text):
        """The number of each character (len(text),). Raises UsageError for characters that are not in the alphabet."""
        strange = "".join(sorted(set(text) - set(self.characters)))
        if strange:
            raise UsageError(
                f"{text!r} has characters that the text never uses, {strange!r}: use only {self.characters!r}"
            )
        return np.array([self.number[character] for character in text], dtype=np.int64)

    def decode(self, tokens):
        """The list of N strings for tokens (N, n), the integer numbers of their characters."""
        return ["".join(self.characters[i] for i in row) for row in tokens.tolist()]


def windows(tokens, n):
    """All windows of n neighbours in tokens (L,), one for each position where it can start: (L - n + 1, n). A view."""
    return np.lib.stride_tricks.sliding_window_view(tokens, n)


def split(tokens, test=0.1):
    """Tokens (L,) in two parts: the first to train on, and the last tenth (or another fraction) to test on. A window of one
    never overlaps the other."""
    cut = round(len(tokens) * (1 - test))
    return tokens[:cut], tokens[cut:]
