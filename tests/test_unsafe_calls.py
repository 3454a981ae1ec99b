"""The linter refuses calls that would run code from a file, so that none of them comes into the package unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNSAFE = {
    "pickle": "import pickle\npickle.loads(b'')\n",
    "dill": "import dill\n",
    "shelve": "import shelve\n",
    "marshal": "import marshal\n",
    "joblib": "import joblib\njoblib.load('x')\n",
    "numpy": "import numpy as np\nnp.load('x', allow_pickle=True)\n",
    "pandas": "import pandas as pd\npd.read_pickle('x')\n",
    "torch": "import torch\ntorch.load('x')\n",
    "yaml": "import yaml\nyaml.load('x')\n",
    "eval": "eval('1')\n",
    "exec": "exec('1')\n",
    "hydra": "from hydra.utils import instantiate\ninstantiate({})\n",
    "shell": "import subprocess\nsubprocess.run('x', shell=True)\n",
    "system": "import os\nos.system('x')\n",
}
RULES = ("S1", "S3", "S5", "S6", "TID251")


def findings(code, name="mechxai/core/example.py"):
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename", name, "-"]
    done = subprocess.run(command, input=code, text=True, capture_output=True, cwd=ROOT, check=False)
    return [line for line in done.stdout.splitlines() if any(f" {rule}" in line for rule in RULES)] or [
        line for line in done.stdout.splitlines() if "is banned" in line or "suspicious" in line
    ]


@pytest.mark.parametrize("kind", UNSAFE)
def test_the_linter_refuses(kind):
    assert findings(UNSAFE[kind]), kind


def test_the_linter_lets_safe_readers_pass():
    assert not findings("import json\nimport yaml\n\njson.loads('1')\nyaml.safe_load('1')\n")
