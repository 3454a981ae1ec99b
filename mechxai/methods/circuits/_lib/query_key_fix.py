"""The QK fix of attribution patching: the exact change of patterns by patched queries or keys, first order after them.

A softmax that rests on one position hardly responds to a small change, so a gradient through it misses the effect of a
patch that moves attention elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.core.batch import Layout
from mechxai.core.errors import ModelSupportError
from mechxai.core.site import Site
from mechxai.model.dense.attention import attend
from mechxai.model.dense.blocks import DenseBlock
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
        """The fix for a model.

        Raises:
            ModelSupportError: a model whose blocks have no dense form.
        """
        plain = dense_model_of(model, int(layout.lengths.max()))
        if plain is None:
            raise ModelSupportError(
                f"attribution_patching with qk_fix=true cannot recompute the patterns of {model.name} "
                f"({model.architecture.family}) from queries and keys",
                fix="Use qk_fix=false",
            )
        return QueryKeyFix(plain.blocks, layout)

    @staticmethod
    def sites(whole: Sequence[Site]) -> list[Site]:
        """The sites whose activations and gradients the fix needs, for cells of these sites."""
        return [Site(name, site.layer) for site in whole for name in ("q", "k", "pattern")]

    def scores(
        self,
        cells: Sequence[Site],
        *,
        base: Mapping[Site, Tensor],
        source: Mapping[Site, Tensor],
        gradients: Mapping[Site, Tensor],
    ) -> Float[Tensor, "prompt cell"]:
        """The change of each cell's patterns times the gradient at the patterns.

        Args:
            cells: sites of queries or keys, of a head and a position or of all.
            base: queries, keys and patterns of the run that would be patched.
            source: queries or keys of the run that the patch comes from.
            gradients: at the patterns.
        """
        computed: dict[tuple[Site, object], Tensor] = {}
        scores = []
        for cell in cells:
            place = (cell.whole, cell.pos)
            if place not in computed:
                computed[place] = self._by_head(
                    cell, base, patch=source[cell.whole], gradient=gradients[Site("pattern", cell.layer)]
                )
            by_head = computed[place]  # [prompt, part]
            scores.append(by_head.sum(1) if cell.head is None else by_head[:, cell.head])
        return torch.stack(scores, 1)

    def _by_head(
        self, cell: Site, base: Mapping[Site, Tensor], *, patch: Parts, gradient: Pattern
    ) -> Float[Tensor, "prompt part"]:
        """The score of every query head, or key group, with the patch at one position of each prompt, or at all."""
        layer = cell.layer or 0
        block = self.blocks[layer]
        parts = {name: base[Site(name, layer)] for name in ("q", "k")}
        patched = torch.where(
            self._is_patched(cell, patch.shape[1], patch.device)[..., None, None], patch, parts[cell.name]
        )
        before = _pattern(block, parts["q"], parts["k"])
        after = _pattern(block, **{**parts, cell.name: patched})
        by_head = ((after - before) * gradient).sum((2, 3))
        return by_head.unflatten(1, (patch.shape[2], -1)).sum(2)

    def _is_patched(self, cell: Site, n_pos: int, device: torch.device) -> Bool[Tensor, "prompt pos"]:
        positions = torch.arange(n_pos, device=device)[None]
        if cell.pos is None:
            return positions >= 0
        at, _ = self.layout.positions(cell.pos)
        return positions == at.to(device)[:, None]


def _pattern(
    block: DenseBlock, q: Float[Tensor, "prompt pos head d_head"], k: Float[Tensor, "prompt pos kv_head d_head"]
) -> Pattern:
    """The attention pattern of queries and keys before rotation."""
    patterns: list[Tensor] = []
    attention = block.attention
    q, k = attention.queries(q, 0).transpose(1, 2), attention.keys(k, 0).transpose(1, 2)

    def save(pattern: Tensor) -> Tensor:
        patterns.append(pattern)
        return pattern

    attend(q, k, torch.zeros_like(k), rule=attention.rule, pattern_edit=save)
    return patterns[0]
