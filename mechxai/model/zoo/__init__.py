"""The bundled models and the format they are stored in."""
