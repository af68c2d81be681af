"""Training: the epoch loop, the files it writes, and what makes it faster."""
