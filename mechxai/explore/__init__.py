"""The explorer: interactive views of one prompt of one model, in the browser."""
