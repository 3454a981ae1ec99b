"""Lenses: what each layer would say if it were the last."""
