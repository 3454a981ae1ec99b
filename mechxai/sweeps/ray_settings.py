"""Settings of Ray under which a sweep on this machine opens no dashboard and sends no reports."""

import os
import secrets
from collections.abc import Sequence

_INIT = "hydra.launcher.ray.init."
_SETTINGS = {"include_dashboard": "false"}


def ray_overrides(overrides: Sequence[str]) -> list[str]:
    """Prepares the environment for Ray, where it is the launcher; what is set already stays.

    Returns:
        Further overrides for hydra; none for other launchers, and none for a cluster that runs already.
    """
    if "hydra/launcher=ray" not in overrides:
        return []
    keys = {override.partition("=")[0].lstrip("+") for override in overrides}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or jobs that reserve no GPU would see none
    if f"{_INIT}address" in keys or "RAY_ADDRESS" in os.environ:
        return []
    if "RAY_AUTH_MODE" not in os.environ:  # a token for this sweep alone; Ray would keep one in the home folder
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return [f"+{_INIT}{name}={value}" for name, value in _SETTINGS.items() if f"{_INIT}{name}" not in keys]
