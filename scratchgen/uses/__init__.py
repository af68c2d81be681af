"""What trained models are good for, beside samples."""
