"""Finished pieces of a method's work, so that an interrupted run resumes within the method.

A method calls `FinishedPieces.take` for each part of its work, with the function that computes it. In a later process
with the same question (model, prompts, settings), parts that were finished are read from disk.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from mechxai.core.fingerprint import Fingerprints
from mechxai.core.work_clock import add_earlier_work, work_seconds
from mechxai.engine.checkpoint import TENSOR, TENSORS, CheckpointStore, Serializer

T = TypeVar("T")

_SAVE_EVERY = 2.0  # seconds of work that a crash may cost, besides the piece in hand
_BETWEEN = "\n"  # piece and tensor, in the names of a file
_SECONDS = "seconds"


class FinishedPieces(Generic[T]):
    """``with FinishedPieces(folder, model, batch, self) as finished: finished.take("part 1", compute)``.

    Pieces are saved together, a file every two seconds of work, and at the end of the block, that of an interruption
    included. The seconds of loaded pieces count in `work_seconds`.

    Args:
        folder: of the files; None saves nothing.
        *question: everything that decides the values: the model, the prompts, settings.
        serializer: how a piece becomes tensors.
    """

    def __init__(self, folder: Path | None, *question: object, serializer: "Serializer[T] | None" = None) -> None:
        key = "" if folder is None else Fingerprints()(question)
        self._files = CheckpointStore(folder, key, TENSORS)
        self._serializer: Serializer[Any] = TENSOR if serializer is None else serializer
        self._saves = folder is not None
        self._stored: dict[str, dict[str, Tensor]] = {}
        self._unsaved: dict[str, Tensor] = {}
        self._counted: set[str] = set()  # pieces whose work this process has done or counted
        self._saved_at = time.monotonic()
        for number in self._files.numbers():
            self._read(self._files.load(number) or {})

    def __enter__(self) -> "FinishedPieces[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._save()

    def __contains__(self, name: object) -> bool:
        return _text(name) in self._stored

    def take(self, name: object, compute: Callable[[], T]) -> T:
        """A piece: loaded, or computed now.

        Args:
            name: of the piece within the question; a value that is not a text counts as its content.
            compute: the function that computes it.
        """
        if not self._saves:
            return compute()
        label = _text(name)
        if label in self._stored:
            tensors = dict(self._stored[label])
            seconds = float(tensors.pop(_SECONDS))
            add_earlier_work(0.0 if label in self._counted else seconds)
            self._counted.add(label)
            return self._serializer.from_tensors(tensors)
        started = work_seconds()
        value = compute()
        self._add(label, self._serializer.to_tensors(value), work_seconds() - started)
        return value

    def notes(self) -> tuple[str, ...]:
        """A remark where pieces could not be saved."""
        failed = self._files.failed
        return () if failed is None else (f"finished parts could not be kept on disk: {failed}",)

    def _add(self, label: str, tensors: Mapping[str, Tensor], seconds: float) -> None:
        stored = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        self._counted.add(label)
        stored[_SECONDS] = torch.tensor(seconds, dtype=torch.float64)
        self._stored[label] = stored
        self._unsaved |= {f"{label}{_BETWEEN}{name}": tensor for name, tensor in stored.items()}
        if time.monotonic() - self._saved_at >= _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        if self._unsaved:
            self._files.save(max(self._files.numbers(), default=-1) + 1, self._unsaved)
        self._unsaved, self._saved_at = {}, time.monotonic()

    def _read(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            label, _, key = name.rpartition(_BETWEEN)
            self._stored.setdefault(label, {})[key] = tensor


def _text(name: object) -> str:
    return str(name) if isinstance(name, (str, int)) else Fingerprints()(name)
