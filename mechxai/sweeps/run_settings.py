"""The settings of a run beside its model, task, method and tracker: the plain keys of ``configs/run.yaml``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mechxai.core.errors import ConfigError
from mechxai.core.fields import settle_fields
from mechxai.engine.execution import Engine
from mechxai.sweeps.folder_names import check_folder, check_name

MAX_SEED = 2**32 - 1
_MAX_PROCESSES = 1024


@dataclass(frozen=True)
class FigureSettings:
    """The settings of figures.

    Attributes:
        png: a PNG beside the HTML, where Chromium is installed.
    """

    png: bool = True


@dataclass(frozen=True)
class MetricSettings:
    """The metric that the group ``metric`` chooses.

    Attributes:
        name: of the metric.
    """

    name: str = "logit_diff"


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
        check_name("name", self.name)
        check_folder("output", self.output)
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed={self.seed} is out of range", allowed=f"0 to {MAX_SEED}")
        if self.tokens_per_wave is not None and self.tokens_per_wave < 1:
            raise ConfigError(f"tokens_per_wave={self.tokens_per_wave} is too small: one token at least")
        if self.processes < 1:
            raise ConfigError(f"processes={self.processes} is too small: one process at least")
        if self.processes > _MAX_PROCESSES:
            raise ConfigError(f"processes={self.processes} is too many", allowed=f"1 to {_MAX_PROCESSES}")
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
