"""A transformer as plain tensors, compared with the model before it is used."""
