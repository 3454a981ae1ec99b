"""Names that become folders, refused where the folder would lie elsewhere or could not be made."""

import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from mechxai.core.errors import ConfigError

_LONGEST_PART = 200  # bytes: file systems take 255, of which suffixes and temporary names need some
_LONGEST_PATH = 3500  # bytes: systems take 4096, of which the files below need some


def check_name(key: str, name: str) -> None:
    """Refuses a name whose folder would lie outside the folder in which it is made.

    Args:
        key: of the name, for the error.
        name: becomes one folder, or several with slashes between them.

    Raises:
        ConfigError: an empty or absolute name, one with ``.`` or ``..`` as a part, or one that is no folder's name.
    """
    allowed = "letters, digits and - _ . between them, as in name=first-try"
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or "\\" in name:
        raise ConfigError(f"{key}={name!r} is a path", allowed=allowed, fix="Choose the folder with output=FOLDER")
    if any(part.strip() in ("", ".", "..") for part in parts) or name.startswith("~"):
        raise ConfigError(
            f"{key}={name!r} is not the name of a folder inside output",
            allowed=allowed,
            fix="Choose the folder with output=FOLDER",
        )
    check_folder(key, name)


def check_folder(key: str, folder: str) -> None:
    """Refuses text that no file system takes as a folder: empty, too long, or with control characters.

    Raises:
        ConfigError: says which.
    """
    if not folder.strip():
        raise ConfigError(f"{key}={folder!r} names no folder", fix=f"Write {key}=FOLDER, or leave it out")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in folder):
        raise ConfigError(f"{key}={folder!r} has control characters, or is not UTF-8", fix="Choose another folder")
    longest = max(len(part.encode()) for part in Path(folder).parts or (folder,))
    whole = len(folder.encode())
    if longest > _LONGEST_PART or whole > _LONGEST_PATH:
        raise ConfigError(
            f"{key}={folder[:40]!r}... is too long: {whole} bytes, {longest} in one part",
            allowed=f"{_LONGEST_PATH} bytes, {_LONGEST_PART} in one part",
        )
