"""Training, validation and test prompts of probes; no group is in two of them."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from mechxai.core.errors import ShapeError
from mechxai.core.labels import SPLITS, check_classes
from mechxai.core.probe_dataset import ProbeDataset

_FOLDS = 10
_TEST, _VALIDATION = 0.2, 0.1


@dataclass(frozen=True)
class Split:
    """Prompts in the order train, validation, test.

    Attributes:
        order: indices of the prompts in the dataset.
        n_train: number of training prompts.
        n_validation: number of validation prompts.
    """

    order: Int[Tensor, " batch"]
    n_train: int
    n_validation: int


def split_of(dataset: ProbeDataset, seed: int) -> Split:
    """The splits that the dataset has, or splits drawn by group: about 70, 10 and 20 % of the prompts.

    scikit-learn draws them: ``StratifiedGroupKFold`` if prompts have classes (``StratifiedKFold`` if every prompt is a
    group by itself), else ``GroupKFold``.

    Raises:
        ShapeError: fewer than three groups, or one class in the training prompts.
    """
    split_names = np.array(dataset.splits) if dataset.splits else _drawn_splits(dataset, seed)
    parts = [np.flatnonzero(split_names == name) for name in SPLITS]
    split = Split(torch.from_numpy(np.concatenate(parts)), len(parts[0]), len(parts[1]))
    for name, chosen in (("training", parts[0]), ("validation", parts[1]), ("test", parts[2])):
        part = dataset.rows(torch.from_numpy(chosen).to(dataset.tokens.device))
        labels = part.labels[part.labelled]
        if name != "validation":
            check_classes(labels, dataset.names, f" (here in the {name} prompts)")
        elif not len(labels):
            raise ShapeError("No validation prompt has a label", fix="Label some of them, or leave splits= out")
    return split


def _drawn_splits(dataset: ProbeDataset, seed: int) -> np.ndarray:
    groups = np.array(dataset.groups)
    n_groups = len(set(dataset.groups))
    if n_groups < len(SPLITS):
        raise ShapeError(
            f"The dataset has {n_groups} groups: splitting it by group needs at least {len(SPLITS)}, "
            f"one each for {', '.join(SPLITS)}",
            fix="Give more groups, or set splits=",
        )
    by_class = not dataset.per_token and not dataset.is_numbers
    classes = dataset.labels.cpu().numpy() if by_class else np.zeros(len(groups))
    labelled = classes >= 0
    rarest = int(np.unique(classes[labelled], return_counts=True)[1].min())
    n_folds = min(_FOLDS, n_groups, max(rarest, len(SPLITS)))
    if by_class and rarest >= n_folds:  # StratifiedGroupKFold takes a second per few thousand groups
        folds = StratifiedKFold if n_groups == len(groups) else StratifiedGroupKFold
    else:
        folds = GroupKFold
    split_names = np.full(len(groups), SPLITS[0], dtype=object)
    n_test, n_validation = max(1, round(_TEST * n_folds)), max(1, round(_VALIDATION * n_folds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small classes; `split_of` checks them
        splits = folds(n_folds, shuffle=True, random_state=seed).split(classes, classes, groups)
        for number, (_, chosen) in enumerate(splits):
            if number < n_test + n_validation:
                split_names[chosen] = "test" if number < n_test else "validation"
    return split_names
