"""What some models are built of."""
