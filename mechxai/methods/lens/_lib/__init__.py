"""What lens methods share."""
