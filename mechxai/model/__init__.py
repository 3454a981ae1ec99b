"""Models: the only package that imports TransformerLens and Hugging Face's model classes."""
