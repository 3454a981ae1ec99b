"""Floor 4: the explorer, one prompt of one model seen from every side in the browser."""
