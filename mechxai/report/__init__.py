"""Reports: results as one self-contained HTML page.

``mx.report`` is both a function and this package. The package is therefore callable, so that
``mx.report(results, path)`` writes the page in both cases.
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
