"""Floor 1: the only door to TransformerLens and to Hugging Face's model classes."""
