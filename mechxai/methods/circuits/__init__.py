"""Circuit methods: find the edges that carry a behaviour, name the heads, and validate the circuit."""
