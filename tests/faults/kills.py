"""Random kills: a run that is killed at any moment is finished by the same command, with the same result."""

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.jobs import Job, difference, finish, run_folder, start


@dataclass(frozen=True)
class KilledRun:
    """One job, killed and run again until its end.

    Attributes:
        job: the job.
        kills: how often it was killed.
        with_finished_parts: kills after which finished parts lay in the folder.
        failure: what was wrong in the end, or None.
    """

    job: Job
    kills: int
    with_finished_parts: int
    failure: str | None


def reference(job: Job, folder: Path) -> tuple[Path, float]:
    """The run folder of an uninterrupted run, and its seconds.

    Raises:
        RuntimeError: the run fails.
    """
    folder.mkdir(parents=True)
    started = time.monotonic()
    failure = finish(job, folder)
    finished = run_folder(folder)
    if failure or finished is None:
        raise RuntimeError(f"{job.name} fails uninterrupted: {failure}")
    return finished, time.monotonic() - started


def run_killed(
    job: Job, folder: Path, *, expected: tuple[Path, float], kills: int, generator: random.Random
) -> KilledRun:
    """Kills a job at random moments, then lets it finish and compares its result.

    Args:
        job: the job.
        folder: where it runs.
        expected: the uninterrupted run and its seconds; moments are drawn from all of them but the first tenth.
        kills: how often to kill it.
        generator: of the moments.
    """
    folder.mkdir(parents=True)
    done, with_parts, failure = 0, 0, None
    while done < kills and failure is None:
        process = start(job, folder)
        time.sleep(generator.uniform(0.1, 1.0) * expected[1])
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            done += 1
            with_parts += any(folder.rglob("cells/**/*.*"))
        else:  # it was over: it is compared, and the next run begins anew
            output, _ = process.communicate()
            failure = output[-400:] if process.returncode else _compared(folder, expected[0])
            shutil.rmtree(folder / "outputs")
    failure = failure or finish(job, folder) or _compared(folder, expected[0])
    return KilledRun(job, done, with_parts, failure)


def _compared(folder: Path, reference: Path) -> str | None:
    finished = run_folder(folder)
    return "no run folder" if finished is None else difference(finished, reference)
