"""Is a hand-written gradient the derivative of its forward pass? Checks for your own layers and for all of this library."""
