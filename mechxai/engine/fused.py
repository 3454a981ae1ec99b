"""Level 4: rows of any length side by side through plain blocks, each beginning where its edit first changes something.

Everything but attention treats the positions of all rows as one matrix; attention goes group by group, against keys and
values of the unedited run that are never copied. In the last layer only the answer position goes on.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.engine.chunk import Chunk, scored
from mechxai.engine.flat_rows import FlatRows, Group, grouped
from mechxai.engine.plan import Wave
from mechxai.engine.row_edits import Window
from mechxai.engine.row_joins import AFTER_ATTENTION, END, INPUT, Join
from mechxai.engine.suffix import embedded
from mechxai.model.backends.hooks import gathered
from mechxai.model.dense.blocks import DenseBlock, attend
from mechxai.model.dense.lookup import dense_model_of

_Begin = Callable[[int, Group, range], Tensor]  # layer, group, rows that join -> their residual stream


def run_fused(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """Level 4: the metric of each row of a wave."""
    return _Fused(chunk, wave).values()


class _Fused:
    def __init__(self, chunk: Chunk, wave: Wave) -> None:
        plain = dense_model_of(chunk.model)
        if plain is None:
            raise NotImplementedError(f"{chunk.model.name} has no plain blocks")
        self.chunk, self.wave, self.plain = chunk, wave, plain
        self.base, self.device = chunk.recorded.base, chunk.model.device
        self.rows = FlatRows(grouped(chunk, wave), self.device)
        self.early = self._embedded()

    def _embedded(self) -> dict[int, Tensor]:
        """Group -> the residual stream before block 0 of rows that are edited before it, ``[row, pos, d_model]``."""
        found = {}
        for number, group in enumerate(self.rows.groups):
            rows = {edit.row for site, edits in group.edits.items() if site.row.entry == "embed" for edit in edits}
            if rows:
                prompts = group.prompts * (max(rows) // len(group.prompts) + 1)
                found[number] = embedded(self.chunk, group.edits, prompts)
        return found

    def values(self) -> Tensor:
        """The metric of each row, in the order of the wave."""
        last = len(self.plain.blocks) - 1
        flat = self.base.residuals[0].new_empty(0, self.base.residuals[0].shape[-1])
        for layer, block in enumerate(self.plain.blocks):
            self.rows.edit(Site("resid_pre", layer), flat)
            flat = self.rows.grown(flat, self._new(layer, INPUT, self._begun))
            after = self._attention(layer, block, flat, shrink=layer == last)
            after = self.rows.grown(after, self._new(layer, AFTER_ATTENTION, self._moved))
            if not block.parallel:
                after = self._mlp(layer, block, after, after=after)
            self.rows.edit(Site("resid_post", layer), after)
            flat = self.rows.grown(after, self._new(layer, END, self._moved))
        return self._scored(self.plain.final(flat))

    # Rows that join --------------------------------------------------------------------------------------------------

    def _new(self, layer: int, stage: int, begin: _Begin) -> dict[int, Tensor]:
        """Group -> the residual stream of its rows that join at a place, ``[row, pos, d_model]``."""
        new = {}
        for number, group in enumerate(self.rows.groups):
            parts = [begin(layer, group, rows) for _, rows in group.joining(layer, stage)]
            if parts:
                new[number] = torch.cat(parts)
        return new

    def _begun(self, layer: int, group: Group, rows: range) -> Tensor:
        """Rows that begin at a block's input."""
        found = group.of_base(self.base.residuals[layer], len(rows))
        number = self.rows.groups.index(group)
        if layer == 0 and number in self.early:
            given = self.early[number][rows.start : rows.stop, group.window.start : group.window.stop]
            found = torch.cat([given, found[len(given) :]])
        self._make(group, Site("resid_pre", layer), rows, found)
        return found

    def _moved(self, layer: int, group: Group, rows: range) -> Tensor:
        """Rows that begin within a block: what the unedited run has there, moved by what the edit changes."""
        join = group.joins[rows.start // len(group.prompts)]
        here = (
            self.base.acts[Site("resid_mid", layer)]
            if join.stage == AFTER_ATTENTION
            else self.base.residuals[layer + 1]
        )
        found = group.of_base(here, len(rows))
        if join.site in ("resid_mid", "resid_post"):
            self._make(group, Site(join.site, layer), rows, found)
        elif join.site:
            found += self._difference(layer, group, rows, join=join)
        return found

    def _difference(self, layer: int, group: Group, rows: range, *, join: Join) -> Tensor:
        """What the edit of a site adds to the residual stream, ``[row, pos, d_model]``."""
        site = Site(join.site, layer)
        before = group.of_base(self.base.acts[site], len(rows))
        after = before.clone()
        self._make(group, site, rows, after)
        moved = after - before
        if join.site == "z":
            return (moved.flatten(0, 1).flatten(1) @ self.plain.blocks[layer].o.weight).view(*moved.shape[:2], -1)
        return moved.sum(2) if join.site == "result" else moved

    def _make(self, group: Group, site: Site, rows: range, activation: Tensor) -> None:  # noqa: PLR0917 - where, then what
        """Makes the edits of rows that join, in place."""
        for step in group.steps(site, rows, self.device, joined=False):
            step(activation)

    # The block -------------------------------------------------------------------------------------------------------

    def _attention(self, layer: int, block: DenseBlock, flat: Tensor, *, shrink: bool) -> Tensor:
        """The residual stream after attention; of a parallel block, its output."""
        if not len(flat):
            return flat[self.rows.shrunk()] if shrink else flat
        normalized = block.norm1(flat)
        k, v = (self._by_head(part(normalized)) for part in (block.k, block.v))
        self.rows.edit(Site("k", layer), k)
        self.rows.edit(Site("v", layer), v)
        own = [group.window for group in self.rows.groups if group.present]
        keys = [(keys, values) for (_, keys), (_, values) in zip(self.rows.parts(k), self.rows.parts(v), strict=True)]
        if shrink:
            kept = self.rows.shrunk()
            flat, normalized = flat[kept], normalized[kept]
        q = self._by_head(block.q(normalized))
        self.rows.edit(Site("q", layer), q)
        z = self._attended(layer, block, q, keys=list(zip(own, keys, strict=True)))
        self.rows.edit(Site("z", layer), z)
        attn_out = self._written(layer, block, z)
        self.rows.edit(Site("attn_out", layer), attn_out)
        after = flat + attn_out
        if block.parallel:
            return self._mlp(layer, block, flat, after=after)
        self.rows.edit(Site("resid_mid", layer), after)
        return after

    def _attended(
        self, layer: int, block: DenseBlock, q: Tensor, *, keys: list[tuple[Window, tuple[Tensor, Tensor]]]
    ) -> Tensor:
        """`z`, flat, group by group."""
        kept = (self.base.kept.keys[layer], self.base.kept.values[layer])
        parts = []
        for (group, queries), (window, (k, v)) in zip(self.rows.parts(q), keys, strict=True):
            if block.rotary:
                k, queries = block.rotary(k, window.start), block.rotary(queries, group.window.start)  # noqa: PLW2901
            z = attend(
                queries.transpose(1, 2) * block.scale,
                k.transpose(1, 2),
                v.transpose(1, 2),
                prefix=(group.before(kept[0], window.start), group.before(kept[1], window.start)),
                offset=group.window.start - window.start,
                scores_edit=self.rows.pattern_edit(group, Site("attn_scores", layer)),
                pattern_edit=self.rows.pattern_edit(group, Site("pattern", layer)),
            )
            parts.append(z.reshape(group.size, -1, self.plain.d_head))
        return torch.cat(parts)

    def _written(self, layer: int, block: DenseBlock, z: Tensor) -> Tensor:
        """`attn_out`; as the sum of what each head writes where edits are made in that."""
        site = Site("result", layer)
        if not self.rows.edits(site):
            return block.o(z.flatten(1))
        result = torch.einsum("rhe,hed->rhd", z, block.o.weight.view(self.plain.n_heads, self.plain.d_head, -1))
        self.rows.edit(site, result)
        total = result.sum(1)
        return total if block.o.bias is None else total + block.o.bias

    def _mlp(self, layer: int, block: DenseBlock, read: Tensor, *, after: Tensor) -> Tensor:
        """``after`` with the output of the MLP, which reads ``read``, added."""
        if block.mlp_in is None or block.mlp_out is None or not len(read):
            return after
        sites = (Site("mlp_pre", layer), Site("mlp_post", layer))
        if any(self.rows.edits(site) for site in sites):
            normalized = block.norm2(read)
            pre = block.mlp_in(normalized)
            self.rows.edit(sites[0], pre)
            post = block.post(pre, normalized)
            self.rows.edit(sites[1], post)
            mlp_out = block.mlp_out(post)
        else:
            mlp_out = block.mlp(read)
        self.rows.edit(Site("mlp_out", layer), mlp_out)
        return after + mlp_out

    def _by_head(self, flat: Tensor) -> Tensor:
        return flat.view(len(flat), -1, self.plain.d_head)

    def _scored(self, flat: Tensor) -> Tensor:
        """The metric of each row from its final, normalised residual stream."""
        metric, batch = self.chunk.sweep.metric, self.chunk.batch
        at = metric.positions(batch)
        finals: list[Tensor] = []
        rows: list[int] = []
        for group, part in self.rows.parts(flat):
            final = part
            if at is None:  # the metric reads every position: those before the window are the base run's
                final = self.base.final[group.prompts].repeat(group.turns, 1, 1)
                final[:, group.window.start : group.window.stop] = part
            elif group.at is None:
                places = at[group.prompts].to(self.device).repeat(group.turns, 1) - group.window.start
                final = gathered(part, places)
            finals.append(final)
            rows += group.rows
        prompts = [self.wave.prompts[row] - self.chunk.prompts.start for row in rows]
        where = torch.tensor(prompts, device=self.device)
        found = scored(self.chunk.model, metric, batch, final=torch.cat(finals), prompts=where)
        return found[torch.tensor(rows, device=self.device).argsort()]
