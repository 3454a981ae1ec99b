"""Probe datasets from JSON Lines files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mechxai.core.errors import ShapeError, unknown
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.lines import json_lines

_FIELDS = ("text", "label", "words", "labels", "group", "split")


def labelled_jsonl(  # noqa: PLR0917 - the signature of tasks, after the path
    model: HookedModel, path: str | Path, n: int | None = None, seed: int = 0
) -> ProbeDataset:
    """A probe dataset from a JSON Lines file.

    Each line is an object with ``text`` and ``label``, or with ``words`` and equally many ``labels`` (null:
    unlabelled); and optionally ``group`` (which no split divides) and ``split`` (``train``, ``validation``, ``test``;
    on every line or on none). Labels are texts or whole numbers (classes), or decimal numbers (to regress).

    Args:
        model: the model whose tokenizer is used.
        path: the file.
        n: number of lines to read from the start; all by default.
        seed: unused; part of every task's signature.

    Raises:
        ArtifactError: the file does not exist.
        ShapeError: an invalid line; the message gives its number and the reason.
    """
    source = Path(path)
    numbered_rows = [(number, _checked(row, where)) for number, where, row in json_lines(source, n)]
    rows = [row for _, row in numbered_rows]
    if not rows:
        raise ShapeError(f"{source} has no lines")
    kinds = {"words" if {"words", "labels"} <= set(row) else "text" for row in rows}
    splits = [row["split"] for row in rows if "split" in row]
    if len(kinds) > 1 or len(splits) not in (0, len(rows)):
        mixture = "text and words" if len(kinds) > 1 else f"a split on {len(splits)} of {len(rows)} lines"
        raise ShapeError(f"{source.name} has {mixture}: it must have the same fields on every line")
    text, label = ("words", "labels") if kinds == {"words"} else ("text", "label")
    dataset = ProbeDataset.from_texts(
        model,
        [row[text] for row in rows],
        [row[label] for row in rows],
        groups=[str(row.get("group", f"line {number}")) for number, row in numbered_rows],
        splits=splits,
    )
    return replace(dataset, info={"name": f"jsonl:{source.name}", "n": len(rows), "seed": seed, "dropped": {}})


def _checked(row: Any, where: str) -> dict[str, Any]:
    present = (
        {key for key, value in row.items() if value is not None or key == "label"} if isinstance(row, dict) else set()
    )
    if not isinstance(row, dict) or not ({"text", "label"} <= present or {"words", "labels"} <= present):
        reason = "lacks a field" if isinstance(row, dict) else f"is a {type(row).__name__}"
        raise ShapeError(f"{where} {reason}: it needs text and label, or words and labels")
    extra = [key for key in row if key not in _FIELDS]
    if extra:
        raise ShapeError(f"{where}: {unknown('field', extra[0], _FIELDS)}")
    row = {key: value for key, value in row.items() if value is not None or key == "label"}
    words = row.get("words") if "labels" in row else None
    of_text = isinstance(row.get("text"), str) and row["text"] and not isinstance(row.get("label"), (list, dict))
    if words is None and not of_text:
        pair = f"text {row['text']!r}, label {row['label']!r}"
        raise ShapeError(f"{where} has {pair}: text must be text, label a text or a number")
    if words is not None and not (
        isinstance(words, list)
        and isinstance(row["labels"], list)
        and len(words) == len(row["labels"]) > 0
        and all(isinstance(word, str) and word for word in words)
    ):
        raise ShapeError(f"{where}: labels {row['labels']} do not match its words {words}")
    return row
