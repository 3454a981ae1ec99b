"""Code shared by the attribution methods."""
