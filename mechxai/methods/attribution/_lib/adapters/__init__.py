"""Adapters from each kind of model to `AttributionModel`: hooked models, classifiers, encoders and black boxes."""
