"""What a prompt's predictions become when sets of neurons are set to zero, many sets together."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Replace
from mechxai.core.site import Site
from mechxai.model.hooked_model import HookedModel

_ELEMENTS = 2**24  # of logits at a time


def divergence(
    model: HookedModel,
    batch: ContrastBatch,
    row: int,
    *,
    run: str,
    neurons: dict[int, np.ndarray],
    interventions: Sequence[Intervention],
) -> np.ndarray:
    """``KL(run || run without the neurons)`` of the next token in nats, ``[set, pos]``, padding included.

    Args:
        model: the model.
        batch: the prompts.
        row: which of them.
        run: ``clean`` or ``corrupted``.
        neurons: layer -> which of its neurons each set holds, ``[set, neuron]``; they are 0 at every position.
        interventions: edits of the run, made before neurons are set to zero.
    """
    masks = {layer: torch.from_numpy(mask).to(model.device) for layer, mask in neurons.items()}
    n_sets = len(next(iter(neurons.values())))
    at_once = max(1, _ELEMENTS // (batch.n_pos * model.architecture.d_vocab))

    def logprobs(times: int, zeros: Sequence[Intervention] = ()) -> Tensor:
        rows = torch.full((times,), row)
        own = [one.rows(rows) for one in interventions]
        tokens, layout = batch.tokens(run)[rows], batch.layout.rows(rows)
        return model.logits(tokens, interventions=[*own, *zeros], layout=layout).float().log_softmax(-1)

    untouched = logprobs(1)[0]
    found: list[Tensor] = []
    for first in range(0, n_sets, at_once):
        part = {layer: mask[first : first + at_once] for layer, mask in masks.items()}
        zeros = [Intervention(Site("mlp_post", layer), _off(mask, batch.n_pos)) for layer, mask in part.items()]
        silenced = logprobs(min(at_once, n_sets - first), zeros)
        found.append((untouched.exp() * (untouched - silenced)).sum(-1).double().cpu())
    return torch.cat(found).numpy()


def _off(mask: Tensor, n_pos: int) -> Replace:
    """Zero in place of each row's neurons, ``[row, neuron]``, at every position; nothing is copied."""
    where = mask[:, None].expand(-1, n_pos, -1)
    return Replace(torch.zeros((), device=mask.device).expand(where.shape), where)
