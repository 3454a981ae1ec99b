"""One adapter per kind of model: how attribution reads hooked models, classifiers, encoders and black boxes."""
