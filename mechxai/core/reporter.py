"""The callback by which long work reports to the user."""

from collections.abc import Callable

Reporter = Callable[[object], None]
"""Shows one line of text, or a table as a mapping with ``title`` and ``rows``."""
