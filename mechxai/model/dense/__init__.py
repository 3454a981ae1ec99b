"""Dense blocks: a transformer as plain tensors, compared with the model before use."""
