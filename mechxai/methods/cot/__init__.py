"""Chain-of-thought methods: how strongly an answer depends on the reasoning that a model writes before it."""
