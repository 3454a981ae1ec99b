"""Attention looked at: patterns, and the queries and keys behind them."""
