"""scratchgen: deep generative models in plain NumPy or CuPy, with every gradient written by hand."""
