"""``mechxai runs``: the runs on disk, listed, looked at, compared, gathered from shards, and cleaned away."""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import Timeout
from rich.prompt import Confirm

from mechxai.cli import console
from mechxai.core.errors import ConfigError, nearest
from mechxai.runs.locks import folder_lock
from mechxai.runs.query import FILTERS, RunRecord, find_run, list_runs, read_filters
from mechxai.sweeps.user_configs import quoted

_HELP = """The runs below a folder.

  mechxai runs [FILTER ...]            list them; FILTER is name=pattern, as in model=zoo/* task=ioi status=unfinished
  mechxai runs show RUN                one run: settings, cost, notes, files
  mechxai runs compare RUN RUN         what differs in settings and values; a page with both figures
  mechxai runs merge [FILTER ...]      gather what shards (shard=i/n) computed; what none has is computed here
  mechxai runs clean [FILTER ...]      remove runs from disk (status=unfinished: those that were given up); asks first

RUN is a run's folder or the first letters of its id. Filters: """ + ", ".join(FILTERS)


def runs(arguments: Sequence[str]) -> int:
    """``mechxai runs ...``; returns the exit code."""
    known: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "show": _show,
        "compare": _compare,
        "merge": _merge,
        "clean": _clean,
    }
    own = list(arguments)
    what = own.pop(0) if own and own[0] in known else "list"
    if what == "list" and own and own[0].isalpha() and not Path(own[0]).exists():
        raise ConfigError(f"mechxai runs {own[0]} was asked", allowed=nearest(own[0], known))
    if what == "list" and own and Path(own[0]).is_dir() and "=" not in own[0]:
        own = ["--in", own[0], *own[1:]]
    parser = argparse.ArgumentParser(
        "mechxai runs", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", metavar="RUN or FILTER")
    parser.add_argument("--in", dest="root", default="outputs", type=Path, metavar="FOLDER", help="default: outputs")
    parser.add_argument("-o", dest="page", type=Path, metavar="FILE", help="of compare's page (default: compare.html)")
    parser.add_argument("--yes", action="store_true", help="clean without asking")
    return known[what](parser.parse_args(own))


def _list(asked: argparse.Namespace) -> int:
    found = list_runs(asked.root, read_filters(asked.what))
    if not found:
        more = " that fit" if asked.what else "; make one: mechxai run experiment=ioi_patching tracker=none"
        console.show(f"no runs below {asked.root}{more}")
        return 0
    console.show({"title": f"Runs below {asked.root}, the newest last", "rows": _rows(found)})
    console.show("mechxai runs show RUN shows one; mechxai runs --help says what else there is")
    return 0


def _rows(found: Sequence[RunRecord]) -> list[dict[str, object]]:
    """A row per run; number of prompts and seed where the runs differ in them."""
    told = [key for key in ("n", "seed") if len({run.facts[key] for run in found}) > 1]
    return [{**_row(run), **{key: run.facts[key] for key in told}} for run in found]


def _row(run: RunRecord) -> dict[str, object]:
    facts = run.facts
    seconds = run.manifest.get("cost", {}).get("seconds")
    return {
        "run": facts["run"],
        "method": f"{facts['method']} {facts['site']}".strip(),
        "model": facts["model"],
        "task": facts["task"],
        "seconds": f"{float(seconds):.1f}" if seconds is not None else "",
        "finished": str(run.manifest.get("finished", ""))[5:16].replace("T", " ") or "no",
    }


def _show(asked: argparse.Namespace) -> int:
    (name,) = _named(asked.what, 1)
    run = find_run(asked.root, name, unfinished=True)
    if not run.finished:
        return _show_unfinished(run)
    manifest = run.manifest
    rows = [{"": "folder", " ": str(run.folder)}]
    for part in ("experiment", "method", "model", "task", "seed", "started", "finished", "versions", "commit", "cost"):
        value = manifest.get(part)
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        rows += [{"": f"{part} {key}".strip(), " ": str(own)} for key, own in pairs if own not in (None, {}, [])]
    console.show({"title": run.result().info.title, "rows": rows})
    for note in manifest.get("notes", []):
        console.show(f"note: {note}")
    for file in manifest.get("files", []):
        console.show(f"  {run.folder / file}")
    return 0


def _show_unfinished(run: RunRecord) -> int:
    waves = len(list((run.folder / "cells").glob("*.safetensors")))
    rows = [{"": "folder", " ": str(run.folder)}, *({"": key, " ": value} for key, value in run.facts.items() if value)]
    console.show({"title": "A run that is not finished", "rows": [*rows, {"": "waves kept", " ": str(waves)}]})
    if run.overrides is not None:
        console.show("it goes on with: " + shlex.join(["mechxai", "run", *_going_on(run, run.overrides)]))
    return 0


def _compare(asked: argparse.Namespace) -> int:
    from mechxai.runs.compare import settings_that_differ, values_that_differ, write_comparison  # noqa: PLC0415 - heavy

    both = [find_run(asked.root, name) for name in _named(asked.what, 2)]
    settings = settings_that_differ(*both)
    values = values_that_differ(*(run.result() for run in both))
    tables = {"Settings that differ": settings, "Values": values}
    for title, rows in tables.items():
        console.show({"title": title, "rows": rows} if rows else f"{title}: none")
    console.show(f"page: {write_comparison(both, asked.page or Path('compare.html'), tables)}")
    return 0


def _merge(asked: argparse.Namespace) -> int:
    """Each command once, without its shard: what the shards computed is found, what is missing is computed."""
    waiting = list_runs(asked.root, {**read_filters(asked.what), "status": "unfinished"})
    sharded = [run for run in waiting if _sharded(run)]
    commands = dict[tuple[str, ...], None]()  # each once
    for run in waiting:
        if run.overrides is None:
            console.show(f"left out, for it does not say how it was asked: {run.folder}")
        elif run not in sharded:
            console.show(f"left out, for it has no shards (mechxai runs show {run.facts['run']}): {run.folder}")
        else:
            commands[_going_on(run, run.overrides)] = None
    if not commands:
        console.show(f"nothing to merge below {asked.root}")
    failed = 0
    for whole in commands:
        console.show(shlex.join(["mechxai", "run", *whole]))
        failed |= subprocess.run([sys.executable, "-m", "mechxai.cli", "run", *whole], check=False).returncode
    unfinished = {run.folder for run in list_runs(asked.root, {"status": "unfinished"})}
    left = [run.folder for run in sharded if run.folder in unfinished]
    for folder in left:
        console.show(f"still unfinished: {folder}")
    return int(failed != 0 or bool(left))


def _going_on(run: RunRecord, overrides: Sequence[str]) -> tuple[str, ...]:
    """What asks for a run once more, whole, into the same place."""
    left_out = ("shard", "processes", "force", "output")
    kept = (one for one in overrides if one.partition("=")[0].lstrip("+") not in left_out)
    return (*kept, f"output={quoted(run.root)}", "hydra.mode=RUN")


def _sharded(run: RunRecord) -> bool:
    return any(one.lstrip("+").startswith(("shard=", "processes=")) for one in run.overrides or ())


def _clean(asked: argparse.Namespace) -> int:
    chosen = list_runs(asked.root, read_filters(asked.what))
    if not asked.what:
        raise ConfigError("mechxai runs clean was asked", got="no filter", fix="run=*, or a narrower one")
    if not chosen:
        console.show(f"no runs below {asked.root} that fit")
        return 0
    console.show({"title": "To be removed", "rows": [{**_row(run), "folder": str(run.folder)} for run in chosen]})
    these = "this run" if len(chosen) == 1 else f"these {len(chosen)} runs"
    if not asked.yes and not _sure(f"Remove {these}?"):
        return 1
    busy = [run for run in chosen if not _removed(run)]
    console.show(f"{len(chosen) - len(busy)} runs removed")
    for run in busy:
        console.show(f"left alone, for a process is at it: {run.folder}")
    return 0


def _sure(question: str) -> bool:
    try:
        if Confirm.ask(question, default=False):
            return True
        console.show("nothing removed")
    except (EOFError, KeyboardInterrupt):
        console.show("\nnothing removed: there was no answer (--yes removes without asking)")
    return False


def _removed(run: RunRecord) -> bool:
    """Removes a run that no process is at."""
    try:
        with folder_lock(run.folder, run.root).acquire(timeout=0):
            shutil.rmtree(run.folder, ignore_errors=True)
    except Timeout:
        return False
    return True


def _named(given: Sequence[str], n: int) -> Sequence[str]:
    if len(given) != n:
        raise ConfigError(
            f"{n} run{'s' if n > 1 else ''} must be named", got=list(given), fix="mechxai runs lists them"
        )
    return given
