"""The table of settings that ``mechxai methods NAME`` and ``mechxai tasks NAME`` show."""

from collections.abc import Iterable

from mechxai.core.signature import REQUIRED, Parameter


def settings_rows(parameters: Iterable[Parameter]) -> list[dict[str, object]]:
    """A row per setting: its default, its choices and its meaning."""
    return [
        {
            "setting": parameter.name,
            "default": "" if parameter.default is REQUIRED else parameter.source,
            "choices": ", ".join(map(str, parameter.annotation.values)),
            "meaning": parameter.doc.replace("`", ""),
        }
        for parameter in parameters
    ]
