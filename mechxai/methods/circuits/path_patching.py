"""Path patching: the direct effect of senders on receivers, with all pairs in one packed sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, final

import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, SiteError, unknown
from mechxai.core.graph import Graph, node_of
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.contrast import Direction, baselines
from mechxai.engine.execution import Execution
from mechxai.methods.circuits._lib.edge_effects import EdgeEffects
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.circuits._lib.prepared_graph import prepare_graph
from mechxai.methods.result_parts import bounded, run_info, shares_of_gap
from mechxai.model.hooked_model import HookedModel

Freeze = Literal["all", "heads"]
_FREEZE_NOTES: dict[Freeze, str] = {
    "all": "heads and MLPs between sender and receiver are frozen",
    "heads": "heads between sender and receiver are frozen, MLPs are recomputed",
}


@final
@register(
    MethodCard(
        name="path_patching",
        family="circuits",
        question="What is the direct effect of these senders on these receivers?",
        cost="one suffix of a forward pass per pair and prompt, from the receiver on",
        source="Wang et al. 2022 (arXiv 2211.00593), appendix B; Goldowsky-Dill et al. 2023 (arXiv 2304.05969)",
        pros="separates a direct effect from effects through other heads; exact",
        cons="depends on which nodes between sender and receiver are frozen, which the result notes",
    )
)
@dataclass(frozen=True)
class PathPatching(Method):
    """A receiver's input sees the sender's output from the other run; everything after the receiver is recomputed.

    Attributes:
        senders: nodes, ``embed``, ``a5.h1``, ``m3``; ``*`` matches anything (``a9.*``). All by default.
        receivers: inputs, ``a9.h6.q``, ``m3``, ``logits``, or nodes for all their inputs; ``*`` as for senders. Under
            grouped-query attention keys and values belong to groups, ``a9.g0.k``. The logits by default.
        freeze: which nodes between sender and receiver are frozen: ``all`` (heads and MLPs), or ``heads`` (MLPs are
            recomputed, as in Wang et al.).
        direction: ``noise`` runs the clean prompt with the sender's corrupted output; ``denoise`` the reverse.
        metric: the metric.

    Source: as in the card; the receiver's norm is recomputed.
    """

    in_waves: ClassVar[bool] = True

    senders: Sequence[str] = ("*",)
    receivers: Sequence[str] = ("logits",)
    freeze: Freeze = "heads"
    direction: Direction = "noise"
    metric: AnyMetric = "logit_diff"

    def _check_fields(self) -> None:
        as_metric(self.metric)
        for name, patterns in (("senders", self.senders), ("receivers", self.receivers)):
            if not patterns:
                raise ConfigError(f"{name} is empty", fix="Give names of nodes, or * for all")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The direct effect of every sender on every receiver after it.

        Returns:
            ``value`` [edge], the change of the metric, positive where the path supports the behaviour, with 95 %
            intervals over prompts; ``recovered`` [edge], its share of the clean-corrupted gap, likewise;
            ``per_example`` [prompt, edge]; coords ``src``, ``dest``; the baselines.

        Raises:
            SiteError: a name that matches no node or input.
            ConfigError: no sender before a receiver.
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
        """
        prepared = prepare_graph(model, batch, self.metric)
        paths = self._paths(prepared.graph)
        prepared = prepared.with_clean_logprobs()
        graph, batch, metric = prepared.graph, prepared.batch, prepared.metric
        contrast = baselines(model, batch, metric, direction=self.direction)
        effects = EdgeEffects(prepared, self.direction, mlps_follow=self.freeze == "heads")
        per_example = contrast.moved(effects.scores(paths, execution)[:, paths].numpy())
        meaning = f"change of {metric.name} that the path brings"
        share = f"share of the clean-corrupted gap in {metric.name} that the path carries"
        over = ("edge",)
        data = {
            **bounded("value", over, per_example, units=metric.unit, meaning=meaning),
            "per_example": variable(("prompt", "edge"), per_example, metric.unit, meaning),
            **shares_of_gap(over, per_example, contrast, meaning=share),
        }
        ends = [(graph.writers[writer], graph.readers[reader]) for reader, writer in paths.nonzero().tolist()]
        coords = {**edge_coords(ends), "prompt": list(range(len(batch)))}
        cost = prepared.cost(summed(effects.outcomes) if effects.outcomes else {})
        notes = (_FREEZE_NOTES[self.freeze], *noted(effects.outcomes), *contrast.notes)
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _paths(self, graph: Graph) -> Bool[Tensor, "reader writer"]:
        """The pairs of a receiver and a sender before it."""
        senders = _matches("sender", self.senders, graph.writers, nodes=graph.writers)
        nodes = tuple(node_of(reader) for reader in graph.readers)
        receivers = _matches("receiver", self.receivers, graph.readers, nodes=nodes)
        paths = receivers[:, None] & senders[None] & graph.reads
        if not bool(paths.any()):
            raise ConfigError(
                f"There is no sender before a receiver: senders={list(self.senders)}, receivers={list(self.receivers)}"
            )
        return paths


def _matches(
    role: str, patterns: Sequence[str], names: Sequence[str], *, nodes: Sequence[str]
) -> Bool[Tensor, " name"]:
    """Which names match a pattern, by themselves or by the node that they belong to.

    Args:
        role: ``sender`` or ``receiver``, for the error.
        patterns: names, with ``*`` for anything.
        names: of the writers, or of the readers.
        nodes: the node of each name.

    Raises:
        SiteError: a pattern without a match.
    """
    matches = torch.zeros(len(names), dtype=torch.bool)
    for pattern in patterns:
        fits = [
            fnmatchcase(name, pattern) or fnmatchcase(node, pattern) for name, node in zip(names, nodes, strict=True)
        ]
        if not any(fits):
            raise SiteError(unknown(role, pattern, names))
        matches |= torch.tensor(fits)
    return matches
