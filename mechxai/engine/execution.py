"""How to run a sweep: engine level, memory, checkpoints and progress. No setting changes a value beyond rounding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mechxai.core.errors import ConfigError
from mechxai.core.fields import settle_fields

Engine = Literal["auto", "hooked", "wave", "suffix", "packed", "fused"]
HOOKED, WAVE, SUFFIX, PACKED, FUSED = range(5)
LEVEL_NAMES = get_args(Engine)[1:]
Log = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class Execution:
    """How a method runs its sweeps.

    Attributes:
        engine: ``auto`` takes the highest level that fits and passes its self-check. A name forces a level: ``hooked``
            (0, one full pass per cell, the reference), ``wave`` (1, rows join at their layer), ``suffix`` (2, rows run
            their last positions only), ``packed`` (3, with weights laid out once), ``fused`` (4, in plain blocks).
        budget_bytes: memory for activations; 60 % of the free memory by default.
        tokens_per_wave: maximum number of positions per wave, over all rows; depends on the device by default.
        cells: folder for finished parts (waves, prompts, layers, steps), from which an interrupted method resumes;
            none by default.
        shard: ``(i, n)``: compute every n-th wave, starting with the i-th, into ``cells``; other processes compute the
            others. A later run without shard loads them all.
        progress: show a bar with the estimated time left once a sweep has taken two seconds.
        log: called with numbers as they come (the losses of a training); a run passes its tracker.
    """

    engine: Engine = "auto"
    budget_bytes: int | None = None
    tokens_per_wave: int | None = None
    cells: Path | None = None
    shard: tuple[int, int] | None = None
    progress: bool = False
    log: Log | None = None

    def __post_init__(self) -> None:
        settle_fields(self)
        for name in ("budget_bytes", "tokens_per_wave"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: it must be at least 1")
        if self.shard is not None:
            index, count = self.shard
            if not 0 <= index < count:
                raise ConfigError(f"Shard {index}/{count} does not exist", allowed=f"0/{count} to {count - 1}/{count}")
            if self.cells is None:
                raise ConfigError(
                    f"Shard {index}/{count} has no cells folder to save its waves in",
                    fix="Pass cells=, the same folder for all shards",
                )

    def takes(self, number: int) -> bool:
        """Whether this process computes the wave with this number."""
        return self.shard is None or number % self.shard[1] == self.shard[0]
