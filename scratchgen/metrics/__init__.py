"""Measures of what a model makes. All of them take NumPy or CuPy arrays and return plain numbers.

Each is imported from its own file: image.py for pictures that should equal others, coverage.py for the modes of a known
mixture, frechet.py for pictures as a whole; samples.py chooses what suits the data.
"""
