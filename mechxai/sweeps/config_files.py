"""What a run can be told, read from the configuration's files as text.

Composing the configuration would tell more, but importing hydra takes longer than one waits for a completion.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mechxai._resources import configs_dir

# launchers and the extra that brings them
LAUNCHERS = {"basic": "", "joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}

_SETTING = re.compile(r"(?P<key>\w+):(?: +(?P<value>[^#]*))?(?:#(?P<comment>.*))?$")
_DEFAULT = re.compile(
    r" +- (?:override )?/?(?P<group>\w+)(?:/(?P<deep>[\w-]+))?(?:@(?P<package>[\w.]+))?(?:: *(?P<choice>\S+))?$"
)
_WORD = re.compile(r"[\w:./-]+")


@dataclass(frozen=True)
class Setting:
    """One key of a file.

    Attributes:
        value: as written; empty for a block.
        allowed: the values that the comment beside it lists; empty where it lists none.
    """

    value: str
    allowed: tuple[str, ...]


def groups() -> list[str]:
    """Names of a run's groups (``model``, ``task`` ...), in its configuration's order."""
    return [group for _, group, _ in _defaults(configs_dir() / "run.yaml") if (configs_dir() / group).is_dir()]


def choices_of(group: str) -> list[str]:
    """What can be chosen of a group; nothing where there is no such group."""
    folder = configs_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def settings(group: str, choice: str) -> dict[str, Setting]:
    """The keys of a choice, in the file's order, those of the files it begins with included."""
    path = configs_dir() / group / f"{choice}.yaml" if group else configs_dir() / f"{choice}.yaml"
    if not path.is_file():
        return {}
    found: dict[str, Setting] = {}
    for package, base, inherited in _defaults(path):
        if package == "_here_":
            found |= settings(base, inherited)
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _SETTING.match(line)
        if match and match["key"] not in ("defaults", "_target_", "_partial_", "hydra"):
            value = (match["value"] or "").strip()
            found[match["key"]] = Setting(value, _listed(match["comment"] or "", value))
    return found


def chosen(experiment: str) -> dict[str, str]:
    """Group, or place in the configuration (``also.z``), -> what is chosen there with an experiment, or with none."""
    found: dict[str, str] = {}
    for path in (configs_dir() / "run.yaml", configs_dir() / "experiment" / f"{experiment}.yaml"):
        for package, group, choice in _defaults(path) if path.is_file() else ():
            found[package or group] = choice
    return {place: choice for place, choice in found.items() if choice != "null"}


def group_of(place: str) -> str:
    """The group of a place in the configuration: ``also.z`` holds a method."""
    return "method" if place.startswith("also.") else place


def _defaults(path: Path) -> list[tuple[str, str, str]]:
    """Package, group and choice of a file's defaults list."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _DEFAULT.match(line.split(" #")[0])
        if match and (match["choice"] or match["deep"]):
            found.append((match["package"] or "", match["group"], match["choice"] or match["deep"]))
    return found


def _listed(comment: str, value: str) -> tuple[str, ...]:
    """The values of a switch, or of a comment such as ``denoise (...) | noise``, of which the file's own is one."""
    if value in ("true", "false"):
        return ("true", "false")
    plain = re.sub(r"\([^)]*\)", " ", comment).replace("...", " ").strip()
    parts = [part.strip() for part in (plain.split("|") if "|" in plain else plain.split())]
    listed = tuple(part for part in parts if _WORD.fullmatch(part))
    return listed if len(listed) == len(parts) and value.strip("\"'") in listed else ()
