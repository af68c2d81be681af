"""Building blocks that some of the models share."""
