"""What can be done besides training a model and drawing from it: fill holes in pictures, and solve exercises."""
