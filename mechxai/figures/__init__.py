"""Figures: a `Result` becomes a plotly figure or an offline HTML page; no model is needed."""
