"""``mechxai runs``: lists, shows, compares, merges and removes the runs on disk."""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.prompt import Confirm

from mechxai.cli.console import FAILED, OK, show, show_facts
from mechxai.core.errors import ConfigError, unknown
from mechxai.runs.locks import every_lock
from mechxai.runs.query import FILTERS, RunRecord, find_run, list_runs, read_filters
from mechxai.sweeps.foreign_config import check_folder_overrides
from mechxai.sweeps.user_configs import quoted

HELP = """The runs below a folder.

  mechxai runs [FILTER ...]            list them; FILTER is name=pattern, as in model=zoo/* task=ioi status=unfinished
  mechxai runs show RUN                one run: settings, cost, notes, files
  mechxai runs compare RUN RUN         differing settings and values; a page with both figures
  mechxai runs merge [FILTER ...]      join what shards (shard=i/n) computed; what no shard has is computed here
  mechxai runs clean [FILTER ...]      remove runs from disk (status=unfinished: abandoned ones); asks first

RUN is a run's folder or the first letters of its id. Filters: """ + ", ".join(FILTERS)
_DROPPED = ("shard", "processes", "force", "output", "plugins")  # overrides that continuing a run leaves out
_SHOWN = ("experiment", "method", "model", "task", "seed", "started", "finished", "versions", "commit", "cost")


def main(arguments: Sequence[str]) -> int:
    """``mechxai runs ...``; returns the exit code."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "show": _show,
        "compare": _compare,
        "merge": _merge,
        "clean": _clean,
    }
    words = list(arguments)
    action = words.pop(0) if words and words[0] in actions else "list"
    if action == "list" and words and words[0].isalpha() and not Path(words[0]).exists():
        raise ConfigError(unknown("action of mechxai runs", words[0], actions))
    if action == "list" and words and Path(words[0]).is_dir() and "=" not in words[0]:
        words = ["--in", words[0], *words[1:]]
    parser = argparse.ArgumentParser(
        "mechxai runs", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="RUN or FILTER")
    parser.add_argument("--in", dest="root", default="outputs", type=Path, metavar="FOLDER", help="default: outputs")
    parser.add_argument("-o", dest="page", type=Path, metavar="FILE", help="of compare's page (default: compare.html)")
    parser.add_argument("--yes", action="store_true", help="clean without asking")
    return actions[action](parser.parse_args(words))


def _list(options: argparse.Namespace) -> int:
    runs = list_runs(options.root, read_filters(options.names))
    if not runs:
        hint = " that match" if options.names else "; make one: mechxai run experiment=ioi_patching tracker=none"
        show(f"no runs below {options.root}{hint}")
        return OK
    show({"title": f"Runs below {options.root}, the newest last", "rows": _rows(runs)})
    show("mechxai runs show RUN shows one; mechxai runs --help lists the other actions")
    return OK


def _rows(runs: Sequence[RunRecord]) -> list[dict[str, object]]:
    """A row per run; with the number of prompts and the seed where the runs differ in them."""
    differing = [key for key in ("n", "seed") if len({run.facts[key] for run in runs}) > 1]
    return [{**_row(run), **{key: run.facts[key] for key in differing}} for run in runs]


def _row(run: RunRecord) -> dict[str, object]:
    facts = run.facts
    cost = run.manifest.get("cost")
    seconds = cost.get("seconds") if isinstance(cost, dict) else None
    return {
        "run": facts["run"],
        "method": f"{facts['method']} {facts['site']}".strip(),
        "model": facts["model"],
        "task": facts["task"],
        "seconds": f"{float(seconds):.1f}" if isinstance(seconds, int | float) else "",
        "finished": str(run.manifest.get("finished", ""))[5:16].replace("T", " ") if run.finished else run.status,
    }


def _show(options: argparse.Namespace) -> int:
    (name,) = _exactly(options.names, 1)
    run = find_run(options.root, name, unfinished=True)
    if not run.finished:
        return _show_unfinished(run)
    facts: dict[str, object] = {"folder": run.folder}
    for part in _SHOWN:
        value = run.manifest.get(part)
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        facts |= {f"{part} {key}".strip(): item for key, item in pairs if item not in (None, {}, [])}
    show_facts(run.result().info.title, facts)
    for note in _listed(run, "notes"):
        show(f"note: {note}")
    for file in _listed(run, "files"):
        show(f"  {run.folder / file}")
    return OK


def _listed(run: RunRecord, key: str) -> list[str]:
    """A list of the manifest, or the names of a table in it; empty where a foreign manifest has neither."""
    listed = run.manifest.get(key)
    return [str(item) for item in listed] if isinstance(listed, list | dict) else []


def _show_unfinished(run: RunRecord) -> int:
    waves = len(list(run.files.cells.glob("*.safetensors")))
    show_facts(f"A run that is {run.status}", {"folder": run.folder, **run.facts, "waves kept": str(waves)})
    if run.overrides is not None:
        show("continue it with: " + shlex.join(["mechxai", "run", *_continuation(run, run.overrides)]))
    return OK


def _compare(options: argparse.Namespace) -> int:
    from mechxai.runs.compare import settings_that_differ, values_that_differ, write_comparison  # noqa: PLC0415 - heavy

    runs = [find_run(options.root, name) for name in _exactly(options.names, 2)]
    settings = settings_that_differ(*runs)
    values = values_that_differ(*(run.result() for run in runs))
    tables = {"Settings that differ": settings, "Values": values}
    for title, rows in tables.items():
        show({"title": title, "rows": rows} if rows else f"{title}: none")
    show(f"page: {write_comparison(runs, options.page or Path('compare.html'), tables)}")
    return OK


def _merge(options: argparse.Namespace) -> int:
    """Runs each command once more without its shard: what the shards computed is reused, the rest is computed."""
    waiting = list_runs(options.root, {**read_filters(options.names), "status": "unfinished"})
    sharded = [run for run in waiting if _is_sharded(run)]
    commands = dict[tuple[str, ...], None]()  # each once
    for run in waiting:
        if run.overrides is None:
            show(f"left out, its overrides are missing: {run.folder}")
        elif run not in sharded:
            show(f"left out, it has no shards (mechxai runs show {run.facts['run']}): {run.folder}")
        elif _uses_plugins(run):
            command = shlex.join(["mechxai", "run", "plugins=[...]", *_continuation(run, run.overrides)])
            show(f"left out, it uses plugins, which only you may name: {command}")
        else:
            check_folder_overrides([override for override in run.overrides if _key(override) not in _DROPPED])
            commands[_continuation(run, run.overrides)] = None
    if not commands:
        show(f"nothing to merge below {options.root}")
    failed = 0
    for overrides in commands:
        show(shlex.join(["mechxai", "run", *overrides]))
        failed |= subprocess.run([sys.executable, "-m", "mechxai.cli", "run", *overrides], check=False).returncode
    unfinished = {run.folder for run in list_runs(options.root, {"status": "unfinished"})}
    remaining = [run.folder for run in sharded if run.folder in unfinished]
    for folder in remaining:
        show(f"still unfinished: {folder}")
    return FAILED if failed or remaining else OK


def _continuation(run: RunRecord, overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides that run a run once more, unsharded, into the same folder."""
    kept = (override for override in overrides if _key(override) not in _DROPPED)
    return (*kept, f"output={quoted(run.root)}", "hydra.mode=RUN")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _is_sharded(run: RunRecord) -> bool:
    return any(_key(override) in ("shard", "processes") for override in run.overrides or ())


