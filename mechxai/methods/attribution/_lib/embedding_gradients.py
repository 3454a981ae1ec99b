"""Gradients of the score in the embeddings, computed with Captum for a few prompts at a time."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from mechxai.methods.attribution._lib.input import AttributionInput

Reduction = Literal["l2", "sum"]  # of a vector per token to one number


def captum_forward(inputs: AttributionInput) -> Callable[[Tensor, Tensor], Tensor]:
    """The score as Captum calls it: embeddings ``[row, pos, d_model]`` and each row's prompt number to ``[row]``."""

    def forward(embeddings: Tensor, prompts: Tensor) -> Tensor:
        inputs.tally.backward += len(prompts)
        return inputs.score(embeddings, prompts)

    return forward


@contextmanager
def captum_gradients() -> Generator[None]:
    """Enables gradients and silences Captum's warnings about ``requires_grad`` and batch sizes."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", module="captum")
        yield


@contextmanager
def torch_seed(seed: int) -> Generator[None]:
    """Seeds torch's global generators, which Captum draws from, and restores them afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def embedding_gradients(inputs: AttributionInput) -> Tensor:
    """The gradient of each prompt's score in its embeddings, ``[prompt, pos, d_model]``.

    Captum's ``Saliency`` without the absolute value.

    Cost: a forward and a backward pass per prompt.
    """
    from captum.attr import Saliency  # noqa: PLC0415 - heavy

    saliency = Saliency(captum_forward(inputs))

    def gradients(rows: Tensor) -> Tensor:
        with captum_gradients():
            points = inputs.embeddings[rows].clone()
            return saliency.attribute(points, abs=False, additional_forward_args=(rows,)).detach()

    return inputs.in_row_chunks(gradients)


def reduce_vectors(vectors: Tensor, reduction: Reduction) -> Tensor:
    """One number per vector, float64 on the CPU: ``sum`` keeps signs and adds up; ``l2`` is a magnitude."""
    double = vectors.double()
    return (double.sum(-1) if reduction == "sum" else double.norm(dim=-1)).cpu()
