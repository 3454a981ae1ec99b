"""Attention: patterns, and the queries and keys behind them."""
