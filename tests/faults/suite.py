"""The fault suite: random kills, flipped bits, full disks and hostile inputs, counted.

``python -m tests.faults.suite`` runs all of it (``make test-faults``), prints the counts, and writes them to
``benchmarks/results/faults.json``, from which the reliability page of the documentation is made. Parts that are left
out keep their earlier counts there.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.flips import KINDS, OUTCOMES, flip
from tests.faults.full_disk import can_mount, run_full, used
from tests.faults.hostile import run_hostile
from tests.faults.jobs import JOBS, Job
from tests.faults.kills import KilledRun, reference, run_killed

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"
_DISK_JOBS = ("activation_patching", "acdc", "tuned_lens_train", "linear_probes", "early_answering")


@dataclass
class Part:
    """One part of the suite.

    Attributes:
        rows: for the table, in order.
        failures: a text for each failure.
    """

    rows: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    failures: list[str] = field(default_factory=list[str])


def kills(folder: Path, *, n: int, at_once: int) -> Part:
    """``n`` kills at random moments, spread over the jobs of all method families."""
    part = Part()
    n_each = [n // len(JOBS) + (number < n % len(JOBS)) for number in range(len(JOBS))]
    chosen = [(number, job) for number, job in enumerate(JOBS) if n_each[number]]

    def killed_job(case: tuple[int, Job]) -> KilledRun:
        number, job = case
        expected, moments = reference(job, folder / f"{number}-whole"), random.Random(number)
        return run_killed(job, folder / f"{number}-killed", expected=expected, kills=n_each[number], generator=moments)

    with ThreadPoolExecutor(at_once) as workers:
        for killed in workers.map(killed_job, chosen):
            row = {"family": killed.job.family, "method": killed.job.name, "kills": killed.kills}
            row |= {"with finished parts": killed.with_finished_parts, "right": killed.failure is None}
            part.rows.append(_shown("kills", row))
            if killed.failure:
                part.failures.append(f"{killed.job.name}: {killed.failure}")
    return part


def flips(folder: Path, *, n: int) -> Part:
    """``n`` flipped bits, spread over all kinds of files."""
    part = Part()
    for number, kind in enumerate(KINDS):
        n_each = n // len(KINDS) + (number < n % len(KINDS))
        counts, failures = flip(kind, folder / str(number), flips=n_each, generator=random.Random(number))
        part.rows.append(
            _shown("flips", {"file": kind.name, "flips": n_each, **{name: counts[name] for name in OUTCOMES}})
        )
        part.failures += failures
    return part


def full_disks(folder: Path, *, sizes: int) -> Part:
    """Jobs on disks of ``sizes`` sizes each, from nearly nothing to more than they need."""
    part = Part()
    if not can_mount(folder):
        part.rows.append(_shown("full disk", {"method": "none", "note": "this process may not mount file systems"}))
        return part
    for number, job in enumerate(job for job in JOBS if job.name in _DISK_JOBS):
        whole, _ = reference(job, folder / f"{number}-whole")
        needed, ended = used(folder / f"{number}-whole"), Counter[str]()
        for step in range(1, sizes + 1):
            size = max(8, round(needed * 2 * (step / sizes) ** 2))
            outcome = run_full(job, folder / f"{number}-{step}", size=size, reference=whole)
            ended[outcome.ended] += 1
            if outcome.failure:
                part.failures.append(f"{job.name} on {size} KiB: {outcome.failure}")
        part.rows.append(_shown("full disk", {"method": job.name, "sizes": sizes, **ended}))
    return part


def hostile(folder: Path) -> Part:
    """Every hostile input."""
    part = Part()
    for kind, outcomes in run_hostile(folder).items():
        bad = [f"{kind}, {name}: {failure}" for name, failure in outcomes.items() if failure]
        part.rows.append(
            _shown("hostile", {"kind": kind, "inputs": len(outcomes), "survived": len(outcomes) - len(bad)})
        )
        part.failures += bad
    return part


def _shown(part: str, row: dict[str, object]) -> dict[str, object]:
    print(part, *(f"{name}={value}" for name, value in row.items()), flush=True)
    return row


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--sizes", type=int, default=8, help="of disks, per method")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="runs side by side")
    parser.add_argument("--no-hostile", action="store_true")
    return parser.parse_args(arguments)


def _parts(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Part]]:
    if options.flips:
        yield "flips", flips(folder / "flips", n=options.flips)
    if not options.no_hostile:
        yield "hostile", hostile(folder / "hostile")
    if options.kills:
        yield "kills", kills(folder / "kills", n=options.kills, at_once=options.at_once)
    if options.sizes:
        yield "full_disk", full_disks(folder / "disk", sizes=options.sizes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite; 1 where anything failed."""
    options = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="faults") as name:
        parts = dict(_parts(options, Path(name)))
    failures = [f"{name}: {failure}" for name, part in parts.items() for failure in part.failures]
    facts = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    earlier = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    others = [text for text in earlier.get("failures", []) if text.partition(":")[0] not in parts]
    content = {**earlier, "facts": facts, **{name: part.rows for name, part in parts.items()}}
    content["failures"] = [*others, *failures]
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    for failure in failures:
        print("FAILED", failure)
    print(f"{len(failures)} failures; counts in {RESULTS.relative_to(Path.cwd())}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
