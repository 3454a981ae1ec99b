"""Labels that say nothing: what a probe reaches on them, it reaches by learning, not by reading."""

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.probe_dataset import ProbeDataset

CONTROLS = ("auto", "word_type", "shuffle", "none")


def control_kind(dataset: ProbeDataset, wanted: str) -> str:
    """``word_type`` where every token has a class of its own, else ``shuffle``; or what was wanted.

    Raises:
        ConfigError: word types for labels of whole prompts, or of numbers.
    """
    fits = dataset.per_token and not dataset.is_numbers
    if wanted == "word_type" and not fits:
        raise ConfigError(
            "control='word_type' was asked", got="labels of prompts, or numbers", allowed="auto, shuffle, none"
        )
    return ("word_type" if fits else "shuffle") if wanted == "auto" else wanted


def control_labels(dataset: ProbeDataset, kind: str, n_learnt: int, *, seed: int) -> Tensor:
    """Control labels in the shape of the dataset's own, its prompts in the order of the split.

    ``word_type``: every distinct token gets one class, drawn from the labels' own distribution (Hewitt and Liang 2019,
    arXiv 1909.03368, section 2). ``shuffle``: labels change places, among the prompts that are learnt from and among
    those that the probe is judged on; were the latter left as they are, a shuffled probe along a strong direction would
    score 0 or 1 by luck.

    Args:
        dataset: its prompts in the order of the split.
        kind: of control.
        n_learnt: prompts that are learnt from, validation included.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    labels, known = dataset.labels.cpu(), dataset.labelled.cpu()
    found = labels.clone()
    if kind == "word_type":
        tokens = dataset.tokens.cpu()[known]
        types, where = tokens.unique(return_inverse=True)
        pool = labels[known]
        drawn = pool[torch.randint(len(pool), (len(types),), generator=generator)]
        found[known] = drawn[where]
    else:
        for part in (slice(0, n_learnt), slice(n_learnt, None)):
            pool = labels[part][known[part]]
            found[part][known[part]] = pool[torch.randperm(len(pool), generator=generator)]
    return found.to(dataset.labels.device)