def _uses_plugins(run: RunRecord) -> bool:
    return any(_key(override) == "plugins" for override in run.overrides or ())


def _clean(options: argparse.Namespace) -> int:
    runs = list_runs(options.root, read_filters(options.names))
    if not options.names:
        raise ConfigError("mechxai runs clean needs a filter", fix="Write 'run=*', or a narrower one")
    if not runs:
        show(f"no runs below {options.root} that match")
        return OK
    show({"title": "To be removed", "rows": [{**_row(run), "folder": str(run.folder)} for run in runs]})
    question = "Remove this run?" if len(runs) == 1 else f"Remove these {len(runs)} runs?"
    if not options.yes and not _confirmed(question):
        return FAILED
    left = {run.folder: reason for run in runs if (reason := _remove(run))}
    show(f"{len(runs) - len(left)} runs removed")
    for folder, reason in left.items():
        show(f"not removed, {reason}: {folder}")
    return OK


def _confirmed(question: str) -> bool:
    try:
        if Confirm.ask(question, default=False):
            return True
        show("nothing removed")
    except (EOFError, KeyboardInterrupt):
        show("\nnothing removed: there was no answer (--yes removes without asking)")
    return False


def _remove(run: RunRecord) -> str:
    """Removes a run; returns the reason why it did not, or an empty string."""
    with every_lock(run.folder, run.root) as free:
        if not free:
            return "a process is working on it"
        if RunRecord(run.folder).status != run.status:  # it went on while the question was on the screen
            return f"it is no longer {run.status}"
        shutil.rmtree(run.folder, ignore_errors=True)
    return ""


def _exactly(names: Sequence[str], n: int) -> Sequence[str]:
    if len(names) != n:
        plural = "s" if n > 1 else ""
        raise ConfigError(f"{n} run{plural} must be named, not {len(names)}", fix="mechxai runs lists them")
    return names
