"""The callback by which long work reports to the user."""

from collections.abc import Callable

Reporter = Callable[[object], None]
"""Called with a line of text, or with a table as a mapping with ``title`` and ``rows``."""
