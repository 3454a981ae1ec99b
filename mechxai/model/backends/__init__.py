"""TransformerLens objects behind one interface: hooks, edits, keys and values, limits."""
