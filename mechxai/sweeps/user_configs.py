"""Configurations of the user's own: where hydra's flags say they lie, and what a sweep of them is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from mechxai._resources import configs_dir

CONFIG_FLAGS = {
    "--config-dir": "folder",
    "-cd": "folder",
    "--config-path": "path",
    "-cp": "path",
    "--config-name": "name",
    "-cn": "name",
}
_BUNDLED = "run"  # the bundled configuration, and the name that runs have where nothing else names them


@dataclass(frozen=True)
class UserConfigs:
    """What the flags say; without any, the bundled configuration.

    Attributes:
        name: of the primary configuration.
        folder: with further choices.
        path: in place of the bundled folder.
    """

    name: str = _BUNDLED
    folder: str = ""
    path: str = ""

    @property
    def root(self) -> Path:
        """The folder of the primary configuration."""
        return Path(self.path).absolute() if self.path else configs_dir()

    @property
    def searched(self) -> list[str]:
        """As an override, where else choices are looked for."""
        return [f"hydra.searchpath=[{quoted(f'file://{Path(self.folder).absolute()}')}]"] if self.folder else []

    @property
    def identity(self) -> list[str]:
        """What tells two of them apart, whose sweeps are two sweeps; nothing where none were given."""
        if self == UserConfigs():
            return []
        return [f"configs={self.name}:{self.root}:{Path(self.folder).absolute() if self.folder else ''}"]

    def sweep_folder(self, config: DictConfig | None) -> Path:
        """Where the tables of a configuration's sweeps go: by its name, its experiment's, or its file's."""
        if config is None:
            return Path("outputs") / "sweeps" / self._called()
        chosen = config.hydra.runtime.choices.get("experiment")
        own = str(config.get("name") or _BUNDLED)
        name = own if own != _BUNDLED else Path(str(chosen)).name if chosen not in (None, "null") else self._called()
        return Path(str(config.get("output") or "outputs")) / "sweeps" / name

    def _called(self) -> str:
        if self.name != _BUNDLED:
            return Path(self.name).stem
        return Path(self.folder or self.path).absolute().name if self.folder or self.path else _BUNDLED


def user_configs(arguments: Sequence[str]) -> UserConfigs | None:
    """What hydra's flags say of where configurations lie; None where they say nothing."""
    found: dict[str, str] = {}
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in CONFIG_FLAGS:
            found[CONFIG_FLAGS[flag]] = value if equals else "".join(arguments[place + 1 : place + 2])
    return UserConfigs(**found) if found else None


def quoted(path: Path | str) -> str:
    """A path as the value of an override, whatever letters are in it."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
