"""Runs an attribution method prompt by prompt, saving each finished prompt before the next begins."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from mechxai.core.method import Method
from mechxai.engine.checkpoint import TENSORS
from mechxai.engine.finished import FinishedPieces
from mechxai.engine.progress import ProgressBar
from mechxai.methods.attribution._lib.input import AttributionInput

_VALUES, _PASSES = "values", "passes"


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
    n_prompts, tally = len(problem), problem.tally
    question = (method, problem.model.identity, problem.batch, problem.embeddings, problem.baseline, problem.players)
    shown = problem.execution.progress
    execution = replace(problem.execution, progress=shown and n_prompts == 1)
    inner = replace(problem.with_end_scores(), execution=execution)
    values = []
    with (
        FinishedPieces(execution.cells, *question, serializer=TENSORS) as finished,
        ProgressBar(method.card.name, n_prompts, shown=shown and n_prompts > 1, unit="prompts") as bar,
    ):
        for number, prompt in enumerate(inner.each()):
            computed = number not in finished
            piece = finished.take(number, partial(_with_passes, run, prompt, number))
            if not computed:
                tally.add(piece[_PASSES])
            values.append(piece[_VALUES])
            bar.advance(1, computed=computed)
    return values


def _with_passes(
    run: Callable[[AttributionInput, int], Tensor], prompt: AttributionInput, number: int
) -> Mapping[str, Tensor]:
    """A prompt's value, and the passes that it took."""
    before = prompt.tally.as_tensor()
    value = run(prompt, number)
    return {_VALUES: value, _PASSES: prompt.tally.as_tensor() - before}
