"""The files of a run beside its result: figures, configuration, report, manifest."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from mechxai.core.errors import ArtifactError
from mechxai.core.files import write_atomic
from mechxai.core.reporter import Reporter
from mechxai.core.result import Result
from mechxai.figures.attention_view import save_attention
from mechxai.figures.export import save_html, save_png
from mechxai.figures.plot import plot
from mechxai.figures.tokens import token_text
from mechxai.report.by_kind import result_tables
from mechxai.report.chain_tables import EXAMPLES
from mechxai.report.circuit_account import circuit_account
from mechxai.report.page import report
from mechxai.runs.folder import RunFolder
from mechxai.runs.locks import folder_lock
from mechxai.runs.manifest import read_manifest, time_text, write_manifest, write_unfinished
from mechxai.runs.study import FinishedRun, Study

_COLORED = 3  # prompts whose tokens are printed in colour
_VIEWED = 4  # prompts whose attention gets a page


def write_figures(result: Result, folder: RunFolder, *, png: bool) -> None:
    """Writes the figure as HTML (and PNG, where a browser is installed), and the attention views of a few prompts."""
    figure = plot(result)
    site = result.info.method.get("site")
    target = folder.figures / (site if isinstance(site, str) else str(result.info.method["name"]))
    save_html(figure, target.with_suffix(".html"))
    if result.info.kind == "attention":
        for prompt in range(min(_VIEWED, result.data.sizes["prompt"])):
            save_attention(result, folder.figures / f"attention-{prompt}.html", prompt)
    if png:
        with contextlib.suppress(ArtifactError, OSError):  # no browser, or no room
            save_png(figure, target.with_suffix(".png"))


def write_config(study: Study, folder: RunFolder) -> None:
    """Writes the configuration, composed and as overrides."""
    for name, text in study.config.items():
        write_atomic(folder.config / name, text)


def start_folder(study: Study, label: str, *, folder: RunFolder, started: float | None = None) -> None:
    """Writes the configuration and what a run says of itself before it computes, unless an earlier start has.

    A killed run can so say how it goes on; shards leave what the first of them wrote.
    """
    with folder_lock(folder.path, study.root, "start"):
        if folder.is_sound(folder.config / "overrides.yaml"):
            return
        write_config(study, folder)
        facts = study.facts(label) | {"started": time_text(started), "files": folder.checksums()}
        write_unfinished(folder.path, facts)


def write_report(study: Study, runs: Mapping[str, FinishedRun], *, folder: RunFolder, show: Reporter) -> None:
    """Shows tables and sentences, and writes one page over all methods."""
    _show_notes(runs, show)
    tables = _show_tables(study, runs, show)
    for sentence in circuit_account(run.result for run in runs.values()) if len(runs) > 1 else ():
        show(sentence)
    folders = [RunFolder(run.folder) for run in runs.values()]
    if len(runs) == 1 and is_reported(folders):  # written with the result
        return
    single = next(iter(runs.values())).result.info.title if len(runs) == 1 else None
    path = report(
        {label: run.result for label, run in runs.items()},
        folder.report,
        title=single or f"{study.name} on {study.model.name}",
        tables=tables,
    )
    joined = {item.path.name: item.manifest.get("finished") for item in folders}
    checksums = {"files": folder.checksums()}
    write_manifest(folder.path, read_manifest(folder.path) | checksums | {"report": joined})
    show(f"report: {path}")


def is_reported(folders: Sequence[RunFolder]) -> bool:
    """Whether the page in the first of several runs' folders joins them all as they are; its manifest says which."""
    joined = folders[0].manifest.get("report")
    return (
        isinstance(joined, dict)
        and folders[0].is_sound(folders[0].report)
        and all(joined.get(folder.path.name) == folder.manifest.get("finished") for folder in folders)
    )


def finish_manifest(study: Study, label: str, result: Result, *, folder: RunFolder, started: float) -> None:
    """Writes what another lab needs to repeat the run, as the last of its files."""
    finished = time_text()
    content = study.facts(label) | {
        "status": "finished",
        "started": time_text(started),
        "finished": finished,
        "files": folder.checksums(),
        **result.info.as_dict(),
    }
    if len(study.methods) == 1:  # its page is written; a page over several methods joins them when all are done
        content["report"] = {folder.path.name: finished}
    write_manifest(folder.path, content)


def _show_tables(
    study: Study, runs: Mapping[str, FinishedRun], show: Reporter
) -> dict[str, Sequence[Mapping[str, Any]]]:
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    for label, run in runs.items():
        if run.result.info.kind == "attribution":
            show(f"{label}, token by token (blue: towards the answer, red: against):")
            for prompt in range(min(_COLORED, run.result.data.sizes["prompt"])):
                show(token_text(run.result, prompt))
        for title, rows in result_tables(run.result, study.model.card).items():
            tables[title] = rows
            if len(runs) == 1 or not title.endswith(EXAMPLES):  # of several methods they would bury the numbers
                show({"title": title, "rows": rows})
    return tables


def _show_notes(runs: Mapping[str, FinishedRun], show: Reporter) -> None:
    """Shows each note once, with its method where only one has it."""
    notes: dict[str, list[str]] = {}
    for label, run in runs.items():
        for note in run.result.info.notes:
            notes.setdefault(note, []).append(label)
    for note, labels in notes.items():
        show(f"{'' if len(labels) > 1 else f'{labels[0]}, '}note: {note}")
