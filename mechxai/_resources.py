"""Where the bundled configs lie: beside the package in a wheel, at the root of a checkout."""

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
    raise ArtifactError("The bundled configs were asked", got="no run.yaml beside the package", fix="reinstall mechxai")
