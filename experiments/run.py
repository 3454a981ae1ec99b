"""``python experiments/run.py ...`` is ``mechxai run ...``."""

import sys

from mechxai.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
