"""Floor 2: results as plotly figures; knows no model."""
