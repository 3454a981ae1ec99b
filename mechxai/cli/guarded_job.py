"""Runs a job so that its error stops no other: it is written down, and told by whoever watches the sweep."""

import sys
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from mechxai.cli import console
from mechxai.core.errors import ConfigError, MechXAIError
from mechxai.core.files import disk_error
from mechxai.sweeps.job import job
from mechxai.sweeps.record import INTERRUPTED, JobRecord
from mechxai.sweeps.watch import look_now


def guarded(config: DictConfig) -> None:
    """One job, alone or of a sweep; a launcher may call it in another process or on another machine.

    Alone, an error is shown and ends the process with 1. In a sweep it goes into the job's record.
    """
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        _alone(config)
        return
    folder = Path(hydra_config.runtime.output_dir)
    record = JobRecord(int(hydra_config.job.num), tuple(hydra_config.overrides.task))
    console.show(f"job {record.number}: {' '.join(record.overrides)}")
    _save(record, folder)
    try:
        record = record.finished({label: str(path.resolve()) for label, path in job(config, console.show).items()})
    except KeyboardInterrupt:
        record = record.failed(INTERRUPTED)
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the other jobs go on
        known = _ours(error)
        told = known or disk_error(error) or error
        record = record.failed(f"{type(told).__name__}: {told}", "" if known else traceback.format_exc())
    finally:
        _save(record, folder)
        look_now()


def _save(record: JobRecord, folder: Path) -> None:
    """Keeps the record; a full disk must not stop the jobs that follow."""
    try:
        record.save(folder)
    except OSError as error:
        Console(stderr=True).print(f"job {record.number}: its record could not be kept: {error}", markup=False)


def _alone(config: DictConfig) -> None:
    try:
        job(config, console.show)
    except Exception as raised:
        error = _ours(raised) or disk_error(raised)
        if error is None:
            raise
        console.show_error(error)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _ours(raised: Exception) -> MechXAIError | None:
    """The error as it was meant for the user, which hydra wraps where it makes things."""
    error = raised.__cause__ if isinstance(raised, InstantiationException) else raised
    return error if isinstance(error, MechXAIError) else None
