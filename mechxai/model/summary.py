"""One-line and HTML descriptions of models, for the prompt and for notebooks."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_LISTED = 6  # names that are shown before the rest is counted


def line(kind: str, fields: Mapping[str, object]) -> str:
    """A description on one line: ``HookedModel(zoo/ioi: GPT2LMHeadModel, 2 layers, ...)``."""
    name, *rest = (str(value) for value in fields.values())
    return f"{kind}({name}: {', '.join(rest)})"


def html(kind: str, fields: Mapping[str, object]) -> str:
    """A description as a two-column table, which notebooks show."""
    cell = '<td style="text-align:left">{}</td>'
    rows = "".join(
        f"<tr>{cell.format(escape(key))}{cell.format(escape(str(value)))}</tr>" for key, value in fields.items()
    )
    return f"<table><caption>{escape(kind)}</caption>{rows}</table>"


def of_hooked_model(info: Mapping[str, Any]) -> dict[str, object]:
    """The described fields of a `HookedModel`, from its ``info``."""
    sizes: Mapping[str, Any] = info["architecture"]
    return {
        "name": info["name"],
        "family": sizes["family"],
        "size": f"{sizes['n_layers']} layers, {sizes['n_heads']} heads, d_model {sizes['d_model']}",
        "backend": info["backend"],
        "processing": info["processing"],
        "dtype": info["dtype"],
        "device": info["device"],
    }


def listed(names: Sequence[str]) -> str:
    """Names in a row; where there are many, the first and how many more."""
    shown = ", ".join(repr(name) for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
