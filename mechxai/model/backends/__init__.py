"""The objects of TransformerLens behind one interface: hooks, edits, keys and values, limits."""
