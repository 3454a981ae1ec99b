"""Scripts and styles that are embedded in the HTML pages."""
