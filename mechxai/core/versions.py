"""Versions of the software behind a result."""

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = (
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
    """Versions of Python and of the packages that affect results."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed


@functools.cache
def commit() -> str | None:
    """The git commit of the MechXAI checkout, with ``+`` for local changes; None outside a checkout."""
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
