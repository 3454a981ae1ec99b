"""Contrast batches from JSON Lines files."""

from pathlib import Path
from typing import Any

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import MechXAIError, ShapeError, unknown
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.build import from_examples, misfit
from mechxai.tasks.example import Example
from mechxai.tasks.lines import json_lines

_REQUIRED = ("clean", "corrupted", "answer", "wrong")
_FIELDS = (*_REQUIRED, "roles", "template")


def from_jsonl(  # noqa: PLR0917 - the signature of tasks, after the path
    model: HookedModel, path: str | Path, n: int | None = None, seed: int = 0
) -> ContrastBatch:
    """A batch from a JSON Lines file.

    Each line is an object with ``clean``, ``corrupted`` (texts of equally many tokens), ``answer`` and ``wrong`` (texts
    with their leading space; a list for alternatives; several tokens are scored as a sequence), and optionally
    ``roles`` (role -> its words in the clean text, first occurrence) and ``template`` (a group name).

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
    examples = [_example(model, row, where) for _, where, row in json_lines(source, n)]
    if not examples:
        raise ShapeError(f"{source} has no examples")
    return from_examples(
        model, examples, {"name": f"jsonl:{source.name}", "n": len(examples), "seed": seed, "dropped": {}}
    )


def _example(model: HookedModel, row: Any, where: str) -> Example:
    if not isinstance(row, dict):
        raise ShapeError(f"{where} is a {type(row).__name__}: it must be an object with {', '.join(_REQUIRED)}")
    missing = [key for key in _REQUIRED if key not in row]
    if missing:
        raise ShapeError(f"{where} lacks the field {missing[0]!r}: it needs {', '.join(_REQUIRED)}")
    extra = [key for key in row if key not in _FIELDS]
    if extra:
        raise ShapeError(f"{where}: {unknown('field', extra[0], _FIELDS)}")
    _check_types(row, where)
    example = Example(
        row["clean"],
        row["corrupted"],
        _listed(row["answer"]),
        _listed(row["wrong"]),
        _spans(row, where),
        str(row.get("template", "")),
    )
    try:
        reason = misfit(model, example, sequences=True)
        if not reason:
            from_examples(model, [example], {})  # so that the batch's errors name the line
    except MechXAIError as error:
        raise ShapeError(f"{where}: {error}") from error
    if reason:
        raise ShapeError(f"{where} does not fit {model.name}: {reason}")
    return example


def _spans(row: dict[str, Any], where: str) -> dict[str, tuple[int, int]]:
    spans = {}
    for role, words in (row.get("roles") or {}).items():
        start = row["clean"].find(words)
        if start < 0:
            raise ShapeError(f"{where}: the words {words!r} of role {role!r} are not in the clean text")
        spans[role] = (start, start + len(words))
    return spans


def _check_types(row: dict[str, Any], where: str) -> None:
    if not isinstance(row.get("roles") or {}, dict):
        raise ShapeError(f"{where}: roles is {row['roles']!r}: it must map a role to words of the clean text")
    texts = {key: row[key] for key in ("clean", "corrupted")}
    texts |= {f"role {role}": words for role, words in (row.get("roles") or {}).items()}
    answers = {key: row[key] if isinstance(row[key], list) else [row[key]] for key in ("answer", "wrong")}
    bad = [key for key, value in texts.items() if not isinstance(value, str) or not value]
    bad += [
        key for key, texts in answers.items() if not texts or not all(isinstance(text, str) and text for text in texts)
    ]
    if bad:
        value = row.get(bad[0])
        raise ShapeError(f"{where}: {bad[0]} is {value!r}: it must be text (an answer: a text or a list of texts)")


def _listed(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
