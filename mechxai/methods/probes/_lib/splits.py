"""Which prompts a probe learns from, which choose its regularisation, which it is judged on; no group is in two."""

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
        order: their numbers in the dataset.
        n_train: how many come first.
        n_validation: how many come next.
    """

    order: Int[Tensor, " batch"]
    n_train: int
    n_validation: int


def split_of(dataset: ProbeDataset, seed: int) -> Split:
    """The dataset's own splits, or splits drawn by group: about 70, 10 and 20 % of the prompts.

    scikit-learn draws them: ``StratifiedGroupKFold`` where prompts have classes (``StratifiedKFold`` where each is a
    group of its own), else ``GroupKFold``.

    Raises:
        ShapeError: fewer than three groups, or one class in the training prompts.
    """
    homes = np.array(dataset.splits) if dataset.splits else _drawn(dataset, seed)
    parts = [np.flatnonzero(homes == name) for name in SPLITS]
    split = Split(torch.from_numpy(np.concatenate(parts)), len(parts[0]), len(parts[1]))
    for name, chosen in (("training", parts[0]), ("validation", parts[1]), ("test", parts[2])):
        part = dataset.rows(torch.from_numpy(chosen).to(dataset.tokens.device))
        known = part.labels[part.labelled]
        if name != "validation":
            check_classes(known, dataset.names, f" (here in the {name} prompts)")
        elif not len(known):
            raise ShapeError("No validation prompt has a label", fix="label some, or leave splits out")
    return split


def _drawn(dataset: ProbeDataset, seed: int) -> np.ndarray:
    groups = np.array(dataset.groups)
    n_groups = len(set(dataset.groups))
    if n_groups < len(SPLITS):
        raise ShapeError(
            "Splitting a probe dataset by group was asked",
            got=f"{n_groups} groups",
            allowed=f"{len(SPLITS)} or more, one at least for each of {', '.join(SPLITS)}",
            fix="give more groups, or splits= of your own",
        )
    by_class = not dataset.per_token and not dataset.is_numbers
    classes = dataset.labels.cpu().numpy() if by_class else np.zeros(len(groups))
    kept = classes >= 0
    rarest = int(np.unique(classes[kept], return_counts=True)[1].min())
    n_folds = min(_FOLDS, n_groups, max(rarest, len(SPLITS)))
    if by_class and rarest >= n_folds:  # the grouped form takes a second per few thousand groups
        folds = StratifiedKFold if n_groups == len(groups) else StratifiedGroupKFold
    else:
        folds = GroupKFold
    homes = np.full(len(groups), SPLITS[0], dtype=object)
    n_test, n_validation = max(1, round(_TEST * n_folds)), max(1, round(_VALIDATION * n_folds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of small classes; they are checked afterwards
        found = folds(n_folds, shuffle=True, random_state=seed).split(classes, classes, groups)
        for number, (_, chosen) in enumerate(found):
            if number < n_test + n_validation:
                homes[chosen] = "test" if number < n_test else "validation"
    return homes
