"""The linter refuses calls that would run code from a file, so that none of them comes into the package unseen."""

import json
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
    """The codes of the findings that are about running code."""
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "json", "--stdin-filename", name, "-"]
    done = subprocess.run(command, input=code, text=True, capture_output=True, cwd=ROOT, check=False)
    return [finding["code"] for finding in json.loads(done.stdout) if str(finding["code"]).startswith(RULES)]


@pytest.mark.parametrize("kind", UNSAFE)
def test_the_linter_refuses(kind):
    assert findings(UNSAFE[kind]), kind


def test_the_linter_lets_safe_readers_pass():
    assert not findings("import json\nimport yaml\n\njson.loads('1')\nyaml.safe_load('1')\n")
