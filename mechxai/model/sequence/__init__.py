"""Models with one output vector per text: classifiers, encoders, black boxes."""
