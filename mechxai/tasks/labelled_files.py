"""Labelled prompts of your own, from a file: one JSON object per line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mechxai.core.errors import ShapeError, nearest
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.lines import objects

_FIELDS = ("text", "label", "words", "labels", "group", "split")


def labelled_jsonl(  # noqa: PLR0917 - the form all tasks share, behind the path
    model: HookedModel, path: str | Path, n: int | None = None, seed: int = 0
) -> ProbeDataset:
    """A probe dataset from a JSON Lines file.

    Each line is an object with ``text`` and ``label``, or with ``words`` and as many ``labels`` (null: unlabelled); and
    optionally ``group`` (never torn apart by a split) and ``split`` (``train``, ``validation``, ``test``; on every line
    or on none). Labels are texts or whole numbers (classes), or numbers with a decimal point (to be regressed).

    Args:
        model: decides the tokens.
        path: the file.
        n: how many lines to take, from the start; all by default.
        seed: kept for the signature all tasks share; nothing is drawn.

    Raises:
        ArtifactError: no such file.
        ShapeError: a bad line; the message names its number and what is wrong with it.
    """
    source = Path(path)
    read = [(number, _checked(row, where)) for number, where, row in objects(source, n, "Probe dataset")]
    rows = [row for _, row in read]
    if not rows:
        raise ShapeError(f"Probe dataset {source} was asked", got="no lines in it")
    kinds = {"words" if {"words", "labels"} <= set(row) else "text" for row in rows}
    splits = [row["split"] for row in rows if "split" in row]
    if len(kinds) > 1 or len(splits) not in (0, len(rows)):
        mixed = "text and words" if len(kinds) > 1 else f"{len(splits)} of {len(rows)} lines with a split"
        raise ShapeError(f"{source.name} must have the same fields on every line", got=mixed)
    text, label = ("words", "labels") if kinds == {"words"} else ("text", "label")
    made = ProbeDataset.from_texts(
        model,
        [row[text] for row in rows],
        [row[label] for row in rows],
        groups=[str(row.get("group", f"line {number}")) for number, row in read],
        splits=splits,
    )
    return replace(made, info={"name": f"jsonl:{source.name}", "n": len(rows), "seed": seed, "dropped": {}})


def _checked(row: Any, where: str) -> dict[str, Any]:
    known = (
        {key for key, value in row.items() if value is not None or key == "label"} if isinstance(row, dict) else set()
    )
    if not isinstance(row, dict) or not ({"text", "label"} <= known or {"words", "labels"} <= known):
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ShapeError(f"{where} lacks a field", got=got, allowed="text and label, or words and labels")
    extra = [key for key in row if key not in _FIELDS]
    if extra:
        raise ShapeError(f"{where} has an unknown field {extra[0]!r}", allowed=nearest(extra[0], _FIELDS))
    row = {key: value for key, value in row.items() if value is not None or key == "label"}
    words = row.get("words") if "labels" in row else None
    of_text = isinstance(row.get("text"), str) and row["text"] and not isinstance(row.get("label"), (list, dict))
    if words is None and not of_text:
        raise ShapeError(f"{where}: text must be text, label a text or a number", got=(row["text"], row["label"]))
    if words is not None and not (
        isinstance(words, list)
        and isinstance(row["labels"], list)
        and len(words) == len(row["labels"]) > 0
        and all(isinstance(word, str) and word for word in words)
    ):
        raise ShapeError(f"{where}: labels do not match its words", got=f"words {words}, labels {row['labels']}")
    return row
