"""Runs an attribution method prompt by prompt, saving each finished prompt before the next begins."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from mechxai.core.fingerprint import Fingerprints
from mechxai.core.method import Method
from mechxai.engine.checkpoint import TENSOR, CheckpointStore
from mechxai.engine.progress import ProgressBar
from mechxai.methods.attribution._lib.input import AttributionInput


def prompt_by_prompt(
    method: Method, problem: AttributionInput, run: Callable[[AttributionInput, int], Tensor]
) -> list[Tensor]:
    """The value of a function for each prompt alone, without padding.

    Args:
        method: the method; its settings are part of the checkpoint's key, its name stands beside the progress bar.
        problem: all prompts.
        run: takes the input of one prompt and its number; returns a tensor of any shape.

    With ``execution.cells``, finished prompts are saved there, and an interrupted run resumes.
    """
    folder, n_prompts = problem.execution.cells, len(problem)
    store = CheckpointStore(folder, "" if folder is None else _key(method, problem), TENSOR)
    shown = problem.execution.progress
    execution = replace(problem.execution, progress=shown and n_prompts == 1)
    inner = replace(problem.with_end_scores(), execution=execution)
    values = []
    with ProgressBar(method.card.name, n_prompts, shown=shown and n_prompts > 1, unit="prompts") as bar:
        for number, prompt in enumerate(inner.each()):
            value, computed = store.load_or_compute(number, partial(run, prompt, number))
            values.append(value)
            bar.advance(1, computed=computed)
    return values


def _key(method: Method, problem: AttributionInput) -> str:
    fingerprint = Fingerprints()
    decisive = (method.settings(), problem.batch.identity, problem.embeddings, problem.baseline)
    parts = [problem.model.identity, *(fingerprint(part) for part in decisive), fingerprint(problem.players.of_token)]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
