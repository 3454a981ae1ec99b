"""Probing methods: decode labels from activations, with control tasks and causal checks."""
