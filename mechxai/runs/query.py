"""Runs on disk: listed below a folder, filtered, and looked up by the first letters of their id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, get_args

import yaml

from mechxai.core.cached import cached_property
from mechxai.core.errors import ArtifactError, ConfigError, nearest, unknown
from mechxai.core.result import Result
from mechxai.runs.folder import ID_LENGTH, RunFolder, Status
from mechxai.runs.locks import every_lock
from mechxai.runs.manifest import MANIFEST, UNFINISHED, read_unfinished

_STATUS = get_args(Status)
FILTERS = ("run", "experiment", "method", "site", "model", "task", "n", "seed", "status")


@dataclass(frozen=True)
class RunRecord:
    """A run on disk, finished or not; what it says of itself is read once.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @property
    def files(self) -> RunFolder:
        """Its folder's files."""
        return RunFolder(self.folder)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest's content; empty for an unfinished run and a damaged manifest."""
        return self.files.manifest

    @cached_property
    def status(self) -> Status:
        """Whether it is finished, damaged, running in some process, or unfinished."""
        status = self.files.status
        if status == "unfinished":
            with every_lock(self.folder, self.root) as free:
                return status if free else "running"
        return status

    @property
    def finished(self) -> bool:
        """Whether the run is finished and undamaged."""
        return self.status == "finished"

    @property
    def root(self) -> Path:
        """The folder that the setting ``output`` named."""
        return self.files.output

    @property
    def overrides(self) -> list[str] | None:
        """The overrides that started the run; None where the folder does not hold them undamaged."""
        try:
            file = self.files.config / "overrides.yaml"
            content = yaml.safe_load(file.read_text(encoding="utf-8")) if self.files.is_sound(file) else None
        except (OSError, ValueError, yaml.YAMLError):
            return None
        return [str(item) for item in content] if isinstance(content, list) else None

    @cached_property
    def facts(self) -> dict[str, str]:
        """What a run can be filtered by; of a run whose files are damaged only its id."""
        content = self.manifest or read_unfinished(self.folder)
        method, model, task = (_mapping(content.get(key)) for key in ("method", "model", "task"))
        return {
            "run": str(content.get("run") or self.files.id)[:ID_LENGTH],
            "experiment": str(content.get("experiment") or ""),
            "method": str(method.get("name") or ""),
            "site": str(method.get("site") or ""),
            "model": str(model.get("name") or ""),
            "task": str(task.get("name") or ""),
            **{key: "" if task.get(key) is None else str(task[key]) for key in ("n", "seed")},
            "status": self.status,
        }

    @property
    def time(self) -> float:
        """When its manifest was written, or an unfinished run's folder last changed, in seconds since 1970."""
        manifest = self.folder / MANIFEST
        return Path(manifest if manifest.is_file() else self.folder).stat().st_mtime

    def result(self) -> Result:
        """The result of the run.

        Raises:
            ArtifactError: the run is unfinished, or its file is damaged.
        """
        return Result.load(self.files.result)


def list_runs(root: Path, filters: Mapping[str, str] | None = None) -> list[RunRecord]:
    """The runs below a folder, the oldest first.

    Args:
        root: the folder.
        filters: name of `FILTERS` -> pattern with ``*`` and ``?``; all must match.

    Raises:
        ConfigError: an unknown filter or status.
    """
    filters = filters or {}
    for name in filters:
        if name not in FILTERS:
            raise ConfigError(unknown("filter", name, FILTERS))
    if not any(fnmatch(status, filters.get("status", "*")) for status in _STATUS):
        raise ConfigError(f"status={filters['status']} matches no run", allowed=_STATUS)
    folders = {path.parent for name in (MANIFEST, UNFINISHED, "cells", "result.nc") for path in root.rglob(name)}
    runs = [RunRecord(folder) for folder in folders if RunFolder(folder).id and not folder.is_symlink()]
    runs.sort(key=lambda run: (run.time, run.folder))
    return [run for run in runs if all(fnmatch(run.facts[name], pattern) for name, pattern in filters.items())]


def find_run(root: Path, name: str, *, unfinished: bool = False) -> RunRecord:
    """The run in a folder, or the only one whose id begins with some letters.

    Args:
        root: the folder below which the run lies.
        name: its folder, or the first letters of its id.
        unfinished: whether an unfinished run is accepted.

    Raises:
        ArtifactError: there is no such run, or there are several.
    """
    record = RunRecord(Path(name))
    if record.files.is_finished or (
        unfinished and any((record.folder / file).exists() for file in (MANIFEST, UNFINISHED, "cells"))
    ):
        return record
    runs = list_runs(root)
    named = [run for run in runs if run.facts["run"].startswith(name)]
    matching = [run for run in named if run.finished or unfinished]
    if len(matching) == 1:
        return matching[0]
    if named and not matching:
        raise ArtifactError(f"Run {name!r} below {root} is not finished", fix=f"See mechxai runs show {name}")
    known = [run.facts["run"] for run in matching or runs if run.finished or unfinished]
    has = "Several runs below {} have" if matching else "No run below {} has"
    problem = f"{has.format(root)} an id that begins with {name!r}"
    raise ArtifactError(
        f"{problem}. {nearest(name, known)}" if known else problem,
        fix="Give more letters of the id, or the run's folder (mechxai runs lists them)",
    )


def read_filters(arguments: Sequence[str]) -> dict[str, str]:
    """``model=zoo/*`` as name and pattern.

    Raises:
        ConfigError: an argument of another form.
    """
    pairs = [argument.partition("=") for argument in arguments]
    for name, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"{name!r} is not a filter", fix="Write name=pattern, as in 'model=zoo/*'")
    return {name: pattern for name, _, pattern in pairs}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
