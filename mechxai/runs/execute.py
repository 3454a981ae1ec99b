"""Runs the methods of a study: result, figures, report and manifest in one folder each, resumed when interrupted."""

import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ArtifactError, ConfigError, SiteError, UnfinishedError
from mechxai.core.files import remove_partial_files, set_aside
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.reporter import Reporter
from mechxai.core.result import Result
from mechxai.engine.execution import Execution
from mechxai.engine.explain_plan import explain_plan
from mechxai.engine.plan import Planned
from mechxai.figures.browser import shared_browser
from mechxai.figures.strongest import strongest
from mechxai.model.hooked_model import HookedModel
from mechxai.report.by_kind import result_tables
from mechxai.report.page import report
from mechxai.runs.applicability import check_model
from mechxai.runs.folder import RunFolder
from mechxai.runs.locks import exclusive_lock, shard_lock
from mechxai.runs.manifest import MANIFEST
from mechxai.runs.outputs import (
    finish_manifest,
    is_reported,
    start_folder,
    write_config,
    write_figures,
    write_report,
)
from mechxai.runs.study import FinishedRun, Study
from mechxai.runs.tracking import declare, track
from mechxai.tracking.tracker import NullTracker, SafeTracker, Tracker


def run_study(
    study: Study, tracker: Tracker, show: Reporter, *, settings: Mapping[str, object] | None = None
) -> dict[str, FinishedRun]:
    """Runs every method of a study or reuses its finished run, then writes the joint report.

    Args:
        study: the methods, their model and prompts.
        tracker: receives config, numbers, figures and files; its errors never stop the run.
        show: prints a line or a table for the user.
        settings: the whole configuration, for the tracker.

    Returns:
        label -> finished run. The report over all of them lies in the first one's folder.
    """
    study = _applicable(study, show)
    if study.shard is not None and any(method.in_waves for method in study.methods.values()):
        _run_shard(study, show)
        return {}
    if study.shard is not None and study.shard[0] > 0:
        show(f"{', '.join(study.methods)}: there are no waves to share; shard 0 computes all and writes the result")
        return {}
    study = replace(study, shard=None)
    folders = {label: study.run_folder(label) for label in study.methods}
    safe_tracker = SafeTracker(tracker)
    sound = all(folder.is_finished and not folder.damaged_files() for folder in folders.values())
    finished = sound and is_reported(list(folders.values()))
    if finished and not study.force and not safe_tracker.awaited():
        return _reuse(folders, show, tracked=not isinstance(tracker, NullTracker))
    first = next(iter(folders.values()))
    safe_tracker.start(
        name=f"{study.name}-{first.path.name}",
        config=settings or {},
        group=study.sweep or study.name,
        job_type=study.model.name,
        run_id=first.id,
    )
    failed = True
    try:
        declare(safe_tracker, study)
        with shared_browser():
            runs = {
                label: _run_method(study, label, folder=folders[label], tracker=safe_tracker, show=show)
                for label in study.methods
            }
        write_report(study, runs, folder=first, show=show)
        failed = False
    finally:
        safe_tracker.close(failed=failed)
    where = safe_tracker.where()
    if where:
        show(where)
    for problem in safe_tracker.problems:
        show(f"tracking: {problem}")
    return runs


def explain_study(study: Study, show: Reporter) -> None:
    """Shows what every method of a study would run and what it would cost; runs nothing."""
    execution = Execution(study.engine, tokens_per_wave=study.tokens_per_wave)
    for label, method in _applicable(study, show).methods.items():
        planned = _planned(study, label)
        if planned is not None:
            plan = explain_plan(planned[0], planned[1], planned[2], execution=execution)
            show({"title": f"{label}: {plan.title}", "rows": [{"": name, "plan": text} for name, text in plan.rows()]})
        else:
            show(f"{label}: {method.card.cost}")


def _reuse(folders: Mapping[str, RunFolder], show: Reporter, *, tracked: bool) -> dict[str, FinishedRun]:
    """The finished runs of a study, of which nothing is computed."""
    first = next(iter(folders.values()))
    untracked = " and nothing is sent to the tracker" if tracked else ""
    show(f"already finished, nothing computed{untracked} (force=true computes again): {first.path}")
    show(f"report: {first.report}")
    return {
        label: FinishedRun(folder.path, Result.load(folder.result), reused=True) for label, folder in folders.items()
    }


def _run_shard(study: Study, show: Reporter) -> None:
    """Computes a share of the waves of every method; a later run without a shard writes the results.

    A method without waves is computed whole by the first shard alone.
    """
    for label, method in study.methods.items():
        folder = study.run_folder(label)
        if folder.is_finished:
            show(f"{label}: already finished: {folder.path}")
        elif method.in_waves:
            _run_share(study, label, folder=folder, show=show)
        elif study.shard is not None and study.shard[0] == 0:
            unsharded = replace(study, shard=None)
            _run_method(unsharded, label, folder=folder, tracker=SafeTracker(NullTracker()), show=show)
        else:
            show(f"{label}: there are no waves to share; shard 0 computes it")


