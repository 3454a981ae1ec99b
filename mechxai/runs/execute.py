"""One run: a model, a task, a method; its result, figures, report and manifest in one folder; resumed when interrupted.

A run's folder is named by what decides its numbers, so the same question always finds the same folder.
"""

import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mechxai.core.errors import ConfigError, SiteError, UnfinishedError
from mechxai.core.files import remove_partial_files
from mechxai.core.probe_dataset import ProbeDataset
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
from mechxai.runs.folder import check_model, is_finished
from mechxai.runs.locks import exclusive_lock
from mechxai.runs.outputs import (
    REPORT,
    has_config,
    is_reported,
    write_config,
    write_figures,
    write_manifest,
    write_report,
)
from mechxai.runs.study import Finished, Study
from mechxai.runs.tracking import declare, track
from mechxai.tracking.tracker import NullTracker, SafeTracker, Tracker


def run_study(
    study: Study, tracker: Tracker, say: Reporter, *, settings: Mapping[str, object] | None = None
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
    shared = any(method.in_waves for method in study.methods.values())
    if study.shard is not None and shared:
        _run_shard(study, say)
        return {}
    if study.shard is not None and study.shard[0] > 0:
        say(
            f"{', '.join(study.methods)}: no waves that could be shared out; shard 0 computes all and writes the result"
        )
        return {}
    study = replace(study, shard=None)
    folders = {label: study.folder(label) for label in study.methods}
    first = next(iter(folders.values()))
    finished = all(is_finished(folder) for folder in folders.values()) and is_reported(list(folders.values()))
    safe = SafeTracker(tracker)
    if finished and not study.force and not safe.awaited():
        untold = "" if isinstance(tracker, NullTracker) else " and the tracker is told nothing"
        say(f"already finished, nothing computed{untold} (force=true computes again): {first}")
        say(f"report: {first / REPORT}")
        return {
            label: Finished(folder, Result.load(folder / "result.nc"), found=True) for label, folder in folders.items()
        }
    safe.start(
        name=f"{study.name}-{first.name}",
        config=settings or {},
        group=study.sweep or study.name,
        job_type=study.model.name,
        run_id=first.name[-10:],
    )
    failed = True
    try:
        declare(safe, study)
        with shared_browser():
            done = {
                label: _run_method(study, label, folder=folders[label], tracker=safe, say=say)
                for label in study.methods
            }
        write_report(study, done, folder=first, say=say)
        failed = False
    finally:
        safe.close(failed=failed)
    where = safe.where()
    if where:
        say(where)
    for problem in safe.problems:
        say(f"tracking: {problem}")
    return done


def _run_shard(study: Study, say: Reporter) -> None:
    """A share of the waves of every method; results are written by a later run without a shard.

    What has no waves is computed by the first shard alone, whole, so that no two processes do the same.
    """
    for label, method in study.methods.items():
        folder = study.folder(label)
        if is_finished(folder):
            say(f"{label}: already finished: {folder}")
        elif method.in_waves:
            _run_share(study, label, folder=folder, say=say)
        elif study.shard is not None and study.shard[0] == 0:
            whole = replace(study, shard=None)
            _run_method(whole, label, folder=folder, tracker=SafeTracker(NullTracker()), say=say)
        else:
            say(f"{label}: no waves that could be shared out; shard 0 computes it")


def _run_share(study: Study, label: str, *, folder: Path, say: Reporter) -> None:
    """A share of the waves of one method."""
    execution = study.execution(folder, progress=False)
    write_config(study, folder)
    _seed(study.seed)
    try:
        study.methods[label](study.model, study.prompts(label), execution=execution)
        say(f"{label}: every wave is there")
    except UnfinishedError as error:
        say(f"{label}: {error}")


def explain_study(study: Study, say: Reporter) -> None:
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


def _applicable(study: Study, say: Reporter) -> Study:
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


def _run_method(study: Study, label: str, *, folder: Path, tracker: SafeTracker, say: Reporter) -> Finished:
    """One method's run, by this process alone: another that was asked the same waits, and finds it finished."""
    with exclusive_lock(folder, study.root, say):
        remove_partial_files(folder, spared="cells")  # shards may be writing there
        return _run_alone(study, label, folder=folder, tracker=tracker, say=say)


def _run_alone(study: Study, label: str, *, folder: Path, tracker: SafeTracker, say: Reporter) -> Finished:
    method = study.methods[label]
    if is_finished(folder) and not study.force:
        say(f"{label}: already finished: {folder}")
        result = Result.load(folder / "result.nc")
        track(tracker, study, label, result=result, folder=folder)
        return Finished(folder, result, found=True)
    folder.mkdir(parents=True, exist_ok=True)
    if study.force:
        shutil.rmtree(folder / "cells", ignore_errors=True)
        (folder / "manifest.json").unlink(missing_ok=True)
    execution = replace(study.execution(folder), log=tracker.metrics)
    prompts = study.prompts(label)
    if isinstance(method, Planned) and isinstance(study.model, HookedModel) and not isinstance(prompts, ProbeDataset):
        say(f"{label}: {method.plan(study.model, prompts, execution=execution)}")
    if not has_config(folder):  # before the waves, so that a run that is killed can say how it goes on
        write_config(study, folder)  # (that of shards stays, by which their gathering is known)
    _seed(study.seed)
    started = time.time()
    result = method(study.model, prompts, execution=execution)
    result.save(folder / "result.nc")
    found = strongest(result)
    if found is not None:  # before figures and pages, which take longer than many a sweep
        say(f"{label}: {found.text}")
    write_figures(result, folder, png=study.png)
    write_config(study, folder)
    if len(study.methods) == 1:
        tables = result_tables(result, study.model.card)
        report([result], folder / REPORT, title=result.info.title, tables=tables)
    write_manifest(study, label, result, folder=folder, started=started)
    shutil.rmtree(folder / "cells", ignore_errors=True)
    cost = result.info.cost
    reused = f", {cost['cells_reused']:,.0f} of {cost['cells']:,.0f} cells reused" if cost.get("cells_reused") else ""
    say(f"{label}: done in {time.time() - started:.1f} s{reused}: {folder}")
    track(tracker, study, label, result=result, folder=folder)
    return Finished(folder, result, found=False)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries below may read the old global state
    torch.manual_seed(seed)
