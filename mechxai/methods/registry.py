"""The method classes: those of this package, and those of plugins.

Importing this module imports every method of the package. `mechxai.methods.catalog` lists them without doing so.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from mechxai.core.errors import ConfigError
from mechxai.core.method import METHODS, MethodCard
from mechxai.methods.catalog import method_modules

ENTRY_POINTS = "mechxai.methods"
"""The group under which an installed package names modules with methods."""

for _module in method_modules():
    importlib.import_module(_module)


def cards() -> list[MethodCard]:
    """The card of every method, by family, then name."""
    return sorted((kind.card for kind in METHODS.values()), key=lambda card: (card.family, card.name))


def installed_plugins() -> dict[str, str]:
    """Name -> module, of the entry points that installed packages register under ``mechxai.methods``."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def import_plugins(names: Sequence[str]) -> list[str]:
    """Imports modules that register methods; only names that a person gave on the command line may come here.

    Args:
        names: each an entry point of the group ``mechxai.methods``, or a module that is installed or lies in the
            current folder.

    Returns:
        The modules that were imported.

    Raises:
        ConfigError: no such module, or it fails to import.
    """
    known, modules = installed_plugins(), []
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # at the end, so that nothing installed is shadowed
    for name in names:
        module = known.get(name, name)
        try:
            importlib.import_module(module)
            modules.append(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise ConfigError(f"The plugin {name!r} cannot be imported: {error}") from error
            listed = f" Installed plugins: {', '.join(known)}." if known else ""
            fix = "Give a module that is installed or lies in the current folder"
            raise ConfigError(f"There is no module {module!r}.{listed}", fix=fix) from error
        except Exception as error:
            raise ConfigError(f"The plugin {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    return modules
