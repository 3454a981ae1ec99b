"""Importing the package is quick, silent and changes nothing."""

import subprocess
import sys
import time

PROBE = """
import logging, sys, time, warnings
start = time.perf_counter()
import mechxai as mx
seconds = time.perf_counter() - start
suspects = ("transformer_lens", "transformers", "wandb", "plotly", "torch", "hydra")
heavy = [name for name in suspects if name in sys.modules]
print(seconds, ",".join(heavy))
mx.ActivationPatching, mx.Site, mx.ContrastBatch, mx.tasks.ioi, mx.load, mx.plot
"""


def test_import_is_quick_and_silent():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import mechxai"], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == done.stderr == ""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120, check=True)
    seconds, heavy = done.stdout.split(" ")
    assert float(seconds) < 3.0
    assert heavy.strip() == "", "heavy libraries are loaded when first used"


def test_every_public_name_is_there():
    import mechxai as mx

    for name in mx.__all__:
        assert getattr(mx, name) is not None
    assert set(mx.__all__) <= set(dir(mx))


def test_report_is_callable_whatever_was_imported_first():
    code = (
        "import mechxai.report.page; import mechxai as mx; assert callable(mx.report);"
        "import mechxai.report; assert callable(mx.report)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)


def test_help_comes_at_once():
    took = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mechxai.cli", "--help"], capture_output=True, timeout=30, check=True)
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0
