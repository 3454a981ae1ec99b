"""Checks of fields that are shares or counts."""

from mechxai.core.errors import ConfigError


def check_share(name: str, value: float) -> None:
    """Refuses a share that is not above 0 and at most 1.

    Raises:
        ConfigError: another value.
    """
    if not 0 < value <= 1:
        raise ConfigError(f"{name} is {value}: it must be above 0 and at most 1")


def check_at_least(least: int, **counts: int) -> None:
    """Refuses the first count below a minimum.

    Raises:
        ConfigError: a smaller value.
    """
    for name, value in counts.items():
        if value < least:
            raise ConfigError(f"{name} is {value}: it must be at least {least}")
