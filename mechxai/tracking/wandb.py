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
from mechxai.tracking.wandb_artifacts import kept_in, log_output, use_input
from mechxai.tracking.wandb_session import (
    NO_NETWORK,
    asked_mode,
    by_agent,
    check_room,
    check_writable,
    choose_mode,
    forget_process,
    hushed,
    is_gone,
    load_wandb,
)

_LOG = logging.getLogger("mechxai.tracking")
_HEADER = 7  # bytes of a record that holds nothing; W&B writes some 30 kB at a time
_LAST = 4096  # bytes: where a record could not be written to its end, not so much is free


@final
@dataclass
class WandbTracker:
    """Records runs in Weights & Biases.

    Which mode: the field, else the variable ``WANDB_MODE``, else what ``wandb offline`` or ``wandb online`` set; with
    none of these and no API key on this machine, offline. It never asks for a key. A run that is active in the same
    process, ours or not, is left alone. Before `start`, after `close` and in mode ``disabled`` all calls do nothing.

    Attributes:
        project: W&B project.
        entity: W&B user or team; None for the account's default.
        mode: online, offline or disabled; None as above.
        directory: where ``wandb/`` with its files goes; None for ``WANDB_DIR``, else the working directory.
        tags: of every run.
        init_timeout: seconds W&B may take to answer at the start.
        finish_timeout: seconds it may take at the end to upload what is left; the rest stays in the folder.
    """

    project: str = "mechxai"
    entity: str | None = None
    mode: str | None = None
    directory: str | os.PathLike[str] | None = None
    tags: Sequence[str] = ()
    init_timeout: float | int = 30.0
    finish_timeout: float | int = 60.0
    _run: Any = field(default=None, init=False, repr=False)
    _about: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    _inputs: list[dict[str, str]] = field(default_factory=list, init=False, repr=False)
    _where: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        asked_mode(self.mode)  # before anything is computed

    def awaited(self) -> bool:
        """Whether a W&B agent started this process: it waits for the run whose id it gave."""
        return by_agent() and asked_mode(self.mode) != "disabled"

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
            raise ConfigError("A second W&B run was started", got="one that is still open", fix="close it first")
        self._where = None
        asked = asked_mode(self.mode)
        if asked == "disabled":
            return
        check_writable(self.directory)
        wandb = load_wandb()
        with hushed():
            mode, why = choose_mode(wandb, asked)
            recorded = plain_mapping(config)
            own = {"name": name, "config": recorded, "group": group, "job_type": job_type, "mode": mode}
            own |= self._who(run_id, online=mode not in NO_NETWORK)
            try:
                run = wandb.init(**own, **self._where_and_how(wandb))
            except Exception as problem:
                if not is_gone(problem):
                    raise
                forget_process(wandb)
                run = wandb.init(**own, **self._where_and_how(wandb))
        if mode == "disabled":
            return
        self._run, self._inputs = run, []
        self._about = {"run": name, "run_id": run.id, "config": recorded}
        self._where = f"W&B run: {run.url}" if mode not in NO_NETWORK else _folder_note(run, why)
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
        """Records a figure as interactive plotly, else as the HTML page it can write.

        Raises:
            ConfigError: neither a figure W&B knows nor one with ``to_html()``.
        """
        if self._run is None:
            return
        wandb = load_wandb()
        try:
            media = wandb.Plotly(figure)
        except (ValueError, TypeError, AttributeError, RuntimeError) as problem:
            if not callable(getattr(figure, "to_html", None)):
                got = type(figure).__name__
                raise ConfigError(
                    f"Figure {name!r} was to be recorded", got=got, allowed="plotly, to_html()"
                ) from problem
            media = wandb.Html(io.StringIO(figure.to_html()), inject=False)
        self._run.log({name: media})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Records a table."""
        if self._run is None:
            return
        shown = load_wandb().Table(columns=list(columns), data=[[_cell(value) for value in row] for row in rows])
        with kept_in(self._folder()):
            self._run.log({name: shown})

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Declares an input: an artifact with one JSON file, which all that the run makes from here on names."""
        if self._run is None:
            return
        with kept_in(self._folder()):
            found = use_input(load_wandb(), self._run, name, kind=kind, content=plain_mapping(content))
        self._inputs.append(found)

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Records a file or folder as made by the run, with its config and the names of its inputs as metadata.

        Raises:
            ArtifactError: no such path.
        """
        if self._run is None:
            return
        with kept_in(self._folder()):
            about = {**self._about, "inputs": list(self._inputs)}
            log_output(load_wandb(), self._run, path, name=name, kind=kind, about=about)

    def where(self) -> str | None:
        """Address of the run page, or the folder of an offline record; of the last run once closed."""
        return self._where

    def close(self, *, failed: bool = False) -> None:
        """Finishes the W&B run, with exit code 1 when it failed.

        Raises:
            ArtifactError: W&B did not take everything within ``finish_timeout``, its own process was killed, or no
                disk is left, so that the record may end early; what was written remains in the folder.
        """
        run, self._run = self._run, None
        if run is None:
            return
        folder = Path(run.dir).parent
        try:
            run.finish(exit_code=int(failed))
        except ConnectionError as cut:
            forget_process(load_wandb())
            written = any(path.stat().st_size > _HEADER for path in folder.glob("*.wandb"))
            self._where = self._where if written else None
            raise ArtifactError(
                "W&B's own process was to end the run",
                got=f"it is gone ({cut}); of the record it had written {'the beginning' if written else 'nothing'}",
                fix=f"wandb sync {folder} uploads that" if written else None,
            ) from cut
        except TimeoutError as late:
            raise ArtifactError(
                f"W&B was to take the rest of the run within {self.finish_timeout:g} s",
                got="no answer",
                fix=f"wandb sync {folder}",
            ) from late
        check_room(folder, _LAST)

    def _who(self, run_id: str | None, *, online: bool) -> dict[str, object]:
        """Project and id; those of an agent, where one started this process: its sweep hears of no other run."""
        if by_agent():
            known = {"id": os.environ.get("WANDB_RUN_ID"), "project": None, "entity": None}
        else:
            known = {"id": run_id, "project": self.project, "entity": self.entity}
        return {**known, "resume": "allow" if online and known["id"] is not None else None}

    def _where_and_how(self, wandb: Any) -> dict[str, object]:
        return {
            "tags": [str(tag) for tag in self.tags],
            "dir": self.directory,
            "reinit": "create_new",  # runs of the same process, one after the other or nested, never share a record
            "settings": self._settings(wandb),
        }

    def _folder(self) -> Path:
        """Where the record of the run lies."""
        return Path(self._run.dir).parent

    def _settings(self, wandb: Any) -> Any:
        """Silent and bounded in time; no machine metadata when that would carry a secret of the command line along."""
        wanted = {
            "silent": True,
            "quiet": True,
            "console": "off",
            "init_timeout": self.init_timeout,
            "finish_timeout": self.finish_timeout,
            "finish_timeout_raises": True,
            "x_disable_meta": any(scrub(argument) != argument for argument in sys.argv),
        }
        known = wandb.Settings.model_fields  # older releases know no finish_timeout
        return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _cell(value: object) -> object:
    """A value of a table; a number that is none is a gap."""
    return None if isinstance(value, float) and not math.isfinite(value) else plain(value)


def _folder_note(run: Any, why: str) -> str:
    folder = Path(run.dir).parent
    return f"W&B record (offline{why}): {folder}; to upload it: wandb sync {folder}"
