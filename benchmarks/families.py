"""The grid of model families on both TransformerLens lines, and its page: ``python -m benchmarks.families [NAME ...]``.

Every family runs in a process of its own with a time limit. Named families replace their rows and leave the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.families_page import page
from benchmarks.machine import ROOT, results
from tests.families.checkpoints import FAMILIES

LINES = {"3.9": ROOT / ".venv/bin/python", "4.3": ROOT / ".venv-tl4/bin/python"}
RESULTS = results("families.json", quick=False)
PAGE = ROOT / "docs/families.md"
TIME_LIMIT = 600  # seconds per family
SWEEPS = ("patching of resid_pre", "patching of z")
_QUIET = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main() -> int:
    """Runs the grid and writes the page; the exit status is 1 if a number is wrong or a check ends in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="families to run; all without a name")
    parser.add_argument("--line", choices=LINES, action="append", help="only on this TransformerLens")
    parser.add_argument("--jobs", type=int, default=1, help="families at the same time")
    parser.add_argument("--page-only", action="store_true", help="write the page from the results of earlier runs")
    settings = parser.parse_args()
    report = read_results()
    unknown = sorted(set(settings.names) - set(FAMILIES))
    if unknown:
        parser.error(f"unknown family {unknown[0]!r}; the families are {', '.join(FAMILIES)}")
    lines = [] if settings.page_only else settings.line or list(LINES)
    runs = [(line, name) for name in settings.names or FAMILIES for line in lines]
    with ThreadPoolExecutor(settings.jobs) as pool:
        for (line, name), outcomes in zip(runs, pool.map(_run, runs), strict=True):
            row = summary(outcomes)
            report.setdefault(line, {})[name] = row
            print(f"{line} {name:24} {'FAULT' if is_faulty(row) else 'ok':5} {row}", flush=True)
            _write_results(report)
    PAGE.write_text(page(report), encoding="utf-8")
    faulty = [name for rows in report.values() for name, row in rows.items() if is_faulty(row)]
    print(f"written to {PAGE}; {len(faulty)} rows with a wrong number or a traceback", file=sys.stderr)
    return int(bool(faulty))


def _run(line_and_name: tuple[str, str]) -> list[dict[str, Any]]:
    line, name = line_and_name
    return run_family(name, LINES[line])


def run_family(name: str, python: Path) -> list[dict[str, Any]]:
    """The outcomes of a family under an interpreter; a crash or a hang is a traceback of its load."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "outcomes.json"
        command = [str(python), "-m", "tests.families.grid", name, "--json", str(target)]
        environment = {**os.environ, **_QUIET, "PYTHONPATH": str(ROOT)}
        try:
            ended = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return [{"check": "load", "state": "traceback", "detail": f"no end in {TIME_LIMIT} s", "numbers": {}}]
        if target.is_file():
            return json.loads(target.read_text(encoding="utf-8"))[name]
    last = ended.stderr.strip().splitlines()[-1:] or ["no output"]
    return [{"check": "load", "state": "traceback", "detail": last[0][:200], "numbers": {}}]


def summary(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page shows of a family: how it loaded, the levels of sweeps, and every check that is not right."""
    by_check = {outcome["check"]: outcome for outcome in outcomes}
    row: dict[str, Any] = {}
    if by_check["load"]["state"] == "right":
        row["loaded"] = by_check["load"]["detail"]
    levels = [by_check[check]["numbers"].get("level") for check in SWEEPS if check in by_check]
    if any(level is not None for level in levels):
        row["levels"] = [level for level in levels if level is not None]
    odd = {check: [o["state"], o["detail"]] for check, o in by_check.items() if o["state"] != "right"}
    return {**row, "not right": odd} if odd else row


def is_faulty(row: Mapping[str, Any]) -> bool:
    return any(state in ("wrong", "traceback") for state, _ in row.get("not right", {}).values())


def read_results() -> dict[str, dict[str, dict[str, Any]]]:
    """Line -> family -> summary, of the runs so far."""
    if not RESULTS.is_file():
        return {}
    report = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {line: {name: row for name, row in rows.items() if name in FAMILIES} for line, rows in report.items()}


def _write_results(report: Mapping[str, Mapping[str, Any]]) -> None:
    ordered = {line: {name: rows[name] for name in FAMILIES if name in rows} for line, rows in report.items()}
    RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
