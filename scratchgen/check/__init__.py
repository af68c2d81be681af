"""Is a hand-written gradient the derivative of its own forward pass? Of a layer of yours, and of all of this library."""
