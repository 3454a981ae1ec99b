"""Control labels, unrelated to the activations: a probe's accuracy on them is memorisation, not decoding."""

from typing import Literal

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.probe_dataset import ProbeDataset

Control = Literal["auto", "word_type", "shuffle", "none"]


def control_kind(dataset: ProbeDataset, control: Control) -> Control:
    """The control for a dataset: for ``auto``, ``word_type`` if every token has a class, else ``shuffle``.

    Raises:
        ConfigError: word types for labels of whole prompts, or for numbers.
    """
    by_token = dataset.per_token and not dataset.is_numbers
    if control == "word_type" and not by_token:
        labels = "numbers" if dataset.is_numbers else "labels of whole prompts"
        raise ConfigError(
            f"control='word_type' needs a class for every token, but the dataset has {labels}",
            allowed="auto, shuffle, none",
        )
    return ("word_type" if by_token else "shuffle") if control == "auto" else control


def control_labels(dataset: ProbeDataset, kind: str, n_learnt: int, *, seed: int) -> Tensor:
    """Control labels in the shape of the dataset's labels.

    ``word_type``: every distinct token gets one class, drawn from the distribution of the labels (Hewitt and Liang
    2019, arXiv 1909.03368, section 2). ``shuffle``: labels are permuted, separately among the prompts for training and
    validation and among the test prompts. With unpermuted test labels, a shuffled probe along a strong direction would
    score 0 or 1 by luck.

    Args:
        dataset: its prompts in the order of the split.
        kind: ``word_type`` or ``shuffle``.
        n_learnt: number of training and validation prompts.
        seed: seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    labels, labelled = dataset.labels.cpu(), dataset.labelled.cpu()
    control = labels.clone()
    if kind == "word_type":
        tokens = dataset.tokens.cpu()[labelled]
        types, type_of_token = tokens.unique(return_inverse=True)
        pool = labels[labelled]
        drawn = pool[torch.randint(len(pool), (len(types),), generator=generator)]
        control[labelled] = drawn[type_of_token]
    else:
        for part in (slice(0, n_learnt), slice(n_learnt, None)):
            pool = labels[part][labelled[part]]
            control[part][labelled[part]] = pool[torch.randperm(len(pool), generator=generator)]
    return control.to(dataset.labels.device)
