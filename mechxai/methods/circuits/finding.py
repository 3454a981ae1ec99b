"""Which method finds the edges, and on which prompts; the others confirm."""

from typing import Any

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method
from mechxai.core.metric import AnyMetric
from mechxai.methods.circuits.acdc import Acdc
from mechxai.methods.circuits.edge_attribution import EdgeAttribution
from mechxai.methods.circuits.edge_patching import EdgePatching

EDGE_METHODS = ("edge_attribution", "edge_patching", "acdc")


def edge_method(of: Any, metric: AnyMetric) -> Method:
    """A method that scores edges, or that of a name with its defaults.

    Raises:
        ConfigError: another name.
    """
    if isinstance(of, Method):
        return of
    check_choice("of", str(of), EDGE_METHODS)
    if of == "acdc":
        return Acdc()
    return EdgeAttribution(metric=metric) if of == "edge_attribution" else EdgePatching(metric=metric)


def found_and_confirmed(batch: ContrastBatch, discover: float, split: str) -> tuple[ContrastBatch, ContrastBatch]:
    """The prompts to find edges on, and those to confirm them on.

    Args:
        batch: the prompts.
        discover: share for finding; 1 takes all for both.
        split: by ``prompts``, or by ``templates``.

    Raises:
        ConfigError: too few to split.
    """
    if discover == 1:
        return batch, batch
    names = batch.groups if split == "templates" else tuple(map(str, range(len(batch))))
    kinds = list(dict.fromkeys(names))
    n = round(discover * len(kinds))
    if not 0 < n < len(kinds):
        raise ConfigError(
            f"{len(batch)} prompts were to be split by {split} for finding and confirming",
            got=f"{n} and {len(kinds) - n} {split}",
            fix="give more of them, or discover=1 to confirm on those that were used",
        )
    first = torch.tensor([name in kinds[:n] for name in names], device=batch.clean.device)
    return batch.rows(first.nonzero()[:, 0]), batch.rows((~first).nonzero()[:, 0])
