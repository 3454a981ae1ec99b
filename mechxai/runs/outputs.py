"""What a run leaves beside its result: figures, the report, the manifest."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
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
from mechxai.runs.folder import run_id
from mechxai.runs.study import Finished, Study

REPORT, MANIFEST = "report.html", "manifest.json"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_COLORED = 3  # prompts whose tokens are shown in colour
_VIEWED = 4  # prompts whose attention gets a page


def write_figures(result: Result, folder: Path, *, png: bool) -> None:
    """The figure as a page (and a PNG, where a browser is at hand), and the attention of the first prompts."""
    figure = plot(result)
    site = result.info.method.get("site")
    target = folder / "figures" / (site if isinstance(site, str) else str(result.info.method["name"]))
    save_html(figure, target.with_suffix(".html"))
    for prompt in range(min(_VIEWED, result.data.sizes["prompt"])) if result.info.kind == "attention" else ():
        save_attention(result, folder / "figures" / f"attention-{prompt}.html", prompt)
    if png:
        with contextlib.suppress(ArtifactError, OSError):  # no browser, or no room
            save_png(figure, target.with_suffix(".png"))


def write_config(study: Study, folder: Path) -> None:
    """What was asked, as it was asked."""
    for name, text in study.config.items():
        write_atomic(folder / ".hydra" / name, text)


def has_config(folder: Path) -> bool:
    """Whether it is known how a run was asked."""
    return (folder / ".hydra" / "overrides.yaml").is_file()


def write_report(study: Study, done: Mapping[str, Finished], *, folder: Path, say: Reporter) -> None:
    """Shows tables and sentences, and writes one page over several methods."""
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    _say_notes(done, say)
    for label, finished in done.items():
        if finished.result.info.kind == "attribution":
            say(f"{label}, token by token (blue: towards the answer, red: against):")
            for prompt in range(min(_COLORED, finished.result.data.sizes["prompt"])):
                say(token_text(finished.result, prompt))
        for title, rows in result_tables(finished.result, study.model.card).items():
            tables[title] = rows
            if len(done) == 1 or not title.endswith(EXAMPLES):  # of several methods they would bury the numbers
                say({"title": title, "rows": rows})
    for sentence in circuit_account(finished.result for finished in done.values()) if len(done) > 1 else ():
        say(sentence)
    folders = [finished.folder for finished in done.values()]
    if len(done) == 1 and is_reported(folders):  # written with the result
        return
    single = next(iter(done.values())).result.info.title if len(done) == 1 else None
    path = report(
        {label: finished.result for label, finished in done.items()},
        folder / REPORT,
        title=single or f"{study.name} on {study.model.name}",
        tables=tables,
    )
    content = _manifest(folder) | {"report": {one.name: _manifest(one).get("finished") for one in folders}}
    _write_manifest(folder, content)
    say(f"report: {path}")


def is_reported(folders: Sequence[Path]) -> bool:
    """Whether the page in the first of several runs' folders joins them all, as they are; its manifest says which."""
    joined = _manifest(folders[0]).get("report")
    return (
        isinstance(joined, dict)
        and (folders[0] / REPORT).is_file()
        and all(joined.get(one.name) == _manifest(one).get("finished") for one in folders)
    )


def _say_notes(done: Mapping[str, Finished], say: Reporter) -> None:
    """Each note once, with its method where it is of one."""
    noted: dict[str, list[str]] = {}
    for label, finished in done.items():
        for note in finished.result.info.notes:
            noted.setdefault(note, []).append(label)
    for note, labels in noted.items():
        say(f"{'' if len(labels) > 1 else f'{labels[0]}, '}note: {note}")


def write_manifest(study: Study, label: str, result: Result, *, folder: Path, started: float) -> None:
    """What another lab needs; written last, so that it says that the run is finished."""
    finished = time.strftime(_TIME, time.gmtime())
    files = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "cells" not in path.relative_to(folder).parts
    )
    content = {
        "run": run_id(study.model, study.prompts(label), study.methods[label], seed=study.seed),
        "experiment": study.name,
        "status": "finished",
        "started": time.strftime(_TIME, time.gmtime(started)),
        "finished": finished,
        "files": files,
        **result.info.as_dict(),
    }
    if len(study.methods) == 1:  # its page is written; that of several methods joins them when all are done
        content["report"] = {folder.name: finished}
    _write_manifest(folder, content)


def _write_manifest(folder: Path, content: Mapping[str, object]) -> None:
    write_atomic(folder / MANIFEST, json.dumps(content, indent=2, default=str) + "\n")


def _manifest(folder: Path) -> dict[str, Any]:
    """What a run says of itself; empty where it is not finished."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