def _run_share(study: Study, label: str, *, folder: RunFolder, show: Reporter) -> None:
    """Computes a share of the waves of one method."""
    execution = study.execution(folder, progress=False)
    shard = study.shard or (0, 1)
    with shard_lock(folder.path, study.root, shard):
        start_folder(study, label, folder=folder)
        _set_seed(study.seed)
        try:
            study.methods[label](study.model, study.prompts(label), execution=execution)
            show(f"{label}: every wave is there")
        except UnfinishedError as error:
            show(f"{label}: {error}")


def _applicable(study: Study, show: Reporter) -> Study:
    """The study without companions that do not go with its model or task; the headline method must."""
    first, *others = study.methods
    study.prompts(first)
    check_model(first, study.methods[first], study.model)
    methods = {first: study.methods[first]}
    for label in others:
        site = study.methods[label].settings().get("site")
        try:
            study.prompts(label)
            check_model(label, study.methods[label], study.model)
            if isinstance(site, str) and isinstance(study.model, HookedModel):
                study.model.wanted([site], layers=[0])
            methods[label] = study.methods[label]
        except (SiteError, ConfigError) as error:
            show(f"{label}: left out. {error}")
    return replace(study, methods=methods)


def _run_method(study: Study, label: str, *, folder: RunFolder, tracker: SafeTracker, show: Reporter) -> FinishedRun:
    """Runs one method in this process alone. A second process waits, then reuses the result."""
    with exclusive_lock(folder.path, study.root, show):
        remove_partial_files(folder.path, spared=folder.cells.name)  # shards may be writing there
        result = None if study.force else _finished_result(study, label, folder=folder, show=show)
        reused = result is not None
        if result is None:
            result = _compute(study, label, folder=folder, tracker=tracker, show=show)
        track(tracker, study, label, result=result, folder=folder)
        return FinishedRun(folder.path, result, reused=reused)


def _finished_result(study: Study, label: str, *, folder: RunFolder, show: Reporter) -> Result | None:
    """The result in a run's folder; None where there is none, or a damaged one, which is set aside.

    Other files that are missing or damaged (manifest, report, figures) are written again.
    """
    if not folder.result.is_file():
        return None
    try:
        result = Result.load(folder.result)
    except ArtifactError as error:
        show(f"{label}: {error.problem}; it is set aside and computed again")
        set_aside(folder.result)
        return None
    if folder.is_finished and not folder.damaged_files():
        show(f"{label}: already finished: {folder.path}")
        return result
    if folder.manifest and not folder.is_sound(folder.result):
        result.save(folder.result)  # its values are right; bits that carry none may be damaged
    damaged = ", ".join(folder.damaged_files()) or MANIFEST
    show(f"{label}: the result is there; {damaged} is missing or damaged and written again")
    _write_outputs(study, label, result, folder=folder, started=folder.result.stat().st_mtime)
    shutil.rmtree(folder.cells, ignore_errors=True)
    return result


def _compute(study: Study, label: str, *, folder: RunFolder, tracker: SafeTracker, show: Reporter) -> Result:
    """Computes one method and writes its folder, the manifest last."""
    method, prompts = study.methods[label], study.prompts(label)
    folder.path.mkdir(parents=True, exist_ok=True)
    if study.force:
        shutil.rmtree(folder.cells, ignore_errors=True)
    (folder.path / MANIFEST).unlink(missing_ok=True)
    started = time.time()
    start_folder(study, label, folder=folder, started=started)
    execution = replace(study.execution(folder), log=tracker.metrics)
    planned = _planned(study, label)
    if planned is not None:
        show(f"{label}: {planned[0].plan(planned[1], planned[2], execution=execution)}")
    _set_seed(study.seed)
    result = method(study.model, prompts, execution=execution).masked(study.masks)
    result.save(folder.result)
    cell = strongest(result)
    if cell is not None:  # before figures and pages, which take longer than many a sweep
        show(f"{label}: {cell.text}")
    _write_outputs(study, label, result, folder=folder, started=started)
    shutil.rmtree(folder.cells, ignore_errors=True)
    cost = result.info.cost
    reused = f", {cost['cells_reused']:,.0f} of {cost['cells']:,.0f} cells reused" if cost.get("cells_reused") else ""
    show(f"{label}: done in {time.time() - started:.1f} s{reused}: {folder.path}")
    return result


def _write_outputs(study: Study, label: str, result: Result, *, folder: RunFolder, started: float) -> None:
    """Writes what is made from a result: figures, configuration, the page of a single method, the manifest last."""
    write_figures(result, folder, png=study.png)
    write_config(study, folder)
    if len(study.methods) == 1:
        report([result], folder.report, title=result.info.title, tables=result_tables(result, study.model.card))
    finish_manifest(study, label, result, folder=folder, started=started)


def _planned(study: Study, label: str) -> tuple[Any, HookedModel, ContrastBatch | ReasoningBatch] | None:
    """A method whose work the engine plans, its model and its prompts; None for another method, model or task."""
    method, model, prompts = study.methods[label], study.model, study.prompts(label)
    if isinstance(method, Planned) and isinstance(model, HookedModel) and not isinstance(prompts, ProbeDataset):
        return method, model, prompts
    return None


def _set_seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries may read the old global state
    torch.manual_seed(seed)
