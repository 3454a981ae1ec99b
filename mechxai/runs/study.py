"""A study: the methods of one job, with their model, their prompts and where their results go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechxai.core.method import Method
from mechxai.core.prompts import Prompts
from mechxai.core.result import Result
from mechxai.core.secrets import masked
from mechxai.engine.execution import Engine, Execution
from mechxai.runs.applicability import prompts_for
from mechxai.runs.folder import AnyModel, RunFolder, method_words, run_folder, run_id


@dataclass(frozen=True)
class Study:
    """Several methods on one model and one task, in order.

    Attributes:
        name: of the experiment.
        model: of all methods.
        batch: the task's prompts.
        methods: label -> method; the first is the headline.
        root: folder below which run folders are made.
        seed: of the run; the task has its own.
        engine: passed to `Execution`, as is ``tokens_per_wave``.
        force: compute finished runs again.
        shard: ``(i, n)``: compute a share of the waves and write no results; see `Execution`.
        png: write PNG beside HTML figures, where Chromium is installed.
        config: file name -> YAML, written beside the result.
        masks: text -> what stands for it in manifests, as values of the environment are not written down.
        sweep: name of the sweep it is part of, for trackers; empty for a single job.
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
    masks: Mapping[str, str] = field(default_factory=dict)
    sweep: str = ""

    def prompts(self, label: str) -> Prompts:
        """The prompts of one of the methods."""
        return prompts_for(label, self.methods[label], self.batch)

    def run_folder(self, label: str) -> RunFolder:
        """The run folder of one of the methods."""
        run = run_id(self.model, self.prompts(label), self.methods[label], seed=self.seed)
        words = masked(method_words(self.methods[label]), self.masks)
        return run_folder(self.root / self.name, masked(self.model.name, self.masks), words, run=run)

    def facts(self, label: str) -> dict[str, object]:
        """What a manifest says of one of the methods before it has run."""
        prompts, method = self.prompts(label), self.methods[label]
        facts = {
            "run": run_id(self.model, prompts, method, seed=self.seed),
            "experiment": self.name,
            "method": method.settings(),
            "model": self.model.info(),
            "task": dict(prompts.info) or {"name": "given", "n": len(prompts)},
            "seed": self.seed,
        }
        return masked(facts, self.masks)

    def execution(self, folder: RunFolder, *, progress: bool = True) -> Execution:
        """How a method runs whose results go into a folder."""
        return Execution(
            self.engine,
            tokens_per_wave=self.tokens_per_wave,
            cells=folder.cells,
            shard=self.shard,
            progress=progress,
        )


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: of the run.
        result: of the method.
        reused: whether it was finished before.
    """

    folder: Path
    result: Result
    reused: bool
