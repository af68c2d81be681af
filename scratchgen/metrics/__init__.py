"""Measures of what a model makes. All of them take NumPy or CuPy arrays and return plain numbers."""
