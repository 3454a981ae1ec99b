"""The bundled configuration's groups, choices and settings, read as text.

Composing the configuration would tell more, but importing hydra takes longer than a shell's completion may. What a
setting allows is not written in these files: it comes from the annotation of the field or argument it sets.
"""

import re
from pathlib import Path

from mechxai._public import public_names
from mechxai._resources import configs_dir
from mechxai.core.annotation import Annotation
from mechxai.core.signature import read_signature
from mechxai.core.site_table import SITES
from mechxai.core.source import find
from mechxai.methods.catalog import catalog

LAUNCHERS = {"basic": "", "joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
"""Launcher -> the extra that installs it."""

_KEY = re.compile(r"(?P<key>\w+):(?: +(?P<value>[^#]*))?")
_DEFAULT = re.compile(
    r" +- (?:override )?/?(?P<group>\w+)(?:/(?P<deep>[\w-]+))?(?:@(?P<package>[\w.]+))?(?:: *(?P<choice>\S+))?$"
)
_NO_SETTINGS = ("defaults", "_target_", "_partial_", "hydra")
_RUN_SETTINGS = "mechxai.sweeps.run_settings.RunSettings"


def groups() -> list[str]:
    """Names of a run's groups (``model``, ``task`` ...), in the configuration's order."""
    return [group for _, group, _ in _defaults(configs_dir() / "run.yaml") if (configs_dir() / group).is_dir()]


def choices_of(group: str) -> list[str]:
    """The choices of a group; of ``method``, also methods without a file; empty where there is no such group."""
    folder = configs_dir() / group
    files = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")}
    return sorted(files | set(catalog()) if group == "method" else files)


def settings(group: str, choice: str) -> dict[str, Annotation]:
    """Setting -> the values it takes, of a choice, in its file's order; of the run itself for an empty group."""
    if group == "method" and choice in catalog():
        return {name: field.annotation for name, field in catalog()[choice].fields.items()}
    target = target_of(group, choice) if group else _RUN_SETTINGS
    module, _, name = target.rpartition(".")
    signature = read_signature(module, name)
    parameters = signature.parameters if signature else {}
    keys = [key for key in _keys(group, choice) if key not in _NO_SETTINGS]
    return {key: parameters[key].annotation if key in parameters else Annotation(open=True) for key in keys}


def values_of(key: str, annotation: Annotation) -> tuple[object, ...]:
    """The values that a shell offers for a setting: its choices; for ``site`` the names of sites."""
    return tuple(SITES) if key == "site" else annotation.values


def is_block(group: str, choice: str, key: str) -> bool:
    """Whether a setting's value is a mapping, which no single value sets."""
    return _keys(group, choice).get(key, "").strip() in ("", "{}")


def target_of(group: str, choice: str) -> str:
    """The dotted name of what a choice makes; empty where it makes nothing."""
    if group == "method" and choice in catalog():
        return catalog()[choice].target
    return resolved_target(_keys(group, choice).get("_target_", "").strip())


def resolved_target(target: str) -> str:
    """A target as the module and name that define it: ``mechxai.tasks.ioi`` lies in ``mechxai.tasks.generators``."""
    module, _, name = target.rpartition(".")
    module = public_names().get(name, module) if module == "mechxai" else module
    definition = find(module, name) if module else None
    return f"{definition.module}.{name}" if definition is not None else target


def comment_of(group: str, choice: str) -> str:
    """The first sentence of the comment at the head of a choice's file."""
    lines = config_text(group, choice).splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line)
    match = re.match(r".*?[.?:](?=\s|$)", comment)
    return match.group(0) if match else comment


def config_text(group: str, choice: str) -> str:
    """The text of a choice's file; empty where there is none."""
    path = _path(group, choice)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def chosen(experiment: str) -> dict[str, str]:
    """Group, or place in the configuration (``also.z``) -> what an experiment, or the configuration alone, chooses."""
    choices: dict[str, str] = {}
    for path in (configs_dir() / "run.yaml", configs_dir() / "experiment" / f"{experiment}.yaml"):
        for package, group, choice in _defaults(path) if path.is_file() else ():
            choices[package or group] = choice
    return {place: choice for place, choice in choices.items() if choice != "null"}


def group_of(place: str) -> str:
    """The group of a place in the configuration: ``also.z`` holds a method."""
    return "method" if place.startswith("also.") else place


def _path(group: str, choice: str) -> Path:
    return configs_dir() / group / f"{choice}.yaml" if group else configs_dir() / f"{choice}.yaml"


def _keys(group: str, choice: str) -> dict[str, str]:
    """Top-level key -> its value as text, those of the files that a choice begins with included."""
    path = _path(group, choice)
    if not path.is_file():
        return {}
    keys: dict[str, str] = {}
    for package, base, inherited in _defaults(path):
        if package == "_here_":
            keys |= _keys(base, inherited)
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _KEY.match(line)
        if match:
            keys[match["key"]] = match["value"] or ""
    return keys


def _defaults(path: Path) -> list[tuple[str, str, str]]:
    """Package, group and choice of every line in a file's defaults list."""
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = [match for line in lines if (match := _DEFAULT.match(line.split(" #")[0]))]
    return [
        (match["package"] or "", match["group"], match["choice"] or match["deep"])
        for match in matches
        if match["choice"] or match["deep"]
    ]
