"""One run: a model, a task, a method; its result, figures, report and manifest in one folder; resumed when interrupted.

A run's folder is named by what decides its numbers, so the same question always finds the same folder.
"""

import contextlib
import json
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mechxai.core.errors import ArtifactError, ConfigError, MechXAIError, SiteError, UnfinishedError
from mechxai.core.files import write_whole
from mechxai.core.method import Method
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.prompts import Prompts
from mechxai.core.result import Result
from mechxai.engine.execution import Execution
from mechxai.engine.explain import explain_plan
from mechxai.engine.plan import Planned
from mechxai.figures.attention_view import is_patterns, save_attention
from mechxai.figures.export import png_available, save_html, save_png
from mechxai.figures.plot import plot
from mechxai.figures.tokens import is_attribution, token_text
from mechxai.model.hooked_model import HookedModel
from mechxai.report.account import circuit_account
from mechxai.report.chains import EXAMPLES
from mechxai.report.page import report
from mechxai.report.tables import own_tables
from mechxai.run_folder import AnyModel, check_model, is_finished, prompts_for, run_folder, run_id
from mechxai.tracking.tracker import SafeTracker, Tracker

_COLORED = 3  # prompts whose tokens are shown in colour
_VIEWED = 4  # prompts whose attention gets a page
Say = Callable[[object], None]


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
    """

    name: str
    model: AnyModel
    batch: Prompts
    methods: Mapping[str, Method]
    root: Path = Path("outputs")
    seed: int = 0
    engine: str = "auto"
    tokens_per_wave: int | None = None
    force: bool = False
    shard: tuple[int, int] | None = None
    png: bool = True
    config: Mapping[str, str] = field(default_factory=dict)

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


def run_study(
    study: Study, tracker: Tracker, say: Say, *, settings: Mapping[str, object] | None = None
) -> dict[str, Finished]:
    """Runs every method of a study (or finds it finished), logs to the tracker, and writes the joint report.

    Args:
        study: what to run.
        tracker: told of config, numbers, figures and files; its failures cost nothing but themselves.
        say: shows a line or a table to the user.
        settings: the whole configuration, for the tracker.

    Returns:
        label -> finished run. The report over all of them lies in the first one's folder.
    """
    study = _applicable(study, say)
    if study.shard is not None:
        _run_shard(study, say)
        return {}
    folders = {label: study.folder(label) for label in study.methods}
    first = next(iter(folders.values()))
    if not study.force and all(is_finished(folder) for folder in folders.values()):
        say(f"already finished, nothing computed (force=true computes again): {first}")
        say(f"report: {first / 'report.html'}")
        return {
            label: Finished(folder, Result.load(folder / "result.nc"), found=True) for label, folder in folders.items()
        }
    safe = SafeTracker(tracker)
    safe.start(
        name=f"{study.name}-{first.name}",
        config=settings or {},
        group=study.name,
        job_type=study.model.name,
        run_id=first.name[-10:],
    )
    failed = True
    try:
        done = {
            label: _run_method(study, label, folder=folders[label], tracker=safe, say=say) for label in study.methods
        }
        _write_report(study, done, folder=first, say=say)
        failed = False
    finally:
        safe.close(failed=failed)
    where = safe.where()
    if where:
        say(where)
    for problem in safe.problems:
        say(f"tracking: {problem}")
    return done


def _run_shard(study: Study, say: Say) -> None:
    """Computes a share of the waves of every method; results are written by a later run without a shard."""
    for label, method in study.methods.items():
        folder = study.folder(label)
        if is_finished(folder):
            say(f"{label}: already finished: {folder}")
            continue
        execution = study.execution(folder, progress=False)
        _seed(study.seed)
        try:
            method(study.model, study.prompts(label), execution=execution)
            say(f"{label}: every wave is there")
        except UnfinishedError as error:
            say(f"{label}: {error}")


def explain_study(study: Study, say: Say) -> None:
    """Shows what every method of a study would do and cost; no prompt is run."""
    execution = Execution(study.engine, tokens_per_wave=study.tokens_per_wave)
    for label, method in _applicable(study, say).methods.items():
        prompts = study.prompts(label)
        if (
            isinstance(method, Planned)
            and isinstance(study.model, HookedModel)
            and not isinstance(prompts, ProbeDataset)
        ):
            found = explain_plan(method, study.model, prompts, execution=execution)
            say(
                {"title": f"{label}: {found.what}", "rows": [{"": name, "plan": value} for name, value in found.rows()]}
            )
        else:
            say(f"{label}: {method.card.cost}")


def _applicable(study: Study, say: Say) -> Study:
    """The study without the companions that do not go with this model or task; the headline method must."""
    first, *others = study.methods
    study.prompts(first)
    check_model(first, study.methods[first], study.model)
    kept = {first: study.methods[first]}
    for label in others:
        site = study.methods[label].settings().get("site")
        try:
            study.prompts(label)
            check_model(label, study.methods[label], study.model)
            if isinstance(site, str) and isinstance(study.model, HookedModel):
                study.model.wanted([site], layers=[0])
            kept[label] = study.methods[label]
        except (SiteError, ConfigError) as error:
            say(f"{label}: left out. {error}")
    return replace(study, methods=kept)


def _run_method(study: Study, label: str, *, folder: Path, tracker: SafeTracker, say: Say) -> Finished:
    method = study.methods[label]
    if is_finished(folder) and not study.force:
        say(f"{label}: already finished: {folder}")
        result = Result.load(folder / "result.nc")
        _track(tracker, label, result, folder=folder)
        return Finished(folder, result, found=True)
    folder.mkdir(parents=True, exist_ok=True)
    if study.force:
        shutil.rmtree(folder / "cells", ignore_errors=True)
        (folder / "manifest.json").unlink(missing_ok=True)
    execution = replace(study.execution(folder), log=tracker.metrics)
    prompts = study.prompts(label)
    if isinstance(method, Planned) and isinstance(study.model, HookedModel) and not isinstance(prompts, ProbeDataset):
        say(f"{label}: {method.plan(study.model, prompts, execution=execution)}")
    _seed(study.seed)
    started = time.time()
    result = method(study.model, prompts, execution=execution)
    result.save(folder / "result.nc")
    _write_figures(result, folder, png=study.png)
    for name, text in study.config.items():
        write_whole(folder / ".hydra" / name, text)
    if len(study.methods) == 1:
        tables = own_tables(result, study.model.card)
        report([result], folder / "report.html", title=result.info.title, tables=tables)
    _write_manifest(study, label, result, folder=folder, started=started)
    shutil.rmtree(folder / "cells", ignore_errors=True)
    cost = result.info.cost
    reused = f", {cost['cells_reused']:,.0f} of {cost['cells']:,.0f} cells reused" if cost.get("cells_reused") else ""
    say(f"{label}: done in {time.time() - started:.1f} s{reused}: {folder}")
    for note in result.info.notes:
        say(f"{label}, note: {note}")
    _track(tracker, label, result, folder=folder)
    return Finished(folder, result, found=False)


def _write_figures(result: Result, folder: Path, *, png: bool) -> None:
    figure = plot(result)
    site = result.info.method.get("site")
    target = folder / "figures" / (site if isinstance(site, str) else str(result.info.method["name"]))
    save_html(figure, target.with_suffix(".html"))
    for prompt in range(min(_VIEWED, result.data.sizes["prompt"])) if is_patterns(result) else ():
        save_attention(result, folder / "figures" / f"attention-{prompt}.html", prompt)
    if png and png_available():
        with contextlib.suppress(ArtifactError, OSError):
            save_png(figure, target.with_suffix(".png"))


def _write_report(study: Study, done: Mapping[str, Finished], *, folder: Path, say: Say) -> None:
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    for label, finished in done.items():
        if is_attribution(finished.result):
            say(f"{label}, token by token (blue: towards the answer, red: against):")
            for prompt in range(min(_COLORED, finished.result.data.sizes["prompt"])):
                say(token_text(finished.result, prompt))
        for title, rows in own_tables(finished.result, study.model.card).items():
            tables[title] = rows
            if len(done) == 1 or not title.endswith(EXAMPLES):  # of several methods they would bury the numbers
                say({"title": title, "rows": rows})
    if len(done) > 1:
        for sentence in circuit_account(finished.result for finished in done.values()):
            say(sentence)
        path = report(
            {label: finished.result for label, finished in done.items()},
            folder / "report.html",
            title=f"{study.name} on {study.model.name}",
            tables=tables,
        )
        say(f"report: {path}")


def _write_manifest(study: Study, label: str, result: Result, *, folder: Path, started: float) -> None:
    files = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "cells" not in path.parts
    )
    content = {
        "run": run_id(study.model, study.prompts(label), study.methods[label], seed=study.seed),
        "experiment": study.name,
        "status": "finished",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": files,
        **result.info.as_dict(),
    }
    write_whole(folder / "manifest.json", json.dumps(content, indent=2, default=str) + "\n")


def _track(tracker: SafeTracker, label: str, result: Result, *, folder: Path) -> None:
    numbers = {f"{label}/{key}": float(value) for key, value in result.info.cost.items()}
    for name in ("recovered", "effect"):
        if name in result.data:
            numbers[f"{label}/max_{name}"] = float(np.nanmax(np.abs(result.data[name].values)))
    for name in ("baseline_clean", "baseline_corrupted", "noise_floor"):
        if name in result.data:
            numbers[f"{label}/{name}"] = float(result.data[name].mean())
    tracker.metrics(numbers)
    tracker.summary({**numbers, f"{label}/folder": str(folder)})
    with contextlib.suppress(MechXAIError):
        tracker.figure(label, plot(result))
    tracker.artifact(folder / "result.nc", name=folder.name, kind="result")


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries below may read the old global state
    torch.manual_seed(seed)
