"""What trained models can do besides generating samples."""
