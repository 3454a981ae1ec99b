"""W&B artifacts of a run: its inputs and outputs, linked to the run and to each other."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mechxai.core.errors import ArtifactError

_STAGING = "WANDB_DATA_DIR"  # the folder in which W&B keeps copies of artifacts


@contextlib.contextmanager
def staging_in(folder: Path) -> Iterator[None]:
    """Lets W&B copy artifacts into the record's folder instead of the home directory, where the copies would remain.

    A folder set by the user (``WANDB_DATA_DIR``) takes precedence.
    """
    if os.environ.get(_STAGING):
        yield
        return
    os.environ[_STAGING] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_STAGING, None)


def record_input(wandb: Any, run: Any, name: str, *, kind: str, content: Mapping[str, object]) -> dict[str, str]:
    """Declares an input of a run as an artifact; returns its name, type and digest.

    ``run.use_artifact`` does not work offline, and online it waits without end for a lost network. The private call
    below it works in both cases: the artifact is created and then marked as used by the run (offline, by ``wandb
    sync``). In a release of W&B without that call, the input is logged like any artifact, and the metadata of the
    run's outputs holds the link.
    """
    artifact = wandb.Artifact(_artifact_name(name), kind, metadata=_without_lists(content))
    with artifact.new_file(f"{kind}.json", encoding="utf-8") as opened:
        json.dump(content, opened, indent=1, ensure_ascii=False)
    about = {"name": artifact.name, "type": kind, "digest": artifact.digest}
    log = getattr(run, "_log_artifact", None)
    if log is None:
        run.log_artifact(artifact)
    else:
        log(artifact, is_user_created=True, use_after_commit=True)
    return about


def record_output(wandb: Any, run: Any, path: Path, *, name: str, kind: str, about: Mapping[str, object]) -> None:
    """Records a file or folder as the output of a run.

    Raises:
        ArtifactError: the path does not exist.
    """
    if not path.exists():
        raise ArtifactError(f"{path}, to be recorded as {name!r}, does not exist")
    if path.is_dir():
        artifact = wandb.Artifact(_artifact_name(name), kind, metadata=dict(about))
        artifact.add_dir(str(path))
    else:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        metadata = {**about, "bytes": path.stat().st_size, "sha256": digest}
        artifact = wandb.Artifact(_artifact_name(name), kind, metadata=metadata)
        artifact.add_file(str(path))
    run.log_artifact(artifact)


def _without_lists(content: Mapping[str, object]) -> dict[str, object]:
    """The metadata of an input: its content without lists, which may be long."""
    return {key: value for key, value in content.items() if not isinstance(value, list)}


def _artifact_name(name: str) -> str:
    """The name without characters that W&B refuses."""
    return re.sub(r"[^\w.-]+", "-", name)[:128]
