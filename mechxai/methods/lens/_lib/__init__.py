"""Shared code of the lens methods."""
