"""Scripts and styles of pages, put into them whole."""
