"""Floor 3: results become one self-contained HTML page.

``mx.report(results, path)`` is a function and ``mechxai.report`` also the name of this package, so the package can be
called: whichever of the two Python hands out under that name, calling it writes the page.
"""

import sys
import types
from pathlib import Path
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        from mechxai.report.page import report  # noqa: PLC0415 - loads plotly

        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
