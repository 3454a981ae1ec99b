"""Model families as tiny random checkpoints, and independent computations on them."""
