"""A model as a graph of nodes and edges: writes, cuts, gradients, circuits."""
