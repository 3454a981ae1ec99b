"""The session with W&B: which mode, with which key, whether its own process still lives."""

import contextlib
import io
import logging
import netrc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mechxai.core.errors import ArtifactError, ConfigError, nearest

_LOG = logging.getLogger("mechxai.tracking")
NO_NETWORK = frozenset({"offline", "dryrun", "disabled"})
_MODES = NO_NETWORK | {"online", "shared", "run"}
_ROOM = 65_536  # bytes that must be free for a record to be begun
_GONE = ("HandleAbandonedError", "MailboxClosedError")  # what W&B raises where its process is no more


def asked_mode(mode: str | None) -> str | None:
    """The mode that a setting or the environment asks for; None where neither does.

    Raises:
        ConfigError: an unknown mode.
    """
    asked = mode or os.environ.get("WANDB_MODE") or None
    if asked is not None and asked not in _MODES:
        source = "mode" if mode else "WANDB_MODE"
        raise ConfigError(f"{source}={asked} was asked of W&B", allowed=nearest(asked, _MODES))
    return asked


def by_agent() -> bool:
    """Whether an agent of a W&B sweep started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def load_wandb() -> Any:
    """The wandb package, loaded when first used."""
    import wandb  # noqa: PLC0415 - takes over a second, and few runs need it

    return wandb


def choose_mode(wandb: Any, asked: str | None) -> tuple[str, str]:
    """The mode to use, and why, in words that follow ``offline``.

    Raises:
        ConfigError: online without an API key.
    """
    mode = asked or wandb.setup().settings.mode
    if mode in NO_NETWORK or has_key(wandb):
        return mode, ""
    if asked is not None:
        raise ConfigError(
            f"W&B mode {asked!r} was asked", got="no API key", fix="run wandb login, or WANDB_MODE=offline"
        )
    return "offline", ", as no W&B API key was found"


def has_key(wandb: Any) -> bool:
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


def check_writable(directory: str | os.PathLike[str] | None) -> None:
    """Refuses what W&B would silently replace by the system's temporary folder.

    Raises:
        ArtifactError: the directory cannot be made or written.
    """
    if directory is None:
        return
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ArtifactError(
            f"W&B files were to go to {directory}", got=problem, fix="set another directory"
        ) from problem
    check_room(directory, _ROOM)


def check_room(folder: str | os.PathLike[str], size: int) -> None:
    """Writes so many bytes and takes them away again: W&B's own process tells nobody that the disk is full.

    Raises:
        ArtifactError: they cannot be written.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(size))
            probe.flush()
    except OSError as problem:
        raise ArtifactError(
            f"W&B files were to go to {folder}", got=problem, fix="make room there, or set another directory"
        ) from problem


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Sends what wandb writes to the terminal whatever its settings say (logins, warnings) to the debug log."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            _LOG.debug(line)


def is_gone(problem: BaseException) -> bool:
    """Whether an error says that W&B's own process, which writes and uploads, was killed."""
    return isinstance(problem, ConnectionError) or type(problem).__name__ in _GONE


def forget_process(wandb: Any) -> None:
    """Lets W&B start its process anew where the old one is gone; else all later runs would be lost as well."""
    with contextlib.suppress(Exception):
        wandb.teardown()
