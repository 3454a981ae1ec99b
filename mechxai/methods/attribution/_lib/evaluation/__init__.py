"""Evaluation of attribution scores: curves, measures, sensitivity, and comparison with random rankings."""
