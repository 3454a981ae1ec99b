"""Level 4 `fused`: rows of different lengths run through plain blocks, each from the first place that its edit changes.

All parts but attention treat the positions of all rows as one matrix. Attention runs group by group, against keys and
values of the unedited run that are never copied. In the last layer only the answer position continues.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.engine.chunk import Chunk, metric_values
from mechxai.engine.flat_rows import FlatRows, RowGroup, row_groups
from mechxai.engine.row_edits import Window
from mechxai.engine.row_joins import AFTER_ATTENTION, END, INPUT, Join
from mechxai.engine.suffix import embedded_rows
from mechxai.engine.waves import Wave
from mechxai.model.backends.hooks import gathered
from mechxai.model.dense.attention import attend
from mechxai.model.dense.blocks import DenseBlock
from mechxai.model.dense.lookup import dense_model_of
from mechxai.model.dense.parts import NeuronMlp

_StartRows = Callable[[int, RowGroup, range], Tensor]  # layer, group, rows that join -> their residual stream


def run_fused(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """Level 4: the metric of each row of a wave."""
    return _Fused(chunk, wave).values()


class _Fused:
    def __init__(self, chunk: Chunk, wave: Wave) -> None:
        dense = dense_model_of(chunk.model)
        if dense is None:
            raise NotImplementedError(f"{chunk.model.name} has no plain blocks")
        self.chunk, self.wave, self.dense = chunk, wave, dense
        self.base, self.device = chunk.recorded.base, chunk.model.device
        self.rows = FlatRows(row_groups(chunk, wave), self.device)
        self.early = self._embedded()

    def _embedded(self) -> dict[int, Tensor]:
        """Group -> the residual stream before block 0 of rows that are edited before it, ``[row, pos, d_model]``."""
        residuals = {}
        for number, group in enumerate(self.rows.groups):
            rows = {edit.row for site, edits in group.edits.items() if site.row.entry == "embed" for edit in edits}
            if rows:
                prompts = group.prompts * (max(rows) // len(group.prompts) + 1)
                residuals[number] = embedded_rows(self.chunk, group.edits, prompts)
        return residuals

    def values(self) -> Tensor:
        """The metric of each row, in the order of the wave."""
        last = len(self.dense.blocks) - 1
        flat = self.base.residuals[0].new_empty(0, self.base.residuals[0].shape[-1])
        for layer, block in enumerate(self.dense.blocks):
            self.rows.edit(Site("resid_pre", layer), flat)
            flat = self.rows.append_rows(flat, self._joining_rows(layer, INPUT, self._at_input))
            after = self._attention(layer, block, flat, shrink=layer == last)
            after = self.rows.append_rows(after, self._joining_rows(layer, AFTER_ATTENTION, self._within_block))
            if not block.parallel:
                after = self._mlp(layer, block, after, after=after)
            self.rows.edit(Site("resid_post", layer), after)
            flat = self.rows.append_rows(after, self._joining_rows(layer, END, self._within_block))
        return self._metric(self.dense.final(flat))

    # Rows that join --------------------------------------------------------------------------------------------------

    def _joining_rows(self, layer: int, stage: int, start: _StartRows) -> dict[int, Tensor]:
        """Group -> the residual stream of its rows that join at a place, ``[row, pos, d_model]``."""
        new = {}
        for number, group in enumerate(self.rows.groups):
            parts = [start(layer, group, rows) for _, rows in group.joining(layer, stage)]
            if parts:
                new[number] = torch.cat(parts)
        return new

    def _at_input(self, layer: int, group: RowGroup, rows: range) -> Tensor:
        """The residual stream of rows that join at a block's input."""
        residual = group.base_rows(self.base.residuals[layer], len(rows))
        number = self.rows.groups.index(group)
        if layer == 0 and number in self.early:
            edited = self.early[number][rows.start : rows.stop, group.window.start : group.window.stop]
            residual = torch.cat([edited, residual[len(edited) :]])
        self._edit_rows(group, Site("resid_pre", layer), rows, residual)
        return residual

    def _within_block(self, layer: int, group: RowGroup, rows: range) -> Tensor:
        """The residual stream of rows that join within a block: the unedited run's plus the effect of the edit."""
        join = group.joins[rows.start // len(group.prompts)]
        base = (
            self.base.acts[Site("resid_mid", layer)]
            if join.stage == AFTER_ATTENTION
            else self.base.residuals[layer + 1]
        )
        residual = group.base_rows(base, len(rows))
        if join.site in ("resid_mid", "resid_post"):
            self._edit_rows(group, Site(join.site, layer), rows, residual)
        elif join.site:
            residual += self._difference(layer, group, rows, join=join)
        return residual

    def _difference(self, layer: int, group: RowGroup, rows: range, *, join: Join) -> Tensor:
        """The difference that the edit of a site makes to the residual stream, ``[row, pos, d_model]``."""
        site = Site(join.site, layer)
        before = group.base_rows(self.base.acts[site], len(rows))
        after = before.clone()
        self._edit_rows(group, site, rows, after)
        block = self.dense.blocks[layer]
        if join.site in ("attn_out", "mlp_out"):
            return after - before
        if block.post1.is_identity:
            return self._summed(layer, after - before, join.site)
        bias = 0.0 if block.attention.o.bias is None else block.attention.o.bias
        sums = (self._summed(layer, part, join.site) + bias for part in (after, before))
        new, old = (block.post1(part) for part in sums)  # the norm responds to the edit
        return new - old

    def _summed(self, layer: int, heads: Tensor, site: str) -> Tensor:
        """The sum of the heads' outputs, from ``z`` or ``result``, ``[row, pos, d_model]``."""
        if site == "result":
            return heads.sum(2)
        return heads.flatten(2) @ self.dense.blocks[layer].attention.o.weight

    def _edit_rows(self, group: RowGroup, site: Site, rows: range, activation: Tensor) -> None:  # noqa: PLR0917
        """Makes the edits of joining rows in place."""
        for function in group.edit_functions(site, rows, self.device, joined=False):
            function(activation)

    # The block -------------------------------------------------------------------------------------------------------

    def _attention(self, layer: int, block: DenseBlock, flat: Tensor, *, shrink: bool) -> Tensor:
        """The residual stream after attention; for a parallel block, the output of the block."""
        if not len(flat):
            return flat[self.rows.shrink_to_answers()] if shrink else flat
        normalized = block.norm1(flat)
        attention = block.attention
        k, v = (self._by_head(part(normalized)) for part in (attention.k, attention.v))
        self.rows.edit(Site("k", layer), k)
        self.rows.edit(Site("v", layer), v)
        windows = [group.window for group in self.rows.groups if group.present]
        keys = [(keys, values) for (_, keys), (_, values) in zip(self.rows.parts(k), self.rows.parts(v), strict=True)]
        if shrink:
            remaining = self.rows.shrink_to_answers()
            flat, normalized = flat[remaining], normalized[remaining]
        q = self._by_head(attention.q(normalized))
        self.rows.edit(Site("q", layer), q)
        z = self._z(layer, block, q, keys=list(zip(windows, keys, strict=True)))
        self.rows.edit(Site("z", layer), z)
        attn_out = self._attn_out(layer, block, z)
        self.rows.edit(Site("attn_out", layer), attn_out)
        after = flat + attn_out
        if block.parallel:
            return self._mlp(layer, block, flat, after=after)
        self.rows.edit(Site("resid_mid", layer), after)
        return after

    def _z(
        self, layer: int, block: DenseBlock, q: Tensor, *, keys: list[tuple[Window, tuple[Tensor, Tensor]]]
    ) -> Tensor:
        """The flat `z`, computed group by group."""
        prefix = (self.base.kept.keys[layer], self.base.kept.values[layer])
        parts = []
        for (group, queries), (window, (k, v)) in zip(self.rows.parts(q), keys, strict=True):
            attention = block.attention
            z = attend(
                attention.queries(queries, group.window.start).transpose(1, 2),
                attention.keys(k, window.start).transpose(1, 2),
                attention.values(v).transpose(1, 2),
                rule=attention.rule,
                prefix=(group.prefix(prefix[0], window.start), group.prefix(prefix[1], window.start)),
                offset=group.window.start - window.start,
                scores_edit=self.rows.pattern_edit(group, Site("attn_scores", layer)),
                pattern_edit=self.rows.pattern_edit(group, Site("pattern", layer)),
            )
            parts.append(z.reshape(group.size, -1, self.dense.d_head))
        return torch.cat(parts)

    def _attn_out(self, layer: int, block: DenseBlock, z: Tensor) -> Tensor:
        """`attn_out`, computed as the sum of the heads' `result` if that site has edits."""
        site = Site("result", layer)
        if not self.rows.edits(site):
            return block.attn_out(z.flatten(1))
        result = torch.einsum("rhe,hed->rhd", z, self.dense.heads_out(layer))
        self.rows.edit(site, result)
        total, bias = result.sum(1), block.attention.o.bias
        return block.post1(total if bias is None else total + bias)

    def _mlp(self, layer: int, block: DenseBlock, read: Tensor, *, after: Tensor) -> Tensor:
        """``after`` plus the output of the MLP on ``read``."""
        mlp = block.mlp
        if mlp is None or not len(read):
            return after
        sites = (Site("mlp_pre", layer), Site("mlp_post", layer))
        if isinstance(mlp, NeuronMlp) and any(self.rows.edits(site) for site in sites):
            normalized = block.norm2(read)
            pre = mlp.first(normalized)
            self.rows.edit(sites[0], pre)
            post = mlp.post(pre, normalized)
            self.rows.edit(sites[1], post)
            mlp_out = block.post2(mlp.out(post))
        else:
            mlp_out = block.mlp_out(read)
        self.rows.edit(Site("mlp_out", layer), mlp_out)
        return after + mlp_out

    def _by_head(self, flat: Tensor) -> Tensor:
        return flat.view(len(flat), -1, self.dense.d_head)

    def _metric(self, flat: Tensor) -> Tensor:
        """The metric of each row, from its final normalised residual stream."""
        metric, batch = self.chunk.sweep.metric, self.chunk.batch
        at = metric.positions(batch)
        finals: list[Tensor] = []
        rows: list[int] = []
        for group, part in self.rows.parts(flat):
            final = part
            if at is None:  # the metric reads every position; positions before the window are the base run's
                final = self.base.final[group.prompts].repeat(group.turns, 1, 1)
                final[:, group.window.start : group.window.stop] = part
            elif group.at is None:
                places = at[group.prompts].to(self.device).repeat(group.turns, 1) - group.window.start
                final = gathered(part, places)
            finals.append(final)
            rows += group.rows
        prompts = [self.wave.prompts[row] - self.chunk.prompts.start for row in rows]
        indices = torch.tensor(prompts, device=self.device)
        values = metric_values(self.chunk.model, metric, batch, final=torch.cat(finals), prompts=indices)
        return values[torch.tensor(rows, device=self.device).argsort()]
