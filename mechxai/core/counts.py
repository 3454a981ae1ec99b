"""How many prompts a task draws, at least and at most."""

from mechxai.core.errors import ConfigError

MOST_PROMPTS = 1_000_000


def check_n(task: str, n: int) -> None:
    """Refuses a number of prompts before any is drawn.

    Args:
        task: for the message.
        n: number of prompts.

    Raises:
        ConfigError: fewer than one, or more than `MOST_PROMPTS`.
    """
    if not 1 <= n <= MOST_PROMPTS:
        raise ConfigError(f"{task}: n={n} prompts cannot be drawn", allowed=f"1 to {MOST_PROMPTS:,}")
