"""Configuration folders of the user: read from hydra's flags, and the name of a sweep that uses them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from mechxai._resources import configs_dir
from mechxai.sweeps.folder_names import check_folder, check_name

CONFIG_FLAGS = {
    "--config-dir": "folder",
    "-cd": "folder",
    "--config-path": "path",
    "-cp": "path",
    "--config-name": "name",
    "-cn": "name",
}
_BUNDLED = "run"  # the bundled configuration, and the name of a run that nothing else names


@dataclass(frozen=True)
class UserConfigs:
    """Where configurations lie; without flags, the bundled ones.

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
        """An override that adds the user's folder to hydra's search path."""
        return [f"hydra.searchpath=[{quoted(f'file://{Path(self.folder).absolute()}')}]"] if self.folder else []

    @property
    def identity(self) -> list[str]:
        """A line that tells two user configurations apart, for the sweep's hash; empty without flags."""
        if self == UserConfigs():
            return []
        return [f"configs={self.name}:{self.root}:{Path(self.folder).absolute() if self.folder else ''}"]

    def sweep_folder(self, config: DictConfig | None) -> Path:
        """The folder of a configuration's sweep tables, named by the configuration, its experiment or its file."""
        if config is None:
            return Path("outputs") / "sweeps" / self._file_name()
        chosen = config.hydra.runtime.choices.get("experiment")
        named = str(config.get("name") or _BUNDLED)
        name = (
            named
            if named != _BUNDLED
            else Path(str(chosen)).name
            if chosen not in (None, "null")
            else self._file_name()
        )
        output = "outputs" if config.get("output") is None else str(config.output)
        check_name("name", name)
        check_folder("output", output)
        return Path(output).expanduser() / "sweeps" / name

    def _file_name(self) -> str:
        if self.name != _BUNDLED:
            return Path(self.name).stem
        return Path(self.folder or self.path).absolute().name if self.folder or self.path else _BUNDLED


def user_configs(arguments: Sequence[str]) -> UserConfigs | None:
    """The folders that hydra's flags name; None without such flags."""
    values: dict[str, str] = {}
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in CONFIG_FLAGS:
            values[CONFIG_FLAGS[flag]] = value if equals else "".join(arguments[place + 1 : place + 2])
    return UserConfigs(**values) if values else None


def quoted(path: Path | str) -> str:
    """A path as the value of an override, quoted."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
