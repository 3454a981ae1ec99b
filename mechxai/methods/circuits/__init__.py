"""Finding, naming and validating circuits."""
