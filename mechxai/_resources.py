"""Paths of the bundled configs and pages: in the package of a wheel, at the root of a checkout."""

from pathlib import Path

from mechxai.core.errors import ArtifactError

_HERE = Path(__file__).resolve().parent


def configs_dir() -> Path:
    """The folder of ``run.yaml`` and its groups.

    Raises:
        ArtifactError: the installation lacks it.
    """
    for folder in (_HERE / "_configs", _HERE.parent / "configs"):
        if (folder / "run.yaml").is_file():
            return folder
    raise ArtifactError("This installation lacks its configs: there is no run.yaml", fix="Reinstall mechxai")


def errors_page() -> Path:
    """The page on errors, a section for each.

    Raises:
        ArtifactError: the installation lacks it.
    """
    for page in (_HERE / "_docs" / "errors.md", _HERE.parent / "docs" / "errors.md"):
        if page.is_file():
            return page
    raise ArtifactError("This installation lacks its page on errors, errors.md", fix="Reinstall mechxai")
