"""A model as a graph: writes of nodes, edges changed one at a time, gradients at readers, runs of circuits."""
