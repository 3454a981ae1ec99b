"""What can be read from activations, with the controls that make it mean something."""
