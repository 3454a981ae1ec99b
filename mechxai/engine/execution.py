"""How to run, as opposed to what: nothing here changes a value beyond rounding."""

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
        engine: ``auto`` takes the highest level that fits and passes its self-check. A name forces one: ``hooked``
            (level 0, one full pass per cell, the oracle), ``wave`` (1, rows join at their layer), ``suffix`` (2, they
            run their last positions only), ``packed`` (3, with weights laid out once), ``fused`` (4, in plain blocks).
        budget_bytes: memory for activations; 60 % of what is free by default.
        tokens_per_wave: positions that travel together, over all rows; by device by default.
        cells: folder in which finished waves are kept so that an interrupted sweep resumes; none by default.
        shard: ``(i, n)``: compute every n-th wave, beginning with the i-th, into ``cells``, and leave the others to
            processes like this one. Whoever runs without a shard afterwards finds them all.
        progress: show a bar with an estimate of the time left once a sweep has taken two seconds.
        log: told of numbers on the way (the losses of a training); a tracker's, in runs.
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
                raise ConfigError(f"{name}={value} was asked", allowed="1 or more")
        if self.shard is not None:
            index, count = self.shard
            if not 0 <= index < count:
                raise ConfigError(f"shard={index}/{count} was asked", allowed=f"0/{count} to {count - 1}/{count}")
            if self.cells is None:
                raise ConfigError(
                    f"shard={index}/{count} was asked", got="no cells folder", fix="give cells=, shared by all"
                )

    def takes(self, number: int) -> bool:
        """Whether this process computes a wave of this number."""
        return self.shard is None or number % self.shard[1] == self.shard[0]
