"""Prompts explained one after the other: a bar with the time left, and each finished one on disk before the next."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from mechxai.core.fingerprint import Fingerprints
from mechxai.core.method import Method
from mechxai.engine.checkpoint import WaveStore
from mechxai.engine.progress import Bar
from mechxai.methods.attribution._lib.input import AttributionInput


def prompt_by_prompt(
    method: Method, problem: AttributionInput, run: Callable[[AttributionInput, int], Tensor]
) -> list[Tensor]:
    """What a function gives for each prompt alone, without padding.

    Args:
        method: whose settings decide the values; named beside the bar.
        problem: all prompts.
        run: takes the problem of one prompt and its number; gives numbers in any shape.

    Where the execution has a folder for cells, finished prompts are kept there and found again.
    """
    folder, n = problem.execution.cells, len(problem)
    store = None if folder is None else WaveStore(folder, _key(method, problem))
    shown = problem.execution.progress
    inner = replace(problem.with_end_scores(), execution=replace(problem.execution, progress=shown and n == 1))
    found = []
    with Bar(method.card.name, n, shown=shown and n > 1, unit="prompts") as bar:
        for number, one in enumerate(inner.each()):
            kept = store.load(number) if store else None
            values = run(one, number) if kept is None else kept
            if store and kept is None:
                store.save(number, values)
            found.append(values)
            bar.advance(1, computed=kept is None)
    return found


def _key(method: Method, problem: AttributionInput) -> str:
    hashed = Fingerprints()
    decisive = (method.settings(), problem.batch.identity, problem.embeddings, problem.baseline)
    parts = [problem.model.identity, *(hashed(part) for part in decisive), hashed(problem.players.of_token)]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
