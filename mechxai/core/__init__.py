"""Floor 0: the nouns."""
