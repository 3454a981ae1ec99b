"""A GPU for each job of a sweep, where a launcher runs several jobs at once and there are several GPUs."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mechxai.runs.locks import folder_lock

_SERIAL_LAUNCHER = "BasicLauncher"


@contextmanager
def reserved_device(config: DictConfig, number: int | None) -> Iterator[DictConfig]:
    """The configuration with ``model.device=auto`` replaced by a GPU that no other job holds until this one ends.

    Args:
        config: of the job.
        number: of the job among those that may run beside it; None where no other runs.

    Yields:
        The configuration, unchanged where the device is named or there are fewer than two GPUs. Where all are held,
        jobs take turns by their numbers.
    """
    gpus = visible_gpus() if number is not None and config.model.get("device") == "auto" else []
    if number is None or len(gpus) < 2:
        yield config
        return
    first = number % len(gpus)
    order = [*range(first, len(gpus)), *range(first)]
    index, lock = _free_gpu(order, gpus, Path(config.output))
    settled = config.copy()
    settled.model.device = f"cuda:{first if index is None else index}"
    try:
        yield settled
    finally:
        if lock is not None:
            lock.release()


def concurrent_job_number() -> int | None:
    """The number of the job that hydra runs, where its launcher may run others at the same time."""
    hydra_config = HydraConfig.get()
    serial = str(hydra_config.launcher.get("_target_")).endswith(_SERIAL_LAUNCHER)
    return None if serial or hydra_config.mode != RunMode.MULTIRUN else int(hydra_config.job.num)


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, by the machine's names for them."""
    import torch  # noqa: PLC0415 - heavy

    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return names if len(names) == count and all(names) else [str(index) for index in range(count)]


def _free_gpu(order: list[int], gpus: list[str], root: Path) -> tuple[int | None, FileLock | None]:
    for index in order:
        lock = folder_lock(Path(platform.node()) / f"gpu{gpus[index]}", root)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return index, lock
    return None, None
