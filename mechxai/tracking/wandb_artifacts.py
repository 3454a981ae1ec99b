"""W&B artifacts of a run: what it was made from, and what it made, each naming the other."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mechxai.core.errors import ArtifactError

_STAGING = "WANDB_DATA_DIR"  # where W&B reads on which disk it keeps copies


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """W&B's copies of what is recorded go into the record's own folder, not the home directory, where they would stay.

    A folder that the user chose for them (``WANDB_DATA_DIR``) is respected.
    """
    if os.environ.get(_STAGING):
        yield
        return
    os.environ[_STAGING] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_STAGING, None)


def use_input(wandb: Any, run: Any, name: str, *, kind: str, content: Mapping[str, object]) -> dict[str, str]:
    """Declares a record as an input of a run; returns name, type and digest.

    ``run.use_artifact`` refuses to work offline, and online waits without end where the network is gone. The call below
    it writes the same record in both cases: the artifact is made and, once it is there, marked as used by the run;
    offline ``wandb sync`` does so. Where a release of W&B lacks that call, the input is logged like any artifact, and
    the link is in the metadata of what the run makes.
    """
    artifact = wandb.Artifact(_legal(name), kind, metadata=_small(content))
    with artifact.new_file(f"{kind}.json", encoding="utf-8") as opened:
        json.dump(content, opened, indent=1, ensure_ascii=False)
    about = {"name": artifact.name, "type": kind, "digest": artifact.digest}
    log = getattr(run, "_log_artifact", None)
    if log is None:
        run.log_artifact(artifact)
    else:
        log(artifact, is_user_created=True, use_after_commit=True)
    return about


def log_output(wandb: Any, run: Any, path: Path, *, name: str, kind: str, about: Mapping[str, object]) -> None:
    """Records a file or folder as made by a run.

    Raises:
        ArtifactError: no such path.
    """
    if not path.exists():
        raise ArtifactError(f"Artifact {name!r} was to be recorded from {path}", got="no such file or folder")
    if path.is_dir():
        artifact = wandb.Artifact(_legal(name), kind, metadata=dict(about))
        artifact.add_dir(str(path))
    else:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        metadata = {**about, "bytes": path.stat().st_size, "sha256": digest}
        artifact = wandb.Artifact(_legal(name), kind, metadata=metadata)
        artifact.add_file(str(path))
    run.log_artifact(artifact)


def _small(content: Mapping[str, object]) -> dict[str, object]:
    """What of a record is shown beside its name: all but long lists."""
    return {key: value for key, value in content.items() if not isinstance(value, list)}


def _legal(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:128]
