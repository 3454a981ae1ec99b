"""A model as a graph: what nodes write, edges moved one at a time, gradients at readers, runs of circuits."""
