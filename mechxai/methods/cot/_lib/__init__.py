"""What chain-of-thought methods share."""
