"""Which method finds the edges, and on which prompts; the others confirm."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.circuits._lib.edge_selection import RANKS
from mechxai.methods.circuits._lib.references import REFERENCES
from mechxai.methods.circuits._lib.saved_edges import SavedEdges, is_saved
from mechxai.methods.circuits.acdc import Acdc
from mechxai.methods.circuits.edge_attribution import KINDS, EdgeAttribution
from mechxai.methods.circuits.edge_patching import EdgePatching
from mechxai.methods.circuits.edge_pruning import EdgePruning


def _attribution(kind: str, metric: AnyMetric, away: str) -> Method:
    return EdgeAttribution(kind, metric=metric, reference=away)


def _exact(metric: AnyMetric, away: str) -> Method:
    check_choice("reference", away, ("corrupted",))
    return EdgePatching(metric=metric)


# By name: a method, or a kind of edge attribution, from the metric and what stands in for what is cut.
FINDERS: dict[str, Callable[[AnyMetric, str], Method]] = {
    "edge_attribution": lambda metric, away: EdgeAttribution(metric=metric, reference=away),
    **{kind: partial(_attribution, kind) for kind in KINDS},
    "edge_patching": _exact,
    "acdc": lambda _metric, away: Acdc(reference=away),
    "edge_pruning": lambda _metric, away: EdgePruning(reference=away),
}


def edge_method(of: Any, metric: AnyMetric, reference: str = "corrupted") -> Method:
    """A method that scores edges, that of a name with its defaults, or the edges of a file.

    Args:
        of: the method, a name of `FINDERS`, or the path of a circuit file (see `SavedEdges`).
        metric: of those that take any; ``acdc`` and ``edge_pruning`` have their own.
        reference: what stands in for what is cut, of a name.

    Raises:
        ConfigError: another name; a reference that it does not take.
        ArtifactError: no such file.
    """
    if isinstance(of, Method):
        return of
    if is_saved(of):
        return SavedEdges(of)
    check_choice("of", str(of), tuple(FINDERS))
    return FINDERS[str(of)](metric, reference)


def check_discovery(of: Any, metric: AnyMetric, *, rank: str, away: str, split: str) -> None:
    """Refuses what finding edges on some prompts and cutting the others on the rest cannot be asked.

    Args:
        of: as in `edge_method`.
        metric: likewise.
        rank: how edges are ranked.
        away: what stands in for what is cut.
        split: what prompts are split by.

    Raises:
        ConfigError: one that is not known.
        ArtifactError: no such file of edges.
    """
    as_metric(metric)
    edge_method(of, metric)
    check_choice("rank", rank, RANKS)
    check_choice("reference", away, REFERENCES)
    check_choice("split", split, ("prompts", "templates"))


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
