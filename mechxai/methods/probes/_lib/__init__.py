"""Shared code of the probing methods."""
