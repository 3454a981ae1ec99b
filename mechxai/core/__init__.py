"""Core nouns: sites, edits, batches, metrics, methods, results and errors."""
