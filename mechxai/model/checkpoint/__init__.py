"""What is checked of a Hugging Face checkpoint before, while and after its weights are read."""
