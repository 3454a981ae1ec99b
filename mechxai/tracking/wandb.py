"""Weights & Biases: one W&B run per MechXAI run, online or in a folder that ``wandb sync`` uploads later."""

import contextlib
import io
import logging
import math
import netrc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final
from urllib.parse import urlsplit

from mechxai.core.errors import ArtifactError, ConfigError, nearest
from mechxai.tracking.plain import plain, plain_mapping, scrub
from mechxai.tracking.wandb_artifacts import kept_in, log_output, use_input

_LOG = logging.getLogger("mechxai.tracking")
_NO_NETWORK = frozenset({"offline", "dryrun", "disabled"})
_MODES = _NO_NETWORK | {"online", "shared", "run"}


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
    mode: Literal["online", "offline", "disabled"] | None = None
    directory: str | os.PathLike[str] | None = None
    tags: Sequence[str] = ()
    init_timeout: float = 30.0
    finish_timeout: float = 60.0
    _run: Any = field(default=None, init=False, repr=False)
    _about: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    _inputs: list[dict[str, str]] = field(default_factory=list, init=False, repr=False)
    _where: str | None = field(default=None, init=False, repr=False)

    def awaited(self) -> bool:
        """Whether a W&B agent started this process: it waits for the run whose id it gave."""
        return _by_agent() and _asked_mode(self.mode) != "disabled"

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
        asked = _asked_mode(self.mode)
        if asked == "disabled":
            return
        _check_writable(self.directory)
        wandb = _wandb()
        with _hushed():
            mode, why = _mode(wandb, asked)
            recorded = plain_mapping(config)
            agent = _by_agent()  # which has chosen project and id: under another id its sweep would not hear of the run
            run = wandb.init(
                project=None if agent else self.project,
                entity=None if agent else self.entity,
                name=name,
                id=os.environ.get("WANDB_RUN_ID") if agent else run_id,
                group=group,
                job_type=job_type,
                tags=[str(tag) for tag in self.tags],
                config=recorded,
                mode=mode,
                dir=self.directory,
                reinit="create_new",  # runs of the same process, one after the other or nested, never share a record
                resume="allow" if run_id is not None and mode not in _NO_NETWORK else None,
                settings=self._settings(wandb),
            )
        if mode == "disabled":
            return
        self._run, self._inputs = run, []
        self._about = {"run": name, "run_id": run.id, "config": recorded}
        self._where = f"W&B run: {run.url}" if mode not in _NO_NETWORK else _folder_note(run, why)
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
        wandb = _wandb()
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
        shown = _wandb().Table(columns=list(columns), data=[[_cell(value) for value in row] for row in rows])
        with kept_in(self._folder()):
            self._run.log({name: shown})

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Declares an input: an artifact with one JSON file, which all that the run makes from here on names."""
        if self._run is None:
            return
        with kept_in(self._folder()):
            found = use_input(_wandb(), self._run, name, kind=kind, content=plain_mapping(content))
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
            log_output(_wandb(), self._run, path, name=name, kind=kind, about=about)

    def where(self) -> str | None:
        """Address of the run page, or the folder of an offline record; of the last run once closed."""
        return self._where

    def close(self, *, failed: bool = False) -> None:
        """Finishes the W&B run, with exit code 1 when it failed.

        Raises:
            ArtifactError: W&B did not take everything within ``finish_timeout``; it remains in the folder.
        """
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=int(failed))
        except TimeoutError as late:
            folder = Path(run.dir).parent
            raise ArtifactError(
                f"W&B was to take the rest of the run within {self.finish_timeout:g} s",
                got="no answer",
                fix=f"wandb sync {folder}",
            ) from late

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


def _asked_mode(mode: str | None) -> str | None:
    asked = mode or os.environ.get("WANDB_MODE") or None
    if asked is not None and asked not in _MODES:
        source = "mode" if mode else "WANDB_MODE"
        raise ConfigError(f"{source}={asked} was asked of W&B", allowed=nearest(asked, _MODES))
    return asked


def _cell(value: object) -> object:
    """A value of a table; a number that is none is a gap."""
    return None if isinstance(value, float) and not math.isfinite(value) else plain(value)


def _by_agent() -> bool:
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def _wandb() -> Any:
    """The wandb package, loaded when first used."""
    import wandb  # noqa: PLC0415 - takes over a second, and few runs need it

    return wandb


def _mode(wandb: Any, asked: str | None) -> tuple[str, str]:
    """The mode to use, and why, in words that follow ``offline``."""
    mode = asked or wandb.setup().settings.mode
    if mode in _NO_NETWORK or _has_key(wandb):
        return mode, ""
    if asked is not None:
        raise ConfigError(
            f"W&B mode {asked!r} was asked", got="no API key", fix="run wandb login, or WANDB_MODE=offline"
        )
    return "offline", ", as no W&B API key was found"


def _has_key(wandb: Any) -> bool:
    """Whether W&B would find credentials where it looks for them, without its asking for any."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    host = urlsplit(settings.base_url).netloc
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for place in places:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            login = netrc.netrc(Path(place).expanduser()).authenticators(host)
            if login is not None and login[2]:
                return True
    return False


def _check_writable(directory: str | os.PathLike[str] | None) -> None:
    """Refuses what W&B would silently replace by the system's temporary folder."""
    if directory is None:
        return
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ArtifactError(
            f"W&B files were to go to {directory}", got=problem, fix="set another directory"
        ) from problem
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ArtifactError(f"W&B files were to go to {directory}", got="no permission", fix="set another directory")


def _folder_note(run: Any, why: str) -> str:
    folder = Path(run.dir).parent
    return f"W&B record (offline{why}): {folder}; to upload it: wandb sync {folder}"


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Sends what wandb writes to the terminal whatever its settings say (logins, warnings) to the debug log."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            _LOG.debug(line)
