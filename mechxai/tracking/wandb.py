"""Weights & Biases: one W&B run per MechXAI run, online or in a folder that ``wandb sync`` uploads later."""

import io
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from mechxai.core.errors import ArtifactError, ConfigError
from mechxai.tracking.plain import plain, plain_mapping, scrub
from mechxai.tracking.wandb_artifacts import record_input, record_output, staging_in
from mechxai.tracking.wandb_session import (
    NO_NETWORK,
    WandbMode,
    check_free_space,
    check_writable,
    choose_mode,
    configured_mode,
    forget_process,
    is_process_gone,
    load_wandb,
    stderr_to_log,
    under_agent,
)

_LOG = logging.getLogger("mechxai.tracking")
_EMPTY_RECORD = 7  # bytes of a record without entries; W&B writes about 30 kB at a time
_FINAL_WRITE = 4096  # bytes; with less free space, the end of the record may be missing


@final
@dataclass
class WandbTracker:
    """Records runs in Weights & Biases.

    The mode is the field, else the variable ``WANDB_MODE``, else the setting of ``wandb offline`` or ``wandb online``;
    with none of these and no API key on this machine, it is offline. The tracker never prompts for a key. Other W&B
    runs of the same process are left alone. Before `start`, after `close` and in mode ``disabled`` all calls do
    nothing.

    Attributes:
        project: W&B project.
        entity: W&B user or team; None for the account's default.
        mode: online, offline or disabled; None as above.
        directory: the folder in which ``wandb/`` is written; None for ``WANDB_DIR``, else the working directory.
        tags: of every run.
        init_timeout: seconds in which W&B must answer at the start.
        finish_timeout: seconds in which W&B must finish uploading at the end; the rest stays in the folder.
    """

    project: str = "mechxai"
    entity: str | None = None
    mode: WandbMode | None = None
    directory: str | os.PathLike[str] | None = None
    tags: Sequence[str] = ()
    init_timeout: float | int = 30.0
    finish_timeout: float | int = 60.0
    _run: Any = field(default=None, init=False, repr=False)
    _about: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    _inputs: list[dict[str, str]] = field(default_factory=list, init=False, repr=False)
    _where: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        configured_mode(self.mode)  # refuses an unknown mode before anything is computed

    def awaited(self) -> bool:
        """Whether a W&B agent started this process: the agent waits for the run of its id."""
        return under_agent() and configured_mode(self.mode) != "disabled"

    def start(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        group: str | None = None,
        job_type: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Opens a W&B run.

        Raises:
            ConfigError: an unknown mode; online without an API key; a run of this tracker is still open.
            ArtifactError: the directory cannot be written.
        """
        if self._run is not None:
            raise ConfigError("A W&B run of this tracker is still open", fix="Close it first")
        self._where = None
        configured = configured_mode(self.mode)
        if configured == "disabled":
            return
        check_writable(self.directory)
        wandb = load_wandb()
        with stderr_to_log():
            mode, reason = choose_mode(wandb, configured)
            recorded = plain_mapping(config)
            arguments = {"name": name, "config": recorded, "group": group, "job_type": job_type, "mode": mode}
            arguments |= self._identity(run_id, online=mode not in NO_NETWORK)
            try:
                run = wandb.init(**arguments, **self._location_and_settings(wandb))
            except Exception as problem:
                if not is_process_gone(problem):
                    raise
                forget_process(wandb)
                run = wandb.init(**arguments, **self._location_and_settings(wandb))
        if mode == "disabled":
            return
        self._run, self._inputs = run, []
        self._about = {"run": name, "run_id": run.id, "config": recorded}
        self._where = f"W&B run: {run.url}" if mode not in NO_NETWORK else _folder_note(run, reason)
        _LOG.info(self._where)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Adds one step to the history."""
        if self._run is not None:
            self._run.log({name: float(value) for name, value in values.items()})

    def summary(self, values: Mapping[str, object]) -> None:
        """Sets the headline numbers."""
        if self._run is not None:
            self._run.summary.update(plain_mapping(values))

    def figure(self, name: str, figure: Any) -> None:
        """Records a figure as interactive plotly, else as the HTML page of its ``to_html()``.

        Raises:
            ConfigError: a figure that is neither plotly's nor has ``to_html()``.
        """
        if self._run is None:
            return
        wandb = load_wandb()
        try:
            media = wandb.Plotly(figure)
        except (ValueError, TypeError, AttributeError, RuntimeError) as problem:
            if not callable(getattr(figure, "to_html", None)):
                raise ConfigError(
                    f"The figure {name!r} is a {type(figure).__name__}, which W&B cannot show",
                    allowed="plotly figures, and objects with to_html()",
                ) from problem
            media = wandb.Html(io.StringIO(figure.to_html()), inject=False)
        self._run.log({name: media})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Records a table."""
        if self._run is None:
            return
        table = load_wandb().Table(columns=list(columns), data=[[_cell(value) for value in row] for row in rows])
        with staging_in(self._folder()):
            self._run.log({name: table})

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Declares an input: an artifact with one JSON file, which all later artifacts of the run name."""
        if self._run is None:
            return
        with staging_in(self._folder()):
            about = record_input(load_wandb(), self._run, name, kind=kind, content=plain_mapping(content))
        self._inputs.append(about)

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Records a file or folder as the run's output, with its config and the names of its inputs as metadata.

        Raises:
            ArtifactError: the path does not exist.
        """
        if self._run is None:
            return
        with staging_in(self._folder()):
            about = {**self._about, "inputs": list(self._inputs)}
            record_output(load_wandb(), self._run, path, name=name, kind=kind, about=about)

    def where(self) -> str | None:
        """The address of the run's page, or the folder of an offline record; after `close`, those of the last run."""
        return self._where

    def close(self, *, failed: bool = False) -> None:
        """Finishes the W&B run, with exit code 1 when it failed.

        Raises:
            ArtifactError: W&B did not finish within ``finish_timeout``, its service process was killed, or the disk is
                full, so that the end of the record may be missing; the written part remains in the folder.
        """
        run, self._run = self._run, None
        if run is None:
            return
        folder = Path(run.dir).parent
        try:
            run.finish(exit_code=int(failed))
        except ConnectionError as cut:
            forget_process(load_wandb())
            written = any(path.stat().st_size > _EMPTY_RECORD for path in folder.glob("*.wandb"))
            self._where = self._where if written else None
            raise ArtifactError(
                f"W&B's service process is gone ({cut}); it has written "
                f"{'only the beginning' if written else 'nothing'} of the record",
                fix=f"Upload it with wandb sync {folder}" if written else None,
            ) from cut
        except TimeoutError as late:
            raise ArtifactError(
                f"W&B did not take the rest of the run within {self.finish_timeout:g} s",
                fix=f"Upload it with wandb sync {folder}",
            ) from late
        check_free_space(folder, _FINAL_WRITE)

    def _identity(self, run_id: str | None, *, online: bool) -> dict[str, object]:
        """Project and id; under a W&B agent, the agent's, because its sweep sees no other run."""
        if under_agent():
            identity = {"id": os.environ.get("WANDB_RUN_ID"), "project": None, "entity": None}
        else:
            identity = {"id": run_id, "project": self.project, "entity": self.entity}
        return {**identity, "resume": "allow" if online and identity["id"] is not None else None}

    def _location_and_settings(self, wandb: Any) -> dict[str, object]:
        return {
            "tags": [str(tag) for tag in self.tags],
            "dir": self.directory,
            "reinit": "create_new",  # runs of one process, nested or one after the other, never share a record
            "settings": self._settings(wandb),
        }

    def _folder(self) -> Path:
        """The folder of the run's record."""
        return Path(self._run.dir).parent

    def _settings(self, wandb: Any) -> Any:
        """Silent, with timeouts; without machine metadata if the command line contains a secret."""
        settings = {
            "silent": True,
            "quiet": True,
            "console": "off",
            "init_timeout": self.init_timeout,
            "finish_timeout": self.finish_timeout,
            "finish_timeout_raises": True,
            "x_disable_meta": any(scrub(argument) != argument for argument in sys.argv),
        }
        known = wandb.Settings.model_fields  # older releases have no finish_timeout
        return wandb.Settings(**{name: value for name, value in settings.items() if name in known})


def _cell(value: object) -> object:
    """A value of a table; None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else plain(value)


def _folder_note(run: Any, reason: str) -> str:
    folder = Path(run.dir).parent
    return f"W&B record (offline{reason}): {folder}; to upload it: wandb sync {folder}"
