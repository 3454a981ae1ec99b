"""Measures of whether attribution scores are true to the model."""
