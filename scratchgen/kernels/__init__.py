"""Compiled twins of a few operations. Nobody needs to open this to understand a model."""
