"""Minimum description length of labels given activations, by the online code."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from mechxai.methods.probes._lib.activation_block import Block
from mechxai.methods.probes._lib.fitting import covariance_factors
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.logistic import LogisticProblems, fit

_SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def codelength(block: Block, C: Tensor, likelihood: Likelihood, *, seed: int) -> tuple[Tensor, Tensor]:
    """The online codelength of the first target's training labels in bits, ``[set]``, and its compression, ``[set]``.

    The data is sent in blocks of growing size. The probe trained on all earlier blocks codes each block; the first is
    coded uniformly: ``t_1 log2 K + sum_i -log2 p_i(block i + 1)``. Compression is ``N log2 K`` divided by that length.
    All prefixes are fitted together; the order of rows is the same for every layer, position and site.

    Args:
        block: rows and labels.
        C: inverse regularisation of each set, ``[set]``, the same for all prefixes, in scikit-learn's unit: the fewer
            the examples, the stronger the regularisation.
        likelihood: likelihood of the classes.
        seed: seed of the order.

    Source: Voita and Titov 2020 (arXiv 2003.12298), section 2.2.
    """
    train = block.parts[0]
    present = block.present[:, train]
    n_rows = present.shape[1]
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed)).to(present.device)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n_rows, device=order.device)
    ends = sorted({max(2, math.ceil(share * n_rows)) for share in _SHARES})
    uniform = math.log2(likelihood.n_classes)
    if len(ends) == 1:  # so few rows that the first block holds all
        return present.sum(1) * uniform, torch.ones(len(present), device=present.device)
    prefixes = torch.stack([rank < end for end in ends[:-1]], -1) & present[..., None]  # [set, row, prefix]
    sizes = prefixes.sum(1).clamp_min(1)  # [set, prefix]
    weights = prefixes.float() / sizes[:, None]
    dense = likelihood.dense(block.labels[:, train, :1])
    counts = present.sum(1).clamp_min(1)
    penalties = 1 / (C[:, None] * sizes)[:, None]  # [set, 1, prefix]
    by_prefix = dense.expand(-1, -1, len(ends) - 1, -1)
    problems = LogisticProblems(block.rows[:, train], by_prefix, weights, penalties, likelihood)
    W = fit(problems, covariance_factors(problems), tolerance=1e-4)
    losses = likelihood.loss(problems.outputs(W)[:, :, 0], dense)  # [set, row, prefix]
    blocks = torch.stack([(rank >= low) & (rank < high) for low, high in pairwise(ends)], -1)
    coded = (losses * (blocks & present[..., None])).sum((1, 2)) / math.log(2)
    first = ((rank < ends[0]) & present).sum(1)
    bits = first * uniform + coded
    return bits, counts * uniform / bits
