"""Hydra's configs. A package, so that others can add ``pkg://mechxai._configs`` to their search path."""
