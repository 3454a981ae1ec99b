"""What patching queries or keys does to patterns, exactly; only what comes after the pattern is then first order.

A softmax that rests on one position hardly answers to a small change, so a gradient through it misses what a patch that
moves attention elsewhere would do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import Layout
from mechxai.core.errors import ModelSupportError
from mechxai.core.site import Site
from mechxai.model.dense.blocks import DenseBlock, attend
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.hooked_model import HookedModel

Parts = Float[Tensor, "prompt pos part d_head"]
Pattern = Float[Tensor, "prompt head pos src"]


@dataclass(frozen=True)
class QueryKeyFix:
    """Scores of cells of queries, or of keys.

    Attributes:
        blocks: the model's.
        layout: of the prompts.

    Source: Kramar et al. 2024 (arXiv 2403.00745), section 3.1.1.
    """

    blocks: Sequence[DenseBlock]
    layout: Layout

    @staticmethod
    def of(model: HookedModel, layout: Layout) -> "QueryKeyFix":
        """For a model.

        Raises:
            ModelSupportError: its blocks are of a kind that is not known.
        """
        plain = dense_model_of(model)
        if plain is None:
            raise ModelSupportError(
                f"attribution_patching with qk_fix on {model.name} was asked",
                got=f"{model.architecture.family}, whose patterns cannot be made anew from queries and keys",
                fix="qk_fix=false",
            )
        return QueryKeyFix(plain.blocks, layout)

    @staticmethod
    def sites(whole: Sequence[Site]) -> list[Site]:
        """Where activations and gradients are needed, for cells of these sites."""
        return [Site(name, site.layer) for site in whole for name in ("q", "k", "pattern")]

    def scores(
        self,
        cells: Sequence[Site],
        *,
        own: Mapping[Site, Tensor],
        theirs: Mapping[Site, Tensor],
        gradients: Mapping[Site, Tensor],
    ) -> Float[Tensor, "prompt cell"]:
        """The change of each cell's patterns times the gradient there.

        Args:
            cells: sites of queries or keys, of a head and a position or of all.
            own: queries, keys and patterns of the run that would be patched.
            theirs: queries or keys of the other run.
            gradients: at the patterns.
        """
        known: dict[tuple[Site, object], Tensor] = {}
        found = []
        for cell in cells:
            place = (cell.whole, cell.pos)
            if place not in known:
                known[place] = self._by_head(
                    cell, own, other=theirs[cell.whole], gradient=gradients[Site("pattern", cell.layer)]
                )
            by_head = known[place]  # [prompt, part]
            found.append(by_head.sum(1) if cell.head is None else by_head[:, cell.head])
        return torch.stack(found, 1)

    def _by_head(
        self, cell: Site, own: Mapping[Site, Tensor], *, other: Parts, gradient: Pattern
    ) -> Float[Tensor, "prompt part"]:
        """For every query head, or group of keys, with one position of each prompt put in, or all."""
        layer = cell.layer or 0
        block = self.blocks[layer]
        parts = {name: own[Site(name, layer)] for name in ("q", "k")}
        patched = torch.where(
            self._chosen(cell, other.shape[1], other.device)[..., None, None], other, parts[cell.name]
        )
        before = _pattern(block, parts["q"], parts["k"])
        after = _pattern(block, **{**parts, cell.name: patched})
        by_head = ((after - before) * gradient).sum((2, 3))
        return by_head.unflatten(1, (other.shape[2], -1)).sum(2)

    def _chosen(self, cell: Site, n_pos: int, device: torch.device) -> Bool[Tensor, "prompt pos"]:
        every = torch.arange(n_pos, device=device)[None]
        if cell.pos is None:
            return every >= 0
        at, _ = self.layout.positions(cell.pos)
        return every == at.to(device)[:, None]


def _pattern(
    block: DenseBlock, q: Float[Tensor, "prompt pos head d_head"], k: Float[Tensor, "prompt pos kv_head d_head"]
) -> Pattern:
    """The pattern of queries and keys, as they are before rotation."""
    kept: list[Tensor] = []
    if block.rotary is not None:
        q, k = block.rotary(q, 0), block.rotary(k, 0)
    q, k = q.transpose(1, 2), k.transpose(1, 2)

    def keep(pattern: Tensor) -> Tensor:
        kept.append(pattern)
        return pattern

    attend(q * block.scale, k, torch.zeros_like(k), prefix=None, offset=0, pattern_edit=keep)
    return kept[0]
