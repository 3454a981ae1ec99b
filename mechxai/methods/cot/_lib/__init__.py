"""Shared parts of the chain-of-thought methods."""
