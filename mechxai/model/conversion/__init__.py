"""From a Hugging Face model to a TransformerLens object that gives the same log-probabilities."""
