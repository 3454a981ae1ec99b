"""The settings of a run beside its model, task, method and tracker: the plain keys of ``configs/run.yaml``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mechxai.core.errors import ConfigError
from mechxai.core.fields import settle_fields
from mechxai.engine.execution import Engine


@dataclass(frozen=True)
class RunSettings:
    """The plain settings of a run.

    Attributes:
        name: of the experiment; also a folder under ``output``.
        seed: of the run and, unless ``task.seed`` is set, of the task.
        output: the folder in which run folders are made.
        engine: how sweeps run: ``hooked`` is one pass per cell, the reference.
        plan: show what would run and what it would cost, and stop.
        tokens_per_wave: tokens that run together; null chooses by device.
        shard: ``i/n`` computes every n-th wave only and writes no result; a later run without it merges.
        processes: how many processes on this machine share the waves, one GPU each.
        force: compute finished runs again.
        plugins: modules with methods of your own; from the command line only.
        show_environment: record the values of ``${oc.env:NAME}`` in files, folder names and trackers, not the names.
    """

    name: str = "run"
    seed: int = 0
    output: str = "outputs"
    engine: Engine = "auto"
    plan: bool = False
    tokens_per_wave: int | None = None
    shard: str | None = None
    processes: int = 1
    force: bool = False
    plugins: Sequence[str] = ()
    show_environment: bool = False

    def __post_init__(self) -> None:
        settle_fields(self)
        if self.processes < 1:
            raise ConfigError(f"processes={self.processes} is too small: one process at least")
        self.shard_numbers()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RunSettings":
        """The settings that a composed configuration holds."""
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})

    def shard_numbers(self) -> tuple[int, int] | None:
        """The shard as numbers, ``0/4`` as ``(0, 4)``.

        Raises:
            ConfigError: it is not of that form.
        """
        if self.shard is None:
            return None
        index, slash, count = self.shard.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ConfigError(f"shard={self.shard!r} is not i/n with i from 0 to n - 1", fix="Write shard=0/4")
        return int(index), int(count)
