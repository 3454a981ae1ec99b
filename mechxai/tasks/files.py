"""Tasks of your own, from a file: one JSON object per line."""

from pathlib import Path
from typing import Any

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import MechXAIError, ShapeError, nearest
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.build import from_examples, misfit
from mechxai.tasks.example import Example
from mechxai.tasks.lines import objects

_REQUIRED = ("clean", "corrupted", "answer", "wrong")
_FIELDS = (*_REQUIRED, "roles", "template")


def from_jsonl(  # noqa: PLR0917 - the form all tasks share, behind the path
    model: HookedModel, path: str | Path, n: int | None = None, seed: int = 0
) -> ContrastBatch:
    """A batch from a JSON Lines file.

    Each line is an object with ``clean``, ``corrupted`` (texts with as many tokens each), ``answer`` and ``wrong``
    (what is appended, with its leading space; a list for alternatives; several tokens are scored as a sequence), and
    optionally ``roles`` (role -> words of the clean text that hold it, first occurrence) and ``template`` (a group
    name).

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
    examples = [_example(model, row, where) for _, where, row in objects(source, n, "Task file")]
    if not examples:
        raise ShapeError(f"Task file {source} was asked", got="no examples in it")
    return from_examples(
        model, examples, {"name": f"jsonl:{source.name}", "n": len(examples), "seed": seed, "dropped": {}}
    )


def _example(model: HookedModel, row: Any, where: str) -> Example:
    if not isinstance(row, dict) or any(key not in row for key in _REQUIRED):
        raise ShapeError(
            f"{where} lacks a field",
            got=sorted(row) if isinstance(row, dict) else type(row).__name__,
            allowed=_REQUIRED,
        )
    extra = [key for key in row if key not in _FIELDS]
    if extra:
        raise ShapeError(f"{where} has an unknown field {extra[0]!r}", allowed=nearest(extra[0], _FIELDS))
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
            from_examples(model, [example], {})  # what a batch refuses is refused with its line
    except MechXAIError as error:
        raise ShapeError(f"{where} cannot be used", got=str(error)) from error
    if reason:
        raise ShapeError(f"{where} cannot be used with {model.name}", got=reason)
    return example


def _spans(row: dict[str, Any], where: str) -> dict[str, tuple[int, int]]:
    spans = {}
    for role, words in (row.get("roles") or {}).items():
        start = row["clean"].find(words)
        if start < 0:
            raise ShapeError(f"{where}: role {role!r} is not in the clean text", got=words)
        spans[role] = (start, start + len(words))
    return spans


def _check_types(row: dict[str, Any], where: str) -> None:
    if not isinstance(row.get("roles") or {}, dict):
        raise ShapeError(f"{where}: roles must map a role to words of the clean text", got=row["roles"])
    texts = {key: row[key] for key in ("clean", "corrupted")}
    texts |= {f"role {role}": words for role, words in (row.get("roles") or {}).items()}
    answers = {key: row[key] if isinstance(row[key], list) else [row[key]] for key in ("answer", "wrong")}
    bad = [key for key, value in texts.items() if not isinstance(value, str) or not value]
    bad += [
        key for key, found in answers.items() if not found or not all(isinstance(one, str) and one for one in found)
    ]
    if bad:
        raise ShapeError(f"{where}: {bad[0]} must be text (an answer: a text or a list of texts)", got=row.get(bad[0]))


def _listed(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
