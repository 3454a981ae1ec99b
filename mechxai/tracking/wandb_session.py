"""The session with W&B: its mode and API key, its service process, and free disk space."""

import contextlib
import io
import logging
import netrc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from mechxai.core.errors import ArtifactError, ConfigError, nearest

_LOG = logging.getLogger("mechxai.tracking")
WandbMode = Literal["online", "offline", "dryrun", "disabled", "shared", "run"]
NO_NETWORK = frozenset({"offline", "dryrun", "disabled"})
_MIN_FREE = 65_536  # bytes of free space needed to begin a record
_PROCESS_GONE = ("HandleAbandonedError", "MailboxClosedError")  # W&B's errors after its service process has ended


def configured_mode(mode: str | None) -> str | None:
    """The mode of the setting, else of the variable ``WANDB_MODE``; None where neither is set.

    Raises:
        ConfigError: an unknown mode.
    """
    configured = mode or os.environ.get("WANDB_MODE") or None
    modes = get_args(WandbMode)
    if configured is not None and configured not in modes:
        source = "mode" if mode else "WANDB_MODE"
        raise ConfigError(f"{source}={configured!r} is not a mode of W&B. {nearest(configured, modes)}")
    return configured


def under_agent() -> bool:
    """Whether the agent of a W&B sweep started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def load_wandb() -> Any:
    """The wandb package, loaded when first used."""
    import wandb  # noqa: PLC0415 - takes over a second, and few runs need it

    return wandb


def choose_mode(wandb: Any, configured: str | None) -> tuple[str, str]:
    """The mode to use, and the reason for an offline mode, in words that follow ``offline``.

    Raises:
        ConfigError: an online mode without an API key.
    """
    mode = configured or wandb.setup().settings.mode
    if mode in NO_NETWORK or has_key(wandb):
        return mode, ""
    if configured is not None:
        raise ConfigError(
            f"W&B mode {configured!r} needs an API key, and this machine has none",
            fix="Run wandb login, or set WANDB_MODE=offline",
        )
    return "offline", ", as no W&B API key was found"


def has_key(wandb: Any) -> bool:
    """Whether W&B finds credentials in its usual places; never prompts for them."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    host = urlsplit(settings.base_url).netloc
    paths = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for path in paths:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            login = netrc.netrc(Path(path).expanduser()).authenticators(host)
            if login is not None and login[2]:
                return True
    return False


def check_writable(directory: str | os.PathLike[str] | None) -> None:
    """Refuses a directory that W&B would silently replace by the system's temporary folder.

    Raises:
        ArtifactError: the directory cannot be created or written.
    """
    if directory is None:
        return
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ArtifactError(
            f"W&B files cannot be written to {directory}: {problem}", fix="Set another directory"
        ) from problem
    check_free_space(directory, _MIN_FREE)


def check_free_space(folder: str | os.PathLike[str], size: int) -> None:
    """Writes and removes some bytes, because W&B's service process does not report a full disk.

    Raises:
        ArtifactError: the bytes cannot be written.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(size))
            probe.flush()
    except OSError as problem:
        raise ArtifactError(
            f"W&B files cannot be written to {folder}: {problem}", fix="Free some space, or set another directory"
        ) from problem


@contextlib.contextmanager
def stderr_to_log() -> Iterator[None]:
    """Redirects wandb's unconditional terminal output (logins, warnings) to the debug log."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            yield
    finally:
        for line in output.getvalue().splitlines():
            _LOG.debug(line)


def is_process_gone(problem: BaseException) -> bool:
    """Whether an error means that W&B's service process, which writes and uploads, was killed."""
    return isinstance(problem, ConnectionError) or type(problem).__name__ in _PROCESS_GONE


def forget_process(wandb: Any) -> None:
    """Lets W&B start a new service process after the old one was killed; otherwise all later runs would be lost."""
    with contextlib.suppress(Exception):
        wandb.teardown()
