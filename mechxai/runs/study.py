"""A job: which methods are put to which model about which prompts, and where the results lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechxai.core.method import Method
from mechxai.core.prompts import Prompts
from mechxai.core.result import Result
from mechxai.engine.execution import Engine, Execution
from mechxai.runs.folder import AnyModel, prompts_for, run_folder


@dataclass(frozen=True)
class Study:
    """One job: methods put to one model and one task, in order.

    Attributes:
        name: of the experiment.
        methods: label -> method; the first is the job's headline.
        root: folder under which run folders are made.
        seed: of the run; the task has its own.
        engine: passed to `Execution`, as is ``tokens_per_wave``.
        force: compute again what is finished.
        shard: ``(i, n)``: this process computes a share of the waves and writes no results; see `Execution`.
        png: write PNG beside HTML figures, where Chromium is there.
        config: what was asked, as YAML, kept beside the result.
        sweep: the name of the sweep it is part of, for trackers; empty for a job alone.
    """

    name: str
    model: AnyModel
    batch: Prompts
    methods: Mapping[str, Method]
    root: Path = Path("outputs")
    seed: int = 0
    engine: Engine = "auto"
    tokens_per_wave: int | None = None
    force: bool = False
    shard: tuple[int, int] | None = None
    png: bool = True
    config: Mapping[str, str] = field(default_factory=dict)
    sweep: str = ""

    def prompts(self, label: str) -> Prompts:
        """What one of the methods is asked about."""
        return prompts_for(label, self.methods[label], self.batch)

    def folder(self, label: str) -> Path:
        """Where the results of one of the methods lie."""
        method = self.methods[label]
        return run_folder(self.root / self.name, self.model, self.prompts(label), method, seed=self.seed)

    def execution(self, folder: Path, *, progress: bool = True) -> Execution:
        """How a method is run whose results go into a folder."""
        cells = folder / "cells"
        return Execution(
            self.engine, tokens_per_wave=self.tokens_per_wave, cells=cells, shard=self.shard, progress=progress
        )


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, its result, and whether it was there before."""

    folder: Path
    result: Result
    found: bool
