"""Refuses configurations that would run code outside MechXAI and the plugins named on the command line."""

from collections.abc import Iterable, Mapping, Sequence

from mechxai.core.errors import ConfigError


def check_targets(node: object, where: str = "", *, plugins: Iterable[str] = ()) -> None:
    """Refuses a ``_target_`` outside MechXAI and the plugins, so that a configuration cannot call arbitrary code.

    Args:
        node: the configuration, or a part of it.
        where: dotted prefix of the part, for the error.
        plugins: packages whose code may be made too.

    Raises:
        ConfigError: names the key.
    """
    roots = ("mechxai", *plugins)
    if isinstance(node, Mapping):
        target = str(node.get("_target_") or "")
        if target and not any(target.startswith(f"{root}.") for root in roots):
            raise ConfigError(
                f"{where}_target_={target!r} is not part of MechXAI",
                allowed=", ".join(f"{root}.*" for root in roots),
                fix="Name its module on the command line, as in plugins=[my_module]",
            )
        for key, value in node.items():
            check_targets(value, f"{where}{key}.", plugins=plugins)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_targets(value, f"{where}{index}.", plugins=plugins)


def plugin_overrides(overrides: Sequence[str]) -> list[str]:
    """The modules that ``plugins=[...]`` names among overrides of the command line."""
    names: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+") == "plugins":
            names = [name.strip(" '\"") for name in value.strip("[]").split(",") if name.strip(" '\"")]
    return names


def check_plugins(configured: Sequence[str], named: Sequence[str]) -> None:
    """Refuses plugins that a configuration file names, since importing one runs its code.

    Raises:
        ConfigError: a plugin that is not on the command line.
    """
    hidden = [name for name in configured if name not in named]
    if hidden:
        raise ConfigError(
            f"plugins: {hidden[0]} comes from a configuration file, which may not import code",
            fix=f"Write plugins=[{','.join(configured)}] on the command line if you trust it",
        )
