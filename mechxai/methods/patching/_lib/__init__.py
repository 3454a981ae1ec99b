"""What patching methods share."""
