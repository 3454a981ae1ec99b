"""``python -m mechxai.cli``: the same as ``mechxai``."""

import sys

from mechxai.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
