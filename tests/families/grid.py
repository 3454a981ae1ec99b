"""The grid: every check on a family. ``python -m tests.families.grid NAME ...`` prints a line per family.

With ``--json FILE`` the outcomes are written there, with ``--seed N`` other weights and prompts are drawn.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from tests.families import checks, readout_checks, sequence_checks
from tests.families.checkpoints import FAMILIES, write
from tests.families.outcomes import Check, Outcome, run_check
from tests.families.sequence_checks import SequenceSubject
from tests.families.subject import Subject

TOKEN_CHECKS = checks.CHECKS | readout_checks.CHECKS


def checks_of(name: str) -> dict[str, Check]:
    """The checks of a family by name; loading comes first."""
    task = FAMILIES[name].task
    if task in ("classifier", "encoder"):
        return sequence_checks.CHECKS
    if task == "causal":
        return TOKEN_CHECKS
    return {check: function for check, function in TOKEN_CHECKS.items() if check != "generation"}


def run_family(name: str, folder: Path, seed: int = 0, only: Sequence[str] = ()) -> list[Outcome]:
    """The outcomes of a family whose checkpoint is in ``folder``; a model that does not load has one outcome."""
    task = FAMILIES[name].task
    subject: Any = SequenceSubject(folder, task) if task in ("classifier", "encoder") else Subject(folder, seed + 1)
    outcomes: list[Outcome] = []
    for check, function in checks_of(name).items():
        if only and check not in ("load", *only):
            continue
        outcomes.append(run_check(check, function, subject))
        if check == "load" and outcomes[0].state != "right":
            break
    return outcomes


def describe(outcomes: Sequence[Outcome]) -> str:
    """One line: how it loaded, and what is not right."""
    odd = [str(outcome)[:160] for outcome in outcomes if outcome.state != "right"]
    faults = sum(outcome.failed for outcome in outcomes)
    levels = [f"L{int(o.numbers['level'])}" for o in outcomes if "level" in o.numbers]
    loaded = outcomes[0].detail if outcomes[0].state == "right" else ""
    return f"{loaded:28} {'FAULT' if faults else 'ok':5} {'/'.join(levels)} {' | '.join(odd)}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Run every check on model families.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], metavar="CHECK")
    settings = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report: dict[str, list[dict[str, Any]]] = {}
    n_faulty = 0
    for name in settings.names or FAMILIES:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = write(name, Path(folder) / name, settings.seed)
            outcomes = run_family(name, checkpoint, settings.seed, settings.only)
        n_faulty += any(outcome.failed for outcome in outcomes)
        report[name] = [outcome.as_dict() for outcome in outcomes]
        print(f"{name:24} {time.perf_counter() - start:4.0f} s  {describe(outcomes)}", flush=True)  # noqa: T201
        if settings.json:
            settings.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return int(bool(n_faulty))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
