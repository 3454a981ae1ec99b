"""Runs one job so that its error stops no other job of a sweep."""

import errno
import sys
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mechxai.cli.console import FAILED, REFUSED, error_stream, show, show_error
from mechxai.core.errors import ConfigError, MechXAIError, SiteError
from mechxai.core.files import disk_error
from mechxai.sweeps.job import run_job
from mechxai.sweeps.record import INTERRUPTED, JobRecord
from mechxai.sweeps.watch import report_now

_UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ)


def guarded_job(config: DictConfig) -> None:
    """Runs a job, alone or of a sweep; a launcher may call it in another process or on another machine.

    Alone, an error is shown and ends the process. In a sweep it goes into the job's record.
    """
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        _run_alone(config)
        return
    folder = Path(hydra_config.runtime.output_dir)
    record = JobRecord(int(hydra_config.job.num), tuple(hydra_config.overrides.task))
    show(f"job {record.number}: {' '.join(record.overrides)}")
    _save(record, folder)
    try:
        record = record.finished({label: str(path.resolve()) for label, path in run_job(config, show).items()})
    except KeyboardInterrupt:
        record = record.failed(INTERRUPTED)
        raise
    except Exception as raised:  # noqa: BLE001 - whatever it is, the other jobs go on
        known = _purposeful(raised)
        error = known or disk_error(raised) or raised
        record = record.failed(f"{type(error).__name__}: {error}", "" if known else traceback.format_exc())
    finally:
        _save(record, folder)
        report_now()


def _save(record: JobRecord, folder: Path) -> None:
    """Saves the record; a full disk must not stop the jobs that follow."""
    try:
        record.save(folder)
    except OSError as error:
        error_stream().print(f"job {record.number}: its record could not be saved: {error}", markup=False)


def _run_alone(config: DictConfig) -> None:
    try:
        run_job(config, show)
    except Exception as raised:
        error = _purposeful(raised) or disk_error(raised)
        if error is None:
            raise
        show_error(error)
        sys.exit(REFUSED if isinstance(error, (ConfigError, SiteError)) else FAILED)


def _purposeful(raised: Exception) -> MechXAIError | None:
    """An error that MechXAI raised on purpose, or that a name caused which no file or folder can have."""
    if isinstance(raised, OSError) and raised.errno in _UNUSABLE_NAME:
        return ConfigError(f"{str(raised.filename)[:80]!r} cannot be the name of a file or folder: {raised.strerror}")
    return raised if isinstance(raised, MechXAIError) else None
