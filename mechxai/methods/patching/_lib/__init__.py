"""Shared code of the patching methods."""
