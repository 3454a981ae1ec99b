"""Lenses: predictions of intermediate layers, and the components that write them."""
