"""The folder of a run: its name, its files, and whether it is finished.

The name ends in a hash of what decides the run's numbers, so that the same question always leads to the same folder.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechxai.core.fingerprint import Fingerprints
from mechxai.core.method import Method
from mechxai.core.prompts import Prompts
from mechxai.core.versions import versions
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.runs.manifest import read_manifest

AnyModel = HookedModel | NamedOutputs | Generator
ID_LENGTH = 10
"""Letters of a run's id that are shown, and in which its folder's name ends."""
_ID = re.compile(rf"-(?P<id>[0-9a-f]{{{ID_LENGTH}}})$")
_DECISIVE_VERSIONS = ("mechxai", "torch", "transformer-lens", "transformers")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, which lies in ``output/experiment/model``.

    Attributes:
        path: of the folder.
    """

    path: Path

    @property
    def id(self) -> str:
        """The letters of the run's id in which the name ends; empty for a folder of another name."""
        match = _ID.search(self.path.name)
        return match["id"] if match else ""

    @property
    def output(self) -> Path:
        """The folder that the setting ``output`` named."""
        return self.path.resolve().parents[2]

    @property
    def result(self) -> Path:
        """The result's file."""
        return self.path / "result.nc"

    @property
    def report(self) -> Path:
        """The report's page."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.path / "figures"

    @property
    def cells(self) -> Path:
        """The folder of finished pieces of an unfinished run."""
        return self.path / "cells"

    @property
    def config(self) -> Path:
        """The folder of the configuration, as composed and as overrides."""
        return self.path / ".hydra"

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest's content; empty for an unfinished run."""
        return read_manifest(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished: its manifest can be read, and its result is there."""
        return bool(self.manifest) and self.result.is_file()

    def files(self) -> list[str]:
        """The files of the run, relative to its folder, without its cells."""
        paths = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        return sorted(str(path) for path in paths if self.cells.name not in path.parts)


def run_folder(root: Path, model: AnyModel, prompts: Prompts, method: Method, *, seed: int) -> RunFolder:  # noqa: PLR0917
    """The folder of one method's run below ``root``."""
    settings = method.settings()
    words = [str(settings["name"]), _site_text(settings.get("site"))]
    label = "-".join(_plain_name(word) for word in words if word)
    run = run_id(model, prompts, method, seed=seed)
    return RunFolder(root / _plain_name(model.name).strip("-") / f"{label}-{run[:ID_LENGTH]}")


def run_id(model: AnyModel, prompts: Prompts, method: Method, *, seed: int) -> str:
    """A hash of what decides a run's numbers: method, prompts and answers, model and weights, seed, versions."""
    info = model.info()
    parts: dict[str, object] = {name: info[name] for name in ("weight_hash", "backend", "processing", "dtype")}
    installed = versions()
    parts |= {
        "method": method.settings(),
        "seed": seed,
        "versions": {name: installed[name] for name in _DECISIVE_VERSIONS},
    }
    parts |= _plugin_code(method)
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16)
    digest.update(Fingerprints()(prompts.identity).encode())
    return digest.hexdigest()


def _plugin_code(method: Method) -> Mapping[str, object]:
    """The hash of a plugin's file, since no version names its code; empty for methods of this package."""
    kind = type(method)
    if kind.__module__.partition(".")[0] == "mechxai":
        return {}
    path = inspect.getsourcefile(kind)
    code = Path(path).read_bytes() if path and Path(path).is_file() else b""
    return {"plugin": kind.__qualname__, "code": hashlib.blake2b(code, digest_size=16).hexdigest()}


def _plain_name(word: str) -> str:
    return re.sub(r"[^\w.]+", "-", word)


def _site_text(site: object) -> str:
    return "-".join(map(str, site)) if isinstance(site, (list, tuple)) else str(site or "")
