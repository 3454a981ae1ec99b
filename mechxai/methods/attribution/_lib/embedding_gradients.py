"""Gradients of the score in the embeddings, some prompts at a time; the algorithms are Captum's."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from mechxai.methods.attribution._lib.input import AttributionInput


def forward_of(problem: AttributionInput) -> Callable[[Tensor, Tensor], Tensor]:
    """The score as Captum calls it: embeddings ``[row, pos, d_model]`` and each row's prompt to ``[row]``."""

    def forward(embeddings: Tensor, prompts: Tensor) -> Tensor:
        problem.tally.backward += len(prompts)
        return problem.score(embeddings, prompts)

    return forward


@contextmanager
def quiet() -> Generator[None]:
    """Captum's reminders silent: that it sets ``requires_grad``, that a batch is larger than asked."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", module="captum")
        yield


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Torch's global draws from a seed, and the generators as they were afterwards; Captum takes none of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def gradients(problem: AttributionInput) -> Tensor:
    """The gradient of each prompt's score in its embeddings, ``[prompt, pos, d_model]``.

    Captum's ``Saliency`` with its sign kept.

    Cost: a forward and a backward pass per prompt.
    """
    from captum.attr import Saliency  # noqa: PLC0415 - heavy

    saliency = Saliency(forward_of(problem))

    def some(rows: Tensor) -> Tensor:
        with quiet():
            points = problem.embeddings[rows].clone()
            return saliency.attribute(points, abs=False, additional_forward_args=(rows,)).detach()

    return problem.in_parts(some)


def reduced(vectors: Tensor, how: str) -> Tensor:
    """One number per token from one per dimension: ``sum`` keeps signs and adds up; ``l2`` is a size only."""
    wide = vectors.double()
    return (wide.sum(-1) if how == "sum" else wide.norm(dim=-1)).cpu()
