"""What probing methods share."""
