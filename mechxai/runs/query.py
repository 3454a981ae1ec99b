"""Runs that lie on disk: found below a folder, filtered, and looked up by the beginning of their id."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mechxai.core.errors import ArtifactError, ConfigError, nearest
from mechxai.core.result import Result

_ID = 10  # letters of an id that are shown; the name of a run's folder ends in them
_OURS = re.compile(r"-[0-9a-f]{10}$")
_NEEDED = {"run", "experiment", "method", "model", "task"}
_STATUS = ("finished", "unfinished")
FILTERS = ("run", "experiment", "method", "site", "model", "task", "n", "seed", "status")


@dataclass(frozen=True)
class RunRecord:
    """A run's folder, finished or not.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself; empty where it is not finished.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def root(self) -> Path:
        """The folder that ``output`` named: of it come experiment, model, run."""
        return self.folder.resolve().parents[2]

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return bool(self.manifest)

    @property
    def overrides(self) -> list[str] | None:
        """How it was asked; None where it does not say."""
        found = self._kept("overrides.yaml")
        return [str(one) for one in found] if isinstance(found, list) else None

    @cached_property
    def facts(self) -> dict[str, str]:
        """What it can be filtered by."""
        if not self.finished:
            return self._asked
        method, task = self.manifest["method"], self.manifest["task"]
        return {
            "run": str(self.manifest["run"])[:_ID],
            "experiment": str(self.manifest["experiment"]),
            "method": str(method.get("name")),
            "site": str(method.get("site") or ""),
            "model": str(self.manifest["model"].get("name")),
            "task": str(task.get("name")),
            **_numbers(task),
            "status": "finished",
        }

    @property
    def _asked(self) -> dict[str, str]:
        """Of a run that is not finished: what its configuration asks for, and its folder's name says."""
        config = self._kept("config.yaml")
        parts = config if isinstance(config, dict) else {}
        model, task = (own if isinstance(own := parts.get(name), dict) else {} for name in ("model", "task"))
        label, _, run = self.folder.name.rpartition("-")
        method, _, site = label.partition("-")
        return {
            "run": run,
            "experiment": self.folder.parent.parent.name,
            "method": method,
            "site": site,
            "model": str(model.get("name") or self.folder.parent.name),
            "task": str(task.get("_target_") or "").rpartition(".")[2].removeprefix("from_"),
            **_numbers({**task, "seed": parts.get("seed") if task.get("seed") == "${seed}" else task.get("seed")}),
            "status": "unfinished",
        }

    def _kept(self, name: str) -> object:
        """What a file beside the run says of how it was asked; None where it cannot be read."""
        try:
            return yaml.safe_load((self.folder / ".hydra" / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return None

    def result(self) -> Result:
        """What came of it.

        Raises:
            ArtifactError: it is not finished, or its file is damaged.
        """
        return Result.load(self.folder / "result.nc")


def list_runs(root: Path, wanted: Mapping[str, str] | None = None) -> list[RunRecord]:
    """The runs below a folder, the oldest first.

    Args:
        root: the folder.
        wanted: name -> pattern with ``*`` and ``?``, of `FILTERS`; all must fit.

    Raises:
        ConfigError: a filter of another name.
    """
    wanted = wanted or {}
    for name in wanted:
        if name not in FILTERS:
            raise ConfigError(f"runs with {name}={wanted[name]} were asked", allowed=nearest(name, FILTERS))
    if not any(fnmatch(one, wanted.get("status", "*")) for one in _STATUS):
        raise ConfigError(f"runs with status={wanted['status']} were asked", allowed=", ".join(_STATUS))
    folders = {path.parent for path in root.rglob("manifest.json")} | {
        path.parent for path in root.rglob("cells") if path.is_dir()
    }
    own = [folder for folder in folders if _OURS.search(folder.name) and not folder.is_symlink()]
    found = [RunRecord(folder, _manifest(folder)) for folder in sorted(own, key=_age)]
    return [run for run in found if all(fnmatch(run.facts[name], pattern) for name, pattern in wanted.items())]


def find_run(root: Path, name: str, *, unfinished: bool = False) -> RunRecord:
    """The run of a folder, or of an id that begins so.

    Args:
        root: the folder below which it lies.
        name: its folder, or the first letters of its id.
        unfinished: whether one that is not finished will do.

    Raises:
        ArtifactError: there is none, or several.
    """
    if (Path(name) / "manifest.json").is_file() or (unfinished and (Path(name) / "cells").is_dir()):
        return RunRecord(Path(name), _manifest(Path(name)))
    known = list_runs(root)
    named = [run for run in known if run.facts["run"].startswith(name)]
    fitting = [run for run in named if run.finished or unfinished]
    if len(fitting) == 1:
        return fitting[0]
    if named and not fitting:
        raise ArtifactError(
            f"Run {name!r} below {root} was asked",
            got="it is not finished",
            fix=f"mechxai runs show {name} says how it goes on",
        )
    raise ArtifactError(
        f"Run {name!r} below {root} was asked",
        got="several runs of that name" if fitting else "no run of that name",
        allowed=nearest(name, [run.facts["run"] for run in fitting or known if run.finished or unfinished]),
        fix="give more letters of the id, or the run's folder (mechxai runs lists them)",
    )


def _numbers(task: Mapping[str, Any]) -> dict[str, str]:
    """How many prompts, and which draw of them."""
    return {key: "" if task.get(key) is None else str(task[key]) for key in ("n", "seed")}


def _age(folder: Path) -> float:
    manifest = folder / "manifest.json"
    return Path(manifest if manifest.is_file() else folder).stat().st_mtime


def _manifest(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and set(found) >= _NEEDED else {}


def read_filters(arguments: Sequence[str]) -> dict[str, str]:
    """``model=zoo/*`` as name and pattern.

    Raises:
        ConfigError: not of that form.
    """
    pairs = [argument.partition("=") for argument in arguments]
    odd = [name for name, equals, _ in pairs if not equals]
    if odd:
        raise ConfigError(f"runs {odd[0]} was asked", allowed="filters as in model=zoo/ioi 'method=activation_*'")
    return {name: pattern for name, _, pattern in pairs}
