"""The epoch loop, what it writes, and what makes it faster."""
