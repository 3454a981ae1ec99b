"""A GPU of its own for each job of a sweep, where a launcher runs several at once and there are several."""

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

_ONE_BY_ONE = "BasicLauncher"  # its jobs never meet


@contextmanager
def reserved_device(config: DictConfig, number: int | None) -> Iterator[DictConfig]:
    """The configuration with ``model.device=auto`` as a GPU that no other job holds; held until the job ends.

    Args:
        config: of the job.
        number: of the job among those that may run beside it; None where none does.

    Yields:
        The configuration; as it was where the device is named, or there are not several. Where all are held, jobs
        take turns by their numbers.
    """
    known = visible() if number is not None and config.model.get("device") == "auto" else []
    if number is None or len(known) < 2:
        yield config
        return
    first = number % len(known)
    order = [*range(first, len(known)), *range(first)]
    index, lock = _free(order, known, Path(config.output))
    own = config.copy()
    own.model.device = f"cuda:{first if index is None else index}"
    try:
        yield own
    finally:
        if lock is not None:
            lock.release()


def number_beside_others() -> int | None:
    """The number of the job that hydra runs, where its launcher may run others at the same time."""
    hydra_config = HydraConfig.get()
    alone = str(hydra_config.launcher.get("_target_")).endswith(_ONE_BY_ONE)
    return None if alone or hydra_config.mode != RunMode.MULTIRUN else int(hydra_config.job.num)


def visible() -> list[str]:
    """The GPUs that this process may see, by the names that the machine has for them."""
    import torch  # noqa: PLC0415 - heavy

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named if len(named) == count and all(named) else [str(index) for index in range(count)]


def _free(order: list[int], known: list[str], root: Path) -> tuple[int | None, FileLock | None]:
    for index in order:
        lock = folder_lock(Path(platform.node()) / f"gpu{known[index]}", root)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return index, lock
    return None, None
