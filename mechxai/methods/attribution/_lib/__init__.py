"""What attribution methods share."""
