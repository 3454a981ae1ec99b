"""Floor 3: results as one HTML page that opens from disk."""
