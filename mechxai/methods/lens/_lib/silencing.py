"""Zero ablation of sets of neurons: KL divergence of a prompt's predictions from those of the unablated run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention, Replace
from mechxai.core.site import Site
from mechxai.engine.contrast import Run
from mechxai.model.hooked_model import HookedModel

_ELEMENTS = 2**24  # logits held at a time


def divergence(
    model: HookedModel,
    batch: ContrastBatch,
    row: int,
    *,
    run: Run,
    neurons: dict[int, np.ndarray],
    interventions: Sequence[Intervention],
) -> np.ndarray:
    """``KL(run || run without the neurons)`` of the next token in nats, ``[set, pos]``, padding included.

    Args:
        model: the model.
        batch: the prompts.
        row: index of the prompt.
        run: ``clean`` or ``corrupted``.
        neurons: for each layer, a mask of the neurons in each set, ``[set, neuron]``; they are set to 0 at every
            position.
        interventions: edits of the run, applied before the neurons are set to zero.
    """
    masks = {layer: torch.from_numpy(mask).to(model.device) for layer, mask in neurons.items()}
    n_sets = len(next(iter(neurons.values())))
    at_once = max(1, _ELEMENTS // (batch.n_pos * model.architecture.d_vocab))

    def logprobs(times: int, zeros: Sequence[Intervention] = ()) -> Tensor:
        rows = torch.full((times,), row)
        edits = [intervention.rows(rows) for intervention in interventions]
        tokens, layout = batch.tokens(run)[rows], batch.layout.rows(rows)
        return model.logits(tokens, interventions=[*edits, *zeros], layout=layout).float().log_softmax(-1)

    unablated = logprobs(1)[0]
    divergences: list[Tensor] = []
    for first in range(0, n_sets, at_once):
        part = {layer: mask[first : first + at_once] for layer, mask in masks.items()}
        zeros = [Intervention(Site("mlp_post", layer), _zero_edit(mask, batch.n_pos)) for layer, mask in part.items()]
        ablated = logprobs(min(at_once, n_sets - first), zeros)
        divergences.append((unablated.exp() * (unablated - ablated)).sum(-1).double().cpu())
    return torch.cat(divergences).numpy()


def _zero_edit(mask: Tensor, n_pos: int) -> Replace:
    """An edit that sets each row's masked neurons, ``[row, neuron]``, to zero at every position; copies nothing."""
    where = mask[:, None].expand(-1, n_pos, -1)
    return Replace(torch.zeros((), device=mask.device).expand(where.shape), where)
