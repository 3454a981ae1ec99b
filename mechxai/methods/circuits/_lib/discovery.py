"""Discovery methods by name, and the split of the prompts into those that find a circuit and those that test it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_args

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import METHODS, Method
from mechxai.core.metric import AnyMetric
from mechxai.methods.catalog import import_methods
from mechxai.methods.circuits._lib.references import ReferenceKind
from mechxai.methods.circuits._lib.saved_edges import SavedEdges, is_saved
from mechxai.methods.circuits.edge_attribution import AttributionKind, EdgeAttribution

Split = Literal["prompts", "templates"]
DISCOVERY_METHODS = (
    "eap",
    "clean_corrupted",
    "eap_ig_inputs",
    "eap_ig_activations",
    "edge_patching",
    "acdc",
    "edge_pruning",
)
"""The methods that comparisons run by default, in this order; `discovery_methods` gives all that are registered."""


def discovery_methods() -> Mapping[str, type[Method]]:
    """Every name that stands for a discovery method: registered methods that score edges, kinds of edge attribution."""
    import_methods("circuits")
    registered = {name: method for name, method in METHODS.items() if method.card.kind == "edges"}
    return registered | dict.fromkeys(get_args(AttributionKind), EdgeAttribution)


def edge_method(of: Any, metric: AnyMetric, reference: ReferenceKind = "corrupted") -> Method:
    """The discovery method that a field ``of`` names.

    Args:
        of: a method; a name of `discovery_methods`, for that method with its defaults; or the path of a circuit file
            (see `SavedEdges`).
        metric: of a named method, unless its own default is another than ``logit_diff`` (``acdc``, ``edge_pruning``).
        reference: of a named method, for the edges that it cuts.

    Raises:
        ConfigError: an unknown name; a reference that the method does not take.
        ArtifactError: no such file.
    """
    if isinstance(of, Method):
        return of
    if is_saved(of):
        return SavedEdges(of)
    name, methods = str(of), discovery_methods()
    check_choice("of", name, methods)
    method = methods[name]
    defaults = {field.name: field.default for field in fields(method)}  # type: ignore[arg-type] # every method is a dataclass
    settings: dict[str, Any] = {"kind": name} if name in get_args(AttributionKind) else {}
    if defaults.get("metric") == EdgeAttribution.metric:
        settings["metric"] = metric
    if "reference" in defaults:
        settings["reference"] = reference
    elif reference != "corrupted":
        raise ConfigError(f"{name} takes no reference={reference!r}", allowed="corrupted")
    return method(**settings)


def split_prompts(batch: ContrastBatch, discover: float, split: Split) -> tuple[ContrastBatch, ContrastBatch]:
    """The prompts that find the edges, and the prompts that test them.

    Args:
        batch: the prompts.
        discover: share of the prompts that find edges; 1 takes all for both.
        split: by ``prompts``, or by ``templates``.

    Raises:
        ConfigError: too few to split.
    """
    if discover == 1:
        return batch, batch
    labels = batch.groups if split == "templates" else tuple(map(str, range(len(batch))))
    groups = list(dict.fromkeys(labels))
    n = round(discover * len(groups))
    if not 0 < n < len(groups):
        raise ConfigError(
            f"{len(batch)} prompts cannot be split by {split} with discover={discover}: {n} {split} would find the "
            f"circuit and {len(groups) - n} would test it",
            fix="Give more of them, or discover=1 to test on the prompts that find the circuit",
        )
    first = torch.tensor([label in groups[:n] for label in labels], device=batch.clean.device)
    return batch.rows(first.nonzero()[:, 0]), batch.rows((~first).nonzero()[:, 0])
