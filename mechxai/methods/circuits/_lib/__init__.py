"""What circuit methods share."""
