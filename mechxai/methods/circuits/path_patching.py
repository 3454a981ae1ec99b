"""Path patching: what goes from some senders to some receivers directly, all pairs in one packed sweep."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, final

import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, SiteError, check_choice, nearest
from mechxai.core.graph import Graph, node_of
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.contrast import DIRECTIONS, baselines, with_reference
from mechxai.engine.execution import Execution
from mechxai.engine.multi_sweep import distinct_notes, total_cost
from mechxai.methods.circuits._lib.edge_effects import EdgeEffects
from mechxai.methods.circuits._lib.edge_result import edge_coords
from mechxai.methods.result_parts import bounded, run_info, shares_of_gap
from mechxai.model.graph.writes import graph_blocks
from mechxai.model.hooked_model import HookedModel

FREEZES = ("all", "heads")


@final
@register(
    MethodCard(
        name="path_patching",
        family="circuits",
        kind="edges",
        question="What do these senders bring to these receivers directly?",
        cost="one suffix of a forward pass per pair and prompt, from the receiver on",
        source="Wang et al. 2022 (arXiv 2211.00593), appendix B; Goldowsky-Dill et al. 2023 (arXiv 2304.05969)",
        pros="tells a direct effect from one through other heads; exact",
        cons="what is frozen between sender and receiver is a choice, which is named",
    )
)
@dataclass(frozen=True)
class PathPatching(Method):
    """A receiver's input answers to the sender as it is in the other run; everything after the receiver follows.

    Attributes:
        senders: nodes, ``embed``, ``a5.h1``, ``m3``; ``*`` stands for anything (``a9.*``). All by default.
        receivers: inputs, ``a9.h6.q``, ``m3``, ``logits``, or nodes for all their inputs; likewise. Under grouped-query
            attention keys and values belong to groups, ``a9.g0.k``. The logits by default.
        freeze: what does not answer between sender and receiver: ``all`` (heads and MLPs), or ``heads`` (MLPs do, as in
            Wang et al.).
        direction: ``noise`` runs the clean prompt and lets the sender be as in the corrupted run; ``denoise`` the
            reverse.
        metric: what is measured.

    Source: as in the card; the receiver's norm is made anew.
    """

    in_waves: ClassVar[bool] = True

    senders: Sequence[str] = ("*",)
    receivers: Sequence[str] = ("logits",)
    freeze: str = "heads"
    direction: str = "noise"
    metric: AnyMetric = "logit_diff"

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("freeze", self.freeze, FREEZES)
        check_choice("direction", self.direction, DIRECTIONS)
        if not self.senders or not self.receivers:
            raise ConfigError("path_patching without senders or receivers", fix="give names, or * for all")

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The effect of every pair of a sender and a receiver after it.

        Returns:
            ``value`` [edge], the change of the metric, positive where the path supports the behaviour, with 95 %
            intervals over prompts; ``recovered`` [edge], its share of the clean-corrupted gap, likewise;
            ``per_example`` [prompt, edge]; coords ``src``, ``dest``; the baselines.

        Raises:
            SiteError: a name that fits no node or input.
            ConfigError: no sender stands before a receiver.
            ModelSupportError: a model whose residual stream is not the sum of what its nodes write.
        """
        started = time.perf_counter()
        metric, batch = as_metric(self.metric), batch.to(model.device)
        metric.check(batch)
        blocks = graph_blocks(model)
        chosen = self._chosen(blocks.graph)
        batch = with_reference(model, batch, metric)
        known = baselines(model, batch, metric, direction=self.direction)
        effects = EdgeEffects(model, blocks, batch, metric, self.direction, self.freeze == "heads")
        moved = effects.measured(chosen, execution)[:, chosen].numpy()
        per_example = known.moved(moved)
        meaning = f"change of {metric.name} that the path brings"
        part = f"share of the clean-corrupted gap in {metric.name} that the path carries"
        over = ("edge",)
        data = {
            **bounded("value", over, per_example, units=metric.unit, meaning=meaning),
            "per_example": variable(("prompt", "edge"), per_example, metric.unit, meaning),
            **shares_of_gap(over, per_example, known, meaning=part),
        }
        ends = [
            (blocks.graph.writers[writer], blocks.graph.readers[reader]) for reader, writer in chosen.nonzero().tolist()
        ]
        coords = {**edge_coords(ends), "prompt": list(range(len(batch)))}
        cost = {**(total_cost(effects.outcomes) if effects.outcomes else {}), "seconds": time.perf_counter() - started}
        notes = (f"between sender and receiver {_FROZEN[self.freeze]}", *distinct_notes(effects.outcomes), *known.notes)
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=notes))

    def _chosen(self, graph: Graph) -> Bool[Tensor, "reader writer"]:
        """Which readers and writers are asked for."""
        senders = _fitting("sender", self.senders, graph.writers, nodes=graph.writers)
        nodes = tuple(node_of(reader) for reader in graph.readers)
        receivers = _fitting("receiver", self.receivers, graph.readers, nodes=nodes)
        found = receivers[:, None] & senders[None] & graph.reads
        if not bool(found.any()):
            raise ConfigError(
                f"Paths from {list(self.senders)} to {list(self.receivers)} were asked",
                got="no sender before a receiver",
            )
        return found


_FROZEN = {"all": "heads and MLPs stay as they are", "heads": "heads stay as they are and MLPs follow"}


def _fitting(
    what: str, patterns: Sequence[str], names: Sequence[str], *, nodes: Sequence[str]
) -> Bool[Tensor, " name"]:
    """Which names, or the nodes they belong to, fit a pattern.

    Raises:
        SiteError: a pattern that fits none.
    """
    found = torch.zeros(len(names), dtype=torch.bool)
    for pattern in patterns:
        fits = [
            fnmatchcase(name, pattern) or fnmatchcase(node, pattern) for name, node in zip(names, nodes, strict=True)
        ]
        if not any(fits):
            raise SiteError(
                f"The {what} {pattern!r} was asked", got="none of that name", allowed=nearest(pattern, names)
            )
        found |= torch.tensor(fits)
    return found
