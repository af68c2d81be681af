"""Measures of a model's samples and results. All of them take NumPy or CuPy arrays and return plain numbers.

Import each from its own file: image.py compares pictures with those that they should equal, coverage.py counts the modes of
a known mixture, and frechet.py compares sets of pictures. samples.py chooses the measure that suits the data.
"""
