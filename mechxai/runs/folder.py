"""The folder of a run: its name, its files, and whether it is finished.

The name ends in a hash of what decides the run's numbers, so that the same question always leads to the same folder.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mechxai.core.fingerprint import Fingerprints
from mechxai.core.method import Method
from mechxai.core.pieces import file_checksum
from mechxai.core.prompts import Prompts
from mechxai.core.versions import versions
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.runs.manifest import MANIFEST, UNFINISHED, read_manifest, read_unfinished

AnyModel = HookedModel | NamedOutputs | Generator
Status = Literal["finished", "damaged", "running", "unfinished"]
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
    def status(self) -> Status:
        """``finished``, ``damaged`` where the manifest or the result cannot be trusted, or ``unfinished``."""
        if not (self.path / MANIFEST).exists():
            return "unfinished"
        return "finished" if self.manifest and self.is_sound(self.result) else "damaged"

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished, and its manifest and its result are undamaged."""
        return self.status == "finished"

    def is_sound(self, file: Path) -> bool:
        """Whether a file has its checksum in the manifest, or in ``unfinished.json`` before there is a manifest."""
        files = (self.manifest or read_unfinished(self.path)).get("files")
        name = str(file.relative_to(self.path))
        return isinstance(files, dict) and name in files and files[name] == file_checksum(file)

    def damaged_files(self) -> list[str]:
        """The files of a finished run that are missing or have another checksum than the manifest says."""
        return [name for name in self.manifest.get("files", {}) if not self.is_sound(self.path / name)]

    def checksums(self) -> dict[str, str]:
        """File, relative to the folder -> checksum; without cells, manifests and what was set aside."""
        checksums: dict[str, str] = {}
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            is_own = name.parts[0] != self.cells.name and path.name not in (MANIFEST, UNFINISHED)
            if path.is_file() and is_own and not path.name.endswith((".damaged", ".part")):
                checksums[str(name)] = file_checksum(path)
        return checksums


def run_folder(root: Path, model: str, words: Sequence[str], *, run: str) -> RunFolder:
    """The folder of one method's run below ``root``.

    Args:
        root: of the experiment.
        model: name of the model.
        words: of the method; see `method_words`.
        run: the run's id; see `run_id`.
    """
    label = "-".join(_plain_name(word) for word in words)
    return RunFolder(root / _plain_name(model).strip("-") / f"{label}-{run[:ID_LENGTH]}")


def method_words(method: Method) -> list[str]:
    """The words of a method in the name of its run folder: its name and its site."""
    settings = method.settings()
    return [word for word in (str(settings["name"]), _site_text(settings.get("site"))) if word]


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
