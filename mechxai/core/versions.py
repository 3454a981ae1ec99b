"""What a result must say of the software that made it."""

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_DECIDE = (
    "mechxai",
    "torch",
    "transformer-lens",
    "transformers",
    "tokenizers",
    "numpy",
    "captum",
    "shap",
    "scikit-learn",
)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for package in _DECIDE:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the checkout MechXAI runs from, with ``+`` when it has local changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
